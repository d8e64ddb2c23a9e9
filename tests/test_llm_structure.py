"""Stage 2: servers that take no JSON schema are asked by other means, and their answers are checked all the same."""

from __future__ import annotations

import json

import pytest
from conftest import read_rows, record, run_script, write_rows
from fake_llm import description_for, knows, says

SCRIPT = "prepare_data_with_llm.py"
KEY = {"OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-x"}


def some(tmp_path, count=4):
    rows = [record(number, description="", metadata={"needs_description": True}) for number in range(count)]
    write_rows(tmp_path / "in.jsonl", rows)


def ask(server, *options, cwd, check=0, llm="openai", command="generate-descriptions"):
    url = server.url("openai" if llm == "openai" else "anthropic")
    places = ("--input", "in.jsonl", "--output", "out.jsonl", "--llm", llm, "--base-url", url, "--model", "local")
    return run_script(SCRIPT, command, *places, *options, cwd=cwd, check=check, env=KEY)


def formats(server):
    return [call.body.get("response_format", {"type": "text"})["type"] for call in server.log]


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_refuses_the_schema_is_asked_for_any_json_and_told_the_schema_in_words(tmp_path, server, status):
    some(tmp_path)
    server.plan = knows("json_object", "text", status=status)
    told = ask(server, cwd=tmp_path).stderr.decode()
    assert formats(server) == ["json_schema", *["json_object"] * 4], "one refusal, not one for every row"
    assert told.count("refuses the shape of the answer") == 1
    assert "--structured json" in told
    sent = server.log[-1].body
    assert '"required": ["description"]' in sent["messages"][0]["content"]
    assert sent["response_format"]["schema"]["required"] == ["description"], "some servers keep to it"
    descriptions = {row["description"] for row in read_rows(tmp_path / "out.jsonl")}
    assert descriptions == {description_for(call) for call in server.log[1:]}
    first = (tmp_path / "out.jsonl").read_bytes()

    plan = ask(server, "--dry-run", cwd=tmp_path).stdout.decode()
    assert "4 are answered in the cache, 0 new requests" in plan
    told = ask(server, cwd=tmp_path).stderr.decode()
    assert len(server.log) == 5, "what the server takes is remembered"
    assert "refuses" not in told
    assert (tmp_path / "out.jsonl").read_bytes() == first

    server.plan = lambda call: None
    ask(server, "--structured", "native", cwd=tmp_path)
    assert formats(server)[5:] == ["json_schema"] * 4, "an answer by other means is another answer"


def test_a_server_that_takes_neither_is_asked_in_words_alone_and_its_answers_are_checked(tmp_path, server):
    some(tmp_path, 3)
    refuse = knows("text")

    def plan(call):
        if refused := refuse(call):
            return refused
        fenced = "```json\n" + json.dumps({"description": description_for(call)}) + "\n```"
        is_bad = "Scene2" in call.user and "could not be used" not in call.user
        return says(call, '{"text": "no such field"}' if is_bad else fenced)

    server.plan = plan
    ask(server, cwd=tmp_path)
    assert formats(server) == ["json_schema", "json_object", *["text"] * 4]
    assert sum("does not follow the schema" in call.user for call in server.log) == 1, "one was asked once more"
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["description"] for row in rows] == [
        next(description_for(call) for call in reversed(server.log) if f"Scene{number}" in call.user)
        for number in range(3)
    ]


def test_the_shape_of_anthropic_can_be_asked_for_in_words_too(tmp_path, server):
    some(tmp_path, 2)
    server.plan = knows("text", status=400)
    ask(server, cwd=tmp_path, llm="claude")
    assert ["output_config" in call.body for call in server.log] == [True, False, False]
    assert "JSON schema" in server.log[-1].body["system"][0]["text"]


def test_what_the_user_has_settled_is_not_changed(tmp_path, server):
    some(tmp_path)
    server.plan = knows("text")
    told = ask(server, "--structured", "json", cwd=tmp_path, check=1).stderr.decode()
    assert formats(server) == ["json_object"]
    assert "--structured says how else" in told.splitlines()[-1]
    ask(server, "--structured", "text", cwd=tmp_path)
    assert formats(server)[1:] == ["text"] * 4


def test_a_run_by_other_means_can_be_recorded_and_replayed(tmp_path, server):
    some(tmp_path)
    server.plan = knows("json_object")
    ask(server, "--record", "tape.jsonl", cwd=tmp_path)
    first = (tmp_path / "out.jsonl").read_bytes()
    words = ("--input", "in.jsonl", "--output", "out.jsonl", "--llm", "replay", "--replay", "tape.jsonl")
    run_script(SCRIPT, "generate-descriptions", *words, cwd=tmp_path, check=0)
    assert (tmp_path / "out.jsonl").read_bytes() == first
    assert len(server.log) == 5


def test_rows_that_share_a_call_fall_back_together(tmp_path, server):
    def plan(call):
        if refused := knows("json_object")(call):
            return refused
        ids = [part.split('"')[0] for part in call.user.split('<task id="')[1:]]
        if not ids:
            return None
        entries = [{"id": id, "answer": {"description": f"Draw circle {id}."}} for id in ids]
        return says(call, json.dumps({"answers": entries}))

    some(tmp_path, 5)
    server.plan = plan
    ask(server, "--batch-size", "2", cwd=tmp_path)
    assert formats(server)[:2] == ["json_schema", "json_object"]
    assert len(server.log) == 4, "the first row alone, four in two calls"
