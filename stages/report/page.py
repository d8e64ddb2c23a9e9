"""Puts the page together: one file that loads nothing, runs no script but its own, and holds all text escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import schema
from stages.report import browser, census, data_parts, examples, model_parts
from stages.report.census import Census
from stages.report.drawing import number
from stages.report.ledgers import Step, data_steps, shown
from stages.report.markup import Section, safe
from stages.report.rows import KEPT, MERGED, REJECTED, End, ends, rows

HERE = Path(__file__).parent


class Wishes(NamedTuple):
    """What the command line says about the page."""

    title: str
    output: Path
    frames: Sequence[Path]
    budget: int


def build(steps: Sequence[Step], wishes: Wishes, warnings: Sequence[str]) -> str:
    data = data_steps(steps)
    found = ends(data)
    counted = census.take(schema.progress(rows(found), "report: counting"), data)
    wanted = {cluster.kept_id for cluster in counted.shown_clusters()}
    kept, sample = _examples(found, wanted, counted)
    sections = [
        data_parts.way(steps, counted),
        data_parts.mix(counted),
        data_parts.lengths(counted, sample),
        data_parts.quality(data, counted),
        examples.duplicates(counted, kept),
        examples.rewrites(counted),
        data_parts.cost(data),
        model_parts.training(steps),
        model_parts.evaluation(steps, wishes.output),
        model_parts.gallery(steps, wishes.frames, [end.path for end in found if end.fate == KEPT]),
    ]
    packed = browser.embed(
        schema.progress(rows(found), "report: packing"), counted.rows, counted.text_lengths, data, wishes.budget
    )
    return _fill(sections, counted, steps, packed, found, wishes, warnings)


def _examples(
    found: Sequence[End], wanted: set[str], counted: Census
) -> tuple[dict[str, schema.Record], list[schema.Record]]:
    """The kept rows that are shown beside their duplicates, and an even sample of all kept rows."""
    kept: dict[str, schema.Record] = {}
    sample: list[schema.Record] = []
    stride = max(1, counted.count(KEPT) // census.TOKEN_ROWS)
    number_of_kept = 0
    for row in rows([end for end in found if end.fate != MERGED]):
        if row.id in wanted:
            kept.setdefault(row.id, row.record)
        if row.end.fate == KEPT:
            if number_of_kept % stride == 0:
                sample.append(row.record)
            number_of_kept += 1
    return kept, sample[: census.TOKEN_ROWS]


def _fill(
    sections: Sequence[Section],
    counted: Census,
    steps: Sequence[Step],
    packed: browser.Embedded,
    found: Sequence[End],
    wishes: Wishes,
    warnings: Sequence[str],
) -> str:
    style, script, worker = (_part(name) for name in ("page.css", "page.js", "worker.js"))
    tables = packed.tables | {"files": [shown(end.path) for end in found]}
    nav = [(section.key, section.title) for section in sections] + [("records", "Records")]
    return _replaced(_part("page.html"), {
        "policy": escape(_policy(style, script)),
        "style": style,
        "title": escape(wishes.title),
        "tiles": _tiles(counted, steps),
        "warnings": "".join(f'<p class="warning" role="note">{escape(line)}</p>' for line in warnings),
        "nav": "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in nav),
        "sections": "\n".join(section.html() for section in sections),
        "note": escape(packed.note),
        "tables": _json(tables),
        "worker": worker,
        "script": script,
        "blocks": "\n".join(f'<script type="text/plain" class="block">{block}</script>' for block in packed.blocks),
    })  # fmt: skip


def _replaced(template: str, parts: Mapping[str, str]) -> str:
    """Cut at the marks first: what is put in is never looked at again."""
    pieces = template.split("<!--@")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("@-->", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _part(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Only the script and the style that are in the page; nothing from anywhere else, whatever a record holds."""
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style", style), ("script", script))
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src data:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _json(value: object) -> str:
    """JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tiles(counted: Census, steps: Sequence[Step]) -> str:
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{safe(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in _headlines(counted, steps)
    )


def _headlines(counted: Census, steps: Sequence[Step]) -> Iterator[tuple[str, str, str]]:
    yield "rows", number(counted.rows), f"from {len(counted.fates):,} source{'s' * (len(counted.fates) != 1)}"
    for fate in (KEPT, REJECTED, MERGED):
        count = counted.count(fate)
        yield fate, number(count), f"{count / counted.rows:.1%}" if counted.rows else ""
    trained = [step.ledger.extra.get("trained_rows", 0) for step in steps if step.ledger.stage == "train"]
    if trained:
        yield "trained on", number(sum(trained)), "rows"
