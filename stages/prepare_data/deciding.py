"""Brings everything that was read together, and decides what becomes of each record."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import schema
from stages.prepare_data import identity, listing
from stages.prepare_data.identity import Policy
from stages.prepare_data.outputs import Reading, Result
from stages.prepare_data.sharing import BATCH
from stages.prepare_data.spool import Gatherer, Spool, SpoolWriter


def read_other(path: str, policy: Policy, place: Path) -> Spool:
    """A file whose records are kept in any case: what they say, too, is a duplicate here."""

    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        raise schema.Failure(
            f"--against {path}: line {line}: {message}; a row that can not be read can not be compared"
        )

    gathered = Gatherer(policy.near, policy.normalise)
    with SpoolWriter(place, policy.near, policy.normalise) as spool:
        for record in schema.progress(schema.read(path, reject), path):
            gathered.keep(schema.adopt(record))
            if len(gathered) == BATCH:
                spool.write(gathered.take())
        spool.write(gathered.take())
    return Spool(place)


def decide(result: Result, test_ratio: float, seed: int, place: schema.Workplace) -> Result:
    """Merge duplicates over all sources, then split."""
    spools = [reading.spool for reading in result.readings]
    if not any(map(len, spools)):
        raise schema.Failure(f"there is no record to write: {why_nothing(result)}")
    marks = schema.Marks([spool.path for spool in [*spools, *result.others.values()]], result.policy.near)
    ranked = sorted(zip(starts_of(spools), result.readings, strict=True), key=lambda pair: rank(pair[1]))
    order = [number for start, reading in ranked for number in range(start, start + len(reading.spool))]
    return result._replace(decision=identity.decide(marks, order, result.policy, test_ratio, seed, place))


def starts_of(spools: list[Spool]) -> list[int]:
    """The number of the first record of each."""
    return list(itertools.accumulate(map(len, spools), initial=0))[:-1]


def rank(reading: Reading) -> tuple[int, str]:
    """Among duplicates the first one stays; names break ties, because sources may stand in any order."""
    return -reading.source.entry.priority, reading.source.name


def why_nothing(result: Result) -> str:
    counts = sum((reading.rejected for reading in result.readings), Counter[str]())
    reasons = [f"{count:,} {code}" for code, count in sorted(counts.items())]
    first = next(filter(None, (reading.first_reject for reading in result.readings)), None)
    example = f" (the first: {first})" if first else ""
    gone = f"missing: {listing.name_missing(result.missing)}" if result.missing else ""
    return "; ".join(filter(None, [", ".join(reasons) + example, gone])) or "the sources gave no rows"
