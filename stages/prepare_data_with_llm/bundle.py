"""Several rows in one call: their requests become one, and each gets its own part of the answer, matched by its number.

Nobody above knows of it: a row's answer is kept under the row's own request, so that one changed row is one new row to
ask, whichever rows it travelled with. A row that has no part in the answer is asked alone.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from stages.prepare_data_with_llm.providers import Headers, Provider, Refused, Transient
from stages.prepare_data_with_llm.questions import Answer, Request

PATIENCE = 0.05  # seconds that a row waits for others to travel with
HOW = """

You are given several of these at once, each under a heading "### Row N". Treat every row as if it were the only one.
Answer with a JSON object: {"rows": [{"id": N, "answer": the JSON object for row N}, ...]}, one entry for every row."""

Ticket = tuple[Request, asyncio.Future[tuple[Answer, Headers]]]
Call = asyncio.Task[tuple[list[Answer | None], Headers]]


@dataclass
class Bundles:
    """A provider that waits until it has several requests of a kind."""

    provider: Provider
    size: int
    waiting: dict[tuple[Any, ...], list[Ticket]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    calls: set[Call] = field(default_factory=set)

    @property
    def client(self) -> Any:
        return self.provider.client

    async def call(self, request: Request) -> tuple[Answer, Headers]:
        if request.images or request.key in self.alone:
            return await self.provider.call(request)
        loop = asyncio.get_running_loop()
        kind = (request.task, request.system, request.model, request.max_tokens, request.sample)
        tickets = self.waiting.setdefault(kind, [])
        reply: asyncio.Future[tuple[Answer, Headers]] = loop.create_future()
        tickets.append((request, reply))
        if len(tickets) == self.size:
            self.send(kind, tickets)
        elif len(tickets) == 1:
            loop.call_later(PATIENCE, self.send, kind, tickets)
        return await reply

    def send(self, kind: tuple[Any, ...], tickets: list[Ticket]) -> None:
        """Let those that wait go, unless they have gone."""
        if self.waiting.get(kind) is tickets:
            del self.waiting[kind]
            requests = [request for request, _ in tickets]
            self.calls.add(call := asyncio.create_task(self.travel(requests)))
            call.add_done_callback(partial(self.arrive, tickets))

    async def travel(self, requests: list[Request]) -> tuple[list[Answer | None], Headers]:
        try:
            answer, headers = await self.provider.call(one_of(requests))
        except Refused:  # perhaps because of one of them, or because they are too long together
            if len(requests) == 1:
                raise
            return [None] * len(requests), {}
        return [answer] if len(requests) == 1 else parts_of(answer, requests), headers

    def arrive(self, tickets: list[Ticket], call: Call) -> None:
        """Give each row its part, or the failure of all."""
        self.calls.discard(call)
        failure = asyncio.CancelledError() if call.cancelled() else call.exception()
        parts, headers = ([None] * len(tickets), {}) if failure else call.result()
        for (request, future), part in zip(tickets, parts, strict=True):
            if future.done():
                continue
            if failure:
                future.set_exception(failure)
            elif part:
                future.set_result((part, headers))
            else:
                self.alone.add(request.key)
                words = f"the answer to {len(tickets)} rows had no part for this one"
                future.set_exception(Transient(words, wait=0.0, lost=True, again=True))


def one_of(requests: Sequence[Request]) -> Request:
    """One request for several rows."""
    first = requests[0]
    if len(requests) == 1:
        return first
    row = {"type": "object", "properties": {"id": {"type": "integer"}, "answer": first.schema}}
    rows = {"type": "array", "items": row | {"required": ["id", "answer"], "additionalProperties": False}}
    shape = {"type": "object", "properties": {"rows": rows}, "required": ["rows"], "additionalProperties": False}
    users = (f"### Row {number}\n\n{request.user}" for number, request in enumerate(requests, 1))
    return replace(
        first,
        system=first.system + HOW,
        user="\n\n".join(users),
        schema=shape,
        max_tokens=first.max_tokens * len(requests),
    )


def parts_of(answer: Answer, requests: Sequence[Request]) -> list[Answer | None]:
    """Each row's part; None for a row that has none, and for all where a number stands twice or is nobody's."""
    nobody: list[Answer | None] = [None] * len(requests)
    if answer.finish != "stop":
        return nobody
    try:
        rows = json.loads(answer.text)["rows"]
        found = {row["id"]: json.dumps(row["answer"], ensure_ascii=False) for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError):
        return nobody
    if len(found) != len(rows) or not set(found) <= set(range(1, len(requests) + 1)):
        return nobody
    return [
        share_of(answer, found[number], number - 1, len(requests)) if number in found else None
        for number in range(1, len(requests) + 1)
    ]


def share_of(answer: Answer, text: str, place: int, count: int) -> Answer:
    """The answer for one row with its share of the tokens; the shares add up."""
    names = ("input_tokens", "output_tokens", "cached_tokens", "stored_tokens")
    counts = {name: getattr(answer, name) for name in names}
    return replace(answer, text=text, **{name: (total + place) // count for name, total in counts.items()})
