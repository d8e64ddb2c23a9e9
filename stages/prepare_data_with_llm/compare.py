"""Two outputs side by side: which rows both have, what is different in their words, and what each has cost.

Where both files were judged, it says whose verdicts are better; each was judged by itself, so that no order could
favour one of them.

A row of one file belongs to the row of the other with the same id; rows that were made of a document (questions and
answers, explanations) belong to those that were made of the same document, however many there are of each. Both files
are read once and side by side: what waits in memory is what one file has and the other has not, or has elsewhere.
"""

import difflib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count, groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import schema
from schema import Record
from stages.prepare_data_with_llm.answers import Answers, open_answers

Key = tuple[str, str]  # what a row is about, and in which voice
Group = list[Record]  # the rows of one file about one thing
SHOWN = 1200  # characters of a text in the report


class Pair(NamedTuple):
    """What both files say about the same thing."""

    id: str
    voice: str
    a: Group
    b: Group
    similarity: float


@dataclass
class Side:
    """What is to be said about one file; counted while it is read."""

    path: str
    answers: Answers | None
    rows: int = 0
    words: int = 0
    authors: Counter[str] = field(default_factory=Counter)
    scores: list[int] = field(default_factory=lambda: [0, 0])  # their sum, their number
    requests: set[bytes] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0

    def read(self) -> Iterator[tuple[Key, Group]]:
        """The rows by what they are about; a file that holds other rows, too, is not what was meant."""

        def refuse(item: Any, message: str, code: str = "", line: int | None = None) -> None:
            raise schema.Failure(f"{self.path}: line {line}: {message}")

        for key, rows in groupby(map(schema.adopt, schema.read(self.path, refuse)), key=about):
            group = list(rows)
            for record in group:
                self.count(record)
            yield key, group

    def count(self, record: Record) -> None:
        self.rows += 1
        self.words += len(text_of(record).split())
        self.authors[author(record)] += 1
        if (said := score([record])) is not None:
            self.scores = [self.scores[0] + int(said), self.scores[1] + 1]
        for request in requests_of(record):
            self.pay(request)

    def pay(self, request: str) -> None:
        """What the answer has cost when it was new, as far as the cache still has it; rows may share one."""
        short = request.encode()[:32]
        if short in self.requests:
            return
        self.requests.add(short)
        entry = self.answers.get(request) if self.answers else None
        if entry is None:
            return
        self.found["in_cache"] += 1
        usage = entry["usage"] if isinstance(entry.get("usage"), dict) else {}
        self.found.update({f"{name}_tokens": usage.get(name, 0) for name in ("input", "output")})
        if isinstance(entry.get("usd"), int | float):
            self.found["priced"] += 1
            self.usd += entry["usd"]

    def report(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "rows": self.rows,
            "authors": dict(self.authors.most_common()),
            "words": round(self.words / self.rows, 1) if self.rows else None,
            "score": round(self.scores[0] / self.scores[1], 3) if self.scores[1] else None,
            "requests": len(self.requests),
            **{name: self.found[name] for name in ("in_cache", "input_tokens", "output_tokens")},
            "usd": round(self.usd, 6) if self.found["priced"] == len(self.requests) else None,
        }


def compare(a: str, b: str, cache_dir: Path, examples: int, put: Callable[[Pair], Any] | None = None) -> dict[str, Any]:
    """The report on two files; of the pairs that differ, the most different ones are its examples, and `put` gets
    every one of them."""
    is_there = (cache_dir / "cache.db").exists()
    counts: Counter[str] = Counter()
    similarity = 0.0
    verdicts: Counter[str] = Counter(a_better=0, b_better=0, equal=0)
    shown: list[tuple[float, int, Pair]] = []
    with open_answers(cache_dir) if is_there else nullcontext() as answers:
        sides = Side(a, answers), Side(b, answers)
        lonely: tuple[dict[Key, Group], dict[Key, Group]] = ({}, {})
        for number, pair in zip(count(), pairs_of(*sides, lonely)):
            counts["different" if pair.similarity < 1 else "same"] += 1
            similarity += pair.similarity
            verdicts.update(verdict(pair))
            if pair.similarity < 1:
                (heapq.heappush if len(shown) < examples else heapq.heappushpop)(
                    shown, (-pair.similarity, -number, pair)
                )
                if put:
                    put(pair)
    both = counts.total()
    return {
        "a": sides[0].report(),
        "b": sides[1].report(),
        "in_both": both,
        "only_in_a": len(lonely[0]),
        "only_in_b": len(lonely[1]),
        "same": counts["same"],
        "different": counts["different"],
        "verdicts": dict(verdicts),
        "similarity": round(similarity / both, 4) if both else None,
        "examples": [example(pair) for _, _, pair in sorted(shown, key=lambda entry: (-entry[0], -entry[1]))],
    }


