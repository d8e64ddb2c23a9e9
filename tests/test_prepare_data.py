"""Stage 1 as a user runs it: every row is kept, rejected or merged, and the set of files is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from hypothesis import given
from hypothesis import strategies as st
from test_extractors import EXAMPLE, make_wheel

from stages.prepare_data.statistics import about_how_many_tokens, about_tokens_of, summary

OUTPUTS = [
    "dataset_stats.json",
    "deduplication_report.json",
    "ledger.json",
    "rejects.jsonl",
    "removed_duplicates.json",
    "test.json",
    "train.json",
]


def prepare(folder, *arguments, check=0, env=None):
    return run_script("prepare_data.py", "prepare", *arguments, cwd=folder, check=check, env=env)


def sources(folder, text):
    (folder / "sources.yaml").write_text(text, encoding="utf-8")


def local(folder, name, rows, more=""):
    """A source of the type local, added to sources.yaml."""
    write_rows(folder / f"{name}.jsonl", rows)
    with (folder / "sources.yaml").open("a") as file:
        file.write(f"{name}:\n  type: local\n  path: {name}.jsonl\n{more}")


def rows_of(folder, *names):
    return [row for name in names or ("train.json", "test.json") for row in read_rows(folder / "data_formatted" / name)]


def report(folder, name):
    return json.loads((folder / "data_formatted" / name).read_bytes())


def pair(number=0, **changes):
    """A row of somebody else's table."""
    made = record(number)
    return {"instruction": made["description"], "output": made["code"], **changes}


def test_the_commands_of_the_documentation_run_as_written(tmp_path):
    local(tmp_path, "a", [pair(number) for number in range(5)])
    local(tmp_path, "b", [pair(number) for number in range(5, 10)])
    local(tmp_path, "c", [pair(number) for number in range(10, 15)], "  enabled: false\n  reason: too old\n")
    prepare(tmp_path, "--sources", "all")
    assert {row["source"] for row in rows_of(tmp_path)} == {"a", "b"}
    prepare(tmp_path, "--sources", "a", "c")
    assert {row["source"] for row in rows_of(tmp_path)} == {"a", "c"}
    prepare(tmp_path)
    assert {row["source"] for row in rows_of(tmp_path)} == {"a", "b"}
    listed = run_script("prepare_data.py", "list-sources", cwd=tmp_path, check=0).out
    assert "too old" in listed
    assert sorted(entry.name for entry in (tmp_path / "data_formatted").iterdir()) == OUTPUTS


def test_without_a_sources_file_here_the_one_of_the_script_is_read(tmp_path):
    assert "manim_package" in run_script("prepare_data.py", "list-sources", cwd=tmp_path, check=0).out


def test_list_sources_is_also_for_programs(tmp_path):
    local(tmp_path, "a", [], "  priority: 3\n  expected_samples: 12\n  licence: MIT\n")
    listed = run_script("prepare_data.py", "list-sources", "--json", cwd=tmp_path, check=0).out
    assert json.loads(listed) == {
        "name": "a",
        "type": "local",
        "priority": 3,
        "enabled": True,
        "reason": None,
        "expected_samples": 12,
        "licence": "MIT",
        "cached": "local",
        "lacks": [],
        "fault": None,
    }


def test_every_row_is_kept_rejected_or_merged_and_the_ledger_adds_up(tmp_path):
    same_words = pair(1, output=record(2)["code"] + "\nx = 1\n")
    same_code = pair(3, output="# a comment\n" + record(1)["code"])
    broken = pair(4, output="def (:\n")
    rows = [pair(1), same_words, same_code, broken, b"{not json", pair(5), {"instruction": "x", "output": None}]
    local(tmp_path, "a", rows, "  expected_samples: 8\n")
    done = prepare(tmp_path)
    assert "7 in, 2 kept (1 train, 1 test), 3 rejected, 2 merged -> data_formatted" in done.err
    assert "7 rows where 8 were expected" in done.err
    assert {
        row["metadata"]["error"]["code"]: row["metadata"]["error"] for row in rows_of(tmp_path, "rejects.jsonl")
    } == {
        "does_not_parse": {"stage": "prepare_data", "code": "does_not_parse", "message": "line 1: invalid syntax"},
        "not_json": {
            "stage": "prepare_data",
            "code": "not_json",
            "message": "not JSON: JSON is malformed: object keys must be strings (byte 1)",
            "raw": "{not json",
        },
        "unknown_shape": {
            "stage": "prepare_data",
            "code": "unknown_shape",
            "message": "no known shape: it has instruction, metadata, output, source",
            "raw": '{"instruction":"x","output":null,"metadata":{"origin":{"path":"a.jsonl","line":7}}}',
        },
    }
    places = [row["metadata"]["origin"]["line"] for row in rows_of(tmp_path, "rejects.jsonl")]
    assert places == [4, 5, 7]
    ledger = report(tmp_path, "ledger.json")
    assert ledger["counts"] | {"train": 1, "test": 1} == ledger["counts"]
    assert ledger["reasons"] == {"does_not_parse": 1, "not_json": 1, "unknown_shape": 1}
    assert "adds up" in run_script("schema", "audit", "data_formatted/ledger.json", cwd=tmp_path, check=0).err


