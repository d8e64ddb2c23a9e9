"""What the commands make of rows when no model is asked: descriptions, questions and voices by rule, at no cost."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

import schema
from schema import Contract
from stages.prepare_data_with_llm.rows import Maker, make_each

if TYPE_CHECKING:
    from stages.prepare_data_with_llm.personas import Persona


def describe(contract: Contract, everything: bool, dry_run: bool) -> None:
    """Rows are independent of each other here, so that --workers share them."""
    from stages.prepare_data_with_llm.describe import NAME as STAGE
    from stages.prepare_data_with_llm.offline import NAME
    from stages.prepare_data_with_llm.rows import describe_offline, is_wanted

    if dry_run:
        wanted = [is_wanted(record, everything) for record in schema.rehearsal(contract).records()]
        click.echo(f"{len(wanted):,} rows, {sum(wanted):,} to be described by {NAME}\nnothing was written")
        return
    with schema.run(STAGE, contract, params={"llm": NAME, "all": everything}) as run:
        run.map(functools.partial(describe_offline, everything=everything))


def question(contract: Contract, num_pairs: int, everything: bool, dry_run: bool) -> None:
    """Pairs whose answers are sentences of the document: headings and definitions, nothing that needs a mind."""
    from stages.prepare_data_with_llm.qa import NAME, OFFLINE, make_offline

    params = {"llm": OFFLINE, "num_pairs": num_pairs, "all": everything}
    make = functools.partial(make_offline, num_pairs=num_pairs, everything=everything)
    if dry_run:
        rehearse(contract, make, "pairs", OFFLINE)
        return
    with schema.run(NAME, contract, params=params) as run:
        run.each(functools.partial(make_each, make=make))


def quote(contract: Contract, personas: tuple[Persona, ...], everything: bool, dry_run: bool) -> None:
    """Rows of sentences of the section itself: they try out a pipeline, they teach no voice."""
    from stages.prepare_data_with_llm import personas as voices

    make = functools.partial(voices.quote_offline, personas=personas, everything=everything)
    if dry_run:
        rehearse(contract, make, "rows of voices", voices.OFFLINE)
        return
    names = [f"{persona.name}: {persona.version}" for persona in personas]
    parts = [persona.part for persona in personas]
    params = {"llm": voices.OFFLINE, "personas": names, "all": everything}
    with schema.run(voices.NAME, contract, params=params, parts=parts) as run:
        run.each(functools.partial(make_each, make=make, parts=parts))


def rehearse(contract: Contract, make: Maker, things: str, author: str) -> None:
    """Say what would be made of the rows, and write nothing."""
    run = schema.rehearsal(contract)
    make_each(run, make)
    counts = run.totals()
    click.echo(f"{counts['in']:,} rows, {counts.get('made', 0):,} {things} out of {counts['kept']:,} by {author}")
    click.echo("nothing was written")
