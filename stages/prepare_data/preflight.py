"""What can be known before the first byte is read: what is missing, and who would read the own output."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from pathlib import Path

import click

from stages.prepare_data.catalogue import Source
from stages.prepare_data.outputs import FILES

# What the settings of hubs begin with, in the environment and in .env.
OF_HUBS = ("HF_", "KAGGLE_", "GITHUB_")


def refuse_missing(lacks: dict[str, list[str]]) -> None:
    """One message about everything that any source lacks."""
    wanted_by: dict[str, list[str]] = {}
    for name, things in lacks.items():
        for thing in things:
            wanted_by.setdefault(thing, []).append(name)
    if wanted_by:
        told = "; ".join(f"{thing} for {', '.join(names)}" for thing, names in wanted_by.items())
        raise click.UsageError(f"nothing was read, there is not all that is needed: {told}; --keep-going does without")


def refuse_own_output(sources: Iterable[Source], output_dir: Path) -> None:
    """A source that reads what this run writes would find other rows each time."""
    for source in sources:
        path = source.options.get("path")
        if isinstance(path, str) and _reads(Path(path).expanduser().absolute(), output_dir.absolute()):
            raise click.UsageError(
                f"{source.place}: path: {path} takes in {output_dir}, where this run writes;"
                " name other files, or another --output-dir"
            )


def _reads(place: Path, output: Path) -> bool:
    place, output = Path(os.path.realpath(place)), Path(os.path.realpath(output))
    written = [output / name for name in FILES]
    return any(file.is_relative_to(place) or _matches(file.parts, place.parts) for file in written)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """As pathlib's glob does: a star stays in its folder, two cross folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
