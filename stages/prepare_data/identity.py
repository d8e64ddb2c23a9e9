"""Which records are kept when several say the same, and which side of the split each falls on."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import schema
from schema import Record


class Duplicate(NamedTuple):
    """A record that was merged into another one, and what they have in common."""

    record: Record
    kept: Record
    field: str


def merge_duplicates(records: list[Record], priority: dict[str, int]) -> tuple[list[Record], list[Duplicate]]:
    """Keep one record of those with equal code or equal description: the highest priority, then the first seen."""
    order = sorted(range(len(records)), key=lambda position: (-priority[records[position]["source"]], position))
    seen: dict[tuple[str, str], Record] = {}
    kept: set[int] = set()
    removed: dict[int, Duplicate] = {}
    for position in order:
        record = records[position]
        marks = _fingerprints(record)
        same = next((mark for mark in marks if mark in seen), None)
        if same:
            removed[position] = Duplicate(record, seen[same], same[0])
            continue
        kept.add(position)
        seen |= dict.fromkeys(marks, record)
    return [records[position] for position in sorted(kept)], [removed[position] for position in sorted(removed)]


def _fingerprints(record: Record) -> list[tuple[str, str]]:
    marks = [("code", schema.code_fingerprint(record["code"]))]
    if record["description"].strip():
        marks.append(("description", schema.description_fingerprint(record["description"])))
    return marks


def removed_row(duplicate: Duplicate) -> Record:
    """The removed record as a line of removed_duplicates.json: whole, so that a removal can be judged and undone."""
    kept = duplicate.kept
    why = {"kept_id": kept["metadata"]["id"], "kept_source": kept["source"], "field": duplicate.field}
    record = duplicate.record
    return {**record, "metadata": {**record["metadata"], "duplicate_of": {**why, "similarity": 1.0}}}


def dedupe_report(
    records: list[Record], removed: list[Duplicate], priority: dict[str, int], *, enabled: bool
) -> dict[str, Any]:
    """Counts that a recount of removed_duplicates.json gives again."""
    before = Counter(record["source"] for record in records)
    gone = Counter(duplicate.record["source"] for duplicate in removed)
    pairs = Counter((duplicate.record["source"], duplicate.kept["source"]) for duplicate in removed)
    return {
        "enabled": enabled,
        "records": len(records),
        "kept": len(records) - len(removed),
        "removed": len(removed),
        "removed_share": round(len(removed) / len(records), 4) if records else 0.0,
        "by_field": dict(sorted(Counter(duplicate.field for duplicate in removed).items())),
        "by_source": {
            name: {"priority": priority[name], "records": count, "removed": gone[name], "kept": count - gone[name]}
            for name, count in sorted(before.items())
        },
        "between_sources": [
            {"removed": removed_source, "kept": kept_source, "count": count}
            for (removed_source, kept_source), count in sorted(pairs.items())
        ],
    }


def split(records: list[Record], test_ratio: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Train and test; records of one cluster stay together, and new records move no old cluster."""
    keys = schema.clusters(records)
    shares = {key: schema.share(key, seed) for key in keys}
    test = {key for key, share in shares.items() if share < test_ratio}
    if 0 < test_ratio < 1 and len(shares) > 1:
        # By chance a small set can fall on one side alone; an empty side tests or trains nothing.
        by_share = sorted(shares, key=lambda key: (shares[key], key))
        test = (test or {by_share[0]}) - ({by_share[-1]} if len(test) == len(shares) else set())
    sides: tuple[list[Record], list[Record]] = ([], [])
    for key, record in zip(keys, records, strict=True):
        sides[key in test].append(record)
    return sides
