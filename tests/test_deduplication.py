"""Duplicates in stage 1: who stays, what the reports say, and what the policies change."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from conftest import read_rows, record, run_script, write_rows
from test_near import EDITED, OTHER, PROGRAM, RENAMED

ALL = ("train.json", "test.json", "removed_duplicates.json", "rejects.jsonl")


def row(description, code=None, **changes):
    return {"instruction": description, "output": code or record(0)["code"], **changes}


def prepare(folder, sources, *arguments, check=0, env=None):
    """Run stage 1 on sources given as {name: (priority, rows)}."""
    text = ""
    for name, (priority, rows) in sources.items():
        write_rows(folder / f"{name}.jsonl", rows)
        text += f"{name}:\n  type: local\n  path: {name}.jsonl\n  priority: {priority}\n"
    (folder / "sources.yaml").write_text(text)
    return run_script("prepare_data.py", "prepare", *arguments, cwd=folder, check=check, env=env)


def rows_of(folder, *names):
    return [line for name in names for line in read_rows(folder / "data_formatted" / name)]


def kept(folder):
    return sorted(line["description"] for line in rows_of(folder, "train.json", "test.json"))


def report(folder):
    return json.loads((folder / "data_formatted" / "deduplication_report.json").read_bytes())


MIXED = {
    "low": (1, [row("An orbit.", PROGRAM), row("Low alone.", record(3)["code"]), row("Again.", record(8)["code"])]),
    "high": (3, [row("A ball goes round.", RENAMED), row("High alone.", record(21)["code"]), row("again. ", OTHER)]),
    "middle": (2, [row("Round it goes.", EDITED), row("high  ALONE.", record(34)["code"])]),
}


def test_every_removed_record_names_the_one_that_stays_and_how_alike_they_are(tmp_path):
    prepare(tmp_path, MIXED)
    assert kept(tmp_path) == ["A ball goes round.", "High alone.", "Low alone.", "again. "]
    stays = {line["metadata"]["id"]: line for line in rows_of(tmp_path, "train.json", "test.json")}
    removed = {line["description"]: line["metadata"]["duplicate_of"] for line in rows_of(tmp_path, ALL[2])}
    assert {text: (why["field"], why["similarity"]) for text, why in removed.items() if text != "Round it goes."} == {
        "An orbit.": ("near", 1.0),
        "Again.": ("description", 1.0),
        "high  ALONE.": ("description", 1.0),
    }
    assert removed["Round it goes."]["field"] == "near"
    assert 0.7 <= removed["Round it goes."]["similarity"] < 1
    assert {stays[why["kept_id"]]["source"] for why in removed.values()} == {"high"}
    assert {why["kept_source"] for why in removed.values()} == {"high"}


def test_the_reports_equal_a_recount_of_the_files(tmp_path):
    prepare(tmp_path, MIXED)
    told, removed = report(tmp_path), rows_of(tmp_path, "removed_duplicates.json")
    why = [line["metadata"]["duplicate_of"] for line in removed]
    assert told["records"] == 8 and told["removed"] == len(removed) == 4 and told["kept"] == 4
    assert told["by_field"] == Counter(one["field"] for one in why)
    assert told["near"] == sum(one["field"] == "near" for one in why) == told["removed"] - told["exact"]
    assert sum(told["by_similarity"].values()) == len(removed)
    assert told["by_similarity"]["1"] == sum(one["similarity"] == 1 for one in why)
    gone = Counter(line["source"] for line in removed)
    assert {name: facts["removed"] for name, facts in told["by_source"].items()} == {**gone, "high": 0}
    pairs = Counter((line["source"], line["metadata"]["duplicate_of"]["kept_source"]) for line in removed)
    assert {(pair["removed"], pair["kept"]): pair["count"] for pair in told["between_sources"]} == pairs
    assert "adds up" in run_script("schema", "audit", "data_formatted/ledger.json", cwd=tmp_path, check=0).err


def test_the_order_of_the_sources_the_workers_and_the_hash_seed_change_nothing(tmp_path):
    equal = {name: (1, rows) for name, (_, rows) in MIXED.items()}
    for sources in (MIXED, equal):
        found = set()
        for number, names in enumerate(itertools.permutations(sources)):
            env, workers = {"PYTHONHASHSEED": str(number)}, str(1 + number % 3)
            prepare(tmp_path, {name: sources[name] for name in names}, "--workers", workers, env=env)
            files = [sorted(json.dumps(line) for line in rows_of(tmp_path, name)) for name in ALL]
            found.add(json.dumps(files))
        assert len(found) == 1


@pytest.mark.parametrize(
    ("arguments", "stays"),
    [
        ([], ["A", "B"]),
        (["--near-threshold", "1"], ["A", "B", "E", "F"]),
        (["--normalise", "raw"], ["A", "B", "E"]),
        (["--same-description", "keep"], ["A", "B", "b "]),
        (["--same-code", "keep"], ["A", "B", "C", "E", "F"]),
        (["--same-code", "keep", "--same-description", "keep"], ["A", "B", "C", "E", "F", "b "]),
        (["--no-deduplicate"], ["A", "A", "B", "C", "E", "F", "b "]),
    ],
)
def test_each_policy_says_what_a_duplicate_is(tmp_path, arguments, stays):
    rows = [row("A", PROGRAM), row("B", record(3)["code"]), row("C", PROGRAM), row("b ", record(8)["code"])]
    rows += [row("A", "# the same\n" + PROGRAM), row("E", RENAMED), row("F", EDITED)]
    done = prepare(tmp_path, {"a": (1, rows)}, *arguments)
    rejected = [line["description"] for line in rows_of(tmp_path, "rejects.jsonl")]
    assert sorted(kept(tmp_path) + rejected) == stays
    assert {line["metadata"]["error"]["code"] for line in rows_of(tmp_path, "rejects.jsonl")} <= {"bridges_sides"}
    assert f"{7 - len(stays)} merged" in done.err


def test_tagged_duplicates_stay_beside_the_record_that_they_repeat(tmp_path):
    for seed in range(3):
        prepare(tmp_path, MIXED, "--tag-only", "--seed", seed, "--test-ratio", "0.5")
        places = {line["metadata"]["id"]: name for name in ALL[:2] for line in rows_of(tmp_path, name)}
        lines = rows_of(tmp_path, *ALL[:2])
        assert len(lines) == 8
        tags = {line["metadata"]["id"]: line["metadata"].get("duplicate_of") for line in lines}
        assert sum(tag is not None for tag in tags.values()) == 4
        assert all(places[name] == places[tag["kept_id"]] for name, tag in tags.items() if tag)
    told = report(tmp_path)
    assert (told["removed"], told["tagged"], told["near"]) == (0, 4, 2)
    assert rows_of(tmp_path, "removed_duplicates.json") == []


def test_what_stands_in_another_file_is_removed_also_when_it_is_only_nearly_the_same(tmp_path):
    write_rows(tmp_path / "bench.jsonl", [{**record(5, source="bench"), "code": RENAMED, "metadata": {"id": "b0"}}])
    write_rows(tmp_path / "more.jsonl", [record(3, source="more")])
    prepare(tmp_path, MIXED, "--against", "bench.jsonl", "--against", "more.jsonl")
    assert kept(tmp_path) == ["High alone.", "again. "]
    why = {line["description"]: line["metadata"]["duplicate_of"] for line in rows_of(tmp_path, ALL[2])}
    assert why["An orbit."] == {
        "kept_id": "b0", "kept_source": "bench", "kept_in": "bench.jsonl", "field": "near", "similarity": 1.0
    }  # fmt: skip
    assert why["A ball goes round."]["field"] == "code"
    assert why["Low alone."]["kept_in"] == "more.jsonl"
    assert {"removed": "middle", "kept": "bench.jsonl", "count": 1} in report(tmp_path)["between_sources"]


def test_a_file_to_compare_with_must_be_readable_and_duplicates_must_not_be_kept(tmp_path):
    write_rows(tmp_path / "bench.jsonl", [record(1), b"{broken"])
    done = prepare(tmp_path, MIXED, "--against", "bench.jsonl", check=1)
    assert "Error: --against bench.jsonl: line 2: not JSON" in done.err
    assert not (tmp_path / "data_formatted").exists()
    assert "leave one out" in prepare(tmp_path, MIXED, "--against", "bench.jsonl", "--no-deduplicate", check=2).err


def test_code_under_many_descriptions_is_flagged_or_dropped(tmp_path):
    rows = [row(f"Description {number}.", PROGRAM) for number in range(6)] + [row("Alone.", OTHER)]
    prepare(tmp_path, {"a": (1, rows)})
    flags = {line["description"]: line["metadata"].get("descriptions_of_this_code") for line in rows_of(tmp_path, *ALL)}
    assert flags == {**{f"Description {number}.": 6 for number in range(6)}, "Alone.": None}
    done = prepare(tmp_path, {"a": (1, rows)}, "--many-descriptions", "drop", "--max-descriptions", "5", "-v")
    assert done.err.count("rejected: many_descriptions: 6 descriptions stand over this one code") == 6
    assert "7 in, 1 kept (0 train, 1 test), 6 rejected, 0 merged" in done.err or "1 kept (1 train, 0 test)" in done.err
    assert Counter(line["metadata"]["error"]["code"] for line in rows_of(tmp_path, ALL[3])) == {"many_descriptions": 6}
    prepare(tmp_path, {"a": (1, rows)}, "--many-descriptions", "drop", "--max-descriptions", "6")
    assert kept(tmp_path) == ["Alone.", "Description 0."]


def test_an_old_tag_of_a_record_that_stays_is_taken_off(tmp_path):
    tagged = {**record(1), "metadata": {"id": "x", "duplicate_of": {"kept_id": "gone"}}}
    prepare(tmp_path, {"a": (1, [tagged, record(30)])})
    assert not any("duplicate_of" in line["metadata"] for line in rows_of(tmp_path, *ALL[:2]))
