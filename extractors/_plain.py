"""Finds the doctests and the programs in documentation that is plain text."""

from __future__ import annotations

import re

from extractors._html import Code, Piece, Prose

_START = re.compile(r"\s*(?:(?:from|import) manim\b|class \w+\([^)]*Scene\w*\s*[,)]|>>> )")
_GOES_ON = re.compile(r"(?:from|import|class|def|async def|with|for|if|elif|else|try|except|finally|@|#|\)|\]|\})")
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*(?:\[[^\]]*\])?\s*(?:=|\()")
_UNDERLINE = re.compile(r"\s*([-=~^\"'*+#.])\1{2,}\s*$")
_HASHES = re.compile(r"#{1,6} +(.+)")


def read_text(text: str) -> list[Piece]:
    """Prose by paragraphs and code by blocks, in the order of the text; a line underlined or after # is a heading."""
    lines = text.expandtabs().splitlines()
    pieces: list[Piece] = []
    at = 0
    while at < len(lines):
        if _START.match(lines[at]):
            end = _end(lines, at)
            pieces.append(_code(lines[at:end]))
            at = end
        elif at + 1 < len(lines) and lines[at].strip() and _UNDERLINE.match(lines[at + 1]):
            pieces.append(Prose(_one_line(lines[at]), level=1))
            at += 2
        else:
            heading = _HASHES.match(lines[at])
            words = _one_line(heading[1] if heading else lines[at])
            pieces += [Prose(words, level=1 if heading else 0)] if words else []
            at += 1
    return pieces


def _end(lines: list[str], start: int) -> int:
    """The line after the block: a doctest ends at a blank line, a program where prose begins."""
    width = len(lines[start]) - len(lines[start].lstrip())
    is_doctest = lines[start].lstrip().startswith(">>>")
    end = start + 1
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if is_doctest and not line.strip():
            break
        if line.strip():
            if not is_doctest and not _is_code(line, width):
                break
            end = number + 1
    return end


def _is_code(line: str, width: int) -> bool:
    rest = line[width:]
    deeper = not line[: width + 1].strip()
    return deeper or (not line[:width].strip() and bool(_GOES_ON.match(rest) or _ASSIGNMENT.match(rest)))


def _code(lines: list[str]) -> Code:
    width = len(lines[0]) - len(lines[0].lstrip())
    return Code("\n".join(line[width:].rstrip() for line in lines).strip("\n"), "python")


def _one_line(text: str) -> str:
    return " ".join(text.split())
