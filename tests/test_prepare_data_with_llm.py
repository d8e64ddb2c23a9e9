"""Stage 2: descriptions by a language model, asked as little as possible, or offline from the program itself."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from fake_llm import FakeLLM, Reply, description_for, error, good, says

import schema

SCRIPT = "prepare_data_with_llm.py"
KEYS = {"openai": "OPENAI_API_KEY", "claude": "ANTHROPIC_API_KEY"}
AUTHORS = {"openai": "openai/gpt-4o-mini", "claude": "anthropic/claude-haiku-5-5"}
SECRET = "sk-this-is-a-secret"
both_providers = pytest.mark.parametrize("llm", ["openai", "claude"])


def needy(number, **metadata):
    return record(number, description="", metadata={"needs_description": True, **metadata})


def generate(*options, cwd, source="in.jsonl", output="out/rows.jsonl", **others):
    return run_script(
        SCRIPT, "generate-descriptions", "--input", source, "--output", output, *options, cwd=cwd, **others
    )


def ask(server, llm, *options, cwd, **others):
    """One run against the fake server."""
    url = server.url("openai" if llm == "openai" else "anthropic")
    return generate("--llm", llm, "--base-url", url, *options, cwd=cwd, env={KEYS[llm]: SECRET}, **others)


def scene_of(call):
    return int(re.search(r"class Scene(\d+)\(", call.user)[1])


def folder_of(path):
    """Every file under a folder, as bytes, but for locks."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.endswith(".lock")
    }


# --- offline ----------------------------------------------------------------------------------------------------------


def test_offline_describes_what_needs_it_and_leaves_the_rest_alone(tmp_path):
    rows = [
        needy(1, mine={"ä": [1, None]}, video_title="Circles"),
        record(2),
        record(3, metadata={}),
        record(4, description="[PENDING_DESCRIPTION] later", metadata={"kind": "code"}),
        record(5, metadata={"needs_description": False}),
        b"broken",
        needy(6),
    ]
    write_rows(tmp_path / "external_data.jsonl", rows)
    done = generate(cwd=tmp_path, source="external_data.jsonl", output="today/rows.jsonl", check=0)
    assert "there is no key, so nobody is asked" in done.err
    kept = read_rows(tmp_path / "today/rows.jsonl")
    assert [row["code"] for row in kept] == [row["code"] for row in rows if isinstance(row, dict)]
    assert [row["description"] for row in kept[1:3]] == [rows[1]["description"], rows[2]["description"]]
    assert all("description_generated_by" not in kept[place]["metadata"] for place in (1, 2, 4))
    for place in (0, 3, 5):
        metadata = kept[place]["metadata"]
        assert metadata["needs_description"] is False
        assert metadata["description_generated_by"] == "offline/1"
        assert metadata["code_features"]["has_animations"] is True
        assert "original_description" not in metadata, "a placeholder is no description"
        assert 15 <= len(kept[place]["description"].split()) <= 60
    assert kept[0]["metadata"]["mine"] == {"ä": [1, None]}
    assert [entry["stage"] for entry in kept[0]["metadata"]["lineage"]] == ["generate-descriptions"]
    assert read_rows(tmp_path / "today/rows.rejects.jsonl")[0]["metadata"]["error"]["code"] == "not_json"
    assert not (tmp_path / ".cache").exists(), "offline needs no cache"


def test_all_describes_every_row_and_keeps_the_first_text_it_replaces(tmp_path):
    rows = [record(1), record(2, metadata={"original_description": "the very first"}), needy(3)]
    write_rows(tmp_path / "in.jsonl", rows)
    generate("--all", "--llm", "offline", cwd=tmp_path, check=0)
    kept = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["metadata"].get("original_description") for row in kept] == [
        rows[0]["description"],
        "the very first",
        None,
    ]
    assert all(row["metadata"]["description_generated_by"] == "offline/1" for row in kept)