def pairs_of(a: Side, b: Side, lonely: tuple[dict[Key, Group], dict[Key, Group]]) -> Iterator[Pair]:
    """What both files have, as soon as both have shown it; `lonely` holds what only one has shown so far."""
    for entries in zip_longest(a.read(), b.read()):
        for side, entry in enumerate(entries):
            if entry is None:
                continue
            key, group = entry
            if key not in lonely[1 - side]:
                lonely[side][key] = [*lonely[side].get(key, ()), *group]
                continue
            other = lonely[1 - side].pop(key)
            yield pair_of(key, *((other, group) if side else (group, other)))


def about(record: Record) -> Key:
    metadata = record["metadata"]
    return str(metadata.get("parent") or metadata["id"]), str(metadata.get("persona", ""))


def pair_of(key: Key, a: Group, b: Group) -> Pair:
    first, second = ("\n".join(map(text_of, records)) for records in (a, b))
    same = difflib.SequenceMatcher(a=first.split(), b=second.split(), autojunk=False).ratio() if first != second else 1
    return Pair(*key, a, b, 1.0 if first == second else min(same, 0.9999))


def text_of(record: Record) -> str:
    """What a model has written of a record: the description of a program, all of a made row."""
    kind = record["metadata"].get("kind", "code")
    return record["description"] if kind == "code" else f"{record['description']}\n{record['code']}"


def score(records: Group) -> float | None:
    """The mean score of the rows that `judge` has seen."""
    judged = (record["metadata"].get("judge") for record in records)
    found = [said["score"] for said in judged if isinstance(said, dict) and type(said.get("score")) is int]
    return sum(found) / len(found) if found else None


def verdict(pair: Pair) -> list[str]:
    """Which side has the better verdict of `judge`, where both have one."""
    a, b = score(pair.a), score(pair.b)
    if a is None or b is None:
        return []
    return ["equal" if a == b else "a_better" if a > b else "b_better"]


def author(record: Record) -> str:
    metadata = record["metadata"]
    return str(metadata.get("generated_by") or metadata.get("description_generated_by") or "nobody asked")


def requests_of(record: Record) -> Iterator[str]:
    for entry in record["metadata"].get("lineage") or []:
        if request := entry.get("request"):
            yield str(request)


def example(pair: Pair) -> dict[str, Any]:
    voice = {"persona": pair.voice} if pair.voice else {}
    texts = {"a": [text_of(record) for record in pair.a], "b": [text_of(record) for record in pair.b]}
    return {"id": pair.id, **voice, "similarity": round(pair.similarity, 4), **texts}


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    rows = [
        ("rows", "rows"),
        ("words a row", "words"),
        ("score of the judge", "score"),
        ("requests", "requests"),
        ("tokens read", "input_tokens"),
        ("tokens written", "output_tokens"),
        ("cost in $", "usd"),
    ]
    sides = report["a"], report["b"]
    lines = ["# Two outputs side by side", "", "| | A | B |", "|---|---|---|"]
    lines += [f"| file | {sides[0]['path']} | {sides[1]['path']} |"]
    lines += ["| written by | " + " | ".join(", ".join(told["authors"]) for told in sides) + " |"]
    lines += [f"| {title} | {shown(sides[0][name])} | {shown(sides[1][name])} |" for title, name in rows]
    lines += [
        "",
        f"{report['in_both']:,} in both, {report['only_in_a']:,} only in A, {report['only_in_b']:,} only in B; "
        f"{report['same']:,} the same, {report['different']:,} different; mean similarity {report['similarity']}.",
    ]
    if sum(report["verdicts"].values()):
        told = report["verdicts"]
        lines += ["", f"Judged: A better {told['a_better']:,}, B better {told['b_better']:,}, equal {told['equal']:,}."]
    if told := report.get("judge"):
        lines += [
            "",
            f"Asked in both orders ({told['by']}): A better {told['a_better']:,}, B better {told['b_better']:,}, "
            f"equal {told['equal']:,}, decided by the order {told['unsteady']:,}, no answer {told['unanswered']:,}; "
            f"cost in $: {shown(told['usd'])}.",
        ]
    for shown_pair in report["examples"]:
        voice = f", {shown_pair['persona']}" if "persona" in shown_pair else ""
        lines += ["", f"## {shown_pair['id'][:12]}{voice}: similarity {shown_pair['similarity']}"]
        for name in ("a", "b"):
            lines += ["", f"{name.upper()}:", "", *(quoted(text) for text in shown_pair[name])]
    return "\n".join(lines)


def shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def quoted(text: str) -> str:
    """A text as a quotation, so that nothing in it is taken for a heading of the report."""
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]} [...]"
    return "\n".join(f"> {line}" for line in cut.split("\n"))
