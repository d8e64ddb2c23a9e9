"""Finds the blocks of statements that stand in a row without line ends: which is inside which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

_TAB = "    "
_ENDERS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_CONTROL = {"for", "while", "if", "elif", "else", "try", "except", "finally", "with", "match", "case"}
# What may stand before `else:` and its like, one step further out.
_PARTNERS = {
    "elif": {"if", "elif"},
    "else": {"if", "elif", "for", "while", "except"},
    "except": {"try", "except"},
    "finally": {"try", "except", "else"},
    "case": {"case"},
}


class Part(NamedTuple):
    """A statement, the head of a block, a decorator ("@") or a comment ("#"), with the blanks before it.

    A comment is `cut` where code seemed to follow it in its line.
    """

    kind: str
    text: str
    gap: int
    tree: ast.stmt | None
    cut: bool = False


class Block(NamedTuple):
    """An open block: what began it, and where its head stands among the parts."""

    kind: str
    head: int


def indent(parts: list[Part]) -> Iterator[tuple[str, int]]:
    """The program in lines, in the ways that it may be meant; the best first, each with its number of guesses."""
    for shift in (1, 0):  # the blanks that stood at the beginning of the lines, and one for each line end
        if any(part.gap > 1 for part in parts[1:]):
            levels = [max(part.gap - shift, 0) for part in parts]
            yield (
                "\n".join(" " * level + part.text for level, part in zip([0, *levels[1:]], parts, strict=True)) + "\n",
                False,
            )
    if all(part.tree is not None for part in parts if part.kind != "#"):
        layout = _Layout(parts)
        yield layout.lines(), layout.guesses


class _Layout:
    """Places one part after the other; `open` are the blocks around the next one."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts, self.open, self.guesses = parts, list[Block](), 0
        self.closed = False  # the last statement was a `return` or the like: its block can hold no more
        self.pending: int | None = None  # where decorators or comments wait for what they stand above
        self.levels = [0] * len(parts)
        for number, part in enumerate(parts):
            self._place(number, part)

    def lines(self) -> str:
        text: list[str] = []
        for level, part in zip(self.levels, self.parts, strict=True):
            opens = part.kind in ("class", "def", "@") and level < 2 and bool(text)
            if opens and not text[-1].lstrip().startswith(("@", "class ")):
                text += [""] * (2 - level)
            text.append(_TAB * level + part.text)
        return "\n".join(text) + "\n"

    def _place(self, number: int, part: Part) -> None:
        if part.kind in ("#", "@"):
            self.pending = number if self.pending is None else self.pending
            if number + 1 < len(self.parts):
                return
            self.levels[self.pending : number + 1] = [len(self.open)] * (number + 1 - self.pending)
            return
        if not self._just_opened(number):
            self._close_for(number, part)
        first = number if self.pending is None else self.pending
        self.levels[first : number + 1] = [len(self.open)] * (number + 1 - first)
        self.pending, self.closed = None, isinstance(part.tree, _ENDERS) and not part.kind
        if part.kind:
            self.open.append(Block(part.kind, number))

    def _just_opened(self, number: int) -> bool:
        before = self._before(number)
        return bool(self.open) and self.open[-1].head == before

    def _before(self, number: int) -> int:
        return next(
            (earlier for earlier in range(number - 1, -1, -1) if self.parts[earlier].kind not in ("#", "@")), -1
        )

    def _close_for(self, number: int, part: Part) -> None:
        """Close the blocks that this part is not in."""
        if part.kind in _PARTNERS:
            while self.open and self.open[-1].kind not in _PARTNERS[part.kind]:
                self.open.pop()
            if self.open:
                self.open.pop()
            return
        if self.closed and self.open:
            self.open.pop()
        if part.kind == "class" or _is_main(part):
            self.open.clear()
            return
        if part.kind == "def" and (depth := self._depth_of_def(number)) is not None:
            del self.open[depth:]
            return
        while self.open and (self.open[-1].kind in _CONTROL or self._is_inner(len(self.open) - 1)):
            ends, sure = self._ends(self.open[-1], number)
            self.guesses += not sure
            if not ends:
                return
            self.open.pop()

    def _is_inner(self, position: int) -> bool:
        """Is this block a function in a function?"""
        return self.open[position].kind == "def" and any(block.kind == "def" for block in self.open[:position])

    def _depth_of_def(self, number: int) -> int | None:
        """How many blocks stay open around a method or a function of the top level; None for one inside another."""
        node = self.parts[number].tree
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        names = [arg.arg for arg in node.args.args[:1]]
        decorators = [self.parts[above].text for above in range(self._before(number) + 1, number)]
        is_method = names in (["self"], ["cls"]) or any(
            re.search(r"@(static|class)method|@property", text) for text in decorators
        )
        classes = [depth for depth, block in enumerate(self.open) if block.kind == "class"]
        if is_method and classes:
            return classes[-1] + 1
        return None if classes else 0

    def _ends(self, block: Block, number: int) -> tuple[bool, bool]:
        """Is the block over before this part, and is that sure?"""
        later = list(self._later(number))
        body = [part for part in self.parts[block.head + 1 : number] if part.kind not in ("#", "@")]
        head = self.parts[block.head].tree
        assert head is not None
        if block.kind in ("try", "match") or _partner_follows(block, later):
            return False, True
        if block.kind == "def":
            return self._def_ends(head, self.parts[number], later)
        own = _targets(head) | (
            _assigned(body) - _assigned(self.parts[: block.head]) if block.kind != "else" else set()
        )
        if block.kind == "for":
            later = list(_until_rebound(later, _targets(head)))
        if block.kind == "while":
            return not any(_assigned([part]) & _names(head) for part in later), False
        if block.kind == "with" and not own:
            return False, False
        return not any(own & _names(part.tree) for part in (later if block.kind == "for" else later[:1])), False

    def _def_ends(self, head: ast.stmt, part: Part, later: list[Part]) -> tuple[bool, bool]:
        if any(isinstance(other.tree, ast.Return) for other in later[:12]) and not _uses(part, head):
            return False, False
        return _uses(part, head) or not any(_uses(other, head) for other in later), False

    def _later(self, number: int) -> Iterator[Part]:
        """This part and those after it, up to the next that is certainly outside."""
        for position in range(number, len(self.parts)):
            part = self.parts[position]
            if part.kind == "class" or _is_main(part):
                return
            if part.kind == "def" and self._depth_of_def(position) is not None:
                return
            if part.kind not in ("#", "@"):
                yield part


