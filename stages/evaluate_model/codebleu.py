"""CodeBLEU (Ren 2020): runs of tokens, the same with keywords weighing more, subtrees, flow of data, a quarter each.

Tokens are cut at spaces and smoothed as in the package codebleu, so the first two parts are its numbers to the digit.
The other two are counted on Python's own tree in place of tree-sitter's: close to those of the package, not equal.
And the distance of two trees (Zhang and Shasha 1989), as ManimBench quotes it.
"""

from __future__ import annotations

import ast
import keyword
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stages.evaluate_model import similarity

_NEXT_TO_NOTHING = 0.1  # in place of no common run, as smoothing method 1 of Chen and Cherry (2014) has it
_OTHER_WORDS = 0.2  # what a token that is no keyword weighs
_MOST_NODES = 1500  # the distance of two trees costs more than the product of their sizes

Edge = tuple[str, str, tuple[str, ...]]


class Parts(NamedTuple):
    """What CodeBLEU is the mean of."""

    ngram: float
    weighted: float
    syntax: float
    dataflow: float

    @property
    def score(self) -> float:
        return sum(self) / 4


def parts(answer: str, reference: str, trees: tuple[ast.AST | None, ast.AST | None]) -> Parts:
    said, wanted = answer.split(), reference.split()
    there, needed = trees
    known: dict[tuple[Any, ...], int] = {}
    return Parts(
        ngram=_bleu(said, wanted, weighted=False),
        weighted=_bleu(said, wanted, weighted=True),
        syntax=_found(similarity.shapes(there, known), similarity.shapes(needed, known)),
        dataflow=_taken(_dataflow(there), _dataflow(needed)),
    )


# --- tokens -----------------------------------------------------------------------------------------------------------
def _bleu(said: Sequence[str], wanted: Sequence[str], *, weighted: bool) -> float:
    """Precision of the runs, and a penalty for brevity; weighted, it is their recall, which needs none."""
    logs = 0.0
    for size in range(1, 5):
        have, need = similarity.runs(said, size), similarity.runs(wanted, size)
        weights = _weigh if weighted and size == 1 else _count
        hits, whole = weights(have & need), max(1.0, weights(need if weighted else have))
        if size == 1 and not hits:
            return 0.0
        logs += math.log((hits or _NEXT_TO_NOTHING) / whole) / 4
    return math.exp(logs + (0.0 if weighted else min(0.0, 1 - len(wanted) / len(said))))


def _count(runs: Counter[tuple[str, ...]]) -> float:
    return float(runs.total())


def _weigh(runs: Counter[tuple[str, ...]]) -> float:
    return sum(count * (1.0 if keyword.iskeyword(run[0]) else _OTHER_WORDS) for run, count in runs.items())


# --- trees ------------------------------------------------------------------------------------------------------------
def _found(have: Counter[int], need: Counter[int]) -> float:
    """The share of the reference's subtrees that stand anywhere in the answer."""
    return sum(count for shape, count in need.items() if shape in have) / need.total() if need else 0.0


def _taken(have: Counter[Edge], need: Counter[Edge]) -> float:
    return (have & need).total() / need.total() if need else 0.0


def _dataflow(tree: ast.AST | None) -> Counter[Edge]:
    """Which name gets its value from which, the names numbered in the order in which they come up (as in the paper)."""
    edges: list[Edge] = []
    _follow(tree, edges, set())
    used = {name for _, _, sources in edges for name in sources}
    numbers: dict[str, str] = {}
    found: Counter[Edge] = Counter()
    for name, kind, sources in edges:
        if sources or name in used:
            renamed = tuple(numbers.setdefault(source, str(len(numbers))) for source in sources)
            found[(numbers.setdefault(name, str(len(numbers))), kind, renamed)] += 1
    return found


