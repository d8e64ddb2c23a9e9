"""The arithmetic of an evaluation: intervals against published ones, shares against counting by hand."""

from __future__ import annotations

import ast
import itertools
import json
import math
import random

import pytest
from click.testing import CliRunner
from conftest import run_script, write_rows

import evaluate_model
import schema
from stages.evaluate_model import asking, measures, rates, similarity

SCENE = "class A(Scene):\n    def construct(self):\n        self.wait()\n"


def written(name, code, *, kind="code", finish="eos", **metadata):
    facts = {"id": name, "kind": kind, "evaluation": {"finish": finish, "tokens": 9}, **metadata}
    return {"description": f"Do {name}.", "code": code, "source": metadata.get("origin", "s"), "metadata": facts}


def silent(name, code="pass"):
    row = written(name, code, error={"code": "empty_generation", "message": "the model wrote nothing (eos)"})
    row["metadata"]["evaluation"] |= {"tokens": 0, "empty": True}
    return row


def tagged(row, *checks, render=None):
    issues = [{"check": check, "severity": "high", "message": "it is so"} for check in checks]
    row["metadata"]["quality"] = {"score": 0.5, "issues": issues}
    if render:
        row["metadata"]["render"] = {"ok": render == "ok", "error": None if render == "ok" else {"class": render}}
    return row


def call(*arguments, code=0):
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    return done.stderr


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(passed, n, low, high):
    found = rates.wilson(passed, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.rate == pytest.approx(passed / n, abs=1e-6)


def test_no_rows_have_no_rate():
    assert rates.wilson(0, 0) == (0, 0, None, None, None)


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706),
                                            (10, 2.2281), (30, 2.0423), (100, 1.9840), (10**6, 1.9600)])  # fmt: skip
def test_students_quantiles_are_those_of_the_tables(freedom, t):
    assert rates.student(freedom) == pytest.approx(t, abs=6e-5)


def table(both, first_only, second_only, neither):
    return [(1.0, 1.0)] * both + [(1.0, 0.0)] * first_only + [(0.0, 1.0)] * second_only + [(0.0, 0.0)] * neither


def test_the_interval_of_a_paired_difference_is_newcombes():
    # The worked example of Newcombe (1998), Statistics in Medicine 17, 2635-2650: 36, 12, 2 and 0 of 50.
    low, high = rates.newcombe(table(36, 2, 12, 0))
    assert (round(low, 4), round(high, 4)) == (0.0569, 0.3404)
    low, high = rates.newcombe(table(36, 12, 2, 0))
    assert (round(low, 4), round(high, 4)) == (-0.3404, -0.0569)


def test_no_change_in_few_rows_proves_little_and_in_many_a_lot():
    widths = [high - low for low, high in (rates.newcombe(table(n, 0, 0, n)) for n in (2, 20, 200))]
    assert widths[0] > 0.5 > widths[1] > 0.05 > widths[2] > 0


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.1), (0.1, 0.3, 0.1), (0.05, 0.02, 0.03)])
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say(shares):
    chance, both, first, second = random.Random(1), *shares
    hits = 0
    for _ in range(600):
        draws = (chance.random() for _ in range(40))
        pairs = [(float(x < both + first), float(x < both or both + first <= x < both + first + second)) for x in draws]
        low, high = rates.paired_difference(pairs)
        hits += low <= second - first <= high
    assert hits / 600 > 0.93


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (3, 1, 0.625), (1, 9, 0.021484)])
def test_the_sign_test_is_exact(better, worse, p):
    assert rates.sign_test(better, worse) == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_what_trying_every_choice_gives(k):
    groups = [[True, False, False, False], [True, True, False, True], [False] * 4]
    tries = [[any(chosen) for chosen in itertools.combinations(group, k)] for group in groups]
    by_hand = sum(sum(found) / len(found) for found in tries) / 3
    assert rates.pass_at(groups, k)["rate"] == pytest.approx(by_hand, abs=1e-6)


def test_ten_equal_answers_to_a_prompt_are_worth_one():
    groups = [[True]] * 7 + [[False]] * 5
    one, ten = rates.rate_of(groups), rates.rate_of([group * 10 for group in groups])
    assert (one["passed"], one["n"], ten["passed"], ten["n"], ten["prompts"]) == (7, 12, 70, 120, 12)
    assert (one["rate"], one["low"], one["high"]) == (ten["rate"], ten["low"], ten["high"])


