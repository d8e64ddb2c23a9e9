"""Have a language model write what records lack: descriptions, questions and answers, explanations, verdicts.

    python prepare_data_with_llm.py generate-descriptions --input data_formatted/train.json \\
        --output data_enhanced/train.json
    python prepare_data_with_llm.py generate-descriptions --input X --output Y --llm claude --dry-run
    python prepare_data_with_llm.py generate-qa --input data_documents/train.json --output data_qa/train.json
    python prepare_data_with_llm.py generate-personas --input data_documents/train.json --output data_personas
    python prepare_data_with_llm.py judge --input data_enhanced/train.json --output data_judged/train.json
    python prepare_data_with_llm.py retry --input data_qa/train.rejects.jsonl --output data_qa/more.json
    python prepare_data_with_llm.py compare A B
    python prepare_data_with_llm.py plan --input X --llm claude
    python prepare_data_with_llm.py collect --llm claude
    python prepare_data_with_llm.py cache-stats
    python prepare_data_with_llm.py cache-clear --yes

In    any record file; "-" is standard input. Only rows with metadata.needs_description are described, unless --all.
Out   OUTPUT: of generate-descriptions and judge every row in its place and every program untouched, of generate-qa N
      rows for each document, of generate-personas a folder with a file for each voice. OUTPUT's .rejects.jsonl with
      the rows that got nothing, and why. Exit code 3: some rows got no answer; the same command asks for those alone.

An answer goes to the cache before it counts, so nothing is paid for twice: not after a crash, not when other rows of
the file change, not for equal programs. Without a key in the environment or in .env nobody is asked: --llm offline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

import schema
from schema import Contract
from stages.prepare_data_with_llm import frames, unasked
from stages.prepare_data_with_llm.prompt import Wording, prompt_options
from stages.prepare_data_with_llm.service import Service, cache_option, deferred_options
from stages.prepare_data_with_llm.service import options as service_options


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Have a language model write what the data lacks, and keep every answer."""


@cli.command("generate-descriptions")
@schema.options
@service_options
@prompt_options
@frames.option
@click.option("--all", "everything", is_flag=True, help="Describe every row, also those that have a description.")
def generate_descriptions(
    contract: Contract, service: Service, wording: Wording, frames: Path | None, everything: bool
) -> None:
    """Describe programs as the requests that they answer."""
    if service.provider == "offline":
        unasked.describe(contract, everything, service.dry_run)
        return
    from stages.prepare_data_with_llm.describe import NAME, Describing, load
    from stages.prepare_data_with_llm.online import perform

    task = Describing(service, wording.limit(load(wording.prompt)), everything, frames)
    perform(NAME, contract, service, task, {"llm": service.author, "prompt": task.prompt.name, "all": everything})


@cli.command("generate-qa")
@schema.options
@service_options
@prompt_options
@click.option("--num-pairs", default=3, type=click.IntRange(1, 50), metavar="N", help="Pairs to make of one document.")
@click.option("--all", "everything", is_flag=True, help="Ask about rows of every kind, not of documents alone.")
def generate_qa(contract: Contract, service: Service, wording: Wording, num_pairs: int, everything: bool) -> None:
    """Make questions and answers of documents: N rows of each."""
    from stages.prepare_data_with_llm.qa import NAME, Examining, load

    if service.provider == "offline":
        unasked.question(contract, num_pairs, everything, service.dry_run)
        return
    from stages.prepare_data_with_llm.online import perform

    task = Examining(service, wording.limit(load(wording.prompt, num_pairs)), num_pairs, everything)
    params = {"llm": service.author, "prompt": task.prompt.name, "num_pairs": num_pairs, "all": everything}
    perform(NAME, contract, service, task, params)


