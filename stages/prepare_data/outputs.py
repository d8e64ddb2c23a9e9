"""Counts what happened to every row and writes the set of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import schema
from schema import Record
from stages.prepare_data.augment import Plan, fresh, mark_of
from stages.prepare_data.catalogue import Source
from stages.prepare_data.identity import Duplicate, dedupe_report, removed_row
from stages.prepare_data.statistics import Statistics

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

    def counts(self, augmented: int = 0) -> dict[str, int]:
        """Rows in = kept + rejected + merged; the variants of kept rows are counted apart."""
        return {
            "in": sum(reading.rows for reading in self.readings),
            "kept": len(self.train) + len(self.test),
            "rejected": sum(len(reading.rejected) for reading in self.readings),
            "merged": len(self.removed),
            "augmented": augmented,
            "train": len(self.train),
            "test": len(self.test),
        }

    def fixes(self) -> dict[str, int]:
        return dict(sum((Counter(reading.fixes()) for reading in self.readings), Counter()))

    def reasons(self) -> dict[str, int]:
        return dict(sum((Counter(reading.reasons()) for reading in self.readings), Counter()))


def write_set(
    result: Result, output_dir: Path, sources_file: Path, options: dict[str, Any], plan: Plan | None
) -> Statistics:
    """Write all files; they take the place of the old ones together, at the end."""
    statistics = count_before_sides(result)
    with schema.folder(output_dir) as staging:
        rows = {
            "train.json": train_rows(result, plan, options["seed"], statistics),
            "test.json": test_rows(result, statistics),
            "removed_duplicates.json": (removed_row(duplicate) for duplicate in result.removed),
            "rejects.jsonl": (record for reading in result.readings for record in reading.rejected),
        }
        for name, records in rows.items():
            with schema.write(staging / name) as keep:
                for record in records:
                    keep(record)
        reports = {
            "dataset_stats.json": whole_statistics(result, statistics, options),
            "deduplication_report.json": _dedupe(result, options),
        }
        for name, report in reports.items():
            with schema.atomic(staging / name) as file:
                file.write(msgspec.json.format(schema.encode(report), indent=2) + b"\n")
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=[sources_file],
            outputs=[staging / "train.json", staging / "test.json"],
            files=[staging / name for name in ("removed_duplicates.json", *reports)],
            counts=result.counts(statistics.total("augmented")),
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
    return statistics


def count_before_sides(result: Result) -> Statistics:
    statistics = Statistics()
    for reading in result.readings:
        for record in reading.records:
            statistics.passed(record)
    for duplicate in result.removed:
        statistics.merged(duplicate.record)
    return statistics


def train_rows(result: Result, plan: Plan | None, seed: int, statistics: Statistics) -> Iterator[Record]:
    """The train side, each record followed by its variants; none of them says what a record of either side says."""
    taken = {mark_of(record) for side in (result.train, result.test) for record in side} if plan else set()
    for record in result.train:
        statistics.kept(record, "train")
        yield record
        for variant in fresh(record, taken, plan, seed) if plan else ():
            statistics.augmented(variant)
            yield variant


def test_rows(result: Result, statistics: Statistics) -> Iterator[Record]:
    for record in result.test:
        statistics.kept(record, "test")
        yield record


def _dedupe(result: Result, options: dict[str, Any]) -> dict[str, Any]:
    records = [record for reading in result.readings for record in reading.records]
    return dedupe_report(records, result.removed, priorities(result.readings), enabled=options["deduplicate"])


def priorities(readings: list[Reading]) -> dict[str, int]:
    return {reading.source.name: reading.source.entry.priority for reading in readings}


def whole_statistics(result: Result, statistics: Statistics, options: dict[str, Any]) -> dict[str, Any]:
    """Every row of every source, from extraction to its side of the split."""
    return {
        "counts": result.counts(statistics.total("augmented")),
        "kinds": dict(sorted(statistics.kinds.items())),
        "fixes": result.fixes(),
        "sources": {
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
                **statistics.of_source(reading.source.name),
            }
            for reading in result.readings
        },
        "lengths": statistics.of_lengths(),
        "augmentation": {"enabled": options["augmentation"], **statistics.of_augmentation()},
        "options": options,
        "missing": result.missing,
    }