def test_what_is_no_program_is_rejected_with_its_reason_and_can_be_run_again(tmp_path):
    rows = [
        needy(1),
        {**needy(2), "code": "class A(Scene: pass"},
        {**needy(3), "code": "a\0b"},
        needy(4, kind="document"),
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    generate("--llm", "offline", cwd=tmp_path, check=0)
    faults = [row["metadata"]["error"] for row in read_rows(tmp_path / "out/rows.rejects.jsonl")]
    assert [fault["code"] for fault in faults] == ["not_python", "not_python", "not_a_program"]
    assert "line 1" in faults[0]["message"]
    generate("--llm", "offline", cwd=tmp_path, source="out/rows.rejects.jsonl", output="again.jsonl", check=0)
    assert len(read_rows(tmp_path / "again.rejects.jsonl")) == 3


def scene(body, name="MyScene", base="Scene", before=""):
    lines = "\n".join(f"        {line}" for line in body.strip().split("\n"))
    return f"from manim import *\n\n{before}\nclass {name}({base}):\n    def construct(self):\n{lines}\n"


DESCRIBED = [
    ("self.play(Create(Circle(color=RED)))", ["a red circle", "Draw the circle"]),
    ('self.play(Write(Text("Hello")))', ['the text "Hello"', "Write the text"]),
    ('self.play(Write(MathTex(r"x^2")))', ["the formula $x^2$"]),
    ("s = Square()\nself.play(s.animate.shift(2 * RIGHT).rotate(PI / 4))", ["two units to the right", "by 45 degrees"]),
    ("a, b = Circle(), Square()\nself.play(ReplacementTransform(a, b))", ["transform the circle into the square"]),
    ("self.add(*[Dot() for _ in range(30)])", ["30 dots"]),
    ("for x in range(9):\n    self.add(Star())", ["nine stars"]),
    ("self.add(VGroup(Circle(), Square(), Circle()))", ["two circles and a square"]),
    ("ax = Axes()\nself.add(ax, ax.plot(lambda x: np.sin(x)))", ["coordinate axes", "a curve of y = sin(x)"]),
    (
        "t = Text('A').to_edge(UP)\nself.add(t, SurroundingRectangle(t, color=YELLOW))",
        ["top edge", "yellow frame around"],
    ),
    (
        "d = Dot()\nl = Text('P')\nl.add_updater(lambda m: m.next_to(d, UP))\nself.add(d, l)",
        ["keep the text above the dot"],
    ),
    ("self.camera.background_color = WHITE\nself.add(Circle())", ["Use a white background."]),
    ("self.play(self.camera.frame.animate.scale(0.5))", ["zoom the camera in"]),
    ("self.set_camera_orientation(phi=75 * DEGREES)\nself.add(Cube())", ["a cube", "View it in 3D", "75 degrees"]),
    ("self.play(FadeOut(*self.mobjects))", ["Fade out everything"]),
    ("self.play(Indicate(Circle()), run_time=3)", ["Highlight the circle over 3 seconds"]),
]


@pytest.mark.parametrize(("body", "expected"), DESCRIBED, ids=[body for body, _ in DESCRIBED])
def test_the_offline_description_says_what_the_program_shows(body, expected):
    from stages.prepare_data_with_llm.offline import describe

    text = describe(scene(body), {})
    assert [words for words in expected if words.lower() not in text.lower()] == [], text
    assert 15 <= len(text.split()) <= 60
    assert text == describe(scene(body), {})


def test_the_offline_description_tells_names_helpers_and_context_but_stays_short():
    from stages.prepare_data_with_llm.offline import describe

    helper = "    def dot(self):\n        return Dot(color=BLUE)\n"
    code = scene("self.play(FadeIn(self.dot()))", name="RollingBallExample") + helper
    text = describe(
        code, {"before_context": "The ball rolls down a hill without friction. Parameters ---------- x A value."}
    )
    assert '"Rolling Ball"' in text
    assert "a blue dot" in text
    assert "The ball rolls down a hill without friction." in text
    assert "Parameters" not in text
    long = scene("\n".join(f"self.play(Create(Text('label number {n}')))" for n in range(80)))
    assert 15 <= len(describe(long, {}).split()) <= 60
    assert "Bird" in describe("class Bird:\n    'A bird that sings all day long.'\n", {})
    assert "two Manim animations" in describe(scene("self.add(Dot())", "A") + scene("self.add(Cube())", "B"), {})


HOSTILE_PROGRAMS = [
    "s = 'a'\n" + "s = s + s\n" * 200 + "self.add(Text(s))",
    "g = VGroup(Dot())\n" + "g = VGroup(g, g)\n" * 200 + "self.add(g)",
    "g = VGroup(Dot(), Dot())\n" + "g = VGroup(g.copy(), g.copy())\n" * 60 + "self.add(g)",
    "a = [Dot()]\n" + "a = [a, a]\n" * 200 + "self.add(*a)",
    "g = VGroup()\ng.add(g)\nself.add(g)\nself.play(FadeIn(g))",
    "x = 9 ** 9 ** 9 ** 9\nself.add(Dot().shift(x * UP))",
    "for a in range(10 ** 30):\n    self.add(Dot())",
    "f = lambda: f()\nself.add(f())",
    "t = Text('a')\n" + "t = t[0]\n" * 500 + "self.play(FadeIn(t))",
    "d = [Dot() for _ in range(12)]\n" + "self.play(*[FadeIn(x) for x in d])\nd = d + d\n" * 150,
    "while True:\n    self.wait()",
    "self.construct()",
    "self.add(Square(1e999), Circle(radius=-0.0), Text(f'{1e308 * 10}'))",
]


@pytest.mark.parametrize("body", HOSTILE_PROGRAMS, ids=lambda body: body[:30])
def test_no_program_can_make_the_offline_describer_run_away(body):
    from stages.prepare_data_with_llm.offline import describe

    began = time.process_time()
    assert 15 <= len(describe(scene(body), {}).split()) <= 60
    assert time.process_time() - began < 2


FEATURES = [
    (
        "MathTex('x^2 | y')",
        {"has_latex": True, "has_xor": False, "has_binary_ops": False, "visual_elements": ["equations"]},
    ),
    ("a = 5 ^ 3", {"has_xor": True, "has_binary_ops": True, "visual_elements": []}),
    ("a = bin(5)", {"has_xor": False, "has_binary_ops": True}),
    ("NumberLine()", {"has_graphs": True, "visual_elements": []}),
    ("RoundedRectangle()", {"visual_elements": []}),
    (
        "VGroup(Dot(), Circle(), m.Line(), Arrow())",
        {"visual_elements": ["circles", "lines", "arrows", "groups", "dots"]},
    ),
    ("def f(a: int | None) -> int | str: ...", {"has_binary_ops": False}),
    ("# Circle() and 1 ^ 2\n'Square()'", {"has_xor": False, "visual_elements": []}),
    (
        "class A(ThreeDScene):\n    def construct(self): self.play(Create(Sphere()))",
        {"has_3d": True, "has_animations": True},
    ),
    ("class A(VoiceoverScene): ...", {"has_voiceover": True, "has_animations": False}),
]


@pytest.mark.parametrize(("code", "expected"), FEATURES, ids=[code for code, _ in FEATURES])
def test_features_come_from_the_syntax_tree(code, expected):
    from stages.prepare_data_with_llm.features import code_features

    found = code_features(code)
    assert {name: found[name] for name in expected} == expected
    assert code_features("def broken(") is None


# --- whom to ask ------------------------------------------------------------------------------------------------------


def test_the_provider_follows_from_the_keys(tmp_path):
    write_rows(tmp_path / "in.jsonl", [needy(1)])
    both = {KEYS["openai"]: SECRET, KEYS["claude"]: SECRET}
    assert "--llm" in generate(cwd=tmp_path, env=both, check=2).err
    done = generate("--dry-run", cwd=tmp_path, env={KEYS["claude"]: SECRET}, check=0)
    assert "anthropic/claude-haiku-5-5" in done.out
    (tmp_path / ".env").write_text(f"# mine\nexport OPENAI_API_KEY='{SECRET}' # comment\n")
    assert "openai/gpt-4o-mini" in generate("--dry-run", cwd=tmp_path, check=0).out
    (tmp_path / "below").mkdir()
    done = generate("--dry-run", cwd=tmp_path / "below", source="../in.jsonl", check=0)
    assert "offline/1" in done.out, "the .env of another folder is nobody's business"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".cache").exists(), "a dry run writes nothing"


