"""Records as Parquet files, for tools that want columns."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from schema._commit import folder
from schema._files import read, rejects
from schema._ledger import write_ledger
from schema._record import Record, encode, sha256

ALL = "all.parquet"
_ROWS_AT_ONCE = 4096


def write_parquet(source: str, output_dir: str) -> tuple[int, Counter[str]]:
    """All records in one file and those of each source in one of its own; the count, and the rejected ones by reason.

    The metadata are one column of JSON text: their keys differ from row to row, and a column has one type.
    """
    reasons: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    with folder(output_dir) as staging:
        with rejects(output_dir, staging / "rejects.jsonl", stage="parquet") as put, ExitStack() as stack:

            def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
                reasons[code] += 1
                put(item, message, code=code, line=line)

            files: dict[str, _File] = {}
            for record in read(source, reject):
                for name in (ALL, file_name(record["source"])):
                    if name not in files:
                        files[name] = stack.enter_context(_File(staging / name))
                    files[name].add(record)
                kept[file_name(record["source"])] += 1
        write_ledger(
            staging / "ledger.json",
            stage="parquet",
            inputs=[source],
            outputs=[],
            files=sorted(staging.glob("*.parquet")),
            counts={
                "in": kept.total() + reasons.total(),
                "kept": kept.total(),
                "rejected": reasons.total(),
                "merged": 0,
            },
            reasons=dict(reasons),
            options={},
            rejects=staging / "rejects.jsonl",
            extra={"rows": dict(sorted(kept.items()))},
            beside=output_dir,
        )
    return kept.total(), reasons


def file_name(source: str) -> str:
    """A source may be called anything; its file may not."""
    safe = re.sub(r"[^\w.-]", "_", source)
    return f"source-{safe if safe == source else f'{safe}-{sha256(source.encode())[:8]}'}.parquet"


class _File:
    """One Parquet file that is written some rows at a time, so that memory stays flat."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        names = ("description", "code", "source", "metadata")
        self._schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, str]] = []

    def __enter__(self) -> _File:
        return self

    def add(self, record: Record) -> None:
        self._rows.append({**record, "metadata": encode(record["metadata"]).decode()})  # type: ignore[dict-item]
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def __exit__(self, *_: object) -> None:
        if self._rows:
            self._flush()
        self._writer.close()
