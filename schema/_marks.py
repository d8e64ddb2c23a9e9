"""What is known of each record to find those that say the same: numbers for what is equal, and a sketch of the code.

with MarkWriter(path, near=0.7, normalise="alpha") as writer:
    writer.add(record)
marks = Marks([path], near=0.7)
"""

from __future__ import annotations

import copy
import os
from array import array
from collections.abc import Sequence
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
        self._least = BINS * least_agreement(near or 1, self.counts)
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

    def may_be_near(self, ones: Any, others: Any) -> Array:
        """Which pairs are alike enough by their sketches: a glance, before runs are counted."""
        import numpy

        agree: Array = numpy.count_nonzero(self.signs[ones] == self.signs[others], axis=1)
        least: Array = numpy.minimum(self._least[ones], self._least[others])
        found: Array = agree >= least
        return found

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
