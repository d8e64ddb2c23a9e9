"""Rows of your own files: JSONL, JSON, CSV or Parquet, also as .gz and .zst.

    my_rows:
      type: local
      path: rows.csv                  # or a folder, or a pattern such as data/*.jsonl; relative to where you run
      format: csv                     # if the file name does not tell: jsonl, json, csv or parquet
      description_field: question     # or [good, or_else]; leave it and code_field out to have them detected
      code_field: python_code
      strip_prefix: "Write code ... Here is the request:"  # removed; "..." stands for any words
      skip_values: [nan]              # what means that there is nothing
      code_only: false                # true: the descriptions are dropped and written later
      kind: qa                        # if the answers are not programs

All other columns are kept in the metadata. Records of Linemill and rows of the usual chat and instruction shapes
need no field names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from extractors._columns import meaning, rows_of
from extractors._needs import Needs, files_at
from extractors._rows import BadRow
from extractors._tables import FORMATS, format_of, read_rows


def extract(
    path: str,
    *,
    format: Literal["jsonl", "json", "csv", "parquet"] | None = None,
    description_field: str | list[str] | None = None,
    code_field: str | None = None,
    strip_prefix: str | list[str] | None = None,
    skip_values: list[str] | None = None,
    code_only: bool = False,
    kind: str | None = None,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each row of each file, in the order of the file names."""
    said = meaning(description_field, code_field, strip_prefix, skip_values, code_only, kind)
    root = _fixed_part(Path(path).expanduser())
    for file in _files(path, format):
        rows = read_rows(file, format or format_of(file) or "", str(file.relative_to(root)))
        yield from rows_of(rows, said, str(file), {}, None)


def needs(path: str, *, format: str | None = None) -> Needs:
    """Parquet needs its package, if one of the files is of that format."""
    formats = {format or format_of(file) for file in files_at(path)}
    return Needs(packages=("pyarrow",) if "parquet" in formats else ())


def is_cached(path: str, *, format: str | None = None) -> bool:
    """Whether there is a file to read."""
    return any(format or format_of(file) for file in files_at(path))


def pieces(path: str, *, format: str | None = None) -> list[dict[str, str]]:
    """The arguments that read the files one by one, and give the same rows: only of a folder without folders in it."""
    files = _files(path, format)
    root = _fixed_part(Path(path).expanduser())
    return [{"path": str(file)} for file in files] if all(file.parent == root for file in files) else []


def _fixed_part(place: Path) -> Path:
    """The folder that all files stand in: origins name files from there, so that they hold on another machine."""
    if place.is_file():
        return place.parent
    return next(
        (folder for folder in [place, *place.parents] if not any(sign in str(folder) for sign in "*?[")), Path()
    )


def _files(path: str, file_format: str | None) -> list[Path]:
    is_folder = Path(path).expanduser().is_dir()
    files = [file for file in files_at(path) if format_of(file) or not is_folder]
    if not files:
        raise click.ClickException(
            f"{path}: no file of this name, and no file of the formats {', '.join(FORMATS)} in it"
        )
    for file in files:
        if file_format is None and not format_of(file):
            raise click.UsageError(
                f"{file}: the name does not tell the format; set 'format' to jsonl, json, csv or parquet"
            )
    return files
