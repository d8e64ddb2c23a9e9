"""What Manim lets itself be asked: the calls it understands and the attributes there are, as manim_calls.txt says."""

from __future__ import annotations

import ast
import builtins
from functools import cache
from pathlib import Path
from typing import NamedTuple

# What these have too, an object of a program may well be.
_PLAIN_TYPES = (str, bytes, list, dict, set, tuple, int, float, complex, range, slice, object, type, BaseException)
_OF_ARRAYS_AND_GRAPHS = """
    add_edge add_node all any append argmax argmin astype choice clip copy cumsum dot fill flatten item max mean min
    nonzero normal plot prod put ravel real repeat reshape resize round save seed shape shuffle size sort split std
    subtract sum swapaxes take tolist transpose uniform update var view
"""
PLAIN_METHODS = {name for kind in _PLAIN_TYPES for name in dir(kind)} | set(_OF_ARRAYS_AND_GRAPHS.split())


class Call(NamedTuple):
    """What a call may hold; `most` is None and `keywords` holds "*" where there is no limit."""

    most: int | None
    keywords: frozenset[str]

    def fault(self, node: ast.Call) -> str | None:
        starred = any(isinstance(each, ast.Starred) for each in node.args)
        if self.most is not None and not starred and len(node.args) > self.most:
            return f"takes at most {self.most} arguments by position, not {len(node.args)}"
        unknown = [each.arg for each in node.keywords if each.arg and each.arg not in self.keywords]
        return f"has no argument {unknown[0]}" if unknown and "*" not in self.keywords else None


@cache
def calls(kind: str) -> dict[str, Call]:
    """The calls of one kind: "call" for names of the star import, "method" for methods of any class."""
    rows = (line.split() for line in _table().splitlines())
    return {row[1]: Call(None if row[2] == "*" else int(row[2]), frozenset(row[3:])) for row in rows if row[0] == kind}


@cache
def attributes() -> frozenset[str]:
    names = (line.removeprefix("attribute ") for line in _table().splitlines() if line.startswith("attribute "))
    return frozenset(names) | frozenset(dir(builtins.object))


@cache
def _table() -> str:
    return Path(__file__).with_name("manim_calls.txt").read_text("utf-8")
