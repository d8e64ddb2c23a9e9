"""What the repairs read a program with: a parser that answers None, a lexer for text that does not parse, and edits.

The lexer takes an f-string as one token, as Python did before 3.12, and never gives up: what it does not know is a
token of the kind "other".
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

_PREFIX = r"(?:(?i:[bru]|br|rb|fr|rf|f))"
# Written so that all between two escapes is one step.
_QUOTED = r"""(?:'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''
        |\"\"\"[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*\"\"\"
        |'[^'\\\n]*(?:\\.[^'\\\n]*)*'|"[^"\\\n]*(?:\\.[^"\\\n]*)*")"""
_TOKEN = re.compile(
    rf"""
    (?P<string>{_PREFIX}?{_QUOTED})
    |(?P<comment>\#[^\n]*)
    |(?P<newline>\n)
    |(?P<blank>[ \t\f\r]+|\\\n)
    |(?P<number>(?:0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)[jJ]?)
    |(?P<name>[^\W\d]\w*)
    |(?P<op>\*\*=?|//=?|>>=?|<<=?|\.\.\.|->|:=|[-+*/%@&|^=<>!]=|[-+*/%@&|^~=<>()\[\]{{}},:.;])
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


# A string from its quote on, or a comment, in which quotes mean nothing.
_STRING = re.compile(rf"""(?P<string>{_QUOTED})|\#[^\n]*""", re.VERBOSE | re.DOTALL)
_ENDS_IN_PREFIX = re.compile(rf"(?<!\w){_PREFIX}\Z")


class Token(NamedTuple):
    """A piece of the text: string, comment, newline, number, name, op or other."""

    kind: str
    text: str
    start: int
    end: int


def lex(text: str, start: int = 0) -> Iterator[Token]:
    """All tokens but the blanks."""
    for match in _TOKEN.finditer(text, start):
        if match.lastgroup != "blank":
            yield Token(str(match.lastgroup), match[0], match.start(), match.end())


def strings(text: str) -> Iterator[Token]:
    """The strings alone, as `lex` gives them, for much less work."""
    for match in _STRING.finditer(text):
        if match.lastgroup:
            start, end = match.span()
            prefix = _ENDS_IN_PREFIX.search(text[max(0, start - 3) : start])
            start -= len(prefix[0]) if prefix else 0
            yield Token("string", text[start:end], start, end)


@functools.lru_cache(maxsize=8)  # each step looks at the program that the step before it left
def parse(text: str) -> ast.Module | None:
    """The tree, which is shared and not to be changed; None when the text is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=2)  # a step and the driver compare the same two programs
def meaning(text: str) -> str | None:
    """The tree as text, equal for programs that mean the same; None when the text is not Python."""
    tree = parse(text)
    return None if tree is None else ast.dump(tree)


Edit = tuple[int, int, str]


def apply(text: str, edits: list[Edit]) -> str:
    """The text with its edits, which are places in its UTF-8 bytes; one inside another is left out."""
    data = text.encode("utf-8", "surrogatepass")
    pieces, end = [], 0
    for start, stop, new in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= end:
            pieces += [data[end:start], new.encode("utf-8", "surrogatepass")]
            end = stop
    return b"".join([*pieces, data[end:]]).decode("utf-8", "surrogatepass")


def places(text: str) -> Callable[[ast.AST], tuple[int, int]]:
    """A function that tells where a node begins and ends in the UTF-8 bytes of the text."""
    starts = [0]
    for line in text.encode("utf-8", "surrogatepass").split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def span(node: ast.AST) -> tuple[int, int]:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        end_line, end_column = getattr(node, "end_lineno", 1), getattr(node, "end_col_offset", 0)
        return starts[line - 1] + column, starts[end_line - 1] + end_column

    return span


def bound_names(tree: ast.AST) -> set[str]:
    """Every name that the program itself gives a meaning to, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=other) if name != "*":
                names.add(other or name.split(".")[0])
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
                names.add(name)
    return names


def inside_strings(text: str) -> set[int]:
    """The lines, counted from 0, that begin inside a string: their blanks are part of it."""
    inside: set[int] = set()
    for token in strings(text):
        if "\n" in token.text:
            first = text.count("\n", 0, token.start)
            inside.update(range(first + 1, first + 1 + token.text.count("\n")))
    return inside
