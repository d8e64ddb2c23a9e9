"""Asks by the providers' batch services, at half the price: what is sent is on the disk before it is sent, so that
nothing is paid for twice, whenever a run ends.

A batch is a file in the cache folder from before it is sent until its answers are in the cache.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

import schema
from schema import Fault
from stages.prepare_data_with_llm.answers import Answers
from stages.prepare_data_with_llm.batch_services import SERVICES, Batches, Line
from stages.prepare_data_with_llm.money import BATCH, Bill, Price, dollars
from stages.prepare_data_with_llm.outcomes import kept
from stages.prepare_data_with_llm.providers import Fatal, Provider, Refused, Transient
from stages.prepare_data_with_llm.questions import Request
from stages.prepare_data_with_llm.receipts import Receipts

MOST_REQUESTS, MOST_BYTES = 20_000, 90_000_000  # of one batch; both providers take more
ROUNDS = 2  # a request that a batch leaves open is sent once more
FIRST_LOOK, LONGEST_LOOK = 1.0, 60.0  # seconds between two looks at a batch
ATTEMPTS = 5  # at looking; sending is never repeated, for the first attempt may have arrived
T = TypeVar("T")


@dataclass
class Sent:
    """A batch that was sent, or was about to be."""

    name: str
    provider: str
    host: str
    model: str
    task: str
    created: float
    usd: float | None  # what it can cost at most
    rows: dict[str, tuple[str, str]]  # id of the request in the batch -> its key, the source of its row
    id: str | None = None


@dataclass
class Outcome:
    """What the batches of a run brought."""

    failed: dict[str, Fault] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    spent: float = 0.0


def under_way(folder: Path, host: str | None = None) -> list[Sent]:
    """The open batches of a cache folder."""
    found = [msgspec.json.decode(path.read_bytes(), type=Sent) for path in sorted((folder / "batches").glob("*.json"))]
    return [sent for sent in found if host in (None, sent.host)]


def keys_under_way(folder: Path) -> set[str]:
    return {key for sent in under_way(folder) for key, _ in sent.rows.values()}


class Batching:
    """The batches of one cache folder at one provider; lives inside one event loop."""

    def __init__(
        self, provider: Provider, host: str, answers: Answers, receipts: Receipts, price: Price | None
    ) -> None:
        self.provider, self.host, self.answers, self.price = provider, host, answers, price
        self.service: Batches = SERVICES[provider.name](provider)
        self.receipts = receipts
        self.folder = answers.folder / "batches"
        self.outcome = Outcome()

    async def run(self, wanted: dict[str, tuple[Request, str]], most_usd: float | None, wait: bool) -> None:
        """Send what is wanted and not yet answered or under way; with `wait` until all is answered or given up."""
        await self.collect(wait=False)
        for _ in range(ROUNDS):
            flying = keys_under_way(self.answers.folder)
            missing = {
                key: asked
                for key, asked in wanted.items()
                if not (key in flying or key in self.outcome.failed or self.answers.get(key))
            }
            for part in parts(self.affordable(missing, most_usd)):
                await self.send(part)
            if not wait:
                return
            if not under_way(self.answers.folder, self.host):
                return
            await self.collect(wait=True)

    def affordable(
        self, wanted: dict[str, tuple[Request, str]], most_usd: float | None
    ) -> dict[str, tuple[Request, str]]:
        """As many requests as --max-usd pays for at their worst; batches under way are paid for already."""
        if most_usd is None or self.price is None:
            return wanted
        left = most_usd - self.outcome.spent
        left -= sum(sent.usd or 0.0 for sent in under_way(self.answers.folder, self.host))
        taken = {}
        for key, asked in wanted.items():
            worst = self.price.worst(asked[0], BATCH)
            if worst <= left:
                left -= worst
                taken[key] = asked
            else:
                words = f"--max-usd {most_usd:g}: it may cost {dollars(worst)}, and {dollars(left)} are left"
                self.outcome.failed[key] = Fault("llm_unpaid", words)
        return taken

    async def send(self, part: dict[str, tuple[Request, str]]) -> None:
        first = next(iter(part.values()))[0]
        worst = sum(self.price.worst(request, BATCH) for request, _ in part.values()) if self.price else None
        rows = {key[:48]: (key, source) for key, (_, source) in part.items()}
        sent = Sent(secrets.token_hex(8), first.provider, first.host, first.model, first.task, time.time(), worst, rows)
        bodies = {key[:48]: self.provider.shape.body(request) for key, (request, _) in part.items()}
        self.save(sent)
        try:
            sent.id = await self.provider.guarded(self.service.send(sent.name, bodies))
        except (Fatal, Refused) as error:
            self.path(sent).unlink()
            raise Fatal(str(error)) from None
        except Transient as error:
            if not error.lost:
                self.path(sent).unlink()
            raise schema.Failure(
                f"a batch of {len(rows):,} requests may or may not have been sent: {error}; "
                "the same command looks for it first"
            ) from None
        self.save(sent)
        schema.log(f"batch {sent.id}: {len(rows):,} requests sent")

    async def collect(self, wait: bool) -> None:
        """Take the answers of the batches that have ended; with `wait` of all."""
        pause = FIRST_LOOK
        while True:
            for sent in under_way(self.answers.folder, self.host):
                await self.look(sent)
            if not wait or not under_way(self.answers.folder, self.host):
                return
            await asyncio.sleep(pause)
            pause = min(LONGEST_LOOK, pause * 1.5)

    async def look(self, sent: Sent) -> None:
        if sent.id is None and not await self.adopt(sent):
            return
        assert sent.id, "it was found"
        ended, state = await self.patiently(lambda: self.service.state(str(sent.id)))
        schema.log(f"batch {sent.id}: {state}", level=1)
        if not ended:
            return
        before = Counter(self.outcome.reasons)
        answered = 0
        for line in await self.patiently(lambda: self.service.lines(str(sent.id))):
            answered += self.take(sent, line)
        left = len(sent.rows) - answered
        reasons = "; ".join(f"{count:,} {words}" for words, count in (self.outcome.reasons - before).most_common(3))
        schema.log(f"batch {sent.id}: {state}; {answered:,} answered, {left:,} not" + (f" ({reasons})" * bool(reasons)))
        self.path(sent).unlink()

    async def adopt(self, sent: Sent) -> bool:
        """A run ended between sending a batch and writing down its id: look whether it arrived."""
        taken = {other.id for other in under_way(self.answers.folder) if other.id}
        sent.id = await self.patiently(lambda: self.service.find(sent.name, sent.created, len(sent.rows), taken))
        if sent.id is None:
            schema.log(f"a batch of {len(sent.rows):,} requests never arrived; they are sent again")
            self.path(sent).unlink()
            return False
        schema.log(f"batch {sent.id}: found again")
        self.save(sent)
        return True

    def take(self, sent: Sent, line: Line) -> bool:
        """Keep one answer of a batch; whether it is one."""
        if line.id not in sent.rows:
            return False
        key, source = sent.rows[line.id]
        if line.body is None:
            self.outcome.reasons[line.problem] += 1
            if line.is_final:
                self.outcome.failed[key] = Fault(
                    "llm_invalid_request", f"the provider does not take it: {line.problem}"
                )
            return False
        request = Request(sent.task, sent.provider, sent.host, sent.model, "", "", {}, 0)
        answer = self.provider.shape.read(line.body, request)
        usd = self.price.of(answer, BATCH) if self.price else None
        self.outcome.spent += usd or 0.0
        bill = Bill(1, answer.input_tokens, answer.output_tokens, answer.cached_tokens, usd or 0.0)
        self.receipts.charge(key, bill)
        # Also what is no answer: the run that writes the rows rejects it with its words, or asks once more.
        self.answers.put(key, kept(answer, request, source, usd, 1))
        if answer.finish == "stop":
            self.outcome.answered += 1
            return True
        words = "the model declined" if answer.finish == "refusal" else "it was cut off at the limit of tokens"
        self.outcome.reasons[words] += 1
        return False

    async def patiently(self, look: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.provider.guarded(look())
            except Transient as error:
                if attempt == ATTEMPTS:
                    raise schema.Failure(f"the batches can not be looked at: {error}") from None
                await asyncio.sleep(error.wait or attempt)
            except Refused as error:
                raise Fatal(str(error)) from None
        raise AssertionError("the last attempt raises")

    def path(self, sent: Sent) -> Path:
        return self.folder / f"{sent.name}.json"

    def save(self, sent: Sent) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with schema.atomic(self.path(sent)) as file:
            file.write(schema.canonical(asdict(sent)))


def parts(wanted: dict[str, tuple[Request, str]]) -> Iterator[dict[str, tuple[Request, str]]]:
    """Requests in batches of a size that the providers take."""
    part: dict[str, tuple[Request, str]] = {}
    size = 0
    for key, (request, source) in wanted.items():
        length = 4 * (len(request.system) + len(request.user)) + sum(map(len, request.images)) + 2000
        if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = (request, source)
        size += length
    if part:
        yield part
