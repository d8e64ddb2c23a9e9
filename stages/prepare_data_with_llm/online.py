"""Runs a task over the rows of a file: many calls at once, the rows in their order."""

import asyncio
import functools
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import click

import schema
from schema import Contract, Fault, Record
from stages.prepare_data_with_llm.answers import Answers, open_answers
from stages.prepare_data_with_llm.engine import Engine, Pending, Result, told
from stages.prepare_data_with_llm.providers import Fatal, connect
from stages.prepare_data_with_llm.questions import Question, Task
from stages.prepare_data_with_llm.service import Service

LEAST_WINDOW = 256  # rows that may wait behind a slow one
BREATH = 32  # rows from the cache after which the calls under way get their turn


def perform(stage: str, contract: Contract, service: Service, task: Task, params: dict[str, Any]) -> None:
    """A whole run of a task, or with --dry-run what it would cost; `params` go into the history of each row."""
    if service.dry_run:
        is_there = (service.cache_dir / "cache.db").exists()
        with open_answers(service.cache_dir) if is_there else nullcontext() as answers, rehearsal(contract) as run:
            click.echo("\n".join(rehearse(run.records(), task, service, answers)))
        return
    with open_answers(service.cache_dir) as answers, schema.run(stage, contract, params=params) as run:
        ask(run, task, service, answers)


@contextmanager
def rehearsal(contract: Contract) -> Iterator[schema.Run]:
    """A run whose files nobody sees: the same rows are taken as in a real one, and nothing is left of it."""

    class Over(Exception):
        pass

    with tempfile.TemporaryDirectory() as folder:
        places = replace(contract, output=f"{folder}/out.jsonl", rejects=f"{folder}/rejects.jsonl")
        try:
            with schema.run("rehearsal", places, params={}) as run:
                yield run
                raise Over
        except Over:
            return


@dataclass
class Waiting:
    """A row on its way: nothing is asked for it, or the answer is there, or it is under way."""

    record: Record
    result: Result | Pending | None
    note: Any

    def is_ready(self) -> bool:
        return not isinstance(self.result, asyncio.Task) or self.result.done()


def ask(run: schema.Run, task: Task, service: Service, answers: Answers) -> None:
    """Answer the rows of a run; what can not go on is one line, and everything answered so far is kept."""
    engine = Engine(functools.partial(connect, service), answers, service)
    kept = "the answers so far are kept, and the same command goes on from there"
    try:
        asyncio.run(ask_all(run, task, engine))
    except Fatal as error:
        raise schema.Failure(f"{service.author} at {service.host}: {error}; {kept}") from None
    except KeyboardInterrupt:
        schema.log(f"{told(engine.counts)}; {kept}")
        raise
    schema.log(told(engine.counts))
    run.extra["llm"] = {"author": service.author, "host": service.host, **dict(sorted(engine.counts.items()))}
    if lost := run.reasons["llm_failed"]:
        run.pending(f"{lost:,} rows got no answer; the same command asks for those alone")


async def ask_all(run: schema.Run, task: Task, engine: Engine) -> None:
    """Rows enter as long as there are free calls, and leave in their order."""
    window = max(LEAST_WINDOW, 8 * engine.service.concurrency)
    waiting: deque[Waiting] = deque()
    try:
        for position, record in enumerate(run.records()):
            asked = task.question(record)
            if isinstance(asked, Question):
                waiting.append(Waiting(record, await engine.begin(asked, record["source"]), asked.note))
            else:
                waiting.append(Waiting(record, asked, None))
            if position % BREATH == 0:
                await asyncio.sleep(0)
            while waiting and (waiting[0].is_ready() or len(waiting) > window):
                await leave(waiting.popleft(), run, task, engine)
        while waiting:
            await leave(waiting.popleft(), run, task, engine)
    finally:
        await engine.close()


async def leave(row: Waiting, run: schema.Run, task: Task, engine: Engine) -> None:
    result = await row.result if isinstance(row.result, asyncio.Task) else row.result
    await engine.check()
    if isinstance(result, Fault):
        run.reject(row.record, result)
    else:
        task.settle(run, row.record, result and result._replace(note=row.note))


def rehearse(records: Iterable[Record], task: Task, service: Service, answers: Answers | None) -> list[str]:
    """What a run would do, without a call: rows, answers that are there, new requests, and about how many tokens."""
    rows = wanted = cached = tokens = written = 0
    new: set[str] = set()
    for record in records:
        rows += 1
        asked = task.question(record)
        if not isinstance(asked, Question):
            continue
        wanted += 1
        request = asked.request
        if answers and is_answered(answers, asked):
            cached += 1
        elif request.key not in new:
            new.add(request.key)
            tokens += (len(request.system) + len(request.user)) // 4
            written += request.max_tokens
    return [
        f"{rows:,} rows, {wanted:,} to be asked about by {service.author}",
        f"{cached:,} are answered in the cache, {len(new):,} new requests, {wanted - cached - len(new):,} shared",
        f"about {tokens:,} tokens to read and at most {written:,} to write (4 characters a token)",
        "nothing was asked and nothing was written",
    ]


def is_answered(answers: Answers, asked: Question) -> bool:
    found = answers.get(asked.request.key)
    if not found:
        return False
    try:
        asked.read(found["text"])
    except ValueError:
        return False
    return True