def _is_main(part: Part) -> bool:
    return part.kind == "if" and "__name__" in part.text


def _partner_follows(block: Block, later: list[Part]) -> bool:
    """Is there an `else` or the like later that only this block can be waiting for?"""
    waiting = 0
    for part in later:
        if part.kind in _PARTNERS and block.kind in _PARTNERS[part.kind]:
            if not waiting:
                return part.kind != "else" or block.kind not in ("for", "while", "except")
            waiting -= part.kind in ("else", "finally")
        waiting += part.kind == block.kind and block.kind in ("if", "try")
    return False


def _until_rebound(later: list[Part], names: set[str]) -> Iterator[Part]:
    for part in later:
        if part.tree is not None and _targets(part.tree) & names:
            return
        yield part


def _uses(part: Part, head: ast.stmt) -> bool:
    return getattr(head, "name", "") in _names(part.tree)


def _names(tree: ast.stmt | None) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree is not None else set()


def _targets(head: ast.stmt) -> set[str]:
    """What a `for` or a `with` gives names to."""
    match head:
        case ast.For(target=target) | ast.AsyncFor(target=target):
            return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.With(items=items) | ast.AsyncWith(items=items):
            found = [item.optional_vars for item in items if item.optional_vars is not None]
            return {node.id for part in found for node in ast.walk(part) if isinstance(node, ast.Name)}
    return set()


def _assigned(parts: list[Part]) -> set[str]:
    trees = [part.tree for part in parts if part.tree is not None]
    return {
        node.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
