"""Takes off what is around a program and no part of it: fences, marks of a model or a notebook, foreign line ends.

All but `line_ends` touch only text that does not parse as it is, and nothing in the strings of a program.
"""

from __future__ import annotations

import json
import re

from schema import parses
from stages.prepare_data.repair_tokens import inside_strings, lex, meaning, strings

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)[^`\n]*$")
_MARK = r"<\|[a-z_]{2,30}\|>|</?s>|\[/?INST\]|<(?:begin|end)_of_[a-z_]{2,20}>"
_LEADING_MARKS = re.compile(rf"\A(?:\s*(?:{_MARK}))+[ \t]*")
_TRAILING_MARKS = re.compile(
    rf"(?:\s*(?:{_MARK}|^[ \t]*\.\.\.[ \t]*$|(?<=[\w)\]}}\"'])[ \t]*\.\.\.))+\s*\Z", re.MULTILINE
)
_END_MARKS = re.compile(rf"(?:\s*(?:{_MARK}))+\s*\Z")
_LINE_OF_MARK = re.compile(rf"^[ \t]*(?:{_MARK})[ \t]*$")
_MAGIC = re.compile(r"^\s*(?:%%?[A-Za-z]|![\w./])")
_SAID = re.compile(r"\A[^\n]{0,40}\bpython\s*:?[ \t]*\n", re.IGNORECASE)


def line_ends(text: str) -> str:
    """One kind of line end, no byte order mark, spaces for tabs and for the blanks that Python does not know."""
    new = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if not parses(new):
        for odd in filter(new.__contains__, "\u00a0\u200b\ufeff\u2003\u2002"):
            new = _outside_strings(new, re.compile(odd), "" if odd in "\u200b\ufeff" else " ")
    if "\t" not in new:
        return new
    for width in (4, 8):
        spaced = _expand(new, width)
        if (after := meaning(spaced)) is not None and meaning(new) in (None, after):
            return spaced
    return new


def _expand(text: str, width: int) -> str:
    lines = text.split("\n")
    return "\n".join(
        line[: len(line) - len(line.lstrip(" \t"))].expandtabs(width) + line.lstrip(" \t") for line in lines
    )


def fences(text: str) -> str:
    """The program inside a Markdown fence; of several the longest that parses, else all that do together."""
    if parses(text) or not ("```" in text or "~~~" in text):
        return text
    blocks = [block for block in _blocks(text.split("\n")) if block.strip()]
    good = [block for block in blocks if parses(block)]
    scenes = [block for block in good if re.search(r"^\s*class \w+\(", block, re.MULTILINE)]
    if len(scenes) > 1 and parses("\n".join(scenes)):
        return "\n".join(scenes)
    inline = re.fullmatch(r"\s*```(?:python|py)?\s+(.*?)\s*```\s*", text, re.DOTALL)
    if not blocks and inline:
        return inline[1]
    return max(scenes or good or blocks, key=len, default=text)


def _blocks(lines: list[str]) -> list[str]:
    """What stands between fences. One that is never closed goes to the end; one inside a string is none."""
    blocks: list[str] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if not fence:
            continue
        if opened is None:
            if fence[2] or _closes_later(lines, number, fence[1]):
                opened = fence[1], number
            else:  # the end of a fence that nobody opened
                blocks.append("\n".join(lines[:number]))
        elif fence[2] and number == opened[1] + 1:
            opened = fence[1], number  # a fence in a fence
        elif fence[1].startswith(opened[0]) and not fence[2]:
            block = "\n".join(lines[opened[1] + 1 : number])
            if not _in_string(block):
                blocks.append(block)
                opened = None
    if opened is not None:
        blocks.append("\n".join(lines[opened[1] + 1 :]))
    return [_dedented(block) for block in blocks]


def _closes_later(lines: list[str], number: int, mark: str) -> bool:
    return any(line.strip().startswith(mark) for line in lines[number + 1 :]) or number == 0


def _in_string(block: str) -> bool:
    """Does the block end inside a string in three quotes?"""
    rest = "".join(token.text for token in lex(block) if token.kind not in ("string", "comment"))
    return '"""' in rest or "'''" in rest or ('""' in rest and block.count('"""') % 2 == 1)


def _dedented(block: str) -> str:
    """A fence in a list is indented, and what is in it, too."""
    lines = block.split("\n")
    depth = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return "\n".join(line[depth:] for line in lines) + "\n" if block.strip() else ""


def artefacts(text: str) -> str:
    """No marks that a model puts around its answer, and no three dots where it stopped."""
    if parses(text):
        return text
    bare = _LEADING_MARKS.sub("", text)
    whole = _END_MARKS.sub("\n", bare)
    if parses(whole) and whole.strip():
        return whole  # three dots that Python understands are the program's own
    new = _TRAILING_MARKS.sub("\n", bare)
    if re.search(r"<\|[a-z_]+\|>", new):
        marks = re.compile(r"<\|[a-z_]{2,30}\|>")
        first = next((token.start for token in lex(new) if marks.match(new, token.start) and token.text == "<"), None)
        if first is not None and parses(new[:first]):
            new = new[:first]  # what a model says after its end
    lines = [line for line in new.split("\n") if not _LINE_OF_MARK.match(line)]
    return _SAID.sub("", "\n".join(lines)) if not parses("\n".join(lines)) else "\n".join(lines)


def magics(text: str) -> str:
    """No lines for the notebook: `%%manim -v WARNING -ql Name`, `!pip install manim`."""
    if parses(text):
        return text
    inside = inside_strings(text)
    lines = enumerate(text.split("\n"))
    return "\n".join(line for number, line in lines if number in inside or not _MAGIC.match(line)).lstrip("\n")


def literal_newlines(text: str) -> str:
    """Line ends where two characters, a backslash and an n, stand for them; not in strings, where they belong."""
    if parses(text) or "\\n" not in text:
        return text
    new = _written_out(text)
    if not parses(new) and '\\"' in text:
        whole = _unescaped(text)
        return whole if whole is not None and parses(whole) else new
    return new


def _written_out(text: str) -> str:
    pieces, end, position = list[str](), 0, 0
    while position < len(text):
        token = next(lex(text, position), None)
        if token is None:
            break
        position = token.end
        stop = token.text.find("\\n") if token.kind == "comment" else 0 if token.text == "\\" else -1
        if stop < 0:
            continue
        start = token.start + stop
        sign = text[start + 1 : start + 2]
        if sign in ("n", "t"):
            pieces += [text[end:start], "\n" if sign == "n" else "    "]
            end = position = start + 2
    return "".join([*pieces, text[end:]])


def _unescaped(text: str) -> str | None:
    """The program behind a string that was written out as JSON would."""
    try:
        return str(json.loads('"' + text.replace("\n", "\\n") + '"'))
    except ValueError:
        return None


def _outside_strings(text: str, pattern: re.Pattern[str], new: str) -> str:
    pieces, end = [], 0
    for token in strings(text):
        pieces += [pattern.sub(new, text[end : token.start]), token.text]
        end = token.end
    return "".join([*pieces, pattern.sub(new, text[end:])])
