"""Augments a record file, such as a train side whose descriptions were written after stage 1."""

from __future__ import annotations

import click

import schema
from stages.prepare_data.augment import Plan, fresh, how_much, mark_of


@click.command("augment", context_settings=schema.CONTEXT)
@schema.options
@how_much
def command(
    contract: schema.Contract, augment_factor: dict[str, float], max_augmented: int, augment_cases: bool
) -> None:
    """Ask for the programs of a record file in other words, too; for the train side alone."""
    plan = Plan(augment_factor, max_augmented, augment_cases)
    taken: set[int] = set()
    params = {"augment": augment_factor, "most": max_augmented}
    # What is said already depends on all rows before: when one shard has changed, all are made again.
    files = map(schema.absolute, schema.files(contract.input)) if schema.is_set(contract.input) else []
    depends = dict.fromkeys(files, schema.version_of(contract.input)) if schema.is_set(contract.input) else {}
    with schema.run("prepare_data", contract, params=params, depends=depends) as run:
        for record in run.records():
            taken.add(mark_of(record))
            run.augment(record, fresh(record, taken, plan, contract.seed))
