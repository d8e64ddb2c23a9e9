"""Counts what happened to every row and writes the set of files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import schema
from schema import Record
from stages.prepare_data.catalogue import Source
from stages.prepare_data.identity import Duplicate, dedupe_report, removed_row

STAGE = "prepare_data"
FILES = (
    "train.json",
    "test.json",
    "removed_duplicates.json",
    "rejects.jsonl",
    "dataset_stats.json",
    "deduplication_report.json",
    "ledger.json",
)


class Reading(NamedTuple):
    """What one source gave: its records, and the rows that are none, each with its error in the metadata.

    `failed` counts the latter by the step that they failed at: unreadable for the extractor, no valid record, unfit
    for the limits of this run or because the program does not parse.
    """

    source: Source
    records: list[Record]
    rejected: list[Record]
    failed: dict[str, int]

    @property
    def rows(self) -> int:
        return len(self.records) + len(self.rejected)

    def reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(record["metadata"]["error"]["code"] for record in self.rejected).items()))

    def fixes(self) -> dict[str, int]:
        """How many rows each repair was done on, rejected ones too."""
        rows = [*self.records, *self.rejected]
        return dict(sorted(Counter(name for row in rows for name in row["metadata"].get("fixes_applied", [])).items()))


class Result(NamedTuple):
    """Everything that one run writes."""

    readings: list[Reading]
    missing: dict[str, str]
    removed: list[Duplicate]
    train: list[Record]
    test: list[Record]

    def counts(self) -> dict[str, int]:
        return {
            "in": sum(reading.rows for reading in self.readings),
            "kept": len(self.train) + len(self.test),
            "rejected": sum(len(reading.rejected) for reading in self.readings),
            "merged": len(self.removed),
            "augmented": 0,
            "train": len(self.train),
            "test": len(self.test),
        }

    def fixes(self) -> dict[str, int]:
        return dict(sum((Counter(reading.fixes()) for reading in self.readings), Counter()))

    def reasons(self) -> dict[str, int]:
        return dict(sum((Counter(reading.reasons()) for reading in self.readings), Counter()))


def write_set(result: Result, output_dir: Path, sources_file: Path, options: dict[str, Any]) -> None:
    """Write all files; they take the place of the old ones together, at the end."""
    with schema.folder(output_dir) as staging:
        rows = {
            "train.json": result.train,
            "test.json": result.test,
            "removed_duplicates.json": [removed_row(duplicate) for duplicate in result.removed],
            "rejects.jsonl": [record for reading in result.readings for record in reading.rejected],
        }
        for name, records in rows.items():
            with schema.write(staging / name) as keep:
                for record in records:
                    keep(record)
        reports = {"dataset_stats.json": statistics(result), "deduplication_report.json": _dedupe(result, options)}
        for name, report in reports.items():
            with schema.atomic(staging / name) as file:
                file.write(msgspec.json.format(schema.encode(report), indent=2) + b"\n")
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=[sources_file],
            outputs=[staging / "train.json", staging / "test.json"],
            files=[staging / name for name in ("removed_duplicates.json", *reports)],
            counts=result.counts(),
            reasons=result.reasons(),
            options=options,
            rejects=staging / "rejects.jsonl",
            extra={
                "sources": {reading.source.name: reading.source.options for reading in result.readings},
                "missing": result.missing,
                "fixes": result.fixes(),
            },
            beside=output_dir,
        )


def _dedupe(result: Result, options: dict[str, Any]) -> dict[str, Any]:
    records = [record for reading in result.readings for record in reading.records]
    return dedupe_report(records, result.removed, priorities(result.readings), enabled=options["deduplicate"])


def priorities(readings: list[Reading]) -> dict[str, int]:
    return {reading.source.name: reading.source.entry.priority for reading in readings}


def statistics(result: Result) -> dict[str, Any]:
    """Every row of every source, from extraction to its side of the split."""
    merged = Counter(duplicate.record["source"] for duplicate in result.removed)
    kept = [*result.train, *result.test]
    train, test = (Counter(record["source"] for record in side) for side in (result.train, result.test))
    pending = Counter(record["source"] for record in kept if record["metadata"]["needs_description"])
    kinds = Counter(record["metadata"]["kind"] for record in kept)
    sources = {
        reading.source.name: {
            "type": reading.source.entry.type,
            "priority": reading.source.entry.priority,
            "licence": reading.source.entry.licence,
            "expected": reading.source.entry.expected_samples,
            "rows": reading.rows,
            "passed": len(reading.records),
            "failed": reading.failed,
            "rejected": reading.reasons(),
            "fixes": reading.fixes(),
            "merged": merged[reading.source.name],
            "train": train[reading.source.name],
            "test": test[reading.source.name],
            "needs_description": pending[reading.source.name],
        }
        for reading in result.readings
    }
    return {
        "counts": result.counts(),
        "kinds": dict(sorted(kinds.items())),
        "fixes": result.fixes(),
        "sources": sources,
        "missing": result.missing,
    }