def test_removed_duplicates_name_the_record_that_stays_and_what_they_share(tmp_path):
    local(tmp_path, "low", [pair(1), pair(2), pair(2)], "  priority: 1\n")
    local(
        tmp_path,
        "high",
        [pair(1, instruction="Other words for it"), pair(9, instruction=record(2)["description"])],
        "  priority: 2\n",
    )
    prepare(tmp_path)
    kept = {row["metadata"]["id"]: row for row in rows_of(tmp_path)}
    assert [row["source"] for row in kept.values()] == ["high", "high"]
    removed = rows_of(tmp_path, "removed_duplicates.json")
    assert [row["metadata"]["duplicate_of"]["field"] for row in removed] == ["code", "description", "description"]
    for row in removed:
        why = row["metadata"]["duplicate_of"]
        assert kept[why["kept_id"]]["source"] == why["kept_source"] == "high"
        assert why["similarity"] == 1.0
    told = report(tmp_path, "deduplication_report.json")
    assert (told["records"], told["kept"], told["removed"]) == (5, 2, 3)
    assert told["by_field"] == {"code": 1, "description": 2}
    assert told["by_source"]["low"] == {"priority": 1, "records": 3, "removed": 3, "kept": 0}
    assert told["between_sources"] == [{"removed": "low", "kept": "high", "count": 3}]


def test_among_equals_the_first_seen_stays(tmp_path):
    local(tmp_path, "first", [pair(1)])
    local(tmp_path, "second", [pair(1), pair(2)])
    prepare(tmp_path)
    assert sorted(row["source"] for row in rows_of(tmp_path)) == ["first", "second"]


def test_without_deduplication_equal_records_stay_on_one_side(tmp_path):
    rows = [
        pair(number, instruction=f"{record(number)['description']} {copy}") for number in range(12) for copy in "ab"
    ]
    local(tmp_path, "a", rows)
    prepare(tmp_path, "--no-deduplicate", "--test-ratio", "0.4")
    train, test = ({row["code"] for row in rows_of(tmp_path, name)} for name in ("train.json", "test.json"))
    assert len(rows_of(tmp_path)) == 24
    assert train and test and not train & test
    assert rows_of(tmp_path, "removed_duplicates.json") == []


def test_equal_runs_give_equal_bytes_whatever_the_hash_seed(tmp_path):
    local(tmp_path, "a", [pair(number % 7) for number in range(20)] + [b"broken"])
    before = {}
    for seed in ("1", "2"):
        prepare(tmp_path, env={"PYTHONHASHSEED": seed})
        after = {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()}
        assert before in ({}, after)
        before = after


def test_new_data_never_moves_an_old_record(tmp_path):
    local(tmp_path, "a", [pair(number) for number in range(40)])
    prepare(tmp_path, "--test-ratio", "0.3")
    old = {row["metadata"]["id"]: name for name in ("train.json", "test.json") for row in rows_of(tmp_path, name)}
    local(tmp_path, "b", [pair(number) for number in range(40, 60)])
    prepare(tmp_path, "--test-ratio", "0.3")
    new = {row["metadata"]["id"]: name for name in ("train.json", "test.json") for row in rows_of(tmp_path, name)}
    assert len(new) == 60
    assert old.items() <= new.items()
    assert set(old.values()) == {"train.json", "test.json"}


@pytest.mark.parametrize("seed", range(4))
def test_two_records_are_enough_for_two_sides(tmp_path, seed):
    local(tmp_path, "a", [pair(1), pair(2)])
    prepare(tmp_path, "--seed", seed, "--test-ratio", "0.01" if seed % 2 else "0.99")
    assert len(rows_of(tmp_path, "train.json")) == len(rows_of(tmp_path, "test.json")) == 1


def test_an_empty_side_is_said(tmp_path):
    local(tmp_path, "a", [pair(1)])
    assert "the test side is empty" in prepare(tmp_path).err
    local(tmp_path, "b", [pair(2)])
    prepare(tmp_path, "--test-ratio", "0")
    assert len(rows_of(tmp_path, "train.json")) == 2