ROWS = [
    tagged(written("a", SCENE), render="ok"),
    tagged(written("b", SCENE), "unknown_method", render="api"),
    tagged(written("c", SCENE), "manimgl_code", "undefined_name", render="other_engine"),
    tagged(written("d", SCENE), render="other_engine"),
    tagged(written("e", "x = ("), "does_not_parse"),
    tagged(written("f", "x = 1"), "no_scene_class"),
    tagged(written("g", SCENE)),
    silent("h"),
    tagged(written("i", "Because.", kind="qa", reference="Because it is.")),
]


def test_what_no_gate_saw_has_failed_once_the_others_were_seen():
    found = measures.scores(ROWS)
    assert {name: (found[name]["passed"], found[name]["n"]) for name in measures.CHECKS} == {
        "syntax": (6, 8), "scene": (5, 8), "finished": (9, 9), "api": (4, 8), "render": (1, 8), "manimgl": (2, 8),
        "same_code": (0, 0),
    }  # fmt: skip
    assert found["render_errors"] == {
        "api": 1, "does_not_parse": 1, "empty_answer": 1, "no_scene": 1, "not_rendered": 1, "other_engine": 2,
    }  # fmt: skip
    assert found["render"]["passed"] + sum(found["render_errors"].values()) == found["render"]["n"]
    assert (found["quality"]["n"], found["quality"]["mean"]) == (9, pytest.approx(8 * 0.5 / 9, abs=1e-6))
    assert found["quality"]["issues"]["empty_answer"] == 1


def test_nothing_is_said_of_gates_that_nobody_went_through():
    found = measures.scores([written("a", SCENE), silent("b")])
    assert [found[name]["n"] for name in ("api", "render", "manimgl", "quality")] == [0, 0, 0, 0]
    assert found["render_errors"] == {}


def test_sources_and_kinds_have_their_own_rates():
    found = measures.scores([written("a", SCENE), written("b", "x = (", origin="t"), written("c", "Why.", kind="qa")])
    assert found["by_source"]["s"]["syntax"]["n"] == found["by_source"]["t"]["syntax"]["n"] == 1
    assert found["by_kind"]["qa"]["syntax"]["n"] == 0
    assert found["by_kind"]["code"]["syntax"]["rate"] == 0.5


def test_likeness_knows_renamed_programs_and_other_ones():
    renamed = SCENE.replace("A(", "Wave(")
    assert similarity.tree_match(ast.parse(renamed), ast.parse(SCENE)) == 1.0
    assert similarity.token_bleu(SCENE, SCENE) == pytest.approx(1.0)
    assert 0.3 < similarity.token_bleu(renamed, SCENE) < 1.0
    other = "for x in range(3):\n    print(x + 1)\n"
    assert similarity.tree_match(ast.parse(other), ast.parse(SCENE)) < 0.2
    assert similarity.token_bleu(other, SCENE) < 0.15
    assert similarity.tree_match(None, ast.parse(SCENE)) == 0.0
    assert similarity.tree_match(ast.parse(SCENE), None) is None


