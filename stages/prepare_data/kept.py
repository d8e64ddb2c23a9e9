"""Keeps what was read of each file of a source until the run has ended well, so that a run that is stopped goes on.

Beside the output lies a hidden folder. What was read of a file stands in it under a name that is made of all that it
depends on: what the file holds, the options, and the version. The next run takes what has the name that it would give
itself, and removes the rest. A folder is filled under the name of its run and renamed when it is complete: so neither
a run that is killed nor the processes that it leaves behind are ever taken for one that has ended.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import schema
from stages.prepare_data.rows import Rules

if TYPE_CHECKING:
    from stages.prepare_data.spread import Answer

ROWS = "rows"  # the name of the spool in its folder
TOLD = "answer.json"


class Told(NamedTuple):
    """What is known of a spool that is complete."""

    failed: dict[str, int]
    sizes: dict[str, int]


class Kept:
    """What this run, and runs before it that were stopped, have read."""

    def __init__(self, output: Path):
        self.folder = schema.beside(output, "read")
        self.own = self.folder / f"run-{os.getpid()}"
        self._wanted: set[str] = set()

    def spool_of(self, rules: Rules, arguments: dict[str, Any], piece: dict[str, Any]) -> Path | None:
        """Where the rows of a piece of a source are when they have been read; None if it is no file."""
        if not (files := files_in(piece)):
            return None
        source, policy = rules.source, rules.policy
        depends: list[Any] = [schema.VERSION, source.name, source.type, source.entry.licence, arguments, rules.limits]
        depends += [schema.Marked._fields, policy.near, policy.normalise, [step.name for step in rules.repairs]]
        depends += [schema.version_of(str(file)) for file in files]
        name = schema.sha256(schema.canonical(depends))[:32]
        self._wanted.add(name)
        return self.folder / name / ROWS

    def clear(self) -> None:
        """Remove what other runs have left and this one does not want."""
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if entry.name not in self._wanted:
                shutil.rmtree(entry, ignore_errors=True)

    def is_kept(self, spool: Path) -> bool:
        return spool.parent.parent == self.folder

    def begun(self, spool: Path) -> Path:
        """Where the rows are while they are read."""
        if not self.is_kept(spool):
            return spool
        place = self.own / spool.parent.name
        place.mkdir(parents=True, exist_ok=True)
        return place / ROWS

    def find(self, spool: Path) -> dict[str, int] | None:
        """The counts of the rows of this spool that failed, if an earlier run has read them."""
        try:
            told = msgspec.json.decode((spool.parent / TOLD).read_bytes(), type=Told)
        except (OSError, msgspec.DecodeError):
            return None
        return told.failed if self.is_kept(spool) and told.sizes == _sizes(spool) else None

    def keep(self, spool: Path, answer: Answer) -> None:
        """The rows have been read to their end."""
        begun = self.begun(spool)
        with schema.atomic(begun.parent / TOLD) as file:
            file.write(msgspec.json.encode(Told(answer.failed, _sizes(begun))))
        shutil.rmtree(spool.parent, ignore_errors=True)  # half of one, as a power failure may leave
        begun.parent.rename(spool.parent)


def files_in(piece: dict[str, Any]) -> list[Path]:
    """The files that the arguments of a piece name."""
    named = [Path(value).expanduser() for value in piece.values() if isinstance(value, str)]
    return [file for file in named if file.is_file()]


def _sizes(spool: Path) -> dict[str, int]:
    return {path.suffix: path.stat().st_size for path in sorted(spool.parent.glob(f"{ROWS}.*"))}


@contextmanager
def beside(output: Path) -> Iterator[Kept]:
    """What is kept for this output; nothing is left when the block ends well."""
    kept = Kept(output)
    try:
        yield kept
    except BaseException:
        shutil.rmtree(kept.own, ignore_errors=True)
        if kept.folder.is_dir() and not any(kept.folder.iterdir()):
            kept.folder.rmdir()
        raise
    shutil.rmtree(kept.folder, ignore_errors=True)
