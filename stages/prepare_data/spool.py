"""Rows between their reading and their place: they wait on the disk, what is decided by waits in arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

import schema
from schema import Record


class SpoolWriter:
    """Where one process leaves the rows of one source, and what is known of each record."""

    def __init__(self, path: Path, near: float | None, normalise: str):
        self._records = Path(f"{path}.records").open("wb")  # noqa: SIM115  see __exit__
        self._rejects = Path(f"{path}.rejects").open("wb")  # noqa: SIM115
        self._starts = Path(f"{path}.starts").open("wb")  # noqa: SIM115
        self._marks = schema.MarkWriter(path, near, normalise)

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.__exit__(kind, error, trace)
        for file in (self._records, self._rejects, self._starts):
            file.close()

    def keep(self, record: Record) -> None:
        self._starts.write(array("Q", [self._records.tell()]).tobytes())
        self._records.write(schema.encode(record) + b"\n")
        self._marks.add(record)

    def reject(self, row: Record) -> None:
        self._rejects.write(schema.encode(row) + b"\n")


class Spool:
    """What a SpoolWriter left."""

    def __init__(self, path: Path):
        self.path = path
        self._records = Path(f"{path}.records").open("rb")  # noqa: SIM115  it is open as long as the run
        self._starts = array("Q", Path(f"{path}.starts").read_bytes())

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Record:
        self._records.seek(self._starts[number])
        return _record(self._records.readline())

    def records(self) -> Iterator[Record]:
        return self._lines("records")

    def rejects(self) -> Iterator[Record]:
        return self._lines("rejects")

    def _lines(self, name: str) -> Iterator[Record]:
        with open(f"{self.path}.{name}", "rb") as lines:
            yield from map(_record, lines)


def _record(line: bytes) -> Record:
    record: Any = msgspec.json.decode(line)
    return record  # type: ignore[no-any-return]  # written by us, in this run