def test_bleu_is_what_counting_by_hand_gives():
    # 4 of 5 tokens; with one more each: 3 of 4 pairs -> 3 + 1 of 4 + 1, 2 of 3 -> 3 of 4, 1 of 2 -> 2 of 3
    expected = (4 / 5 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert similarity.token_bleu("a b c d x", "a b c d e") == pytest.approx(expected)
    assert similarity.token_bleu("a b c d", "a b c d e f") == pytest.approx(math.exp(1 - 6 / 4))


@pytest.mark.parametrize(
    ("answer", "reference", "rouge"),
    [
        ("the cat sat", "The cat sat.", 1.0),
        ("the cat is on the mat", "the cat sat on the mat", 10 / 12),
        ("mat the", "the mat", 0.5),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
    ],
)
def test_the_longest_common_run_of_words(answer, reference, rouge):
    assert similarity.rouge_l(answer, reference) == pytest.approx(rouge)


def test_character_runs_forgive_another_form_of_a_word():
    assert similarity.chrf("waves", "waves") == 1.0
    assert 0.3 < similarity.chrf("The wave moves", "The waves move") < 1.0
    assert similarity.chrf("", "waves") == 0.0
    # one character: 1 of 1 found of 2 wanted, so 5 * 1 * 0.5 / (4 + 0.5); two characters: none
    assert similarity.chrf("a", "ab") == pytest.approx(5 * 0.5 / 4.5 / 2)


def test_prose_is_measured_by_its_likeness_and_programs_by_theirs():
    rows = [
        written("a", SCENE, reference=SCENE),
        written("b", "It is so.", kind="qa", reference="It is so."),
        silent("c"),
    ]
    rows[2]["metadata"]["reference"] = SCENE
    found = measures.scores(rows)["likeness"]
    assert {name: (value["n"], value["mean"]) for name, value in found.items()} == {
        "tree_match": (2, 0.5), "codebleu": (2, 0.5), "token_bleu": (2, 0.5), "rouge_l": (1, 1.0), "chrf": (1, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "program"),
    [
        (SCENE, SCENE),
        (f"```python\n{SCENE}```", SCENE),
        (f"Sure!\n\n```python\n{SCENE}```\nRun it:\n```sh\nmanim\n```\n", SCENE),
        (f"Sure!\n~~~\n{SCENE}~~~", SCENE),
        (f"```\n{SCENE}", SCENE),
        (f"<think>```x = 1```</think>\n{SCENE}", f"\n{SCENE}"),
        ("x = '''\n```\nno program\n```\n'''\n", "x = '''\n```\nno program\n```\n'''\n"),
        ("I can not do that.", "I can not do that."),
    ],
)
def test_a_program_is_found_in_what_was_said_around_it(said, program):
    assert asking.program_in(said) == program


def held_out(name, code, description):
    return {"description": description, "code": code, "source": "s", "metadata": {"id": name, "kind": "code"}}


LONG = """from manim import *


class Wave(Scene):
    def construct(self):
        axes = Axes(x_range=[0, 10], y_range=[-2, 2])
        graph = axes.plot(lambda x: np.sin(x), color=BLUE)
        label = Text("A wave").next_to(axes, UP)
        self.play(Create(axes), Write(label))
        self.play(Create(graph), run_time=2)
        self.wait()
"""
TRAIN = [held_out("t1", SCENE, "Show a wave."), held_out("t2", "x = 1\n", "Set x."), held_out("t3", LONG, "Plot it.")]
CLEAN_ROW = held_out("h1", "class B(Scene):\n    def construct(self):\n        self.add(Dot())\n", "Show a dot.")


@pytest.mark.parametrize(
    ("code", "description", "fields"),
    [
        ("x = 1  # one\n\n", "Something else entirely.", {"code": 1}),
        ("print(sum(range(10)))\n", "show  a wave.", {"description": 1}),
        (SCENE, "Show a wave.", {"code": 1, "description": 1}),
        (LONG.replace("graph", "curve").replace("axes", "plane").replace("Wave", "Sine"), "Draw a curve.", {"near": 1}),
    ],
)
def test_a_leak_is_named_and_nothing_is_scored(tmp_path, code, description, fields):
    train = write_rows(tmp_path / "train.jsonl", TRAIN)
    test = write_rows(tmp_path / "test.jsonl", [CLEAN_ROW, held_out("h2", code, description)])
    said = call("leakage", "--train", train, "--data", test, "--output", tmp_path, code=3)
    assert "1 of 2 held-out rows stand in" in said
    found = json.loads((tmp_path / "leakage.json").read_text())
    assert (found["leaked"]["passed"], found["leaked"]["n"], found["by_field"]) == (1, 2, fields)
    assert {pair["id"] for pair in found["pairs"]} == {"h2"}
    answers = [{**written(row["metadata"]["id"], "y = 2", reference=row["code"]), "description": row["description"]}
               for row in (CLEAN_ROW, held_out("h2", code, description))]  # fmt: skip
    data = write_rows(tmp_path / "generated.jsonl", answers)
    assert "1 of 2 held-out rows" in call("score", "--data", data, "--output", tmp_path, "--train", train, code=1)
    assert not (tmp_path / "scores.json").exists()


def test_what_is_only_nearly_the_same_may_be_let_through(tmp_path):
    train = write_rows(tmp_path / "train.jsonl", TRAIN)
    test = write_rows(tmp_path / "test.jsonl", [held_out("h", LONG.replace("graph", "curve"), "Draw a curve.")])
    arguments = ("leakage", "--train", train, "--data", test, "--output", tmp_path)
    call(*arguments, code=3)
    assert json.loads((tmp_path / "leakage.json").read_text())["pairs"][0]["train_id"] == "t3"
    call(*arguments, "--near-threshold", 1)
    assert schema.audit(tmp_path / "leakage.ledger.json") == []


def test_clean_rows_are_scored_even_where_the_model_recites_what_it_learnt(tmp_path):
    train = write_rows(tmp_path / "train.jsonl", TRAIN)
    test = write_rows(tmp_path / "test.jsonl", [CLEAN_ROW])
    assert "none of the 1 held-out rows" in call("leakage", "--train", train, "--data", test, "--output", tmp_path)
    answer = {**written("h1", SCENE, reference=CLEAN_ROW["code"]), "description": "Show a dot."}
    data = write_rows(tmp_path / "generated.jsonl", [answer])
    call("score", "--data", data, "--output", tmp_path, "--train", train)
    assert json.loads((tmp_path / "scores.json").read_text())["syntax"]["n"] == 1


def test_a_missing_answer_can_leak_too(tmp_path):
    train = write_rows(tmp_path / "train.jsonl", TRAIN)
    data = write_rows(tmp_path / "generated.jsonl", [written("h1", SCENE, reference=CLEAN_ROW["code"])])
    row = silent("t1", SCENE)
    row["metadata"]["reference"] = SCENE
    write_rows(tmp_path / "generated.rejects.jsonl", [row])
    assert "(1 by code)" in call("score", "--data", data, "--output", tmp_path, "--train", train, code=1)


def test_findings_of_an_earlier_run_are_not_compared(tmp_path):
    for name, code in (("a", SCENE), ("b", SCENE)):
        write_rows(tmp_path / name / "generated.jsonl", [written("x", code)])
        write_rows(tmp_path / name / "tagged.jsonl", [tagged(written("x", code), render="ok")])
    call("compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["render"]["n"] == 1
    write_rows(tmp_path / "b" / "generated.jsonl", [written("x", "x = 1")])
    said = call("compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c.json")
    assert "holds other answers than generated.jsonl" in said
    assert "render" not in json.loads((tmp_path / "c.json").read_text())


def test_a_lower_conflict_rate_is_better_and_texts_can_not_break_their_fence(tmp_path):
    a = write_rows(tmp_path / "a.jsonl", [tagged(written("x", SCENE), "manimgl_code"), tagged(written("y", SCENE))])
    b = write_rows(tmp_path / "b.jsonl", [tagged(written("x", "s = '''\n```\n'''")), tagged(written("y", SCENE))])
    call("compare", a, b, "--output", tmp_path / "c.json", "--texts", tmp_path / "c.md")
    found = json.loads((tmp_path / "c.json").read_text())["manimgl"]
    assert (found["a"], found["b"], found["better"], found["worse"]) == (0.5, 0.0, 1, 0)
    assert "````python\ns = '''\n```\n'''\n````" in (tmp_path / "c.md").read_text()


def test_a_file_from_which_bad_answers_were_dropped_is_not_scored(tmp_path):
    rows = [written("a", "from manim import *\n\n\n" + SCENE), written("b", "x = (")]
    write_rows(tmp_path / "generated.jsonl", rows)
    common = ("--input", "generated.jsonl", "--output", "tagged.jsonl")
    run_script("filter_quality.py", *common, "--min-quality", 0.5, cwd=tmp_path, check=0)
    data = tmp_path / "tagged.jsonl"
    assert "holds only a part of the answers" in call("score", "--data", data, "--output", tmp_path, code=1)
    run_script("filter_quality.py", *common, "--tag-only", cwd=tmp_path, check=0)
    call("score", "--data", data, "--output", tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [(scores[name]["passed"], scores[name]["n"]) for name in ("syntax", "api", "manimgl")] == [
        (1, 2),
        (1, 2),
        (0, 2),
    ]


def published(tmp_path, sha256, **shares):
    value = {"benchmark_sha256": sha256, "url": "https://example.org", "models": {"Big": shares or {"syntax": 0.99}}}
    (tmp_path / "published.json").write_text(json.dumps(value))
    return tmp_path / "published.json"


@pytest.mark.parametrize(
    ("options", "read", "message"),
    [
        ({}, "right", None),
        ({}, "wrong", "another file was asked"),
        ({"limit": 3}, "right", "was not asked whole"),
        ({"where": ".source"}, "right", "was not asked whole"),
    ],
)
def test_published_numbers_stand_only_beside_the_same_benchmark(tmp_path, options, read, message):
    data = write_rows(tmp_path / "generated.jsonl", [written("a", SCENE)])
    ledger = {"stage": "evaluate_model", "inputs": [{"path": "../test.json", "sha256": read}], "options": options}
    (tmp_path / "generated.ledger.json").write_text(json.dumps(ledger))
    arguments = ("score", "--data", data, "--output", tmp_path, "--published", published(tmp_path, "right"))
    if message:
        assert message in call(*arguments, code=1)
        assert not (tmp_path / "scores.json").exists()
        return
    assert "  Big: syntax 99.0%" in call(*arguments)
    assert json.loads((tmp_path / "scores.json").read_text())["published"]["models"] == {"Big": {"syntax": 0.99}}


def test_published_numbers_are_shares_of_what_is_measured(tmp_path):
    data = write_rows(tmp_path / "generated.jsonl", [written("a", SCENE)])
    for wrong in ({"codebleu": 0.3}, {"render": 59.0}):
        file = published(tmp_path, "x", **wrong)
        assert "takes shares from 0 to 1 of syntax" in call("score", "--data", data, "--output", tmp_path,
                                                            "--published", file, code=2)  # fmt: skip
