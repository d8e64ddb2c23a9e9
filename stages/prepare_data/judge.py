"""Decides which rows of a source become records, and says why the others do not."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import schema
from schema import Fault, Record
from stages.prepare_data.catalogue import Source
from stages.prepare_data.outputs import STAGE
from stages.prepare_data.repair_manimgl import PACKAGES, imports_manimgl
from stages.prepare_data.repair_tokens import parse


class Limits(NamedTuple):
    """What a record must have to be kept."""

    code: int
    description: int
    description_words: int | None = None


def to_record(item: Any, source: Source) -> Record | Fault:
    """The record that an extractor's row stands for, with an id, or why there is none."""
    if not isinstance(item, dict) or not isinstance(item.get("metadata", {}), dict):
        return Fault("not_a_row", "the extractor gave something that is no row")
    # A rejects file can be a source: its rows are judged again.
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key != "error"}
    if item.get("source") not in (None, source.name):
        metadata.setdefault("upstream_source", item["source"])
    try:
        record = schema.to_record({**item, "source": source.name, "metadata": metadata}, source.name)
        if isinstance(record, Fault):
            return record
        defaults = {"kind": "code", "needs_description": False}
        licence = {"licence": record["metadata"].get("licence") or source.entry.licence}
        record = {**record, "metadata": defaults | record["metadata"] | licence}
        schema.encode(record)
        return schema.adopt(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Fault("not_json", f"holds a value that JSON has no word for: {error}")


def find_fault(record: Record, limits: Limits) -> Fault | None:
    """Why a record is of no use, or None."""
    code, description = record["code"], record["description"]
    if len(code) < limits.code:
        return Fault("short_code", f"{len(code)} characters of code; --min-code-length is {limits.code}")
    if description and len(description) < limits.description:
        return Fault(
            "short_description", f"{len(description)} characters; the shortest allowed are {limits.description}"
        )
    if limits.description_words is not None and (words := len(description.split())) > limits.description_words:
        return Fault("long_description", f"{words} words; --max-description-words is {limits.description_words}")
    if any("no visible scene" in text.lower() and _NOTHING.search(text) for text in _texts(record)):
        return Fault("no_visible_scene", "a text of the row says that there is no visible scene")
    return find_code_fault(code) if record["metadata"]["kind"] == "code" else None


_NOTHING = re.compile(r"\bno visible scene", re.IGNORECASE)


def _texts(record: Record) -> list[str]:
    """What the row says, in words or in code; not where it was found, nor how it looked before."""
    ours = ("origin", "original_code", "licence", "id")
    other = [value for key, value in record["metadata"].items() if isinstance(value, str) and key not in ours]
    return [record["description"], record["code"], *other]


def find_code_fault(code: str) -> Fault | None:
    """Why this is no program for Manim: no Python, or written for ManimGL."""
    if error := schema.syntax_error(code):
        return Fault("does_not_parse", error)
    if any(map(code.__contains__, PACKAGES)) and (tree := parse(code)) and imports_manimgl(tree):
        return Fault("manimgl", "imports ManimGL, and holds what Manim has no word for")
    return None


def accept(record: Record, source: Source) -> Record:
    """The record with this stage in its history."""
    parent = schema.content_hash(record) if record["metadata"].get("lineage") else None
    return schema.add_lineage(record, stage=STAGE, params={"type": source.type}, parent=parent)


def mark(record: Record, fault: Fault, **more: str) -> Record:
    """The record as it stands in the rejects file."""
    error = {"stage": STAGE, "code": fault.code, "message": _clean(fault.message), **more}
    return {**record, "metadata": {**record["metadata"], "error": error}}


def mark_unusable(source: Source, fault: Fault, origin: Any, raw: str) -> Record:
    """What stands in the rejects file for a row that is no record: where it was found, and what stood there."""
    # File names may hold bytes that are no text.
    plain = _clean(json.dumps(origin, default=str, ensure_ascii=False)) if isinstance(origin, dict) else ""
    place = {"origin": json.loads(plain)} if plain else {}
    record: Record = {"description": "", "code": "", "source": source.name, "metadata": place}
    return mark(record, fault, raw=_clean(raw))


def origin_of(item: Any) -> Any:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return metadata.get("origin") if isinstance(metadata, dict) else None


def as_text(item: Any) -> str:
    """All of a row that is no record."""
    try:
        return schema.encode(item).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ascii(item)  # what an extractor made and JSON has no word for


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
