"""The rows of a run as compressed blocks that the page unpacks one after the other, in a worker.

What is embedded: every row up to MOST_ROWS (evenly spread over the run beyond that), its texts whole while all of them
together stay below the budget, or else their first characters; the page says which.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.report.census import LICENCE_UNKNOWN
from stages.report.ledgers import Step
from stages.report.rows import End, Row, as_dict, as_list, opened

MOST_ROWS, BLOCK = 250_000, 2_000
LIMITS = (16_000, 8_000, 4_000, 3_000, 2_000, 1_500, 1_000, 800, 600, 500, 400, 350, 300, 250, 200, 150, 100, 80, 40)
SHORT_ID, MESSAGE, ISSUES = 16, 200, 12
Json = dict[str, Any]


class Names:
    """Words that stand in many rows, each told once."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, word: str) -> int:
        return self.known.setdefault(word, len(self.known))


class Embedded(NamedTuple):
    """What goes into the page."""

    blocks: list[str]
    tables: Json
    note: str


def limit_of(lengths: Counter[int], share: float, budget: int) -> int | None:
    """How many characters of a text there is room for; None: all of them."""
    if share * sum(length * count for length, count in lengths.items()) <= budget:
        return None
    for limit in LIMITS:
        if share * sum(min(length, limit) * count for length, count in lengths.items()) <= budget:
            return limit
    return LIMITS[-1]


def embed(rows: Iterable[Row], total: int, lengths: Counter[int], steps: Sequence[Step], budget: int) -> Embedded:
    taken = min(total, MOST_ROWS)
    limit = limit_of(lengths, taken / max(1, total), budget)
    packer = Packer(limit, _costs(steps))
    chosen = (row for place, row in enumerate(rows) if (place + 1) * taken // total > place * taken // total)
    blocks = [_pressed(block) for block in _blocks(map(packer.pack, chosen))]
    words = (
        f"All {total:,} rows are in this file"
        if taken == total
        else f"{taken:,} of {total:,} rows, evenly spread, are in this file"
    )
    words += (
        ", each text whole."
        if limit is None
        else f", the first {limit:,} characters of each text; the search sees no more than these."
    )
    return Embedded(blocks, packer.tables() | {"rows": taken, "limit": limit}, words)


class Packer:
    """Makes a short list of each row, and remembers the words that it left out of them."""

    def __init__(self, limit: int | None, costs: dict[str, Json]) -> None:
        self.limit, self.costs = limit, costs
        self.sources, self.kinds, self.licences = Names(), Names(), Names()
        self.ends, self.reasons, self.steps = Names(), Names(), Names()
        self.fates: dict[str, str] = {}

    def tables(self) -> Json:
        names = ("sources", "kinds", "licences", "ends", "reasons", "steps")
        found: Json = {name: list(getattr(self, name).known) for name in names}
        return found | {"fates": [self.fates[label] for label in found["ends"]]}

    def pack(self, row: Row) -> list[Any]:
        metadata, record = row.metadata, row.record
        return [
            row.id[:SHORT_ID],
            self.sources(record["source"]),
            self.kinds(str(metadata.get("kind", "code"))),
            self.licences(str(metadata.get("licence") or LICENCE_UNKNOWN)),
            self._end(row.end),
            self.reasons(row.reason),
            -1 if row.score is None else round(row.score, 4),
            record["description"][: self.limit],
            record["code"][: self.limit],
            len(record["description"]),
            len(record["code"]),
            {name: value for name, value in self._more(metadata).items() if value},
        ]

    def _end(self, end: End) -> int:
        self.fates[end.label] = end.fate
        return self.ends(end.label)

    def _more(self, metadata: Json) -> Json:
        """What is shown of a row once it is clicked."""
        quality, error = as_dict(metadata.get("quality")), as_dict(metadata.get("error"))
        return {
            "origin": {str(name): str(value)[:MESSAGE] for name, value in as_dict(metadata.get("origin")).items()},
            "lineage": [self._step(as_dict(entry)) for entry in as_list(metadata.get("lineage"))],
            "issues": [_issue(as_dict(issue)) for issue in as_list(quality.get("issues"))[:ISSUES]],
            "fixes": [str(name) for name in as_list(metadata.get("fixes_applied"))],
            "author": str(metadata.get("description_generated_by") or ""),
            "before": str(metadata.get("original_description") or "")[: self.limit],
            "render": _render(as_dict(metadata.get("render"))),
            "twin": _twin(as_dict(metadata.get("duplicate_of"))),
            "error": str(error.get("message") or "")[:MESSAGE],
            "cost": self.costs.get(str(metadata.get("id")), {}),
        }

    def _step(self, entry: Json) -> list[Any]:
        params = json.dumps(entry.get("params") or {}, ensure_ascii=False, sort_keys=True, default=str)
        place = self.steps(f"{entry.get('stage', '')} {entry.get('version', '')}\n{params}")
        request = str(entry.get("request") or "")[:SHORT_ID]
        return [place, request] if request else [place]


def _issue(issue: Json) -> list[str]:
    return [str(issue.get(name, ""))[:MESSAGE] for name in ("check", "severity", "message")]


def _render(said: Json) -> str:
    if "ok" not in said:
        return ""
    error = as_dict(said.get("error"))
    told = "runs" if said["ok"] else f"{error.get('class', 'fails')}: {error.get('message', '')}"
    return f"{told} ({said.get('level', '')})"[:MESSAGE]


def _twin(why: Json) -> list[str]:
    return (
        [str(why.get("kept_id", ""))[:SHORT_ID], str(why.get("field", "")), str(why.get("similarity", ""))]
        if why
        else []
    )


def _costs(steps: Sequence[Step]) -> dict[str, Json]:
    """What the receipts beside the files say that each row has cost."""
    found: dict[str, Json] = {}
    for path in sorted({_receipts(output) for step in steps for output in step.outputs}):
        if path.is_file():
            with opened(path) as file:
                for line in map(msgspec.json.decode, file):
                    if line.get("calls"):
                        names = ("usd", "calls", "input_tokens", "output_tokens")
                        found[line["id"]] = {name: line[name] for name in names if line.get(name) is not None}
    return found


def _receipts(output: Path) -> Path:
    return output.with_name(output.name.split(".json")[0] + ".receipts.jsonl")


def _blocks(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    block: list[list[Any]] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _pressed(block: list[list[Any]]) -> str:
    return base64.b64encode(gzip.compress(msgspec.json.encode(block), 6, mtime=0)).decode()
