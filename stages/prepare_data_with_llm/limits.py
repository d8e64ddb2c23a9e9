"""How many calls may be under way, and how fast they may follow each other: what the user allows and what the
provider says, whichever is less."""

import asyncio
import re
from collections import deque
from collections.abc import Mapping

RECENT = 50  # calls that are looked at to tell a lone refusal from a limit
MANY = 0.1  # of them refused: fewer are no reason to slow everybody down, each waits for itself
MARGIN = 0.985  # of a limit that a provider names: its clock and ours are not the same
DAY = 600.0  # seconds: a limit that takes longer to be whole again is one for the day, and nothing to spread calls by


class Gate:
    """Lets so many calls be under way; fewer after many refusals, one more after each round that went well."""

    def __init__(self, width: int) -> None:
        self.most, self.width = width, float(width)
        self.active = self.peak = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.recent: deque[bool] = deque(maxlen=RECENT)
        self.round = 0  # calls of a round before the last narrowing say nothing about the new width

    async def enter(self, first: bool = False) -> int:
        """Wait for a place, the first one if it is a repeated call; gives the round."""
        if self.waiting or self.active >= int(self.width):
            place = asyncio.get_running_loop().create_future()
            (self.waiting.appendleft if first else self.waiting.append)(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.leave()
                raise
        else:
            self.take()
        return self.round

    def take(self) -> None:
        self.active += 1
        self.peak = max(self.peak, self.active)

    def leave(self) -> None:
        self.active -= 1
        while self.waiting and self.active < int(self.width):
            place = self.waiting.popleft()
            if not place.done():
                self.take()
                place.set_result(None)

    def saw(self, refused: bool, round_of_call: int) -> None:
        """Learn from the end of a call."""
        if round_of_call != self.round:
            return
        self.recent.append(refused)
        if not refused:
            self.width = min(self.most, self.width + 1 / self.width)
            return
        share = sum(self.recent) / len(self.recent)
        if len(self.recent) >= min(10, self.width) and share > MANY:
            self.width = max(1.0, self.width * max(MANY, 1 - share))
            self.round += 1
            self.recent.clear()


class Pace:
    """Spreads an amount (calls, or tokens) evenly over each minute."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next = 0.0

    def slow_to(self, per_minute: float) -> None:
        self.gap = max(self.gap, 60 / per_minute)

    def book(self, amount: float, now: float) -> float:
        """The moment at which this much may start."""
        start = max(now, self.next)
        self.next = start + amount * self.gap
        return start


class Paces:
    """The paces of calls and of tokens, as far as they are known."""

    def __init__(self, per_minute: int | None, tokens_per_minute: int | None) -> None:
        self.calls, self.tokens = Pace(per_minute), Pace(tokens_per_minute)

    def wait(self, tokens: float) -> float:
        """The seconds until a call that may use so many tokens has its turn."""
        now = asyncio.get_running_loop().time()
        return max(self.calls.book(1, now), self.tokens.book(tokens, now)) - now

    def hear(self, headers: Mapping[str, str]) -> None:
        """Keep to the limits that a provider names in the headers of an answer."""
        for pace, kind in ((self.calls, "requests"), (self.tokens, "tokens")):
            if limit := told_limit(headers, kind):
                pace.slow_to(limit * MARGIN)


def told_limit(headers: Mapping[str, str], kind: str) -> float | None:
    """What a provider allows in a minute; None if it does not say so, or speaks of a day."""
    for limit, remaining, reset in (
        (f"x-ratelimit-limit-{kind}", f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
        (f"anthropic-ratelimit-{kind}-limit", "", ""),
    ):
        try:
            most = float(headers.get(limit) or 0)
            used = most - float(headers.get(remaining) or most)
        except ValueError:
            continue
        if most > 0:
            whole_again = duration(headers.get(reset) or "") * most / used if used > 0 else 0.0
            return most if whole_again < DAY else None
    return None


def duration(text: str) -> float:
    """The seconds in "1m12.5s", "850ms" or "2"."""
    if re.fullmatch(r"[\d.]+", text):
        return float(text)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text))
