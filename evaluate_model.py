"""Measure a model on held-out records: its loss, what it writes, and how much of that is sound.

    python evaluate_model.py loss --model runs/tiny/merged --data data_filtered/test.json --output runs/tiny/eval
    python evaluate_model.py generate --model runs/tiny/merged --data data_filtered/test.json --output runs/tiny/eval
    python evaluate_model.py score --data runs/tiny/eval/generated.jsonl --output runs/tiny/eval
    python evaluate_model.py compare runs/before/eval runs/tiny/eval

In    a model folder or a name on the hub, with or without an adapter; any record file
Out   in the --output folder: loss.json and loss.jsonl (the loss of each row), generated.jsonl (records whose code is
      what the model wrote), scores.json; beside each its ledger, and beside the .jsonl files the rejected rows

Between `generate` and `score`, filter_quality.py --tag-only may add its findings to the rows; `score` counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

import schema
from stages.evaluate_model import measures, models

Item = TypeVar("Item")
Result = TypeVar("Result")
Command = Callable[..., Any]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
TARGET = click.Path(file_okay=False, path_type=Path)
GENERATED = "generated.jsonl"
REJECTED = "generated.rejects.jsonl"
LOSSES = "loss.jsonl"


def contract(data: Path, output: Path, where: str | None, limit: int | None) -> schema.Contract:
    """The same promises as any stage from file to file: rejects, a ledger, atomic outputs."""
    rejects = schema.rejects_path(output)
    if any(place.exists() and data.samefile(place) for place in (output, Path(rejects))):
        raise click.UsageError(f"--data {data} is a file that this command writes; name another --output")
    return schema.Contract(
        input=str(data),
        output=str(output),
        rejects=rejects,
        where=where,
        limit=limit,
        seed=0,  # nothing here is left to chance
        workers=1,
        strict=False,
        max_reject_rate=None,
        engine="local",
    )


def admitted(
    run: schema.Run, prepare: Callable[[schema.Record], Item | schema.Fault]
) -> tuple[list[schema.Record], list[Item]]:
    """The rows that the model can take, and what it will see of them; every other row is rejected with its reason."""
    records, items = [], []
    for record in run.records():
        item = prepare(record)
        if isinstance(item, schema.Fault):
            run.reject(record, item)
        else:
            records.append(record)
            items.append(item)
    if not records:
        run.pending("there is no row that the model could be asked about")
    return records, items


def in_batches(
    items: list[Item], lengths: list[int], size: int, work: Callable[[list[Item]], list[Result]]
) -> list[Result]:
    """The result of each item, in the order of the items, computed on groups of similar length."""
    results: dict[int, Result] = {}
    for group in models.batches(lengths, size):
        results.update(zip(group, work([items[position] for position in group]), strict=True))
        schema.log(f"evaluate_model: {len(results):,} of {len(items):,} rows", level=1)
    return [results[position] for position in range(len(items))]


def weight_digests(model: str, adapter: Path | None) -> dict[str, Any]:
    """What was measured, by its bytes: a folder's name says little about what is in it tomorrow."""
    folders: dict[str, Path | None] = {"model": models.find_model(model), "adapter": adapter}
    return {
        role: {path.name: schema.file_facts(path)["sha256"] for path in sorted(folder.glob("*.safetensors"))}
        for role, folder in folders.items()
        if folder
    }


def with_evaluation(record: schema.Record, facts: dict[str, Any]) -> schema.Record:
    return {**record, "metadata": {**record["metadata"], "evaluation": facts}}


def rated(record: schema.Record, loss: models.RowLoss) -> schema.Record:
    return with_evaluation(record, {**loss._asdict(), "loss": round(loss.nll / loss.tokens, 6)})


def generated(record: schema.Record, answer: models.Answer) -> schema.Record:
    """A record of its own: the model's text in place of the reference, under the id of the row that asked for it."""
    known = record["metadata"]
    kept: dict[str, Any] = {
        name: known[name] for name in ("id", "kind", "system", "origin", "group", "lineage") if name in known
    }
    facts: dict[str, Any] = {"finish": answer.finish, "tokens": answer.tokens}
    metadata: dict[str, Any] = {**kept, "reference": record["code"], "evaluation": facts}
    return {"description": record["description"], "code": answer.text, "source": record["source"], "metadata": metadata}


