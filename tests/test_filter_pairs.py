"""Description and program: do they belong together."""

from __future__ import annotations

import pytest
from conftest import read_rows, record, run_script, write_rows

from stages.filter_quality.facts import named, shown, shows
from stages.filter_quality.pair_checks import check_agreement
from stages.filter_quality.program import Program

HEAD = "from manim import *\n\n\nclass Example(Scene):\n    def construct(self):\n"
ORBIT = HEAD + "        planet = Dot(color=BLUE)\n        self.play(Rotate(planet, about_point=ORIGIN))\n"
CHART = HEAD + "        chart = BarChart([1, 2, 3], bar_names=['a', 'b', 'c'])\n        self.play(Create(chart))\n"


def mismatch(description, code):
    return [finding.message for finding in check_agreement(description, Program(code))]


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ("A blue dot rotates around the centre.", ORBIT),
        ("Draw a bar chart with three labelled bars.", CHART),
        ("Something nice happens.", CHART),
        ("A circle (drawn as a dot) turns.", ORBIT),
    ],
)
def test_a_description_of_the_program_agrees_with_it(description, code):
    assert mismatch(description, code) == []


def test_a_description_of_another_program_is_told_with_what_is_missing():
    (message,) = mismatch("Show a 3x3 matrix next to a table of green triangles.", ORBIT)
    assert message == (
        "of 4 things that the description names, 4 are not in the program: triangle, table, matrix, green"
    )
    assert mismatch("A blue dot rotates around the centre.", CHART)


def test_one_missing_thing_of_three_proves_nothing():
    assert mismatch("A blue dot rotates and fades.", ORBIT) == []


def test_pictures_that_come_from_elsewhere_are_not_judged():
    foreign = "from manim_ml.neural_network import *\nfrom manim import *\n" + ORBIT.removeprefix(
        "from manim import *\n"
    )
    assert mismatch("Show a matrix next to a table of green triangles.", foreign) == []


@pytest.mark.parametrize("name", shown())
def test_every_thing_can_be_named_and_shown(name):
    words = {"listing": "code", "growth": "grows", "depth": "3D", "movement": "moves", "picture": "images"}
    words |= {"change of form": "transforms", "dashes": "dashed", "field": "vector field"}
    assert name in named(f"It has {words.get(name, name)}, and more.")
    assert not shows(name, "")


@pytest.mark.parametrize(
    ("description", "things"),
    [
        ("The square root of lines of text that points to the left.", ["text"]),
        ("A Number Line and a bar chart.", ["number line", "bars"]),
        ("An encircled triangular rowboat.", ["triangle"]),
    ],
)
def test_words_are_taken_as_they_are_meant(description, things):
    assert named(description) == things


def run(folder, rows, *options):
    write_rows(folder / "in.jsonl", rows)
    arguments = ("--input", "in.jsonl", "--output", "out.jsonl", "--tag-only", *options)
    run_script("filter_quality.py", *arguments, cwd=folder, check=0)
    return [
        {issue["check"]: issue["message"] for issue in row["metadata"]["quality"]["issues"]}
        for row in read_rows(folder / "out.jsonl")
    ]


def pair(description, code=ORBIT, **metadata):
    return {"description": description, "code": code, "source": "test", "metadata": metadata}


def test_one_program_under_descriptions_of_different_things_is_found_in_all_its_rows(tmp_path):
    rows = [
        pair("A blue dot rotates around the centre of the picture."),
        pair("Solve the quadratic equation step by step."),
        pair("Show how an engine compresses warm air.", ORBIT + "\n"),
        pair("A blue dot rotates about its centre.", ORBIT.replace("BLUE", "GREEN")),
    ]
    issues = run(tmp_path, rows)
    assert ["conflicting_descriptions" in row for row in issues] == [True, True, True, False]
    assert issues[0]["conflicting_descriptions"].startswith("2 other rows have the same program")


def test_one_program_in_other_words_or_as_an_augmentation_is_no_conflict(tmp_path):
    rows = [
        pair("A blue dot rotates around the centre of the picture."),
        pair("Rotate a blue dot around the centre."),
        pair("Write Manim code for it.", augmented_from="x"),
        pair("", needs_description=True),
    ]
    assert not any("conflicting_descriptions" in row for row in run(tmp_path, rows))


def test_the_word_of_a_judge_counts(tmp_path):
    rows = [
        record(0, metadata={"judge": {"agrees": False, "score": 0.1, "reason": "there is no matrix"}}),
        record(1, metadata={"judge": {"agrees": True, "score": 0.9, "reason": "it is there"}}),
    ]
    issues = run(tmp_path, rows)
    assert issues == [{"judged_mismatch": "a judge said: there is no matrix"}, {}]


def test_workers_agree_about_conflicts(tmp_path):
    rows = [pair("A blue dot rotates."), pair("Solve the quadratic equation.")] * 3
    assert run(tmp_path, rows, "--workers", 2) == run(tmp_path, rows)
