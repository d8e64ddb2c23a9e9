"""Held-out rows that the training file already holds: a score on them would be a test of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
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


def report(train: Path, known: Iterable[schema.Record], rows: Iterable[schema.Record], near: float) -> dict[str, Any]:
    """Which rows say the same as a row of the training file, and their share; `near` as for a split."""
    asked, names = held_out(rows), list[str]()

    def named() -> Iterator[schema.Record]:
        for record in known:
            names.append(record["metadata"]["id"])
            yield record

    links = schema.links(chain(named(), asked), near=None if near == 1 else near)[len(names) :]
    pairs = [
        {
            "id": row["metadata"]["id"],
            "field": link.field,
            "similarity": round(link.similarity, 4),
            "train_id": names[link.earlier],
        }
        for row, found in zip(asked, links, strict=True)
        for link in found
        if link.earlier < len(names)
    ]
    return {
        "train": schema.file_facts(train),
        "near": near,
        "leaked": rates.wilson(len({pair["id"] for pair in pairs}), len(asked))._asdict(),
        "by_field": _rows_by_field(pairs),
        "pairs": pairs,
    }


def _rows_by_field(pairs: list[dict[str, Any]]) -> dict[str, int]:
    """A row that is near to several counts once."""
    return dict(sorted(Counter(field for field, _ in {(pair["field"], pair["id"]) for pair in pairs}).items()))


def summary(found: dict[str, Any]) -> str:
    fields = ", ".join(f"{count:,} by {field}" for field, count in found["by_field"].items())
    leaked = found["leaked"]
    return f"{leaked['passed']:,} of {leaked['n']:,} held-out rows stand in {found['train']['path']} ({fields})"