NO_KEY = [
    (["--llm", "claude"], {}, "ANTHROPIC_API_KEY"),
    (["--llm", "openai"], {"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY"),
    (["--llm", "openai", "--api-key-file", "gone"], {}, "gone"),
    (["--llm", "openai", "--api-key-file", "in.jsonl"], {}, "not one key"),
    (["--api-key-file", "in.jsonl"], {}, "--llm"),
    (["--llm", "openai"], {"OPENAI_API_KEY": "sk-\u00e4"}, "ASCII"),
    (["--llm", "openai", "--base-url", "localhost:80"], {"OPENAI_API_KEY": "x"}, "http://"),
    (["--llm", "openai", "--prompt", "gone.md"], {"OPENAI_API_KEY": "x"}, "gone.md"),
    (["--llm", "openai", "--prompt", "bad.md"], {"OPENAI_API_KEY": "x"}, "{{cod}}"),
    (["--llm", "openai", "--prompt", "in.jsonl"], {"OPENAI_API_KEY": "x"}, "version:"),
    (["--llm", "openai", "--cache-dir", "."], {"OPENAI_API_KEY": "x"}, "other files"),
]


@pytest.mark.parametrize(("options", "env", "named"), NO_KEY, ids=lambda value: str(value)[:60])
def test_a_missing_key_or_a_wrong_file_is_one_line_and_nothing_is_written(tmp_path, options, env, named):
    write_rows(tmp_path / "in.jsonl", [needy(1), needy(2)])
    (tmp_path / "bad.md").write_text("version: x/1\n\n## system\n\n## user\n\n{{cod}}")
    before = folder_of(tmp_path)
    done = generate(*options, cwd=tmp_path, env=env, check=2)
    assert named in done.err.strip().split("\n")[-1]
    assert folder_of(tmp_path) == before


def test_a_missing_package_is_one_line(tmp_path):
    write_rows(tmp_path / "in.jsonl", [needy(1)])
    program = (
        "import sys, runpy\n"
        f"sys.path.insert(0, {str(ROOT)!r}); sys.modules['openai'] = None\n"
        f"sys.argv = ['x', 'generate-descriptions', '--input', 'in.jsonl', '--output', 'o.jsonl', '--llm', 'openai']\n"
        f"runpy.run_path({str(ROOT / SCRIPT)!r}, run_name='__main__')"
    )
    env = CLEAN | {"OPENAI_API_KEY": SECRET}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "linemill[llm]" in done.stderr.strip().split("\n")[-1]
    assert not (tmp_path / "o.jsonl").exists()


# --- each request once ------------------------------------------------------------------------------------------------


@both_providers
def test_one_edited_line_of_fifty_is_one_request_and_an_unedited_file_none(tmp_path, server, llm):
    server.plan = lambda call: Reply(**{**vars(good(call)), "delay": 0.01 * (scene_of(call) % 5)})
    rows = [needy(number) if number % 5 else record(number) for number in range(62)]
    rows = [*rows[:8], needy(7, copied="row"), *rows[8:], b"broken"]  # the copy comes while the first is under way
    write_rows(tmp_path / "data/train.json", rows)
    options = ("--concurrency", "8", "--quiet")
    ask(server, llm, *options, cwd=tmp_path, source="data/train.json", output="enhanced/train.json", check=0)
    first = (tmp_path / "enhanced/train.json").read_bytes()
    kept = read_rows(tmp_path / "enhanced/train.json")
    assert len(server.log) == 49 == len({call.prompt for call in server.log}), "equal rows share one request"
    assert server.most_in_flight == 8
    assert {call.key for call in server.log} == {SECRET}
    assert [row["code"] for row in kept] == [row["code"] for row in rows[:-1]], "every row in its place"
    asked = {scene_of(call): description_for(call) for call in server.log}
    for row in kept:
        number = int(re.search(r"Scene(\d+)", row["code"])[1])
        if "description_generated_by" in row["metadata"]:
            assert row["description"] == asked[number], "each answer at its own row"
            assert row["metadata"]["description_generated_by"] == AUTHORS[llm]
            assert len(row["metadata"]["lineage"][-1]["request"]) == 64
        else:
            assert row["description"] == record(number)["description"]

    ask(server, llm, cwd=tmp_path, source="data/train.json", output="enhanced/train.json", check=0)
    assert len(server.log) == 49
    assert (tmp_path / "enhanced/train.json").read_bytes() == first, "the same bytes, asked or remembered"

    rows[12]["code"] = rows[12]["code"].replace("self.wait()", "self.wait(2)")
    write_rows(tmp_path / "data/train.json", rows)
    ask(server, llm, cwd=tmp_path, source="data/train.json", output="enhanced/train.json", check=0)
    assert len(server.log) == 50
    assert "self.wait(2)" in server.log[-1].user
    expected = {"cached": 49, "calls": 1, "answered": 1, "merged": 0}
    told = json.loads((tmp_path / "enhanced/train.ledger.json").read_bytes())["extra"]["llm"]
    assert {name: told.get(name, 0) for name in expected} == expected | {"cached": 49}


def test_another_model_prompt_or_provider_is_another_request(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [needy(1, before_context="A wheel turns.", video_title="Wheels"), needy(2)])
    ask(server, "openai", cwd=tmp_path, check=0)
    assert "A wheel turns." in server.log[0].user
    assert "Title of the video it is from: Wheels" in server.log[0].user
    ours = (ROOT / "stages/prepare_data_with_llm/prompts/description.md").read_text()
    (tmp_path / "mine.md").write_text(ours.replace("words: 60", "words: 20"))

    def new_requests(llm, *options):
        text = ask(server, llm, "--dry-run", *options, cwd=tmp_path, check=0).out
        return int(re.search(r"(\d+) new requests", text)[1])

    assert new_requests("openai") == 0
    assert new_requests("openai", "--concurrency", "3", "--timeout", "9", "--rpm", "600") == 0
    assert new_requests("openai", "--model", "gpt-4.1") == 2
    assert new_requests("openai", "--prompt", "mine.md") == 2
    assert new_requests("openai", "--max-tokens", "99") == 2
    assert new_requests("claude") == 2
    write_rows(tmp_path / "in.jsonl", [needy(1, before_context="A wheel stops.", video_title="Wheels"), needy(2)])
    assert new_requests("openai") == 1, "what stands around a program is part of the question"
    assert len(server.log) == 2, "a dry run asks nothing"


def test_a_long_program_is_cut_in_the_prompt_and_a_place_in_it_is_not_filled():
    from stages.prepare_data_with_llm.describe import load, question_about

    prompt = load(None)
    code = "x = '{{context}}'\n" * 1000
    text = question_about(record(1, code=code), None, prompt)
    assert "{{context}}" in text
    assert f"cut here, {len(code) - prompt.characters:,} characters more" in text
    assert f"at most the first {prompt.characters:,} characters" in text


# --- what can go wrong ------------------------------------------------------------------------------------------------

BROKEN = b'{"choices": [{"mess'
TROUBLE = {  # what the server does to scene N at its first attempt, and what becomes of the row
    1: lambda call: error(429, "slow down", "rate_limit", retry_after="1"),
    2: lambda call: error(503),
    3: lambda call: Reply(drop=True),
    4: lambda call: Reply(body=BROKEN, headers={"content-type": "application/json"}),
    5: lambda call: Reply(body=b"\xff\xfe<html>", headers={"content-type": "text/html"}),
    6: lambda call: Reply(delay=9),
    7: lambda call: says(call, '{"description": "Create a', "length"),
    8: lambda call: says(call, '{"text": "wrong name"}'),
    9: lambda call: says(call, ""),
    10: lambda call: Reply(body=b"[]"),
    11: lambda call: says(call, '{"description": "half a pair \\ud800"}'),
}
HOPELESS = {  # at every attempt
    21: (lambda call: error(400, "bad request"), "llm_invalid_request", 1),
    22: (lambda call: says(call, "I can not do that.", "content_filter", "I can not do that."), "llm_refused", 1),
    23: (lambda call: says(call, '{"description": "Create a', "length"), "llm_bad_answer", 2),
    24: (lambda call: says(call, 'Of course!\n```json\n{"description": "x"}\n```'), "llm_bad_answer", 2),
    25: (lambda call: says(call, '{"description": "   "}'), "llm_bad_answer", 2),
    26: (lambda call: error(500, f"it broke {SECRET}"), "llm_failed", 3),
}


@both_providers
def test_each_trouble_is_survived_or_becomes_a_reject_and_a_second_run_asks_for_those_alone(tmp_path, server, llm):
    tries = {}

    def plan(call):
        number = scene_of(call)
        tries.setdefault(number, []).append((time.monotonic(), call))
        if number in HOPELESS:
            return HOPELESS[number][0](call)
        return TROUBLE[number](call) if number in TROUBLE and len(tries[number]) == 1 else None

    server.plan = plan
    numbers = [0, *TROUBLE, *HOPELESS, 30]
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in numbers])
    done = ask(server, llm, "--retries", "2", "--timeout", "2", "--concurrency", "32", cwd=tmp_path, check=3)
    assert "1 rows got no answer; the same command asks for those alone" in done.err
    assert tries[1][1][0] - tries[1][0][0] >= 1, "Retry-After is kept"
    assert tries[7][1][1].body.get("max_tokens", 0) == 4 * tries[7][0][1].body.get("max_tokens", 0), "more room"
    assert "wrong" not in tries[8][0][1].user
    assert "does not follow the schema" in tries[8][1][1].user, "the model is told what was wrong"
    kept, rejected = read_rows(tmp_path / "out/rows.jsonl"), read_rows(tmp_path / "out/rows.rejects.jsonl")
    assert [row["code"] for row in kept] == [needy(n)["code"] for n in numbers if n not in HOPELESS]
    faults = {int(re.search(r"Scene(\d+)", row["code"])[1]): row["metadata"]["error"] for row in rejected}
    assert {n: fault["code"] for n, fault in faults.items()} == {n: code for n, (_, code, _) in HOPELESS.items()}
    assert {n: len(tries[n]) for n in HOPELESS} == {n: count for n, (_, _, count) in HOPELESS.items()}
    assert "I can not do that." in faults[22]["message"], "the raw text is kept"
    assert "```json" in faults[24]["message"]
    assert all(SECRET.encode() not in data for data in folder_of(tmp_path).values()), "no key in any file"
    assert SECRET not in done.err

    asked = len(server.log)
    server.plan = lambda call: None
    source = "out/rows.rejects.jsonl" if llm == "openai" else "in.jsonl"
    ask(server, llm, cwd=tmp_path, source=source, output="again.jsonl", check=0)
    assert sorted(scene_of(call) for call in server.log[asked:]) == sorted(HOPELESS)
    assert len(read_rows(tmp_path / "again.jsonl")) == (len(HOPELESS) if llm == "openai" else len(numbers))


