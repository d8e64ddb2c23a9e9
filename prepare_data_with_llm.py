"""Give every record that lacks one a description: by a language model, or offline from the program itself.

    python prepare_data_with_llm.py generate-descriptions --input data_formatted/train.json \\
        --output data_enhanced/train.json
    python prepare_data_with_llm.py generate-descriptions --input X --output Y --llm claude --dry-run
    python prepare_data_with_llm.py plan --input X --llm claude
    python prepare_data_with_llm.py collect --llm claude
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


@cli.command("plan", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [OPTIONS]")
@click.pass_context
def plan(context: click.Context, words: tuple[str, ...]) -> None:
    """Say what a command would ask and cost: the same as the command with --dry-run.

    The command is generate-descriptions unless another one is named, and needs no --output here.
    """
    name, options = "generate-descriptions", list(words)
    if options and options[0] in cli.commands:
        name = options.pop(0)
    if not any(word.split("=")[0] == "--output" for word in options):
        options += ["--output", "-"]
    command = cli.commands[name]
    if "dry_run" not in {parameter.name for parameter in command.params}:
        raise click.UsageError(f"plan: {name} asks nobody, there is nothing to plan")
    with command.make_context(name, [*options, "--dry-run"], parent=context.parent) as inner:
        command.invoke(inner)


@cli.command("collect")
@service_options
def collect(service: Service) -> None:
    """Fetch what batches have brought into the cache; exit code 3 while some are under way."""
    from stages.prepare_data_with_llm import online

    if not (service.cache_dir / "batches").is_dir():
        click.echo(f"{service.cache_dir}: no batch was sent", err=True)
        return
    online.collect(service)


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


@cli.command("cache-prune")
@click.option("--older-than", type=click.IntRange(0), metavar="DAYS", help="Remove what is older than this.")
@click.option("--model", help="Remove the answers of this model.")
@click.option("--task", help="Remove the answers to this command, generate-descriptions for one.")
@cache_option
def cache_prune(cache_dir: Path, older_than: int | None, model: str | None, task: str | None) -> None:
    """Remove some answers from the cache: those for which all that is said is true."""
    from stages.prepare_data_with_llm.answers import open_answers, prune

    if older_than is None and model is None and task is None:
        raise click.UsageError("say what to remove: --older-than, --model, --task; cache-clear removes everything")
    must_exist(cache_dir)
    with open_answers(cache_dir) as answers:
        count = prune(answers, older_than, model, task)
        schema.log(f"{cache_dir}: {count:,} answers removed, {len(answers.store):,} left")


@cli.command("cache-export")
@click.option("--output", default="-", metavar="FILE", help='JSONL file to write; "-" is standard output.')
@cache_option
def cache_export(cache_dir: Path, output: str) -> None:
    """Write every answer as a line of JSON, in the order of the keys."""
    from stages.prepare_data_with_llm.answers import export, open_answers

    must_exist(cache_dir)
    with open_answers(cache_dir) as answers:
        lines = export(answers)
        if output == "-":
            click.echo(b"\n".join(lines))
        else:
            with schema.atomic(Path(output)) as file:
                file.write(b"".join(line + b"\n" for line in lines))
    schema.log(f"cache-export: {len(lines):,} answers -> {output}")


@cli.command("cache-explain")
@click.argument("identity", metavar="ID")
@click.option("--input", "rows", type=click.Path(exists=True, dir_okay=False), help="Record file to find the id in.")
@cache_option
def cache_explain(cache_dir: Path, identity: str, rows: str | None) -> None:
    """Show the answer behind a row: ID begins a key of the cache, or with --input the id of a row of that file."""
    from stages.prepare_data_with_llm.answers import explain, open_answers

    must_exist(cache_dir)
    with open_answers(cache_dir) as answers:
        lines = explain(answers, identity, rows)
    if not lines:
        where = f"{rows} and {cache_dir}" if rows else str(cache_dir)
        raise schema.Failure(f"{identity}: nothing in {where} begins with it")
    click.echo("\n".join(lines))


def must_exist(cache_dir: Path) -> None:
    if not (cache_dir / "cache.db").exists():
        raise schema.Failure(f"{cache_dir}: no answers yet")


if __name__ == "__main__":
    schema.main(cli)
