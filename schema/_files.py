"""Reading and writing records: every line is yielded, or rejected with a reason; nothing is lost between."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click

from schema._commit import atomic
from schema._convert import to_record
from schema._lines import Row, rows
from schema._record import Fault, Record, decode, encode, problem
from schema._shards import is_set, set_name
from schema._storage import PathLike


class Reject(Protocol):
    """What takes an item that is not kept: any object or raw text, and why."""

    def __call__(self, item: Any, message: str, code: str = ..., line: int | None = ...) -> None: ...


def read(path: PathLike, reject: Reject, *, source: str | None = None) -> Iterator[Record]:
    """Yield the records of a file of any known shape; hand every other row to `reject` with its reason.

    A line of a rejects file gives the record that it stands for, so that what failed once can be tried again.
    """
    name = source or source_name(path)
    for row in rows(str(path)):
        outcome = revive(row, name)
        if isinstance(outcome, Unreadable):
            reject(outcome.item, outcome.fault.message, code=outcome.fault.code, line=row.number)
        else:
            yield outcome


def numbered(path: PathLike, only: Container[int] | None = None) -> Iterator[tuple[int, Record]]:
    """The records of one file with the numbers of their rows; only those of some rows cost less than all."""
    name = source_name(path)
    for row in rows(str(path)):
        if only is None or row.number in only:
            outcome = revive(row, name)
            if not isinstance(outcome, Unreadable):
                yield row.number, outcome


@contextmanager
def write(path: PathLike) -> Iterator[Callable[[Record], None]]:
    """Give a function that appends one record; commit the file when the block ends well."""
    if str(path) == "-":
        yield _appender(sys.stdout.buffer.write, "standard output")
        sys.stdout.buffer.flush()
        return
    with atomic(path) as file:
        yield _appender(file.write, str(path))


@contextmanager
def write_parts(folder: Path, size: int) -> Iterator[Callable[[Record], None]]:
    """Give a function that appends one record to the last shard of a folder, and begins a new one when it is full."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as last:
        written = 0
        keep = last.enter_context(write(folder / "part-00000.jsonl"))

        def append(record: Record) -> None:
            nonlocal keep, written
            if written and written % size == 0:
                last.close()
                keep = last.enter_context(write(folder / f"part-{written // size:05}.jsonl"))
            keep(record)
            written += 1

        yield append


@contextmanager
def rejects(output: PathLike, path: PathLike | None = None, *, stage: str = "") -> Iterator[Reject]:
    """Give a function that appends one item and its reason to OUTPUT's rejects file, as a record again."""
    place = path or rejects_path(output)
    if str(place) == "-":
        yield _rejecter(lambda data: click.echo(data.rstrip(b"\n"), err=True), stage)
        return
    with atomic(place) as file:
        yield _rejecter(file.write, stage)


def rejects_path(output: PathLike) -> str:
    return "-" if str(output) == "-" else str(sibling(output, ".rejects.jsonl"))


def ledger_path(output: PathLike) -> Path:
    return sibling(output, ".ledger.json")


def sibling(output: PathLike, suffix: str) -> Path:
    """train.jsonl.gz -> train.rejects.jsonl."""
    path = Path(output)
    return path.with_name(re.sub(r"(\.jsonl|\.ndjson|\.json)?(\.gz|\.zst)?$", "", path.name) + suffix)


def source_name(path: PathLike) -> str:
    """The source of rows that name none: their file's name."""
    if str(path) == "-":
        return "stdin"
    return set_name(str(path)) if is_set(str(path)) else sibling(path, "").name or "unnamed"


def parse(row: Row, source: str) -> Record | Fault:
    """The record of one row, or why it holds none."""
    if row.whole_length:
        return Fault("too_long", f"{row.whole_length:,} bytes in one row; only its start is kept here")
    value = decode(row.data)
    if isinstance(value, Fault):
        return value
    return to_record(value, source)


class Unreadable(NamedTuple):
    """A row that holds no record: why, and what of it goes to the rejects file."""

    fault: Fault
    item: RawItem


class RawItem(NamedTuple):
    """What is kept of a row that is no record: where it came from, and its text, whole unless it was too long."""

    source: str
    text: dict[str, Any]


def revive(row: Row, source: str) -> Record | Unreadable:
    """The record of one row; for a row of a rejects file the one that it stands for, so that it can be tried again."""
    found = parse(row, source)
    if isinstance(found, Fault):
        return Unreadable(found, raw_item(row, source))
    error = found["metadata"].get("error")
    if error is None:
        return found
    text = {name: error[name] for name in ("raw", "raw_base64", "whole_length") if name in error}
    raw = RawItem(found["source"], text)
    if "whole_length" in text:
        return Unreadable(Fault(error["code"], error["message"]), raw)
    if text:
        data = base64.b64decode(text["raw_base64"]) if "raw_base64" in text else text["raw"].encode()
        again = parse(Row(row.number, data), found["source"])
        return Unreadable(again, raw) if isinstance(again, Fault) else again
    metadata = {key: value for key, value in found["metadata"].items() if key != "error"}
    record: Record = {**found, "metadata": metadata}
    if reason := problem(record):
        return Unreadable(Fault("invalid_record", reason), RawItem(found["source"], {"raw": encode(record).decode()}))
    return record


def raw_item(row: Row, source: str) -> RawItem:
    try:
        text: dict[str, Any] = {"raw": row.data.decode()}
    except UnicodeDecodeError:
        text = {"raw_base64": base64.b64encode(row.data).decode()}
    return RawItem(source, text if row.whole_length is None else {**text, "whole_length": row.whole_length})


def rejected(item: Any, fault: Fault, *, stage: str, line: int | None = None) -> bytes:
    """The line of the rejects file for one item: the record itself when it is one, else its text."""
    error: dict[str, Any] = {"stage": stage, "code": fault.code, "message": fault.message}
    if line is not None:
        error["line"] = line
    if isinstance(item, dict) and isinstance(item.get("metadata"), dict):
        marked = {**item, "metadata": {**item["metadata"], "error": error}}
        if problem(marked) is None:
            return encode(marked) + b"\n"
    raw = item if isinstance(item, RawItem) else RawItem("unknown", {"raw": _as_text(item)})
    return (
        encode({"description": "", "code": "", "source": raw.source, "metadata": {"error": error | raw.text}}) + b"\n"
    )


def _as_text(item: Any) -> str:
    if isinstance(item, str):
        return item
    try:
        return encode(item).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return repr(item)  # what an extractor made and JSON has no word for


def _appender(put: Callable[[bytes], object], name: str) -> Callable[[Record], None]:
    def append(record: Record) -> None:
        if reason := problem(record):
            raise ValueError(f"refusing to write an invalid record to {name}: {reason}")
        put(encode(record))
        put(b"\n")

    return append


def _rejecter(put: Callable[[bytes], object], stage: str) -> Reject:
    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        put(rejected(item, Fault(code, message), stage=stage, line=line))

    return reject
