"""Public benchmarks: who is asked what, and that the quoted numbers are those that others would compute."""

from __future__ import annotations

import ast
import csv
import json

import pytest
from click.testing import CliRunner
from conftest import read_rows, run_script, write_rows
from fake_hubs import HuggingFace
from fake_llm import FakeLLM, says

import evaluate_model
import schema
from stages.evaluate_model import codebleu, measures, presets

GROW = """from manim import *

class Grow(Scene):
    def construct(self):
        circle = Circle(color=RED)
        self.play(Create(circle))
        for step in range(3):
            if step > 1:
                circle.shift(RIGHT)
        self.wait()
"""
SHRINK = """from manim import *

class Shrink(Scene):
    def construct(self):
        square = Square(color=BLUE)
        self.play(Create(square))
        for step in range(5):
            if step > 1:
                square.shift(LEFT)
        self.wait(2)
"""
COLUMNS = ["Generated Description", "Reviewed Description", "Code", "Type", "Split"]
TABLE = [
    ["raw one", "Grow a circle.", GROW, "Basic", "train"],
    ["raw two", "Shrink a square.", SHRINK, "Basic", "test"],
    ["Grow it again.", "nan", GROW, "Advanced", "test"],
]


def call(*arguments, code=0):
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    return done.stderr


def written(folder, columns=COLUMNS, rows=TABLE, name="manim_sft_dataset.csv"):
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / name


def problems(folder, **changes):
    entries = [
        {"id": f"MB-00{n}", "full_prompt": f"Animate problem {n}.",
         "success_criteria": {"version_conflict_error_rate_max": 0.05}, **changes}
        for n in (1, 2)
    ]  # fmt: skip
    (folder / "problems.json").write_text(json.dumps({"problems": entries}))
    return folder / "problems.json"


@pytest.fixture
def llm():
    with FakeLLM() as server:
        server.plan = lambda request: says(request, GROW)
        yield server


def generate(llm, folder, preset, data, *options, code=0):
    address = ("--base-url", llm.url("openai"), "--model", "m", "--output", folder / "eval")
    return call("generate", *address, "--preset", preset, "--data", data, *options, code=code)


# --- who is asked what ------------------------------------------------------------------------------------------------
def test_manimbench_asks_its_test_rows_in_their_reviewed_words(llm, tmp_path):
    data = written(tmp_path)
    generate(llm, tmp_path, "manimbench", data)
    assert sorted(request.user for request in llm.log) == ["Grow it again.", "Shrink a square."]
    assert {(request.body["max_tokens"], request.body["temperature"]) for request in llm.log} == {(4096, 0.0)}
    rows = read_rows(tmp_path / "eval" / "generated.jsonl")
    assert [row["metadata"]["reference"] for row in rows] == [SHRINK, GROW]
    assert rows[0]["metadata"]["origin"] == {"benchmark": "manimbench", "row": 1, "level": "Basic"}
    asked = json.loads((tmp_path / "eval" / "asked.ledger.json").read_text())
    assert asked["inputs"][0]["sha256"] == schema.file_facts(data)["sha256"]
    assert asked["options"]["preset"] == "manimbench"


def test_what_is_said_by_hand_counts_more_than_the_preset(llm, tmp_path):
    generate(llm, tmp_path, "manimbench", written(tmp_path), "--max-new-tokens", 99)
    assert {request.body["max_tokens"] for request in llm.log} == {99}


def test_manibench_asks_each_problem_and_has_no_reference(llm, tmp_path):
    generate(llm, tmp_path, "manibench", problems(tmp_path))
    assert sorted(request.user for request in llm.log) == ["Animate problem 1.", "Animate problem 2."]
    rows = read_rows(tmp_path / "eval" / "generated.jsonl")
    assert all("reference" not in row["metadata"] for row in rows)
    assert rows[1]["metadata"]["origin"] == {
        "benchmark": "manibench", "problem": "MB-002", "conflicts_allowed": 0.05,
    }  # fmt: skip


def test_parquet_and_json_say_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = [dict(zip(COLUMNS, row, strict=True)) for row in TABLE]
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps(table))
    expected = list(presets.rows("manimbench", written(tmp_path)))
    assert len(expected) == 2
    assert list(presets.rows("manimbench", tmp_path / "x.parquet")) == expected
    assert list(presets.rows("manimbench", tmp_path / "x.json")) == expected


