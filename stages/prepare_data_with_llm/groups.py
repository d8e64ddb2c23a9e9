"""Several rows in one call: answers are matched by the id of the row, and what does not match is asked for alone."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from stages.prepare_data_with_llm.prompt import parse
from stages.prepare_data_with_llm.questions import Answer, Request

PATIENCE = 0.1  # seconds that a call waits for further rows
ID = 12  # characters of a key that tell the rows of one call apart
RULE = """

Several tasks come at once, each between <task id="..."> and </task>. Do each as if it were alone.
The JSON object is {"answers": [{"id": "the id of the task", "answer": the JSON object that the task asks for}, ...]},
with exactly one entry for each task."""
Call = Callable[[Request, str], Awaitable[Answer]]


@dataclass
class Group:
    """The rows of one call."""

    members: dict[str, Request] = field(default_factory=dict)  # by key
    full: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[dict[str, Answer]] | None = None


class Groups:
    """Gathers requests until a call is full."""

    def __init__(self, size: int, call: Call) -> None:
        self.size, self.call = size, call
        self.forming: dict[str, Group] = {}  # by what their requests share

    async def answer(self, request: Request) -> Answer | None:
        """The answer to a request out of a common call; None if there was none."""
        kind = str((request.task, request.system, request.schema, request.max_tokens, request.sample))
        group = self.forming.setdefault(kind, Group())
        group.members[request.key] = request
        if len(group.members) == self.size:
            self.close(group, kind)
        try:
            await asyncio.wait_for(group.full.wait(), PATIENCE)
        except TimeoutError:
            self.close(group, kind)
        assert group.task, "a closed group is asked for"
        return (await asyncio.shield(group.task)).get(request.key)

    def close(self, group: Group, kind: str) -> None:
        """No more rows for this call, which may begin."""
        if group.task is None:
            group.full.set()
            group.task = asyncio.create_task(self.ask(list(group.members.values())))
            del self.forming[kind]

    async def ask(self, requests: list[Request]) -> dict[str, Answer]:
        if len(requests) == 1:
            return {requests[0].key: await self.call(requests[0], requests[0].key)}
        answer = await self.call(bundle(requests), requests[0].key)
        texts = split(answer.text) if answer.finish == "stop" else {}
        return {
            request.key: part_of(answer, texts[request.key[:ID]], len(requests))
            for request in requests
            if request.key[:ID] in texts
        }


def bundle(requests: list[Request]) -> Request:
    """One request for several; they share all but what the user says."""
    first = requests[0]
    tasks = [f'<task id="{request.key[:ID]}">\n{request.user}\n</task>' for request in requests]
    entry = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "answer": first.schema},
        "required": ["id", "answer"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"answers": {"type": "array", "items": entry}},
        "required": ["answers"],
        "additionalProperties": False,
    }
    room = sum(request.max_tokens for request in requests) + 30 * len(requests)
    return replace(first, system=first.system + RULE, user="\n\n".join(tasks), schema=schema, max_tokens=room)


def split(text: str) -> dict[str, str]:
    """The texts of the answers by id; an id that comes twice has none, for nobody knows which is meant."""
    try:
        entries = parse(text)["answers"]
        found = [(entry["id"], entry["answer"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        return {}
    ids = [id for id, _ in found]
    return {id: json.dumps(answer, ensure_ascii=False) for id, answer in found if ids.count(id) == 1}


def part_of(answer: Answer, text: str, count: int) -> Answer:
    """One row's answer, with its share of the tokens."""
    return replace(
        answer,
        text=text,
        input_tokens=answer.input_tokens // count,
        output_tokens=answer.output_tokens // count,
        cached_tokens=answer.cached_tokens // count,
        stored_tokens=answer.stored_tokens // count,
    )
