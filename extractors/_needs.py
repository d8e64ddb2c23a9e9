"""What a type needs on this machine before it can read a source."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import click


class Needs(NamedTuple):
    """What the function `needs` of a type gives back."""

    packages: tuple[str, ...] = ()  # as they are imported: "bs4"
    extra: str = "sources"  # the extra of Linemill that brings them; "" when there is none
    keys: tuple[str, ...] = ()  # environment variables
    tools: tuple[str, ...] = ()  # programs

    def missing(self) -> list[str]:
        """Everything that is not here, each with the way to get it."""
        way = f" (pip install 'linemill[{self.extra}]')" if self.extra else ""
        return [
            *(f"the package {name}{way}" for name in self.packages if not _is_installed(name)),
            *(f"the key {name} (in the environment or in .env)" for name in self.keys if not os.environ.get(name)),
            *(f"the program {name} (on the PATH)" for name in self.tools if not shutil.which(name)),
        ]


def files_at(path: str) -> list[Path]:
    """The files that a `path` of sources.yaml means, in order: one, those below a folder, or those of a pattern."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        return _shards(place) or [file for file in sorted(place.rglob("*")) if file.is_file()]
    try:
        return sorted(file for file in Path(place.anchor).glob(str(place.relative_to(place.anchor))) if file.is_file())
    except ValueError as error:
        raise click.UsageError(f"path: {path}: {error}") from error


def _shards(folder: Path) -> list[Path]:
    """The shards of a folder that a stage has written: what stands beside them are ledgers and rejects, no rows."""
    if (folder / "UNFINISHED").exists():
        raise click.UsageError(f"{folder}: the run that writes these shards has not ended; run it again first")
    try:
        return [folder / shard["name"] for shard in json.loads((folder / "manifest.json").read_bytes())["shards"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # there is no manifest, or it is that of somebody else


def _is_installed(name: str) -> bool:
    """Without importing the package itself: some take seconds."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # the package around a submodule is not here
        return False