def test_a_file_of_the_test_rows_alone_needs_no_split(tmp_path):
    rows = [row[:4] for row in TABLE]
    assert len(list(presets.rows("manimbench", written(tmp_path, COLUMNS[:4], rows, "only_test.csv")))) == 3
    with pytest.raises(schema.Failure, match="nobody knows which rows are held out"):
        list(presets.rows("manimbench", written(tmp_path, COLUMNS[:4], rows, "all.csv")))


@pytest.mark.parametrize(
    ("preset", "content", "code", "message"),
    [
        ("manimbench", '[{"code": "x"}]', 1, "not ManimBench"),
        ("manimbench", "{", 1, "can not be read"),
        ("manibench", '{"problems": [{}]}', 1, "not ManiBench"),
        ("manibench", "[", 1, "not ManiBench"),
        ("manibench", None, 2, "no such file, and no OWNER/NAME"),
    ],
)
def test_another_file_than_the_benchmark_is_one_line(llm, tmp_path, preset, content, code, message):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    said = generate(llm, tmp_path, preset, tmp_path / "x.json", code=code)
    assert message in said
    assert code == 2 or len(said.splitlines()) == 1
    assert llm.log == []


def test_a_preset_needs_its_data_and_data_must_be_there_without_one(tmp_path):
    common = ("generate", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--output", tmp_path)
    assert "--preset manimbench needs --data" in call(*common, "--preset", "manimbench", code=2)
    assert "there is no such file" in call(*common, "--data", tmp_path / "nowhere.jsonl", code=2)


def test_a_benchmark_comes_from_the_hub_by_its_name(llm, tmp_path):
    pytest.importorskip("huggingface_hub")
    files = {"ManiBench_Pilot_Dataset.json": problems(tmp_path).read_bytes(), "raw_code/x.py": b"x"}
    common = ("generate", "--base-url", llm.url("openai"), "--model", "m", "--output", "eval")
    with HuggingFace(files).serve() as hub:
        env = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
        }

        def run(preset, name, code):
            asked = (*common, "--preset", preset, "--data", name)
            return run_script("evaluate_model.py", *asked, cwd=tmp_path, env=env, check=code).err

        run("manibench", "own/set", 0)
        assert len(read_rows(tmp_path / "eval" / "generated.jsonl")) == 2
        assert not any("raw_code" in path for path in hub.asked)
        assert "there is no manim_sft_dataset_test.parquet in it" in run("manimbench", "own/set", 1)
        said = run("manibench", "own/other", 1)
    assert "the hub can not give it" in said
    assert len(said.splitlines()) == 1


# --- what is quoted ---------------------------------------------------------------------------------------------------
def answer(name, code, *, render, conflicts=False, benchmark="manimbench", **origin):
    issues = [{"check": "manimgl_code", "severity": "high", "message": "so"}] if conflicts else []
    facts = {
        "id": name, "kind": "code", "origin": {"benchmark": benchmark, **origin},
        "quality": {"score": 1.0, "issues": issues}, "evaluation": {"finish": "eos", "tokens": 9},
        "render": {"ok": render, "error": None if render else {"class": "runtime"}},
        **({"reference": SHRINK} if benchmark == "manimbench" else {}),
    }  # fmt: skip
    return {"description": f"Do {name}.", "code": code, "source": benchmark, "metadata": facts}


def quoted(tmp_path, rows):
    data = write_rows(tmp_path / "tagged.jsonl", rows)
    said = call("score", "--data", data, "--output", tmp_path)
    return said, json.loads((tmp_path / "scores.json").read_text()).get("benchmark")


