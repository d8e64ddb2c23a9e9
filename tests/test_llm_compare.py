"""Stage 2: two outputs side by side, in any order of their rows, and with a judge who sees each pair in both orders."""

from __future__ import annotations

import json
import random

import pytest
from conftest import read_rows, record, run_script, write_rows
from fake_llm import error, says

SCRIPT = "prepare_data_with_llm.py"


def outputs(tmp_path, texts):
    """Two files with these pairs of descriptions."""
    for side, name in enumerate(("a.jsonl", "b.jsonl")):
        write_rows(tmp_path / name, [record(number, description=pair[side]) for number, pair in enumerate(texts)])


def compare(*options, cwd, check=0):
    words = ("compare", "a.jsonl", "b.jsonl", "--json", "report.json", *map(str, options))
    done = run_script(SCRIPT, *words, cwd=cwd, check=check, env={"OPENAI_API_KEY": "sk-x"})
    return json.loads((cwd / "report.json").read_bytes()), done


def asked(server, *more):
    return ("--judge", "verdicts.jsonl", "--llm", "openai", "--base-url", server.url("openai"), *more)


def verdict(choose):
    """A judge who chooses between the first and the second text."""

    def plan(call):
        first, second = call.user.split("The first text:")[1].split("The second text:")
        return says(call, json.dumps({"reason": "So it is.", "better": choose(first.strip(), second.strip())}))

    return plan


def longer(first, second):
    return "equal" if len(first) == len(second) else "first" if len(first) > len(second) else "second"


def test_the_order_of_the_rows_changes_nothing_but_the_order_of_equal_examples(tmp_path):
    texts = [(f"Draw circle number {n}.", f"Draw circle number {n}." if n % 3 else f"A disc {n}.") for n in range(30)]
    outputs(tmp_path, texts)
    straight, _ = compare("--examples", 30, cwd=tmp_path)
    rows = read_rows(tmp_path / "b.jsonl")
    random.Random(1).shuffle(rows)
    write_rows(tmp_path / "b.jsonl", rows[:25])
    write_rows(tmp_path / "a.jsonl", [*read_rows(tmp_path / "a.jsonl"), record(99)])
    mixed, _ = compare("--examples", 30, cwd=tmp_path)
    assert (straight["in_both"], straight["different"], straight["only_in_a"]) == (30, 10, 0)
    assert (mixed["in_both"], mixed["only_in_a"], mixed["only_in_b"]) == (25, 6, 0)
    told = {pair["id"]: pair for pair in straight["examples"]}
    assert len(told) == 10
    assert all(told[pair["id"]] == pair for pair in mixed["examples"])
    similarities = [pair["similarity"] for pair in straight["examples"]]
    assert similarities == sorted(similarities), "the most different ones first"
    assert [pair["id"] for pair in compare("--examples", 3, cwd=tmp_path)[0]["examples"]] == [
        pair["id"] for pair in mixed["examples"][:3]
    ]


def test_a_judge_sees_each_pair_in_both_orders_and_one_who_follows_the_order_decides_nothing(tmp_path, server):
    outputs(tmp_path, [("same", "same"), ("a longer one", "short"), ("short", "a longer one"), ("equal", "as it")])
    server.plan = verdict(longer)
    report, done = compare(*asked(server, "--price", "1000,1000"), cwd=tmp_path)
    judged = report["judge"]
    assert {name: judged[name] for name in ("a_better", "b_better", "equal", "unsteady", "unanswered")} == {
        "a_better": 1,
        "b_better": 1,
        "equal": 1,
        "unsteady": 0,
        "unanswered": 0,
    }
    assert len(server.log) == 6, "three pairs that differ, in both orders"
    assert judged["usd"] == pytest.approx(6 * 0.12), "what the judging has cost"
    assert "A better 1, B better 1, equal 1, decided by the order 0" in done.out
    assert all("class Scene" in call.user for call in server.log), "the judge sees what the texts are about"
    row = read_rows(tmp_path / "verdicts.jsonl")[0]
    assert row["metadata"]["preference"] == {"better": "a", "reason": "So it is.", "by": "openai/gpt-4o-mini"}

    again, _ = compare(*asked(server, "--price", "1000,1000"), cwd=tmp_path)
    assert again["judge"] == judged, "the cost of a verdict does not vanish"
    assert len(server.log) == 6

    server.plan = verdict(lambda first, second: "first")
    report, _ = compare(*asked(server, "--cache-dir", "other"), cwd=tmp_path)
    assert (report["judge"]["unsteady"], report["judge"]["a_better"], report["judge"]["b_better"]) == (3, 0, 0)


def test_a_pair_without_both_verdicts_is_counted_and_the_report_is_written_all_the_same(tmp_path, server):
    outputs(tmp_path, [("a longer one", "short"), ("broken", "no answer")])
    server.plan = lambda call: error(500) if "broken" in call.user else verdict(longer)(call)
    report, done = compare(*asked(server, "--retries", 0), cwd=tmp_path, check=3)
    assert (report["judge"]["a_better"], report["judge"]["unanswered"]) == (1, 1)
    assert "2 rows got no answer" in done.err
    server.plan = verdict(longer)
    report, _ = compare(*asked(server), cwd=tmp_path)
    assert (report["judge"]["b_better"], report["judge"]["unanswered"]) == (1, 0)


def test_what_the_judging_would_cost_can_be_planned(tmp_path, server):
    outputs(tmp_path, [("a longer one", "short"), ("same", "same")])
    report, done = compare(*asked(server, "--dry-run"), cwd=tmp_path)
    assert "2 rows, 2 to be asked about by openai/gpt-4o-mini" in done.out
    assert "judge" not in report
    assert not server.log
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_nobody_judges_without_a_model(tmp_path):
    outputs(tmp_path, [("one", "two")])
    words = ("compare", "a.jsonl", "b.jsonl", "--judge", "v.jsonl", "--llm", "offline")
    assert "compare --judge needs a language model" in run_script(SCRIPT, *words, cwd=tmp_path, check=2).err