def write_json(path: Path, value: Any) -> None:
    with schema.atomic(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def strictly(path: Path) -> Iterator[schema.Record]:
    """The records of a file that an earlier command wrote; a damaged line there is an error, not a lost row."""

    def refuse(item: Any, message: str, code: str = "", line: int | None = None) -> None:
        raise schema.Failure(f"{path}: line {line}: {message}")

    return map(schema.adopt, schema.read(path, refuse))


def empty_answers(rejects: Path) -> list[schema.Record]:
    """Prompts to which the model wrote nothing; left out, a silent model would have perfect scores."""

    def never_asked(item: Any, message: str, code: str = "", line: int | None = None) -> None:
        """A row that `generate` could not read either says nothing about the model."""

    rows = schema.read(rejects, never_asked) if rejects.is_file() else []
    return [schema.adopt(row) for row in rows if measures.is_empty_answer(row)]


def percent(rate: dict[str, Any]) -> str:
    if not rate["n"]:
        return "nothing to count"
    return (
        f"{rate['passed']:,} of {rate['n']:,} = {rate['rate']:.1%} "
        f"(95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
    )


def loss_line(totals: dict[str, Any]) -> str:
    perplexity = "beyond any number" if totals["perplexity"] is None else f"{totals['perplexity']:,.3f}"
    return (
        f"loss {totals['loss']:.4f}, perplexity {perplexity}, token accuracy {totals['accuracy']:.1%} "
        f"over {totals['tokens']:,} tokens of {totals['rows']:,} answers"
    )


def set_verbosity(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        schema.set_verbosity(1 if option.name == "verbose" else -1)


def verbosity(command: Command) -> Command:
    told: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": set_verbosity}
    quiet = click.option("-q", "--quiet", help="Say nothing but errors.", **told)
    return quiet(click.option("-v", "--verbose", help="Say more.", **told)(command))


def model_options(command: Command) -> Command:
    """What `loss` and `generate` are told alike."""
    options: list[Callable[[Command], Command]] = [
        verbosity,
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after this many rows."),
        click.option("--where", metavar="JQ", help="Take only rows for which this jq program gives something true."),
        click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for the results."),
        click.option("--data", required=True, metavar="FILE", type=FILE, help="Record file with held-out rows."),
        click.option("--adapter", metavar="DIR", type=FOLDER, help="LoRA adapter to put on the model."),
        click.option("--model", required=True, metavar="DIR|NAME", help="Model folder, or a name on the hub."),
    ]
    for option in options:
        command = option(command)
    return command


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Measure a model on held-out records."""


@cli.command()
@model_options
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Rows that the model reads together.")
def loss(
    model: str, adapter: Path | None, data: Path, output: Path, where: str | None, limit: int | None, batch_size: int
) -> None:
    """Loss, perplexity and token accuracy of the reference answers; prompt tokens do not count."""
    models.require_training_packages()
    rows = output / LOSSES
    params: dict[str, Any] = {"model": model, "adapter": str(adapter) if adapter else None, "batch_size": batch_size}
    kept = []
    with (
        schema.run("evaluate_model", contract(data, rows, where, limit), params=params) as run,
        models.quiet_libraries(),
    ):
        loaded = models.load(model, adapter)
        records, items = admitted(run, lambda record: models.conversation(loaded, record))
        found = in_batches(items, [len(i.whole) for i in items], batch_size, lambda b: models.losses(loaded, b))
        for record, row_loss in zip(records, found, strict=True):
            kept.append(rated(record, row_loss))
            run.keep(kept[-1])
        run.extra["weights"] = weight_digests(model, adapter)
    summary = measures.grouped(kept)
    write_json(output / "loss.json", {**summary, "rows_file": schema.file_facts(rows, near=output)})
    schema.log(f"  {loss_line(summary['all'])}")


@cli.command()
@model_options
@click.option("--max-new-tokens", default=1024, type=click.IntRange(1), help="Cut an answer after this many tokens.")
@click.option("--batch-size", default=16, type=click.IntRange(1), help="Prompts that are answered together.")
def generate(
    model: str,
    adapter: Path | None,
    data: Path,
    output: Path,
    where: str | None,
    limit: int | None,
    max_new_tokens: int,
    batch_size: int,
) -> None:
    """Let the model answer each row's description, always with its most likely token."""
    models.require_training_packages()
    params: dict[str, Any] = {"model": model, "adapter": str(adapter) if adapter else None, "batch_size": batch_size}
    params["max_new_tokens"] = max_new_tokens
    setting = contract(data, output / GENERATED, where, limit)
    with schema.run("evaluate_model", setting, params=params) as run, models.quiet_libraries():
        loaded = models.load(model, adapter)
        records, items = admitted(run, lambda record: models.prompt_ids(loaded, record))
        answers = in_batches(
            items, list(map(len, items)), batch_size, lambda batch: models.generate(loaded, batch, max_new_tokens)
        )
        for record, answer in zip(records, answers, strict=True):
            row = generated(record, answer)
            if answer.text.strip():
                run.keep(row)
            else:
                asked = with_evaluation(record, {**row["metadata"]["evaluation"], "empty": True})
                run.reject(asked, schema.Fault("empty_generation", f"the model wrote nothing ({answer.finish})"))
        run.extra["weights"] = weight_digests(model, adapter)


@cli.command()
@click.option("--data", required=True, metavar="FILE", type=FILE, help="Records that `generate` wrote, tagged or not.")
@click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for scores.json.")
@click.option("--rejects", metavar="FILE", type=FILE, help="Rejects of `generate`.  [default: those beside --data]")
@verbosity
def score(data: Path, output: Path, rejects: Path | None) -> None:
    """Shares of sound programs with their 95 % intervals; an empty answer counts as a failed one."""
    silent = rejects or data.with_name(REJECTED)
    rows = list(strictly(data))
    found = measures.scores([*rows, *empty_answers(silent)])
    target = output / "scores.json"
    write_json(target, found)
    schema.write_ledger(
        output / "scores.ledger.json",
        stage="evaluate_model",
        inputs=[data, *([silent] if silent.is_file() else [])],
        outputs=[],
        files=[target],
        counts={"in": len(rows), "kept": len(rows), "rejected": 0, "merged": 0},
        reasons={},
        options={},
    )
    schema.log(f"evaluate_model: {len(rows):,} answers and {found['empty']:,} empty ones -> {target}")
    for name in measures.CHECKS:
        schema.log(f"  {name:<9} {percent(found[name])}")
    if found["quality"]["n"]:
        schema.log(f"  quality   {found['quality']['mean']:.3f} on average of {found['quality']['n']:,} tagged answers")


def rows_of(place: Path, name: str) -> measures.Rows:
    """The rows of one kind in a file or an evaluation folder: what the model wrote, or how it rated references."""
    path = place / name if place.is_dir() else place
    rows = list(strictly(path)) if path.is_file() else []
    if name == LOSSES:
        return measures.by_id(row for row in rows if measures.mean_loss(row) is not None)
    written = [row for row in rows if measures.mean_loss(row) is None]
    return measures.by_id([*written, *(empty_answers(path.with_name(REJECTED)) if written else [])])


def side_by_side(a: Path, b: Path) -> dict[str, Any]:
    """Every measure that both places know, over the rows that both places have."""
    written, rated_rows = (rows_of(a, GENERATED), rows_of(b, GENERATED)), (rows_of(a, LOSSES), rows_of(b, LOSSES))
    found = {
        name: measures.paired(*written, check, low_is_good=False)
        for name, check in [*measures.CHECKS.items(), ("quality", measures.quality)]
    }
    found["loss"] = measures.paired(*rated_rows, measures.mean_loss, low_is_good=True)
    return {name: pairs for name, pairs in found.items() if pairs["n"]}


@cli.command()
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Also write it as JSON."
)
@verbosity
def compare(a: Path, b: Path, output: Path | None) -> None:
    """Two evaluation folders (or record files), paired row by row: what got better from A to B, and what worse."""
    found = side_by_side(a, b)
    if not found:
        raise schema.Failure(f"{a} and {b} have no evaluated row in common")
    if output:
        write_json(output, found)
    schema.log(f"{'':9} {'A':>9} {'B':>9} {'rows':>7} {'better':>7} {'worse':>7} {'equal':>7}")
    for name, pairs in found.items():
        schema.log(
            f"{name:9} {pairs['a']:9.4f} {pairs['b']:9.4f} {pairs['n']:7,} "
            f"{pairs['better']:7,} {pairs['worse']:7,} {pairs['equal']:7,}"
        )


if __name__ == "__main__":
    schema.main(cli)
