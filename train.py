"""Train a LoRA adapter on any record file, on the tokens of the answers alone.

    python train.py --data data_split/train.jsonl --eval-data data_split/valid.jsonl --output runs/first
    python train.py --data data_split/train.jsonl --model models/some-model --lr 1e-4 --on-long reject
    python train.py inspect --data data_split/train.jsonl --show-mask 2
    python train.py config init --output config.yaml

In    any record file; a base model: a folder, a name on the hub, or `tiny`, which is built from the rows, offline
Out   OUTPUT/adapter with the tokenizer it was trained with; base/ (of tiny), config.yaml, metrics.jsonl, ledger.json,
      rejects.jsonl with every row that is not trained on and the reason; checkpoints/ for --resume
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

import schema
from stages.train import adapter, models, rows, settings, tiny

if TYPE_CHECKING:
    from trl import SFTTrainer

FILE = click.Path(exists=True, dir_okay=False)
OUTPUT = click.Path(file_okay=False, path_type=Path)
LEDGER, METRICS, REJECTS = "ledger.json", "metrics.jsonl", "rejects.jsonl"


class Intake:
    """Takes what is not trained on, and counts it by reason."""

    def __init__(self, put: schema.Reject):
        self.put = put
        self.reasons: Counter[str] = Counter()
        self.example = ""

    def __call__(self, item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        self.reasons[code] += 1
        self.example = self.example or message
        self.put(item, message, code=code, line=line)


class Prepared(NamedTuple):
    """What both sides of the data came to."""

    train: list[rows.Row]
    held_out: list[rows.Row]
    speaker: rows.Speaker


def prepare(data: str, eval_data: str | None, config: settings.Config, intake: Intake) -> Prepared:
    """Read, tokenize and check every row, before anything expensive happens."""
    records = list(rows.usable(data, intake))
    if not records:
        raise schema.Failure(no_rows(data, intake))
    held_out = list(rows.usable(eval_data, intake)) if eval_data else []
    if config.model.name == "tiny":
        speaker = tiny.build_speaker(records, config)
    else:
        speaker = models.load_speaker(models.find_model(config.model.name))
    train_rows = fitting(encoded(records, speaker, intake), speaker, config.data, intake, data)
    if not train_rows:
        raise schema.Failure(no_rows(data, intake))
    return Prepared(
        train_rows, fitting(encoded(held_out, speaker, intake), speaker, config.data, intake, str(eval_data)), speaker
    )


def no_rows(data: str, intake: Intake) -> str:
    reasons = ", ".join(f"{count:,} {code}" for code, count in intake.reasons.most_common(3))
    why = f"{reasons}; the first: {intake.example}" if reasons else "it is empty"
    return f"{data}: no row can be trained on ({why})"


def encoded(records: Sequence[schema.Record], speaker: rows.Speaker, reject: schema.Reject) -> list[rows.Row]:
    found = []
    for record in records:
        row = rows.encode(speaker, record)
        if isinstance(row, schema.Fault):
            reject(record, row.message, code=row.code)
        else:
            found.append(row)
    return found


def fitting(
    found: list[rows.Row], speaker: rows.Speaker, told: settings.Data, reject: schema.Reject, name: str
) -> list[rows.Row]:
    """The rows that are short enough, after what --on-long says was done with the others."""
    limit = told.max_length
    if all(len(row.ids) <= limit for row in found):
        return found
    if told.on_long == "fail":
        schema.log(rows.table(found))
        raise schema.Failure(f"{name}: {rows.long_rows_cost(speaker, found, limit)}")
    fits = []
    for row in found:
        shorter: rows.Row | schema.Fault = row
        if len(row.ids) > limit:
            fault = schema.Fault("too_long", f"{len(row.ids):,} tokens, at most {limit:,} are trained on")
            shorter = rows.trim(speaker, row, limit) if told.on_long == "trim-prompt" else fault
        if isinstance(shorter, schema.Fault):
            reject(row.record, shorter.message, code=shorter.code)
        else:
            fits.append(shorter)
    return fits


def base_folder(prepared: Prepared, config: settings.Config, output: Path) -> Path:
    """Where the base model is; the tiny one is built first, unless it stands there from the same rows and settings."""
    if config.model.name != "tiny":
        return models.find_model(config.model.name)
    base = output / "base"
    if tiny.is_current(base, tiny.fingerprint(prepared.train, config)):
        schema.log(f"train: {base} is used again, it was built from the same rows and settings")
    else:
        tiny.build(prepared.train, prepared.speaker, config, base)
    return base


def train_adapter(prepared: Prepared, config: settings.Config, output: Path, *, resume: bool) -> SFTTrainer:
    base = base_folder(prepared, config, output)
    dtype = models.choose_dtype(config.model.dtype)
    speaker = models.load_speaker(base)
    job = adapter.Job(prepared.train, prepared.held_out, speaker, base, dtype, config)
    # A folder is named as it is seen from the adapter, so that a run that is moved as a whole still fits together.
    is_folder = config.model.name == "tiny" or Path(config.model.name).is_dir()
    base_name = os.path.relpath(base, output / "adapter") if is_folder else config.model.name
    with schema.folder(output / "adapter") as staging:
        trainer = adapter.train(models.load_model(base, dtype), job, output / "checkpoints", resume=resume)
        adapter.save(trainer, job, base_name, staging)
    return trainer


def write_records_of_the_run(trainer: SFTTrainer, config: settings.Config, output: Path) -> None:
    with schema.atomic(output / "config.yaml") as file:
        file.write(settings.to_yaml(config).encode())
    with schema.atomic(output / METRICS) as file:
        for entry in adapter.metrics(trainer):
            file.write(schema.encode(entry) + b"\n")


def write_ledger(data: list[str], prepared: Prepared, intake: Intake, config: settings.Config, output: Path) -> None:
    kept, rejected = len(prepared.train) + len(prepared.held_out), intake.reasons.total()
    schema.write_ledger(
        output / LEDGER,
        stage="train",
        inputs=data,
        outputs=[],
        rejects=output / REJECTS,
        files=[*sorted((output / "adapter").iterdir()), output / "config.yaml", output / METRICS],
        counts={"in": kept + rejected, "kept": kept, "rejected": rejected, "merged": 0},
        reasons=dict(intake.reasons),
        options=msgspec.to_builtins(config),
        extra={
            "trained_rows": len(prepared.train),
            "held_out_rows": len(prepared.held_out),
            "trained_tokens": sum(row.answer for row in prepared.train),
        },
    )
    for code, count in intake.reasons.most_common():
        schema.log(f"  {count:,} {code}")
    schema.log(
        f"train: {kept + rejected:,} in, {kept:,} kept ({len(prepared.train):,} trained, "
        f"{len(prepared.held_out):,} held out), {rejected:,} rejected -> {output / 'adapter'}"
    )


@contextmanager
def libraries(config: settings.Config) -> Iterator[None]:
    models.require_packages()
    models.settle_environment(config.model.name)
    with models.quiet_libraries():
        yield


def be_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        schema.set_verbosity(-1)


quiet = click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=be_quiet, help="Only errors.")
config_option = click.option(
    "--config",
    "config_file",
    type=FILE,
    metavar="FILE",
    help="Settings in YAML; a flag wins over it.  [default: config.yaml where there is one]",
)


@click.group(cls=schema.group("train"), context_settings=schema.CONTEXT)
def cli() -> None:
    """Train a LoRA adapter, look at what would be trained, write and check settings. Without a command: train."""


@cli.command("train")
@click.option("--data", required=True, type=FILE, metavar="FILE", help="Record file of any known shape.")
@click.option("--eval-data", type=FILE, metavar="FILE", help="Held-out records: their loss is taken each epoch.")
@click.option("--output", default="runs/default", type=OUTPUT, metavar="DIR", help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the newest whole checkpoint of the same run.")
@config_option
@settings.flags()
@quiet
def train_command(
    data: str, eval_data: str | None, output: Path, resume: bool, config_file: str | None, **flags: Any
) -> None:
    """Train a LoRA adapter on DATA."""
    config = settings.resolve(config_file, flags)
    with libraries(config), schema.lock(output):
        with schema.rejects(output, output / REJECTS, stage="train") as put:
            intake = Intake(put)
            prepared = prepare(data, eval_data, config, intake)
            trainer = train_adapter(prepared, config, output, resume=resume)
            write_records_of_the_run(trainer, config, output)
        write_ledger([data, eval_data] if eval_data else [data], prepared, intake, config, output)


@cli.command()
@click.option("--data", required=True, type=FILE, metavar="FILE", help="Record file of any known shape.")
@click.option("--show-mask", default=0, type=click.IntRange(0), metavar="N", help="Show the tokens of N rows.")
@config_option
@settings.flags("model", "data", "tiny")
@quiet
def inspect(data: str, show_mask: int, config_file: str | None, **flags: Any) -> None:
    """Show how long the rows of DATA are, and which of their tokens would be trained."""
    config = settings.resolve(config_file, flags)
    with libraries(config):
        intake = Intake(lambda *_, **__: None)
        whole = msgspec.structs.replace(config, data=settings.Data(max_length=2**31))
        prepared = prepare(data, None, whole, intake)
    limit = config.data.max_length
    long = sum(len(row.ids) > limit for row in prepared.train)
    click.echo(rows.table(prepared.train))
    click.echo(f"{len(prepared.train):,} rows, {long:,} of them longer than {limit:,} tokens")
    for code, count in intake.reasons.most_common():
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


@cli.group("config")
def config_commands() -> None:
    """Write, check and show the settings of a training."""


@config_commands.command("init")
@click.option("--output", default=settings.DEFAULT_FILE, metavar="FILE", help='File to write; "-" shows it.')
@click.option("--template", default="default", type=click.Choice(["default"]), help="What to start from.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init_config(output: str, template: str, force: bool) -> None:
    """Write a file with every setting, its default and its meaning."""
    text = settings.to_yaml(settings.Config())
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
    """Check that a file holds only settings that exist, with values that they take."""
    settings.resolve(config_file, {})
    schema.log(f"train: {config_file}: all settings are known, all values are in their range")


@config_commands.command("show")
@config_option
@settings.flags()
def show_config(config_file: str | None, **flags: Any) -> None:
    """Show the settings that a training with this file and these flags would have."""
    click.echo(settings.to_yaml(settings.resolve(config_file, flags)), nl=False)


if __name__ == "__main__":
    schema.main(cli)
