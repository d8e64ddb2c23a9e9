"""Asks for many answers at once: few enough at a time, patiently, each request once, and every answer kept."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import schema
from schema import Fault
from stages.prepare_data_with_llm.answers import Answers
from stages.prepare_data_with_llm.providers import Fatal, Provider, Refused, Transient
from stages.prepare_data_with_llm.questions import Answer, Found, Question, Request
from stages.prepare_data_with_llm.service import Service

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
LONGEST_RETRY_AFTER = 600.0  # a provider that asks for more has said no
MOST_LIMITED = 30  # a rate limit is no failure: it gets more patience than an error
GIVE_UP_AFTER = 8  # rows in a row whose retries are all used up: the server is gone
RAW = 2000  # characters of an unusable answer that are kept


class Unusable(Exception):
    """A row that gets no description: the fault says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(code, message)


class Pace:
    """Spreads calls evenly over each minute."""

    def __init__(self, per_minute: int | None) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next = 0.0

    async def turn(self) -> None:
        if not self.gap:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self.next)
        self.next = start + self.gap
        await asyncio.sleep(start - now)


Result = Found | Fault
Pending = asyncio.Task[Result]


class Engine:
    """The requests under way; lives inside one event loop."""

    def __init__(self, connect: Callable[[], Provider], answers: Answers, service: Service) -> None:
        self.connect, self.answers, self.service = connect, answers, service
        self.provider: Provider | None = None  # opened for the first new request: a run from the cache needs none
        self.slots = asyncio.Semaphore(service.concurrency)
        self.pace = Pace(service.rpm)
        self.flying: dict[str, Pending] = {}
        self.failed: dict[str, Fault] = {}  # so that equal rows share a failure instead of repeating it
        self.counts: Counter[str] = Counter()
        self.proved = False
        self.stopping = asyncio.Event()
        self.fatal: Fatal | schema.Failure | None = None
        self.lost_in_a_row = 0

    async def begin(self, asked: Question, source: str) -> Result | Pending:
        """What the cache says, or the call that is now under way."""
        key = asked.request.key
        if key in self.flying:
            self.counts["merged"] += 1
            return self.flying[key]
        if key in self.failed:
            return self.failed[key]
        if (known := self.known(asked)) is not None:
            self.counts["cached"] += 1
            return known
        await self.slots.acquire()
        if self.fatal or self.lost_in_a_row >= GIVE_UP_AFTER:
            self.slots.release()
            await self.check()
            return Fault("llm_failed", f"not tried: the last {self.lost_in_a_row} requests got no answer")
        self.provider = self.provider or self.connect()
        task = asyncio.create_task(self.fetch(self.provider, asked, source))
        self.flying[key] = task
        task.add_done_callback(lambda _: self.landed(key))
        if not self.proved:
            await self.prove(task)
        return task

    def known(self, asked: Question) -> Found | None:
        """The meaning of a kept answer; it is read again, for the checks may be newer than the answer."""
        found = self.answers.get(asked.request.key)
        try:
            return Found(asked.read(found["text"]), asked.request.key) if found else None
        except ValueError:
            return None

    def landed(self, key: str) -> None:
        self.flying.pop(key, None)
        self.slots.release()

    async def prove(self, task: Pending) -> None:
        """The first call goes alone: a wrong key or address costs one refusal, not one for every slot."""
        result = await task
        await self.check()
        if isinstance(result, Fault) and result.code == "llm_failed":
            raise Fatal(result.message)
        self.proved = True

    async def check(self) -> None:
        """Stop the run if nothing will ever be answered; calls under way may end, for they are paid for."""
        if self.fatal:
            if self.flying:
                await asyncio.wait(list(self.flying.values()))
            raise self.fatal

    async def fetch(self, provider: Provider, asked: Question, source: str) -> Result:
        """One row's answer, kept before it counts. Failures are results, so that no task dies unheard."""
        key = asked.request.key
        try:
            answer, value = await self.usable(provider, asked)
            self.answers.put(key, entry(answer, asked.request, source))
        except Unusable as failure:
            self.failed[key] = failure.fault
            self.lost_in_a_row += failure.fault.code == "llm_failed"
            return failure.fault
        except (Fatal, schema.Failure) as error:
            self.fatal = self.fatal or error
            self.stopping.set()
            return Fault("llm_failed", "the run was stopped")
        self.lost_in_a_row = 0
        self.counts["answered"] += 1
        return Found(value, key)

    async def usable(self, provider: Provider, asked: Question) -> tuple[Answer, Any]:
        """An answer with its meaning; one that has none is asked for once more, with what was wrong."""
        answer = await self.patiently(provider, asked.request)
        try:
            return answer, meaning_of(answer, asked)
        except ValueError as fault:
            answer = await self.patiently(provider, once_more(asked.request, answer, str(fault)))
        try:
            return answer, meaning_of(answer, asked)
        except ValueError as fault:
            message = f"two answers could not be used; {fault}: {answer.text[:RAW]!r}"
            raise Unusable("llm_bad_answer", message) from None

    async def patiently(self, provider: Provider, request: Request) -> Answer:
        """One answer, with as many attempts as it is worth."""
        failures = limited = 0
        while True:
            await self.pace.turn()
            if self.stopping.is_set():
                raise Unusable("llm_failed", "the run was stopped")
            self.counts["calls"] += 1
            try:
                answer = await provider.call(request)
            except Refused as error:
                raise Unusable("llm_invalid_request", f"the provider does not take it: {error}") from None
            except Transient as error:
                failures, limited = failures + (not error.limited), limited + error.limited
                spent = failures > self.service.retries or limited > MOST_LIMITED
                if spent or (error.wait or 0) > LONGEST_RETRY_AFTER:
                    raise Unusable("llm_failed", f"no answer after {failures + limited} attempts: {error}") from None
                await self.rest(error.wait, failures + limited)
                continue
            self.counts["input_tokens"] += answer.input_tokens
            self.counts["output_tokens"] += answer.output_tokens
            if answer.finish == "refusal":
                raise Unusable("llm_refused", f"the model declined: {answer.text[:RAW]!r}")
            return answer

    async def rest(self, wait: float | None, attempt: int) -> None:
        """Wait as long as the provider asked, or longer each time; a little by chance, so that rows part company."""
        own = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)
        seconds = own if wait is None else wait + random.uniform(0, min(1.0, 0.1 + wait * 0.1))
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    async def close(self) -> None:
        tasks = list(self.flying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.provider:
            await self.provider.client.close()


def meaning_of(answer: Answer, asked: Question) -> Any:
    """What an answer says, or a ValueError in words for the model and for the rejects file."""
    if answer.finish == "length":
        raise ValueError("it was cut off at the limit of tokens")
    return asked.read(answer.text)


def once_more(request: Request, answer: Answer, fault: str) -> Request:
    """The same question with the fault of its answer, and with more room if that was too small."""
    room = request.max_tokens * 4 if answer.finish == "length" else request.max_tokens
    user = f"{request.user}\n\nYour last answer could not be used: {fault}. Answer with the JSON object alone."
    return replace(request, user=user, max_tokens=room)


def entry(answer: Answer, request: Request, source: str) -> dict[str, Any]:
    """What the cache keeps of an answer."""
    return {
        "text": answer.text,
        "model": answer.model,
        "finish": answer.finish,
        "usage": {"input": answer.input_tokens, "output": answer.output_tokens},
        "provider": request.provider,
        "asked": request.model,
        "source": source,
    }


def told(counts: Counter[str]) -> str:
    """The line about money at the end of a run."""
    return (
        f"{counts['answered']:,} new answers in {counts['calls']:,} calls, {counts['cached']:,} from the cache, "
        f"{counts['merged']:,} shared; {counts['input_tokens']:,} tokens read, {counts['output_tokens']:,} written"
    )