def test_manimbench_quotes_what_its_authors_quote(tmp_path):
    rows = [answer("a", GROW, render=True), answer("b", SHRINK, render=False), answer("c", "x = (", render=False)]
    said, found = quoted(tmp_path, rows)
    assert (found["name"], found["prompts"]) == ("manimbench", 3)
    assert found["render"]["rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["syntax_error"]["rate"] == pytest.approx(1 / 3, abs=1e-6)
    trees = (ast.parse(GROW), ast.parse(SHRINK))
    one, nothing = codebleu.parts(GROW, SHRINK, trees), codebleu.parts("x = (", SHRINK, (None, trees[1]))
    assert found["codebleu"]["mean"] == pytest.approx((one.score + 1 + nothing.score) / 3, abs=1e-6)
    assert found["ngram"]["n"] == found["dataflow"]["n"] == 3
    assert found["ast_distance"] == {**found["ast_distance"], "n": 2, "mean": pytest.approx(11 / 95 / 2, abs=1e-6)}
    assert "  render: 1 of 3 = 33.3%" in said


def test_an_answer_that_never_came_has_failed_and_has_no_tree(tmp_path):
    silent = answer("b", "x", render=False)
    silent["metadata"]["evaluation"]["empty"] = True
    _, found = quoted(tmp_path, [answer("a", SHRINK, render=True), silent])
    assert (found["render"]["rate"], found["syntax_error"]["rate"], found["codebleu"]["mean"]) == (0.5, 0.5, 0.5)
    assert (found["ast_distance"]["n"], found["ast_distance"]["mean"]) == (1, 0)


def test_manibench_counts_conflicts_by_problem(tmp_path):
    rows = [
        answer("a", GROW, render=True, benchmark="manibench", problem="MB-001", conflicts_allowed=0.05),
        answer("b", GROW, render=True, conflicts=True, benchmark="manibench", problem="MB-002", conflicts_allowed=0.05),
        answer("c", GROW, render=False, benchmark="manibench", problem="MB-003", conflicts_allowed=0.1),
    ]
    said, found = quoted(tmp_path, rows)
    assert found["version_conflicts"]["passed"] == 1
    assert found["executability"]["passed"] == 1
    assert found["problems"]["MB-002"] == {"version_conflicts": 1.0, "allowed": 0.05, "kept": False}
    assert found["problems"]["MB-003"]["kept"] is True
    assert "more version conflicts than allowed: MB-002" in said


def test_rows_of_several_sources_are_no_benchmark(tmp_path):
    rows = [answer("a", GROW, render=True), answer("b", GROW, render=True, benchmark="other")]
    assert quoted(tmp_path, rows)[1] is None


# --- CodeBLEU and the distance of trees -------------------------------------------------------------------------------
def parts(one, two):
    return codebleu.parts(one, two, (measures.parse(one), measures.parse(two)))


def test_the_runs_of_codebleu_are_those_of_the_package_codebleu():
    """Numbers of codebleu 0.7.0."""
    assert parts(GROW, SHRINK)[:2] == pytest.approx((0.35215555867467163, 0.3732003275528916), abs=1e-12)
    assert parts("x = 1\n", SHRINK)[:2] == pytest.approx((0.0002018043245514996, 0.007075494147561418), abs=1e-12)
    assert parts(GROW, "x = 1\n")[:2] == pytest.approx((0.008687475782716616, 0.1), abs=1e-12)


def test_trees_and_flows_are_near_those_of_the_package():
    found = parts(GROW, SHRINK)  # 0.806 and 1.0 there
    assert found.syntax == pytest.approx(0.79, abs=0.05)
    assert found.dataflow > 0.9
    assert parts(GROW, GROW) == (1, 1, 1, 1)
    assert parts("", GROW) == (0, 0, 0, 0)
    assert parts("x = (", GROW).syntax == parts("x = (", GROW).dataflow == 0


def test_a_flow_follows_values_and_not_names():
    reference = "a = 1\nb = a + 2\nprint(b)\n"
    assert parts("x = 1\ny = x + 2\nprint(y)\n", reference).dataflow == 1
    assert parts("x = 1\ny = 2\nprint(y)\n", reference).dataflow < 0.7


def test_the_distance_of_two_trees_is_that_of_the_package_zss():
    """11 of 95 and 85 of 92 nodes, by zss 1.2.0 on the trees of ManimBench."""
    grow, shrink, small = map(ast.parse, (GROW, SHRINK, "x = 1\n"))
    assert codebleu.tree_distance(grow, grow) == 0
    assert codebleu.tree_distance(grow, shrink) == pytest.approx(11 / 95)
    assert codebleu.tree_distance(small, grow) == pytest.approx(85 / 92)
    assert codebleu.tree_distance(None, grow) is None
