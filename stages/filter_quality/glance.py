"""Whether a program can hold a wrong call at all, told from its tokens: most programs need no syntax tree for it.

A tree and a walk over it cost more than all else that is done for a program. A glance may suspect a call that is
right, as the tree is asked about everything that it suspects; a wrong one it never lets pass. What it can not read for
certain, it suspects.
"""

from __future__ import annotations

import _symtable  # type: ignore[import-not-found]  # the type stubs leave it out
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from stages.filter_quality.manim_api import PLAIN_METHODS, Call, attributes, calls

_TEXT = r"""(?: \"{3} [^"\\]*+ (?: (?: \\. | "(?!"") ) [^"\\]*+ )*+ \"{3}
              | '{3} [^'\\]*+ (?: (?: \\. | '(?!'') ) [^'\\]*+ )*+ '{3}
              | " [^"\\\n]*+ (?: \\. [^"\\\n]*+ )*+ "
              | ' [^'\\\n]*+ (?: \\. [^'\\\n]*+ )*+ ' )"""
# One match is all that says nothing here, and then one sign of the structure: a bracket, a comma, a string with values
# in it, or names with what they are taken from and what is done to them: `Circle(`, `self.play(`, `color=`, `.width`.
_SIGN = re.compile(
    rf"""(?: [^\w"'\#()\[\]{{}},.]++
           | [^\W\d]\w*+ (?! ["'] | \s*+ (?: [.(] | =(?!=) ) )
           | [rRbBuU]{{0,2}} {_TEXT}
           | \.?\d [\w.]*+
           | \#[^\n]*+ )*+
         ( (?: [^\W\d]\w*+ (?!["']) | \.\s*+[^\W\d]\w*+ ) (?: \s*+\.\s*+[^\W\d]\w*+ )*+
           (?: \s*+ (?: \( (?: \s*+\) )?+ | =(?!=) ) )?+
         | ,?\s*+ [)\]}}]
         | [(\[{{,]
         | [rRfFtT]{{1,2}} {_TEXT}
         | [^\W\d]\w*+
         | \. )""",
    re.VERBOSE | re.DOTALL,
)
# Names and values, with how they are to be written; anything more in the braces may be a call.
_HARMLESS = re.compile(
    r"(?: [^{}] | {{ | }} | {\s*+\w++\s*+ (?:=\s*+)?+ (?:![ars])?+ (?: :[^{}]*+ )?+ } )*+", re.VERBOSE
)
_COMMENT_BETWEEN = re.compile(r"^[^\n#]*+#[^\n]*+\n\s*+[(=]|\.\s*+#", re.MULTILINE)  # a name and what belongs to it
_NAME = re.compile(r"\w+")
# What a sign does to the call that it stands in.
_NOTHING, _OPENS, _CLOSES, _GOES_ON, _NAMES, _HIDES = range(6)


class _Sign(NamedTuple):
    """A sign, the table's words about the call that it opens, and the attributes that it asks for and gives.

    Each attribute that is asked for stands behind the variable that it is asked of, which may be unknown: "".
    """

    does: int
    call: Call | None = None
    name: str = ""
    asks: tuple[tuple[str, str], ...] = ()
    gives: str = ""


class _Signs(dict[str, _Sign]):
    """Every sign that was seen, as most come again."""

    def __missing__(self, text: str) -> _Sign:
        sign = _sign(text)
        if len(self) < 100_000:
            self[text] = sign
        return sign


_SIGNS = _Signs()


class Doubt(NamedTuple):
    """A call or an attribute that may be wrong; the name and keyword of a call where no more than they can be."""

    name: str = ""
    keyword: str = ""
    sign: int = -1


_SOMETHING = Doubt()


def doubts(code: str, scopes: list[Any]) -> list[Doubt]:
    """Where a call of the program may have a wrong argument, and whether an attribute may be unknown."""
    if "\r" in code:
        code = code.replace("\r\n", "\n")
    if _is_odd(code):
        return [_SOMETHING]
    signs = [_SIGNS[text] for text in _SIGN.findall(code)]
    found = list(_wrong_arguments(signs))
    return [*found, _SOMETHING] if _has_unknown(signs, scopes) else found


def _is_odd(code: str) -> bool:
    """Whether lines go on, comments stand between a name and its bracket, or parameters look like keywords."""
    if "\\\n" in code or "\r" in code or ("#" in code and _COMMENT_BETWEEN.search(code)):
        return True
    parameters = (after.partition(":")[0] for after in code.split("lambda")[1:])
    return any("=" in each for each in parameters)


