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
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from schema import Contract
from stages.prepare_data_with_llm import keys
from stages.prepare_data_with_llm.prompt import DEFAULT, load
from stages.prepare_data_with_llm.rows import describe_offline, is_wanted

if TYPE_CHECKING:
    from stages.prepare_data_with_llm.online import Job

STAGE = "generate-descriptions"
CACHE = ".cache/llm"
URL_NAMES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Have a language model write what the data lacks, and keep every answer."""


def cache_option(command: Any) -> Any:
    return click.option(
        "--cache-dir", default=CACHE, type=click.Path(path_type=Path), help="Folder that keeps every answer."
    )(command)


@cli.command("generate-descriptions")
@schema.options
@click.option(
    "--llm",
    type=click.Choice(["offline", "openai", "claude", "anthropic"]),
    help="Who writes.  [default: whose key is there; offline without a key]",
)
@click.option("--model", help="Model to ask.  [default: gpt-4o-mini, claude-haiku-5-5]")
@click.option("--base-url", metavar="URL", help="Another server that speaks the provider's protocol.")
@click.option("--concurrency", default=16, type=click.IntRange(1, 4096), help="Calls under way at the same time.")
@click.option("--rpm", type=click.IntRange(1), metavar="N", help="Most calls in a minute.  [default: no limit]")
@click.option("--retries", default=5, type=click.IntRange(0, 100), help="Further attempts after a passing failure.")
@click.option("--timeout", default=120.0, type=click.FloatRange(0.1), metavar="S", help="Seconds for one call.")
@click.option("--max-tokens", default=400, type=click.IntRange(16), metavar="N", help="Longest answer, in tokens.")
@click.option("--prompt", type=click.Path(path_type=Path), metavar="FILE", help="Prompt file to use instead of ours.")
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="File with nothing but the key.")
@click.option("--all", "everything", is_flag=True, help="Describe every row, also those that have a description.")
@click.option("--dry-run", is_flag=True, help="Say what would be asked, ask nothing, write nothing.")
@cache_option
def generate_descriptions(contract: Contract, llm: str | None, cache_dir: Path, dry_run: bool, **asked: Any) -> None:
    """Describe programs as the requests that they answer."""
    for name in ("prompt", "api_key_file"):
        if asked[name] and not asked[name].is_file():
            raise click.UsageError(f"--{name.replace('_', '-')} {asked[name]}: there is no such file")
    provider, key = keys.choose(llm, asked["api_key_file"])
    if llm is None:
        schema.log(f"--llm {provider}: " + ("its key is here" if key else "there is no key, so nobody is asked"))
    if provider == "offline":
        run_offline(contract, asked["everything"], dry_run)
        return
    job = plan(provider, **asked)
    if dry_run:
        rehearse_online(contract, job, cache_dir)
        return
    run_online(contract, job, key, cache_dir, **asked)


def plan(provider: str, model: str | None, base_url: str | None, prompt: Path | None, **asked: Any) -> Job:
    """What is asked of whom, with what the user left open filled in."""
    from urllib.parse import urlsplit

    from stages.prepare_data_with_llm.online import Job
    from stages.prepare_data_with_llm.providers import DEFAULT_MODELS, DEFAULT_URLS

    url = base_url or os.environ.get(URL_NAMES[provider]) or DEFAULT_URLS[provider]
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise click.UsageError(f"--base-url {url}: it begins with http:// or https:// and names a host")
    model = model or DEFAULT_MODELS[provider]
    return Job(provider, model, url, load(prompt or DEFAULT), asked["max_tokens"], asked["everything"])


def run_offline(contract: Contract, everything: bool, dry_run: bool) -> None:
    """Rows are independent of each other here, so that --workers share them."""
    from stages.prepare_data_with_llm.offline import NAME

    if dry_run:
        with rehearsal(contract) as run:
            wanted = [is_wanted(record, everything) for record in run.records()]
            click.echo(f"{len(wanted):,} rows, {sum(wanted):,} to be described by {NAME}\nnothing was written")
        return
    with schema.run(STAGE, contract, params={"llm": NAME, "all": everything}) as run:
        run.map(functools.partial(describe_offline, everything=everything))


def run_online(contract: Contract, job: Job, key: str, cache_dir: Path, **asked: Any) -> None:
    from stages.prepare_data_with_llm.answers import open_answers
    from stages.prepare_data_with_llm.engine import Limits
    from stages.prepare_data_with_llm.online import describe_online

    limits = Limits(asked["concurrency"], asked["rpm"], asked["retries"])
    params = {"llm": job.author, "prompt": job.prompt.name, "all": job.everything}
    with open_answers(cache_dir) as answers, schema.run(STAGE, contract, params=params) as run:
        describe_online(run, job, answers, limits, key, asked["timeout"])


def rehearse_online(contract: Contract, job: Job, cache_dir: Path) -> None:
    from stages.prepare_data_with_llm.answers import open_answers
    from stages.prepare_data_with_llm.online import rehearse

    is_there = (cache_dir / "cache.db").exists()
    with open_answers(cache_dir) if is_there else nullcontext() as answers, rehearsal(contract) as run:
        click.echo("\n".join(rehearse(run.records(), job, answers)))


@contextmanager
def rehearsal(contract: Contract) -> Iterator[schema.Run]:
    """A run whose files nobody sees: the same rows are taken as in a real one, and nothing is left of it."""

    class Over(Exception):
        pass

    with tempfile.TemporaryDirectory() as folder:
        places = replace(contract, output=f"{folder}/out.jsonl", rejects=f"{folder}/rejects.jsonl")
        try:
            with schema.run(STAGE, places, params={}) as run:
                yield run
                raise Over
        except Over:
            return


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
