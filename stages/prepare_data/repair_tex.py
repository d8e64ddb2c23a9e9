r"""Gives TeX its backslashes back: `MathTex("\frac{1}{2}")` begins with a form feed, and means `\frac`.

An escape that Python does not know keeps its backslash anyway and only warns; with a raw string it warns no more. One
that Python does know is taken for TeX only in a call that takes TeX, and only where a word of TeX stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stages.prepare_data.repair_tokens import Edit, Token, apply, parse, places, strings

_CALLS = {
    "Tex",
    "MathTex",
    "SingleStringMathTex",
    "TexText",
    "OldTex",
    "OldTexText",
    "TexMobject",
    "TextMobject",
    "Title",
}
# The words of TeX that begin with what is an escape for Python: \a \b \f \n \r \t \v, and \x \u \N.
_WORDS_TEXT = """
    alpha angle approx arccos arcsin arctan array arrow asymp ast backslash bar because begin beta bf bigcap
    bigcup bigg big binom bmod bot boldsymbol boxed bullet fbox flat footnotesize forall frac frown nabla
    natural ne nearrow neg neq newline nexists ni nmid nolimits nonumber normalsize not notin nu nwarrow raise
    rangle rbrace rceil ref renewcommand require rfloor rho right rightarrow rightleftharpoons rm rvert tag tan
    tanh tau tbinom text textbf textcolor textit textrm textsc textsf textstyle texttt tfrac therefore theta
    thickapprox tilde times tiny to top triangle triangleq tt varepsilon varnothing varphi varpi varrho varsigma
    vartheta vdash vdots vec vee vert vspace xi xleftarrow xrightarrow ulcorner underbrace underline underset
    uparrow updownarrow uplus upsilon urcorner
"""
_WORDS = set(_WORDS_TEXT.split())
_ESCAPE = re.compile(r"\\(?:([A-Za-z]+)|(.)|\Z)", re.DOTALL)
_CODED = re.compile(r"\\(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|N\{[^}]+\})")
_KNOWN = set("abfnrtvxuUN01234567\\'\"\n")


def tex(text: str) -> str:
    """Raw strings, or two backslashes, where the program means a backslash."""
    if not any(_is_meant(match, is_tex=True) for match in _ESCAPE.finditer(text)):
        return text
    perhaps = [token for token in strings(text) if _mended(token, is_tex=True) != token.text]
    if not perhaps:
        return text
    tree = parse(text)
    in_tex = list(_spans_of_tex(text, tree)) if tree else []
    edits: list[Edit] = []
    for token in perhaps:
        start = len(text[: token.start].encode("utf-8", "surrogatepass"))
        new = _mended(token, any(first <= start < last for first, last in in_tex))
        edits.append((start, start + len(token.text.encode("utf-8", "surrogatepass")), new))
    new = apply(text, edits)
    # "\xi" is no string at all for Python; where only such a thing was in the way, the calls can be seen now.
    return tex(new) if tree is None and parse(new) is not None else new


def _spans_of_tex(text: str, tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Where the strings stand that a call takes as TeX."""
    span = places(text)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _CALLS:
            yield from (span(argument) for argument in node.args if not isinstance(argument, ast.Call))


def _mended(token: Token, is_tex: bool) -> str:
    if "\\" not in token.text:
        return token.text
    opening = re.match(r"([A-Za-z]*)('''|\"\"\"|'|\")", token.text)
    assert opening
    prefix, quote = opening[1], opening[2]
    body = token.text[opening.end() : -len(quote)]
    if set(prefix.lower()) & set("rb"):
        return token.text
    wrong = [match.start() for match in _ESCAPE.finditer(body) if _is_meant(match, is_tex)]
    if not wrong:
        return token.text
    right = len(_ESCAPE.findall(body)) - len(wrong)
    if not right and not prefix and not body.endswith("\\"):
        return f"r{token.text}"
    for place in reversed(wrong):
        body = body[:place] + "\\" + body[place:]
    return f"{prefix}{quote}{body}{quote}"


def _is_meant(match: re.Match[str], is_tex: bool) -> bool:
    """Does the program mean this backslash, though Python does not read it so?"""
    word = match[1] or ""
    if not word:
        return bool(match[2]) and match[2] not in _KNOWN
    if word[0] not in _KNOWN or (word[0] in "xuUN" and not _CODED.match(match.string, match.start())):
        return True
    return is_tex and word in _WORDS
