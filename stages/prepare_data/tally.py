"""Counts rows while they are written, so that the reports say what the files hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from schema import Link, Record
from stages.prepare_data.statistics import Statistics

_SIDES = {"train.json": "train", "test.json": "test"}


class Placed(NamedTuple):
    """One record on its way to one of the files."""

    file: str
    record: Record
    source: str
    link: Link | None = None
    kept_in: str = ""
    tokens: Sequence[int] = (0, 0)  # about how many its code and its description have


class Tally:
    """What was written, by file, source and reason."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._files: Counter[tuple[str, str]] = Counter()
        self._reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._fixes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._links: Counter[tuple[str, float]] = Counter()
        self._between: Counter[tuple[str, str]] = Counter()

    def unusable(self, row: Record) -> None:
        """A row that was rejected while it was read."""
        self._files["rejects.jsonl", row["source"]] += 1
        self._note(row)

    def count(self, row: Placed) -> None:
        """A record of a source, whatever becomes of it."""
        self._files[row.file, row.source] += 1
        self._note(row.record)
        self.statistics.passed(row.record)
        if row.link:
            self._links[row.link.field, row.link.similarity] += 1
            self._between[row.source, row.kept_in] += 1
        if row.file == "removed_duplicates.json":
            self.statistics.merged(row.record)
        elif row.file in _SIDES:
            self.statistics.kept(row.record, _SIDES[row.file], row.tokens)

    def _note(self, row: Record) -> None:
        metadata, source = row["metadata"], row["source"]
        self._fixes[source].update(metadata.get("fixes_applied") or [])
        if "error" in metadata:
            self._reasons[source][metadata["error"]["code"]] += 1

    def reasons(self, source: str | None = None) -> dict[str, int]:
        return _of(self._reasons, source)

    def fixes(self, source: str | None = None) -> dict[str, int]:
        """How many rows each repair was done on, rejected ones too."""
        return _of(self._fixes, source)

    def of(self, file: str, source: str | None = None) -> int:
        return sum(count for (name, place), count in self._files.items() if name == file and source in (None, place))

    def counts(self) -> dict[str, int]:
        """Rows in = kept + rejected + merged; the variants of kept rows are counted apart."""
        train, test, merged = self.of("train.json"), self.of("test.json"), self.of("removed_duplicates.json")
        return {
            "in": sum(self._files.values()),
            "kept": train + test,
            "rejected": self.of("rejects.jsonl"),
            "merged": merged,
            "augmented": self.statistics.total("augmented"),
            "train": train,
            "test": test,
        }

    def deduplication(self, priorities: dict[str, int], policy: dict[str, Any]) -> dict[str, Any]:
        """Counts that a recount of the files gives again; `records` are those that were fit for use."""
        records = {name: self.statistics.steps[name]["passed"] for name in sorted(priorities)}
        removed, total = self.of("removed_duplicates.json"), sum(records.values())
        fields: Counter[str] = Counter()
        similarity: Counter[str] = Counter()
        for (field, value), count in self._links.items():
            fields[field] += count
            low = min(int(value * 20), 19) / 20
            similarity["1" if value == 1 else f"{low:.2f}-{low + 0.05:.2f}"] += count
        return {
            "enabled": policy["deduplicate"],
            "policy": policy,
            "records": total,
            "kept": total - removed,
            "removed": removed,
            "tagged": fields.total() - removed,
            "removed_share": round(removed / total, 4) if total else 0.0,
            "exact": fields.total() - fields["near"],
            "near": fields["near"],
            "by_field": dict(sorted(fields.items())),
            "by_similarity": dict(sorted(similarity.items())),
            "by_source": {
                name: {
                    "priority": priorities[name],
                    "records": count,
                    "removed": (gone := self.of("removed_duplicates.json", name)),
                    "kept": count - gone,
                }
                for name, count in records.items()
            },
            "between_sources": [
                {"removed": removed_source, "kept": kept_in, "count": count}
                for (removed_source, kept_in), count in sorted(self._between.items())
            ],
        }


def _of(counters: dict[str, Counter[str]], source: str | None) -> dict[str, int]:
    chosen = counters.values() if source is None else [counters.get(source, Counter())]
    return dict(sorted(sum(chosen, Counter[str]()).items()))
