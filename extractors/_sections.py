"""The sections of a paper: `**1** **Introduction**`, `## 1 Introduction`, `# **I. INTRO**`, or plain words."""

from __future__ import annotations

import re
from typing import NamedTuple

from extractors._text import LEADER

_MARKED = re.compile(r"^#{1,6}\s+(?P<text>\S.*)$")
_BOLD = re.compile(r"^_?\*\*[^*]+\*\*(\s+\*\*[^*]+\*\*)*_?$")
_NUMBERED = re.compile(r"^(?P<number>\d{1,2}|[IVX]{1,5}|[A-Z](?=[.)]))[.):]?\s+(?P<title>\S.*)$")
_DEEPER = re.compile(r"^\d{1,2}\.\d")
_ABSTRACT = re.compile(r"^[\W_]*abstract[*_]*(\s*[.:—–-][*_]*|[*_]+|$)\s*(?P<rest>.*)$", re.IGNORECASE)
_KNOWN = re.compile(
    r"^(abstract|introduction|conclusions?|acknowledge?ments?|references|bibliography|appendix\b.*)$", re.IGNORECASE
)
_REFERENCES = re.compile(r"^(references?( and notes| cited)?|bibliography|(literature|works) cited)$", re.IGNORECASE)


class Section(NamedTuple):
    """A title (empty for what stands before the first heading) and all that follows up to the next one."""

    title: str
    text: str
    line: int


def split_sections(markdown: str) -> list[Section]:
    """The top sections; those below them stay inside their text."""
    lines = markdown.split("\n")
    headings = [heading for line in lines if (heading := _heading(line)) and not _DEEPER.match(heading)]
    # Where sections are numbered, a line without a number is a title, a sub-heading or a caption.
    numbered = sum(bool(_NUMBERED.match(heading)) for heading in headings) >= 2
    found = [Section("", "", 1)]
    for number, line in enumerate(lines, 1):
        title, rest = _begin(line, numbered)
        if title:
            found.append(Section(title, rest, number))
        else:
            found[-1] = found[-1]._replace(text=found[-1].text + "\n" + line)
    return [section._replace(text=section.text.strip()) for section in found if section.title or section.text.strip()]


def is_references(title: str) -> bool:
    return bool(_REFERENCES.match(title))


def _heading(line: str) -> str | None:
    """The words of a line that looks like a heading."""
    line = line.strip()
    if LEADER.search(line):
        return None
    marked = _MARKED.match(line)
    if not marked and not (_BOLD.match(line) and len(line) <= 100 and not line.rstrip("*").endswith((".", ":", ","))):
        return None
    text = marked["text"] if marked else line
    return " ".join(re.sub(r"\*\*|(?<!\w)_|_(?!\w)", " ", text).split()) or None


def _begin(line: str, numbered: bool) -> tuple[str, str]:
    """The title that a line opens, and what of its text stands on the same line."""
    heading = _heading(line)
    abstract = _ABSTRACT.match(line.strip())
    if abstract and (heading or line.strip()[:1] in "*_#" or line.strip().istitle() or line.strip().isupper()):
        return "Abstract", abstract["rest"]
    if not heading or _DEEPER.match(heading):
        return "", ""
    match = _NUMBERED.match(heading)
    title = match["title"] if match else heading
    return (title, "") if match or _KNOWN.match(heading) or not numbered else ("", "")
