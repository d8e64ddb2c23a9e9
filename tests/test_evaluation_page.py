"""The page: what a model wrote is text, nothing comes from elsewhere, and the numbers are those of `score`."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from conftest import write_rows

import evaluate_model
from stages.evaluate_model import measures

SCENE = "class A(Scene):\n    def construct(self):\n        self.wait()\n"
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)


def png(width=2, height=2):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height)))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def row(name, code, loss=None, **metadata):
    evaluation = {"finish": "eos", "tokens": 3}
    if loss is not None:
        evaluation = {"nll": loss * 4, "tokens": 4, "correct": 2, "loss": loss}
    facts = {"id": name, "kind": "code", "evaluation": evaluation, "reference": SCENE, **metadata}
    return {"description": f"{EVIL} {name}", "code": code, "source": EVIL, "metadata": facts}


def tags(score, frame=None, error=None):
    issues = [] if score == 1 else [{"check": EVIL, "severity": "high", "message": EVIL}]
    return {"quality": {"score": score, "issues": issues},
            "render": {"ok": error is None, "frame": frame, "error": error and {"class": error}}}  # fmt: skip


@pytest.fixture
def evaluation(tmp_path):
    """Two evaluations of the same rows, with pictures."""
    after = [row("a", SCENE, **tags(1, "a.png")), row("b", EVIL, **tags(0, error=EVIL)), row("c", "x = 1", **tags(0.5))]
    before = [row("a", "x = (", **tags(0, error="api")), row("b", SCENE, **tags(1)), row("c", EVIL, **tags(0.5))]
    for name, rows in (("after", after), ("before", before)):
        write_rows(tmp_path / name / "generated.jsonl", rows)
        write_rows(tmp_path / name / "loss.jsonl", [row("a", SCENE, 1.0), row("b", EVIL, 2.5)])
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.png").write_bytes(png())
    (tmp_path / "metrics.jsonl").write_text('{"step":1,"loss":3.5}\n{"step":2,"eval_loss":1}\n{"step":9,"loss":0.5}\n')
    return tmp_path


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)


def build(place, *options, code=0):
    arguments = ["page", place / "after", *options]
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.output} {done.exception!r}"
    return (place / "after" / "index.html").read_text() if code == 0 else done.stderr


def everything(place):
    return ("--before", place / "before", "--frames", place / "frames", "--metrics", place / "metrics.jsonl")


def test_what_a_model_wrote_stays_text_and_nothing_comes_from_elsewhere(evaluation):
    text = build(evaluation, *everything(evaluation))
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    assert "default-src 'none'" in text
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "href" for name in attributes), (tag, attributes)
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert any(EVIL in words for words in page.words)
    (picture,) = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert base64.b64decode(picture.split(",")[1]) == png()


def test_the_page_says_what_score_and_compare_say(evaluation):
    text = " ".join(" ".join(Page(build(evaluation, *everything(evaluation))).words).split())
    rows = [json.loads(line) for line in (evaluation / "after" / "generated.jsonl").read_text().splitlines()]
    scores = measures.scores(rows)
    assert (scores["render"]["passed"], scores["render"]["n"]) == (2, 3)
    for name in measures.CHECKS:
        assert f"{name} {scores[name]['passed']} of {scores[name]['n']} {scores[name]['rate']:.1%}" in text
    assert "syntax 0.3333 0.6667 +0.3333" in text
    assert "Loss from 3.500 at step 1 to 0.500 at step 9." in text
    assert "all 2 8 1.7500 50.0%" in text
    assert "1 of 3 answers." in text


def test_the_worst_answer_comes_first_with_what_stood_there_before(evaluation):
    page = build(evaluation, *everything(evaluation))
    worst = page[page.index("The worst answers") : page.index("The most surprising")]
    assert re.findall(r"&#x27;&amp;amp; (\w)</summary>", worst) == ["b", "c", "a"]
    assert worst.count("<b>Before</b>") == worst.count("<b>Reference</b>") == 3


def test_two_pages_of_one_evaluation_are_the_same_bytes(evaluation):
    assert build(evaluation, *everything(evaluation)) == build(evaluation, *everything(evaluation))


def test_a_page_needs_an_evaluation(evaluation):
    for name in ("generated.jsonl", "loss.jsonl"):
        (evaluation / "after" / name).unlink()
    assert "holds no evaluation" in build(evaluation, code=1)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_opens_the_page_without_a_complaint(evaluation):
    build(evaluation, *everything(evaluation))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, (evaluation / "after" / "index.html").as_uri()], capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    assert "The worst answers" in done.stdout
    assert "CONSOLE" not in done.stderr