FATAL = {
    "openai": [(401, "invalid_api_key"), (404, "model_not_found"), (429, "insufficient_quota")],
    "claude": [(403, "permission_error"), (400, "credit balance is too low")],
}


@pytest.mark.parametrize(
    ("llm", "status", "code"), [(llm, *fault) for llm, faults in FATAL.items() for fault in faults]
)
def test_a_wrong_key_or_an_empty_account_costs_one_call(tmp_path, server, llm, status, code):
    server.plan = lambda call: error(status, f"{code}: {SECRET}", code)
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(40)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/rows.jsonl").write_text("old")
    done = ask(server, llm, cwd=tmp_path, check=1)
    assert len(server.log) == 1
    assert code in done.err
    assert SECRET not in done.err
    assert len(done.err.strip().split("\n")) == 1
    assert (tmp_path / "out/rows.jsonl").read_text() == "old"


def test_an_account_that_runs_dry_stops_the_run_and_what_was_answered_is_kept(tmp_path, server):
    server.plan = lambda call: error(429, "no money", "insufficient_quota") if call.number >= 20 else None
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(60)])
    done = ask(server, "openai", "--concurrency", "4", cwd=tmp_path, check=1)
    assert "no money" in done.err
    assert "the answers so far are kept" in done.err
    assert 20 < len(server.log) <= 24, "at most what was under way"
    assert not (tmp_path / "out/rows.jsonl").exists()
    server.reset()
    ask(server, "openai", cwd=tmp_path, check=0)
    assert len(server.log) == 40


