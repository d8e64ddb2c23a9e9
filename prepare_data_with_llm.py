"""Give every record that lacks one a description: by a language model, or offline from the program itself.

    python prepare_data_with_llm.py generate-descriptions --input data_formatted/train.json \\
        --output data_enhanced/train.json
    python prepare_data_with_llm.py generate-descriptions --input X --output Y --llm claude --dry-run
    python prepare_data_with_llm.py cache-stats
    python prepare_data_with_llm.py cache-clear --yes

In    any record file; "-" is standard input. Only rows with metadata.needs_description are described, unless --all.
Out   OUTPUT with every row in its place and every program untouched; OUTPUT's .rejects.jsonl with the rows that got no
      description, and why. Exit code 3: some rows got no answer; the same command asks for those alone.

An answer goes to the cache before it counts, so nothing is paid for twice: not after a crash, not when other rows of
the file change, not for equal programs. Without a key in the environment or in .env nobody is asked: --llm offline.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import click

import schema
from schema import Contract
from stages.prepare_data_with_llm.service import Service, cache_option
from stages.prepare_data_with_llm.service import options as service_options


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Have a language model write what the data lacks, and keep every answer."""


@cli.command("generate-descriptions")
@schema.options
@service_options
@click.option("--max-tokens", default=400, type=click.IntRange(16), metavar="N", help="Longest answer, in tokens.")
@click.option("--prompt", type=click.Path(path_type=Path), metavar="FILE", help="Prompt file to use instead of ours.")
@click.option("--all", "everything", is_flag=True, help="Describe every row, also those that have a description.")
def generate_descriptions(
    contract: Contract, service: Service, max_tokens: int, prompt: Path | None, everything: bool
) -> None:
    """Describe programs as the requests that they answer."""
    if prompt and not prompt.is_file():
        raise click.UsageError(f"--prompt {prompt}: there is no such file")
    if service.provider == "offline":
        describe_offline(contract, everything, service.dry_run)
        return
    from stages.prepare_data_with_llm.describe import NAME, Describing
    from stages.prepare_data_with_llm.online import perform
    from stages.prepare_data_with_llm.prompt import DEFAULT, load

    task = Describing(service, load(prompt or DEFAULT), max_tokens, everything)
    perform(NAME, contract, service, task, {"llm": service.author, "prompt": task.prompt.name, "all": everything})


def describe_offline(contract: Contract, everything: bool, dry_run: bool) -> None:
    """Rows are independent of each other here, so that --workers share them."""
    from stages.prepare_data_with_llm.describe import NAME as STAGE
    from stages.prepare_data_with_llm.offline import NAME
    from stages.prepare_data_with_llm.online import rehearsal
    from stages.prepare_data_with_llm.rows import describe_offline, is_wanted

    if dry_run:
        with rehearsal(contract) as run:
            wanted = [is_wanted(record, everything) for record in run.records()]
            click.echo(f"{len(wanted):,} rows, {sum(wanted):,} to be described by {NAME}\nnothing was written")
        return
    with schema.run(STAGE, contract, params={"llm": NAME, "all": everything}) as run:
        run.map(functools.partial(describe_offline, everything=everything))


@cli.command("cache-stats")
@cache_option
def cache_stats(cache_dir: Path) -> None:
    """Say what is in the cache: answers, size, models, sources of the rows."""
    from stages.prepare_data_with_llm.answers import open_answers, summary

    if not (cache_dir / "cache.db").exists():
        click.echo(f"{cache_dir}: no answers yet")
        return
    with open_answers(cache_dir) as answers:
        click.echo("\n".join(summary(answers)))


@cli.command("cache-clear")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cache_option
def cache_clear(cache_dir: Path, yes: bool) -> None:
    """Remove every answer from the cache; the next run pays for all of them again."""
    from stages.prepare_data_with_llm.answers import open_answers

    if not (cache_dir / "cache.db").exists():
        click.echo(f"{cache_dir}: no answers yet", err=True)
        return
    with open_answers(cache_dir) as answers:
        count = len(answers.store)
        if not yes and not sys.stdin.isatty():
            raise click.UsageError(f"{cache_dir} holds {count:,} answers; say --yes where nobody can be asked")
        if not yes and not click.confirm(f"{cache_dir}: remove {count:,} answers for good?", err=True):
            raise schema.Failure("nothing was removed")
        answers.store.clear()
    schema.log(f"{cache_dir}: {count:,} answers removed")


if __name__ == "__main__":
    schema.main(cli)
