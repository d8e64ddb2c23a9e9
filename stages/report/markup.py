"""The few kinds of markup that the sections are made of; text is escaped unless it is Markup already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import NamedTuple

LONGEST_LINES, LONGEST_TEXT = 120, 4000


class Markup(str):
    """Text that is HTML and safe."""


class Section(NamedTuple):
    """One part of the page."""

    key: str
    title: str
    lead: str  # a sentence on what is to be seen
    parts: list[str]  # markup; none: the part is not there yet, and the lead says why

    def html(self) -> str:
        body = "\n".join(self.parts)
        kind = "" if self.parts else ' class="missing"'
        words = re.sub("`(.*?)`", r"<code>\1</code>", escape(self.lead))  # commands to run stand between these
        lead = f'<p class="lead">{words}</p>' if words else ""
        return (
            f'<section id="{self.key}" aria-labelledby="{self.key}-title"{kind}>'
            f'<h2 id="{self.key}-title">{escape(self.title)}</h2>{lead}\n{body}</section>'
        )


def safe(value: object) -> str:
    return value if isinstance(value, Markup) else escape(str(value))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns with numbers stand to the right; the first cell of a row is its name."""
    lines = [list(row) for row in rows]
    kinds = ["number" if any(isinstance(line[place], int) for line in lines) else "" for place in range(len(head))]
    top = "".join(f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(f"<tr>{_cells(line, kinds)}</tr>" for line in lines)
    words = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    caption = f"<caption>{escape(caption)}</caption>"
    return f"{words}<table>{caption}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _cells(line: Sequence[object], kinds: Sequence[str]) -> str:
    name, *others = line
    cells = [f'<th scope="row">{safe(name)}</th>']
    for value, kind in zip(others, kinds[1:], strict=True):
        cells.append(f'<td class="{kind}">{f"{value:,}" if isinstance(value, int) else safe(value)}</td>')
    return "".join(cells)


def figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def beside(*parts: str) -> str:
    return f'<div class="beside">{"".join(parts)}</div>'


def details(summary: object, *parts: str, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{safe(summary)}</summary>{''.join(parts)}</details>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    return (
        "<dl>" + "".join(f"<div><dt>{escape(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in pairs) + "</dl>"
    )


def quote(title: str, text: str, *, kind: str = "text") -> str:
    """A text of a record."""
    block = f'<pre class="{kind}" tabindex="0">{escape(shortened(text))}</pre>'
    return f'<div><h3 class="small">{escape(title)}</h3>{block}</div>'


def compared(titles: tuple[str, str], one: str, other: str) -> str:
    """Two programs side by side; the lines that differ are marked."""
    pair = (_lines(one), _lines(other))
    marked: tuple[list[str], list[str]] = ([], [])
    for tag, *places in SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
        for side, (begin, end) in enumerate((places[:2], places[2:])):
            for line in pair[side][begin:end]:
                marked[side].append(escape(line) if tag == "equal" else f"<mark>{escape(line) or ' '}</mark>")
    blocks = [
        f'<div><h3 class="small">{escape(title)}</h3><pre class="code" tabindex="0">{chr(10).join(text)}</pre></div>'
        for title, text in zip(titles, marked, strict=True)
    ]
    return beside(*blocks)


def _lines(text: str) -> list[str]:
    lines = shortened(text).split("\n")
    return (
        lines
        if len(lines) <= LONGEST_LINES
        else [*lines[:LONGEST_LINES], f"… {len(lines) - LONGEST_LINES:,} lines more"]
    )


def shortened(text: str) -> str:
    return (
        text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text) - LONGEST_TEXT:,} characters more)"
    )
