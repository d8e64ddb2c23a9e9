"""Plain text: its encoding, its blanks, its headings, and how it is cut into chunks."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

SEPARATORS = ["\n\n", "\n", ". ", " "]
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+)$", re.MULTILINE)
_TOKEN = re.compile(r"\w+|[^\w\s]")
# "1.2 Words ........ 7", a line of a table of contents
LEADER = re.compile(r"(?:(?:\.[ \t*_]?){4,}|…{2,}|(?:[·…][ \t]?){4,})[ \t*_]*(?:\d+|[ivxlc]+)?[ \t*_]*$")
_EDGE = 3  # a running header or footer stands among the first or last lines of a page

Offsets = Callable[[str], list[tuple[int, int]]]


class Cut(NamedTuple):
    """How a text is cut: sizes are characters, or tokens where `offsets` says where the tokens stand."""

    size: int
    overlap: int
    separators: list[str]
    offsets: Offsets | None = None


def decode(data: bytes) -> str:
    """UTF-8 with or without a mark, UTF-16 with one, else Latin-1 as Windows writes it, which reads every byte."""
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def clean(text: str) -> str:
    """No trailing blanks, at most one empty line in a row, no soft hyphens or control characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xad", "").replace("\u00a0", " ")
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def strip_running_lines(pages: list[str]) -> list[str]:
    """The pages without the lines that most of them begin or end with; page numbers count as equal."""
    if len(pages) < 3:
        return pages
    seen = Counter(key for page in pages for key in {_key(line) for _, line in _edges(page)})
    running = {key for key, count in seen.items() if count > len(pages) / 2}
    stripped = []
    for page in pages:
        drop = {number for number, line in _edges(page) if _key(line) in running}
        stripped.append("\n".join(line for number, line in enumerate(page.split("\n")) if number not in drop))
    return stripped


def _edges(page: str) -> list[tuple[int, str]]:
    lines = [(number, line) for number, line in enumerate(page.split("\n")) if line.strip()]
    lines = [(number, line) for number, line in lines if not line.startswith("|")]  # tables have equal rows
    return lines if len(lines) <= 2 * _EDGE else lines[:_EDGE] + lines[-_EDGE:]


def _key(line: str) -> str:
    # "Chapter 1", "Chapter 2" as headings, and words with a number in them, are content and no page numbers.
    return line.strip() if line.startswith("#") else re.sub(r"\b\d+\b", "0", line.strip(" \t*_|"))


def word_offsets(text: str) -> list[tuple[int, int]]:
    """Words and signs, where no tokenizer is given."""
    return [match.span() for match in _TOKEN.finditer(text)]


def split_text(text: str, cut: Cut) -> list[tuple[int, int]]:
    """Where the chunks begin and end; together with their overlap they hold the whole text."""
    if cut.offsets:
        return _split_tokens(cut.offsets(text), cut)
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = _end(text, start, cut)
        span = _trim(text, start, end)
        if spans and spans[-1][0] == span[0]:
            spans.pop()  # two that begin alike once their blanks are gone; the later one is the longer
        spans.append(span)
        if end >= len(text):
            break
        start = max(_next_start(text, end, cut), start + 1)
    return [span for span in spans if span[0] < span[1]]


def _split_tokens(tokens: list[tuple[int, int]], cut: Cut) -> list[tuple[int, int]]:
    spans = []
    for first in range(0, len(tokens), cut.size - cut.overlap):
        part = tokens[first : first + cut.size]
        spans.append((part[0][0], part[-1][1]))
        if first + cut.size >= len(tokens):
            break
    return spans


def _end(text: str, start: int, cut: Cut) -> int:
    """The last place of the best separator; not in the first half, which would make crumbs."""
    limit = start + cut.size
    if limit >= len(text):
        return len(text)
    for separator in cut.separators:
        at = text.rfind(separator, start + max(cut.size // 2, cut.overlap + 1), limit)
        if separator and at >= 0:
            return at + len(separator)
    return limit


def _next_start(text: str, end: int, cut: Cut) -> int:
    """Overlap back from the end, but not into the middle of a word."""
    start = end - cut.overlap
    if not cut.separators or start <= 0 or text[start - 1].isspace():
        return start
    blank = re.compile(r"\s+").search(text, start, end)
    return blank.end() if blank and cut.overlap else start


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))


class Headings:
    """The heading that a place of a Markdown text stands under."""

    def __init__(self, text: str) -> None:
        found = [(match.start(), match.group(1).strip(" *_#")) for match in _HEADING.finditer(text)]
        found = [(start, title) for start, title in found if not LEADER.search(title)]
        self.starts = [start for start, _ in found]
        self.titles = [title for _, title in found]

    def at(self, start: int) -> str | None:
        position = bisect.bisect_right(self.starts, start)
        return self.titles[position - 1] if position else None
