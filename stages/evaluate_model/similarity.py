"""How much of the reference an answer shares. A different program may be as good: these numbers only tell two models
apart that answer the same rows."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_MOST_WORDS = 2000  # a longest common run costs the product of both lengths; what follows is not looked at


def code_tokens(code: str) -> list[str]:
    """The words of a program; of a text that is none, what a reader would take for words."""
    try:
        found = tokenize.generate_tokens(io.StringIO(code).readline)
        return [token.string for token in found if token.type not in _LAYOUT and token.string]
    except (tokenize.TokenError, SyntaxError):
        return re.findall(r"\w+|[^\w\s]", code)


def token_bleu(answer: str, reference: str) -> float:
    """BLEU-4 over the tokens of one program (Papineni 2002), counts of two and more tokens plus one (Lin 2004)."""
    said, wanted = code_tokens(answer), code_tokens(reference)
    if not said or not wanted:
        return 0.0
    logs = 0.0
    for size in range(1, 5):
        have, need = runs(said, size), runs(wanted, size)
        extra = int(size > 1)
        hits = (have & need).total() + extra
        if not hits:
            return 0.0
        logs += math.log(hits / (have.total() + extra)) / 4
    short = min(0.0, 1 - len(wanted) / len(said))
    return math.exp(logs + short)


def runs(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(size)), strict=False))


def tree_match(answer: ast.AST | None, reference: ast.AST | None) -> float | None:
    """The share of subtrees that two programs have in common, names and values left out; None without a reference."""
    if reference is None:
        return None
    if answer is None:
        return 0.0
    known: dict[tuple[Any, ...], int] = {}
    return overlap(shapes(answer, known), shapes(reference, known))


def shapes(tree: ast.AST | None, known: dict[tuple[Any, ...], int]) -> Counter[int]:
    """Every subtree of more than one node by the number of its shape; children get theirs before their parent."""
    order, stack = [], [tree] if tree else []
    while stack:
        order.append(stack.pop())
        stack.extend(_children(order[-1]))
    found: Counter[int] = Counter()
    number: dict[ast.AST, int] = {}
    for node in reversed(order):
        children = tuple(number[child] for child in _children(node))
        number[node] = known.setdefault((type(node).__name__, *children), len(known))
        if children:
            found[number[node]] += 1
    return found


def _children(node: ast.AST) -> list[ast.AST]:
    """Without Load and Store, which stand at every name."""
    return [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]


def overlap(one: Counter[Any], other: Counter[Any]) -> float:
    """Twice the common part over the sum of both (Dice): a long answer gains nothing by its length."""
    whole = one.total() + other.total()
    return 2 * (one & other).total() / whole if whole else 0.0


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def rouge_l(answer: str, reference: str) -> float:
    """The longest run of words that stand in both in this order, gaps allowed, as F1 (Lin 2004)."""
    said, wanted = words(answer)[:_MOST_WORDS], words(reference)[:_MOST_WORDS]
    if not said or not wanted:
        return 0.0
    row = [0] * (len(wanted) + 1)
    for word in said:
        before = 0
        for place, other in enumerate(wanted, 1):
            above = row[place]
            row[place] = before + 1 if word == other else max(above, row[place - 1])
            before = above
    return 2 * row[-1] / (len(said) + len(wanted))


def chrf(answer: str, reference: str) -> float:
    """Character runs of one to six (Popovic 2015), recall weighing twice: a word in another form still counts."""
    said, wanted = "".join(answer.split()), "".join(reference.split())
    scores = list(_chrf_parts(said, wanted))
    return sum(scores) / len(scores) if scores else 0.0


def _chrf_parts(said: str, wanted: str) -> Iterable[float]:
    for size in range(1, 7):
        have = Counter(said[start : start + size] for start in range(len(said) - size + 1))
        need = Counter(wanted[start : start + size] for start in range(len(wanted) - size + 1))
        if not need:
            return
        hits = (have & need).total()
        precision, recall = hits / max(1, have.total()), hits / need.total()
        yield 5 * precision * recall / (4 * precision + recall) if hits else 0.0
