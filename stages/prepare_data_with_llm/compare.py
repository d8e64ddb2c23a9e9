"""Two outputs side by side: which rows both have, what is different in their words, and what each has cost.

Where both files were judged, it says whose verdicts are better; each was judged by itself, so that no order could
favour one of them.

A row of one file belongs to the row of the other with the same id; rows that were made of a document (questions and
answers, explanations) belong to those that were made of the same document, however many there are of each.
"""

import difflib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import schema
from schema import Record
from stages.prepare_data_with_llm.answers import Answers, open_answers

Texts = dict[tuple[str, str], list[Record]]
SHOWN = 1200  # characters of a text in the report


class Pair(NamedTuple):
    """What both files say about the same thing."""

    id: str
    voice: str
    a: list[Record]
    b: list[Record]
    similarity: float


def compare(a: str, b: str, cache_dir: Path, examples: int) -> dict[str, Any]:
    """The report on two files; of the pairs that differ, the most different ones are its examples."""
    first, second = read(a), read(b)
    both = [key for key in first if key in second]
    pairs = [pair_of(key, first[key], second[key]) for key in both]
    differing = sorted((pair for pair in pairs if pair.similarity < 1), key=lambda pair: (pair.similarity, pair.id))
    is_there = (cache_dir / "cache.db").exists()
    with open_answers(cache_dir) if is_there else nullcontext() as answers:
        sides = {"a": side(a, first, answers), "b": side(b, second, answers)}
    return sides | {
        "in_both": len(both),
        "only_in_a": len(first.keys() - second.keys()),
        "only_in_b": len(second.keys() - first.keys()),
        "same": len(both) - len(differing),
        "different": len(differing),
        "verdicts": verdicts(pairs),
        "similarity": round(statistics.fmean(pair.similarity for pair in pairs), 4) if pairs else None,
        "examples": [example(pair) for pair in differing[:examples]],
    }


def read(path: str) -> Texts:
    """The rows of a file by what they are about; a file that holds other rows, too, is not what was meant."""
    found: Texts = defaultdict(list)

    def refuse(item: Any, message: str, code: str = "", line: int | None = None) -> None:
        raise schema.Failure(f"{path}: line {line}: {message}")

    for record in map(schema.adopt, schema.read(path, refuse)):
        metadata = record["metadata"]
        found[str(metadata.get("parent") or metadata["id"]), str(metadata.get("persona", ""))].append(record)
    return found


def pair_of(key: tuple[str, str], a: list[Record], b: list[Record]) -> Pair:
    first, second = ("\n".join(map(text_of, records)) for records in (a, b))
    same = difflib.SequenceMatcher(a=first.split(), b=second.split(), autojunk=False).ratio()
    return Pair(*key, a, b, 1.0 if first == second else min(same, 0.9999))


def text_of(record: Record) -> str:
    """What a model has written of a record: the description of a program, all of a made row."""
    kind = record["metadata"].get("kind", "code")
    return record["description"] if kind == "code" else f"{record['description']}\n{record['code']}"


def side(path: str, texts: Texts, answers: Answers | None) -> dict[str, Any]:
    """What is to be said about one file."""
    records = [record for group in texts.values() for record in group]
    lengths = [len(text_of(record).split()) for record in records]
    return {
        "path": path,
        "rows": len(records),
        "authors": dict(Counter(map(author, records)).most_common()),
        "words": round(statistics.fmean(lengths), 1) if lengths else None,
        "score": score(records),
        **cost(records, answers),
    }


def score(records: list[Record]) -> float | None:
    """The mean score of the rows that `judge` has seen."""
    judged = (record["metadata"].get("judge") for record in records)
    found = [said["score"] for said in judged if isinstance(said, dict) and type(said.get("score")) is int]
    return round(statistics.fmean(found), 3) if found else None


def verdicts(pairs: list[Pair]) -> dict[str, int]:
    """How often which side has the better verdict, of the pairs where both have one."""
    counts = {"a_better": 0, "b_better": 0, "equal": 0}
    for pair in pairs:
        a, b = score(pair.a), score(pair.b)
        if a is not None and b is not None:
            counts["equal" if a == b else "a_better" if a > b else "b_better"] += 1
    return counts


def author(record: Record) -> str:
    metadata = record["metadata"]
    return str(metadata.get("generated_by") or metadata.get("description_generated_by") or "nobody asked")


def cost(records: list[Record], answers: Answers | None) -> dict[str, Any]:
    """What the answers behind the rows have cost when they were new, as far as the cache still has them."""
    keys = {request for record in records for request in requests_of(record)}
    found = [entry for key in sorted(keys) if answers and (entry := answers.get(key))]
    usage = [entry["usage"] for entry in found if isinstance(entry.get("usage"), dict)]
    prices = [entry["usd"] for entry in found if isinstance(entry.get("usd"), int | float)]
    return {
        "requests": len(keys),
        "in_cache": len(found),
        "input_tokens": sum(use.get("input", 0) for use in usage),
        "output_tokens": sum(use.get("output", 0) for use in usage),
        "usd": round(sum(prices), 6) if len(prices) == len(keys) else None,
    }


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
