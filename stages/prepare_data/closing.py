"""Says at the end of a run what became of the rows."""

from __future__ import annotations

import schema
from stages.prepare_data import listing
from stages.prepare_data.outputs import STAGE, Reading, Result
from stages.prepare_data.tally import Tally


def report(result: Result, written: Tally, output_dir: str, *, several: bool) -> None:
    """The table, which says nothing new of a single source, and the summary."""
    for line in table(result.readings, written):
        schema.log(line, level=0 if several else 1)
    growth = written.statistics.of_augmentation()
    if growth["augmented"]:
        schema.log(
            f"  {growth['described']:,} described records of the train side become {growth['factor']:g} times as many"
        )
    counts = written.counts()
    more = f", {counts['augmented']:,} augmented" if counts["augmented"] else ""
    if not counts["test"] or not counts["train"]:
        schema.log(f"  the {'train' if counts['test'] else 'test'} side is empty")
    schema.log(
        f"{STAGE}: {counts['in']:,} in, {counts['kept']:,} kept ({counts['train']:,} train, {counts['test']:,} test),"
        f" {counts['rejected']:,} rejected, {counts['merged']:,} merged{more} -> {output_dir}"
    )
    if result.missing:
        raise schema.Incomplete(f"missing: {listing.name_missing(result.missing)}")


def table(readings: list[Reading], written: Tally) -> list[str]:
    """What became of the rows of each source, in columns."""
    steps = ("repaired", "merged", "train", "test", "augmented")
    rows = {
        name: [one.rows, written.of("rejects.jsonl", name), *(written.statistics.steps[name][step] for step in steps)]
        for one in readings
        for name in [one.source.name]
    }
    if len(rows) > 1:
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    width = max(map(len, rows), default=0)
    head = " " * width + "".join(f"{name:>11}" for name in ("rows", "rejected", *steps))
    return ["  " + head, *(f"  {name:<{width}}{''.join(f'{n:>11,}' for n in row)}" for name, row in rows.items())]