def test_a_server_that_was_never_there_is_one_line(tmp_path):
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(40)])
    options = ("--llm", "openai", "--base-url", "http://user:hush@127.0.0.1:9/v1", "--retries", "1")
    done = generate(*options, cwd=tmp_path, env={KEYS["openai"]: SECRET}, check=1)
    assert "127.0.0.1:9/v1" in done.err
    assert "hush" not in done.err
    assert len(done.err.strip().split("\n")) == 1


def test_a_server_that_dies_leaves_the_answers_and_the_other_rows_are_rejects(tmp_path):
    with FakeLLM() as server:

        def plan(call):
            if call.number >= 30:
                server.die()
                return Reply(drop=True)
            return None

        server.plan = plan
        write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(300)])
        done = ask(server, "openai", "--retries", "1", "--concurrency", "8", cwd=tmp_path, check=3)
    kept, rejected = read_rows(tmp_path / "out/rows.jsonl"), read_rows(tmp_path / "out/rows.rejects.jsonl")
    assert len(kept) >= 30
    assert len(kept) + len(rejected) == 300
    assert {row["metadata"]["error"]["code"] for row in rejected} == {"llm_failed"}
    assert sum("not tried" in row["metadata"]["error"]["message"] for row in rejected) > 200, "it gives up in time"
    assert f"{len(rejected)} rows got no answer" in done.err


