"""Fine-tune a model on any record file: a LoRA adapter whose loss counts the answers alone.

    python train.py --data data_split/train.jsonl --eval-data data_split/valid.jsonl
    python train.py --data data_enhanced/train.json --model Qwen/Qwen2.5-Coder-1.5B-Instruct --output runs/qwen
    python train.py inspect --data data_split/train.jsonl --show-mask 2
    python train.py config init --output config.yaml

In    a record file of any known shape; config.yaml of the current folder, if there is one; flags win over it
Out   OUTPUT/adapter, OUTPUT/base (only for --model tiny), metrics.jsonl, config.yaml as it was used, rejects.jsonl
      with every row that was not trained on, ledger.json
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from stages.train import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stages.train.rows import Row, Usable

STAGE = "train"
Given = dict[tuple[str, str], Any]
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_records(path: Path, reject: schema.Reject) -> list[schema.Record]:
    return [schema.adopt(record) for record in schema.progress(schema.read(path, reject), str(path))]


def put_aside(usable: Usable, reject: schema.Reject, reasons: Counter[str]) -> list[Row]:
    """Write down what is not trained on; the rest is returned."""
    for record, fault in usable.rejected:
        reject(record, fault.message, code=fault.code)
    for name, count in Counter(fault.code for _, fault in usable.rejected).items():
        schema.log(f"  {count:,} {name}")
    reasons.update(fault.code for _, fault in usable.rejected)
    return usable.rows


def counting(put: schema.Reject, reasons: Counter[str]) -> schema.Reject:
    """A reject function for lines that are no records."""

    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        reasons[code] += 1
        put(item, message, code=code, line=line)

    return reject


def base_for(config: settings.Config, records: list[schema.Record], output: Path) -> str:
    """The base model: what was named, or the tiny one, built if need be."""
    if config.model.model != "tiny":
        return config.model.model
    from stages.train import tiny

    return str(tiny.build(output / "base", records, config))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with schema.atomic(path) as file:
        for row in rows:
            file.write(schema.encode(row) + b"\n")


def write_text(path: Path, text: str) -> None:
    with schema.atomic(path) as file:
        file.write(text.encode())


def resolve(config: Path | None, given: Given) -> settings.Config:
    """The settings; without --config, those of config.yaml in the current folder."""
    if config and not config.is_file():
        raise click.UsageError(f"--config {config}: there is no such file; python train.py config init writes one")
    here = Path("config.yaml")
    return settings.resolve(config or (here if here.is_file() else None), given)


def require_packages() -> None:
    # Read when torch is loaded: threads that wait without spinning leave the processor to those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for package in ("torch", "transformers", "peft", "trl", "datasets"):
        if find_spec(package) is None:
            raise click.UsageError(f"train needs the package {package}: pip install 'linemill[train]'")


def quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    def tell(context: click.Context, option: click.Parameter, value: bool) -> None:
        schema.set_verbosity(-1 if value else 0)

    said: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": tell}
    return click.option("-q", "--quiet", help="Say nothing but errors.", **said)(command)


CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings.  [default: config.yaml, if it is there]",
)


@click.group(cls=schema.group("train"), context_settings=schema.CONTEXT)
def cli() -> None:
    """Fine-tune a model on any record file. Without a command: train."""


@cli.command()
@click.option("--data", required=True, type=FILE, metavar="FILE", help="Records to train on, of any known shape.")
@click.option("--eval-data", type=FILE, metavar="FILE", help="Records whose loss is measured after each epoch.")
@click.option(
    "--output", default="runs/default", type=click.Path(file_okay=False, path_type=Path), help="Folder of this run."
)
@click.option("--resume", is_flag=True, help="Go on from the newest complete checkpoint of OUTPUT.")
@CONFIG
@settings.flags
@quiet
def train(data: Path, eval_data: Path | None, output: Path, resume: bool, config: Path | None, given: Given) -> None:
    """Train a LoRA adapter."""
    told = resolve(config, given)
    require_packages()
    with schema.lock(output):
        run(data, eval_data, output, told, resume=resume)


def run(data: Path, eval_data: Path | None, output: Path, config: settings.Config, *, resume: bool) -> None:
    from stages.train import adapter

    reasons: Counter[str] = Counter()
    with adapter.quiet_libraries(), schema.rejects(output, output / "rejects.jsonl", stage=STAGE) as put:
        records = read_records(data, counting(put, reasons))
        described = [record for record in records if record["description"].strip()]
        if not described:
            raise schema.Failure(no_rows(data, records, reasons))
        base = base_for(config, described, output)
        tokenizer = adapter.load_tokenizer(base)
        rows = put_aside(judge(records, tokenizer, config), put, reasons)
        if not rows:
            raise schema.Failure(no_rows(data, records, reasons))
        kept_aside = (
            put_aside(judge(read_records(eval_data, put), tokenizer, config), put, Counter()) if eval_data else []
        )
        model = adapter.load_model(base, config.model.dtype)
        name = adapter.base_name(base, output / "adapter")
        steps = adapter.train(model, tokenizer, rows, kept_aside, config, output, name, resume=resume)
    finish(data, eval_data, output, config, steps, len(rows), reasons)


def judge(records: list[schema.Record], tokenizer: PreTrainedTokenizerBase, config: settings.Config) -> Usable:
    from stages.train.rows import usable

    return usable(records, tokenizer, config.data)


def no_rows(data: Path, records: list[schema.Record], reasons: Counter[str]) -> str:
    waiting = sum(not record["description"].strip() for record in records)
    why = [f"{waiting:,} have no description (prepare_data_with_llm.py writes them)"] if waiting else []
    why += [f"{count:,} {name}" for name, count in reasons.items()]
    return f"{data}: there is no row to train on: {', '.join(why) or 'the file is empty'}"


def finish(
    data: Path,
    eval_data: Path | None,
    output: Path,
    config: settings.Config,
    steps: list[dict[str, Any]],
    kept: int,
    reasons: Counter[str],
) -> None:
    """What a run leaves beside the adapter; the ledger comes last and says that the run is complete."""
    write_lines(output / "metrics.jsonl", steps)
    write_text(output / "config.yaml", settings.to_yaml(config, comments=False))
    rejected = reasons.total()
    files = [path for folder in ("base", "adapter") for path in sorted((output / folder).glob("*")) if path.is_file()]
    schema.write_ledger(
        output / "ledger.json",
        stage=STAGE,
        inputs=[data, *([eval_data] if eval_data else [])],
        outputs=[],
        files=[*files, output / "config.yaml"],
        counts={"in": kept + rejected, "kept": kept, "rejected": rejected, "merged": 0},
        reasons=dict(reasons),
        options={leaf.flag[2:]: getattr(getattr(config, leaf.section), leaf.name) for leaf in settings.leaves()},
        extra={"last": steps[-1] if steps else None},
    )
    schema.log(f"{STAGE}: {kept + rejected:,} in, {kept:,} trained on, {rejected:,} rejected -> {output / 'adapter'}")


@cli.command()
@click.option("--data", required=True, type=FILE, metavar="FILE", help="Records to look at.")
@click.option("--show-mask", default=0, type=click.IntRange(0), metavar="N", help="Show what is learnt of N rows.")
@CONFIG
@settings.flags
def inspect(data: Path, show_mask: int, config: Path | None, given: Given) -> None:
    """Lengths in tokens, every row that would be rejected, and which tokens are learnt. Trains nothing."""
    from stages.train.rows import masked_text, percentiles

    told = resolve(config, given)
    require_packages()
    told.data.on_long = "reject"  # here they are counted, not acted on
    from stages.train import adapter, tiny

    reasons: Counter[str] = Counter()
    with adapter.quiet_libraries():
        records = read_records(data, counting(lambda *_, **__: None, reasons))
        is_tiny = told.model.model == "tiny"
        tokenizer = tiny.make_tokenizer(records, told.tiny) if is_tiny else adapter.load_tokenizer(told.model.model)
        found = judge(records, tokenizer, told)
    reasons.update(fault.code for _, fault in found.rejected)
    click.echo(f"{len(found.rows):,} rows can be trained on, {reasons.total():,} can not")
    for name, count in reasons.most_common():
        click.echo(f"  {count:,} {name}")
    if found.rows:
        click.echo(f"tokens: {percentiles([len(row.tokens) for row in found.rows])}")
        click.echo(f"of the answers: {percentiles([len(row.tokens) - row.start for row in found.rows])}")
    for row in found.rows[:show_mask]:
        show(masked_text(row, tokenizer))


def show(facts: dict[str, Any]) -> None:
    click.echo(f"\n{facts['id'][:12]}: {facts['tokens']:,} tokens; what is learnt stands between >>> and <<<")
    click.echo(f"{facts['read']}>>>{click.style(facts['learnt'], fg='green')}<<<")


@cli.group("config")
def config_group() -> None:
    """Write, check or show the settings."""


@config_group.command()
@click.option("--output", default="config.yaml", type=click.Path(path_type=Path), help="File to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(output: Path, force: bool) -> None:
    """Write all settings with their defaults, each with what it means."""
    if output.exists() and not force:
        raise click.UsageError(f"{output} is already there; --force writes over it")
    write_text(output, settings.to_yaml(settings.Config()))
    schema.log(f"{STAGE}: {output} written")


@config_group.command()
@CONFIG
def validate(config: Path | None) -> None:
    """Say whether a settings file can be used; exit code 2 when it can not."""
    resolve(config, {})
    schema.log(f"{STAGE}: {config or 'config.yaml'}: every setting is known and in range")


@config_group.command("show")
@CONFIG
@settings.flags
def show_config(config: Path | None, given: Given) -> None:
    """Print the settings as a training would use them."""
    click.echo(settings.to_yaml(resolve(config, given), comments=False), nl=False)


if __name__ == "__main__":
    schema.main(cli)
