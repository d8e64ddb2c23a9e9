"""Measure a model on held-out records: its loss, what it writes, and how much of that is sound.

    python evaluate_model.py loss --model runs/tiny/merged --data data_filtered/test.json --output runs/tiny/eval
    python evaluate_model.py generate --model runs/tiny/merged --data data_filtered/test.json --output runs/tiny/eval
    python filter_quality.py --input runs/tiny/eval/generated.jsonl --output runs/tiny/eval/tagged.jsonl --tag-only
    python evaluate_model.py score --data runs/tiny/eval/tagged.jsonl --output runs/tiny/eval
    python evaluate_model.py leakage --train train.json --data test.json --output runs/tiny/eval
    python evaluate_model.py compare runs/before/eval runs/tiny/eval
    python evaluate_model.py page runs/tiny/eval --before runs/before/eval
    python evaluate_model.py chat --model runs/tiny/merged

In    a model folder or a name on the hub, with or without an adapter, or a server that speaks like OpenAI; any record
      file, or a text file with a prompt on each line
Out   in the --output folder: loss.json and loss.jsonl (the loss of each row), generated.jsonl (records whose code is
      what the model wrote), scores.json, leakage.json; beside each its ledger, and beside the .jsonl files the rejects

What an answer is worth is said by filter_quality.py --tag-only, with --render if it is to be run; `score` counts it.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

import schema
from stages.evaluate_model import (
    anchors,
    asking,
    chat,
    files,
    leaks,
    measures,
    models,
    options,
    page,
    presets,
    running,
    server,
    tables,
)
from stages.evaluate_model.asking import Asker, Sampling
from stages.evaluate_model.local import weight_digests
from stages.evaluate_model.options import (
    ADAPTER,
    FILE,
    FOLDER,
    MODEL,
    NEAR,
    OUTPUT,
    SELECTION,
    SERVER,
    choice_options,
    opened,
)

VERBOSITY = schema.verbosity("Say more.")


def rated(record: schema.Record, loss: models.RowLoss) -> schema.Record:
    return asking.with_evaluation(record, {**loss._asdict(), "loss": round(loss.nll / loss.tokens, 6)})


class Commands(click.Group):
    """`evaluate` is another name of `loss`, known from older scripts."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return super().get_command(context, {"evaluate": "loss"}.get(name, name))


@click.group(cls=Commands, context_settings=schema.CONTEXT)
def cli() -> None:
    """Measure a model on held-out records."""
    schema.take_dotenv("HF_", server.KEY_NAME)


@cli.command()
@MODEL
@ADAPTER
@click.option("--data", "--test-file", required=True, metavar="FILE", type=FILE, help="Record file with held-out rows.")
@OUTPUT
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Rows that the model reads together.")
@SELECTION
@VERBOSITY
def loss(
    model: str, adapter: Path | None, data: Path, output: Path, where: str | None, limit: int | None, batch_size: int
) -> None:
    """Loss, perplexity and token accuracy of the reference answers; prompt tokens do not count."""
    models.require_training_packages()
    rows = output / files.LOSSES
    params: dict[str, Any] = {"model": model, "adapter": str(adapter) if adapter else None, "batch_size": batch_size}
    kept = []
    with (
        schema.run("evaluate_model", running.contract(data, rows, where, limit), params=params) as run,
        models.quiet_libraries(),
    ):
        loaded = models.load(model, adapter)
        records, items = running.admitted(run, lambda record: models.conversation(loaded, record))
        for record, row_loss in zip(records, models.all_losses(loaded, items, batch_size), strict=True):
            kept.append(rated(record, row_loss))
            run.keep(kept[-1])
        run.extra["weights"] = weight_digests(model, adapter)
    summary = measures.grouped(kept)
    files.write_json(output / "loss.json", {**summary, "rows_file": schema.file_facts(rows, near=output)})
    schema.log(f"  {tables.loss_line(summary['all'])}")


