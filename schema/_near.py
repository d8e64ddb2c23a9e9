"""Which records say the same: equal code, equal description, one group, or nearly the same code.

linked = schema.links(schema.read("train.jsonl", reject))
marks = schema.marks(records)
sides = schema.sides(marks, lambda number: int(schema.share(marks.key(number), seed=42) < 0.1))
"""

from __future__ import annotations

import copy
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from schema import _normal
from schema._identity import description_fingerprint
from schema._record import Record, sha256
from schema._sketch import BANDS, BINS, bands, bins, least_agreement, runs, signs

if TYPE_CHECKING:
    from schema._normal import Array

FIELDS = ("code", "description", "group")
# So many programs are read together: enough for numpy, and few enough for the caches of the processor.
_BATCH = 256
# A family of thousands that are alike, but not enough, would be compared each with each: of a band that many share only
# the newest are. A copy of an old one is found all the same, because it shares the bands that make that one different.
_NEWEST, _COMPARED = 32, 64


class Link(NamedTuple):
    """An earlier record that says the same as this one."""

    earlier: int  # its position
    field: str  # "code" | "description" | "near" | "group"; "both" where only equal code and description count
    similarity: float  # 1.0 unless near: the true similarity of the two, never an estimate


class Bridge(NamedTuple):
    """A record that may stand on no side: it says the same as earlier records on two of them."""

    one: Link
    other: Link


class Marked(NamedTuple):
    """What `Marks` must know of some records, as the bytes of its files."""

    exact: bytes
    bands: bytes
    signs: bytes
    runs: bytes


class Marker:
    """Works out what `Marks` must know of each record; in any process, for any part of the records."""

    def __init__(self, near: float | None, normalise: str):
        self._near, self._normalise = near, normalise
        self._programs: list[_normal.Program] = []
        self._others: list[list[int]] = []

    def __len__(self) -> int:
        return len(self._programs)

    def add(self, record: Record) -> None:
        self._programs.append(_normal.read(record["code"]))
        self._others.append(_other_marks(record))

    def take(self) -> Marked:
        """What was added since the last time; all at once, because numpy is quick with many."""
        programs, others = self._programs, self._others
        self._programs, self._others = [], []
        if not programs:
            return Marked(b"", b"", b"", b"")
        import numpy

        sequences = _normal.normal(programs)
        exact = array("Q")
        for fingerprint, other in zip(_normal.fingerprints(programs, sequences), others, strict=True):
            exact.extend([_mark(fingerprint), *other])
        if self._near is None:
            return Marked(exact.tobytes(), b"", b"", b"")
        hashes, counts = runs(sequences, self._normalise)
        sketch = bins(hashes, counts)
        # The number of runs stands beside the bands.
        found = numpy.column_stack([counts.astype(numpy.uint32), bands(sketch, counts)])
        parts = exact, found, signs(sketch), hashes.astype(numpy.uint32)
        return Marked(*(part.tobytes() for part in parts))


class MarkWriter:
    """Writes down of each record what `Marks` must know of it; in several processes, some files each."""

    def __init__(self, path: Path, near: float | None, normalise: str):
        self._files = [Path(f"{path}.{name}").open("wb") for name in Marked._fields]  # noqa: SIM115  see __exit__
        self._marker = Marker(near, normalise)

    def __enter__(self) -> MarkWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write(self._marker.take())
        for file in self._files:
            file.close()

    def add(self, record: Record) -> None:
        self._marker.add(record)
        if len(self._marker) >= _BATCH:
            self.write(self._marker.take())

    def write(self, marked: Marked) -> None:
        """What a Marker took, of the records that follow."""
        for file, data in zip(self._files, marked, strict=True):
            file.write(data)


