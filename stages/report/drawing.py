"""Pictures as SVG text: every word in them is escaped, every colour is a class of page.css."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

COLOURS = 8  # classes c1 to c8
Points = list[tuple[float, float]]


class Series(NamedTuple):
    """One colour of a chart."""

    name: str
    colour: str
    values: Sequence[float]


def number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def short(value: float) -> str:
    """12,345 as 12k, for an axis."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def svg(width: float, height: float, title: str, parts: Iterable[str], kind: str = "") -> str:
    """A picture with its name for those who can not see it."""
    return (
        f'<svg class="chart {kind}" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1">{hint}</rect>'
    )


def ticks(top: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to at least `top`."""
    raw = max(top, 1e-12) / wanted
    size = 10 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
    return [step * place for place in range(math.ceil(top / step - 1e-9) + 1)]


def histogram(
    title: str, labels: Sequence[str], series: Sequence[Series], *, width: int = 520, every: int = 1, unit: str = ""
) -> str:
    """Stacked columns."""
    left, top, below, height = 44, 10, 34, 210
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    marks = ticks(max(totals, default=0) or 1)
    floor, span = height - below, height - below - top
    parts = []
    for mark in marks:
        y = floor - span * mark / marks[-1]
        parts += [box(left, y, width - left, 0.6, "grid"), text(left - 6, y + 4, short(mark), "tick", "end")]
    slot = (width - left) / max(1, len(labels))
    for place, label in enumerate(labels):
        y = float(floor)
        for one in series:
            if one.values[place]:
                high = max(1.0, span * one.values[place] / marks[-1])
                y -= high
                words = f"{label}: {number(one.values[place])} {one.name}"
                parts.append(box(left + slot * place + 1, y, max(1, slot - 2), high, one.colour, words))
        if place % every == 0:
            parts.append(text(left + slot * place + slot / 2, floor + 15, label, "tick", "middle"))
    parts.append(text(width, height - 3, unit, "tick", "end"))
    return svg(width, height, title, parts)


def bars(title: str, rows: Sequence[tuple[str, float, str]], *, width: int = 520) -> str:
    """Lying bars: a name, a value and a colour each."""
    label = label_width(name for name, _, _ in rows)
    top = max((value for _, value, _ in rows), default=0) or 1
    parts = []
    for place, (name, value, colour) in enumerate(rows):
        y = 24 * place
        parts.append(text(label - 8, y + 15, cut(name, 26), "name", "end"))
        long = max(1.5, (width - label - 60) * value / top) if value else 0
        parts.append(box(label, y + 3, long, 16, colour, f"{name}: {number(value)}"))
        parts.append(text(label + long + 6, y + 15, number(value), "value"))
    return svg(width, 24 * len(rows) + 4, title, parts)


def spans(title: str, rows: Sequence[tuple[str, Counter[int], str]], *, width: int = 520) -> str:
    """The lengths of each source: a line from the 5th to the 95th percentile, a box for the middle half, the median."""
    facts = [
        (name, [percentile(counts, share) for share in (5, 25, 50, 75, 95)], colour) for name, counts, colour in rows
    ]
    high = max((values[-1] for _, values, _ in facts), default=1) or 1
    label = label_width(name for name, _, _ in rows)
    marks = ticks(high, 5)
    below = 26 * len(facts) + 4

    def at(value: float) -> float:
        return label + (width - label - 20) * value / marks[-1]

    parts = []
    for mark in marks:
        parts += [box(at(mark), 0, 0.6, below, "grid"), text(at(mark), below + 14, short(mark), "tick", "middle")]
    for place, (name, (low, first, middle, third, last), colour) in enumerate(facts):
        y = 26 * place
        words = f"{name}: 5 % {low:,}, 25 % {first:,}, median {middle:,}, 75 % {third:,}, 95 % {last:,}"
        parts.append(text(label - 8, y + 17, cut(name, 26), "name", "end"))
        parts.append(box(at(low), y + 12, max(1, at(last) - at(low)), 2, f"{colour} soft", words))
        parts.append(box(at(first), y + 6, max(2, at(third) - at(first)), 14, colour, words))
        parts.append(box(at(middle) - 1, y + 3, 2.4, 20, "ink", words))
    return svg(width, below + 20, title, parts)


def label_width(names: Iterable[str]) -> int:
    return 16 + 7 * min(26, max(map(len, names), default=0))


def percentile(counts: Counter[int], percent: float) -> int:
    """The nearest rank."""
    rank, below = max(1, math.ceil(counts.total() * percent / 100)), 0
    for value in sorted(counts):
        below += counts[value]
        if below >= rank:
            return value
    return 0


def lines(title: str, curves: Sequence[tuple[str, str, Points]], *, width: int = 520, height: int = 210) -> str:
    """Curves over steps; each is named where it ends."""
    left, top, below, right = 52, 12, 26, 74
    every = [point for _, _, points in curves for point in points]
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    high = high if high > low else low + (abs(low) or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - first) / ((last - first) or 1) * (width - left - right)
        return across, top + (high - y) / (high - low) * (height - top - below)

    parts = []
    for share in (0, 0.5, 1):
        value = low + (high - low) * share
        y = place(first, value)[1]
        parts += [box(left, y, width - left - right, 0.6, "grid"), text(left - 6, y + 4, f"{value:.3g}", "tick", "end")]
    parts += [
        text(left, height - 8, number(first), "tick"),
        text(width - right, height - 8, number(last), "tick", "end"),
    ]
    used: list[float] = []
    for name, colour, points in curves:
        way = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in thinned(points))
        x, y = place(*points[-1])
        while any(abs(y - other) < 14 for other in used):
            y += 14
        used.append(y)
        parts.append(f'<polyline class="line {colour}" points="{way}"><title>{escape(name)}</title></polyline>')
        if len(points) == 1:
            parts.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{place(*points[0])[1]:.1f}" r="3"/>')
        parts.append(text(x + 8, y + 4, name, f"name {colour}"))
    return svg(width, height, title, parts)


def thinned(points: Points, most: int = 400) -> Points:
    """No more than there are pixels to draw them in; the last one stays."""
    return [*points[:: max(1, math.ceil(len(points) / most))], points[-1]]


def cut(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"
