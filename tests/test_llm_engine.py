"""The engine of stage 2: limits, money, leases, batches, rows that share a call, and runs that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from fake_llm import Reply, error, good, says

SCRIPT = "prepare_data_with_llm.py"
KEYS = {"openai": "OPENAI_API_KEY", "claude": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
both_providers = pytest.mark.parametrize("llm", ["openai", "claude"])


def needy(number):
    return record(number, description="", metadata={"needs_description": True})


def some(tmp_path, count):
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(count)])


def command(server, llm, *options, output="out.jsonl", name="generate-descriptions"):
    places = ["--input", "in.jsonl", "--output", output] if name == "generate-descriptions" else []
    url = server.url({"claude": "anthropic"}.get(llm, llm))
    return [name, *places, "--llm", llm, "--base-url", url, *map(str, options)]


def ask(server, llm, *options, cwd, check=0, **others):
    return run_script(SCRIPT, *command(server, llm, *options, **others), cwd=cwd, check=check, env={KEYS[llm]: "sk-x"})


def start(server, llm, *options, cwd, **others):
    words = [sys.executable, str(ROOT / SCRIPT), *command(server, llm, *options, **others)]
    env = CLEAN | {"HOME": str(cwd), KEYS[llm]: "sk-x"}
    return subprocess.Popen(words, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)


def slowly(seconds):
    return lambda call: Reply(**{**vars(good(call)), "delay": seconds})


def llm_facts(tmp_path, name="out"):
    return json.loads((tmp_path / f"{name}.ledger.json").read_bytes())["extra"]["llm"]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_gemini_is_asked_through_the_shape_of_openai(tmp_path, server):
    some(tmp_path, 2)
    ask(server, "gemini", cwd=tmp_path)
    body = server.log[0].body
    assert body["model"] == "gemini-2.5-flash"
    assert body["reasoning_effort"] == "none", "what it thinks would be paid for, and cut the answer"
    assert read_rows(tmp_path / "out.jsonl")[0]["metadata"]["description_generated_by"] == "gemini/gemini-2.5-flash"


def test_a_server_that_takes_few_at_a_time_is_soon_asked_for_few_at_a_time(tmp_path, server):
    def plan(call):
        if server.in_flight > 4:
            return error(429, "too many", retry_after_ms="300")
        return slowly(0.02)(call)

    server.plan = plan
    some(tmp_path, 150)
    ask(server, "openai", "--concurrency", 32, cwd=tmp_path)
    assert len(server.billed) == 150
    refused = len(server.log) - 150
    assert refused < 75, "it does not run into the same wall again and again"
    assert llm_facts(tmp_path)["limited"] == refused


def test_the_pace_follows_the_limit_that_the_headers_name(tmp_path, server):
    headers = {"x-ratelimit-limit-requests": "1200", "x-ratelimit-remaining-requests": "19"}
    times = []

    def plan(call):
        times.append(time.monotonic())
        return Reply(**{**vars(good(call)), "headers": headers})

    server.plan = plan
    some(tmp_path, 41)
    ask(server, "openai", "--concurrency", 32, cwd=tmp_path)
    assert times[-1] - times[1] >= 39 * 0.05 * 0.95, "20 a second are 1,200 a minute"


LIMITS = [
    ({}, None),
    ({"x-ratelimit-limit-requests": "3000"}, 3000),
    ({"anthropic-ratelimit-requests-limit": "50"}, 50),
    ({"x-ratelimit-limit-requests": "many"}, None),
    (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
        },
        60,
    ),
    (
        {
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "8.64s",
        },
        None,
    ),
]


@pytest.mark.parametrize(("headers", "expected"), LIMITS)
def test_a_limit_of_the_minute_is_told_from_one_of_the_day(headers, expected):
    from stages.prepare_data_with_llm.limits import told_limit

    assert told_limit(headers, "requests") == expected


@pytest.mark.parametrize(("text", "seconds"), [("1m12.5s", 72.5), ("850ms", 0.85), ("2", 2), ("1h0m1s", 3601), ("", 0)])
def test_durations_are_read(text, seconds):
    from stages.prepare_data_with_llm.limits import duration

    assert duration(text) == pytest.approx(seconds)


def test_a_lone_refusal_narrows_nothing_and_many_do_only_once_for_a_round():
    from stages.prepare_data_with_llm.limits import Gate

    gate = Gate(64)
    for _ in range(40):
        gate.saw(False, 0)
    gate.saw(True, 0)
    assert gate.width == 64
    for _ in range(60):
        gate.saw(True, 0)
    narrow = gate.width
    assert 1 <= narrow < 64
    for _ in range(60):
        gate.saw(True, 0)
    assert gate.width == narrow, "calls of the round before say nothing about the new width"
    for _ in range(20):
        gate.saw(False, gate.round)
    assert gate.width > narrow


# --- money ------------------------------------------------------------------------------------------------------------


def test_max_usd_is_never_exceeded_and_the_rest_waits_for_more_money(tmp_path, server):
    some(tmp_path, 60)
    options = ("--price", "1000,1000", "--max-tokens", 16)  # 100 + 20 tokens: 12 cents a call
    done = ask(server, "openai", "--max-usd", 8, *options, cwd=tmp_path, check=3)
    paid = len(server.billed) * 0.12
    assert 2 < paid <= 8
    waiting = 60 - len(server.billed)
    assert f"{waiting} rows were not asked about" in done.err
    assert f"${paid:.2f} of --max-usd 8" in done.err
    assert llm_facts(tmp_path)["usd"] == pytest.approx(paid)
    receipts = read_rows(tmp_path / "out.receipts.jsonl")
    assert sum(line["usd"] for line in receipts) == pytest.approx(paid)
    kept = {
        row["metadata"]["id"]: row["metadata"]["lineage"][-1]["request"] for row in read_rows(tmp_path / "out.jsonl")
    }
    assert {line["id"]: line["request"] for line in receipts if line["usd"]} == kept, "joined to the ids of the rows"
    ask(server, "openai", *options, cwd=tmp_path)
    assert len(server.billed) == 60 == len({call.prompt for call in server.billed})


def test_an_answer_that_was_lost_counts_as_paid(tmp_path, server):
    server.plan = lambda call: Reply(drop=True) if call.attempt == 0 and call.number else None
    some(tmp_path, 4)
    done = ask(server, "openai", "--price", "1000,0", "--concurrency", 1, cwd=tmp_path)
    receipts = read_rows(tmp_path / "out.receipts.jsonl")
    assert [line["lost"] for line in receipts] == [0, 1, 1, 1]
    assert receipts[1]["usd"] > 10 * receipts[0]["usd"], "at its worst"
    assert "cost $" in done.err


def test_an_unknown_price_is_unknown_and_never_nothing(tmp_path, server):
    some(tmp_path, 2)
    unknown = ("--model", "my-own-model")
    assert "cost unknown" in ask(server, "openai", "--dry-run", *unknown, cwd=tmp_path).out
    done = ask(server, "openai", "--max-usd", 1, *unknown, cwd=tmp_path, check=2)
    assert "--price" in done.err
    assert not server.log
    assert "cost unknown" in ask(server, "openai", *unknown, cwd=tmp_path).err
    assert llm_facts(tmp_path)["usd"] is None
    assert {line["usd"] for line in read_rows(tmp_path / "out.receipts.jsonl")} == {None}
    assert "two numbers" in ask(server, "openai", "--price", "3", cwd=tmp_path, check=2).err


def test_the_plan_says_what_is_there_what_is_new_and_what_it_costs(tmp_path, server):
    some(tmp_path, 6)
    ask(server, "openai", "--limit", 2, cwd=tmp_path)
    words = ["--input", "in.jsonl", "--llm", "openai", "--base-url", server.url("openai"), "--price", "1,10"]
    done = run_script(SCRIPT, "plan", *words, cwd=tmp_path, check=0, env={KEYS["openai"]: "x"})
    assert "2 are answered in the cache, 4 new requests" in done.out
    assert "80 (as many as so far: 20 each) to" in done.out
    low, high, half = (float(text) for text in re.findall(r"\$([\d.]+)", done.out)[:3])
    assert low < high
    assert half == pytest.approx(low / 2, abs=1e-4)
    assert len(server.log) == 2
    assert "nothing to plan" in run_script(SCRIPT, "plan", "cache-stats", cwd=tmp_path, check=2).err


def test_a_price_with_tiers_is_that_of_the_size_of_the_request():
    from stages.prepare_data_with_llm.money import price_of
    from stages.prepare_data_with_llm.questions import Answer

    price = price_of("anthropic", "claude-haiku-5-5", None)
    small, large = (Answer("", "", "stop", tokens, 0) for tokens in (1000, 200_000))
    assert price.of(large) > 200 * price.of(small)
    cached = Answer("", "", "stop", 1000, 0, cached_tokens=1000)
    assert price.of(cached) == pytest.approx(price.of(small) / 10)
    assert price_of("openai", "no-such-model", None) is None


# --- two runs at once -------------------------------------------------------------------------------------------------


def test_two_runs_on_one_cache_never_pay_twice(tmp_path, server):
    server.plan = slowly(0.05)
    some(tmp_path, 60)
    runs = [start(server, "openai", "--concurrency", 6, cwd=tmp_path, output=f"{name}.jsonl") for name in "ab"]
    assert [run.communicate()[1] and run.returncode for run in runs] == [0, 0]
    assert len(server.log) == 60
    rows = [read_rows(tmp_path / f"{name}.jsonl") for name in "ab"]
    assert [row["description"] for row in rows[0]] == [row["description"] for row in rows[1]]


def test_a_lease_of_a_dead_run_is_free_and_that_of_a_living_one_is_not(tmp_path):
    from stages.prepare_data_with_llm.leases import Leases

    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from stages.prepare_data_with_llm.leases import Leases\n"
        "leases = Leases(Path('.')); leases.take('k'); print('taken', flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdin=-1, stdout=-1)
    assert other.stdout.readline() == b"taken\n"
    with Leases(tmp_path) as leases:
        assert not leases.take("k")
        assert leases.take("another")
        other.kill()
        other.wait()
        assert leases.take("k")
        assert leases.take("k")
    with Leases(tmp_path) as leases:
        assert leases.take("k"), "a run gives everything back at its end"


# --- several rows in a call -------------------------------------------------------------------------------------------


def in_one(call):
    """The ids of the tasks in a call for several rows, and a good answer to each."""
    ids = re.findall(r'<task id="(\w+)">', call.user)
    numbers = re.findall(r"class Scene(\d+)\(", call.user) if ids else []
    return [
        {"id": id, "answer": {"description": f"Create a Manim scene number {number} with a shape that moves."}}
        for id, number in zip(ids, numbers, strict=True)
    ]


def test_rows_share_a_call_and_what_does_not_match_is_asked_alone(tmp_path, server):
    def plan(call):
        if answers := in_one(call):
            wrong = answers[0] | {"id": "unknown"}
            return says(call, json.dumps({"answers": [wrong, *reversed(answers[1:])] if call.number == 1 else answers}))
        return None

    server.plan = plan
    some(tmp_path, 13)
    ask(server, "openai", "--batch-size", 4, "--concurrency", 1, cwd=tmp_path)
    rows = read_rows(tmp_path / "out.jsonl")
    assert len(rows) == 13
    shared = [call for call in server.log if "<task id" in call.user]
    assert len(shared) == 3
    assert len(server.log) == 3 + 1 + 1, "the first goes alone, and so does the one that had no answer"
    for number, row in enumerate(rows):
        told = re.search(r"scene number (\d+)", row["description"])
        assert told is None or int(told[1]) == number, "each answer at its own row"
    ask(server, "openai", "--batch-size", 4, cwd=tmp_path)
    assert len(server.log) == 5
    some(tmp_path, 14)
    ask(server, "openai", "--batch-size", 4, cwd=tmp_path)
    assert len(server.log) == 6, "a further row is asked alone, and the others are remembered"


# --- batches ----------------------------------------------------------------------------------------------------------


@both_providers
def test_a_batch_is_half_the_price_and_what_expired_or_was_cancelled_is_sent_again(tmp_path, server, llm):
    def plan(call):
        number = int(re.search(r"class Scene(\d+)\(", str(call.body["messages"]))[1])
        if number == 3 and call.attempt == 0:
            return Reply(status=0)
        if number == 4 and call.attempt == 0:
            return error(500, "it broke")
        if number == 6 and call.attempt == 0:
            return Reply(status=-1)
        return error(400, "bad request", "invalid_request_error") if number == 5 else None

    server.plan = plan
    some(tmp_path, 8)
    done = ask(server, llm, "--batch", "--price", "1000,1000", cwd=tmp_path)
    assert [len(batch["requests"]) for batch in server.batches.values()] == [8, 3]
    assert "4 answered, 4 not" in done.err
    assert len(server.billed) == 7, "nothing is paid for twice"
    kept, rejected = read_rows(tmp_path / "out.jsonl"), read_rows(tmp_path / "out.rejects.jsonl")
    assert [row["code"] for row in kept] == [needy(number)["code"] for number in range(8) if number != 5]
    assert [row["metadata"]["error"]["code"] for row in rejected] == ["llm_invalid_request"]
    assert llm_facts(tmp_path)["usd"] == pytest.approx(7 * 0.06)
    before = (tmp_path / "out.jsonl").read_bytes()
    some(tmp_path, 5)
    ask(server, llm, cwd=tmp_path)
    assert len(server.log) == 11, "the answers of a batch are those of the cache"
    assert before.startswith((tmp_path / "out.jsonl").read_bytes())


def test_a_bad_answer_of_a_batch_is_asked_for_once_more_at_once(tmp_path, server):
    def plan(call):
        number = int(re.search(r"class Scene(\d+)\(", str(call.body["messages"]))[1])
        if number == 3 or (number == 1 and call.batch):
            return says(call, "no JSON")
        return says(call, '{"description": "Cr', finish="length") if number == 2 and call.batch else None

    server.plan = plan
    some(tmp_path, 4)
    ask(server, "openai", "--batch", "--price", "1000,1000", cwd=tmp_path)
    assert sorted(call.batch or "" for call in server.log) == ["", "", "", *["batch_0"] * 4]
    assert all("could not be used" in call.user for call in server.log if not call.batch)
    rooms = {call.body["max_tokens"] for call in server.log}
    assert max(rooms) == 4 * min(rooms), "what was cut off gets more room"
    assert len(read_rows(tmp_path / "out.jsonl")) == 3
    (row,) = read_rows(tmp_path / "out.rejects.jsonl")
    assert row["metadata"]["error"]["code"] == "llm_bad_answer"
    receipts = read_rows(tmp_path / "out.receipts.jsonl")
    assert [line["calls"] for line in receipts] == [1, 2, 2, 2]
    assert [line["usd"] for line in receipts] == pytest.approx([0.06, 0.18, 0.18, 0.18])
    assert llm_facts(tmp_path)["usd"] == pytest.approx(0.6)


@both_providers
def test_a_batch_that_arrived_without_our_knowing_is_found_again(tmp_path, server, llm):
    some(tmp_path, 5)
    server.lose_batch = True
    done = ask(server, llm, "--batch", cwd=tmp_path, check=1)
    assert "may or may not have been sent" in done.err
    assert "looks for it first" in done.err
    done = ask(server, llm, "--batch", cwd=tmp_path)
    assert "found again" in done.err
    assert len(server.batches) == 1
    assert len(server.billed) == 5


def test_a_batch_is_collected_later_and_a_run_meanwhile_does_not_pay_for_it(tmp_path, server):
    some(tmp_path, 5)
    price = ("--price", "1000,1000")
    done = ask(server, "openai", "--batch", "--no-wait", cwd=tmp_path, check=3)
    assert "`collect` fetches" in done.err
    assert not (tmp_path / "out.jsonl").exists()
    assert len(list((tmp_path / ".cache/llm/batches").glob("*.json"))) == 1
    ask(server, "openai", cwd=tmp_path, check=3)
    assert {row["metadata"]["error"]["code"] for row in read_rows(tmp_path / "out.rejects.jsonl")} == {"llm_pending"}
    assert "still under way" in ask(server, "openai", "--no-wait", cwd=tmp_path, name="collect", check=3).err
    assert "5 answers" in ask(server, "openai", *price, cwd=tmp_path, name="collect").err
    ask(server, "openai", *price, cwd=tmp_path)
    receipts = read_rows(tmp_path / "out.receipts.jsonl")
    assert [line["usd"] for line in receipts] == pytest.approx([0.06] * 5), "what `collect` has paid for"
    assert (llm_facts(tmp_path)["usd"], llm_facts(tmp_path)["usd_earlier"]) == pytest.approx((0, 0.3))
    assert len(read_rows(tmp_path / "out.jsonl")) == 5
    assert len(server.billed) == 5


@both_providers
def test_what_a_collected_batch_has_cut_off_or_refused_is_treated_as_if_it_came_at_once(tmp_path, server, llm):
    def plan(call):
        number = int(re.search(r"class Scene(\d+)\(", str(call.body["messages"]))[1])
        if not call.batch:
            return None
        bad = {1: ("no JSON", "stop"), 2: ('{"description": "Cr', "length")}
        if number == 3:
            return says(call, "I can not.", "content_filter", "I can not.")
        return says(call, *bad[number]) if number in bad else None

    server.plan = plan
    some(tmp_path, 4)
    price = ("--price", "1000,1000")
    ask(server, llm, "--batch", "--no-wait", cwd=tmp_path, check=3)
    while "under way" in (done := ask(server, llm, *price, "--no-wait", cwd=tmp_path, name="collect", check=None)).err:
        time.sleep(0.1)
    assert "2 answers" in done.err
    assert "1 the model declined" in done.err
    ask(server, llm, *price, cwd=tmp_path)
    live = [call for call in server.log if not call.batch]
    assert len(live) == 2, "what can not be used is asked for once more, what was refused is not"
    assert all("could not be used" in str(call.body["messages"]) for call in live)
    (row,) = read_rows(tmp_path / "out.rejects.jsonl")
    assert row["metadata"]["error"]["code"] == "llm_refused"
    assert "I can not." in row["metadata"]["error"]["message"], "the raw text"
    assert [line["calls"] for line in read_rows(tmp_path / "out.receipts.jsonl")] == [1, 2, 2, 1]
    ask(server, llm, *price, cwd=tmp_path)
    assert len([call for call in server.log if not call.batch]) == 3, "a refusal is no answer that is kept"
    assert len(read_rows(tmp_path / "out.jsonl")) == 4


def test_a_batch_that_was_sent_and_not_noted_when_the_run_was_killed_is_not_sent_twice(tmp_path, server):
    """What stands on the disk at that moment is the batch without its id."""
    some(tmp_path, 4)
    ask(server, "openai", "--batch", "--no-wait", cwd=tmp_path, check=3)
    (path,) = (tmp_path / ".cache/llm/batches").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": None}))
    ask(server, "openai", "--batch", cwd=tmp_path)
    assert len(server.batches) == 1
    assert len(server.billed) == 4


def test_max_usd_counts_batches_at_their_worst(tmp_path, server):
    some(tmp_path, 10)
    price = ("--price", "1000,1000", "--max-tokens", 16)
    done = ask(server, "openai", "--batch", "--max-usd", 5, *price, cwd=tmp_path, check=3)
    sent = len(server.batches["batch_0"]["requests"])
    assert 0 < sent < 10
    assert "rows were not asked about" in done.err
    assert len(server.billed) * 0.06 <= 5


NO_BATCH = [
    (["--llm", "gemini", "--batch"], "no batch service"),
    (["--llm", "openai", "--batch", "--input", "-"], "twice"),
]


@pytest.mark.parametrize(("options", "named"), NO_BATCH)
def test_where_there_can_be_no_batch_it_is_said(tmp_path, options, named):
    some(tmp_path, 1)
    words = ["generate-descriptions", "--input", "in.jsonl", "--output", "out.jsonl", *options]
    env = {name: "x" for name in KEYS.values()}
    assert named in run_script(SCRIPT, *words, cwd=tmp_path, check=2, env=env, stdin=b"").err


def test_the_prompt_that_all_rows_share_is_marked_for_the_cache_of_anthropic(tmp_path, server):
    some(tmp_path, 1)
    ask(server, "claude", cwd=tmp_path)
    (block,) = server.log[0].body["system"]
    assert block["cache_control"] == {"type": "ephemeral"}
    assert "class Scene" not in block["text"]


# --- killed -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_again_and_again_pays_at_most_for_what_was_under_way(tmp_path, server):
    server.plan = slowly(0.03)
    some(tmp_path, 160)
    chance, kills, width = random.Random(7), 0, 4
    options = ("--concurrency", width, "--price", "1000,1000")
    for _ in range(6):
        run = start(server, "openai", *options, cwd=tmp_path)
        begun, before = time.monotonic(), len(server.log)
        wanted = before + chance.randrange(1, 25)
        while len(server.log) < wanted and run.poll() is None and time.monotonic() - begun < 30:
            time.sleep(0.001)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            kills += 1
        run.communicate()
    assert kills >= 5
    ask(server, "openai", *options, cwd=tmp_path)
    assert len(server.billed) <= 160 + kills * width
    receipts, facts = read_rows(tmp_path / "out.receipts.jsonl"), llm_facts(tmp_path)
    calls = sum(line["calls"] for line in receipts)
    assert len(server.billed) - kills * width <= calls <= len(server.billed), "all but what broke off with a run"
    assert min(line["calls"] for line in receipts) == 1, "those that a killed run has paid for, too"
    assert calls * 0.12 == pytest.approx(sum(line["usd"] for line in receipts))
    assert facts["usd"] + facts["usd_earlier"] == pytest.approx(calls * 0.12)
    assert facts["usd_earlier"] > 0
    before = len(server.log)
    ask(server, "openai", cwd=tmp_path)
    assert len(server.log) == before, "a further run asks nothing"
    assert read_rows(tmp_path / "out.receipts.jsonl") == receipts, "what the rows have cost, whichever run has paid"
    assert (llm_facts(tmp_path)["usd"], llm_facts(tmp_path)["usd_earlier"]) == pytest.approx((0, calls * 0.12))
    ask(server, "openai", cwd=tmp_path, output="other.jsonl")
    assert {line["calls"] for line in read_rows(tmp_path / "other.receipts.jsonl")} == {0}, "a payment has one receipt"
    killed = (tmp_path / "out.jsonl").read_bytes()
    ask(server, "openai", "--cache-dir", "other", "--concurrency", 32, cwd=tmp_path)
    assert (tmp_path / "out.jsonl").read_bytes() == killed


def test_ctrl_c_waits_for_the_calls_that_are_paid_for_already(tmp_path, server):
    server.plan = slowly(0.4)
    some(tmp_path, 40)
    run = start(server, "openai", "--concurrency", 4, cwd=tmp_path)
    begun = time.monotonic()
    while len(server.log) < 7 and time.monotonic() - begun < 30:
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    told = run.communicate()[1]
    assert run.returncode == 130, told
    assert "calls under way" in told
    paid = len(server.billed)
    server.plan = lambda call: None
    ask(server, "openai", cwd=tmp_path)
    assert len(server.billed) == 40, f"{paid} had been paid for, and all of them are kept"


# --- looking into the cache -------------------------------------------------------------------------------------------


def test_the_cache_is_exported_explained_and_pruned(tmp_path, server):
    some(tmp_path, 3)
    ask(server, "openai", cwd=tmp_path)
    ask(server, "openai", "--model", "gpt-4.1", "--limit", 1, cwd=tmp_path, output="other.jsonl")
    lines = [json.loads(line) for line in run_script(SCRIPT, "cache-export", cwd=tmp_path, check=0).out.splitlines()]
    assert len(lines) == 4
    assert [line["request"] for line in lines] == sorted(line["request"] for line in lines)
    row = read_rows(tmp_path / "out.jsonl")[1]
    id, key = row["metadata"]["id"], row["metadata"]["lineage"][-1]["request"]
    for words in ([key[:12]], [id, "--input", "out.jsonl"]):
        told = run_script(SCRIPT, "cache-explain", *words, cwd=tmp_path, check=0).out
        assert key in told
        assert row["description"] in told
    assert "begins with it" in run_script(SCRIPT, "cache-explain", "zzz", cwd=tmp_path, check=1).err
    assert "say what" in run_script(SCRIPT, "cache-prune", cwd=tmp_path, check=2).err
    assert "0 answers removed" in run_script(SCRIPT, "cache-prune", "--older-than", 1, cwd=tmp_path, check=0).err
    told = run_script(SCRIPT, "cache-prune", "--model", "gpt-4.1", cwd=tmp_path, check=0).err
    assert "1 answers removed, 3 left" in told


def test_waiting_places_go_to_calls_that_are_tried_again_first():
    from stages.prepare_data_with_llm.limits import Gate

    async def order():
        gate, entered = Gate(1), []

        async def go(name, first):
            await gate.enter(first)
            entered.append(name)
            gate.leave()

        await gate.enter()
        tasks = [asyncio.create_task(go(name, name == "again")) for name in ("a", "b", "again")]
        await asyncio.sleep(0)
        gate.leave()
        await asyncio.gather(*tasks)
        return entered

    assert asyncio.run(order()) == ["again", "a", "b"]


def test_what_is_remembered_about_a_program_is_what_is_worked_out(tmp_path):
    from stages.prepare_data_with_llm.answers import open_answers
    from stages.prepare_data_with_llm.features import code_features
    from stages.prepare_data_with_llm.memo import TOGETHER, Memo

    programs = [needy(number)["code"] for number in range(TOGETHER)] + ["def broken("]
    with open_answers(tmp_path / "cache"):
        for _ in range(2):
            memo = Memo(tmp_path / "cache", is_written=True)
            assert [memo.features(code) for code in programs] == [code_features(code) for code in programs]
    assert memo.base.execute("SELECT count(*) FROM memo").fetchone() == (TOGETHER,)
    assert Memo(tmp_path / "elsewhere", is_written=True).features(programs[0]) == code_features(programs[0])
    assert not (tmp_path / "elsewhere").exists()
