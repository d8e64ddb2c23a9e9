"""Train a LoRA adapter on any record file, on the tokens of the answers alone.

    python train.py --data data_split/train.jsonl --eval-data data_split/valid.jsonl --output runs/first
    python train.py --data data_split/train.jsonl --model models/some-model --lr 1e-4 --on-long reject
    python train.py --data data/personas --adapters eli5,intuitive,executive --eval-split 0.1
    python train.py inspect --data data_split/train.jsonl --show-mask 2
    python train.py config init --output config.yaml

In    any record file; a base model: a folder, a name on the hub, or `tiny`, which is built from the rows, offline
Out   OUTPUT/adapter with the tokenizer it was trained with (OUTPUT/model for --method full); base/ (of tiny),
      config.yaml, metrics.jsonl, losses.jsonl (every row, by id), curves.html, ledger.json, rejects.jsonl with every
      row that is not trained on and the reason; train.log, what was said and when; checkpoints/ for --resume
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

import schema
from stages.train import (
    adapter,
    intake,
    journal,
    lengths,
    losses,
    machine,
    mlx,
    models,
    outcome,
    rows,
    settings,
    starts,
    tiny,
    trackers,
)
from stages.train.intake import Intake, Prepared, Source
from stages.train.tree import DataConfig, FineTuneConfig, ModelConfig, TrainingConfig

__all__ = ["DataConfig", "FineTuneConfig", "ModelConfig", "TrainingConfig"]

FILE = click.Path(exists=True, dir_okay=False)
OUTPUT = click.Path(file_okay=False, path_type=Path)


def base_folder(every: Sequence[rows.Row], speaker: rows.Speaker, config: FineTuneConfig, output: Path) -> Path:
    """Where the base model is; the tiny one is built first, unless it stands there from the same rows and settings."""
    if config.model.name != "tiny":
        return models.find_model(config.model.name)
    base = output / "base"
    if tiny.is_current(base, tiny.fingerprint(every, config)):
        schema.log(f"train: {base} is used again, it was built from the same rows and settings")
    else:
        tiny.build(every, speaker, config, base)
    return base


def train_one(
    prepared: Prepared, base: Path, config: FineTuneConfig, output: Path, team: machine.Team, *, resume: bool
) -> None:
    """One adapter, or one model that was trained in full, and what is known of its training."""
    dtype = models.choose_dtype(config.model.dtype)
    job = adapter.Job(prepared.train, prepared.held_out, prepared.speaker, base, dtype, config)
    target = output / ("model" if job.is_full else "adapter")
    # A folder is named as it is seen from the adapter, so that a run that is moved as a whole still fits together.
    is_folder = config.model.name == "tiny" or Path(config.model.name).is_dir()
    base_name = os.path.relpath(base, target) if is_folder else models.hub_name(config.model.name)
    model = models.load_model(base, "float32" if job.is_full else dtype, config)
    with trackers.settled(config.training.report_to, output):
        done = adapter.train(model, job, output / "checkpoints", team, resume=resume)
    weights = adapter.gathered(done.trainer)
    if not team.is_first:
        return
    with schema.folder(target) as staging:
        adapter.save(done.trainer, weights, job, base_name, staging)
    outcome.write_records(done, config, output)
    schema.log("train: the rows that were learned least: loss, id, source, description")
    for line in losses.suspicious(done.losses.lines, prepared.train):
        schema.log(line)


@contextmanager
def libraries(config: FineTuneConfig) -> Iterator[None]:
    models.require_packages(config)
    models.settle_environment(config.model.name)
    models.load_libraries()
    with models.quiet_libraries():
        yield


@contextmanager
def intakes(sources: Sequence[Source], team: machine.Team) -> Iterator[list[Intake]]:
    """Where the rejects of each source go; with several processes, those of the first."""
    with ExitStack() as stack:
        if not team.is_first:
            yield [Intake(lambda *_, **__: None) for _ in sources]
            return
        yield [
            Intake(stack.enter_context(schema.rejects(source.output, source.output / outcome.REJECTS, stage="train")))
            for source in sources
        ]


def prepare(sources: Sequence[Source], config: FineTuneConfig, takers: Sequence[Intake]) -> list[Prepared]:
    """Every row of every source, tokenized and checked; what stays outside is named before the first step."""
    taken = [intake.take(source, config, taker) for source, taker in zip(sources, takers, strict=True)]
    speaker = intake.find_speaker(taken, config)
    prepared = []
    for source, part, taker in zip(sources, taken, takers, strict=True):
        prepared.append(intake.encode(source, part, speaker, config, taker))
        taker.say()
    intake.refuse_drift(prepared[0])
    return prepared


config_option = click.option(
    "--config",
    "config_file",
    type=FILE,
    metavar="FILE",
    help="Settings in YAML, or an adapter_config.json of mlx; a flag wins over it.  "
    "[default: config.yaml where there is one]",
)


@click.group(cls=schema.group("train"), context_settings=schema.CONTEXT)
def cli() -> None:
    """Train a LoRA adapter, look at what would be trained, write and check settings. Without a command: train."""
    starts.load_dotenv()


@cli.command("train")
@click.option(
    *("--output", "-o"),
    default=starts.default_output,
    show_default="runs/default",
    envvar="OUTPUT_DIR",
    type=OUTPUT,
    metavar="DIR",
    help="Folder of the run.",
)
@click.option(
    "--adapters",
    metavar="A,B,...",
    help="One adapter for each name, on one base: --data is a folder with A.jsonl or A/train.jsonl, ...",
)
@click.option("--resume", is_flag=True, help="Go on from the newest whole checkpoint of the same run.")
@click.option("--qlora", is_flag=True, help="The same as --method qlora.")
@click.option(
    "--backend",
    default="trl",
    type=click.Choice(["trl", "mlx"]),
    help="mlx writes OUTPUT/mlx for Apple's mlx-lm, and runs it where it is installed.",
)
@click.option(
    "--world-size",
    envvar="LINEMILL_WORLD_SIZE",
    type=click.IntRange(1),
    metavar="N",
    help="Stop unless N processes take part (torchrun); the environment may say it, too (LINEMILL_WORLD_SIZE).",
)
@config_option
@settings.flags()
@schema.verbosity("Every step, and what the libraries warn of.")
def train_command(
    output: Path,
    adapters: str | None,
    resume: bool,
    qlora: bool,
    backend: str,
    world_size: int | None,
    config_file: str | None,
    **flags: Any,
) -> None:
    """Train a LoRA adapter on DATA."""
    config = settings.resolve(config_file, flags | ({"training__method": "qlora"} if qlora else {}))
    settings.refuse_contradictions(config)
    sources = intake.sources(config, adapters, output)
    team = machine.Team()
    team.check(world_size)
    if backend == "mlx":
        mlx.refuse(config)
    with libraries(config), ExitStack() as stack:
        if team.is_first:
            stack.enter_context(schema.lock(output))
            stack.enter_context(journal.kept(output))
        else:
            schema.set_verbosity(-1)
        machine.tell_of_termination()
        team.join(fsdp=config.training.fsdp)
        if backend == "mlx":
            hand_to_mlx(sources, config, output)
        else:
            train_all(sources, config, output, team, resume=resume)


def train_all(
    sources: Sequence[Source], config: FineTuneConfig, output: Path, team: machine.Team, *, resume: bool
) -> None:
    for doubt in settings.doubts(config):
        schema.log(f"train: warning: {doubt}")
    with intakes(sources, team) as takers:
        prepared = prepare(sources, config, takers)
        every = [row for part in prepared for row in part.train]
        with team.first_alone():
            base = base_folder(every, prepared[0].speaker, config, output)
        for source, part in zip(sources, prepared, strict=True):
            train_one(part, base, config, source.output, team, resume=resume)
    if team.is_first:
        for source, part, taker in zip(sources, prepared, takers, strict=True):
            result = source.output / ("model" if config.training.method == "full" else "adapter")
            outcome.write_ledger(source, part, taker, config, result)


def hand_to_mlx(sources: Sequence[Source], config: FineTuneConfig, output: Path) -> None:
    with intakes(sources, machine.Team()) as takers:
        prepared = prepare(sources, config, takers)
    every = [row for part in prepared for row in part.train]
    is_tiny = config.model.name == "tiny"
    base = (
        str(base_folder(every, prepared[0].speaker, config, output)) if is_tiny else models.hub_name(config.model.name)
    )
    for source, part, taker in zip(sources, prepared, takers, strict=True):
        folder = source.output / "mlx"
        command = mlx.write(part, mlx.readable(base, output / "mlx-base"), config, folder)
        outcome.write_ledger(source, part, taker, config, folder)
        mlx.run(command, folder)


@cli.command()
@click.option("--show-mask", default=0, type=click.IntRange(0), metavar="N", help="Show the tokens of N rows.")
@config_option
@settings.flags("model", "data", "tiny")
@schema.verbosity()
def inspect(show_mask: int, config_file: str | None, **flags: Any) -> None:
    """Show how long the rows of DATA are, and which of their tokens would be trained."""
    config = settings.resolve(config_file, flags)
    source = intake.sources(config, None, Path())[0]
    with libraries(config):
        taker = Intake(lambda *_, **__: None)
        whole = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, max_length=2**31))
        prepared = prepare([source], whole, [taker])[0]
    limit = config.data.max_length
    long = sum(len(row.ids) > limit for row in prepared.train)
    click.echo(lengths.table(prepared.train))
    click.echo(f"{len(prepared.train):,} rows, {long:,} of them longer than {limit:,} tokens")
    click.echo(lengths.filling(prepared.train, limit, config.training.batch_size))
    for code, count in taker.reasons.most_common():
        click.echo(f"{count:,} rows can not be trained on: {code}")
    for number, row in enumerate(islice(prepared.train, show_mask), 1):
        click.echo(f"\nrow {number}: {row.prompt:,} tokens of prompt, {row.answer:,} [trained]; id {row_id(row)}")
        click.echo("".join(shown(text, trained) for text, trained in rows.marked(prepared.speaker, row)))


def row_id(row: rows.Row) -> str:
    return str(row.record["metadata"]["id"])


def shown(text: str, trained: bool) -> str:
    """A trained token stands in brackets; on a terminal it is green, too."""
    visible = text.replace("\n", "\\n\n")
    return click.style(f"[{visible}]", fg="green") if trained else visible


@cli.command("templates")
@click.argument("name", required=False)
def show_templates(name: str | None) -> None:
    """List the wordings that --template knows, or show one; NAME may be a YAML file of your own."""
    from stages.train import templates

    click.echo(templates.find(name) if name else "\n".join(templates.NAMED))


@cli.command("models")
def show_models() -> None:
    """List the short names of models, and what they stand for."""
    for name, full in models.SHORTCUTS.items():
        click.echo(f"{name:<20}{full}")


@cli.group("config")
def config_commands() -> None:
    """Write, check and show the settings of a training."""


@config_commands.command("init")
@click.option("--output", default=settings.DEFAULT_FILE, metavar="FILE", help='File to write; "-" shows it.')
@click.option("--template", default="default", type=click.Choice(list(starts.TEMPLATES)), help="What to start from.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init_config(output: str, template: str, force: bool) -> None:
    """Write a file with every setting, its value and its meaning."""
    about, tree = starts.TEMPLATES[template]
    text = settings.to_yaml(settings.check(tree, template), about)
    if output == "-":
        click.echo(text, nl=False)
        return
    if Path(output).exists() and not force:
        raise click.UsageError(f"{output} is there already; --force replaces it, --output names another file")
    with schema.atomic(output) as file:
        file.write(text.encode())
    schema.log(f"train: the settings of the template {template} -> {output}")


@config_commands.command("validate")
@click.option(
    "--config", "config_file", default=settings.DEFAULT_FILE, type=FILE, metavar="FILE", help="File to check."
)
def validate_config(config_file: str) -> None:
    """Check that a file holds only settings that exist, with values that they take and that fit together."""
    config = settings.resolve(config_file, {})
    settings.refuse_contradictions(config)
    for doubt in settings.doubts(config):
        schema.log(f"train: {config_file}: warning: {doubt}")
    schema.log(f"train: {config_file}: all settings are known, all values are in their range")


@config_commands.command("show")
@config_option
@settings.flags()
def show_config(config_file: str | None, **flags: Any) -> None:
    """Show the settings that a training with this file, this environment and these flags would have."""
    click.echo(settings.to_yaml(settings.resolve(config_file, flags)), nl=False)


if __name__ == "__main__":
    schema.main(cli)
