"""The ledgers of a run, in the order in which rows went through them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import schema

# What reads records to make or to measure a model; everything else makes records of records.
MODEL_STAGES = ("train", "merge_export", "evaluate_model")
DEFAULT_PLACES = ("data_formatted", "data_enhanced", "data_filtered", "data_split")
DUPLICATES = "removed_duplicates.json"


class File(msgspec.Struct):
    """A file that a ledger names, its path relative to the ledger."""

    path: str
    sha256: str | None = None
    rows: int | None = None


class Ledger(msgspec.Struct):
    """What a ledger says; see docs/record-format.md."""

    stage: str
    inputs: list[File]
    outputs: list[File]
    counts: dict[str, int]
    reasons: dict[str, int]
    options: dict[str, Any]
    files: list[File] = []
    rejects: File | None = None
    version: str = ""
    extra: dict[str, Any] = {}


@dataclass(frozen=True)
class Step:
    """One run of one stage: its ledger, and where that stands."""

    place: Path
    ledger: Ledger

    def at(self, file: File) -> Path:
        return Path(os.path.normpath(self.place.parent / file.path))

    @property
    def inputs(self) -> list[Path]:
        return [self.at(file) for file in self.ledger.inputs if file.path != "-"]

    @property
    def outputs(self) -> dict[Path, File]:
        return {self.at(file): file for file in self.ledger.outputs if file.path != "-"}

    @property
    def written(self) -> dict[Path, File]:
        """Every file that the step wrote."""
        rejects = [self.ledger.rejects] if self.ledger.rejects else []
        return {self.at(file): file for file in [*self.ledger.outputs, *self.ledger.files, *rejects]}

    @property
    def cost(self) -> dict[str, Any] | None:
        """What the answers of a model have cost; of a shard, the sum of its receipts."""
        told = self.ledger.extra.get("llm")
        if told is None and isinstance(told := self.ledger.extra.get("receipts"), dict):
            told = {"author": self.ledger.options.get("llm", ""), **told}
        return told if isinstance(told, dict) else None

    @property
    def rejects(self) -> Path | None:
        return self.at(self.ledger.rejects) if self.ledger.rejects else None


def places_of(named: Sequence[Path], run: Path) -> list[Path]:
    """The folders that hold a run: those that were named, or those of `make all`."""
    return list(named) or [Path(name) for name in DEFAULT_PLACES] + [run]


def find(places: Iterable[Path]) -> list[Step]:
    """Every ledger below the places, no step before one that it reads from; equal files give an equal order."""
    found: dict[Path, Step] = {}
    for place in places:
        names = [place] if place.is_file() else [*place.rglob("ledger.json"), *place.rglob("*.ledger.json")]
        for name in names:
            path = Path(os.path.normpath(name.absolute()))
            found[path] = Step(path, _read(name))
    return _ordered(sorted(found.values(), key=_rank))


def _rank(step: Step) -> tuple[int, Path]:
    """The model after the data, as it is read by the evaluation without standing among the inputs of its ledger."""
    stage = step.ledger.stage
    return MODEL_STAGES.index(stage) + 1 if stage in MODEL_STAGES else 0, step.place


def _read(path: Path) -> Ledger:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ledger)
    except msgspec.MsgspecError as error:
        raise schema.Failure(f"{path}: not a ledger: {error}; run the stage again, or take the file away") from None


def _ordered(steps: list[Step]) -> list[Step]:
    makers = makers_of(steps)
    ordered: dict[Path, Step] = {}
    under_way: set[Path] = set()

    def put(step: Step) -> None:
        if step.place in ordered or step.place in under_way:
            return
        under_way.add(step.place)
        for before in parents(step, makers):
            put(before)
        ordered[step.place] = step

    for step in steps:
        put(step)
    return list(ordered.values())


def makers_of(steps: Iterable[Step]) -> dict[Path, Step]:
    """The step that wrote each file."""
    return {path: step for step in steps for path in step.written}


def parents(step: Step, makers: dict[Path, Step]) -> list[Step]:
    found = [makers[path] for path in step.inputs if path in makers and makers[path].place != step.place]
    return list({parent.place: parent for parent in found}.values())


def data_steps(steps: Sequence[Step]) -> list[Step]:
    """The steps that make training data: not the model's, and not those that judge what a model wrote."""
    makers, of_model = makers_of(steps), set()
    for step in steps:
        if step.ledger.stage in MODEL_STAGES or any(one.place in of_model for one in parents(step, makers)):
            of_model.add(step.place)
    return [step for step in steps if step.place not in of_model]


def final_files(steps: Sequence[Step]) -> dict[Path, File]:
    """The record files that no later step of the data has read."""
    read = {path for step in steps for path in step.inputs}
    return {path: file for step in steps for path, file in step.outputs.items() if path not in read}


def shown(path: Path) -> str:
    """A path as people write it: relative where it lies below the folder that we are in."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
