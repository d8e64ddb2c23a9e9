"""The report over one run: what was found how often, where, and a few rows to look at."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import schema
from stages.filter_quality.rules import SEVERITIES

_EXAMPLES = 5


class Report:
    """Counts that grow row by row; memory depends on the number of checks and sources, not of rows."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.scores: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.severities: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.checks: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.examples: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.renders: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.failed: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.found_in: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, record: schema.Record, quality: dict[str, Any], *, kept: bool) -> None:
        """Count one row that was kept or rejected."""
        fate, source = "kept" if kept else "rejected", record["source"]
        self.rows[fate] += 1
        self.sources[source][fate] += 1
        self.scores[f"{int(quality['score'] * 10) / 10:.1f}"] += 1
        for severity in {issue["severity"] for issue in quality["issues"]}:
            self.severities[severity][fate] += 1
        for check, issue in {issue["check"]: issue for issue in quality["issues"]}.items():
            self.checks[check][fate] += 1
            self.found_in[source][check] += 1
            if len(self.examples[check]) < _EXAMPLES:
                facts = {key: issue[key] for key in ("severity", "message", "line") if key in issue}
                self.examples[check].append(
                    {"id": record["metadata"].get("id"), "source": source, "fate": fate, **facts}
                )

        if said := record["metadata"].get("render"):
            self._add_render(record, said, fate)

    def _add_render(self, record: schema.Record, said: dict[str, Any], fate: str) -> None:
        error = said.get("error") or {}
        name = error.get("class", "ok")
        self.renders[name][fate] += 1
        if error and len(self.failed[name]) < _EXAMPLES:
            facts = {key: error.get(key) for key in ("type", "message", "line")}
            self.failed[name].append({"id": record["metadata"].get("id"), "source": record["source"], **facts})

    def add_unreadable(self, item: Any, message: str, code: str = "", line: int | None = None) -> None:
        """Count one row that never was a record, so that no check saw it."""
        self.rows["rejected"] += 1
        self.unreadable[code] += 1

    def content(self) -> dict[str, Any]:
        """The report as JSON values; the most frequent first, equal counts by name."""
        return {
            "rows": {"in": self.rows.total(), "kept": self.rows["kept"], "rejected": self.rows["rejected"]},
            "unreadable": _sorted(self.unreadable),
            "scores": dict(sorted(self.scores.items(), reverse=True)),
            "severities": {name: _fates(self.severities[name]) for name in SEVERITIES if name in self.severities},
            "checks": {
                check: {**_fates(self.checks[check]), "examples": self.examples[check]}
                for check in sorted(self.checks, key=lambda check: (-self.checks[check].total(), check))
            },
            "renders": {
                name: {**_fates(self.renders[name]), "examples": self.failed[name]}
                for name in sorted(self.renders, key=lambda name: (-self.renders[name].total(), name))
            },
            "sources": {
                source: {**_fates(counts), "checks": _sorted(self.found_in[source])}
                for source, counts in sorted(self.sources.items())
            },
        }


def _fates(counts: Counter[str]) -> dict[str, int]:
    return {"kept": counts["kept"], "rejected": counts["rejected"]}


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
