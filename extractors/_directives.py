"""Finds the `.. manim::` blocks in the docstrings of Python source text."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

# docutils also takes "manim ::", with a blank: 19 blocks of Manim 0.22.0 are written so.
_DIRECTIVE = re.compile(r"( *)\.\. +manim ?::(?: +(.*))?$")
_OPTION = re.compile(r"( *):([^:\s][^:]*):(?: +(.*))?$")
_UNDERLINE = re.compile(r"\s*([-=~^\"'*+#.])\1{2,}\s*$")

# Documentation says what an example shows right before and after it; what is farther away is about something else.
CONTEXT_WORDS = 200


class Block(NamedTuple):
    """One directive: the scene, the program under it, and the words around it."""

    scene: str
    options: dict[str, str | bool]
    code: str
    line: int
    documented: str
    before: str
    after: str


class _Docstring(NamedTuple):
    documented: str
    line: int
    text: str


class _Span(NamedTuple):
    start: int
    end: int


def find_blocks(source: str, module: str) -> Iterator[Block]:
    """Every block of one file; SyntaxError when the file itself is not Python."""
    for docstring in _docstrings(ast.parse(source), module):
        if "manim" in docstring.text:
            yield from _blocks_of(docstring)


def _docstrings(node: ast.AST, name: str) -> Iterator[_Docstring]:
    """Every string that is a statement: docstrings, and those that stand below the attribute that they document."""
    documented = name
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield _Docstring(documented, child.lineno, text)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _docstrings(child, f"{name}.{child.name}")
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                yield from _docstrings(child, name)
        match child:
            case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
                documented = f"{name}.{target}"
            case _:
                documented = name


def _blocks_of(docstring: _Docstring) -> Iterator[Block]:
    lines = _lines_of(docstring.text)
    spans = [_span(lines, number) for number, line in enumerate(lines) if _DIRECTIVE.match(line)]
    in_a_block = {number for span in spans for number in range(span.start, span.end)}
    prose = ["" if number in in_a_block or _UNDERLINE.match(line) else line for number, line in enumerate(lines)]
    for span in spans:
        scene, options, code = _parse(lines[span.start : span.end])
        before, after = "\n".join(prose[: span.start]), "\n".join(prose[span.end :])
        line = docstring.line + span.start
        yield Block(scene, options, code, line, docstring.documented, last_words(before), first_words(after))


def _lines_of(text: str) -> list[str]:
    """The lines without the indentation of the docstring, and as many as before, so that their numbers still hold."""
    first, _, rest = text.expandtabs().partition("\n")
    return [first.lstrip(), *textwrap.dedent(rest).split("\n")]


def _span(lines: list[str], start: int) -> _Span:
    end = last = start + 1
    while last < len(lines) and (not lines[last].strip() or _indent(lines[last]) > _indent(lines[start])):
        last += 1
        end = last if lines[last - 1].strip() else end
    return _Span(start, end)


def _parse(lines: list[str]) -> tuple[str, dict[str, str | bool], str]:
    """The name, the options and the program of one directive."""
    directive = _DIRECTIVE.match(lines[0])
    scene = (directive[2] or "").strip() if directive else ""
    options: dict[str, str] = {}
    name, width, rest = "", 0, 1
    for line in lines[1:]:
        if option := _OPTION.match(line):
            width, name = len(option[1]), option[2]
            options[name] = (option[3] or "").strip()
        elif name and line.strip() and _indent(line) > width:
            options[name] = f"{options[name]} {line.strip()}".strip()
        else:
            break
        rest += 1
    # An option without a value is a flag.
    return scene, {option: value or True for option, value in options.items()}, _program(lines[rest:])


def _program(lines: list[str]) -> str:
    code = textwrap.dedent("\n".join(lines)).strip("\n")
    if not code.startswith(">>> "):
        return code
    # As the directive itself does: a doctest's output is no part of the program.
    return "\n".join(line[4:] for line in code.split("\n") if line.startswith((">>>", "...")))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def last_words(text: str, count: int = CONTEXT_WORDS) -> str:
    """The end of `text`, with its line breaks."""
    words = list(re.finditer(r"\S+", text))[-count:]
    return _tidy(text[words[0].start() :]) if words else ""


def first_words(text: str, count: int = CONTEXT_WORDS) -> str:
    """The start of `text`, with its line breaks."""
    words = list(re.finditer(r"\S+", text))[:count]
    return _tidy(text[: words[-1].end()]) if words else ""


def _tidy(text: str) -> str:
    return re.sub(r"\n\s*\n", "\n\n", text).strip()
