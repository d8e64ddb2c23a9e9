"""One page that says how good a model is: no script, no address outside itself, all that a model wrote escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import schema
from stages.evaluate_model import files, measures, tables

SHOWN, PICTURES, PICTURE_BYTES = 12, 60, 1 << 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:.6rem;overflow:auto;white-space:pre-wrap}
svg{display:block}figure{display:inline-block;margin:.4rem;width:15rem;vertical-align:top}img{width:100%}
figcaption{font-size:12px}details{margin:.4rem 0}.pair{display:grid;grid-template-columns:1fr 1fr;gap:.6rem}
"""
_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Evaluation</title><style>{style}</style></head>
<body><h1>Evaluation</h1>
{body}
</body></html>
"""


def build(folder: Path, before: Path | None, frames: Path | None, curve: list[tuple[float, float]]) -> str:
    rows = measures.judged(files.rows_of(folder, files.GENERATED))
    rated = files.rows_of(folder, files.LOSSES)
    if not rows and not rated:
        raise schema.Failure(f"{folder} holds no evaluation: neither {files.GENERATED} nor {files.LOSSES}")
    old = measures.judged(files.rows_of(before, files.GENERATED)) if before else []
    parts = [
        *_section("Scores", _scores(measures.scores(rows)) if rows else []),
        *_section("Loss", _losses(measures.grouped(rated)) if rated else []),
        *_section("Training", _curve(curve) if curve else []),
        *_section(
            "Before and after", _changes(old, rows, files.rows_of(before, files.LOSSES), rated) if before else []
        ),
        *_section("Pictures", _gallery(rows, frames) if frames else []),
        *_section("The worst answers", _worst(rows, old)),
        *_section("The most surprising references", _surprising(rated)),
    ]
    return _FRAME.format(policy=_POLICY, style=_STYLE, body="\n".join(parts))


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    content = list(parts)
    if content:
        yield f"<h2>{escape(title)}</h2>"
        yield from content


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    """The cells are markup already."""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>\n{lines}</table>"


def _scores(scores: dict[str, Any]) -> Iterator[str]:
    known = [(name, scores[name]) for name in measures.CHECKS if scores[name]["n"]]
    yield _table(["", "passed", "share", "95 % interval"], [
        [escape(name), f"{rate['passed']:,} of {rate['n']:,}", f"{rate['rate']:.1%}", _bar(rate)]
        for name, rate in known
    ])  # fmt: skip
    numbers = {"quality": scores["quality"], **scores["likeness"]}
    if any(value["n"] for value in numbers.values()):
        yield (
            "<ul>" + "".join(f"<li>{n}: {escape(tables.mean(v))}</li>" for n, v in numbers.items() if v["n"]) + "</ul>"
        )
    for title, counts in (("Errors of runs", scores["render_errors"]), ("Findings", scores["quality"]["issues"])):
        if counts:
            most = sorted(counts.items(), key=lambda item: -item[1])
            yield f"<h3>{title}</h3>" + _table(["", "answers"], [[escape(name), f"{count:,}"] for name, count in most])


def _bar(rate: dict[str, Any]) -> str:
    low, high, share = (200 * rate[name] for name in ("low", "high", "rate"))
    return (
        f'<svg width="200" height="14" role="img"><title>{rate["low"]:.1%} to {rate["high"]:.1%}</title>'
        f'<rect width="200" height="14" fill="#eee"/>'
        f'<rect x="{low:.1f}" width="{high - low:.1f}" height="14" fill="#9bd"/>'
        f'<rect x="{min(share, 198):.1f}" width="2" height="14" fill="#036"/></svg>'
    )


def _losses(summary: dict[str, Any]) -> Iterator[str]:
    rows = [("all", summary["all"]), *summary["by_source"].items(), *summary["by_kind"].items()]
    yield _table(["", "rows", "tokens", "loss", "token accuracy"], [
        [escape(name), f"{t['rows']:,}", f"{t['tokens']:,}", f"{t['loss']:.4f}", f"{t['accuracy']:.1%}"]
        for name, t in rows
    ])  # fmt: skip


def _curve(points: list[tuple[float, float]]) -> Iterator[str]:
    left, right = points[0][0], max(points[-1][0], points[0][0] + 1)
    top = max(loss for _, loss in points) or 1.0
    line = " ".join(f"{600 * (x - left) / (right - left):.1f},{150 - 145 * y / top:.1f}" for x, y in points)
    ground = '<rect width="600" height="150" fill="#f5f5f5"/>'
    drawn = f'<polyline points="{line}" fill="none" stroke="#036"/>'
    yield f'<svg width="600" height="152" role="img">{ground}{drawn}</svg>'
    yield f"<p>Loss from {points[0][1]:.3f} at step {left:g} to {points[-1][1]:.3f} at step {points[-1][0]:g}.</p>"


def _changes(
    old: list[schema.Record], rows: list[schema.Record], rated_old: list[schema.Record], rated: list[schema.Record]
) -> Iterator[str]:
    found = tables.side_by_side((old, rows), (rated_old, rated))
    if not found:
        yield "<p>The two evaluations have no row in common.</p>"
        return
    yield _table(["", "before", "after", "difference", "95 % interval", "prompts", "better", "worse", "p"], [
        [escape(name), f"{row['a']:.4f}", f"{row['b']:.4f}", f"{row['difference']:+.4f}",
         "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['n']:,}",
         f"{row['better']:,}", f"{row['worse']:,}", f"{row['p']:.3f}"]
        for name, row in found.items() if name != "prompts"
    ])  # fmt: skip


def _gallery(rows: list[schema.Record], frames: Path) -> Iterator[str]:
    named = [(row, row["metadata"].get("render", {}).get("frame")) for row in rows]
    have = [(row, frames / Path(name).name) for row, name in named if isinstance(name, str)]
    there = [(row, path) for row, path in have if path.is_file() and path.stat().st_size <= PICTURE_BYTES]
    yield f"<p>{min(len(there), PICTURES):,} of {len(rows):,} answers.</p>"
    for row, path in there[:PICTURES]:
        data = base64.b64encode(path.read_bytes()).decode()
        words = escape(row["description"][:200])
        yield f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'


def _worst(rows: list[schema.Record], old: list[schema.Record]) -> Iterator[str]:
    before = measures.by_prompt(old)
    ranked = sorted(rows, key=_worth)[:SHOWN]
    for row in ranked:
        verdicts = ", ".join(f"{name} {'yes' if said else 'no'}" for name, said in tables.verdicts(row).items())
        issues = "; ".join(issue.get("message", "") for issue in row["metadata"].get("quality", {}).get("issues", []))
        yield f"<details><summary>{_title(row)}</summary><p>{escape(verdicts)}. {escape(issues)}</p>"
        answers = [("Answer", "" if measures.is_empty_answer(row) else row["code"])]
        answers += [("Before", other["code"]) for other in before.get(row["metadata"]["id"], [])[:1]]
        if isinstance(reference := row["metadata"].get("reference"), str):
            answers.append(("Reference", reference))
        yield '<div class="pair">' + "".join(_text(*answer) for answer in answers) + "</div></details>"


def _worth(row: schema.Record) -> tuple[float, float]:
    """The fewest passed checks first, then the lowest quality."""
    said = {name: verdict is not measures.CHECKS[name].low_is_good for name, verdict in tables.verdicts(row).items()}
    said.pop("same_code", None)  # another program may be as good
    return sum(said.values()) / max(1, len(said)), measures.quality(row) or 0.0


def _title(row: schema.Record) -> str:
    return escape(row["description"][:300])


def _text(title: str, text: str) -> str:
    return f"<div><b>{escape(title)}</b><pre>{escape(text)}</pre></div>"


def _surprising(rated: list[schema.Record]) -> Iterator[str]:
    for row in sorted(rated, key=lambda row: -(measures.mean_loss(row) or 0.0))[:SHOWN]:
        loss = measures.mean_loss(row) or 0.0
        yield f"<details><summary>{loss:.3f} {_title(row)}</summary><pre>{escape(row['code'])}</pre></details>"
