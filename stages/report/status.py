"""Whether each file of a run still is what its ledger says, and was made from what now stands before it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import schema
from stages.report.ledgers import File, Step, makers_of, parents, shown

FRESH, STALE, BEHIND, CHANGED, MISSING, WRITING = "up to date", "stale", "behind", "changed", "missing", "being written"
# Weights that nobody has touched since their ledger was written are not read again: that would take minutes.
HASHED = 1 << 28
TARGETS = {
    "prepare_data": "data",
    "generate-descriptions": "llm",
    "filter_quality": "filter",
    "split_data": "split",
    "train": "train",
    "merge_export": "merge",
    "evaluate_model": "evaluate",
}


class State(NamedTuple):
    """One file of a run."""

    stage: str
    file: str
    state: str
    why: str
    target: str  # of make
    rows: int | None = None
    kept: int | None = None
    rejected: int | None = None
    merged: int | None = None
    age_s: int | None = None

    @property
    def is_wrong(self) -> bool:
        return self.state not in (FRESH, WRITING)


class Digests:
    """SHA-256 of files, each read once."""

    def __init__(self) -> None:
        self.known: dict[Path, str | None] = {}

    def differs(self, path: Path, told: str | None, ledger: Path) -> bool:
        if told is None or not path.is_file():
            return False
        if path.stat().st_size > HASHED and path.stat().st_mtime <= ledger.stat().st_mtime:
            return False
        if path not in self.known:
            self.known[path] = schema.file_facts(path, count=False)["sha256"]
        return self.known[path] != told


def states(steps: Sequence[Step], digests: Digests | None = None) -> list[State]:
    """The state of every file that the steps wrote for others to read, in the order of the stages."""
    digests = digests or Digests()
    makers, judged = makers_of(steps), dict[Path, tuple[str, str]]()
    found: list[State] = []
    for step in steps:
        before = [(one, judged[one.place][0]) for one in parents(step, makers) if one.place in judged]
        judged[step.place] = _judge(step, before, digests)
        found += _of(step, *judged[step.place])
    return found


def _judge(step: Step, before: Sequence[tuple[Step, str]], digests: Digests) -> tuple[str, str]:
    for path, file in step.written.items():
        if is_held(path):
            return WRITING, "another run holds it"
        if not path.is_file():
            return MISSING, f"{shown(path)} is gone though its ledger is there"
        if digests.differs(path, file.sha256, step.place):
            return CHANGED, f"{shown(path)} is not what its ledger says"
    for path, told in _read_by(step):
        if digests.differs(path, told, step.place):
            return STALE, f"{shown(path)} has changed since"
    for parent, state in before:
        if state not in (FRESH, CHANGED):  # what was changed by hand shows as an input that differs
            return BEHIND, f"{shown(parent.place)}, which it builds on, is {state}"
    return FRESH, ""


def _read_by(step: Step) -> Iterator[tuple[Path, str | None]]:
    """What a step has read: its inputs, and the weights that an evaluation measured, by role and name."""
    yield from ((step.at(file), file.sha256) for file in step.ledger.inputs if file.path != "-")
    named = step.ledger.extra.get("weights")
    for role, files in named.items() if isinstance(named, dict) else ():
        folder = step.ledger.options.get(role)
        if isinstance(folder, str):
            yield from ((Path(folder, name), digest) for name, digest in files.items())


def _of(step: Step, state: str, why: str) -> Iterator[State]:
    target = TARGETS.get(step.ledger.stage, "all")
    files: dict[Path, File | None] = {**step.outputs} or {step.place: None}
    for place, (path, file) in enumerate(files.items()):
        counts = step.ledger.counts if place == 0 else {}  # they are those of the stage, not of each file
        age = max(0, int(time.time() - path.stat().st_mtime)) if path.exists() else None
        yield State(
            step.ledger.stage, shown(path), state, why, target, file.rows if file else None,
            counts.get("kept"), counts.get("rejected"), counts.get("merged"), age,
        )  # fmt: skip


def expected(run: Path, found: Sequence[State]) -> list[State]:
    """What `make all` writes and no ledger tells of yet."""
    there = {state.file for state in found}
    missing = []
    for stage, target in TARGETS.items():
        for name in _files(stage, run):
            if name not in there and not any(state.stage == stage == "evaluate_model" for state in found):
                held = is_held(Path(name))
                state, why = (WRITING, "another run holds it") if held else (MISSING, f"make {target} writes it")
                missing.append(State(stage, name, state, why, target))
    return missing


def _files(stage: str, run: Path) -> list[str]:
    return {
        "prepare_data": ["data_formatted/train.json", "data_formatted/test.json"],
        "generate-descriptions": ["data_enhanced/train.json", "data_enhanced/test.json"],
        "filter_quality": ["data_filtered/train.json", "data_filtered/test.json"],
        "split_data": ["data_split/train.jsonl", "data_split/valid.jsonl"],
        "train": [str(run / "ledger.json")],
        "merge_export": [str(run / "merged" / "ledger.json")],
        "evaluate_model": [str(run / "evaluation" / "scores.json")],
    }[stage]


def is_held(path: Path) -> bool:
    """Whether a run is writing the file, or the folder that it stands in, as one set."""
    return any(_is_locked(place.with_name(f".{place.name}.lock")) for place in (path, path.parent) if place.name)


def _is_locked(name: Path) -> bool:
    with suppress(OSError):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def table(found: Sequence[State]) -> Iterator[str]:
    """Columns for a terminal."""
    head = ["stage", "file", "rows", "kept", "rejected", "merged", "age", "state"]
    lines = [head] + [
        [
            one.stage,
            one.file,
            *map(_number, (one.rows, one.kept, one.rejected, one.merged)),
            _age(one.age_s),
            _state(one),
        ]
        for one in found
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        cells = [
            cell.rjust(width) if 2 <= place <= 6 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _state(one: State) -> str:
    return f"{one.state}: {one.why}" if one.why else one.state


def advice(found: Sequence[State], run: Path) -> str:
    """What to run next: the first stage that has something to do."""
    first = next((one for target in TARGETS.values() for one in found if one.target == target and one.is_wrong), None)
    first = first or next((one for one in found if one.is_wrong), None)
    if first is None:
        busy = next((one for one in found if one.state == WRITING), None)
        return (
            f"next: wait for {busy.file}" if busy else "next: nothing, every file is up to date; make report draws them"
        )
    name = "" if run == Path("runs/default") else f" RUN={run.name}"
    return f"next: make {first.target}{name} ({first.file} is {first.state}); make all{name} does all that follows too"
