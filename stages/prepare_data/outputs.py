"""Counts what happened to every row and writes the set of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import schema
from schema import Fault, Link, Record
from stages.prepare_data.catalogue import Source
from stages.prepare_data.identity import Decision, Policy
from stages.prepare_data.spool import Spool

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
    for the limits of this run or because the program does not parse. `rejected` counts them by reason.
    """

    source: Source
    spool: Spool
    failed: dict[str, int]
    rejected: Counter[str]
    first_reject: str | None

    @property
    def rows(self) -> int:
        return len(self.spool) + self.rejected.total()


class Result(NamedTuple):
    """What was read, and what becomes of it; records are numbered through all readings, and then the other files."""

    readings: list[Reading]
    missing: dict[str, str]
    others: dict[str, Spool]
    decision: Decision
    policy: Policy

    def at(self, number: int) -> tuple[Record, str]:
        """A record, and the source or the other file that it stands in."""
        places = [(reading.source.name, reading.spool) for reading in self.readings]
        for name, spool in [*places, *self.others.items()]:
            if number < len(spool):
                return spool[number], name
            number -= len(spool)
        raise IndexError(number)


class Row(NamedTuple):
    """One record on its way to one of the files."""

    file: str
    record: Record
    source: str
    link: Link | None = None
    kept_in: str = ""


class Tally:
    """Counts rows while they are written, so that the reports say what the files hold."""

    def __init__(self, readings: list[Reading]):
        self.files: Counter[tuple[str, str]] = Counter()
        self.rejected = {reading.source.name: reading.rejected.copy() for reading in readings}
        self.kinds: Counter[str] = Counter()
        self.pending: Counter[str] = Counter()
        self.links: Counter[tuple[str, float]] = Counter()
        self.between: Counter[tuple[str, str]] = Counter()

    def count(self, row: Row) -> None:
        self.files[row.file, row.source] += 1
        if row.link:
            self.links[row.link.field, row.link.similarity] += 1
            self.between[row.source, row.kept_in] += 1
        metadata = row.record["metadata"]
        if row.file == "rejects.jsonl":
            self.rejected[row.source][metadata["error"]["code"]] += 1
        elif row.file != "removed_duplicates.json":
            self.kinds[metadata["kind"]] += 1
            self.pending[row.source] += metadata["needs_description"]

    def of(self, file: str) -> int:
        return sum(count for (name, _), count in self.files.items() if name == file)

    def reasons(self) -> dict[str, int]:
        return dict(sum(self.rejected.values(), Counter()))

    def counts(self, result: Result) -> dict[str, int]:
        train, test = self.of("train.json"), self.of("test.json")
        return {
            "in": sum(reading.rows for reading in result.readings),
            "kept": train + test,
            "rejected": sum(self.reasons().values()),
            "merged": self.of("removed_duplicates.json"),
            "augmented": 0,
            "train": train,
            "test": test,
        }


def placed(result: Result) -> Iterator[Row]:
    """Every record that was read, in the order of the sources, with the file that it goes to."""
    number = -1
    for reading in result.readings:
        for record in reading.spool.records():
            number += 1
            yield _place(result, number, record)


def _place(result: Result, number: int, record: Record) -> Row:
    decision, source = result.decision, record["source"]
    metadata = {key: value for key, value in record["metadata"].items() if key != "duplicate_of"}
    if number in decision.descriptions:
        metadata["descriptions_of_this_code"] = decision.descriptions[number]
    record = {**record, "metadata": metadata}
    if decision.dropped(number, result.policy):
        fault = Fault("many_descriptions", f"{decision.descriptions[number]} descriptions stand over this one code")
        return Row("rejects.jsonl", with_error(record, fault), source)
    link, kept_in = decision.merged.get(number), ""
    if link:
        kept, kept_in = result.at(link.earlier)
        record = {**record, "metadata": metadata | {"duplicate_of": duplicate_of(link, kept, kept_in)}}
    if number in decision.bridges:
        one, other = (result.at(end.earlier)[0]["metadata"]["id"] for end in decision.bridges[number])
        fault = Fault("bridges_sides", f"says the same as {one} and as {other}, which stand on two sides")
        return Row("rejects.jsonl", with_error(record, fault), source)
    if number in decision.side:
        return Row(("train.json", "test.json")[decision.side[number]], record, source, link, kept_in)
    return Row("removed_duplicates.json", record, source, link, kept_in)


def with_error(record: Record, fault: Fault) -> Record:
    error = {"stage": STAGE, "code": fault.code, "message": fault.message}
    return {**record, "metadata": {**record["metadata"], "error": error}}


