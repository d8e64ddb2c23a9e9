"""Which records say the same, and on which side each falls."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import CLEAN, ROOT, record, write_rows

import schema


def test_a_record_is_linked_to_the_first_earlier_one_with_its_code_description_or_group():
    first, other = record(0), record(7)
    rows = [
        first,
        other,
        record(13, code="# a comment\n" + first["code"]),
        record(14, description=other["description"].upper()),
        record(19, metadata={"group": "a"}),
        record(24, metadata={"group": "a"}),
        record(31, code=first["code"]),
        record(33, description="", metadata={"needs_description": True}),
        record(37, description="", metadata={"needs_description": True}),
    ]
    expected = [[], [], [(0, "code", 1.0)], [(1, "description", 1.0)], [], [(4, "group", 1.0)], [(0, "code", 1.0)]]
    assert schema.links(rows, near=None) == [*expected, [], []]


def test_a_side_is_that_of_the_earlier_records_that_say_the_same():
    rows = [record(0), record(7), record(13, code=record(0)["code"]), record(14, description=record(7)["description"])]
    found = schema.sides(schema.marks(rows, near=None), [0, 1, 9, 9].__getitem__)
    assert found == [0, 1, 0, 1]


def test_a_record_that_says_the_same_as_two_sides_is_a_bridge_and_pulls_nothing_along():
    bridge = record(7, description=record(0)["description"])
    rows = [record(0), record(7), bridge, record(13, code=record(7)["code"])]
    found = schema.sides(schema.marks(rows, near=None), [0, 1, 9, 9].__getitem__)
    assert found == [0, 1, schema.Bridge((0, "description", 1.0), (1, "code", 1.0)), 1]


def test_records_that_come_later_change_no_side():
    rows = [record(number % 30, description=f"A scene, {number % 7} of some.") for number in range(60)]

    def sides(rows):
        marks = schema.marks(rows, near=None)
        return schema.sides(marks, lambda number: int(schema.share(marks.key(number), 42) < 0.5))

    assert sides(rows)[:40] == sides(rows[:40])
    assert {side for side in sides(rows) if isinstance(side, int)} == {0, 1}


PROGRAM = """from manim import *


class Orbit(Scene):
    def construct(self):
        planet = Circle(radius=0.4, color=BLUE)
        sun = Dot(point=ORIGIN, color=YELLOW)
        path = Ellipse(width=6, height=3)
        for turn in range(3):
            self.play(MoveAlongPath(planet, path), run_time=4)
        label = Text("one year").next_to(sun, UP)
        if label.width > 2:
            label.scale(0.5)
        self.play(Write(label), FadeOut(path))
        self.wait(2)
