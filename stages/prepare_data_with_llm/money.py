"""What calls cost: the price table, a purse that can not be overdrawn, and the receipts."""

import asyncio
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from stages.prepare_data_with_llm.questions import Answer, Request

BATCH = 0.5  # what both batch services charge of the usual price
IMAGE = 50_000  # tokens that one image can cost at most; the dearest model takes 48,000
FRAME = 100  # tokens around the texts of a request, generously
TABLE = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}  # names in the price table


class Rates(NamedTuple):
    """Dollars for a million tokens."""

    input: float
    output: float
    cached: float
    stored: float


class Tier(NamedTuple):
    """Rates of requests that read at least so many tokens."""

    start: int
    rates: Rates


@dataclass(frozen=True)
class Price:
    """What a model costs, and where that stands."""

    tiers: tuple[Tier, ...]
    source: str

    def of(self, answer: Answer, share: float = 1.0) -> float:
        """The dollars that an answer cost; `share` is what a batch costs of it."""
        rates = self.at(answer.input_tokens)
        plain = answer.input_tokens - answer.cached_tokens - answer.stored_tokens
        parts = (
            plain * rates.input
            + answer.cached_tokens * rates.cached
            + answer.stored_tokens * rates.stored
            + answer.output_tokens * rates.output
        )
        return parts * share / 1e6

    def tokens(self, read: float, written: float, share: float = 1.0) -> float:
        """The dollars for so many tokens at the usual rates."""
        rates = self.at(0)
        return (read * rates.input + written * rates.output) * share / 1e6

    def worst(self, request: Request, share: float = 1.0) -> float:
        """The most that one call can cost."""
        read = most_tokens(request)
        rates = self.at(read)
        dearest = max(rates.input, rates.stored)
        return (read * dearest + request.max_tokens * rates.output) * share / 1e6

    def at(self, tokens: int) -> Rates:
        return next(tier.rates for tier in reversed(self.tiers) if tokens >= tier.start)


def most_tokens(request: Request) -> int:
    """More tokens than a request can be: no tokeniser makes more than one of a byte."""
    texts = len(request.system.encode(errors="replace")) + len(request.user.encode(errors="replace"))
    return texts + schema_size(repr(request.schema)) + IMAGE * len(request.images) + FRAME


@cache
def schema_size(text: str) -> int:
    return len(text.encode(errors="replace"))


def likely_tokens(request: Request) -> int:
    """About as many tokens as a request is: four characters are one."""
    return (len(request.system) + len(request.user) + schema_size(repr(request.schema))) // 4 + 10


def price_of(provider: str, model: str, told: tuple[float, float] | None) -> Price | None:
    """What a model costs by --price or by the price table; None if nobody knows, which is not the same as nothing."""
    if told:
        rates = Rates(told[0], told[1], told[0], told[0])
        return Price((Tier(0, rates),), f"--price {told[0]:g},{told[1]:g}")
    from importlib.metadata import version

    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_id=TABLE[provider])
    except LookupError:
        return None
    prices = found.model_price.__dict__
    read, written = prices.get("input_mtok"), prices.get("output_mtok")
    if read is None or written is None:
        return None
    table = (read, written, prices.get("cache_read_mtok") or read, prices.get("cache_write_mtok") or read)
    starts = sorted({0, *(tier.start for rate in table for tier in getattr(rate, "tiers", ()))})
    tiers = tuple(Tier(start, Rates(*(at_start(rate, start) for rate in table))) for start in starts)
    return Price(tiers, f"genai-prices {version('genai-prices')} for {found.model.id}")


def at_start(rate: Any, start: int) -> float:
    """A rate of the table for requests of this size."""
    value = getattr(rate, "base", rate)
    for tier in getattr(rate, "tiers", ()):
        if start >= tier.start:
            value = tier.price
    return float(value)


class Spent(Exception):
    """The next call might cost more than there is left."""


@dataclass
class Purse:
    """How much may be spent; a call is paid for at its worst before it begins."""

    most: float | None
    spent: float = 0.0
    held: float = 0.0
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self, worst: float) -> None:
        """Set the worst case of a call aside; waits for calls under way if they may leave enough."""
        while self.most is not None and self.spent + self.held + worst > self.most:
            if self.held <= 0:
                raise Spent(f"a call may cost ${worst:.4f}, and ${self.most - self.spent:.4f} are left")
            self.freed.clear()
            await self.freed.wait()
        self.held += worst

    def settle(self, worst: float, paid: float) -> None:
        """A call is over and cost this much."""
        self.held = max(0.0, self.held - worst) if self.held - worst > 1e-12 else 0.0
        self.spent += paid
        self.freed.set()


@dataclass(slots=True)
class Bill:
    """What was paid for one request in this run."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    usd: float = 0.0
    lost: int = 0  # calls that broke off and may have been charged all the same

    def plus(self, other: "Bill") -> "Bill":
        return Bill(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:.4f}" if amount < 1 else f"${amount:,.2f}"