def duplicate_of(link: Link, kept: Record, kept_in: str) -> dict[str, Any]:
    """What a removed record says of the one that stays, so that the removal can be judged and undone."""
    why = {"kept_id": kept["metadata"]["id"], "kept_source": kept["source"]}
    place = {} if kept["source"] == kept_in else {"kept_in": kept_in}
    return {**why, **place, "field": link.field, "similarity": link.similarity}


def write_set(result: Result, output_dir: Path, inputs: list[Path], options: dict[str, Any]) -> dict[str, int]:
    """Write all files; they take the place of the old ones together, at the end."""
    with schema.folder(output_dir) as staging:
        tally = write_records(result, staging)
        counts = tally.counts(result)
        reports = {
            "dataset_stats.json": statistics(result, tally, counts),
            "deduplication_report.json": dedupe_report(result, tally),
        }
        for name, report in reports.items():
            with schema.atomic(staging / name) as file:
                file.write(msgspec.json.format(schema.encode(report), indent=2) + b"\n")
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=inputs,
            outputs=[staging / "train.json", staging / "test.json"],
            files=[staging / name for name in ("removed_duplicates.json", *reports)],
            counts=counts,
            reasons=tally.reasons(),
            options=options,
            rejects=staging / "rejects.jsonl",
            extra={
                "sources": {reading.source.name: reading.source.options for reading in result.readings},
                "missing": result.missing,
            },
            beside=output_dir,
        )
    return counts


def write_records(result: Result, staging: Path) -> Tally:
    tally = Tally(result.readings)
    with ExitStack() as stack:
        keep = {name: stack.enter_context(schema.write(staging / name)) for name in FILES[:4]}
        for reading in result.readings:
            for row in reading.spool.rejects():
                keep["rejects.jsonl"](row)
        for placed_row in placed(result):
            keep[placed_row.file](placed_row.record)
            tally.count(placed_row)
    return tally


def dedupe_report(result: Result, tally: Tally) -> dict[str, Any]:
    """Counts that a recount of the files gives again."""
    policy, removed = result.policy, tally.of("removed_duplicates.json")
    records = sum(len(reading.spool) for reading in result.readings)
    fields: Counter[str] = Counter()
    similarity: Counter[str] = Counter()
    for (field, value), count in tally.links.items():
        fields[field] += count
        low = min(int(value * 20), 19) / 20
        similarity["1" if value == 1 else f"{low:.2f}-{low + 0.05:.2f}"] += count
    return {
        "enabled": policy.deduplicate,
        "policy": policy._asdict(),
        "records": records,
        "kept": records - removed,
        "removed": removed,
        "tagged": fields.total() - removed,
        "removed_share": round(removed / records, 4) if records else 0.0,
        "exact": fields.total() - fields["near"],
        "near": fields["near"],
        "by_field": dict(sorted(fields.items())),
        "by_similarity": dict(sorted(similarity.items())),
        "by_source": {
            reading.source.name: {
                "priority": reading.source.entry.priority,
                "records": len(reading.spool),
                "removed": (gone := tally.files["removed_duplicates.json", reading.source.name]),
                "kept": len(reading.spool) - gone,
            }
            for reading in sorted(result.readings, key=lambda reading: reading.source.name)
        },
        "between_sources": [
            {"removed": removed_source, "kept": kept_in, "count": count}
            for (removed_source, kept_in), count in sorted(tally.between.items())
        ],
    }


def statistics(result: Result, tally: Tally, counts: dict[str, int]) -> dict[str, Any]:
    """Every row of every source, from extraction to its side of the split."""
    return {
        "counts": counts,
        "kinds": dict(sorted(tally.kinds.items())),
        "sources": {reading.source.name: _statistics_of(reading, tally) for reading in result.readings},
        "missing": result.missing,
    }


def _statistics_of(reading: Reading, tally: Tally) -> dict[str, Any]:
    name, entry = reading.source.name, reading.source.entry
    return {
        "type": entry.type,
        "priority": entry.priority,
        "licence": entry.licence,
        "expected": entry.expected_samples,
        "rows": reading.rows,
        "passed": len(reading.spool),
        "failed": reading.failed,
        "rejected": dict(sorted(tally.rejected[name].items())),
        "merged": tally.files["removed_duplicates.json", name],
        "train": tally.files["train.json", name],
        "test": tally.files["test.json", name],
        "needs_description": tally.pending[name],
    }
