"""Papers from a server on this machine that speaks arXiv's protocol, and from a folder."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from conftest import read_rows, run_script

from extractors import BadRow, Fetch, load
from extractors._sections import split_sections

pymupdf = pytest.importorskip("pymupdf")
pytest.importorskip("requests")
WORDS = "We study how programs that draw can be learnt from few examples, and what it costs. " * 3


def make_paper(title="On drawing"):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((72, 60), title, fontsize=22)
    for number, name in enumerate(["1 Introduction", "2 Method", "3 Thanks", "References"]):
        page.insert_text((72, 120 + 150 * number), name, fontsize=15, fontname="hebo")
        body = "Short." if name == "3 Thanks" else WORDS
        page.insert_textbox((72, 130 + 150 * number, 520, 250 + 150 * number), body, fontsize=10)
    picture = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 60, 60), False)
    picture.clear_with(90)
    document.new_page().insert_image((72, 72, 372, 372), pixmap=picture)
    return document.tobytes()


def make_columns(headings):
    """Two columns, a title above them, a table at the end of the second."""
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((120, 60), "On drawing", fontsize=20, fontname="hebo")
    for number, name in enumerate(headings):
        left, top = 60 + 250 * (number // 3), 120 + 190 * (number % 3) + 15 * (number // 3)
        page.insert_text((left, top), name, fontsize=10, fontname="hebo")
        page.insert_textbox((left, top + 10, left + 230, top + 170), f"Body{number}. {WORDS}", fontsize=9)
    for row in range(3):
        page.draw_line((310, 700 + 20 * row), (530, 700 + 20 * row))
        page.draw_line((310 + 110 * row, 700), (310 + 110 * row, 740))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        page.insert_text((315 + 110 * column, 714 + 20 * row), f"cell{row}{column}", fontsize=8)
    return document.tobytes()


class Arxiv:
    """The Atom API and the PDF files; `answers` says what is wrong with the next ones."""

    def __init__(self):
        self.pdf, self.answers, self.asked, self.queries = make_paper(), {}, [], []
        self.mark, self.licence = '"one"', "http://creativecommons.org/licenses/by-sa/4.0/"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                place = urlsplit(self.path)
                outer.asked.append((place.path, self.headers.get("Range")))
                wrong = outer.answers.get(place.path, [])
                if wrong and wrong.pop(0)(self):
                    return
                body = outer.pdf
                if place.path == "/api/query":
                    outer.queries.append(parse_qs(place.query))
                    body = outer.feed().encode()
                if place.path == "/oai":
                    space = 'xmlns="http://arxiv.org/OAI/arXiv/"'
                    outer.queries.append(parse_qs(place.query))
                    body = f"<OAI-PMH><arXiv {space}><license>{outer.licence}</license></arXiv></OAI-PMH>".encode()
                begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                begin = begin if self.headers.get("If-Range") == outer.mark else 0
                self.send_response(206 if begin else 200)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - begin))
                self.end_headers()
                self.wfile.write(body[begin:])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def feed(self):
        entries = "".join(
            f"<entry><id>http://arxiv.org/abs/2611.0000{number}v1</id><title>Paper\n {number}</title>"
            f"<author><name>Ada L.</name></author>"
            f'<link title="pdf" href="{self.url}/pdf/2611.0000{number}v1"/></entry>'
            for number in (1, 2)
        )
        return f'<feed xmlns="http://www.w3.org/2005/Atom">{entries}</feed>'


def say(code, **headers):
    def answer(handler):
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return answer


def truncated(arxiv):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(arxiv.pdf)))
        handler.send_header("ETag", arxiv.mark)
        handler.end_headers()
        handler.wfile.write(arxiv.pdf[:1500])
        handler.close_connection = True
        return True

    return answer


def web_page(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"sorry")
    return True


@pytest.fixture
def arxiv():
    made = Arxiv()
    yield made
    made.server.shutdown()
    made.server.server_close()


def read(arxiv, tmp_path, *, offline=False, **options):
    fetch = Fetch(tmp_path / "cache", offline=offline)
    addresses = {"api_url": f"{arxiv.url}/api/query", "oai_url": f"{arxiv.url}/oai"}
    return list(load("arxiv")(fetch=fetch, delay=0.0, **addresses | {"categories": ["cs.LG"]} | options))


def titles(rows):
    return [(row["metadata"]["paper"]["id"], row["metadata"]["section"]) for row in rows if isinstance(row, dict)]


def bad(rows):
    return [row for row in rows if isinstance(row, BadRow)]


ONE = [("2611.00001v1", "Introduction"), ("2611.00001v1", "Method")]
TWO = [("2611.00002v1", "Introduction"), ("2611.00002v1", "Method")]


def test_papers_become_sections_figures_and_papers_json_and_a_second_run_is_offline(arxiv, tmp_path):
    rows = read(arxiv, tmp_path, categories=["cs.LG", "cs.AI"])
    assert titles(rows) == ONE + TWO
    first = next(row for row in rows if isinstance(row, dict))
    assert first["metadata"]["licence"] == "CC-BY-SA-4.0"
    assert first["metadata"]["paper"] == {"id": "2611.00001v1", "title": "Paper 1", "authors": ["Ada L."]}
    assert [row.code for row in bad(rows)] == ["scanned_page", "front_matter", "short_section", "references"] * 2
    assert bad(rows)[0].origin["page"] == 2 and "We study how programs" in bad(rows)[3].raw
    assert arxiv.queries[0]["search_query"] == ["cat:cs.LG"]
    assert arxiv.queries[0]["sortOrder"] == ["descending"] and arxiv.queries[0]["max_results"] == ["7"]
    papers = json.loads((tmp_path / "cache" / "papers.json").read_text())
    assert [sorted(paper) for paper in papers] == [["authors", "full_text", "id", "licence", "pdf_path", "title"]] * 2
    assert "figures/2611.00001v1/" in papers[0]["full_text"]
    assert [file.read_bytes()[:4] for file in (tmp_path / "cache").rglob("*.png")] == [b"\x89PNG"] * 2
    asked = len(arxiv.asked)
    assert read(arxiv, tmp_path, offline=True, categories=["cs.LG", "cs.AI"]) == rows
    assert len(arxiv.asked) == asked


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (say(404), "answers 404"),
        (say(429, Retry_After="9999"), "pause of 9999 seconds"),
        (say(302, Location="http://example.invalid/x.pdf"), "refused, it leads away"),
        (say(302, Location="file:///etc/passwd"), "refused, it leads away"),
        (web_page, "no PDF"),
    ],
)
def test_a_paper_that_fails_is_named_the_others_go_on_and_a_second_run_gets_it(arxiv, tmp_path, wrong, message):
    arxiv.answers["/pdf/2611.00001v1"] = [wrong]
    rows = read(arxiv, tmp_path)
    assert titles(rows) == TWO
    failed = [row for row in bad(rows) if row.code == "download_failed"]
    assert len(failed) == 1 and message in failed[0].message and "\n" not in failed[0].message
    assert titles(read(arxiv, tmp_path)) == ONE + TWO


def test_a_pause_that_the_server_asks_for_is_kept_and_the_paper_arrives(arxiv, tmp_path):
    arxiv.answers["/pdf/2611.00001v1"] = [say(429, Retry_After="0")]
    assert titles(read(arxiv, tmp_path)) == ONE + TWO


def test_a_truncated_paper_never_reaches_the_cache_and_goes_on_where_it_broke_off(arxiv, tmp_path):
    arxiv.answers["/pdf/2611.00001v1"] = [truncated(arxiv)]
    assert titles(read(arxiv, tmp_path)) == TWO
    assert not (tmp_path / "cache" / "pdf" / "2611.00001v1.pdf").exists()
    assert titles(read(arxiv, tmp_path)) == ONE + TWO
    assert ("/pdf/2611.00001v1", "bytes=1024-") in arxiv.asked
    assert (tmp_path / "cache" / "pdf" / "2611.00001v1.pdf").read_bytes() == arxiv.pdf


@pytest.mark.parametrize("change", ["the part", "the note", "the file on the server", "what the server sends"])
def test_a_part_that_may_be_another_file_is_never_gone_on_with(arxiv, tmp_path, change):
    arxiv.answers["/pdf/2611.00001v1"] = [truncated(arxiv)]
    read(arxiv, tmp_path)
    part, note = ((tmp_path / "cache" / "pdf" / f"2611.00001v1.pdf.{end}") for end in ("part", "note"))
    assert part.read_bytes() == arxiv.pdf[:1024]
    if change == "the part":
        part.write_bytes(b"%PDF-" + b"x" * 1019)
    elif change == "the note":
        note.write_text("{")
    elif change == "the file on the server":
        arxiv.mark, arxiv.pdf = '"two"', make_paper("On painting")
    else:
        arxiv.answers["/pdf/2611.00001v1"] = [say(206, Content_Range="bytes 7-9/10")]
        assert "another part than the one asked for" in bad(read(arxiv, tmp_path))[0].message
    assert titles(read(arxiv, tmp_path)) == ONE + TWO
    assert (tmp_path / "cache" / "pdf" / "2611.00001v1.pdf").read_bytes() == arxiv.pdf


def test_a_paper_that_is_cut_off_is_fetched_again_though_it_stands_in_the_cache(arxiv, tmp_path):
    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1500")
        handler.end_headers()
        handler.wfile.write(arxiv.pdf[:1500])
        return True

    arxiv.answers["/pdf/2611.00001v1"] = [short]
    assert "cut off" in bad(read(arxiv, tmp_path))[0].message
    assert titles(read(arxiv, tmp_path)) == ONE + TWO
    (tmp_path / "cache" / "pdf" / "2611.00001v1.pdf").write_bytes(arxiv.pdf[:3000])
    assert titles(read(arxiv, tmp_path)) == ONE + TWO


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("http://arxiv.org/licenses/nonexclusive-distrib/1.0/", "http://arxiv.org/licenses/nonexclusive-distrib/1.0/"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("", None),
        (None, None),
    ],
)
def test_the_licence_is_what_arxiv_says_of_the_paper_or_none(arxiv, tmp_path, said, licence):
    arxiv.licence = said
    if said is None:
        arxiv.answers["/oai"] = [say(404), web_page]
    rows = read(arxiv, tmp_path)
    assert {row["metadata"]["licence"] for row in rows if isinstance(row, dict)} == {licence}
    assert json.loads((tmp_path / "cache" / "papers.json").read_text())[0]["licence"] == licence
    if said is not None:
        assert arxiv.queries[1]["identifier"] == ["oai:arXiv.org:2611.00001"]


def test_a_paper_is_converted_once_until_its_file_or_its_figures_change(tmp_path):
    (tmp_path / "mine.pdf").write_bytes(make_paper())
    fetch = Fetch(tmp_path / "cache")

    def look():
        rows = load("arxiv")(fetch=fetch, path=str(tmp_path / "mine.pdf"))
        return [row["code"] for row in rows if isinstance(row, dict)]

    rows = look()
    (kept,) = (tmp_path / "cache" / "markdown").iterdir()
    kept.write_text(kept.read_text().replace("We study", "We STUDY"))
    assert "We STUDY" in look()[0] and "We study" in rows[0]
    next((tmp_path / "cache" / "figures").rglob("*.png")).unlink()
    assert look() == rows
    (tmp_path / "mine.pdf").write_bytes(make_paper("On painting"))
    look()
    assert json.loads((tmp_path / "cache" / "papers.json").read_text())[0]["title"] == "On painting"


@pytest.mark.parametrize(
    "headings",
    [
        ["Abstract", "1 Introduction", "2 Related Work", "3 Method", "4 Results", "References"],
        ["Abstract", "I. INTRODUCTION", "II. RELATED WORK", "III. METHOD", "IV. RESULTS", "REFERENCES"],
        ["Abstract", "Introduction", "Related Work", "Method", "Results", "References"],
        ["Abstract", "1. Introduction", "2. Related work", "3. Method", "4. Results", "Bibliography"],
    ],
)
def test_a_paper_in_two_columns_is_split_in_its_reading_order(tmp_path, headings):
    (tmp_path / "mine.pdf").write_bytes(make_columns(headings))
    rows = list(load("arxiv")(fetch=Fetch(tmp_path / "cache"), path=str(tmp_path)))
    sections = [row for row in rows if isinstance(row, dict)]
    plain = [
        heading.split(" ", 1)[-1] if heading[0] in "1234IV" and " " in heading else heading for heading in headings
    ]
    assert [row["metadata"]["section"] for row in sections if "Body" in row["code"]] == plain[:5]
    assert all(f"Body{number}." in row["code"] for number, row in enumerate(sections[-5:]))
    assert [row.code for row in bad(rows)][-1] == "references" and "Body5." in bad(rows)[-1].raw
    (paper,) = json.loads((tmp_path / "cache" / "papers.json").read_text())
    assert "|cell10|cell11|" in paper["full_text"]


def test_a_list_that_fails_stops_the_source(arxiv, tmp_path):
    for wrong, message in [(say(404), "answers 404"), (web_page, "no Atom feed")]:
        arxiv.answers["/api/query"] = [wrong]
        with pytest.raises(click.ClickException, match=message):
            read(arxiv, tmp_path)
    with pytest.raises(click.ClickException, match="--offline forbids"):
        read(arxiv, tmp_path, offline=True)
    with pytest.raises(click.UsageError, match="no arXiv id"):
        read(arxiv, tmp_path, categories=None, ids=["../x"])


def test_named_papers_are_asked_for_by_id(arxiv, tmp_path):
    read(arxiv, tmp_path, categories=None, ids=["2611.00001v1", "2611.00002v1"])
    assert arxiv.queries[0]["id_list"] == ["2611.00001v1,2611.00002v1"]


def test_a_folder_of_papers_needs_no_network_and_runs_through_the_driver(tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "mine.pdf").write_bytes(make_paper())
    (tmp_path / "papers" / "torn.pdf").write_bytes(b"%PDF-1.4 torn")
    (tmp_path / "sources.yaml").write_text("papers:\n  type: arxiv\n  path: papers\n")
    done = run_script("prepare_data.py", "prepare", "--offline", "--cache-dir", "c", cwd=tmp_path, check=0)
    assert "1 broken_file" in done.err
    rows = [row for side in ("train", "test") for row in read_rows(tmp_path / "data_formatted" / f"{side}.json")]
    assert {row["metadata"]["kind"] for row in rows} == {"document"}
    assert {row["metadata"]["paper"]["id"] for row in rows} == {"mine"}
    assert json.loads((tmp_path / "c" / "arxiv" / "papers.json").read_text())[0]["title"] == "On drawing"


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# T\n\n**1** **Introduction**\n\nx\n\n**2** **Our Way**\n\ny", ["", "Introduction", "Our Way"]),
        ("## 1 Introduction\nx\n### 1.1 Deep\ny\n## 2. End\nz", ["Introduction", "End"]),
        ("# **I. INTRO**\nx\n# **II. METHOD**\ny\n# **REFERENCES**\nz", ["INTRO", "METHOD", "REFERENCES"]),
        ("## Introduction\nx\n## Related Work\ny\n**Results**\nz", ["Introduction", "Related Work", "Results"]),
        ("**Abstract**\nx\n## 1 A\ny\n## 2 B\nz", ["Abstract", "A", "B"]),
        ("_Abstract_ —We show\n## 1 A\ny\n## Caption\n## 2 B\nz", ["Abstract", "A", "B"]),
        ("## 1 A ..... 3\n**2 B . . . . . 4**\n## 1 A\nx\n_**2 B**_\ny", ["", "A", "B"]),
        ("Abstract thoughts stay text.\n\n**bold** words too", [""]),
    ],
)
def test_headings_of_all_common_forms_are_known(markdown, expected):
    assert [section.title for section in split_sections(markdown)] == expected
