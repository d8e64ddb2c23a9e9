"""Places every row in one of the files, and writes the files as a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import schema
from schema import Fault, Link, Record
from stages.prepare_data.augment import Plan, fresh, mark_of
from stages.prepare_data.catalogue import Source
from stages.prepare_data.identity import Decision, Policy
from stages.prepare_data.spool import Spool
from stages.prepare_data.statistics import of_lengths
from stages.prepare_data.tally import Placed, Tally

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


def placed(result: Result) -> Iterator[Placed]:
    """Every record that was read, in the order of the sources, with the file that it goes to."""
    number = -1
    for reading in result.readings:
        for record, tokens in reading.spool.with_tokens():
            number += 1
            yield _place(result, number, record, tokens)


def _place(result: Result, number: int, record: Record, tokens: list[int]) -> Placed:
    decision, source, told = result.decision, record["source"], dict[str, Any]()
    if number in decision.descriptions:
        told["descriptions_of_this_code"] = decision.descriptions[number]
    if decision.dropped(number, result.policy):
        fault = Fault("many_descriptions", f"{decision.descriptions[number]} descriptions stand over this one code")
        return Placed("rejects.jsonl", with_error(_telling(record, told), fault), source)
    link, kept_in = decision.merged.get(number), ""
    if link:
        kept, kept_in = result.at(link.earlier)
        told["duplicate_of"] = duplicate_of(link, kept, kept_in)
    record = _telling(record, told)
    if number in decision.bridges:
        one, other = (result.at(end.earlier)[0]["metadata"]["id"] for end in decision.bridges[number])
        fault = Fault("bridges_sides", f"says the same as {one} and as {other}, which stand on two sides")
        return Placed("rejects.jsonl", with_error(record, fault), source)
    if number in decision.side:
        return Placed(("train.json", "test.json")[decision.side[number]], record, source, link, kept_in, tokens)
    return Placed("removed_duplicates.json", record, source, link, kept_in)


def _telling(record: Record, told: dict[str, Any]) -> Record:
    """The record with what was found of it here, and without what an earlier run found."""
    metadata = record["metadata"]
    if not told and "duplicate_of" not in metadata:
        return record
    kept = {key: value for key, value in metadata.items() if key != "duplicate_of"}
    return {**record, "metadata": kept | told}


def with_error(record: Record, fault: Fault) -> Record:
    error = {"stage": STAGE, "code": fault.code, "message": fault.message}
    return {**record, "metadata": {**record["metadata"], "error": error}}


def duplicate_of(link: Link, kept: Record, kept_in: str) -> dict[str, Any]:
    """What a removed record says of the one that stays, so that the removal can be judged and undone."""
    why = {"kept_id": kept["metadata"]["id"], "kept_source": kept["source"]}
    place = {} if kept["source"] == kept_in else {"kept_in": kept_in}
    return {**why, **place, "field": link.field, "similarity": link.similarity}


def write_set(
    result: Result, output_dir: Path, inputs: list[Path], options: dict[str, Any], plan: Plan | None
) -> Tally:
    """Write all files; they take the place of the old ones together, at the end."""
    with schema.folder(output_dir) as staging:
        tally = write_records(result, staging, plan, options["seed"], options["shard_rows"])
        reports = {
            "dataset_stats.json": statistics(result, tally, options),
            "deduplication_report.json": tally.deduplication(priorities(result), result.policy._asdict()),
        }
        for name, report in reports.items():
            with schema.atomic(staging / name) as file:
                file.write(msgspec.json.format(schema.encode(report), indent=2) + b"\n")
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=inputs,
            outputs=sides_in(staging),
            files=[staging / name for name in ("removed_duplicates.json", *reports)],
            counts=tally.counts(),
            reasons=tally.reasons(),
            options=options,
            rejects=staging / "rejects.jsonl",
            extra={
                "sources": {reading.source.name: reading.source.options for reading in result.readings},
                "missing": result.missing,
                "fixes": tally.fixes(),
            },
            beside=output_dir,
        )
    return tally


def sides_in(folder: Path) -> list[Path]:
    """The files of both sides: one each, or shards."""
    return [*sorted(folder.glob("train/*"), key=str), *sorted(folder.glob("test/*"), key=str)] or [
        folder / "train.json",
        folder / "test.json",
    ]


def write_records(result: Result, staging: Path, plan: Plan | None, seed: int, shard_rows: int | None = None) -> Tally:
    """All rows to their files; a record of the train side is followed by its variants."""
    tally = Tally()
    taken = kept_descriptions(result) if plan else set()
    with ExitStack() as stack:
        keep = {name: stack.enter_context(schema.write(staging / name)) for name in FILES[2:4]}
        for name in FILES[:2]:
            side = schema.write_parts(staging / Path(name).stem, shard_rows) if shard_rows else None
            keep[name] = stack.enter_context(side or schema.write(staging / name))
        for reading in result.readings:
            for reject in reading.spool.rejects():
                tally.unusable(reject)
                keep["rejects.jsonl"](reject)
        for row in placed(result):
            tally.count(row)
            keep[row.file](row.record)
            if row.file == "rejects.jsonl":
                log_reject(row.record)
            if plan and row.file == "train.json":
                for variant in fresh(row.record, taken, plan, seed):
                    tally.statistics.augmented(variant)
                    keep["train.json"](variant)
    return tally


def log_reject(row: Record) -> None:
    """Say under -v why a row is rejected."""
    error = row["metadata"]["error"]
    schema.log(f"    rejected: {error['code']}: {error['message']}", level=1)


def kept_descriptions(result: Result) -> set[int]:
    """Marks of what the records of both sides ask for, so that no variant says it again."""
    return {mark_of(row.record) for row in placed(result) if row.file in ("train.json", "test.json")}


def priorities(result: Result) -> dict[str, int]:
    return {reading.source.name: reading.source.entry.priority for reading in result.readings}


def statistics(result: Result, tally: Tally, options: dict[str, Any]) -> dict[str, Any]:
    """Every row of every source, from extraction to its side of the split."""
    counted = tally.statistics
    return {
        "counts": tally.counts(),
        "kinds": dict(sorted(counted.kinds.items())),
        "fixes": tally.fixes(),
        "sources": {
            reading.source.name: {
                "type": reading.source.entry.type,
                "priority": reading.source.entry.priority,
                "licence": reading.source.entry.licence,
                "expected": reading.source.entry.expected_samples,
                "rows": reading.rows,
                "passed": len(reading.spool),
                "failed": reading.failed,
                "rejected": tally.reasons(reading.source.name),
                "fixes": tally.fixes(reading.source.name),
                **counted.of_source(reading.source.name),
            }
            for reading in result.readings
        },
        "lengths": of_lengths(counted.lengths.values()),
        "augmentation": {"enabled": options["augmentation"], **counted.of_augmentation()},
        "options": options,
        "missing": result.missing,
    }
