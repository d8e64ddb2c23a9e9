"""What is known of records that are read in several places, brought together as if one had read them all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from schema._near import Marks, MarkWriter
from schema._record import Record

Sketches = dict[str, bytes]


def sketches(records: Iterable[Record], *, near: float | None, normalise: str) -> Sketches:
    """The files that a MarkWriter makes of some records, as bytes: about 1 kB for each record."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        with MarkWriter(Path(folder, "marks"), near, normalise) as writer:
            for record in records:
                writer.add(record)
        return {path.suffix: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def gather(several: Iterable[Sketches], *, near: float | None) -> Marks:
    """The marks of all records, one place after the other; they wait on the disk."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder, ExitStack() as stack:
        path, files = Path(folder, "marks"), dict[str, IO[bytes]]()
        with MarkWriter(path, near, "raw"):
            pass  # the same files, for the case that nothing follows
        for some in several:
            for suffix, data in some.items():
                if suffix not in files:
                    files[suffix] = stack.enter_context(open(f"{path}{suffix}", "ab"))
                files[suffix].write(data)
        for file in files.values():
            file.flush()
        return Marks([path], near)