def test_limit_counts_for_each_source_and_lengths_reject_with_a_reason(tmp_path):
    local(tmp_path, "a", [pair(number) for number in range(5)])
    local(tmp_path, "b", [pair(7, output="x = 1\n"), pair(8, instruction="Hm"), pair(9)])
    prepare(tmp_path, "--limit", "2", "--min-code-length", "30", "--min-description-length", "5")
    assert [row["source"] for row in rows_of(tmp_path)] == ["a", "a"]
    reasons = [row["metadata"]["error"]["code"] for row in rows_of(tmp_path, "rejects.jsonl")]
    assert reasons == ["short_code", "short_description"]


def test_a_text_that_stands_for_a_description_becomes_the_flag(tmp_path):
    pending = {"instruction": "[PENDING_DESCRIPTION] - Source: x"}
    local(tmp_path, "a", [pair(1, **pending), pair(2, **pending), pair(3)], "  licence: MIT\n")
    prepare(tmp_path, "--min-description-length", "3")
    flags = {row["description"] == "": row["metadata"]["needs_description"] for row in rows_of(tmp_path)}
    assert len(rows_of(tmp_path)) == 3
    assert flags == {True: True, False: False}
    assert {row["metadata"]["licence"] for row in rows_of(tmp_path)} == {"MIT"}


def test_answers_that_are_no_programs_are_not_parsed(tmp_path):
    local(tmp_path, "a", [{"question": "Why?", "answer": "Because it is so."}])
    local(tmp_path, "b", [{"instruction": "Why not?", "output": "It is not so."}], "  kind: qa\n")
    prepare(tmp_path)
    assert [row["metadata"]["kind"] for row in rows_of(tmp_path)] == ["qa", "qa"]


def test_records_of_an_earlier_run_keep_their_id_origin_and_history(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)])
    prepare(tmp_path)
    old = {row["metadata"]["id"]: row["metadata"] for row in rows_of(tmp_path)}
    sources(tmp_path, "again:\n  type: local\n  path: data_formatted/t*.json\n")
    prepare(tmp_path, "--output-dir", "again")
    new = [row for name in ("train.json", "test.json") for row in read_rows(tmp_path / "again" / name)]
    assert {row["metadata"]["id"] for row in new} == old.keys()
    for row in new:
        before = old[row["metadata"]["id"]]
        assert row["source"] == "again"
        assert row["metadata"]["upstream_source"] == "a"
        assert row["metadata"]["origin"] == before["origin"]
        assert row["metadata"]["lineage"][:-1] == before["lineage"]
        assert row["metadata"]["lineage"][-1]["parent"]


def test_a_rejects_file_can_be_a_source_once_its_records_are_mended(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2, output="def (:\n")])
    prepare(tmp_path)
    (rejected,) = rows_of(tmp_path, "rejects.jsonl")
    rejected["code"] = record(2)["code"]
    (tmp_path / "sources.yaml").unlink()
    local(tmp_path, "mended", [rejected])
    prepare(tmp_path)
    assert [row["code"] for row in rows_of(tmp_path)] == [record(2)["code"]]
    assert "error" not in rows_of(tmp_path)[0]["metadata"]


def test_a_source_that_fails_leaves_the_old_output_untouched(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)])
    prepare(tmp_path)
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()}
    with (tmp_path / "sources.yaml").open("a") as file:
        file.write("gone:\n  type: local\n  path: gone.jsonl\n")
    done = prepare(tmp_path, check=1)
    assert "Error: gone: gone.jsonl: no file of this name" in done.err
    assert "--keep-going" in done.err
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()} == before


def test_keep_going_does_without_the_source_and_says_so(tmp_path):
    sources(tmp_path, "gone:\n  type: local\n  path: gone.jsonl\n")
    local(tmp_path, "a", [pair(1), pair(2)])
    done = prepare(tmp_path, "--keep-going", check=3)
    assert "Error: missing: gone: gone.jsonl" in done.err
    assert len(rows_of(tmp_path)) == 2
    assert list(report(tmp_path, "ledger.json")["extra"]["missing"]) == ["gone"]
    assert list(report(tmp_path, "dataset_stats.json")["missing"]) == ["gone"]


