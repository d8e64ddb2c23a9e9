"""Which side each record falls on: decided by what stands before it, so that what is appended moves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import schema
from schema import Fault, Link, Marks, Record

SIDES = ("train", "valid", "test")

# The words that published sets use in the column that names their own split.
_UPSTREAM = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "held_out", "heldout"),
}


class Facts(NamedTuple):
    """What is known of a record when nothing before it says the same."""

    group: str | None = None
    stratum: tuple[str, ...] = ()
    upstream: int | None = None


class Clash(NamedTuple):
    """Why a record can stand on no side: what it has in common with records that are elsewhere."""

    code: str
    links: tuple[Link, ...]


Placement = list[int | Clash]


class Tally:
    """How many records of each stratum stand on each side so far, and what that means for the next one."""

    def __init__(self, ratios: Sequence[float], *, exact: bool):
        self.ratios, self.exact = ratios, exact
        self.wanted = [side for side, ratio in enumerate(ratios) if ratio]
        self.counts: dict[tuple[str, ...], list[int]] = {}

    def of(self, stratum: tuple[str, ...]) -> list[int]:
        return self.counts.setdefault(stratum, [0] * len(self.ratios))

    def choose(self, share: float, stratum: tuple[str, ...]) -> int:
        """The side of the share, unless another one is still empty or, when exact, has fallen behind.

        Only what stands before is counted: the record that fills an empty side stays there, whatever follows.
        """
        counts, natural = self.of(stratum), side_of(share, self.ratios)
        total = sum(counts) + 1
        lacking = {side: self.ratios[side] / 100 * total - counts[side] for side in self.wanted}
        empty = [side for side in self.wanted if not counts[side]]
        if empty:
            return natural if natural in empty else max(empty, key=lambda side: lacking[side])
        if self.exact and lacking[natural] <= 0:
            return max(self.wanted, key=lambda side: lacking[side])
        return natural


def side_of(share: float, ratios: Sequence[float]) -> int:
    """The side whose stretch of [0, 1) holds the share."""
    end = 0.0
    for side, ratio in enumerate(ratios):
        end += ratio / 100
        if share < end:
            return side
    return max(side for side, ratio in enumerate(ratios) if ratio)


def assign(
    marks: Marks, facts: Sequence[Facts], ratios: Sequence[float], seed: int, *, exact: bool = False
) -> Placement:
    """The side of each record: that of what says the same before it, else that of a share of its own.

    The marks may begin with the records of benchmarks, for which there are no facts: what says the same as one of
    them stands on no side, and takes part in nothing that follows; nor does what is pulled to two sides.
    """
    finder, tally = schema.Finder(marks), Tally(ratios, exact=exact)
    first = len(marks) - len(facts)
    for number in range(first):
        finder.add(number, _BENCHMARK)
    placement: Placement = []
    for number, fact in enumerate(facts, first):
        if hits := list(finder.find(number, _BENCHMARK)):
            placement.append(Clash("in_benchmark", tuple(hits[:1])))
            continue
        ties = {side: link for side in range(len(ratios)) if (link := next(finder.find(number, side), None))}
        side = fact.upstream
        if side is None:
            side = min(ties) if ties else tally.choose(_share(marks, number, fact.group, seed), fact.stratum)
        if against := [link for tied, link in ties.items() if tied != side]:
            placement.append(_clash(ties, against, fact))
            continue
        finder.add(number, side)
        tally.of(fact.stratum)[side] += 1
        placement.append(side)
    return placement


_BENCHMARK = -1


def _clash(ties: dict[int, Link], against: list[Link], fact: Facts) -> Clash:
    if fact.upstream is None:
        return Clash("bridges_sides", tuple(ties.values())[:2])
    return Clash("split_conflict", tuple(against[:1]))


def _share(marks: Marks, number: int, group: str | None, seed: int) -> float:
    # The prefix: a train side that prepare_data.py split off with the same seed has lost all low shares.
    # The group: all of its records fall on one side in other files, too.
    return schema.share(f"split_data group {group}" if group else f"split_data {marks.key(number)}", seed)


def value_of(record: Record, key: str) -> str | None:
    """What stands under a key of the metadata (or the source), as text."""
    value = record["source"] if key == "source" else record["metadata"].get(key.removeprefix("metadata."))
    return None if value in (None, "") else str(value)


def upstream_side(record: Record, key: str | None, sides: int) -> int | Fault | None:
    """The side that the record came with; of two sides, valid and test are the same one."""
    value = value_of(record, key) if key else None
    if value is None:
        return None
    word = value.strip().lower().replace("-", "_")
    for side, words in zip(SIDES, _UPSTREAM.values(), strict=True):
        if word in words:
            return min(SIDES.index(side), sides - 1)
    return Fault("unknown_split", f"its {key} is {value!r}, which is no word for train, valid or test")


def bond(link: Link) -> str:
    """What links a record to another one, as the start of a sentence that ends with the other's name."""
    return f"is {link.similarity:.2f} like" if link.field == "near" else f"has the {link.field} of"
