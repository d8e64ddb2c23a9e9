"""What a program says, apart from how it is written: its tokens, its blocks, and the names that it gives itself."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import NamedTuple


def _pattern(first: str, more: str, digit: str) -> re.Pattern[str]:
    """The tokens; the most frequent kinds are tried first, and blanks are skipped in one step.

    `first`, `more` and `digit` are what a name begins with, what it goes on with, and what a number begins with.
    """
    return re.compile(
        r"[ ]*+([][(){},:=]"
        rf"|\.?{first}{more}*+(?![\"'])(?:[ \t]*=(?!=))?"  # a name, an attribute, an assignment or a keyword
        r"|\n[ \t\f]*"  # a new line and how far it is indented
        rf"|{digit}(?:{more}|\.)*"
        r"|#[^\n]*"  # a comment
        r"|[rRbBuUfFtT]{0,2}(?:"  # a string
        r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
        r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
        r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
        r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')"
        r"|\\\n"  # a line that goes on
        rf"|\.?{first}{more}*(?:[ \t]*=(?!=))?"  # a name before a quote that is no prefix of it: `return"x"`
        r"|[^\s\w])",
        re.DOTALL,
    )


_TOKEN = _pattern(r"[^\W\d]", r"\w", r"\d")
_TOKEN_OF_ASCII = _pattern("[A-Za-z_]", "[A-Za-z0-9_]", "[0-9]")  # the same, in four fifths of the time
_WORD = re.compile(r"\w+")
# What a form does to the line that it stands in.
_STEPS = {"(": "in", "[": "in", "{": "in", ")": "out", "]": "out", "}": "out", "\n": "line", "": "nothing"}


def tokens(code: str) -> list[str]:
    pattern = _TOKEN_OF_ASCII if code.isascii() else _TOKEN
    return pattern.findall(code.replace("\r\n", "\n") if "\r" in code else code)


def words(text: str) -> list[str]:
    """The tokens of what is no program."""
    return _WORD.findall(text.casefold())


class Names(NamedTuple):
    """The names that a program binds itself, so that others could stand in their place, and those that it does not.

    An imported name is neither: it stands for something elsewhere. Annotations may be missing where a program
    imports them `from __future__`.
    """

    bound: frozenset[str]
    foreign: frozenset[str]


@lru_cache(maxsize=8)  # one record is looked at several times in a row
def names(code: str) -> Names | None:
    """The names of a program; None if it does not parse.

    The symbol table costs less than the syntax tree, and parses just as strictly.
    """
    import _symtable  # type: ignore[import-not-found]  # what the module symtable wraps in objects, three times as slow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = [_symtable.symtable(code, "<code>", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None
    seen, bound, imported = set[str](), set[str](), set[str]()
    while tables:
        table = tables.pop()
        tables.extend(table.children)
        seen.update(table.symbols)
        for name, flags in table.symbols.items():
            if flags & 6:  # 2: assigned, 4: a parameter, 128: imported
                (imported if flags & 128 else bound).add(name)
    return Names(frozenset(bound - {"self"}), frozenset(seen - bound - imported))


def bound_names(code: str) -> frozenset[str] | None:
    found = names(code)
    return found.bound if found else None


def parses(code: str) -> bool:
    return names(code) is not None


def normal_form(code: str) -> str:
    """Equal for programs that differ in comments, blank lines and formatting alone; strings and blocks count."""
    if bound_names(code) is None:
        # Text, or broken code: only spaces at line ends and blank lines are known to mean nothing.
        return "\n".join(line for line in (line.rstrip() for line in code.split("\n")) if line)
    return "\0".join(normal_tokens(code))


@lru_cache(maxsize=8)
def normal_tokens(code: str) -> list[str]:
    """The tokens of a program that parses, each in its one form, with a token for each line and block that begins."""
    found, depth, begun, indents = list[str](), 0, "", [0]
    put, step_of = found.append, _STEPS.get
    for token in tokens(code):
        form = FORMS[token]
        step = step_of(form)
        if step == "line":
            if depth == 0:
                begun = token
        elif step != "nothing":
            if begun:  # the first token of a line
                if found:
                    found += _line_begin(len(begun.expandtabs()) - 1, indents)
                begun = ""
            if step:
                depth += 1 if step == "in" else -1
            put(form)
    return found


def _line_begin(width: int, indents: list[int]) -> list[str]:
    """What stands before a line: nothing but its beginning, a block that begins, or blocks that end."""
    if width > indents[-1]:
        indents.append(width)
        return ["\n", "\n>"]
    ended = ["\n"]
    while width < indents[-1]:
        indents.pop()
        ended.append("\n<")
    return ended


class _Forms(dict[str, str]):
    """Each token in the one form that stands for all ways to write it; nothing for a comment."""

    def __missing__(self, token: str) -> str:
        form = _form(token)
        if len(self) < 100_000:  # most tokens come again; the others would fill the memory
            self[token] = form
        return form


FORMS = _Forms()


def _form(token: str) -> str:
    if token[0] in "#\\":
        return ""
    if token[0] == "\n":
        return "\n"
    if token[-1] == "=" and len(token) > 1:
        return token[:-1].rstrip() + "="
    if token[-1] == "'" and '"' not in token and "\\" not in token:
        return token.replace("'", '"')  # no string without escapes holds the quote that it stands in
    return token
