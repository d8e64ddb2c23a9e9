"""The model card: what the ledgers between the sources and the model say, and nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import schema
from stages.merge_export import models

MISSING = "not recorded"


def ledgers(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All ledgers that the model comes from, itself first, as far as they are still there."""
    waiting, seen = [folder / "ledger.json"], set()
    while waiting:
        path = waiting.pop(0)
        if path.resolve() in seen or (ledger := _read(path)) is None:
            continue
        seen.add(path.resolve())
        yield path, ledger
        for facts in ledger["inputs"]:
            place = Path(os.path.normpath(path.parent / facts["path"]))
            # Beside the file, in its folder, or in the folder of the run that it is a part of
            waiting += [schema.ledger_path(place), place.parent / "ledger.json", place.parent.parent / "ledger.json"]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        ledger = json.loads(path.read_bytes())
        return dict(ledger) if {"stage", "inputs", "counts", "options"} <= set(ledger) else None
    except (OSError, ValueError, TypeError):
        return None


def write(model: Path, name: str, files: dict[str, str], facts: dict[str, Any], scores: Path | None) -> str:
    """The text of README.md; `files` are the exported ones with what they are."""
    found = list(ledgers(model))
    training = next(((path, ledger) for path, ledger in found if ledger["stage"] == "train"), None)
    licences = _licences(*training) if training else Counter()
    lines = ["---", *_front(training), "---", "", f"# {name}", ""]
    lines += ["Everything here was taken from the ledgers of the run; what they do not hold is not said.", ""]
    lines += ["## Files", "", *(f"- `{file}`: {what}" for file, what in files.items()), ""]
    lines += ["## Training", "", *_training(training[1] if training else None), ""]
    lines += ["## Data", "", *_data(found), "", *_licence_lines(licences), ""]
    lines += ["## Scores", "", *_scores(scores), ""]
    lines += ["## Proof", "", *(f"- {key}: {value}" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


def _front(training: tuple[Path, dict[str, Any]] | None) -> list[str]:
    """What a hub reads. No licence: that of a model is for its maker to decide."""
    front = ["tags: [linemill, text-generation]", "pipeline_tag: text-generation"]
    base = _base(training[1]) if training else MISSING
    if models.HUB_NAME.fullmatch(base) and "/" in base and not Path(base).exists():
        front.append(f"base_model: {base}")
    return front


def _training(ledger: dict[str, Any] | None) -> list[str]:
    if ledger is None:
        return ["No ledger of a training was found."]
    options, extra = ledger["options"], ledger.get("extra", {})
    lines = [f"- base model: {_base(ledger)}"]
    lines += [f"- {key.replace('_', ' ')}: {extra[key]:,}" for key in sorted(extra) if isinstance(extra[key], int)]
    for part in ("lora", "training"):
        if isinstance(settings := options.get(part), dict):
            lines.append(f"- {part}: " + ", ".join(f"{key} {value}" for key, value in sorted(settings.items())))
    return lines


def _base(ledger: dict[str, Any]) -> str:
    model = ledger["options"].get("model")
    return str(model["name"] if isinstance(model, dict) and "name" in model else model or MISSING)


def _data(found: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    lines = []
    for _, ledger in found:
        if ledger["stage"] == "merge_export":
            continue
        counts = ", ".join(f"{count:,} {key}" for key, count in ledger["counts"].items() if count)
        for facts in ledger["inputs"]:
            if facts.get("sha256"):
                lines.append(
                    f"- {ledger['stage']}: {counts}; read {Path(facts['path']).name}, SHA-256 {facts['sha256']}"
                )
        if not ledger["inputs"]:
            lines.append(f"- {ledger['stage']}: {counts}")
    return lines or ["No ledger of the data was found."]


def _licences(path: Path, ledger: dict[str, Any]) -> Counter[str]:
    """Rows by licence in the files that were trained on, if they are still those that the ledger names."""
    found: Counter[str] = Counter()
    for facts in ledger["inputs"]:
        place = path.parent / facts["path"]
        if not place.is_file() or schema.file_facts(place)["sha256"] != facts["sha256"]:
            continue
        for record in schema.read(place, lambda *_, **__: None):
            found[str(record["metadata"].get("licence") or MISSING)] += 1
    return found


def _licence_lines(licences: Counter[str]) -> list[str]:
    if not licences:
        return ["Licences of the rows: not known, the training file is not there any more."]
    return ["Licences of the rows:", "", *(f"- {name}: {count:,}" for name, count in sorted(licences.items()))]


def _scores(path: Path | None) -> list[str]:
    if path is None:
        return ["Not measured."]
    try:
        scores = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise schema.Failure(f"{path}: not a scores file: {error}") from None
    rates = {name: value for name, value in scores.items() if isinstance(value, dict) and value.get("rate") is not None}
    return [f"- {name}: {_rate(value)}" for name, value in rates.items()] or ["Nothing was counted."]


def _rate(value: dict[str, Any]) -> str:
    """Passed of how many, and the interval, as far as the file says."""
    text = f"{value['rate']:.1%}"
    if {"passed", "n"} <= value.keys():
        text += f" ({value['passed']:,} of {value['n']:,})"
    if value.get("low") is not None and value.get("high") is not None:
        text += f", 95 % interval {value['low']:.1%} to {value['high']:.1%}"
    return text