# --- killed and interrupted -------------------------------------------------------------------------------------------


def start(server, cwd, *options):
    command = [
        sys.executable,
        str(ROOT / SCRIPT),
        "generate-descriptions",
        "--input",
        "in.jsonl",
        "--output",
        "o.jsonl",
    ]
    command += ["--llm", "openai", "--base-url", server.url("openai"), *options]
    env = CLEAN | {KEYS["openai"]: SECRET}
    return subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)


def stop_after(server, process, calls, signal_number):
    deadline = time.monotonic() + 60
    while len(server.log) < calls and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal_number)
    return process.communicate()[1]


def test_a_killed_run_pays_again_only_for_what_was_under_way_and_gives_the_same_bytes(tmp_path, server):
    server.plan = lambda call: Reply(**{**vars(good(call)), "delay": 0.02})
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(120)])
    for calls in (30, 45):
        stop_after(server, start(server, tmp_path, "--concurrency", "6"), calls + 0, signal.SIGKILL)
    assert not (tmp_path / "o.jsonl").exists()
    assert len(server.log) < 110, "the kills came too late to show anything"
    ask(server, "openai", "--concurrency", "6", cwd=tmp_path, output="o.jsonl", check=0)
    assert len(server.log) <= 120 + 2 * 6
    ask(server, "openai", "--cache-dir", "other", cwd=tmp_path, output="undisturbed.jsonl", check=0)
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".part")) == []


