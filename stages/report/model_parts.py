"""The sections about the model: how it was trained, what it scored, what it writes and what that looks like."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import schema
from stages.report import drawing
from stages.report.ledgers import Step, shown
from stages.report.markup import Markup, Section, beside, details, facts, figure, quote, table
from stages.report.rows import as_dict, records

PICTURES, PICTURE_BYTES, ANSWERS = 48, 1 << 18, 8
CURVES = (
    ("Loss", (("loss", "c1", "trained"), ("eval_loss", "c2", "held out"))),
    ("Learning rate", (("learning_rate", "c3", "rate"),)),
    ("Length of the gradient", (("grad_norm", "c4", "gradient"),)),
)
Json = dict[str, Any]


def training(steps: Sequence[Step]) -> Section:
    title = "Training"
    runs = [step for step in steps if step.ledger.stage == "train"]
    if not runs:
        return Section("training", title, "There is no trained adapter yet: `make train` makes one.", [])
    parts = []
    for step in runs:
        told, extra = step.ledger.options, step.ledger.extra
        base = told.get("model", {})
        named = [
            ("run", shown(step.place.parent)),
            ("base model", base.get("name", "not recorded") if isinstance(base, dict) else base),
            *((name.replace("_", " "), f"{value:,}") for name, value in extra.items() if isinstance(value, int)),
            ("rejected", f"{step.ledger.counts['rejected']:,}"),
        ]
        parts.append(facts(named))
        parts.append(
            beside(*_curves(_metrics(step.place.parent / "metrics.jsonl"))) or "<p>It left no metrics.jsonl.</p>"
        )
        parts.append(details("All settings", table("Settings of the training", ["setting", "value"], _settings(told))))
    return Section("training", title, "What was trained, and how the loss went down.", parts)


def _metrics(path: Path) -> list[Json]:
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except ValueError as error:
        raise schema.Failure(f"{path}: not a file of metrics: {error}") from None
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int | float)]


def _curves(lines: Sequence[Json]) -> Iterator[str]:
    for title, wanted in CURVES:
        curves = []
        for key, colour, name in wanted:
            points = [
                (float(line["step"]), float(line[key])) for line in lines if isinstance(line.get(key), int | float)
            ]
            points = [point for point in points if math.isfinite(point[1])]
            if points:
                curves.append((name, colour, points))
        if curves:
            last = ", ".join(f"{name} {points[-1][1]:.4g}" for name, _, points in curves)
            yield figure(drawing.lines(title, curves), f"{title} by step; at the end {last}")


def _settings(options: Json, prefix: str = "") -> Iterator[list[object]]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        elif value is not None:
            yield [f"{prefix}{name}", str(value)]


def evaluation(steps: Sequence[Step], page: Path) -> Section:
    title = "Evaluation"
    folders = _folders(steps)
    if not folders:
        return Section("evaluation", title, "The model has not been measured yet: `make evaluate` does it.", [])
    parts = []
    for folder in folders:
        parts.append(f"<h3>{escape(shown(folder))}</h3>")
        parts += _scores(_json(folder / "scores.json"))
        parts += _losses(_json(folder / "loss.json"))
        parts += _answers(_rows(folder))
        if (folder / "index.html").is_file():
            address = Path(os.path.relpath(folder / "index.html", page.absolute().parent)).as_posix()
            parts.append(f'<p><a href="{escape(address)}">The whole evaluation</a>, with the worst answers first.</p>')
    return Section("evaluation", title, "What the model does with rows that it has never seen.", parts)


def _folders(steps: Sequence[Step]) -> list[Path]:
    """Folders of evaluations that hold what a page can show."""
    found = {step.place.parent: None for step in steps if step.ledger.stage == "evaluate_model"}
    return [place for place in found if any((place / name).is_file() for name in ("scores.json", "loss.json"))]


def _json(path: Path) -> Json:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise schema.Failure(f"{path}: not what evaluate_model.py writes: {error}") from None


def _rows(folder: Path) -> list[schema.Record]:
    """What the model wrote, judged if it was."""
    place = next((folder / name for name in ("tagged.jsonl", "generated.jsonl") if (folder / name).is_file()), None)
    return list(records(place)) if place else []


def _scores(scores: Json) -> Iterator[str]:
    rates = [
        (name, value) for name, value in scores.items()
        if isinstance(value, dict) and {"passed", "n", "rate", "low", "high"} <= value.keys() and value["n"]
    ]  # fmt: skip
    if rates:
        rows = [
            [
                name.replace("_", " "),
                f"{rate['passed']:,} of {rate['n']:,}",
                f"{rate['rate']:.1%}",
                Markup(_interval(rate)),
            ]
            for name, rate in rates
        ]
        yield table("Share of the answers", ["check", "answers", "share", "95 % interval"], rows)


def _interval(rate: Json) -> str:
    low, high, share = (160 * rate[name] for name in ("low", "high", "rate"))
    parts = [
        drawing.box(0, 4, 160, 6, "grid"),
        drawing.box(low, 4, max(1, high - low), 6, "c1 soft"),
        drawing.box(min(share, 158), 0, 2.4, 14, "c1"),
    ]
    return drawing.svg(160, 14, f"{rate['low']:.1%} to {rate['high']:.1%}", parts, "interval")


def _losses(loss: Json) -> Iterator[str]:
    if "all" in loss:
        rows = [["all", loss["all"]], *loss.get("by_source", {}).items()]
        lines = [
            [name, one["rows"], one["tokens"], f"{one['loss']:.4f}", f"{one['accuracy']:.1%}"] for name, one in rows
        ]
        yield table("Loss on held-out rows", ["rows of", "rows", "tokens", "loss", "token accuracy"], lines)


def _answers(rows: Sequence[schema.Record]) -> Iterator[str]:
    step = max(1, len(rows) // ANSWERS)
    for row in rows[::step][:ANSWERS]:
        pair = [quote("answer", row["code"], kind="code")]
        if isinstance(reference := row["metadata"].get("reference"), str):
            pair.append(quote("reference", reference, kind="code"))
        yield details(drawing.cut(" ".join(row["description"].split()), 140), beside(*pair))


def gallery(steps: Sequence[Step], named: Sequence[Path], data: Sequence[Path]) -> Section:
    """Pictures of what programs draw: those that a model wrote first, then those of the data."""
    title = "Frames"
    places = [path for folder in _folders(steps) for path in (folder / "tagged.jsonl",) if path.is_file()] + list(data)
    pictures: list[str] = []
    for place in places:
        beside_it = [*named, place.parent / "frames"]
        if any(folder.is_dir() for folder in beside_it):
            pictures += _pictures(place, beside_it, PICTURES - len(pictures))
    if not pictures:
        return Section(
            "frames",
            title,
            "No pictures: `filter_quality.py --render check --frames DIR` keeps one of each program.",
            [],
        )
    return Section(
        "frames",
        title,
        f"The last picture of {len(pictures):,} programs.",
        [f'<div class="gallery">{"".join(pictures)}</div>'],
    )


def _pictures(place: Path, folders: Sequence[Path], most: int) -> Iterator[str]:
    for row in records(place):
        name = as_dict(row["metadata"].get("render")).get("frame")
        if most <= 0 or not isinstance(name, str):
            continue
        found = next((folder / Path(name).name for folder in folders if (folder / Path(name).name).is_file()), None)
        if found and found.stat().st_size <= PICTURE_BYTES:
            most -= 1
            data = base64.b64encode(found.read_bytes()).decode()
            words = escape(drawing.cut(" ".join(row["description"].split()), 160))
            picture = f'<img alt="" src="data:image/png;base64,{data}">'
            yield f"<figure>{picture}<figcaption>{words}</figcaption></figure>"
