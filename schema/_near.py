"""Which records say the same: equal code, equal description, one group, or nearly the same code.

linked = schema.links(schema.read("train.jsonl", reject))
marks = schema.marks(records)
sides = schema.sides(marks, lambda number: int(schema.share(marks.key(number), seed=42) < 0.1))
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from schema._marks import FIELDS, Marks, MarkWriter
from schema._record import Record

if TYPE_CHECKING:
    from schema._normal import Array

# A family of thousands that are alike, but not enough, would be compared each with each: of a band that many share only
# the newest are. A copy of an old one is found all the same, because it shares the bands that make that one different.
_NEWEST, _COMPARED = 32, 64
# A glance at a sketch costs a hundredth of that: of a band that fewer share all pairs get one, so many at once.
_GLANCED, _PAIRS = 256, 20_000
_THREADS = 2  # each more holds a band of all records while it sorts them


class Link(NamedTuple):
    """An earlier record that says the same as this one."""

    earlier: int  # its position
    field: str  # "code" | "description" | "near" | "group"; "both" where only equal code and description count
    similarity: float  # 1.0 unless near: the true similarity of the two, never an estimate


class Bridge(NamedTuple):
    """A record that may stand on no side: it says the same as earlier records on two of them."""

    one: Link
    other: Link


class Finder:
    """Finds, among the records that were added so far, those that say the same as another one."""

    def __init__(self, marks: Marks, fields: Sequence[str] = (*FIELDS, "near"), among: Iterable[int] | None = None):
        """`among` are the records that will be asked for or added, in about their order; all, if it is not said."""
        import numpy

        self._marks = marks
        self._fields = [field for field in fields if field != "near"]
        numbers = numpy.fromiter(range(len(marks)) if among is None else among, numpy.int64)
        chosen = numpy.zeros(len(marks), bool)
        chosen[numbers] = True
        self._exact = [_numbered(numpy.where(chosen, _column(marks, field), 0)) for field in self._fields]
        self._first: dict[tuple[int, int, int], int] = {}
        self._near = marks.near if "near" in fields else None
        some: Any = numpy.zeros(len(marks), bool)
        for column in self._exact:
            some |= column >= 0
        if self._near is not None:
            self._twin, self._buckets = _buckets(marks, numbers)
            shared: Any = (self._buckets >= 0).any(axis=1)
            self._some = shared
            some |= shared[self._twin]
        self._alone: bytes = (~some).tobytes()
        self._members: dict[int, dict[int, list[int]]] = {}

    def is_alone(self, number: int) -> bool:
        """Nobody says the same: there is nothing to find, and nobody who could find it."""
        return self._alone[number] == 1

    def find(self, number: int, label: int = 0) -> Iterator[Link]:
        """The records added under this label that say the same: the first for each equal mark, then the near ones."""
        for place, field in enumerate(self._fields):
            value = int(self._exact[place][number])
            if value >= 0 and (earlier := self._first.get((label, place, value))) is not None:
                yield Link(earlier, field, 1.0)
        if self._near is not None:
            yield from self._find_near(number, label, self._near)

    def add(self, number: int, label: int = 0) -> None:
        for place, numbers in enumerate(self._exact):
            if numbers[number] >= 0:
                self._first.setdefault((label, place, int(numbers[number])), number)
        if self._near is not None:
            twin = self._twin[number]
            members = self._members.setdefault(label, {})
            for bucket in self._shared(twin):
                others = members.setdefault(bucket, [])
                if not others or self._twin[others[-1]] != twin:
                    others.append(number)

    def _shared(self, twin: int) -> list[int]:
        """The buckets of a program that hold other programs, too."""
        if not self._some[twin]:
            return []
        return [bucket for bucket in self._buckets[twin].tolist() if bucket >= 0]

    def _find_near(self, number: int, label: int, near: float) -> Iterator[Link]:
        twin, members = self._twin[number], self._members.get(label)
        if not members:
            return
        met = [earlier for bucket in self._shared(twin) for earlier in members.get(bucket, ())[-_NEWEST:]]
        common = Counter(met)
        most = sorted(common, key=lambda other: (-common[other], other))[:_COMPARED]
        # One with the same code has a link of its own.
        others = [earlier for earlier in most if self._twin[earlier] != twin]
        likely = self._marks.may_be_near([number], others).tolist() if others else []
        for earlier in itertools.compress(others, likely):
            similarity = self._marks.similarity(number, earlier)
            if similarity >= near:
                yield Link(earlier, "near", round(similarity, 4))


def marks(records: Iterable[Record], *, near: float | None = 0.7, normalise: str = "alpha") -> Marks:
    """Read the records once; near=None leaves out what is only nearly the same."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        path = Path(folder, "marks")
        with MarkWriter(path, near, normalise) as writer:
            for record in records:
                writer.add(record)
        return Marks([path], near)  # its file stays open, and is gone when it is closed


