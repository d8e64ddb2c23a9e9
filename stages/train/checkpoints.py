"""Checkpoints that are known to be whole, and the run that each of them belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import schema

SEAL = "complete.json"  # written last into a checkpoint: the run that it belongs to, and the SHA-256 of every file


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(checkpoint: Path, run: dict[str, str]) -> None:
    """Mark a checkpoint as whole. Without this mark, a kill while it was written leaves one that looks like any."""
    files = {path.name: digest(path) for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != SEAL}
    with schema.atomic(checkpoint / SEAL) as file:
        file.write(schema.canonical({"run": run, "files": files}))


def newest(folder: Path, run: dict[str, str]) -> Path | None:
    """The newest whole checkpoint, by number: as names, checkpoint-1000 would come before checkpoint-50."""
    for path in sorted(checkpoints(folder), key=step_of, reverse=True):
        fault, other = _fault(path, run)
        if other:
            raise schema.Failure(f"--resume: {path} belongs to a run with other {other}; start again without --resume")
        if fault is None:
            return path
        schema.log(f"train: {path} is skipped: {fault}")
    return None


def checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def _fault(checkpoint: Path, run: dict[str, str]) -> tuple[str | None, str]:
    """Why a checkpoint is not whole; and in what it differs from this run."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_bytes())
        for name, known in sealed["files"].items():
            if digest(checkpoint / name) != known:
                return f"{name} is damaged", ""
        return None, " and ".join(name for name in run if sealed["run"][name] != run[name])
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing, it was never finished", ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{SEAL} is damaged ({type(error).__name__})", ""