def test_no_record_at_all_is_a_failure_that_says_why(tmp_path):
    local(tmp_path, "a", [b"broken", pair(1, output="def (:\n")])
    done = prepare(tmp_path, check=1)
    assert "there is no record to write: 1 does_not_parse, 1 not_json (the first: not JSON:" in done.err
    assert not (tmp_path / "data_formatted").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  type: locl\n", "sources.yaml:1: a: no type 'locl'; did you mean local?"),
        ("# x\na:\n  type: local\n  pth: b\n", "sources.yaml:2: a: local has no option 'pth'; it takes path, format,"),
        ("a:\n  type: local\n  pth: b\n", "did you mean path?"),
        ("a:\n  type: local\n  path: b\n  prority: 3\n", "did you mean priority?"),
        ("a:\n  type: local\n", "local: missing a required argument: 'path'"),
        ("a:\n  type: local\n  path: 3\n", "local: path: Expected `str`, got `int`; put it in quotes"),
        ("a:\n  type: local\n  path: b\n  format: xls\n", "local: format: Invalid enum value 'xls'"),
        ("a:\n  type: manim_package\n  version: 0.22\n", "version: Expected `str`, got `float`; put it in quotes"),
        ("a:\n  type: local\n  path: b\n  priority: high\n", "a: Expected `int`, got `str` - at `$.priority`"),
        ("a:\n  type: local\n  path: b\na:\n  type: local\n", "sources.yaml:4: 'a' stands twice, first in line 1"),
        ("a:\n  type: local\n  path: b\n  path: c\n", "sources.yaml:4: 'path' stands twice"),
        ("a:\n  type: local\n path: b\n", "sources.yaml:3: not YAML:"),
        ("a: [1\n", "not YAML:"),
        ("a: local\n", "sources.yaml:1: a: a source is a name with options below it"),
        ("- a\n", "sources.yaml: it must hold sources"),
        ("", "sources.yaml: it must hold sources"),
        ("a:\n  path: b\n", "sources.yaml:1: a: it has no type; only a source that can never be read"),
        ("a:\n  type: local\n  path: b\n  enabled: false\n", "no source is enabled"),
    ],
)
def test_a_mistake_in_sources_yaml_is_named_before_anything_is_read(tmp_path, text, message):
    sources(tmp_path, text)
    assert message in prepare(tmp_path, check=2).err
    assert not (tmp_path / "data_formatted").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sources", "my_scens"], "--sources my_scens: there is no such source; did you mean my_scenes?"),
        (["--sources", "zzz"], "there is no such source; there is my_scenes"),
        (["my_scenes"], "did you mean --sources my_scenes?"),
        (["--offline", "--refresh"], "leave one out"),
        (["--limit", "0"], "--limit"),
        (["--test-ratio", "2"], "--test-ratio"),
        (["--sources-file", "none.yaml"], "none.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(tmp_path, arguments, message):
    local(tmp_path, "my_scenes", [pair(1)])
    assert message in prepare(tmp_path, *arguments, check=2).err


def test_columns_that_are_not_clear_are_wrong_usage_and_name_the_source(tmp_path):
    local(tmp_path, "a", [{"title": "x", "body": "y"}])
    local(tmp_path, "b", [pair(1), pair(2)])
    for workers in (1, 2):
        done = prepare(tmp_path, "--keep-going", "--workers", workers, check=2)
        assert "sources.yaml:1: a: a.jsonl: can not tell" in done.err


def test_the_manim_package_is_fetched_once_and_then_read_from_the_cache(tmp_path):
    make_wheel(tmp_path / "index" / "manim-0.22.0-py3-none-any.whl", {"manim/shape.py": EXAMPLE})
    sources(tmp_path, "manim_package:\n  type: manim_package\n  expected_samples: 6\n")
    shop = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index"), "PIP_CONFIG_FILE": "/dev/null"}
    done = prepare(tmp_path, "--offline", check=1, env=shop)
    assert "Error: manim_package: manim-0.22.0-py3-none-any.whl is not in" in done.err
    assert "6 in, 5 kept" in prepare(tmp_path, env=shop).err
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()}
    empty = {**shop, "PIP_FIND_LINKS": str(tmp_path)}
    prepare(tmp_path, "--offline", env=empty)
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()} == before
    done = prepare(tmp_path, "--refresh", check=1, env=empty)
    assert "Error: manim_package: pip download manim==0.22.0: ERROR: No matching distribution found" in done.err
    assert done.err.count("\n") == 1
    assert (tmp_path / ".cache/manim_datasets/manim_package/manim-0.22.0-py3-none-any.whl").exists()


THIRD_PARTY = '''
from pathlib import Path

def extract(count: int, *, folder: Path = Path("."), fetch):
    """Rows of all qualities."""
    assert fetch.folder.name == "made_up"
    for number in range(count):
        yield {"description": f"Number {number}", "code": f"x = {number}", "metadata": {"kind": "code"}}
    yield {"description": "no code"}
    yield {"description": "a path", "code": "y = 1", "metadata": {"origin": {"path": Path("a")}}}
    yield {"description": "half a character", "code": "y = '\\ud800'"}
    yield "not a row"
'''


