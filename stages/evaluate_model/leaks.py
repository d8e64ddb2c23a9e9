"""Held-out rows that the training file already holds: a score on them would be a test of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import schema
from stages.evaluate_model import measures, rates


def held_out(rows: Iterable[schema.Record]) -> list[schema.Record]:
    """What was asked, once for each prompt: the reference in place of what the model wrote."""
    found: list[schema.Record] = []
    for answers in measures.by_prompt(rows).values():
        row = answers[0]
        found.append({**row, "code": _reference(row)})
    return found


def _reference(row: schema.Record) -> str:
    """The program that was held out. A fixed prompt has none; only its words can be known."""
    facts = row["metadata"].get("evaluation", {})
    if isinstance(reference := row["metadata"].get("reference"), str):
        return reference
    return row["description"] if facts.get("reference") is False or "finish" in facts else row["code"]


def report(train: Path, known: Iterable[schema.Record], rows: Iterable[schema.Record]) -> dict[str, Any]:
    """Which rows have the code or the description of a row of the training file, and their share."""
    marks = dict[tuple[str, str], str]()
    for record in known:
        for mark in fingerprints(record):
            marks.setdefault(mark, record["metadata"]["id"])
    asked = held_out(rows)
    pairs = [
        {"id": row["metadata"]["id"], "field": mark[0], "train_id": marks[mark]}
        for row in asked
        for mark in fingerprints(row)
        if mark in marks
    ]
    return {
        "train": schema.file_facts(train),
        "leaked": rates.wilson(len({pair["id"] for pair in pairs}), len(asked))._asdict(),
        "by_field": dict(sorted(Counter(pair["field"] for pair in pairs).items())),
        "pairs": pairs,
    }


def fingerprints(record: schema.Record) -> list[tuple[str, str]]:
    """The two marks by which prepare_data.py and split_data.py know a record again."""
    marks = [("code", schema.code_fingerprint(record["code"]))]
    if record["description"].strip():
        marks.append(("description", schema.description_fingerprint(record["description"])))
    return marks


def summary(found: dict[str, Any]) -> str:
    fields = ", ".join(f"{count:,} by {field}" for field, count in found["by_field"].items())
    leaked = found["leaked"]
    return f"{leaked['passed']:,} of {leaked['n']:,} held-out rows stand in {found['train']['path']} ({fields})"
