"""Rows between their reading and their place: they wait on the disk, what is decided by waits in arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

import schema
from schema import Marked, Record
from stages.prepare_data.statistics import about_tokens_of


class Part(NamedTuple):
    """Some rows of one source as the bytes of its files, in the order in which they were read."""

    records: bytes
    lengths: bytes  # of the lines of the records
    tokens: bytes  # about how many the code and the description of each record have
    rejects: bytes
    marked: Marked


class Gatherer:
    """Makes a part of rows that are judged; in any process."""

    def __init__(self, near: float | None, normalise: str):
        self._marker = schema.Marker(near, normalise)
        self._records: list[bytes] = []
        self._rejects: list[bytes] = []
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._records)

    def keep(self, record: Record) -> None:
        self._records.append(schema.encode(record) + b"\n")
        self._texts += [record["code"], record["description"]]
        self._marker.add(record)

    def reject(self, row: Record) -> None:
        self._rejects.append(schema.encode(row) + b"\n")

    def take(self) -> Part:
        """What was gathered since the last time."""
        records, rejects, texts = self._records, self._rejects, self._texts
        self._records, self._rejects, self._texts = [], [], []
        lengths = array("Q", map(len, records)).tobytes()
        tokens = array("I", about_tokens_of(texts)).tobytes()
        return Part(b"".join(records), lengths, tokens, b"".join(rejects), self._marker.take())


class SpoolWriter:
    """Where one process leaves the rows of one source, part by part, and what is known of each record."""

    def __init__(self, path: Path, near: float | None, normalise: str):
        self._files = [Path(f"{path}.{name}").open("wb") for name in Part._fields[:-1]]  # noqa: SIM115  see __exit__
        self._marks = schema.MarkWriter(path, near, normalise)

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.__exit__(kind, error, trace)
        for file in self._files:
            file.close()

    def write(self, part: Part) -> None:
        for file, data in zip(self._files, part[:-1], strict=True):
            file.write(data)
        self._marks.write(part.marked)


class Spool:
    """What a SpoolWriter left."""

    def __init__(self, path: Path):
        import numpy

        self.path = path
        self._records = Path(f"{path}.records").open("rb")  # noqa: SIM115  it is open as long as the run
        lengths = numpy.fromfile(f"{path}.lengths", numpy.uint64)
        self._starts = numpy.cumsum(lengths) - lengths
        self._tokens = numpy.fromfile(f"{path}.tokens", numpy.uint32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Record:
        self._records.seek(int(self._starts[number]))
        return _record(self._records.readline())

    def with_tokens(self) -> Iterator[tuple[Record, list[int]]]:
        """Every record, with about how many tokens its code and its description have."""
        for number, record in enumerate(self._lines("records")):
            yield record, self._tokens[number].tolist()

    def rejects(self) -> Iterator[Record]:
        return self._lines("rejects")

    def _lines(self, name: str) -> Iterator[Record]:
        with open(f"{self.path}.{name}", "rb") as lines:
            yield from map(_record, lines)


def _record(line: bytes) -> Record:
    record: Any = msgspec.json.decode(line)
    return record  # type: ignore[no-any-return]  # written by us, in this run