def package(site, name, text):
    """An installed package that brings one type: what pip leaves behind, made by hand."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[linemill.extractors]\n{name} = {name}:extract\n")
    return site


def test_a_type_of_another_package_is_used_without_any_registration_here(tmp_path):
    site = package(tmp_path / "site", "made_up", THIRD_PARTY)
    sources(tmp_path, "numbers:\n  type: made_up\n  count: 3\n  folder: here\n")
    done = prepare(tmp_path, env={"PYTHONPATH": str(site)})
    assert "7 in, 3 kept" in done.err
    reasons = [row["metadata"]["error"]["code"] for row in rows_of(tmp_path, "rejects.jsonl")]
    assert reasons == ["unknown_shape", "not_json", "invalid_record", "not_a_row"]
    sources(tmp_path, "numbers:\n  type: made_up\n  cuont: 3\n")
    done = prepare(tmp_path, check=2, env={"PYTHONPATH": str(site)})
    assert "made_up has no option 'cuont'; it takes count, folder; did you mean count" in done.err


def test_files_of_others_in_the_output_folder_stay(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)])
    (tmp_path / "data_formatted").mkdir()
    (tmp_path / "data_formatted" / "notes.txt").write_text("mine")
    prepare(tmp_path)
    assert (tmp_path / "data_formatted" / "notes.txt").read_text() == "mine"


def test_verbose_says_why_and_quiet_says_nothing(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2, output="def (:\n")])
    assert "rejected: does_not_parse: line 1: invalid syntax" in prepare(tmp_path, "-v").err
    assert prepare(tmp_path, "-q").err == ""


def test_what_is_not_said_is_what_the_documentation_says(tmp_path):
    local(tmp_path, "a", [pair(number) for number in range(3)])
    prepare(tmp_path)
    options = report(tmp_path, "ledger.json")["options"]
    said = {"test_ratio": 0.1, "seed": 42, "near_threshold": 0.7, "normalise": "alpha", "deduplicate": True}
    said |= {"same_code": "merge", "same_description": "merge", "many_descriptions": "flag", "max_descriptions": 3}
    said |= {"augmentation": False, "augment_factor": {"human": 2.5, "llm": 3}, "max_augmented": 4}
    assert {name: options[name] for name in said} == said


# --- statistics -------------------------------------------------------------------------------------------------------


def test_the_statistics_follow_the_rows_of_each_source_and_can_be_counted_again(tmp_path):
    fixed = {**record(20), "source": "x", "metadata": {"kind": "code", "fixes_applied": ["fence", "imports"]}}
    local(tmp_path, "a", [*(pair(number) for number in range(20)), b"{", fixed], "  expected_samples: 30\n")
    pending = pair(30, instruction="[PENDING_DESCRIPTION]")
    local(tmp_path, "b", [pair(1), pending, pair(31, output="def (:")], "  priority: 2\n")
    done = prepare(tmp_path, "--test-ratio", "0.3", "--augmentation")
    stats = report(tmp_path, "dataset_stats.json")
    train, test = rows_of(tmp_path, "train.json"), rows_of(tmp_path, "test.json")
    sides = {"train": [row for row in train if "augmented_from" not in row["metadata"]], "test": test}
    made = [row for row in train if "augmented_from" in row["metadata"]]
    for name, facts in stats["sources"].items():
        for side, rows in sides.items():
            assert facts[side] == sum(row["source"] == name for row in rows)
        assert facts["augmented"] == sum(row["source"] == name for row in made)
        assert facts["kept"] == facts["train"] + facts["test"]
        assert facts["rows"] == facts["passed"] + sum(facts["rejected"].values())
        assert facts["passed"] == facts["kept"] + facts["merged"]
        assert facts["share"] == round(facts["kept"] / stats["counts"]["kept"], 4)
        assert sum(facts["failed"].values()) == sum(facts["rejected"].values())
    a, b = stats["sources"]["a"], stats["sources"]["b"]
    assert (a["expected"], a["rows"], a["merged"], a["rejected"]) == (30, 22, 1, {"not_json": 1})
    assert (a["repaired"], a["fixes"]) == (1, {"fence": 1, "imports": 1})
    assert (b["priority"], b["needs_description"], b["rejected"]) == (2, 1, {"does_not_parse": 1})
    codes = sorted(len(row["code"]) for rows in sides.values() for row in rows)
    lengths = stats["lengths"]["code"]["characters"]
    assert (lengths["min"], lengths["max"], lengths["p50"]) == (codes[0], codes[-1], codes[(len(codes) + 1) // 2 - 1])
    assert lengths["mean"] == round(sum(codes) / len(codes), 1)
    # "name: rows ..." lines are followed by one table, and the summary stays last.
    *_, header, of_a, of_b, of_all, _growth, last = done.err.splitlines()
    assert header.split() == ["rows", "rejected", "repaired", "merged", "train", "test", "augmented"]
    assert of_a.split() == ["a", "22", "1", "1", "1", str(a["train"]), str(a["test"]), str(a["augmented"])]
    assert of_b.split()[:5] == ["b", "3", "1", "0", "0"]
    assert of_all.split()[:5] == ["all", "25", "2", "1", "1"]
    assert last.startswith("prepare_data: 25 in, 22 kept")


def test_one_source_needs_no_table_unless_it_is_asked_for(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)])
    assert "repaired" not in prepare(tmp_path).err
    assert "repaired" in prepare(tmp_path, "-v").err


@given(st.lists(st.integers(0, 50), min_size=1))
def test_a_percentile_is_the_length_that_so_many_are_not_above(lengths):
    found = summary(Counter(lengths))
    for percent in (5, 25, 50, 75, 95, 99):
        value = found[f"p{percent}"]
        assert sum(length <= value for length in lengths) * 100 >= percent * len(lengths)
        assert sum(length < value for length in lengths) * 100 < percent * len(lengths)
    assert summary(Counter()) == {}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("A circle moves.", 4), ("self.play(Create(dot))", 9), ("a\n    b\n", 4), ("12345", 2)],
)
def test_tokens_are_about_words_signs_and_indentations(text, tokens):
    assert about_how_many_tokens(text) == tokens


# --- before the first byte --------------------------------------------------------------------------------------------

NEEDY = """
from pathlib import Path
from extractors._needs import Needs

