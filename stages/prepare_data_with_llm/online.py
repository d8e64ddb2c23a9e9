"""Describes rows by a language model: many calls at once, the rows in their order."""

import asyncio
import functools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.answers import Answers
from stages.prepare_data_with_llm.engine import Engine, Limits, Result, told
from stages.prepare_data_with_llm.features import code_features
from stages.prepare_data_with_llm.prompt import SCHEMA, Prompt, parse_answer
from stages.prepare_data_with_llm.providers import Fatal, Request, connect, host_of, sent_parameters
from stages.prepare_data_with_llm.rows import described, is_wanted, wrong_kind

LEAST_WINDOW = 256  # rows that may wait behind a slow one
BREATH = 32  # rows from the cache after which the calls under way get their turn


@dataclass(frozen=True)
class Job:
    """What is asked of whom."""

    provider: str
    model: str
    url: str
    prompt: Prompt
    max_tokens: int
    everything: bool

    @property
    def author(self) -> str:
        return f"{self.provider}/{self.model}"

    def request(self, record: Record, features: dict[str, Any] | None) -> Request:
        return Request(
            provider=self.provider,
            host=host_of(self.url),
            model=self.model,
            system=self.prompt.system,
            user=self.prompt.fill(record, features),
            schema=SCHEMA,
            max_tokens=self.max_tokens,
            parameters=sent_parameters(self.provider, self.url, self.model),
        )


@dataclass
class Waiting:
    """A row on its way: nothing is asked for it, or the answer is there, or it is under way."""

    record: Record
    features: dict[str, Any] | None = None
    request: str | None = None
    result: Result | asyncio.Task[Result] | None = None

    def is_ready(self) -> bool:
        return not isinstance(self.result, asyncio.Task) or self.result.done()


def describe_online(run: schema.Run, job: Job, answers: Answers, limits: Limits, key: str, seconds: float) -> None:
    """Describe the rows of a run; what can not go on is one line, and everything answered so far is kept."""
    engine = Engine(functools.partial(connect, job.provider, key, job.url, seconds), answers, limits)
    kept = "the answers so far are kept, and the same command goes on from there"
    try:
        asyncio.run(describe_all(run, job, engine))
    except Fatal as error:
        raise schema.Failure(f"{job.author} at {host_of(job.url)}: {error}; {kept}") from None
    except KeyboardInterrupt:
        schema.log(f"{told(engine.counts)}; {kept}")
        raise
    schema.log(told(engine.counts))
    run.extra["llm"] = {"author": job.author, "host": host_of(job.url), **dict(sorted(engine.counts.items()))}
    if lost := run.reasons["llm_failed"]:
        run.pending(f"{lost:,} rows got no answer; the same command asks for those alone")


async def describe_all(run: schema.Run, job: Job, engine: Engine) -> None:
    """Rows enter as long as there are free calls, and leave in their order."""
    window = max(LEAST_WINDOW, 8 * engine.limits.concurrency)
    waiting: deque[Waiting] = deque()
    try:
        for position, record in enumerate(run.records()):
            waiting.append(await enter(record, job, engine))
            if position % BREATH == 0:
                await asyncio.sleep(0)
            while waiting and (waiting[0].is_ready() or len(waiting) > window):
                await leave(waiting.popleft(), run, job, engine)
        while waiting:
            await leave(waiting.popleft(), run, job, engine)
    finally:
        await engine.close()


async def enter(record: Record, job: Job, engine: Engine) -> Waiting:
    if not is_wanted(record, job.everything):
        return Waiting(record)
    if fault := wrong_kind(record):
        return Waiting(record, result=fault)
    features = code_features(record["code"])
    request = job.request(record, features)
    return Waiting(record, features, request.key, await engine.begin(request, record["source"]))


async def leave(row: Waiting, run: schema.Run, job: Job, engine: Engine) -> None:
    result = await row.result if isinstance(row.result, asyncio.Task) else row.result
    await engine.check()
    if result is None:
        run.keep(row.record)
    elif isinstance(result, Fault):
        run.reject(row.record, result)
    else:
        run.keep(described(row.record, result, job.author, row.features), request=row.request)


def rehearse(records: Iterable[Record], job: Job, answers: Answers | None) -> list[str]:
    """What a run would do, without a call: rows, answers that are there, new requests, and about how many tokens."""
    rows = wanted = cached = tokens = 0
    new: set[str] = set()
    for record in records:
        rows += 1
        if not is_wanted(record, job.everything) or wrong_kind(record):
            continue
        wanted += 1
        request = job.request(record, code_features(record["code"]))
        if answers and is_answered(answers, request.key):
            cached += 1
        elif request.key not in new:
            new.add(request.key)
            tokens += (len(request.system) + len(request.user)) // 4
    return [
        f"{rows:,} rows, {wanted:,} to be described by {job.author}",
        f"{cached:,} are answered in the cache, {len(new):,} new requests, {wanted - cached - len(new):,} shared",
        f"about {tokens:,} tokens to read and at most {len(new) * job.max_tokens:,} to write (4 characters a token)",
        "nothing was asked and nothing was written",
    ]


def is_answered(answers: Answers, key: str) -> bool:
    found = answers.get(key)
    try:
        return bool(found and parse_answer(found["text"]))
    except ValueError:
        return False
