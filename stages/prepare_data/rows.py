"""Turns the rows of one source into records, or rejects them with a reason, in one process or in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import schema
from schema import Fault, Record
from stages.prepare_data import judge, repair
from stages.prepare_data.catalogue import Source
from stages.prepare_data.identity import Policy
from stages.prepare_data.sharing import Sharing
from stages.prepare_data.spool import Gatherer, Part, SpoolWriter

if TYPE_CHECKING:
    from multiprocessing.synchronize import Semaphore

STEPS = ("unreadable", "invalid", "unfit")


class Rules(NamedTuple):
    """What becomes of a row depends on it and on these alone."""

    source: Source
    limits: judge.Limits
    policy: Policy
    repairs: list[repair.Step]
    bad_row: type[Any]  # what an extractor yields for a row that it can not read


class Judged(NamedTuple):
    """What became of some rows, and how many failed at which step."""

    part: Part
    failed: Counter[str]


def judge_row(item: Any, rules: Rules) -> tuple[str, Record]:
    """The step that a row fails at and what goes to the rejects, or nothing and the record."""
    source = rules.source
    if isinstance(item, rules.bad_row):
        return "unreadable", judge.mark_unusable(source, Fault(item.code, item.message), *item[2:])
    record = judge.to_record(item, source)
    if isinstance(record, Fault):
        return "invalid", judge.mark_unusable(source, record, judge.origin_of(item), judge.as_text(item))
    record = repair.repair(record, rules.repairs)
    if fault := judge.find_fault(record, rules.limits):
        return "unfit", judge.mark(record, fault)
    return "", judge.accept(record, source)


def judge_rows(items: Iterable[Any], rules: Rules) -> Judged:
    """A pure function of rows, so that any process can do it for any part of them."""
    gathered, failed = Gatherer(rules.policy.near, rules.policy.normalise), Counter[str]()
    for item in items:
        step, row = judge_row(item, rules)
        if step:
            failed[step] += 1
            gathered.reject(row)
        else:
            gathered.keep(row)
    return Judged(gathered.take(), failed)


def own(item: Any) -> Any:
    """The row for ourselves: rows wait for their batch, and a type may yield one dict again and again, filled anew."""
    if not isinstance(item, dict):
        return item
    return {name: dict(value) if isinstance(value, dict) else value for name, value in item.items()}


def read_rows(items: Iterable[Any], rules: Rules, place: Path, spare: Semaphore | None) -> dict[str, int]:
    """Judge every row of one source and write it down; the counts are of the steps that rows failed at."""
    failed = Counter[str](dict.fromkeys(STEPS, 0))
    sharing = Sharing(partial(judge_rows, rules=rules), place, spare)
    with SpoolWriter(place, rules.policy.near, rules.policy.normalise) as spool:
        for judged in sharing.map(map(own, schema.progress(items, rules.source.name))):
            spool.write(judged.part)
            failed.update(judged.failed)
    return dict(failed)
