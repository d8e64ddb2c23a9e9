"""The rows of JSONL, JSON, CSV and Parquet files, packed or not, each with the place where it stands."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path, PurePath
from typing import Any

import click

from extractors._packed import unpacked
from extractors._rows import BadRow

# The shapes that prepare_data.py converts by itself; the names say which column is which.
KNOWN_SHAPES = [
    {"messages"},
    {"conversations"},
    {"description", "code"},
    {"instruction", "output"},
    {"instruction", "code"},
    {"instruction", "response"},
    {"prompt", "completion"},
    {"prompt", "code"},
    {"question", "answer"},
    {"query", "answer"},
]
DESCRIPTION_NAMES = ("desc", "inst", "prompt", "question")
CODE_NAMES = ("code", "output", "answer", "response")

# What stands under these names in a record means something else than in anybody's table.
OWN_NAMES = {"id", "kind", "source", "needs_description", "origin", "quality", "lineage", "error"}

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_PACKED = (".gz", ".zst")

Origin = dict[str, Any]
Row = tuple[Origin, dict[str, Any]] | BadRow


def format_of(name: str | PurePath) -> str | None:
    """The format that a name tells, such as jsonl for rows.jsonl.gz; None when it tells none."""
    path = PurePath(name)
    if path.suffix in _PACKED:
        return FORMATS.get(PurePath(path.stem).suffix)
    return FORMATS.get(path.suffix)


def read_rows(path: Path, file_format: str, name: str) -> Iterator[Row]:
    """Every row of one file; a row that is broken is a `BadRow`, a file that is broken stops the source.

    `name` is what the origins call the file.
    """
    readers = {"jsonl": _json_rows, "json": _json_rows, "csv": _csv_rows, "parquet": _parquet_rows}
    yield from readers[file_format](path, name)


def _json_rows(path: Path, name: str) -> Iterator[Row]:
    # Many a file named .json holds one object a line, and the reverse: what it begins with decides.
    with unpacked(path) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[":
        yield from _array_rows(path, name)
        return
    with unpacked(path) as lines:
        for number, line in enumerate(lines, 1):
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield _json_row(text, {"path": name, "line": number})


def _array_rows(path: Path, name: str) -> Iterator[Row]:
    import msgspec

    with unpacked(path) as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except ValueError as error:
        raise click.ClickException(f"{path}: not a JSON array: {error}") from error
    for number, item in enumerate(items, 1):
        yield _json_row(bytes(item), {"path": name, "row": number})


def _json_row(text: bytes, origin: Origin) -> Row:
    import msgspec

    try:
        row = msgspec.json.decode(text)
    except RecursionError:
        return BadRow("nested_too_deep", "nested too deeply to be read", origin)
    except ValueError as error:  # bytes that are not UTF-8 are one, too
        return BadRow("not_json", f"not JSON: {error}", origin, text.decode("utf-8", "replace"))
    if not isinstance(row, dict):
        return BadRow("not_an_object", "not a JSON object", origin, text.decode("utf-8"))
    return origin, row


def _csv_rows(path: Path, name: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is shorter than some programs
    with unpacked(path) as packed, io.TextIOWrapper(packed, "utf-8-sig", newline="") as file:
        # strict: else a quote that never closes swallows the rest of the file as one field
        reader = csv.reader(file, "excel-tab" if ".tsv" in PurePath(name).suffixes[-2:] else "excel", strict=True)
        try:
            columns = next(reader, [])
            number = 0
            while (row := _next_csv_row(reader)) is not None:
                number += 1
                if row:
                    yield _csv_row(columns, row, {"path": name, "row": number})
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{path}: not UTF-8 near line {reader.line_num}: {error.reason}") from error


def _next_csv_row(reader: Any) -> list[str] | str | None:
    try:
        row: list[str] | None = next(reader, None)
    except csv.Error as error:
        return f"line {reader.line_num}: {error}"
    return row


def _csv_row(columns: list[str], row: list[str] | str, origin: Origin) -> Row:
    if isinstance(row, str):
        return BadRow("bad_csv", row, origin)
    if len(row) != len(columns):
        return BadRow("wrong_columns", f"{len(row)} fields under {len(columns)} columns", origin, "\t".join(row))
    return origin, dict(zip(columns, row, strict=True))


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise click.UsageError("parquet files need the package pyarrow: pip install 'linemill[sources]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # Some sets embed their videos: 181 MB of bytes that no record needs.
            columns = [field.name for field in file.schema_arrow if "binary" not in str(field.type)]
            number = 0
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield {"path": name, "row": number}, {key: json_safe(value) for key, value in row.items()}
    except pyarrow.ArrowException as error:
        raise click.ClickException(f"{path}: not a readable parquet file: {error}") from error


def json_safe(value: Any) -> Any:
    """The value as JSON has it: no NaN, and dates as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): json_safe(item) for key, item in value.items()}
        case list() | tuple():
            return [json_safe(item) for item in value]
        case datetime() | date() | time():
            return value.isoformat()
    return str(value)