@cli.command()
@MODEL
@ADAPTER
@click.option("--with-base", is_flag=True, help="Ask the model without the adapter first; results in OUTPUT/base.")
@click.option(
    "--data", metavar="FILE", help="Record file with held-out rows; with --preset also OWNER/NAME on the hub."
)
@click.option(
    "--preset",
    type=click.Choice(list(presets.PRESETS)),
    help="Read --data as this benchmark was published, and ask as it is quoted.",
)
@click.option("--prompts", metavar="FILE", type=FILE, help="In place of --data: a text file, a prompt on each line.")
@OUTPUT
@click.option("--samples", default=1, type=click.IntRange(1, 1000), help="Answers to each prompt, for pass@k.")
@click.option("--batch-size", default=16, type=click.IntRange(1), help="Prompts that are answered together.")
@choice_options
@SERVER
@SELECTION
@VERBOSITY
def generate(
    model: str,
    adapter: Path | None,
    with_base: bool,
    data: str | None,
    preset: str | None,
    prompts: Path | None,
    output: Path,
    samples: int,
    where: str | None,
    limit: int | None,
    system: str | None,
    choice: Sampling,
    **others: Any,
) -> None:
    """Let the model answer each row's description. A killed run goes on where it was."""
    if samples > 1 and not choice.temperature:
        raise click.UsageError(f"--samples {samples} without a --temperature would be the same answer {samples} times")
    if with_base and not adapter:
        raise click.UsageError("--with-base needs an --adapter: without one the model is the base")
    if not others["base_url"]:
        models.require_training_packages()
    source = presets.find(preset, data) if preset else files.existing(data)
    if preset and options.is_left_out("max_new_tokens"):
        choice = choice._replace(max_new_tokens=presets.PRESETS[preset].max_new_tokens)
    params = {"model": model, **choice._asdict(), "samples": samples, "system": system}
    params |= {"preset": preset} if preset else {}
    told_server = {"server": server.host_of(others["base_url"] or ""), "parameters": others["parameters"]}
    params |= told_server if others["base_url"] else {}
    params |= {} if others["base_url"] else {"batch_size": others["batch_size"]}
    for folder, put_on in ([(output / "base", None)] if with_base else []) + [(output, adapter)]:
        asked = asking.write_asked(source, prompts, samples, folder, preset)
        setting = running.contract(asked, folder / files.GENERATED, where, limit and limit * samples, choice.seed)
        told = params | {"adapter": str(put_on) if put_on else None}
        ask = partial(opened, model, put_on, choice=choice, system=system, **others)
        running.write_answers(folder, setting, told, ask)


@cli.command()
@click.option("--data", required=True, metavar="FILE", type=FILE, help="Records that `generate` wrote, tagged or not.")
@OUTPUT
@click.option("--rejects", metavar="FILE", type=FILE, help="Rejects of `generate`.  [default: those beside --data]")
@click.option(
    "--train", metavar="FILE", type=FILE, help="What the model was trained on: score only if it has none of it."
)
@NEAR
@click.option("--published", metavar="FILE", type=FILE, help="Shares that others published on the same benchmark.")
@VERBOSITY
def score(
    data: Path, output: Path, rejects: Path | None, train: Path | None, near: float, published: Path | None
) -> None:
    """Shares of sound programs with their 95 % intervals; an answer that never came counts as a failed one."""
    files.refuse_part_of_the_answers(data)
    others = anchors.beside(published, data.parent) if published else None
    silent = rejects or data.with_name(files.REJECTED)
    failed, never_asked = files.failures(silent)
    rows = list(files.strictly(data))
    if train:
        found = leaks.report(train, files.strictly(train), [*rows, *failed], near)
        if found["leaked"]["passed"]:
            raise schema.Failure(f"{leaks.summary(found)}; `leakage` names them")
    scores = {**measures.scores([*rows, *failed]), "not_asked": never_asked}
    scores |= {"published": others} if others else {}
    scores |= {"benchmark": quoted} if (quoted := presets.summary([*rows, *failed])) else {}
    inputs = [data, *([silent] if silent.is_file() else [])]
    files.write_report(output / "scores.json", scores, inputs, len(rows), {"train": str(train) if train else None})
    schema.log(
        f"evaluate_model: {len(rows):,} answers and {scores['empty']:,} missing ones -> {output / 'scores.json'}"
    )
    told = [*(presets.lines(quoted) if quoted else []), *(anchors.lines(others) if others else [])]
    for line in [*tables.scores(scores), *told]:
        schema.log(f"  {line}")


