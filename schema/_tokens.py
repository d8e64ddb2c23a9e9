"""What a program says, apart from how it is written: its tokens, its blocks, and the names that it gives itself."""

from __future__ import annotations

import hashlib
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


def tokens(code: str) -> list[str]:
    pattern = _TOKEN_OF_ASCII if code.isascii() else _TOKEN
    return pattern.findall(code.replace("\r\n", "\n") if "\r" in code else code)


def words(text: str) -> list[str]:
    """The tokens of what is no program."""
    return _WORD.findall(text.casefold())


class Names(NamedTuple):
    """The names that a program binds itself, so that others could stand in their place, and those that it does not.

    An imported name is foreign: it stands for something elsewhere. Annotations may be missing where a program
    imports them `from __future__`.
    """

    bound: frozenset[str]
    foreign: frozenset[str]


def names(code: str) -> Names | None:
    """The names of a program; None if it does not parse."""
    found = _read(as_read(code))
    return found if isinstance(found, Names) else None


def parses(code: str) -> bool:
    return isinstance(_read(as_read(code)), Names)


def syntax_error(code: str) -> str | None:
    """Where a program stops being Python, or None."""
    found = _read(as_read(code))
    return found if isinstance(found, str) else None


def as_read(code: str) -> str:
    """The text that Python's tokenizer makes of a program before it looks at it: with one kind of line end."""
    return code.replace("\r\n", "\n").replace("\r", "\n") if "\r" in code else code


@lru_cache(maxsize=8)  # one record is looked at several times in a row
def _read(code: str) -> Names | str:
    """The names of a program, or why it is none.

    The symbol table costs less than the syntax tree, and parses just as strictly.
    """
    import _symtable  # type: ignore[import-not-found]  # what the module symtable wraps in objects, three times as slow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape sequence is a warning, and most TeX has some
            tables = [_symtable.symtable(code, "<code>", "exec")]
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"the parser gives up: {error or type(error).__name__}"
    seen, bound = set[str](), set[str]()
    for table in tables:  # which grows meanwhile
        tables += table.children
        symbols = table.symbols
        seen.update(symbols)
        # 2: assigned, 4: a parameter; 128: imported
        bound.update([name for name, flags in symbols.items() if 0 < flags & 134 < 128])
    return Names(frozenset(bound - {"self"}), frozenset(seen - bound))


# What a token does to the line that it stands in, in the lowest bits of its number.
OPENS, CLOSES, LINE, NOTHING = range(1, 5)
KIND = 7
_KINDS = {"(": OPENS, "[": OPENS, "{": OPENS, ")": CLOSES, "]": CLOSES, "}": CLOSES, "": NOTHING}


class _Numbers(dict[str, int]):
    """The number of each token, the same in every process and however the token is written; of a line its indent."""

    def __missing__(self, token: str) -> int:
        number = _number(token)
        if len(self) < 100_000:  # most tokens come again; the others would fill the memory
            self[token] = number
        return number


NUMBERS = _Numbers()


def _number(token: str) -> int:
    if token[0] == "\n":
        return (len(token.expandtabs()) - 1) << 3 | LINE
    form = _form(token)
    kind = _KINDS.get(form, 0)
    return kind if kind == NOTHING else digest(form.encode("utf-8", "surrogatepass")) & ~KIND | kind


def digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _form(token: str) -> str:
    """The token in the one form that stands for all ways to write it; nothing for a comment."""
    if token[0] in "#\\":
        return ""
    if token[-1] == "=" and len(token) > 1:
        return token[:-1].rstrip() + "="
    if token[-1] == "'" and '"' not in token and "\\" not in token:
        return token.replace("'", '"')  # no string without escapes holds the quote that it stands in
    return token
