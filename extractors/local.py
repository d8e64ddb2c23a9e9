"""Rows of your own files: JSONL, JSON, CSV or Parquet.

    my_rows:
      type: local
      path: rows.csv                  # or a folder, or a pattern such as data/*.jsonl; relative to where you run
      description_field: question     # leave both out to have them detected
      code_field: python_code
      format: csv                     # if the file name does not tell
      kind: qa                        # if the answers are not programs

All other columns are kept in the metadata. Records of Linemill and rows of the usual chat and instruction shapes
need no field names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from extractors._rows import BadRow
from extractors._tables import CODE_NAMES, DESCRIPTION_NAMES, FORMATS, KNOWN_SHAPES, OWN_NAMES, Row, read_rows

Fields = tuple[str | None, str]


def extract(
    path: str,
    *,
    format: Literal["jsonl", "json", "csv", "parquet"] | None = None,
    description_field: str | None = None,
    code_field: str | None = None,
    kind: str | None = None,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each row of each file, in the order of the file names."""
    if description_field and not code_field:
        raise click.UsageError("local: description_field is given without code_field; name both, or none")
    given = (description_field, code_field) if code_field else None
    root = _fixed_part(Path(path).expanduser())
    for file in _files(path, format):
        rows = read_rows(file, format or FORMATS[file.suffix], str(file.relative_to(root)))
        yield from _rows_of(file, rows, given, kind)


def _rows_of(file: Path, rows: Iterator[Row], given: Fields | None, kind: str | None) -> Iterator[Any]:
    """One odd row is a reject; a file of which no row is understood is a mistake in sources.yaml."""
    understood, unclear = False, ""
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        origin, columns = row
        fields = _choose_fields(columns, given)
        if isinstance(fields, str):
            unclear = unclear or fields
            yield BadRow("unknown_columns", fields, origin, json.dumps(columns, ensure_ascii=False))
        else:
            understood = True
            yield _row(columns, fields, origin, kind)
    if unclear and not understood:
        raise click.UsageError(f"{file}: {unclear}")


def _fixed_part(place: Path) -> Path:
    """The folder that all files stand in: origins name files from there, so that they hold on another machine."""
    if place.is_file():
        return place.parent
    return next(
        (folder for folder in [place, *place.parents] if not any(sign in str(folder) for sign in "*?[")), Path()
    )


def _files(path: str, file_format: str | None) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_dir():
        files = [file for file in sorted(place.rglob("*")) if file.suffix in FORMATS and file.is_file()]
    elif place.exists():
        files = [place]
    else:
        files = sorted(file for file in Path(place.anchor).glob(str(place.relative_to(place.anchor))) if file.is_file())
    if not files:
        raise click.ClickException(
            f"{path}: no file of this name, and no file of the formats {', '.join(FORMATS)} in it"
        )
    for file in files:
        if file_format is None and file.suffix not in FORMATS:
            raise click.UsageError(
                f"{file}: the name does not tell the format; set 'format' to jsonl, json, csv or parquet"
            )
    return files


def _choose_fields(columns: dict[str, Any], given: Fields | None) -> Fields | str | None:
    """The columns of description and code, or why they are unclear; None for a shape that speaks for itself."""
    if given:
        missing = [name for name in given if name and name not in columns]
        return f"no column {missing[0]!r}; it has {_listed(columns)}" if missing else given
    if any(shape <= columns.keys() for shape in KNOWN_SHAPES):
        return None
    descriptions, codes = _matching(columns, DESCRIPTION_NAMES), _matching(columns, CODE_NAMES)
    if not codes and not descriptions and "text" in columns:
        return None
    if len(descriptions) != 1 or len(codes) != 1 or descriptions == codes:
        return (
            "can not tell which column is the description and which the code;"
            f" set description_field and code_field. It has {_listed(columns)}"
        )
    return descriptions[0], codes[0]


def _matching(columns: dict[str, Any], parts: tuple[str, ...]) -> list[str]:
    return [name for name in columns if any(part in name.lower() for part in parts)]


def _listed(columns: dict[str, Any]) -> str:
    return "the columns " + ", ".join(columns)


def _row(columns: dict[str, Any], fields: Fields | None, origin: dict[str, Any], kind: str | None) -> dict[str, Any]:
    given = {"kind": kind} if kind else {}
    if {"description", "code", "source", "metadata"} == columns.keys() and isinstance(columns["metadata"], dict):
        return {**columns, "metadata": {"origin": origin, **columns["metadata"], **given}}
    kept = {f"upstream_{name}" if name in OWN_NAMES else name: value for name, value in columns.items()}
    if fields is None:
        own = kept.get("metadata")
        metadata = own if isinstance(own, dict) else {} if own is None else {"upstream_metadata": own}
        return {**kept, "metadata": {**metadata, "origin": origin, **given}}
    description_field, code_field = fields
    description = kept.pop(description_field, None) if description_field else None
    code = kept.pop(code_field)
    metadata = {**kept, "origin": origin, **given}
    if description is None or not str(description).strip():
        return {"description": "", "code": code, "metadata": {**metadata, "needs_description": True}}
    return {"description": description, "code": code, "metadata": metadata}
