"""Counts the rows of a run in one pass; what it holds grows with sources and reasons, not with rows.

Only the few rows that are shown as examples are held whole: pairs of duplicates and rewritten descriptions.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import schema
from stages.report.ledgers import Step
from stages.report.rows import KEPT, MERGED, REJECTED, Row, as_dict, as_list

CLUSTERS, REWRITES, REWRITES_HELD, TOKEN_ROWS = 24, 12, 4096, 5000
LICENCE_UNKNOWN = "not recorded"
# As in dataset_stats.json: what the tokenizers of today make one token of, or a little more.
_PIECE = re.compile(r"[^\W\d_]{1,8}|\d{1,3}|\n\s*|[^\w\s]|_")
Json = dict[str, Any]


class Removed(NamedTuple):
    """A duplicate that was merged into another row."""

    record: schema.Record
    field: str
    similarity: float


class Cluster(NamedTuple):
    """A row that was kept, and those that say the same."""

    kept_id: str
    size: int
    removed: list[Removed]


class Census:
    """What is counted of all rows."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.rows = 0
        self.fates: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by source
        self.ends: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by source: rows in each file
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.stopped: defaultdict[str, Counter[int]] = defaultdict(Counter)  # by source: rejects of each step
        self.marks: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by source: fixed, described, rendered
        self.licences: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.lengths: dict[str, defaultdict[str, Counter[int]]] = {
            "description": defaultdict(Counter),
            "code": defaultdict(Counter),
        }
        self.scores: dict[str, Counter[int]] = {KEPT: Counter(), REJECTED: Counter()}
        self.issues: Counter[tuple[str, str]] = Counter()
        self.text_lengths: Counter[int] = Counter()
        self.clusters: Counter[str] = Counter()
        self._removed: defaultdict[str, list[Removed]] = defaultdict(list)
        self.rewrites: list[schema.Record] = []
        self.rewritten = 0
        self._stride = 1

    def add(self, row: Row) -> None:
        record, metadata = row.record, row.metadata
        source, fate = record["source"], row.end.fate
        self.rows += 1
        self.fates[source][fate] += 1
        self.ends[source][row.end.label] += 1
        self.text_lengths.update((len(record["description"]), len(record["code"])))
        self._count_marks(source, metadata)
        if fate == REJECTED:
            self.reasons[row.end.label, row.reason] += 1
            self.stopped[source][row.end.step] += 1
        elif fate == MERGED:
            self._merge(row)
        else:
            self._keep(record, metadata)
        if row.score is not None and fate in self.scores:
            self.scores[fate][min(20, int(row.score * 20 + 1e-9))] += 1
            self.issues.update({_issue(issue) for issue in as_list(as_dict(metadata["quality"]).get("issues"))})

    def _keep(self, record: schema.Record, metadata: Json) -> None:
        source = record["source"]
        self.licences[str(metadata.get("licence") or LICENCE_UNKNOWN)][source] += 1
        for field, text in (("description", record["description"]), ("code", record["code"])):
            if text:
                self.lengths[field][source][len(text)] += 1
        if isinstance(metadata.get("original_description"), str):
            self._note_rewrite(record)

    def _count_marks(self, source: str, metadata: Json) -> None:
        render = as_dict(metadata.get("render"))
        self.marks[source].update(
            fixed=bool(metadata.get("fixes_applied")),
            described=bool(metadata.get("description_generated_by")),
            augmented=bool(metadata.get("augmented_from")),
            rendered=render.get("ok") is True,
            run=isinstance(render.get("ok"), bool),
        )

    def _merge(self, row: Row) -> None:
        why = as_dict(row.metadata.get("duplicate_of"))
        if not isinstance(why.get("kept_id"), str):
            return
        self.clusters[why["kept_id"]] += 1
        held = self._removed[why["kept_id"]]
        if len(self._removed) <= 50 * CLUSTERS and len(held) < 3:
            held.append(Removed(row.record, str(why.get("field")), float(why.get("similarity") or 0)))

    def _note_rewrite(self, record: schema.Record) -> None:
        """Every n-th one, n doubling as they become many, so that the whole file is looked at."""
        if self.rewritten % self._stride == 0:
            self.rewrites.append(record)
        self.rewritten += 1
        if len(self.rewrites) > REWRITES_HELD:
            self.rewrites, self._stride = self.rewrites[::2], 2 * self._stride

    def shown_rewrites(self) -> list[schema.Record]:
        step = max(1, len(self.rewrites) // REWRITES)
        return self.rewrites[::step][:REWRITES]

    def shown_clusters(self) -> list[Cluster]:
        """The largest ones of which a removed row is at hand; of equal size, near ones first: there is more to see."""

        def rank(name: str) -> tuple[int, float, str]:
            return -self.clusters[name], self._removed[name][0].similarity, name

        names = sorted((name for name in self.clusters if self._removed.get(name)), key=rank)[:CLUSTERS]
        return [Cluster(name, self.clusters[name], self._removed[name]) for name in names]

    def sources(self) -> list[str]:
        """The largest first."""
        return sorted(self.fates, key=lambda name: (-self.fates[name].total(), name))

    def count(self, fate: str) -> int:
        return sum(counts[fate] for counts in self.fates.values())


def take(rows: Iterable[Row], steps: Sequence[Step]) -> Census:
    census = Census(steps)
    for row in rows:
        census.add(row)
    return census


def about_how_many_tokens(text: str) -> int:
    return len(_PIECE.findall(text))


def _issue(issue: Any) -> tuple[str, str]:
    return str(as_dict(issue).get("check", "")), str(as_dict(issue).get("severity", ""))
