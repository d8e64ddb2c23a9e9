"""Cuts a record file into shards, or shards into others; no row is changed, and their order stays."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from schema import _storage
from schema._commit import atomic, lock
from schema._lines import Row, rows
from schema._manifest import close_set, open_set
from schema._report import Failure, progress
from schema._shards import is_set

STAGE = "reshard"


def write_shards(source: str, folder: str, shards: int | None, size: int | None, suffix: str) -> tuple[int, int]:
    """The number of rows, and of shards; with `shards`, the rows are counted first."""
    refuse_own_folder(source, folder)
    total = sum(1 for _ in rows(source)) if shards else 0
    sizes = sizes_of(total, shards) if shards else iter(lambda: size or 0, 0)
    width = max(5, len(str(shards or 0)))
    written: list[dict[str, Any]] = []
    with lock(Path(_storage.join(folder, "shards"))):
        open_set(folder, STAGE)
        left = progress(rows(source), STAGE)
        for number, most in enumerate(sizes):
            name = f"part-{number:0{width}}.jsonl{suffix}"
            if (told := write_shard(_storage.join(folder, name), islice(left, most), empty=bool(shards))) is None:
                break
            written.append({"name": name, "ledger": None, **told})
        count = sum(shard["rows"] for shard in written)
        if shards and count != total:
            raise Failure(f"{source}: it changed while it was read; start again")
        totals: dict[str, Any] = {"counts": {"in": count, "kept": count}, "reasons": {}, "extra": {}}
        close_set(folder, source, STAGE, {"shards": shards, "rows": size}, written, totals)
    return count, len(written)


def refuse_own_folder(source: str, folder: str) -> None:
    import click

    if is_set(source) and _storage.address(Path(source).absolute()) == _storage.address(Path(folder).absolute()):
        raise click.UsageError(f"{folder}: is the input; name another folder")


def sizes_of(total: int, shards: int) -> Iterator[int]:
    """As equal as they can be."""
    for number in range(shards):
        yield total * (number + 1) // shards - total * number // shards


def write_shard(path: str, some: Iterator[Row], *, empty: bool) -> dict[str, Any] | None:
    """Write the rows as lines; None when there are none and an empty shard is not wanted."""
    first = next(some, None)
    if first is None and not empty:
        return None
    count = 0
    with atomic(path) as file:
        for row in chain([first] if first else [], some):
            count += put(file.write, row)
        file.close()
        facts = file.facts(Path(path).parent)
    return {"rows": count, "sha256": facts["sha256"], "counts": {"in": count, "kept": count}, "reasons": {}}


def put(write: Any, row: Row) -> int:
    if row.whole_length:
        raise Failure(f"row {row.number} has {row.whole_length:,} bytes, more than any stage reads; remove it first")
    write(row.data.replace(b"\n", b" ") + b"\n")
    return 1