def test_ctrl_c_exits_130_and_says_how_to_go_on(tmp_path, server):
    server.plan = lambda call: Reply(**{**vars(good(call)), "delay": 0.02})
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(200)])
    process = start(server, tmp_path, "--concurrency", "4")
    message = stop_after(server, process, 20, signal.SIGINT)
    assert process.returncode == 130, message
    assert "Traceback" not in message
    assert "the same command goes on from there" in message
    assert not (tmp_path / "o.jsonl").exists()
    before = len(server.log)
    text = ask(server, "openai", "--dry-run", cwd=tmp_path, check=0).out
    answered = int(re.search(r"(\d+) are answered", text)[1])
    assert before - 4 <= answered <= before


# --- the cache --------------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def plant(folder, key, value, mode, raw=1):
    """A row as somebody else might have put it into the file."""
    connection = sqlite3.connect(folder / "cache.db")
    connection.execute("DELETE FROM Cache WHERE key = ?", (key,))
    connection.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, access_count, tag, size, mode, filename, value)"
        " VALUES (?, ?, 1, 1, 0, NULL, 0, ?, NULL, ?)",
        (key, raw, mode, value),
    )
    connection.commit()
    connection.close()


def test_a_planted_pickle_is_refused_and_never_executed(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [needy(1), needy(2)])
    ask(server, "openai", cwd=tmp_path, check=0)
    keys = [row["metadata"]["lineage"][-1]["request"] for row in read_rows(tmp_path / "out/rows.jsonl")]
    first = (tmp_path / "out/rows.jsonl").read_bytes()
    plant(tmp_path / ".cache/llm", keys[0], pickle.dumps(Bomb()), mode=4)
    plant(tmp_path / ".cache/llm", keys[1], '{"description": ', mode=1)
    plant(tmp_path / ".cache/llm", sqlite3.Binary(pickle.dumps(Bomb())), '{"text": "x"}', mode=1, raw=0)
    assert "entries  3" in run_script(SCRIPT, "cache-stats", cwd=tmp_path, check=0).out
    done = ask(server, "openai", cwd=tmp_path, check=0)
    assert "refused: it is a pickle" in done.err
    assert "refused: it is no JSON text" in done.err
    assert len(server.log) == 4, "both are asked anew"
    assert (tmp_path / "out/rows.jsonl").read_bytes() == first
    assert not list(tmp_path.rglob("exploded"))
    assert not (ROOT / "exploded").exists()


