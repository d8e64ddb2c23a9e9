"""Splits that leak nothing and move nothing, and the audit that proves it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading

import pytest
import yaml
from conftest import read_rows, run_script, write_rows
from conftest import record as scene
from hypothesis import given, settings
from hypothesis import strategies as some

import schema
from stages.split_data.formats import find_fault
from stages.split_data.readings import readable_twice
from stages.split_data.sides import Clash, Facts, assign, side_of, upstream_side, value_of


def program(number):
    """Programs that no measure calls alike: no two share a run of tokens."""
    marks = hashlib.sha256(str(number).encode()).hexdigest()
    lines = [f"draw_{marks[at : at + 4]}({number}, at_{marks[at + 4 : at + 8]})" for at in range(0, 48, 4)]
    return "\n".join(lines) + "\n"


def record(number=0, **changes):
    return {**scene(number), "code": program(number), **changes}


def records(count, **metadata):
    return [record(number, metadata={"kind": "code", **metadata}) for number in range(count)]


def chosen_sides(rows, ratios, seed=42, stratify=(), near=None, benchmarks=()):
    facts = [Facts(stratum=tuple(value_of(row, key) or "" for key in stratify)) for row in rows]
    return assign(schema.marks([*benchmarks, *rows], near=near), facts, ratios, seed, exact=bool(stratify))


def split(folder, *arguments, check=0, stdin=None):
    return run_script("split_data.py", *arguments, cwd=folder, check=check, stdin=stdin)


def sides(folder, *names):
    return [read_rows(folder / f"{name}.jsonl") for name in names or ("train", "valid")]


def test_all_records_are_on_one_side_or_rejected_and_the_ledger_adds_up(tmp_path):
    write_rows(tmp_path / "in.jsonl", [*records(60), b"{broken"])
    done = split(tmp_path, "--input", "in.jsonl", "--output-dir", "out")
    train, valid = sides(tmp_path / "out")
    assert len(train) + len(valid) == 60
    assert f"61 in, 60 kept ({len(train)} train, {len(valid)} valid), 1 rejected -> out" in done.err
    assert 3 <= len(valid) <= 18
    (rejected,) = read_rows(tmp_path / "out" / "rejects.jsonl")
    assert rejected["metadata"]["error"]["raw"] == "{broken"
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_bytes())
    assert ledger["extra"]["sides"] == {"train": len(train), "valid": len(valid)}
    assert (ledger["options"]["ratios"], ledger["options"]["seed"]) == ([85, 15], 42)
    assert "adds up" in run_script("schema", "audit", "out/ledger.json", cwd=tmp_path, check=0).err
    assert not (tmp_path / "out" / "test.jsonl").exists()


def test_a_record_keeps_everything_and_remembers_its_side(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(20, extra={"π": [1, None]}))
    split(tmp_path, "split", "--input", "in.jsonl", "--output-dir", "out")
    for name, rows in zip(("train", "valid"), sides(tmp_path / "out"), strict=True):
        for row in rows:
            entry = row["metadata"]["lineage"][-1]
            assert (entry["stage"], entry["params"]["side"]) == ("split_data", name)
            assert row["metadata"]["extra"] == {"π": [1, None]}


def test_equal_runs_give_equal_bytes_also_from_standard_input(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", records(30))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "one")
    split(tmp_path, "--input", "-", "--output-dir", "two", stdin=path.read_bytes())
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "three", "--seed", "7")
    one, two, three = ((tmp_path / name / "train.jsonl").read_bytes() for name in ("one", "two", "three"))
    code = [[row["code"] for row in read_rows(tmp_path / name / "train.jsonl")] for name in ("one", "two", "three")]
    assert code[0] == code[1] != code[2]
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "one")
    assert (tmp_path / "one" / "train.jsonl").read_bytes() == one != three
    assert len(two) > 0


def test_records_with_the_same_code_or_words_are_never_parted():
    rows = [
        {**record(number), "description": f"words {number % 30 if copy else number}", "code": f"x = {number}"}
        for number in range(90)
        for copy in range(2)
    ]
    chosen = chosen_sides(rows, [50, 50])
    by_code, by_words = {}, {}
    for row, side in zip(rows, chosen, strict=True):
        if not isinstance(side, Clash):
            assert by_code.setdefault(row["code"], side) == side
            assert by_words.setdefault(row["description"], side) == side
    assert {0, 1} <= set(chosen)


# Rows that share codes, descriptions and groups in every way.
ROWS = some.lists(
    some.builds(
        lambda code, words, group, source: {
            "description": f"words {words}",
            "code": f"x = {code}",
            "source": f"source{source}",
            "metadata": {"id": "i", **({"group": f"g{group}"} if group else {})},
        },
        some.integers(0, 12),
        some.integers(0, 12),
        some.integers(0, 4),
        some.integers(0, 2),
    ),
    max_size=40,
)
RATIOS = some.sampled_from([[85, 15], [50, 50], [80, 10, 10], [0, 100], [34, 33, 33]])
KEYS = some.sampled_from([(), ("source",), ("source", "group")])


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, RATIOS, KEYS)
def test_what_is_appended_never_moves_an_old_record(old, new, ratios, stratify):
    before = chosen_sides(old, ratios, stratify=stratify)
    assert chosen_sides([*old, *new], ratios, stratify=stratify)[: len(old)] == before


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, RATIOS, KEYS)
def test_no_link_crosses_the_sides_or_leads_to_a_benchmark(benchmarks, rows, ratios, stratify):
    placed = chosen_sides(rows, ratios, stratify=stratify, benchmarks=benchmarks)
    owner = {mark: -1 for row in benchmarks for mark in marks_of(row)}
    for row, side in zip(rows, placed, strict=True):
        marks = marks_of(row)
        if isinstance(side, Clash):
            assert len({owner[mark] for mark in marks if mark in owner}) > (side.code == "bridges_sides")
        else:
            assert {owner.setdefault(mark, side) for mark in marks} == {side}


def marks_of(row):
    return [row["code"], row["description"], *filter(None, [row["metadata"].get("group")])]


def test_ten_percent_more_data_move_nothing_and_another_order_next_to_nothing():
    old, new = records(300), [record(number, source="new") for number in range(300, 330)]
    before = dict(zip([row["code"] for row in old], chosen_sides(old, [80, 10, 10]), strict=True))
    for rows, moved in (([*old, *new], 0), ([*new, *reversed(old)], 4)):
        after = dict(zip([row["code"] for row in rows], chosen_sides(rows, [80, 10, 10]), strict=True))
        # In another order other records fill the empty sides at the start: at most two, in either order.
        assert sum(after[code] != side for code, side in before.items()) <= moved


@pytest.mark.parametrize("ratios", [[99.9, 0.1], [0.1, 99.9], [98, 1, 1], [1, 1, 98]])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_side_is_empty_by_accident(ratios, seed):
    chosen = chosen_sides(records(len(ratios)), ratios, seed)
    assert sorted(chosen) == list(range(len(ratios)))


def test_a_side_of_zero_percent_stays_empty_on_purpose():
    assert set(chosen_sides(records(20), [100, 0])) == {0}
    assert set(chosen_sides(records(20), [0, 50, 50])) == {1, 2}


def test_too_few_records_for_all_sides_is_said(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(1))
    done = split(tmp_path, "--input", "in.jsonl", "--output-dir", "out")
    assert "is empty: there are too few records" in done.err


def test_the_shares_come_near_the_ratios_also_after_stage_1_took_its_test_side():
    # Both stages have the seed 42: with the same shares, what stage 1 left would hold too many for the second side.
    rows = [{**record(0), "code": f"x = {number}", "description": f"d {number}"} for number in range(4000)]
    marks = schema.marks(rows, near=None)
    left = [row for number, row in enumerate(rows) if schema.share(marks.key(number), 42) >= 0.5]
    assert abs(chosen_sides(left, [85, 15]).count(1) / len(left) - 0.15) < 0.03


@pytest.mark.parametrize(
    ("share", "ratios", "side"),
    [(0.0, [85, 15], 0), (0.8499, [85, 15], 0), (0.85, [85, 15], 1), (0.95, [80, 10, 10], 2), (0.9999999, [100, 0], 0)],
)
def test_the_share_decides_the_side(share, ratios, side):
    assert side_of(share, ratios) == side


def test_stratified_every_source_that_is_big_enough_stands_on_all_sides(tmp_path):
    rows = [record(number, source=f"source{number // 3}") for number in range(60)]
    write_rows(tmp_path / "in.jsonl", [*rows, record(60, source="lonely")])
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--stratify", "source,kind", "--ratios", "80/10/10")
    for rows in sides(tmp_path / "out", "train", "valid", "test"):
        assert {row["source"] for row in rows} - {"lonely"} == {f"source{number}" for number in range(20)}


SHAPES = {
    "messages": lambda d, c: {"messages": [{"role": "user", "content": d}, {"role": "assistant", "content": c}]},
    "alpaca": lambda d, c: {"instruction": d, "input": "", "output": c},
    "prompt-completion": lambda d, c: {"prompt": d, "completion": c},
    "text": lambda d, c: {"text": f"Instruction: {d}\nCode:\n{c}"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_format_has_the_shape_that_trainers_read(tmp_path, name):
    write_rows(tmp_path / "in.jsonl", records(12))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", name)
    expected = [SHAPES[name](row["description"], row["code"]) for row in records(12)]
    train, valid = sides(tmp_path / "out")
    assert all(row in expected for row in train + valid)
    assert len(train) + len(valid) == 12


def test_conversations_are_sharegpt_with_a_system_turn_and_a_fence(tmp_path):
    write_rows(tmp_path / "in.jsonl", [*records(2), record(3, code="An answer.", metadata={"kind": "qa"})])
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", "conversations")
    rows = [row for side in sides(tmp_path / "out") for row in side]
    answers = {len(row["conversations"]): row["conversations"][-1]["value"] for row in rows}
    assert answers[3].startswith("```python\ndraw_") and answers[3].endswith("\n```")
    assert answers[2] == "An answer."
    turns = next(row for row in rows if len(row["conversations"]) == 3)
    assert [turn["from"] for turn in turns["conversations"]] == ["system", "human", "gpt"]
    assert turns["source"] == "test"


@pytest.mark.parametrize("name", ["messages", "conversations", "alpaca", "prompt-completion", "text"])
def test_every_format_is_read_back_as_the_same_records(tmp_path, name):
    write_rows(tmp_path / "in.jsonl", records(12))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", name)
    done = split(tmp_path, "audit", "in.jsonl", "out/train.jsonl", check=3)
    pairs = [json.loads(line) for line in done.out.splitlines()]
    train = len(read_rows(tmp_path / "out" / "train.jsonl"))
    assert [pair["field"] for pair in pairs] == ["code", "description"] * train


@pytest.mark.parametrize(
    ("metadata", "description", "row_format", "reason"),
    [
        ({"needs_description": True}, "", "records", None),
        ({"needs_description": True}, "", "messages", "no_description"),
        ({"needs_description": True}, "", "text", "no_description"),
        ({"needs_description": True, "kind": "document"}, "", "text", None),
    ],
)
def test_a_record_that_a_format_can_not_hold_is_rejected(metadata, description, row_format, reason):
    fault = find_fault(record(1, metadata=metadata, description=description), row_format)
    assert (fault and fault.code) == reason


def test_the_audit_is_clean_on_the_sides_of_a_split(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(40))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out")
    done = split(tmp_path, "audit", "out/train.jsonl", "out/valid.jsonl")
    assert done.out == ""
    assert "none of 40 records in 2 files stands in two of them" in done.err


def test_the_audit_names_every_pair_by_code_and_by_description(tmp_path):
    train = records(5)
    same_code = record(6, code="# again\n" + train[1]["code"], metadata={"id": "b1"})
    same_words = record(7, description="  " + train[2]["description"].upper(), metadata={"id": "b2"})
    unnamed = record(8, description="", metadata={"needs_description": True})
    write_rows(tmp_path / "a.jsonl", [*train, {**unnamed, "code": "x = 1"}])
    write_rows(tmp_path / "b.jsonl", [same_code, same_words, unnamed])
    done = split(tmp_path, "audit", "a.jsonl", "b.jsonl", check=3)
    pairs = [json.loads(line) for line in done.out.splitlines()]
    assert [(pair["field"], pair["b"]) for pair in pairs] == [("code", "b1"), ("description", "b2")]
    assert "2 of 3 records of b.jsonl also stand in a.jsonl (1 by code, 1 by description)" in done.err


def test_the_audit_compares_all_files_and_names_the_row_of_each(tmp_path):
    for name, rows in (("a", records(3)), ("b", [record(10), record(1)]), ("c", [record(1), record(10), record(20)])):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    done = split(tmp_path, "audit", "a.jsonl", "b.jsonl", "c.jsonl", check=3)
    pairs = [json.loads(line) for line in done.out.splitlines()]
    found = [
        (pair["a_file"], pair["a_row"], pair["b_file"], pair["b_row"]) for pair in pairs if pair["field"] == "code"
    ]
    assert found == [
        ("a.jsonl", 2, "b.jsonl", 2),
        ("a.jsonl", 2, "c.jsonl", 1),
        ("b.jsonl", 2, "c.jsonl", 1),
        ("b.jsonl", 1, "c.jsonl", 2),
    ]
    assert "2 of 3 records of c.jsonl also stand in b.jsonl (2 by code, 2 by description)" in done.err


def test_the_audit_sees_the_same_group_on_both_sides(tmp_path):
    write_rows(tmp_path / "a.jsonl", records(1, group="one film"))
    write_rows(tmp_path / "b.jsonl", [record(7, metadata={"group": "one film"})])
    done = split(tmp_path, "audit", "a.jsonl", "b.jsonl", check=3)
    assert json.loads(done.out)["field"] == "group"


def test_the_audit_of_a_benchmark_is_one_more_file_that_is_not_compared_with_other_benchmarks(tmp_path):
    write_rows(tmp_path / "a.jsonl", records(3))
    for name in ("one", "two"):
        write_rows(tmp_path / f"{name}.jsonl", [record(2), record(9)])
    done = split(tmp_path, "audit", "a.jsonl", "--benchmark", "one.jsonl", "--benchmark", "two.jsonl", check=3)
    assert {json.loads(line)["b_file"] for line in done.out.splitlines()} == {"a.jsonl"}
    assert "1 of 3 records of a.jsonl also stand in two.jsonl" in done.err
    assert "compared with nothing" in split(tmp_path, "audit", "a.jsonl", check=2).err
    assert "has to be read twice" in split(tmp_path, "audit", "a.jsonl", "/dev/null", check=2).err


def test_the_audit_does_not_call_a_file_clean_that_it_could_not_read(tmp_path):
    write_rows(tmp_path / "a.jsonl", records(2))
    write_rows(tmp_path / "b.jsonl", [record(3), b"{broken"])
    assert "b.jsonl: 1 rows can not be read" in split(tmp_path, "audit", "a.jsonl", "b.jsonl", check=3).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratios", "80/10"], "'80/10' adds up to 90, not to 100"),
        (["--ratios", "100"], "two or three shares"),
        (["--ratios", "110/-10"], "two or three shares"),
        (["--ratios", "nan/nan"], "two or three shares"),
        (["--ratios", "most/rest"], "not of the form 85/15"),
        (["--format", "parquet"], "--format"),
        (["--stratify", "sorce"], "--stratify sorce: no record has this key"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_nothing_is_written(tmp_path, arguments, message):
    write_rows(tmp_path / "in.jsonl", records(3))
    done = split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", *arguments, check=2)
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_a_split_never_takes_the_place_of_its_own_input(tmp_path):
    path = write_rows(tmp_path / "out" / "train.jsonl", records(9))
    done = split(tmp_path, "--input", "out/train.jsonl", "--output-dir", "out", check=2)
    assert "choose another --output-dir" in done.err
    assert len(read_rows(path)) == 9


def test_a_two_way_split_removes_the_test_side_of_an_earlier_three_way_one(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(12))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--ratios", "60/20/20")
    assert (tmp_path / "out" / "test.jsonl").exists()
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out")
    assert not (tmp_path / "out" / "test.jsonl").exists()


def test_an_input_without_a_record_fails_and_leaves_the_old_split(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(4))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out")
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "out").iterdir()}
    write_rows(tmp_path / "in.jsonl", [b"{broken"])
    done = split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", check=1)
    assert "there is no record to split; the first row is rejected: not_json: " in done.err
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "out").iterdir()} == before


# --- benchmarks -------------------------------------------------------------------------------------------------------


def test_what_stands_in_a_benchmark_is_rejected_with_its_row(tmp_path):
    benchmark = [record(50), record(5, metadata={"id": "b2"}), record(60)]
    write_rows(tmp_path / "benchmark.jsonl", benchmark)
    same_words = record(70, description=benchmark[0]["description"].upper())
    write_rows(tmp_path / "in.jsonl", [*records(20), same_words])
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--benchmark", "benchmark.jsonl")
    first, second = read_rows(tmp_path / "out" / "rejects.jsonl")
    assert first["metadata"]["error"]["message"] == "it has the code of row 2 of benchmark.jsonl (b2)"
    assert second["metadata"]["error"]["message"].startswith("it has the description of row 1 of benchmark.jsonl")
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_bytes())
    assert ledger["reasons"] == {"in_benchmark": 2}
    assert [entry["path"] for entry in ledger["inputs"]] == ["../in.jsonl", "../benchmark.jsonl"]
    split(tmp_path, "audit", "out/train.jsonl", "out/valid.jsonl", "--benchmark", "benchmark.jsonl", check=0)


def test_a_benchmark_that_can_not_be_read_decontaminates_nothing(tmp_path):
    write_rows(tmp_path / "benchmark.jsonl", [record(1), b"{broken"])
    write_rows(tmp_path / "in.jsonl", records(4))
    done = split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--benchmark", "benchmark.jsonl", check=1)
    assert "benchmark.jsonl: line 2" in done.err
    assert not (tmp_path / "out").exists()


PROGRAM = """
from manim import *


