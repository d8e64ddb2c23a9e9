"""A set of shards: record files of one folder that together, in the order of their names, are one long file."""

from __future__ import annotations

import hashlib
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from schema import _storage

MANIFEST = "manifest.json"
# Stands in a folder while its shards are written, so that nobody takes the first half of them for the whole.
UNFINISHED = "UNFINISHED"
_SHARD = re.compile(r"(?!\.)(?!.*\.(rejects|receipts)\.).+\.(jsonl|ndjson)(\.gz|\.zst)?")


def is_set(path: str) -> bool:
    """Whether this names several files: a folder, or a pattern such as data/*.jsonl."""
    return path != "-" and (_is_pattern(path) or _storage.is_folder(path))


def shards_of(path: str) -> list[str]:
    """The files of a set in their order, as its manifest lists them, or by their names where there is none."""
    folder, pattern = _parts(path)
    try:
        there = _storage.names(folder)
    except FileNotFoundError:
        there = []
    if UNFINISHED in there:
        raise click.ClickException(
            f"{folder}: the run that writes these shards has not ended; run the same command again, it goes on"
        )
    if pattern is None and MANIFEST in there:
        names = [shard["name"] for shard in read_manifest(folder)["shards"]]
        if gone := sorted(set(names) - set(there)):
            raise click.ClickException(
                f"{_storage.join(folder, gone[0])}: its manifest names this shard, but it is gone"
            )
    else:
        names = [name for name in there if _SHARD.fullmatch(name) and (not pattern or fnmatchcase(name, pattern))]
    if not names:
        raise click.UsageError(f"{path}: no shards there, which are files NAME.jsonl, also .gz or .zst")
    _refuse_twins(path, names)
    return [_storage.join(folder, name) for name in names]


def files(path: str) -> list[str]:
    """The file, or those of a set."""
    return shards_of(path) if is_set(path) else [path]


def exists(path: str) -> bool:
    """Whether there is such a file, or such a set."""
    return bool(shards_of(path)) if is_set(path) else _storage.exists(path)


def version_of(path: str) -> str:
    """What changes when any file of a set does."""
    return hashlib.sha256("".join(map(_storage.version, files(path))).encode()).hexdigest()


def stamp(path: str) -> list[Any]:
    """What tells cheaply whether a file, or one of a set, has changed meanwhile."""
    return [_storage.stamp(file) for file in files(path)]


def set_name(path: str) -> str:
    """The name of the folder: the source of rows that name none, as if the set were one file of this name."""
    return Path(_parts(path)[0]).absolute().name or "unnamed"


def folder_of(path: str) -> str:
    return _parts(path)[0]


def stem(name: str) -> str:
    """part-7.jsonl.gz -> part-7."""
    return re.sub(r"\.(jsonl|ndjson)(\.gz|\.zst)?$", "", name.rsplit("/", 1)[-1])


def read_manifest(folder: str) -> dict[str, Any]:
    place = _storage.join(folder, MANIFEST)
    try:
        manifest: dict[str, Any] = json.loads(_storage.read_bytes(place))
        if all(isinstance(shard["name"], str) for shard in manifest["shards"]):
            return manifest
    except (ValueError, KeyError, TypeError):
        pass  # said in one line, whatever it is
    raise click.ClickException(f"{place}: it is no manifest of shards; remove it, or name another folder")


def _parts(path: str) -> tuple[str, str | None]:
    """The folder, and the pattern that its files have to fit."""
    if not _is_pattern(path):
        return path, None
    folder, _, pattern = path.rpartition("/")
    if any(sign in folder for sign in "*?["):
        raise click.UsageError(f"{path}: a pattern may stand for the names of files, not for folders")
    return folder or ("/" if path.startswith("/") else "."), pattern


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[") and (_storage.is_remote(path) or not Path(path).exists())


def _refuse_twins(path: str, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(stem(name), name)) != name:
            raise click.UsageError(f"{path}: {other} and {name} would write the same ledger; rename one of them")