def needs(*, keys: list[str], tools: list[str], **others):
    return Needs(packages=("json", "no_such_package", "no.such"), keys=tuple(keys), tools=tuple(tools))

def is_cached(fetch, keys):
    return fetch.cached(keys[0]) is not None

def extract(mark: str, *, keys: list[str] = ["KAGGLE_KEY"], tools: list[str] = []):
    Path(mark).touch()
    yield {"description": "x", "code": "x = 1"}
"""


def test_one_message_names_everything_that_any_source_lacks(tmp_path):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "needy", NEEDY))}
    local(tmp_path, "a", [pair(1), pair(2)])
    with (tmp_path / "sources.yaml").open("a") as file:
        file.write("b:\n  type: needy\n  mark: b\n  tools: [sh, no_such_tool]\n")
        file.write("c:\n  type: needy\n  mark: c\n  keys: [HF_TOKEN, OTHER_KEY]\n")
    (tmp_path / ".env").write_text("export HF_TOKEN='hf'  # mine\n")
    done = prepare(tmp_path, check=2, env=env)
    told = done.err.partition("needed: ")[2].strip().split("; ")
    assert told == [
        "the package no_such_package (pip install 'linemill[sources]') for b, c",
        "the package no.such (pip install 'linemill[sources]') for b, c",
        "the key KAGGLE_KEY (in the environment or in .env) for b",
        "the program no_such_tool (on the PATH) for b",
        "the key OTHER_KEY (in the environment or in .env) for c",
        "--keep-going does without",
    ]
    done = prepare(tmp_path, "--keep-going", check=3, env=env)
    assert done.err.splitlines()[-1].startswith("Error: missing: b: needs the package no_such_package")
    assert "the key OTHER_KEY" in report(tmp_path, "ledger.json")["extra"]["missing"]["c"]
    assert list(report(tmp_path, "dataset_stats.json")["missing"]) == ["b", "c"]
    assert len(rows_of(tmp_path)) == 2
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()


def test_the_list_says_what_is_cached_what_is_lacking_and_what_is_wrong(tmp_path):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "needy", NEEDY))}
    text = "{}:\n  type: needy\n  mark: b\n  keys: [{}]\n"
    more = "d:\n  type: needy\n  mrk: x\ne:\n  enabled: false\n  reason: too old\nf:\n  type: gone\n"
    sources(tmp_path, text.format("b", "one") + text.format("c", "two") + more)
    (tmp_path / "cache" / "needy").mkdir(parents=True)
    (tmp_path / "cache" / "needy" / "one").touch()
    command = ["prepare_data.py", "list-sources", "--cache-dir", "cache"]
    listed = run_script(*command, "--json", cwd=tmp_path, check=0, env=env).out.splitlines()
    facts = {fact["name"]: fact for fact in map(json.loads, listed)}
    assert [fact["cached"] for fact in facts.values()] == ["yes", "no", "unknown", None, "unknown"]
    assert "the key two (in the environment or in .env)" in facts["c"]["lacks"]
    assert "needy has no option 'mrk'" in facts["d"]["fault"]
    assert "no type 'gone'" in facts["f"]["fault"]
    lines = run_script(*command, cwd=tmp_path, check=0, env=env).out.splitlines()
    assert len(lines) == 5
    assert "rejected: too old" in lines[3]


def test_a_rejected_source_is_listed_and_refused_when_it_is_named(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)])
    with (tmp_path / "sources.yaml").open("a") as file:
        file.write("old:\n  enabled: false\n  reason: written for another library\n")
    prepare(tmp_path, "--sources", "all")
    done = prepare(tmp_path, "--sources", "a", "old", check=2)
    assert done.err.endswith("Error: --sources old: can not be read: written for another library\n")
    with (tmp_path / "sources.yaml").open("a") as file:
        file.write("  path: x\n")
    assert "old: it has no type" in prepare(tmp_path, check=2).err


def test_every_source_that_comes_with_the_script_can_be_listed_and_says_why_it_is_off():
    listed = run_script("prepare_data.py", "list-sources", "--json", cwd=ROOT, check=0).out.splitlines()
    facts = {fact["name"]: fact for fact in map(json.loads, listed)}
    assert {name: fact["fault"] for name, fact in facts.items() if fact["fault"]} == {}
    assert [name for name, fact in facts.items() if not fact["enabled"] and not fact["reason"]] == []
    assert {"vivek3141", "dl_visualization", "chilao", "3b1b"} <= {n for n, fact in facts.items() if not fact["type"]}


def test_a_disabled_source_runs_when_it_is_named_and_its_reason_is_shown(tmp_path):
    local(tmp_path, "a", [pair(1), pair(2)], "  enabled: false\n  reason: too old\n")
    assert "a: disabled (too old), and read because it was named" in prepare(tmp_path, "--sources", "a").err


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("data_formatted", True),
        ("data_formatted/train.json", True),
        ("./data_formatted/../data_formatted/*.jsonl", True),
        (".", True),
        ("**/*.json", True),
        ("link", True),
        ("*/t????.json", True),
        ("*.jsonl", False),
        ("data_formatted/old.jsonl", False),
        ("data_formatted/*/*.jsonl", False),
    ],
)
def test_a_source_that_reads_the_output_of_its_own_run_is_refused(tmp_path, path, refused):
    for name in ("a.jsonl", "data_formatted/old.jsonl", "data_formatted/deep/b.jsonl"):
        write_rows(tmp_path / name, [pair(1), pair(2)])
    (tmp_path / "link").symlink_to("data_formatted")
    sources(tmp_path, f'a:\n  type: local\n  path: "{path}"\n')
    done = prepare(tmp_path, check=2 if refused else 0)
    assert ("takes in data_formatted, where this run writes" in done.err) == refused
    assert done.err.count("\n") == (1 if refused else done.err.count("\n"))


# --- several at a time ------------------------------------------------------------------------------------------------

TROUBLE = """
import os
import time
import click
from pathlib import Path