def links(records: Iterable[Record], *, near: float | None = 0.7, normalise: str = "alpha") -> list[list[Link]]:
    """For each record the earlier ones that say the same; for an equal mark the first one with that mark."""
    found = marks(records, near=near, normalise=normalise)
    finder, linked = Finder(found), []
    for number in range(len(found)):
        linked.append(list(finder.find(number)))
        finder.add(number)
    return linked


def sides(marks: Marks, choose: Callable[[int], int], numbers: Iterable[int] | None = None) -> list[int | Bridge]:
    """The side of each record: that of the earlier ones that say the same; for a record without such, `choose` decides.

    A side depends on earlier records alone, so a file that grows moves none of its old records. A record that says
    the same as records on two sides gets the Bridge between them; it takes part in nothing that follows.
    """
    chosen = range(len(marks)) if numbers is None else list(numbers)
    finder, assigned, used = Finder(marks, among=chosen), list[int | Bridge](), set[int]()
    for number in chosen:
        if finder.is_alone(number):
            side = choose(number)
            used.add(side)
            assigned.append(side)
            continue
        found = {side: link for side in sorted(used) if (link := next(finder.find(number, side), None))}
        if len(found) > 1:
            one, other = list(found.values())[:2]
            assigned.append(Bridge(one, other))
            continue
        side = next(iter(found)) if found else choose(number)
        used.add(side)
        finder.add(number, side)
        assigned.append(side)
    return assigned


def _column(marks: Marks, field: str) -> Array:
    import numpy

    if field != "both":
        return marks.exact[:, FIELDS.index(field)]
    code, description = marks.exact[:, 0], marks.exact[:, 1]
    return code ^ (description * numpy.uint64(0x9E3779B97F4A7C15))


def _numbered(values: Array) -> Array:
    """A number for each value that stands more than once; -1 for the others, and for 0."""
    import numpy

    order = numpy.argsort(values, kind="stable")
    ordered = values[order]
    starts = numpy.ones(len(ordered), bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    alone = starts.copy()
    alone[:-1] &= starts[1:]
    numbers = numpy.empty(len(values), numpy.int32)
    numbers[order] = numpy.where(alone | (ordered == 0), -1, numpy.cumsum(starts) - 1)
    return numbers


def _buckets(marks: Marks, numbers: Array) -> tuple[Array, Array]:
    """For each record the first one with its code, and for each of those the bands that it shares with others.

    Copies share all their bands, and finding them is no news: only one of them stands in the buckets.
    """
    import numpy

    _, first, code = numpy.unique(marks.exact[numbers, 0], return_index=True, return_inverse=True)
    twin = numpy.arange(len(marks), dtype=numpy.int32)
    twin[numbers] = numbers[first][code]
    alone = numbers[numpy.sort(first)]
    buckets = numpy.full(marks.bands.shape, -1, numpy.int32)

    def fill(band: int) -> None:
        shared = _numbered(marks.bands[alone, band])
        _leave_chance(marks, alone, shared)
        buckets[alone, band] = numpy.where(shared < 0, -1, shared + band * len(alone))

    # Most of the time is spent in numpy, which lets another thread run meanwhile.
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(fill, range(marks.bands.shape[1])))
    return twin, buckets


def _leave_chance(marks: Marks, records: Array, buckets: Array) -> None:
    """Take records out of a bucket, by -1, where nobody in it is alike: most are there by chance.

    Each is compared with each there; where they are many, with the newest before it and the first behind it.
    """
    import numpy

    (order,) = numpy.nonzero(buckets >= 0)
    order = order[numpy.argsort(buckets[order], kind="stable")]
    ordered, likely = buckets[order], numpy.zeros(len(order), bool)
    few = numpy.bincount(ordered, minlength=1)[ordered] <= _GLANCED
    for step in range(1, _GLANCED):
        same = ordered[step:] == ordered[:-step]
        (places,) = numpy.nonzero(same if step <= _NEWEST else same & few[step:])
        if not len(places):
            break
        for some in numpy.array_split(places, len(places) // _PAIRS + 1):
            found = some[marks.may_be_near(records[order[some]], records[order[some + step]])]
            likely[found] = likely[found + step] = True
    buckets[order[~likely]] = -1
