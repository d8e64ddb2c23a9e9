"""Asks for many answers at once: few enough at a time, patiently, each request once, and every answer kept."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import schema
from schema import Fault
from stages.prepare_data_with_llm.answers import Answers
from stages.prepare_data_with_llm.groups import Groups
from stages.prepare_data_with_llm.leases import Leases
from stages.prepare_data_with_llm.limits import Gate, Paces
from stages.prepare_data_with_llm.money import Bill, Price, Purse, Spent, likely_tokens
from stages.prepare_data_with_llm.outcomes import RAW, Unusable, answer_of, kept, meaning_of, once_more
from stages.prepare_data_with_llm.providers import Fatal, Provider, Refused, Transient, Unstructured
from stages.prepare_data_with_llm.questions import Answer, BadAnswer, Found, Question, Request
from stages.prepare_data_with_llm.receipts import Receipts
from stages.prepare_data_with_llm.service import Service

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
LONGEST_RETRY_AFTER = 600.0  # a provider that asks for more has said no
MOST_LIMITED = 30  # a rate limit is no failure: it gets more patience than an error
GIVE_UP_AFTER = 8  # rows in a row whose retries are all used up: the server is gone
LISTEN = 16  # calls between two looks at the limits in the headers, which cost more than all else here
LOOK_AGAIN = 0.2  # seconds between two looks at what another run asks for


Result = Found | Fault
Pending = asyncio.Task[Result]


class Engine:
    """The requests under way; lives inside one event loop."""

    def __init__(
        self,
        connect: Callable[[], Provider],
        answers: Answers,
        leases: Leases,
        receipts: Receipts,
        service: Service,
        price: Price | None,
    ) -> None:
        self.connect, self.answers, self.leases, self.receipts = connect, answers, leases, receipts
        self.service, self.price = service, price
        self.provider: Provider | None = None  # opened for the first new request: a run from the cache needs none
        self.gate = Gate(service.concurrency)
        self.paces = Paces(service.rpm, service.tpm)
        self.purse = Purse(service.max_usd)
        self.groups = Groups(service.batch_size, self.patiently) if service.batch_size > 1 else None
        self.in_batches: set[str] = set()  # keys that a batch is asking for; to ask now would be to pay twice
        self.unfit: dict[str, Answer] = {}  # answers that are there and can not be used: to be asked for once more
        self.flying: dict[str, Pending] = {}
        self.calling: set[asyncio.Task[Any]] = set()
        self.failed: dict[str, Fault] = {}  # so that equal rows share a failure instead of repeating it
        self.counts: Counter[str] = Counter()
        self.is_proved = False  # whether the first call has shown that there is somebody
        self.stopping = asyncio.Event()
        self.fatal: Fatal | schema.Failure | None = None
        self.lost_in_a_row = 0

    async def begin(self, asked: Question, source: str) -> Result | Pending:
        """What the cache says, or the call that is now on its way."""
        key = asked.request.key
        if key in self.flying:
            self.counts["merged"] += 1
            return self.flying[key]
        if key in self.failed:
            return self.failed[key]
        if (known := self.known(asked)) is not None:
            self.counts["cached"] += 1
            return known
        if key in self.in_batches:
            return Fault("llm_pending", "it is in a batch that is under way")
        if not self.is_unfit(key) and not self.service.live:
            return Fault("llm_pending", "its batch brought no answer")
        task = asyncio.create_task(self.fetch(asked, source))
        self.flying[key] = task
        task.add_done_callback(lambda _: self.flying.pop(key, None))
        if not self.is_proved:
            await self.prove(task)
        return task

    async def prove(self, first: Pending) -> None:
        """The first call goes alone: a wrong key, a wrong address, or a server that takes no schema, which is raised,
        costs one refusal, not one for every slot."""
        await asyncio.wait([first])
        if error := first.exception():
            raise error
        result = first.result()
        if isinstance(result, Fault) and result.code == "llm_failed":
            self.fatal = self.fatal or Fatal(result.message)
            self.stopping.set()
        self.is_proved = True

    def known(self, asked: Question) -> Found | None:
        """The meaning of a kept answer; it is read again, for the checks may be newer than the answer."""
        found = self.answers.get(asked.request.key)
        try:
            return Found(meaning_of(answer_of(found), asked), asked.request.key) if found else None
        except ValueError:
            return None

    def is_unfit(self, key: str) -> bool:
        """Whether an answer is there that can not be used: a batch may bring such ones, for nobody reads them there."""
        if found := self.answers.get(key):
            self.unfit[key] = answer_of(found)
        return found is not None

    async def check(self) -> None:
        """Stop the run if nothing will ever be answered; calls under way may end, for they are paid for."""
        if self.fatal:
            if self.flying:
                await asyncio.wait(list(self.flying.values()))
            raise self.fatal

    async def fetch(self, asked: Question, source: str) -> Result:
        """One row's answer, kept before it counts. Failures are results, so that no task dies unheard; but for one of
        the first call, which is waited for."""
        key = asked.request.key
        try:
            if known := await self.lease(asked):
                return known
            try:
                answer, value = await self.usable(asked)
                self.answers.put(key, self.entry(answer, asked.request, source))
            finally:
                self.leases.give_back(key)
        except Unusable as failure:
            self.failed[key] = failure.fault
            self.lost_in_a_row += failure.fault.code == "llm_failed"
            return self.failed[key]
        except (Fatal, schema.Failure) as error:
            self.fatal = self.fatal or error
            self.stopping.set()
            return Fault("llm_failed", "the run was stopped")
        self.lost_in_a_row = 0
        self.counts["answered"] += 1
        return Found(value, key)

    async def lease(self, asked: Question) -> Found | None:
        """Make the request ours, or wait for the run that asks for it and take its answer."""
        while not self.leases.take(asked.request.key):
            self.counts["waited"] += 1
            await asyncio.sleep(LOOK_AGAIN)
            if self.stopping.is_set():
                raise Unusable("llm_failed", "the run was stopped")
        # Whoever held it has put its answer into the cache before it let go.
        if known := self.known(asked):
            self.leases.give_back(asked.request.key)
            self.counts["cached"] += 1
        return known

    async def usable(self, asked: Question) -> tuple[Answer, Any]:
        """An answer with its meaning; one that has none is asked for once more, with what was wrong."""
        key = asked.request.key
        unfit = self.unfit.pop(key, None)
        answer = unfit or await self.first_answer(asked.request)
        try:
            return answer, meaning_of(answer, asked)
        except ValueError as fault:
            if unfit:
                self.answers.drop(key)  # whatever comes of it, it has had its turn
            if answer.finish == "refusal":
                raise Unusable("llm_refused", f"{fault}: {answer.text[:RAW]!r}") from None
            answer = await self.patiently(once_more(asked.request, answer, str(fault)), key)
        try:
            return answer, meaning_of(answer, asked)
        except ValueError as fault:
            if answer.finish == "refusal":
                raise Unusable("llm_refused", f"{fault}: {answer.text[:RAW]!r}") from None
            message = f"two answers could not be used; {fault}: {answer.text[:RAW]!r}"
            code = fault.code if isinstance(fault, BadAnswer) else "llm_bad_answer"
            raise Unusable(code, message) from None

    async def first_answer(self, request: Request) -> Answer:
        """An answer out of a call for several rows if there are such; else from a call of its own."""
        if self.groups and not request.images:
            try:
                if answer := await self.groups.answer(request):
                    return answer
            except Unusable as failure:
                if failure.fault.code not in ("llm_invalid_request", "llm_refused"):
                    raise
        return await self.patiently(request, request.key)

    async def patiently(self, request: Request, key: str) -> Answer:
        """One answer, with as many attempts as it is worth."""
        failures = limited = 0
        while True:
            try:
                answer = await self.attempt(request, key, again=failures + limited > 0)
            except Refused as error:
                if isinstance(error, Unstructured) and not self.is_proved:
                    raise
                raise Unusable("llm_invalid_request", f"the provider does not take it: {error}") from None
            except Spent as error:
                raise Unusable("llm_unpaid", f"--max-usd {self.service.max_usd:g}: {error}") from None
            except Transient as error:
                failures, limited = failures + (not error.limited), limited + error.limited
                spent = failures > self.service.retries or limited > MOST_LIMITED
                if spent or (error.wait or 0) > LONGEST_RETRY_AFTER:
                    raise Unusable("llm_failed", f"no answer after {failures + limited} attempts: {error}") from None
                await self.rest(error.wait, failures + limited)
                continue
            return answer

    async def attempt(self, request: Request, key: str, again: bool) -> Answer:
        """One call in its turn, on the bill."""
        entered = await self.gate.enter(first=again)
        worst = self.price.worst(request) if self.price else 0.0
        held = paid = 0.0
        try:
            self.may_go_on()
            await self.purse.hold(worst)
            held = worst
            await self.pause(self.paces.wait(likely_tokens(request) + request.max_tokens))
            self.may_go_on()
            paid = worst  # until we know better: a call that breaks off may be charged all the same
            answer = await self.call(request, entered)
            paid = self.price.of(answer) if self.price else 0.0
            self.write_bill(key, answer, paid)
            return answer
        except (Transient, Refused, Fatal) as error:
            lost = isinstance(error, Transient) and error.lost
            paid = worst if lost else 0.0
            self.receipts.charge(key, Bill(1, usd=paid, lost=int(lost)))
            raise
        finally:
            self.purse.settle(held, paid)
            self.gate.leave()

    def may_go_on(self) -> None:
        if self.stopping.is_set():
            raise Unusable("llm_failed", "the run was stopped")
        if self.lost_in_a_row >= GIVE_UP_AFTER:
            raise Unusable("llm_failed", f"not tried any more: the last {self.lost_in_a_row} requests got no answer")

    async def call(self, request: Request, entered: int) -> Answer:
        self.provider = self.provider or self.connect()
        self.counts["calls"] += 1
        caller = asyncio.current_task()
        assert caller, "this is a coroutine"
        self.calling.add(caller)
        try:
            answer, headers = await self.provider.call(request)
        except Transient as error:
            self.gate.saw(error.limited, entered)
            self.paces.hear(error.headers)
            self.counts["limited"] += error.limited
            raise
        finally:
            self.calling.discard(caller)
        self.gate.saw(False, entered)
        if self.counts["calls"] % LISTEN == 1:
            self.paces.hear(headers)
        return answer

    def write_bill(self, key: str, answer: Answer, paid: float) -> None:
        self.receipts.charge(key, Bill(1, answer.input_tokens, answer.output_tokens, answer.cached_tokens, paid))
        self.counts["input_tokens"] += answer.input_tokens
        self.counts["output_tokens"] += answer.output_tokens

    async def rest(self, wait: float | None, attempt: int) -> None:
        """Wait as long as the provider asked, or longer each time; a little by chance, so that rows part company."""
        own = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)
        await self.pause(own if wait is None else wait + random.uniform(0, min(1.0, 0.1 + wait * 0.1)))

    async def pause(self, seconds: float) -> None:
        """So many seconds, or until the run is stopped."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    def entry(self, answer: Answer, request: Request, source: str) -> dict[str, Any]:
        """What the cache keeps of an answer."""
        bill = self.receipts.bills[request.key]
        return kept(answer, request, source, bill.usd if self.price else None, bill.calls)

    async def close(self) -> None:
        """Let the calls under way come to their end, for they are paid for; the others see that they never begin."""
        self.stopping.set()
        if self.calling:
            schema.log(f"waiting for {len(self.calling):,} calls under way; Ctrl-C once more drops them")
        await asyncio.gather(*self.flying.values(), return_exceptions=True)
        if self.provider:
            await self.provider.client.close()