"""
RENAMED = PROGRAM.replace("planet", "ball").replace("sun", "middle").replace("label", "words").replace("turn", "k")
EDITED = PROGRAM.replace("width=6", "width=7").replace("self.wait(2)", "self.wait(3)")
OTHER = PROGRAM[: PROGRAM.index("        for")] + "\n".join(
    f"        self.play(Rotate(sun, {n} * DEGREES), Indicate(path, scale_factor={n}))" for n in range(2, 7)
)
SENTENCES = (
    "The sum of two even numbers is even. So is their product, and so is their difference, for one reason. "
    "An odd number is an even one and one more; two of them hold two more, and two is an even number itself."
)


def linked(one, other, **options):
    """How the second of two codes is linked to the first."""
    rows = [record(0, code=one, description="One."), record(1, code=other, description="Other.")]
    return [link.field for link in schema.links(rows, **options)[1]]


@pytest.mark.parametrize(
    ("one", "other", "alpha", "raw"),
    [
        (PROGRAM, "# a note\n" + PROGRAM.replace(", ", ",").replace("'", '"'), "code", "code"),
        (PROGRAM, PROGRAM.replace("\n", "\r\n"), "code", "code"),
        (PROGRAM, PROGRAM.replace("        ", "  ").replace("    def", " def"), "code", "code"),
        (
            PROGRAM,
            PROGRAM.replace("(path)", "(\n    path  # it\n )").replace('"one year"', "'one year'"),
            "code",
            "code",
        ),
        (PROGRAM, RENAMED, "near", None),
        (PROGRAM, EDITED, "near", "near"),
        (PROGRAM, PROGRAM.replace("one year", "two years"), "near", "near"),
        (PROGRAM, PROGRAM.replace("        self.play(W", "            self.play(W"), "near", "near"),
        (PROGRAM, OTHER, None, None),
        (PROGRAM, record(3)["code"], None, None),
        ('x = "#ece6e2"', 'x = "', None, None),
        ("x = f(1)  # one", "x = f(2)  # one", None, None),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()", None, None),
        ("if a:\n  b()\nelse:\n  c()", "if a:\n    b()\n\nelse:\n\n    c()", "code", "code"),
        (SENTENCES, SENTENCES.replace("product", "quotient"), "near", "near"),
        (
            SENTENCES,
            "A prime has no divisor but one and itself; one itself is none, by convention.",
            None,
            None,
        ),
    ],
)
def test_what_counts_as_the_same_code(one, other, alpha, raw):
    assert linked(one, other) == ([alpha] if alpha else [])
    assert linked(one, other, normalise="raw") == ([raw] if raw else [])
    assert linked(one, other, near=None) == (["code"] if alpha == "code" else [])


def test_the_similarity_is_that_of_the_programs_and_not_the_estimate_of_the_sketch():
    def runs(code):
        tokens = re.findall(r"[a-z]+", code)
        return {tuple(tokens[place : place + 5]) for place in range(len(tokens) - 4)}

    one = "the " + " ".join(f"{word} of" for word in "abcdefghijklmnopqrstuvwxyz") + " in 'words"
    other = one.replace("m of", "m or")
    common = len(runs(one) & runs(other)) / len(runs(one) | runs(other))
    rows = [record(0, code=one, description="One."), record(1, code=other, description="Other.")]
    (link,) = schema.links(rows)[1]
    assert link == (0, "near", round(common, 4))
    assert schema.links(rows, near=common + 0.001)[1] == []


def test_all_of_a_family_are_found_and_none_of_the_strangers():
    family = [PROGRAM.replace("one year", f"{number} years") for number in range(40)]
    strangers = [record(number)["code"] for number in range(40)]
    codes = [code for pair in zip(family, strangers, strict=True) for code in pair]
    rows = [record(n, code=code, description=f"Request number {n}.") for n, code in enumerate(codes)]
    found = schema.links(rows)
    assert [len(found[place]) for place in range(0, 80, 2)][:20] == list(range(20))
    assert all(found[place] for place in range(2, 80, 2))
    assert not any(found[place] for place in range(1, 80, 2))


def test_near_copies_follow_to_the_side_of_the_first():
    rows = [
        record(n, code=code, description=f"Number {n}.") for n, code in enumerate([PROGRAM, OTHER, RENAMED, EDITED])
    ]
    assert schema.sides(schema.marks(rows), [1, 0, 9, 9].__getitem__) == [1, 0, 1, 1]


def test_the_hash_seed_changes_nothing(tmp_path):
    rows = [record(number, code=PROGRAM.replace("one year", "year " * (number % 9))) for number in range(30)]
    write_rows(tmp_path / "in.jsonl", rows)
    (tmp_path / "show.py").write_text(
        "import json, schema\nrows = map(json.loads, open('in.jsonl'))\nprint(schema.links(rows))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "show.py"],
            cwd=tmp_path,
            env=CLEAN | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(told) == 1 and b"near" in told.pop()


def family(count):
    """Programs that share three quarters of their runs."""
    frame = [f"self.play(Create(Dot({number} * UP + {number + 3} * LEFT)), run_time={number})" for number in range(13)]
    codes = []
    for number in range(count):
        own = [f"self.add({word}{number}({number * 7 + place}, [{place}]))" for place, word in enumerate("abcd")]
        codes.append("\n    ".join(["def construct(self):", *frame[:6], *own, *frame[6:]]) + "\n")
    return codes


@pytest.mark.parametrize("count", [100, 400])
def test_a_copy_is_found_in_a_large_family_of_programs_that_are_much_alike(count):
    codes = family(count)
    copies = [code.replace("run_time=12", "run_time=99") for code in codes]
    rows = [record(n, code=code, description=f"Number {n}.") for n, code in enumerate([*codes, *copies])]
    found = schema.links(rows, near=0.8)
    assert not any(found[:count])
    assert [number for number in range(count) if number not in [link.earlier for link in found[count + number]]] == []


@pytest.mark.parametrize("lines", [60, 12])
def test_a_glance_at_the_sketches_loses_nobody_who_is_near(lines):
    base = [f"x{number} = f{number % 7}({number}, [{number * 3}])" for number in range(lines)]
    programs = ["\n".join([*(f"y = g({k}, {n})" for n in range(k)), *base[k:]]) + "\n" for k in range(lines)]
    found = schema.marks(record(number, code=code) for number, code in enumerate(programs))
    pairs = [(one, other) for one in range(lines) for other in range(one)]
    alike = found.may_be_near(*map(list, zip(*pairs, strict=True))).tolist()
    near = [found.similarity(*pair) >= 0.7 for pair in pairs]
    assert near.count(True) >= 4
    assert [pair for pair, glance, true in zip(pairs, alike, near, strict=True) if true and not glance] == []
    assert lines < 60 or alike.count(True) < len(pairs) / 2