def extract(how: str):
    if how == "bug":
        yield {"description": "x", "code": "x = 1"}
        return {}["nothing"]
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "together":
        Path(f"{os.getpid()}.here").touch()
        until = time.monotonic() + 20
        while len(list(Path().glob("*.here"))) < 2:
            if time.monotonic() > until:
                raise click.ClickException("nobody else came")
            time.sleep(0.01)
        yield {"description": "together " + str(os.getpid()), "code": f"x = {os.getpid()}"}
    if how == "slow":
        time.sleep(60)
    raise click.ClickException("over")
"""


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    for number, name in enumerate("dcba"):
        rows = [pair(number * 5 + row, extra={"big": 2**70, "text": "\u2028é"}) for row in range(9)]
        local(tmp_path, name, [*rows, b"{broken", pair(99, output="def (:\n")], f"  priority: {number}\n")
    before = {}
    for workers in (1, 2, 4):
        done = prepare(tmp_path, "--workers", workers, "-v")
        after = {entry.name: entry.read_bytes() for entry in (tmp_path / "data_formatted").iterdir()}
        assert before in ({}, after)
        before = after
        assert done.err.count("rejected: does_not_parse") == 4
    assert list(report(tmp_path, "dataset_stats.json")["sources"]) == list("dcba")


def test_sources_are_read_at_the_same_time(tmp_path):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "trouble", TROUBLE))}
    sources(tmp_path, "".join(f"{name}:\n  type: trouble\n  how: together\n" for name in "ab"))
    done = prepare(tmp_path, "--workers", "2", "--limit", "1", env=env)
    assert "2 in, 2 kept" in done.err


def test_a_failure_ends_the_other_readings_at_once(tmp_path):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "trouble", TROUBLE))}
    sources(tmp_path, "a:\n  type: trouble\n  how: slow\nb:\n  type: trouble\n  how: quick\n")
    began = time.monotonic()
    done = prepare(tmp_path, "--workers", "2", check=1, env=env)
    assert done.err == "Error: b: over; --keep-going does without it\n"
    assert time.monotonic() - began < 30


def test_an_interrupted_run_ends_its_processes_and_leaves_nothing(tmp_path):
    env = CLEAN | {"PYTHONPATH": str(package(tmp_path / "site", "trouble", TROUBLE)), "HOME": str(tmp_path)}
    (tmp_path / "spool").mkdir()
    sources(tmp_path, "a:\n  type: trouble\n  how: together\nb:\n  type: trouble\n  how: slow\n")
    command = [sys.executable, str(ROOT / "prepare_data.py"), "prepare", "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env | {"TMPDIR": "spool"}, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 20
    while not (here := list(tmp_path.glob("*.here"))) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=40)[1].decode()
    assert process.returncode == 130
    assert error.strip() == "Error: interrupted; nothing half-written is left, and the same command starts again"
    with pytest.raises(ProcessLookupError):
        os.kill(int(here[0].stem), 0)
    assert list((tmp_path / "spool").iterdir()) == []
    assert not (tmp_path / "data_formatted").exists()


@pytest.mark.parametrize(
    ("how", "workers", "message"),
    [
        ("bug", 1, "a: KeyError: 'nothing' (trouble.py:10), a fault in the type trouble; -v shows where"),
        ("bug", 2, "a: KeyError: 'nothing' (trouble.py:10), a fault in the type trouble; -v shows where"),
        ("killed", 2, "a: its process was killed, perhaps for memory; try fewer --workers"),
    ],
)
def test_a_fault_in_the_code_of_others_is_a_source_that_failed(tmp_path, how, workers, message):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "trouble", TROUBLE))}
    sources(tmp_path, f"a:\n  type: trouble\n  how: {how}\n")
    local(tmp_path, "b", [pair(1), pair(2)])
    done = prepare(tmp_path, "--workers", workers, check=1, env=env)
    assert done.err.splitlines()[-1] == f"Error: {message}; --keep-going does without it"
    done = prepare(tmp_path, "--workers", workers, "--keep-going", check=3, env=env)
    assert done.err.splitlines()[-1] == f"Error: missing: {message}"
    assert len(rows_of(tmp_path)) == 2


def test_a_type_that_can_not_be_imported_is_named_and_the_others_work(tmp_path):
    env = {"PYTHONPATH": str(package(tmp_path / "site", "torn", "import no_such_module\n"))}
    sources(tmp_path, "a:\n  type: torn\n")
    local(tmp_path, "b", [pair(1), pair(2)])
    message = "the type torn, which fails when imported (ModuleNotFoundError: No module named 'no_such_module')"
    assert f"{message} for a" in prepare(tmp_path, check=2, env=env).err
    assert f"missing: a: needs {message}" in prepare(tmp_path, "--keep-going", check=3, env=env).err
    prepare(tmp_path, "--sources", "b", env=env)


def test_the_statistics_say_at_which_step_rows_failed(tmp_path):
    rows = [pair(1), pair(2), b"{broken", {"instruction": "x", "output": None}, pair(4, output="def (:\n")]
    local(tmp_path, "a", rows, "  expected_samples: 4\n  licence: MIT\n")
    prepare(tmp_path)
    stats = report(tmp_path, "dataset_stats.json")["sources"]["a"]
    assert (stats["rows"], stats["expected"], stats["passed"]) == (5, 4, 2)
    assert stats["failed"] == {"unreadable": 1, "invalid": 1, "unfit": 1}
    assert {row["metadata"]["licence"] for row in rows_of(tmp_path)} == {"MIT"}
    assert "where 4 were expected" not in prepare(tmp_path, "--limit", "2").err


def test_one_large_file_is_judged_by_all_workers_and_gives_the_same_bytes(tmp_path):
    rows = [{"prompt": f"Request {n}.", "code": record(n)["code"]} for n in range(900)]
    rows[300]["code"] = "```python\n" + rows[300]["code"] + "```"
    rows[301]["code"], rows[700]["code"], rows[800] = "def broken(:", 7, b"{torn"
    rows[850] = rows[3]
    write_rows(tmp_path / "big.jsonl", rows)
    write_rows(tmp_path / "small.jsonl", rows[:9])
    for sources in ("big", "big, small"):
        catalogue = {name: {"type": "local", "path": f"{name}.jsonl"} for name in sources.split(", ")}
        (tmp_path / "sources.yaml").write_text(json.dumps(catalogue))
        seen = set()
        for workers in (1, 2, 3):
            run_script("prepare_data.py", "prepare", "--workers", workers, cwd=tmp_path, check=0)
            files = sorted((tmp_path / "data_formatted").iterdir())
            seen.add(b"".join(file.read_bytes() for file in files))
        assert len(seen) == 1


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["a", "", "", "b\n"],
        ["x" * 9 + "1234", "\n \n", " \t", "a_b\x1c\n", "\n"],
        ["\u00e9t\u00e9 1", "f(x)", "\u2028"],
    ],
)
def test_counting_the_tokens_of_many_texts_together_gives_what_one_by_one_gives(texts):
    assert about_tokens_of(texts) == [about_how_many_tokens(text) for text in texts]