class {name}(Scene):
    def construct(self):
        {one} = Circle(radius=2, color=BLUE).shift(LEFT * 2)
        {two} = Square(side_length=3).set_fill(GREEN, opacity=0.5)
        {three} = VGroup({one}, {two}).arrange(RIGHT, buff=0.7)
        self.play(Create({one}), FadeIn({two}, shift=UP))
        self.play({three}.animate.scale(1.5).to_edge(DOWN), run_time={seconds})
        self.wait(2)
        self.play(FadeOut({three}), Rotate({one}, angle=PI / 2))
        self.wait()
"""
ORIGINAL = PROGRAM.format(name="Shapes", one="circle", two="square", three="both", seconds=2)
RENAMED = PROGRAM.format(name="MyScene", one="a", two="b", three="group", seconds=3)


def test_the_audit_finds_a_program_whose_names_and_numbers_were_changed(tmp_path):
    write_rows(tmp_path / "a.jsonl", [record(1), record(2, code=ORIGINAL)])
    write_rows(tmp_path / "b.jsonl", [record(3, code=RENAMED), record(4)])
    (line,) = split(tmp_path, "audit", "a.jsonl", "b.jsonl", check=3).out.splitlines()
    pair = json.loads(line)
    assert (pair["field"], pair["a_row"], pair["b_row"]) == ("near", 2, 1)
    assert 0.7 <= pair["similarity"] < 1
    for option in (["--near-threshold", "1"], ["--near-threshold", "0.99"], ["--normalise", "raw"]):
        assert split(tmp_path, "audit", "a.jsonl", "b.jsonl", *option, check=0).out == ""


def test_nearly_the_same_programs_stand_on_one_side_and_none_gets_past_a_benchmark(tmp_path):
    close = [record(number, code=code) for number, code in enumerate([ORIGINAL, RENAMED], 500)]
    write_rows(tmp_path / "in.jsonl", [*records(60), *close])
    for seed in range(4):
        split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--ratios", "50/50", "--seed", seed, check=0)
        found = [[row["code"] in (ORIGINAL, RENAMED) for row in rows].count(True) for rows in sides(tmp_path / "out")]
        assert sorted(found) == [0, 2]
        split(tmp_path, "audit", "out/train.jsonl", "out/valid.jsonl", check=0)
    write_rows(tmp_path / "benchmark.jsonl", [record(900, code=RENAMED)])
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--benchmark", "benchmark.jsonl", check=0)
    errors = [row["metadata"]["error"] for row in read_rows(tmp_path / "out" / "rejects.jsonl")]
    assert [error["code"] for error in errors] == ["in_benchmark"] * 2
    assert re.match(r"it is 0\.\d\d like row 1 of benchmark.jsonl", errors[0]["message"])


def test_text_that_is_no_program_is_found_again_word_for_word(tmp_path):
    line = "from manim import * class MyScene(Scene): def construct(self): self.add(Circle())"
    write_rows(tmp_path / "a.jsonl", [{"instruction": "Add a circle.", "output": line}])
    write_rows(tmp_path / "b.jsonl", [{"instruction": "Show it.", "output": line + " "}])
    assert json.loads(split(tmp_path, "audit", "a.jsonl", "b.jsonl", check=3).out)["field"] == "code"


# --- splits from upstream ---------------------------------------------------------------------------------------------


def came_as(number, side, **changes):
    return record(number, metadata={"Split": side}, **changes)


def test_an_upstream_split_is_kept_on_request(tmp_path):
    rows = [came_as(number, "Test" if number % 3 == 0 else "train") for number in range(30)]
    write_rows(tmp_path / "in.jsonl", [*rows, record(40)])
    for key in ("Split", "metadata.Split"):
        split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--honour-split", key, check=0)
        train, valid = sides(tmp_path / "out")
        assert {row["metadata"].get("Split") for row in valid} - {None} == {"Test"}
        assert {row["metadata"].get("Split") for row in train} - {None} == {"train"}
        assert len(train) + len(valid) == 31


def test_an_upstream_split_that_leaks_loses_the_later_record_by_name(tmp_path):
    rows = [came_as(1, "train"), came_as(2, "test"), came_as(3, "validation", code=record(1)["code"])]
    rows[0]["metadata"]["id"] = "first"
    write_rows(tmp_path / "in.jsonl", [*rows, came_as(4, "holdout")])
    ratios = ["--ratios", "80/10/10"]
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--honour-split", "Split", *ratios, check=0)
    errors = [row["metadata"]["error"] for row in read_rows(tmp_path / "out" / "rejects.jsonl")]
    assert [error["code"] for error in errors] == ["split_conflict", "unknown_split"]
    assert errors[0]["message"] == "its Split is 'validation', but it has the code of first in train"
    assert [len(rows) for rows in sides(tmp_path / "out", "train", "valid", "test")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("word", "sides_of_two", "sides_of_three"),
    [("TRAIN", 0, 0), ("validation", 1, 1), ("dev", 1, 1), ("held-out", 1, 2), ("", None, None), (None, None, None)],
)
def test_the_words_for_a_split_that_published_sets_use(word, sides_of_two, sides_of_three):
    row = came_as(1, word)
    assert upstream_side(row, "Split", 2) == sides_of_two
    assert upstream_side(row, "Split", 3) == sides_of_three
    assert upstream_side(row, None, 3) is None


def test_a_record_between_two_sides_is_rejected_with_both_of_its_neighbours(tmp_path):
    rows = [came_as(1, "train"), came_as(2, "test"), record(3, code=program(1), description=record(2)["description"])]
    for number, row in enumerate(rows):
        row["metadata"] = {**row["metadata"], "id": f"id{number}"}
    write_rows(tmp_path / "in.jsonl", rows)
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--honour-split", "Split", check=0)
    (rejected,) = read_rows(tmp_path / "out" / "rejects.jsonl")
    error = rejected["metadata"]["error"]
    assert (error["code"], error["message"]) == (
        "bridges_sides",
        "it has the code of id0 in train and has the description of id1 in valid",
    )


def test_a_pipe_that_can_be_read_only_once_loses_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    rows = b"".join(json.dumps(row).encode() + b"\n" for row in records(20))
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[rows])
    writer.start()
    split(tmp_path, "--input", "pipe", "--output-dir", "out")
    writer.join()
    assert sum(map(len, sides(tmp_path / "out"))) == 20


def test_a_file_that_changes_between_its_two_readings_is_an_error(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", records(2))
    with pytest.raises(schema.Failure, match="changed while it was read"), readable_twice(str(path)):
        write_rows(path, records(3))


def test_stratified_each_source_is_divided_by_the_ratios_to_within_one_record():
    rows = [record(number, source="abc"[number % 7 % 3]) for number in range(700)]
    chosen = chosen_sides(rows, [80, 15, 5], stratify=["source"])
    for source in "abc":
        own = [side for row, side in zip(rows, chosen, strict=True) if row["source"] == source]
        for side, ratio in enumerate((0.8, 0.15, 0.05)):
            assert abs(own.count(side) - ratio * len(own)) <= 2


# --- other trainers ---------------------------------------------------------------------------------------------------

CONFIGS = {
    "messages": ["axolotl", "llamafactory", "mlx_lora", "trl", "unsloth"],
    "conversations": ["axolotl", "llamafactory", "unsloth"],
    "alpaca": ["axolotl", "llamafactory", "unsloth"],
    "prompt-completion": ["axolotl", "llamafactory", "mlx_lora", "trl"],
    "text": ["axolotl", "llamafactory", "mlx_lora", "trl"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_format_comes_with_the_settings_of_each_trainer_that_reads_it(tmp_path, name):
    write_rows(tmp_path / "in.jsonl", records(12))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", name, "--model", "some/model", check=0)
    found = {path.stem: yaml.safe_load(path.read_bytes()) for path in sorted((tmp_path / "out").glob("*.yaml"))}
    assert list(found) == CONFIGS[name]
    assert {value for tree in found.values() for key, value in tree.items() if "model" in key} == {"some/model"}
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_bytes())
    assert {key: entry["file_name"] for key, entry in info.items()} == {
        "linemill_train": "train.jsonl",
        "linemill_valid": "valid.jsonl",
    }
    row = sides(tmp_path / "out")[0][0]
    assert set(info["linemill_train"]["columns"].values()) <= row.keys()
    assert str(tmp_path) not in "".join(map(str, found.values())), "the folder can be moved"
    run_script("schema", "audit", "out", cwd=tmp_path, check=0)


def test_settings_for_trainers_are_left_out_on_request_and_go_with_the_set(tmp_path):
    write_rows(tmp_path / "in.jsonl", records(12))
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", "messages", check=0)
    split(tmp_path, "--input", "in.jsonl", "--output-dir", "out", "--format", "messages", "--no-trainer-configs")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"train.jsonl", "valid.jsonl", "rejects.jsonl", "ledger.json"}


def test_without_a_word_every_style_of_the_paper_pipeline_is_split_as_messages(tmp_path):
    for style in ("eli5", "executive"):
        rows = [
            {"messages": [{"role": "user", "content": f"Explain {n}"}, {"role": "assistant", "content": program(n)}]}
            for n in range(40)
        ]
        write_rows(tmp_path / "data" / f"{style}_2048.jsonl", rows)
        write_rows(tmp_path / "data" / f"{style}.jsonl", rows)
    split(tmp_path, check=0)
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if path.is_dir()) == [
        "eli5_2048",
        "executive_2048",
    ]
    for style in ("eli5", "executive"):
        train, valid = sides(tmp_path / "data" / f"{style}_2048")
        assert len(train) + len(valid) == 40 and valid
        assert [turn["role"] for turn in train[0]["messages"]] == ["user", "assistant"]
    assert "there is no such file" in split(tmp_path / "data", "--seed", "1", check=2).err
    assert "--input needs --output-dir" in split(tmp_path, "--input", "data/eli5.jsonl", check=2).err
