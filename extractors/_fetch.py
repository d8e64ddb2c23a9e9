"""The cache of downloads: a second run needs no network."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click


class Fetch(NamedTuple):
    """What a run says about downloads."""

    folder: Path
    offline: bool = False
    refresh: bool = False

    def cached(self, name: str, sha256: str | None = None) -> Path | None:
        """The file of an earlier download, unless it is damaged or a new one is asked for."""
        path = self.folder / name
        if self.refresh or not path.is_file() or (sha256 and digest(path) != sha256):
            return None
        return path

    def download(self, name: str, get: Callable[[Path], None], sha256: str | None = None) -> Path:
        """Let `get` put the file `name` into an empty folder; move it into the cache if it is the right one."""
        if self.offline:
            raise click.ClickException(
                f"{name} is not in {self.folder} and --offline forbids the download:"
                " run once without it, or give a local copy with 'path:'"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            get(Path(empty))
            new = Path(empty, name)
            if sha256 and (found := digest(new)) != sha256:
                raise click.ClickException(f"{name}: the download has SHA-256 {found}, sources.yaml expects {sha256}")
            new.replace(self.folder / name)
        return self.folder / name


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
