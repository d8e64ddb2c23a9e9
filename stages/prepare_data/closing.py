"""Says at the end of a run what became of the rows."""

from __future__ import annotations

import schema
from stages.prepare_data import listing
from stages.prepare_data.outputs import STAGE, Reading, Result
from stages.prepare_data.statistics import Statistics


def report(result: Result, written: Statistics, output_dir: str, *, with_table: bool) -> None:
    for line in table(result.readings, written) if with_table else ():
        schema.log(line)
    growth = written.of_augmentation()
    if growth["augmented"]:
        schema.log(
            f"  {growth['described']:,} described records of the train side become {growth['factor']:g} times as many"
        )
    counts = result.counts(growth["augmented"])
    more = f", {counts['augmented']:,} augmented" if counts["augmented"] else ""
    if not result.test or not result.train:
        schema.log(f"  the {'train' if result.test else 'test'} side is empty")
    schema.log(
        f"{STAGE}: {counts['in']:,} in, {counts['kept']:,} kept ({counts['train']:,} train, {counts['test']:,} test),"
        f" {counts['rejected']:,} rejected, {counts['merged']:,} merged{more} -> {output_dir}"
    )
    if result.missing:
        raise schema.Incomplete(f"missing: {listing.name_missing(result.missing)}")


def table(readings: list[Reading], written: Statistics) -> list[str]:
    """What became of the rows of each source, in columns."""
    steps = ("repaired", "merged", "train", "test", "augmented")
    rows = {
        one.source.name: [one.rows, len(one.rejected), *(written.steps[one.source.name][step] for step in steps)]
        for one in readings
    }
    if len(rows) > 1:
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    width = max(map(len, rows), default=0)
    head = " " * width + "".join(f"{name:>11}" for name in ("rows", "rejected", *steps))
    return ["  " + head, *(f"  {name:<{width}}{''.join(f'{n:>11,}' for n in row)}" for name, row in rows.items())]