def line_of(doubt: Doubt, code: str) -> int:
    """The line of the call. Its lines end as the glance has read them: with a newline each."""
    found = next(itertools.islice(_SIGN.finditer(code.replace("\r\n", "\n")), doubt.sign, None))
    return found.string.count("\n", 0, found.start(1)) + 1


def _wrong_arguments(signs: list[_Sign]) -> Iterator[Doubt]:
    """The calls that have more arguments than fit, or a keyword that they do not know; and what is not seen."""
    outer: list[tuple[Call | None, int, int]] = []
    call, count, begun = None, 0, 0  # the call that is read, and its arguments by position: not fewer than it has
    for place, (does, opened, name, _, _) in enumerate(signs):
        if does == _OPENS:
            outer.append((call, count, begun))
            call, count, begun = opened, 1, place
        elif does == _CLOSES:
            if not outer or (call and call.most is not None and count > call.most):
                yield _SOMETHING
            call, count, begun = outer.pop() if outer else (None, 0, 0)
        elif does == _GOES_ON:
            count += 1
        elif does == _NAMES and call:
            if name not in call.keywords and "*" not in call.keywords:
                yield Doubt(signs[begun].name, name, begun)
            count -= 1
        elif does == _HIDES:
            yield _SOMETHING


def _has_unknown(signs: list[_Sign], scopes: list[Any]) -> bool:
    """Whether an attribute is asked for that neither Manim nor the program has, of what may be Manim's."""
    asked = {each for sign in signs if sign.asks for each in sign.asks}
    if not asked:
        return False
    own = {sign.gives for sign in signs}
    assigned: set[str] = set()
    for scope in scopes:
        bound = {name for name, flags in scope.symbols.items() if flags & _symtable.DEF_LOCAL}
        assigned |= bound
        if scope.type == _symtable.TYPE_CLASS:
            own |= bound
    seen = {"", "self"} | assigned
    return any(name not in own and (of in seen or of[:2] == "__") for of, name in asked)


def _sign(text: str) -> _Sign:
    if text[0] in "([{":
        return _Sign(_OPENS)
    if text[-1] in ",)]}" and "(" not in text:
        return _Sign(_GOES_ON if text[-1] == "," else _CLOSES)
    if text[-1] in "\"'":
        return _Sign(_NOTHING if _HARMLESS.fullmatch(text) else _HIDES)
    if not text.isascii():  # Python may read a name in another form
        return _Sign(_HIDES)
    if "." in text:
        return _sign_of_chain(text)
    if text[-1] == "=":
        return _Sign(_NAMES, None, text[:-1].rstrip())
    if text[-1] == "(":
        name = text[:-1].rstrip()
        return _Sign(_OPENS, _telling(calls("call").get(name)), name)
    return _Sign(_NOTHING)


def _sign_of_chain(text: str) -> _Sign:
    """Of names with dots between them, and perhaps one before; and a bracket, two, or an equals sign behind them."""
    names = _NAME.findall(text)
    if not names:
        return _Sign(_NOTHING)  # one dot of three
    chain = ["", *names] if text[0] == "." else names
    asks = [(of, name) for of, name in _asked(chain) if _is_unknown(of, name)]
    name = chain[-1]
    if text[-1] == "=":
        return _Sign(_NOTHING, None, "", tuple(each for each in asks if each[1] != name), name)
    opened = calls("method").get(name) if text[-1] == "(" and name not in PLAIN_METHODS else None
    return _Sign(_OPENS if text[-1] == "(" else _NOTHING, _telling(opened), "", tuple(asks))


def _asked(chain: list[str]) -> Iterator[tuple[str, str]]:
    """What is asked of what in a.b.c: only the first is asked of a variable, the others of what an attribute gives."""
    yield chain[0], chain[1]
    for before, of, name in zip(chain, chain[1:], chain[2:], strict=False):
        if of == "animate" or (of == "camera" and before == "self"):
            yield "", name


def _is_unknown(of: str, name: str) -> bool:
    if of != "self" and name.startswith(("get_", "set_")):  # mobjects answer to any getter and setter
        return False
    return name not in attributes() and name not in PLAIN_METHODS


def _telling(call: Call | None) -> Call | None:
    """The call when there is a way to make it wrong."""
    return call if call and (call.most is not None or "*" not in call.keywords) else None
