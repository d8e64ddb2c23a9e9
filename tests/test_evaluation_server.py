"""A model behind an address: what is sent, what its failures mean, and that no answer is paid for twice."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import CLEAN, ROOT, read_rows, write_rows
from fake_llm import FakeLLM, Reply, error, says

import evaluate_model
import schema

SCENE = "class A(Scene):\n    def construct(self):\n        self.wait()\n"
ROWS = [
    {"description": f"Show number {n}.", "code": SCENE, "source": "s", "metadata": {"id": f"row{n}", "kind": "code"}}
    for n in range(6)
]


@pytest.fixture(scope="module")
def served():
    with FakeLLM() as server:
        yield server


@pytest.fixture
def llm(served, monkeypatch):
    served.reset()
    served.plan = lambda call: says(call, f"# {call.user}\n{SCENE}")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return served


def call(*arguments, code=0, text=None):
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)), input=text)
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    return done


def generate(llm, tmp_path, *options, rows=ROWS, code=0):
    data = write_rows(tmp_path / "test.jsonl", rows)
    address = ("--base-url", llm.url("openai"), "--model", "tiny", "--data", data, "--output", tmp_path / "eval")
    return call("generate", *address, *options, code=code).stderr


def scored(tmp_path):
    call("score", "--data", tmp_path / "eval" / "generated.jsonl", "--output", tmp_path / "eval")
    return json.loads((tmp_path / "eval" / "scores.json").read_text())


def test_a_server_is_asked_like_any_model(llm, tmp_path):
    rows = [*ROWS[:2], {**ROWS[2], "metadata": {**ROWS[2]["metadata"], "system": "Be brief."}}]
    generate(llm, tmp_path, "--max-new-tokens", 99, "--system", "Write Manim.", rows=rows)
    found = read_rows(tmp_path / "eval" / "generated.jsonl")
    assert [row["code"] for row in found] == [f"# Show number {n}.\n{SCENE}" for n in range(3)]
    assert found[0]["metadata"]["evaluation"] == {"finish": "eos", "tokens": 20}
    bodies = {request.user: request.body for request in llm.log}
    assert bodies["Show number 0."] == {
        "model": "tiny", "max_tokens": 99, "temperature": 0.0, "seed": 42,
        "messages": [{"role": "system", "content": "Write Manim."}, {"role": "user", "content": "Show number 0."}],
    }  # fmt: skip
    assert bodies["Show number 2."]["messages"][0]["content"] == "Be brief."
    ledger = tmp_path / "eval" / "generated.ledger.json"
    assert json.loads(ledger.read_text())["extra"] == {
        "server": llm.url("openai")[7:],
        "model": "tiny",
        "parameters": {},
    }
    assert schema.audit(ledger) == []


def test_several_are_in_flight_and_the_order_stays(llm, tmp_path):
    llm.plan = lambda request: Reply(body=says(request, f"x = {request.user[12]}").body,
                                     delay=0.2 if request.user.endswith("0.") else 0.02)  # fmt: skip
    generate(llm, tmp_path, "--concurrency", 3)
    assert llm.most_in_flight == 3
    assert [row["code"] for row in read_rows(tmp_path / "eval" / "generated.jsonl")] == [f"x = {n}" for n in range(6)]


def test_samples_differ_by_their_seed(llm, tmp_path):
    llm.plan = lambda request: says(request, SCENE if request.body["seed"] % 2 else "x = (")
    generate(llm, tmp_path, "--samples", 4, "--temperature", 0.8, "--seed", 10, "--limit", 2)
    assert sorted(request.body["seed"] for request in llm.log) == [10, 10, 11, 11, 12, 12, 13, 13]
    assert llm.log[0].body["temperature"] == 0.8
    scores = scored(tmp_path)
    assert (scores["syntax"]["passed"], scores["syntax"]["n"], scores["syntax"]["prompts"]) == (4, 8, 2)
    rates = {k: rate["rate"] for k, rate in scores["pass_at"]["syntax"].items()}
    assert rates == {"1": 0.5, "2": pytest.approx(5 / 6, abs=1e-6), "4": 1.0}


def test_an_answer_that_talks_is_read_for_its_program_and_kept_whole(llm, tmp_path):
    whole = f"Here you are:\n```python\n{SCENE}```\nEnjoy."
    llm.plan = lambda request: says(request, whole)
    generate(llm, tmp_path, "--limit", 1)
    (row,) = read_rows(tmp_path / "eval" / "generated.jsonl")
    assert (row["code"], row["metadata"]["evaluation"]["answer"]) == (SCENE, whole)
    assert scored(tmp_path)["fenced"] == 1


def test_every_failure_is_a_failed_answer_and_only_missing_ones_are_asked_again(llm, tmp_path):
    def plan(request):
        number = int(request.user[12])
        replies = {0: error(400, "the context is too long"), 1: says(request, ""), 2: Reply(drop=True)}
        return replies.get(number) or says(request, SCENE, "length" if number == 3 else "stop")

    llm.plan = plan
    said = generate(llm, tmp_path, code=3)
    assert "some prompts got no answer; the same command asks only for those" in said
    rejects = {
        row["metadata"]["id"]: row["metadata"] for row in read_rows(tmp_path / "eval" / "generated.rejects.jsonl")
    }
    assert {name: (facts["error"]["code"], facts["evaluation"]["finish"]) for name, facts in rejects.items()} == {
        "row0": ("empty_generation", "refused"),
        "row1": ("empty_generation", "eos"),
        "row2": ("request_failed", "error"),
    }
    scores = scored(tmp_path)
    assert (scores["rows"], scores["empty"], scores["syntax"]["passed"], scores["syntax"]["n"]) == (6, 3, 3, 6)
    assert scores["finished"]["passed"] == 3
    assert (scores["likeness"]["tree_match"]["n"], scores["likeness"]["tree_match"]["mean"]) == (6, 0.5)
    before = len(llm.log)
    llm.plan = lambda request: says(request, SCENE)
    assert "going on after 5 answers" in generate(llm, tmp_path)
    assert [request.user for request in llm.log[before:]] == ["Show number 2."]
    assert not (tmp_path / "eval" / ".generated.answers").exists()
    assert (scored(tmp_path)["empty"], scored(tmp_path)["syntax"]["passed"]) == (2, 4)


def test_what_may_work_the_next_time_is_tried_again(llm, tmp_path):
    def plan(request):
        if request.attempt == 0:
            return [error(503), error(429, **{"Retry-After": "0.1"}), Reply(body=b"<html>")][int(request.user[12])]
        return says(request, SCENE)

    llm.plan = plan
    generate(llm, tmp_path, "--limit", 3)
    assert len(read_rows(tmp_path / "eval" / "generated.jsonl")) == 3
    assert len(llm.log) == 6


@pytest.mark.parametrize("status", [401, 404, 307])
def test_what_fails_for_every_prompt_ends_the_run_and_the_key_stays_secret(llm, tmp_path, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    elsewhere = {"Location": llm.url("openai") + "/chat/completions"} if status == 307 else {}
    llm.plan = lambda request: error(status, f"no entry for {request.key}", **elsewhere)
    said = generate(llm, tmp_path, "--concurrency", 1, code=1)
    assert f"says {status}" in said
    assert "no entry for [key]" in said
    assert len(said.splitlines()) == 1
    assert llm.log[0].key == "sk-secret"
    assert len(llm.log) == 1
    assert not (tmp_path / "eval" / "generated.jsonl").exists()
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_server_that_is_not_there_is_given_up_and_answers_are_kept(llm, tmp_path, monkeypatch):
    from stages.evaluate_model import server

    monkeypatch.setattr(server, "_TRIES", 1)  # a minute of waiting would show no more
    rows = [{**row, "metadata": {"id": f"{n}{row['metadata']['id']}"}} for n in range(3) for row in ROWS]
    llm.plan = lambda request: says(request, SCENE) if request.number < 4 else Reply(drop=True)
    assert "8 prompts in a row without an answer" in generate(llm, tmp_path, "--concurrency", 1, rows=rows, code=1)
    llm.plan = lambda request: says(request, SCENE)
    assert "going on after 4 answers" in generate(llm, tmp_path, rows=rows)
    assert len(read_rows(tmp_path / "eval" / "generated.jsonl")) == 18


def test_a_dotenv_file_holds_a_key_too(llm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "")  # so that it is put back; an empty one says nothing
    (tmp_path / ".env").write_text("export OPENAI_API_KEY='sk-from-dotenv'\n")
    generate(llm, tmp_path, "--limit", 1)
    assert llm.log[0].key == "sk-from-dotenv"


def test_a_key_file_holds_one_key(llm, tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-from-a-file\n")
    generate(llm, tmp_path, "--limit", 1, "--api-key-file", key)
    assert llm.log[0].key == "sk-from-a-file"
    key.write_text("one\ntwo\n")
    assert "the key holds a space, a second line" in generate(llm, tmp_path, "--api-key-file", key, code=2)


def test_a_server_is_told_what_else_it_takes(llm, tmp_path):
    generate(llm, tmp_path, "--limit", 1, "--parameter", "repeat_penalty=1.0", "--parameter", "note=a=b")
    assert (llm.log[0].body["repeat_penalty"], llm.log[0].body["note"]) == (1.0, "a=b")
    assert "is not of the form repeat_penalty=1.0" in generate(llm, tmp_path, "--parameter", "repeat_penalty", code=2)


def test_a_server_has_its_own_adapters(llm, tmp_path):
    assert "--adapter is for weights" in generate(llm, tmp_path, "--adapter", tmp_path, code=2)


def test_a_conversation_with_a_server_is_streamed_and_remembered(llm):
    def plan(request):
        words = f"You said {len(request.body['messages'])}".split(" ")
        events = [{"choices": [{"delta": {"content": f"{word} "}}]} for word in words]
        lines = [b": waking up", *(b"data: " + json.dumps(event).encode() for event in events), b"data: [DONE]"]
        return Reply(body=b"\n\n".join(lines) + b"\n\n")

    llm.plan = plan
    where = ("chat", "--base-url", llm.url("openai"), "--model", "tiny")
    assert call(*where, "--prompt", "Hello?", "--system", "Be kind.").stdout == "You said 2 \n"
    assert llm.log[0].body["stream"] is True
    assert call(*where, text="one\ntwo\n/new\nthree\n").stdout == "You said 1 \nYou said 3 \nYou said 1 \n"
    llm.plan = lambda request: error(500, "broken")
    assert "says 500: " in call(*where, "--prompt", "Hello?", code=1).stderr


def test_a_server_needs_no_training_packages(llm, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
    )
    data = write_rows(tmp_path / "test.jsonl", ROWS[:1])
    command = [sys.executable, ROOT / "evaluate_model.py", "generate", "--model", "tiny", "--data", data]
    command += ["--base-url", llm.url("openai"), "--output", tmp_path / "eval"]
    env = CLEAN | {"HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_rows(tmp_path / "eval" / "generated.jsonl")) == 1
