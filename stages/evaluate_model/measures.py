"""What is counted: checks of one generated row, rates with their intervals, and two sets of rows side by side."""

from __future__ import annotations

import ast
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import schema

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations
Rows = dict[tuple[str, int], schema.Record]


class Rate(NamedTuple):
    """A share, and the Wilson interval that holds the true one in 95 of 100 such samples."""

    passed: int
    n: int
    rate: float | None
    low: float | None
    high: float | None


def wilson(passed: int, n: int) -> Rate:
    """Unlike the textbook interval it stays within 0 and 1, and says something at 0 of n and at n of n."""
    if n == 0:
        return Rate(0, 0, None, None, None)
    share, weight = passed / n, Z * Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / n / 4) / (1 + weight)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Rate(passed, n, round(share, 6), round(low, 6), round(high, 6))


def kind_of(record: schema.Record) -> str:
    return str(record["metadata"].get("kind", "code"))


def is_code(record: schema.Record) -> bool:
    return kind_of(record) == "code"


def is_empty_answer(record: schema.Record) -> bool:
    """Whether a row of a rejects file stands for an answer that was asked for and came back empty."""
    return bool(record["metadata"].get("evaluation", {}).get("empty", False))


def parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escapes and comparisons are not our reader's concern
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def parses(record: schema.Record) -> bool | None:
    """Whether the answer is a program; None for kinds that are no code."""
    if not is_code(record):
        return None
    return not is_empty_answer(record) and parse(record["code"]) is not None


def has_scene(record: schema.Record) -> bool | None:
    """Whether the answer is a program with a scene class that has a construct method."""
    if not is_code(record):
        return None
    tree = None if is_empty_answer(record) else parse(record["code"])
    return tree is not None and any(_is_scene(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def _is_scene(node: ast.ClassDef) -> bool:
    names = [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]
    methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
    return "construct" in methods and any(name.endswith("Scene") for name in names)


def finished(record: schema.Record) -> bool | None:
    """Whether the model ended by itself; None for rows that no model wrote."""
    finish = record["metadata"].get("evaluation", {}).get("finish")
    return None if finish is None else finish == "eos"


CHECKS: dict[str, Callable[[schema.Record], bool | None]] = {
    "syntax": parses,
    "scene": has_scene,
    "finished": finished,
}


def quality(record: schema.Record) -> float | None:
    score = record["metadata"].get("quality", {}).get("score")
    return float(score) if isinstance(score, int | float) else None


def mean_loss(record: schema.Record) -> float | None:
    """Lower is better."""
    loss = record["metadata"].get("evaluation", {}).get("loss")
    return float(loss) if isinstance(loss, int | float) else None


def scores(records: list[schema.Record]) -> dict[str, Any]:
    """All numbers of one set of generated rows; every one can be counted again from the file."""
    found: dict[str, Any] = {"rows": len(records), "empty": sum(map(is_empty_answer, records))}
    for name, check in CHECKS.items():
        verdicts = [verdict for verdict in map(check, records) if verdict is not None]
        found[name] = wilson(sum(verdicts), len(verdicts))._asdict()
    tags = [tag for tag in map(quality, records) if tag is not None]
    issues = Counter(issue for record in records for issue in issue_names(record))
    mean = round(sum(tags) / len(tags), 6) if tags else None
    found["quality"] = {"n": len(tags), "mean": mean, "issues": dict(sorted(issues.items()))}
    return found


def issue_names(record: schema.Record) -> set[str]:
    """The names of what filter_quality.py found in a row, each once."""
    issues = record["metadata"].get("quality", {}).get("issues", [])
    return {issue["check"] for issue in issues}


def totals(rows: Iterable[schema.Record]) -> dict[str, Any]:
    """Loss, perplexity and accuracy over tokens, not over rows: a long answer weighs as much as it is long."""
    facts = [row["metadata"]["evaluation"] for row in rows]
    tokens = sum(fact["tokens"] for fact in facts)
    if tokens == 0:
        return {"rows": 0, "tokens": 0, "loss": None, "perplexity": None, "accuracy": None}
    loss = sum(fact["nll"] for fact in facts) / tokens
    return {
        "rows": len(facts),
        "tokens": tokens,
        "loss": round(loss, 6),
        "perplexity": round(math.exp(loss), 6) if loss < 700 else None,  # beyond that a float has no word for it
        "accuracy": round(sum(fact["correct"] for fact in facts) / tokens, 6),
    }


def grouped(rows: list[schema.Record]) -> dict[str, Any]:
    """Totals of all rows, and of each source and kind."""
    by_source, by_kind = defaultdict(list), defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
        by_kind[kind_of(row)].append(row)
    return {
        "all": totals(rows),
        "by_source": {name: totals(by_source[name]) for name in sorted(by_source)},
        "by_kind": {name: totals(by_kind[name]) for name in sorted(by_kind)},
    }


def by_id(records: Iterable[schema.Record]) -> Rows:
    """Rows under their id; rows that share one are told apart by their order."""
    seen: Counter[str] = Counter()
    rows: Rows = {}
    for record in records:
        name = record["metadata"]["id"]
        rows[name, seen[name]] = record
        seen[name] += 1
    return rows


def paired(
    first: Rows, second: Rows, measure: Callable[[schema.Record], float | None], *, low_is_good: bool
) -> dict[str, Any]:
    """How one measure changes from the first set to the second, row by row."""
    both = [(measure(first[name]), measure(second[name])) for name in first if name in second]
    pairs = [(float(a), float(b)) for a, b in both if a is not None and b is not None]
    sign = -1 if low_is_good else 1
    return {
        "n": len(pairs),
        "a": round(sum(a for a, _ in pairs) / len(pairs), 6) if pairs else None,
        "b": round(sum(b for _, b in pairs) / len(pairs), 6) if pairs else None,
        "better": sum(sign * b > sign * a for a, b in pairs),
        "worse": sum(sign * b < sign * a for a, b in pairs),
        "equal": sum(a == b for a, b in pairs),
    }
