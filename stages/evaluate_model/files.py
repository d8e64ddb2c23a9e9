"""The files of an evaluation folder: rows that were written or rated, and prompts that were never answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

import schema
from stages.evaluate_model import measures

GENERATED = "generated.jsonl"
TAGGED = "tagged.jsonl"
REJECTED = "generated.rejects.jsonl"
LOSSES = "loss.jsonl"


def existing(data: str | None) -> Path | None:
    if data is not None and not Path(data).is_file():
        raise click.UsageError(f"--data {data}: there is no such file")
    return Path(data) if data is not None else None


def strictly(path: Path) -> Iterator[schema.Record]:
    """The records of a file that an earlier command wrote; a damaged line there is an error, not a lost row."""

    def refuse(item: Any, message: str, code: str = "", line: int | None = None) -> None:
        raise schema.Failure(f"{path}: line {line}: {message}")

    return map(schema.adopt, schema.read(path, refuse))


def failures(rejects: Path) -> tuple[list[schema.Record], int]:
    """Prompts that the model failed to answer, and how many rows it was never asked about.

    Left out, a silent model would have perfect scores; a row that nobody could read says nothing about a model.
    """
    unread = []

    def never_asked(item: Any, message: str, code: str = "", line: int | None = None) -> None:
        unread.append(code)

    rows = [*map(schema.adopt, schema.read(rejects, never_asked))] if rejects.is_file() else []
    failed = [row for row in rows if measures.is_empty_answer(row)]
    return failed, len(rows) - len(failed) + len(unread)


def refuse_part_of_the_answers(data: Path) -> None:
    """A gate that threw the bad answers away has left a file on which every model is good."""
    place = schema.ledger_path(data)
    ledger = msgspec.json.decode(place.read_bytes()) if place.is_file() else {}
    if ledger.get("stage") != "filter_quality":
        return
    dropped = ledger["counts"]["rejected"] + ledger["counts"].get("not_selected", 0)
    if dropped or ledger["options"].get("limit"):
        raise schema.Failure(f"{data} holds only a part of the answers: let filter_quality.py tag all, with --tag-only")


def rows_of(place: Path, name: str) -> list[schema.Record]:
    """The rows of one kind in a file or an evaluation folder: what the model wrote, or how it rated references."""
    path = place / name if place.is_dir() else place
    rows = list(strictly(path)) if path.is_file() else []
    if name == LOSSES:
        return [row for row in rows if measures.mean_loss(row) is not None]
    written = [row for row in rows if measures.mean_loss(row) is None]
    silent = failures(path.with_name(REJECTED))[0] if written or place.is_dir() else []
    return [*(_tagged(place / TAGGED, written) if place.is_dir() else written), *silent]


def _tagged(path: Path, written: list[schema.Record]) -> list[schema.Record]:
    """The same rows with the findings of filter_quality.py, unless those are of an earlier run."""
    rows = list(strictly(path)) if path.is_file() else []
    if [(row["metadata"]["id"], row["code"]) for row in rows] == [
        (row["metadata"]["id"], row["code"]) for row in written
    ]:
        return rows
    if rows:
        schema.log(f"{path} holds other answers than {GENERATED}; its findings are not used")
    return written


def write_json(path: Path, value: Any) -> None:
    with schema.atomic(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_report(path: Path, value: Any, inputs: list[Path], rows: int, options: dict[str, Any]) -> None:
    """A JSON file that was counted from files of rows, and its ledger."""
    write_json(path, value)
    schema.write_ledger(
        schema.ledger_path(path),
        stage="evaluate_model",
        inputs=inputs,
        outputs=[],
        files=[path],
        counts={"in": rows, "kept": rows, "rejected": 0, "merged": 0},
        reasons={},
        options=options,
    )


def loss_curve(metrics: Path) -> list[tuple[float, float]]:
    """Step and loss of every line of metrics.jsonl that has both."""
    points = []
    for number, line in enumerate(metrics.read_bytes().splitlines(), 1):
        try:
            facts = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise schema.Failure(f"{metrics}: line {number}: {error}") from None
        if "step" in facts and "loss" in facts:
            points.append((float(facts["step"]), float(facts["loss"])))
    return points