def test_the_cache_tells_its_entries_models_and_sources_and_is_cleared_only_when_told(tmp_path):
    from stages.prepare_data_with_llm.answers import open_answers

    assert "no answers yet" in run_script(SCRIPT, "cache-stats", cwd=tmp_path, check=0).out
    assert not (tmp_path / ".cache").exists(), "to look is not to make"
    folder = tmp_path / ".cache/llm"
    usage = {"input": 10, "output": 3}
    with open_answers(folder) as answers:
        answers.put("a", {"text": "x", "provider": "openai", "asked": "m", "source": "wheel", "usage": usage})
        answers.put("b", {"text": "y", "provider": "openai", "asked": "m", "source": None, "usage": usage})
        answers.put("c", {"text": "ä" * 200_000})
        assert answers.get("c") == {"text": "ä" * 200_000}
        assert answers.get("gone") is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    text = run_script(SCRIPT, "cache-stats", cwd=tmp_path, check=0).out
    for line in ("entries  3", "2  openai/m", "1  unknown/unknown", "1  wheel", "2  (no source)", "20 read, 6 written"):
        assert line in text, text
    assert "--yes" in run_script(SCRIPT, "cache-clear", cwd=tmp_path, check=2, stdin=b"").err
    assert "entries  3" in run_script(SCRIPT, "cache-stats", cwd=tmp_path, check=0).out
    run_script(SCRIPT, "cache-clear", "--yes", cwd=tmp_path, check=0)
    assert "entries  0" in run_script(SCRIPT, "cache-stats", cwd=tmp_path, check=0).out


def test_calls_and_tokens_are_spread_over_the_minute():
    from stages.prepare_data_with_llm.limits import Paces

    async def waits(paces, tokens):
        return [round(paces.wait(tokens), 1) for _ in range(4)]

    assert asyncio.run(waits(Paces(600, None), 500)) == [0.0, 0.1, 0.2, 0.3]
    assert asyncio.run(waits(Paces(None, 60_000), 500)) == [0.0, 0.5, 1.0, 1.5]
    assert asyncio.run(waits(Paces(600, 60_000), 500)) == [0.0, 0.5, 1.0, 1.5], "the slower one of the two decides"


RETRY_AFTER = [
    ({"retry-after": "2"}, 2),
    ({"retry-after-ms": "150"}, 0.15),
    ({"retry-after": "soon"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    from stages.prepare_data_with_llm.providers import retry_after

    assert retry_after(headers) == seconds
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_the_settings_of_an_env_file_are_read_as_a_shell_would(tmp_path):
    (tmp_path / ".env").write_text("# A=1\nB=2\nexport C='3 #x'\nD=\"4\" # four\nE = 5 # five\nF=\nnonsense\n")
    assert schema.dotenv(tmp_path / ".env") == {"B": "2", "C": "3 #x", "D": "4", "E": "5", "F": ""}
    assert schema.dotenv(tmp_path / "gone") == {}


SENT = [
    ("openai", "https://api.openai.com/v1", "gpt-4o-mini", {"limit_name": "max_completion_tokens", "temperature": 0.1}),
    ("openai", "https://api.openai.com/v1/", "gpt-5-mini", {"limit_name": "max_completion_tokens"}),
    ("openai", "http://localhost:11434/v1", "llama", {"limit_name": "max_tokens", "temperature": 0.1}),
    ("anthropic", "https://api.anthropic.com", "claude-haiku-5-5", {}),
]


@pytest.mark.parametrize(("provider", "url", "model", "expected"), SENT)
def test_only_what_a_model_takes_is_sent(provider, url, model, expected):
    from stages.prepare_data_with_llm.providers import host_of, sent_parameters

    assert sent_parameters(provider, host_of(url), model, 0.1) == expected
