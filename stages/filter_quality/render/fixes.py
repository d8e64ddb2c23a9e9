"""Repairs of programs that almost run; what they make is kept only when it then renders.

Each one changes only what can not be right, so that a program that needs none stays as it is.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator

from stages.filter_quality.code_checks import MANIM_IMPORT, MANIMGL_NAMES
from stages.filter_quality.program import Program

_RENAMED = {old: new for old, new in MANIMGL_NAMES.items() if new.isidentifier()}
_METHODS = ("play", "wait", "add", "remove")
_BARE_CLASS = re.compile(
    r"^(class\s+\w+)\s*(?:\(\s*\))?\s*:(?=(?:\n[ \t]+.*|\n)*?\n[ \t]+def construct\b)", re.MULTILINE
)
_NO_SELF = re.compile(r"^([ \t]+def construct)\s*\(\s*\)", re.MULTILINE)


def repaired(code: str) -> tuple[str, list[str]]:
    """The program with every repair that it needs, and their names; none when it stays as it is."""
    names = []
    for name, repair in REPAIRS.items():
        changed = repair(code)
        if changed != code:
            names.append(name)
            code = changed
    return code, names


def _tabs(code: str) -> str:
    return code if "\t" not in code or _parses(code) else code.expandtabs(4)


def _import(code: str) -> str:
    return code if MANIM_IMPORT.search(code) or not _parses(code) else f"from manim import *\n\n{code}"


def _scene_base(code: str) -> str:
    return _BARE_CLASS.sub(r"\1(Scene):", code)


def _self(code: str) -> str:
    return _NO_SELF.sub(r"\1(self)", code)


def _calls(code: str) -> str:
    """`play(...)` inside construct, where no function of that name is anywhere in sight."""
    if not _parses(code) or not (missing := Program(code).undefined() & set(_METHODS)):
        return code
    lines = [list(line.encode()) for line in code.split("\n")]
    for name in sorted(_bare_calls(ast.parse(code), missing), key=lambda name: -name.col_offset):
        lines[name.lineno - 1][name.col_offset : name.col_offset] = b"self."
    return b"\n".join(map(bytes, lines)).decode()


def _bare_calls(tree: ast.Module, names: set[str]) -> Iterator[ast.Name]:
    for method in ast.walk(tree):
        if isinstance(method, ast.FunctionDef) and method.name == "construct":
            for call in ast.walk(method):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                    yield call.func


def _names(code: str) -> str:
    """Names that Manim has changed since; never inside a text, and not when the program defines them itself."""
    if not any(old in code for old in _RENAMED) or not _parses(code):
        return code
    program = Program(code)
    asked = {each.name for node in program.nodes(ast.ImportFrom) if node.module == "manim" for each in node.names}
    old = _RENAMED.keys() & (program.undefined() | asked)
    lines = code.split("\n")
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    for token in sorted(
        (token for token in tokens if token.string in old), key=lambda token: token.start, reverse=True
    ):
        line, start = token.start
        if token.type == tokenize.NAME:
            text = lines[line - 1]
            lines[line - 1] = text[:start] + _RENAMED[token.string] + text[token.end[1] :]
    return "\n".join(lines)


def _parses(code: str) -> bool:
    try:
        Program(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


REPAIRS: dict[str, Callable[[str], str]] = {
    "tabs": _tabs,
    "missing_import": _import,
    "scene_base": _scene_base,
    "missing_self": _self,
    "self_before_calls": _calls,
    "renamed_names": _names,
}