@cli.command("generate-personas")
@schema.folder_options
@service_options
@prompt_options
@click.option(
    "--persona",
    "names",
    multiple=True,
    metavar="NAME|FILE",
    help="A voice: eli5, intuitive, executive, or a file of your own.  [default: these three]",
)
@click.option("--all", "everything", is_flag=True, help="Explain rows of every kind, not documents alone.")
def generate_personas(
    contract: Contract, service: Service, wording: Wording, names: tuple[str, ...], everything: bool
) -> None:
    """Explain the sections of papers in several voices: one file for each voice."""
    from stages.prepare_data_with_llm.personas import NAME, Explaining, load

    prompt, personas = load(wording.prompt, names)
    if service.provider == "offline":
        unasked.quote(contract, personas, everything, service.dry_run)
        return
    from stages.prepare_data_with_llm.online import perform

    task = Explaining(service, wording.limit(prompt), personas, everything)
    voices = [f"{persona.name}: {persona.version}" for persona in personas]
    params = {"llm": service.author, "prompt": task.prompt.name, "personas": voices, "all": everything}
    perform(NAME, contract, service, task, params, [persona.part for persona in personas])


@cli.command("judge")
@schema.options
@service_options
@prompt_options
@frames.option
@click.option("--all", "everything", is_flag=True, help="Judge every row, also those that have a verdict.")
def judge(contract: Contract, service: Service, wording: Wording, frames: Path | None, everything: bool) -> None:
    """Say whether description and code agree: score and reason go into metadata.judge, and every row is kept."""
    from stages.prepare_data_with_llm.judge import NAME, Judging, load
    from stages.prepare_data_with_llm.online import perform

    needs_a_model(service, NAME)
    task = Judging(service, wording.limit(load(wording.prompt)), everything, frames)
    perform(NAME, contract, service, task, {"llm": service.author, "prompt": task.prompt.name, "all": everything})


def needs_a_model(service: Service, task: str) -> None:
    """No rule writes a verdict that deserves the name."""
    if service.provider == "offline":
        raise click.UsageError(f"{task} needs a language model; name one with --llm, or a recorded run with --replay")


@cli.command("retry", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "--input",
    "source",
    required=True,
    metavar="FILE|DIR",
    help="Rejects file of one of the commands here, or the folder with those of shards.",
)
@click.pass_context
def retry(context: click.Context, source: str) -> None:
    """Try the rows of a rejects file again, by the command that has rejected them.

    It takes the options of that command: --output, --llm, --model, --prompt and all others.
    """
    from stages.prepare_data_with_llm.rejects import command_of

    command = cli.commands[command_of(source, sorted(cli.commands))]
    # Where --all is about rows that have what is asked for: a row that was rejected was wanted all the same.
    wanted = ["--all"] if command in (generate_descriptions, judge) else []
    options = ["--input", source, *wanted, *context.args]
    with command.make_context(command.name, options, parent=context.parent) as inner:
        command.invoke(inner)


@cli.command("compare")
@click.argument("a", type=click.Path(exists=True, dir_okay=False))
@click.argument("b", type=click.Path(exists=True, dir_okay=False))
@click.option("--output", metavar="FILE", help="Markdown file to write.  [default: standard output]")
@click.option("--json", "facts", metavar="FILE", help="The same as JSON.")
@click.option(
    "--examples", default=10, type=click.IntRange(0), metavar="N", help="Pairs to show, most different first."
)
@click.option(
    "--judge",
    "verdicts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Ask a model which text of each pair is better, in both orders; FILE gets its verdicts.",
)
@deferred_options
def compare(
    a: str,
    b: str,
    output: str | None,
    facts: str | None,
    examples: int,
    verdicts: Path | None,
    service: Callable[[], Service],
    cache_dir: Path,
) -> None:
    """Lay two outputs for the same rows side by side: their texts, their cost, their differences."""
    from stages.prepare_data_with_llm import compare as comparing

    if verdicts:
        from stages.prepare_data_with_llm.preference import judged

        chosen = service()
        needs_a_model(chosen, "compare --judge")
        report, missing = judged(a, b, examples, verdicts, chosen)
    else:
        report, missing = comparing.compare(a, b, cache_dir, examples), None
    for path, data in ((output, comparing.markdown(report).encode()), (facts, schema.canonical(report))):
        if path:
            with schema.atomic(path) as file:
                file.write(data + b"\n")
    if not output:
        click.echo(comparing.markdown(report))
    if missing:
        raise missing


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
        options += ["--output", ".plan/nowhere"]  # neither a file nor a folder: a plan writes nothing
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