@cli.command()
@click.option("--train", required=True, metavar="FILE", type=FILE, help="What the model was trained on.")
@click.option(
    "--data", required=True, metavar="FILE", type=FILE, help="Held-out rows, or what `generate` made of them."
)
@OUTPUT
@NEAR
@VERBOSITY
def leakage(train: Path, data: Path, output: Path, near: float) -> None:
    """Which held-out rows say the same as a training row; exit code 3 if there is one."""
    rows = list(files.strictly(data))
    found = leaks.report(train, files.strictly(train), rows, near)
    files.write_report(output / "leakage.json", found, [train, data], len(rows), {"near": near})
    if found["leaked"]["passed"]:
        raise schema.Incomplete(leaks.summary(found))
    schema.log(f"evaluate_model: none of the {found['leaked']['n']:,} held-out rows stands in {train}")


@cli.command()
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Also write it as JSON."
)
@click.option(
    "--texts", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the answers of both to each prompt, as Markdown.",
)  # fmt: skip
@VERBOSITY
def compare(a: Path, b: Path, output: Path | None, texts: Path | None) -> None:
    """Two evaluation folders (or record files), paired by prompt: what got better from A to B, and what worse."""
    written = (files.rows_of(a, files.GENERATED), files.rows_of(b, files.GENERATED))
    found = tables.side_by_side(written, (files.rows_of(a, files.LOSSES), files.rows_of(b, files.LOSSES)))
    if not found:
        raise schema.Failure(f"{a} and {b} have no evaluated row in common")
    if output:
        files.write_json(output, found)
    if texts:
        with schema.atomic(texts) as file:
            file.write("\n".join(tables.texts(*written)).encode() + b"\n")
    for line in tables.comparison(found):
        schema.log(line)


@cli.command("page")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--before", metavar="DIR", type=FOLDER, help="An earlier evaluation of the same rows.")
@click.option("--frames", metavar="DIR", type=FOLDER, help="Pictures that filter_quality.py --render --frames made.")
@click.option("--metrics", metavar="FILE", type=FILE, help="metrics.jsonl of train.py, for the curve of the loss.")
@VERBOSITY
def write_page(folder: Path, before: Path | None, frames: Path | None, metrics: Path | None) -> None:
    """DIR/index.html: scores, before and after, pictures, the worst answers; it opens without a network."""
    curve = files.loss_curve(metrics) if metrics else []
    content = page.build(folder, before, frames, curve)
    with schema.atomic(folder / "index.html") as file:
        file.write(content.encode())
    schema.log(f"evaluate_model: {folder / 'index.html'}")


@cli.command("chat")
@MODEL
@ADAPTER
@click.option("--prompt", metavar="TEXT", help="Ask only this, and end.")
@choice_options
@SERVER
@VERBOSITY
def talk(
    model: str,
    adapter: Path | None,
    prompt: str | None,
    system: str | None,
    choice: Sampling,
    **others: Any,
) -> None:
    """Talk with a model; what it says goes to standard output."""
    if not others["base_url"]:
        models.require_training_packages()

    def switch(name: str) -> Asker:
        return opened(model, None if name == "none" else Path(name), choice=choice, system=system, **others)

    with nullcontext() if others["base_url"] else models.quiet_libraries():
        talker = switch(str(adapter) if adapter else "none")
        if prompt:
            chat.once(talker, system, prompt)
        else:
            chat.interactive(talker, system, switch)


if __name__ == "__main__":
    schema.main(cli)