class Marks:
    """What is known of each record of some files that a MarkWriter wrote; it holds no record."""

    def __init__(self, paths: Sequence[Path], near: float | None):
        import numpy

        self.near = near
        self.exact = numpy.concatenate([_table(path, "exact", numpy.uint64, len(FIELDS)) for path in paths])
        sketches = [_table(path, "bands", numpy.uint32, BANDS + 1) for path in paths]
        self.bands = numpy.concatenate([sketch[:, 1:] for sketch in sketches])
        self.signs = numpy.concatenate([_table(path, "signs", numpy.uint8, BINS) for path in paths])
        counts = [sketch[:, 0].astype(numpy.int64) for sketch in sketches]
        self.counts = numpy.concatenate(counts)
        self._starts = numpy.concatenate([numpy.cumsum(count) - count for count in counts])
        self._file = numpy.repeat(numpy.arange(len(paths)), [len(count) for count in counts])
        self._last = -1, frozenset[int]()
        self._runs: list[IO[bytes]] = [Path(f"{path}.runs").open("rb") for path in paths]  # noqa: SIM115  see close

    def __len__(self) -> int:
        return len(self.exact)

    def exactly(self) -> Marks:
        """The same, for records of which no two are near: only what is equal counts."""
        other = copy.copy(self)
        other.near = None
        return other

    def key(self, number: int) -> str:
        """What decides by chance about this record, in any file and at any place: its own code and description."""
        code, description, _ = self.exact[number].tolist()
        return f"{code:016x}{description:016x}"

    def likely(self, one: int, others: list[int], near: float) -> list[int]:
        """Those of the others that may be as near as this, by their sketches: a glance, before runs are counted."""
        agree = (self.signs[others] == self.signs[one]).sum(axis=1)
        least = BINS * least_agreement(near, int(self.counts[one]))
        return [other for other, bins in zip(others, agree.tolist(), strict=True) if bins >= least]

    def similarity(self, one: int, other: int) -> float:
        """The share of their runs that two records have in common."""
        if self._last[0] != one:  # one is compared with many in a row
            self._last = one, self._runs_of(one)
        mine, theirs = self._last[1], self._runs_of(other)
        common = len(mine & theirs)
        return common / (len(mine) + len(theirs) - common) if common else 0.0

    def runs_of(self, number: int) -> bytes:
        file = self._runs[self._file[number]]
        return os.pread(file.fileno(), int(self.counts[number]) * 4, int(self._starts[number]) * 4)

    def _runs_of(self, number: int) -> frozenset[int]:
        return frozenset(array("I", self.runs_of(number)))

    def close(self) -> None:
        for file in self._runs:
            file.close()


class Finder:
    """Finds, among the records that were added so far, those that say the same as another one."""

    def __init__(self, marks: Marks, fields: Sequence[str] = (*FIELDS, "near"), among: Sequence[int] | None = None):
        """`among` are the records that will be asked for or added; all, if it is not said."""
        import numpy

        self._marks = marks
        self._fields = [field for field in fields if field != "near"]
        chosen = numpy.zeros(len(marks), bool)
        chosen[slice(None) if among is None else numpy.array(among, numpy.int64)] = True
        self._exact = [_numbered(numpy.where(chosen, _column(marks, field), 0)) for field in self._fields]
        self._first: dict[tuple[int, int, int], int] = {}
        self._near = marks.near if "near" in fields else None
        some: Any = numpy.zeros(len(marks), bool)
        for numbers in self._exact:
            some |= numbers >= 0
        if self._near is not None:
            self._twin, self._buckets = _buckets(marks, chosen)
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
        common: Counter[int] = Counter()
        for bucket in self._shared(twin):
            common.update(members.get(bucket, ())[-_NEWEST:])
        most = sorted(common, key=lambda other: (-common[other], other))[:_COMPARED]
        # One with the same code has a link of its own.
        others = [earlier for earlier in most if self._twin[earlier] != twin]
        for earlier in self._marks.likely(number, others, near) if others else []:
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


def _other_marks(record: Record) -> list[int]:
    """A number for each of FIELDS but the code; 0 where there is nothing that could be equal."""
    description, group = record["description"], record["metadata"].get("group")
    return [
        _mark(bytes.fromhex(description_fingerprint(description))) if description.strip() else 0,
        0 if group is None else _mark(bytes.fromhex(sha256(repr(group).encode("utf-8", "surrogatepass")))),
    ]


def _mark(fingerprint: bytes) -> int:
    return int.from_bytes(fingerprint[:8], "big")


def _table(path: Path, name: str, kind: Any, width: int) -> Array:
    import numpy

    return numpy.fromfile(f"{path}.{name}", kind).reshape(-1, width)


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


def _buckets(marks: Marks, chosen: Array) -> tuple[Array, Array]:
    """For each record the first one with its code, and for each of those the bands that it shares with others.

    Copies share all their bands, and finding them is no news: only one of them stands in the buckets.
    """
    import numpy

    (numbers,) = numpy.nonzero(chosen)
    _, first, code = numpy.unique(marks.exact[numbers, 0], return_index=True, return_inverse=True)
    twin = numpy.arange(len(marks), dtype=numpy.int32)
    twin[numbers] = numbers[first][code]
    alone = numbers[numpy.sort(first)]
    buckets = numpy.full(marks.bands.shape, -1, numpy.int32)
    used = 0
    for band in range(marks.bands.shape[1]):
        numbers = _numbered(marks.bands[alone, band])
        numbers[numbers >= 0] += used
        used += len(alone)
        buckets[alone, band] = numbers
    return twin, buckets