def _follow(node: ast.AST | None, edges: list[Edge], known: set[str]) -> None:
    match node:
        case None:
            return
        case ast.Assign(targets=targets, value=value):
            _assign(targets, value, edges, known)
        case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
            _assign([target], value, edges, known)
        case ast.For(target=target, iter=value, body=body, orelse=orelse):
            _assign([target], value, edges, known)
            for statement in [*body, *orelse]:
                _follow(statement, edges, known)
        case _:
            for child in _parts_of(node):
                if isinstance(child, ast.AST):
                    _follow(child, edges, known)
                else:
                    edges.append((child, "comesFrom", (child,) if child in known else ()))
                    known.add(child)


def _assign(targets: Sequence[ast.AST], value: ast.AST | None, edges: list[Edge], known: set[str]) -> None:
    _follow(value, edges, known)
    sources = sorted(set(_names(value))) if value else []
    for name in (name for target in targets for name in _names(target)):
        edges.append((name, "computedFrom", tuple(sources)))
        known.add(name)


def _names(node: ast.AST) -> Iterator[str]:
    for child in _parts_of(node):
        if isinstance(child, ast.AST):
            yield from _names(child)
        else:
            yield child


def _parts_of(node: ast.AST) -> Iterator[ast.AST | str]:
    """The children of a node and the names in it, in the order of the text."""
    match node:
        case ast.Name(id=name) | ast.arg(arg=name):
            yield name
        case ast.Attribute(value=value, attr=name):
            yield value
            yield name
        case ast.keyword(arg=name, value=value):
            if name:
                yield name
            yield value
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
            yield from ast.iter_child_nodes(node)
        case _:
            yield from ast.iter_child_nodes(node)


# --- the distance of two trees ----------------------------------------------------------------------------------------
def tree_distance(answer: ast.AST | None, reference: ast.AST | None) -> float | None:
    """Nodes to add, take away or rename, as a part of the larger tree; None where one is no tree, or too large."""
    if answer is None or reference is None:
        return None
    one, other = _flattened(answer), _flattened(reference)
    if max(len(one[0]), len(other[0])) > _MOST_NODES:
        return None
    return _edits(one, other) / max(len(one[0]), len(other[0]))


Flat = tuple[list[str], list[int], list[int]]


def _flattened(tree: ast.AST) -> Flat:
    """Labels in postorder, for each the first leaf under it, and the last node of each such leaf."""
    labels: list[str] = []
    first: list[int] = []

    def put(node: Any, label: str) -> int:
        leaf = -1
        for name, value in ast.iter_fields(node) if isinstance(node, ast.AST) else ():
            for item in value if isinstance(value, list) else [value]:
                under = type(item).__name__ if isinstance(item, ast.AST) else str(item)
                at = put(item, under if isinstance(value, list) or isinstance(item, ast.AST) else f"{name}: {item}")
                leaf = at if leaf < 0 else leaf
        labels.append(label)
        first.append(leaf if leaf >= 0 else len(labels) - 1)
        return first[-1]

    put(tree, type(tree).__name__)
    return labels, first, sorted({leaf: place for place, leaf in enumerate(first)}.values())


def _edits(one: Flat, other: Flat) -> int:
    """Trees are compared from their leaves up; `done` has what is known of every pair of subtrees."""
    done = [[0] * len(other[0]) for _ in one[0]]
    for key in one[2]:
        for their_key in other[2]:
            _compare(one, other, key, their_key, done)
    return done[-1][-1]


def _compare(one: Flat, other: Flat, key: int, their_key: int, done: list[list[int]]) -> None:
    (labels, first, _), (their_labels, their_first, _) = one, other
    start, their_start = first[key], their_first[their_key]
    rows = [list(range(their_key - their_start + 2))]
    for i in range(start, key + 1):
        above, row, whole = rows[-1], [len(rows)], first[i] == start
        before, label, known = rows[first[i] - start], labels[i], done[i]
        for place, j in enumerate(range(their_start, their_key + 1), 1):
            least = min(above[place], row[-1]) + 1
            if whole and their_first[j] == their_start:
                known[j] = least = min(least, above[place - 1] + (label != their_labels[j]))
            else:
                least = min(least, before[their_first[j] - their_start] + known[j])
            row.append(least)
        rows.append(row)
