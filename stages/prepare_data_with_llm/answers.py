"""The cache of answers: one row for each request that was ever answered, kept as JSON until somebody clears it."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

import schema

SAMPLE = 2000  # answers from which the length of the next ones is guessed
SIZE_LIMIT = 2**40  # bytes; diskcache stops at 1 GiB if it is not told, and paid answers vanish without a word


class BadRow(ValueError):
    """A row that this program has not written."""


@cache
def json_disk() -> type:
    """How rows are stored: names and JSON texts. A row that wants to be unpickled is refused.

    diskcache pickles whatever is no plain value, and its own JSONDisk still loads a pickle that somebody has put
    into the file (CVE-2025-69872); whoever may write to a cache folder could run code here.
    """
    from diskcache import Disk
    from diskcache.core import MODE_PICKLE, UNKNOWN

    class JsonDisk(Disk):  # type: ignore[misc]
        def put(self, key: Any) -> tuple[str, bool]:
            if type(key) is not str:
                raise TypeError("a key is a text")
            return key, True

        def get(self, key: Any, raw: bool) -> str:
            return key if raw and type(key) is str else "not a key of ours"

        def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> Any:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            return super().store(text, read, key=key)

        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode == MODE_PICKLE or read:
                raise BadRow("it is a pickle")
            try:
                return json.loads(super().fetch(mode, filename, value, read))
            except (ValueError, TypeError, RecursionError, OSError) as error:
                raise BadRow(f"it is no JSON text ({type(error).__name__})") from None

    return JsonDisk


class Answers:
    """The open cache."""

    def __init__(self, store: Any, folder: Path) -> None:
        self.store, self.folder = store, folder

    def get(self, key: str) -> dict[str, Any] | None:
        """An answer; a row that is not ours counts as missing, is reported, and replaced by the next answer."""
        try:
            found = self.store.get(key)
        except BadRow as error:
            schema.log(f"{self.folder}: the row {key[:12]} was refused: {error}; it will be asked anew")
            return None
        return found if isinstance(found, dict) and isinstance(found.get("text"), str) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Durable when this returns; without that, no more may be asked."""
        from diskcache import Timeout

        try:
            self.store.set(key, value)
        except (sqlite3.Error, OSError, Timeout) as error:
            raise schema.Failure(f"{self.folder}: an answer can not be kept: {error or 'the cache is busy'}") from None

    def drop(self, key: str) -> None:
        self.store.delete(key)

    def typical_output(self, task: str, model: str) -> float | None:
        """How many tokens an answer to this task had so far, on average; None if there is none."""
        counts = [
            row["usage"]["output"]
            for _, row in islice(self.rows(), SAMPLE)
            if row.get("task") == task and row.get("asked") == model and type(row.get("usage")) is dict
        ]
        return sum(counts) / len(counts) if counts else None

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self.store.iterkeys():
            try:
                found = self.store.get(key)
            except BadRow:
                found = None
            yield key, found if isinstance(found, dict) else {}


@contextmanager
def open_answers(folder: Path) -> Iterator[Answers]:
    """The cache in a folder, which is made if it is not there, readable by its owner alone."""
    try:
        import diskcache
    except ImportError:
        raise click.UsageError(
            "the cache of answers needs the package diskcache: pip install 'linemill[llm]'"
        ) from None
    prepare(folder)
    try:
        # Both given at every opening: the values that stand in the file are only the defaults of the last opening.
        store = diskcache.Cache(
            str(folder), disk=json_disk(), eviction_policy="none", size_limit=SIZE_LIMIT, cull_limit=0, timeout=60
        )
        with store:
            yield Answers(store, folder)
    except (sqlite3.Error, diskcache.Timeout) as error:
        raise schema.Failure(f"{folder}: {error or 'another run keeps the cache busy'}") from None


def prepare(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "cache.db").exists():
        raise click.UsageError(f"--cache-dir {folder}: it holds other files; name an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def prune(answers: Answers, older_than: int | None, model: str | None, task: str | None) -> int:
    """Remove the answers of which everything that is given is true; how many there were."""
    oldest = time.time() - older_than * 86400 if older_than is not None else None
    doomed = [
        key
        for key, row in answers.rows()
        if (oldest is None or row.get("time", 0) < oldest)
        and (model is None or row.get("asked") == model)
        and (task is None or str(row.get("task")).split("/")[0] == task.split("/")[0])
    ]
    return sum(answers.store.delete(key) for key in doomed)


def export(answers: Answers) -> list[bytes]:
    """The answers as lines of JSON, in the order of their keys."""
    return [schema.canonical({"request": key, **row}) for key, row in sorted(answers.rows(), key=itemgetter(0))]


def explain(answers: Answers, identity: str, rows: str | None) -> list[str]:
    """What is known about a request, or about all requests of a row."""
    keys = [key for key in answers.store.iterkeys() if key.startswith(identity)]
    for record in schema.read(rows, lambda item, message, code="", line=None: None) if rows else ():
        metadata = record["metadata"]
        if str(metadata.get("id")).startswith(identity):
            lineage = metadata.get("lineage") or []
            keys += [entry["request"] for entry in lineage if isinstance(entry, dict) and entry.get("request")]
    lines = []
    for key in keys:
        row = answers.get(key)
        lines += [f"request  {key}"] + [f"{name:8} {value}" for name, value in (row or {"answer": "gone"}).items()]
    return lines


def summary(answers: Answers) -> list[str]:
    """What is in the cache, as lines: entries, size, and how many by model and by source."""
    models: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    usd = 0.0
    for _, row in answers.rows():
        usd += row["usd"] if type(row.get("usd")) is float else 0.0
        models[f"{row.get('provider') or 'unknown'}/{row.get('asked') or 'unknown'}"] += 1
        sources[str(row.get("source") or "(no source)")] += 1
        usage = row.get("usage")
        tokens.update(
            {name: count for name, count in usage.items() if type(count) is int} if type(usage) is dict else {}
        )
    lines = [
        f"folder   {answers.folder}",
        f"entries  {sum(models.values()):,}",
        f"size     {answers.store.volume():,} bytes",
        f"tokens   {tokens['input']:,} read, {tokens['output']:,} written",
        f"cost     ${usd:,.4f} as far as prices were known",
    ]
    for title, counts in (("models", models), ("sources", sources)):
        lines += [f"{title}:"] + [f"  {count:>8,}  {name}" for name, count in counts.most_common()] if counts else []
    return lines
