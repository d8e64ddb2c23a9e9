"""The course of a training as one page that needs nothing besides itself: curves.html, drawn as SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BELOW = 720, 240, 60, 30
MAX_POINTS = 600  # more than there are pixels to draw them in
CHARTS = (
    ("Loss", (("loss", "#2563eb", "trained"), ("eval_loss", "#dc2626", "held out"))),
    ("Learning rate", (("learning_rate", "#059669", "learning rate"),)),
    ("Length of the gradient", (("grad_norm", "#7c3aed", "gradient"),)),
)
Points = list[tuple[float, float]]


def page(name: str, lines: Sequence[dict[str, Any]]) -> str:
    """The whole page; equal lines give equal bytes."""
    charts = "\n".join(chart for title, curves in CHARTS if (chart := _chart(title, curves, lines)))
    title = html.escape(name)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>body{{font:14px sans-serif;margin:2em;color:#222}}text{{font-size:11px}}"
        f"</style></head>\n<body><h1>{title}</h1>\n{charts}\n</body></html>\n"
    )


def _chart(title: str, curves: Sequence[tuple[str, str, str]], lines: Sequence[dict[str, Any]]) -> str:
    found = [(_points(lines, key), colour, name) for key, colour, name in curves]
    drawn = [(points, colour, name) for points, colour, name in found if points]
    if not drawn:
        return ""
    every = [point for points, _, _ in drawn for point in points]
    right, low, high = max(x for x, _ in every), min(y for _, y in every), max(y for _, y in every)
    high = high if high > low else low + (abs(low) or 1.0)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - 1) / max(right - 1, 1) * (WIDTH - LEFT - 10)
        return f"{across:.1f},{10 + (high - y) / (high - low) * (HEIGHT - BELOW - 10):.1f}"

    parts = [f"<h2>{title}</h2>", f"<svg width='{WIDTH}' height='{HEIGHT}' role='img' aria-label='{title}'>"]
    parts += [_level(low + (high - low) * share, share) for share in (0, 0.5, 1)]
    for number, (points, colour, name) in enumerate(drawn):
        way = " ".join(place(x, y) for x, y in points)
        parts.append(f"<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{way}'/>")
        parts += [
            f"<circle cx='{at.split(',')[0]}' cy='{at.split(',')[1]}' r='2' fill='{colour}'/>" for at in way.split()
        ]
        parts.append(f"<text x='{WIDTH - 90}' y='{22 + 16 * number}' fill='{colour}'>{name}</text>")
    parts.append(f"<text x='{WIDTH - 90}' y='{HEIGHT - 8}'>step {right:,.0f}</text></svg>")
    return "\n".join(parts)


def _level(value: float, share: float) -> str:
    y = 10 + (1 - share) * (HEIGHT - BELOW - 10)
    return (
        f"<line x1='{LEFT}' x2='{WIDTH - 10}' y1='{y:.1f}' y2='{y:.1f}' stroke='#ddd'/>"
        f"<text x='4' y='{y + 4:.1f}'>{value:.4g}</text>"
    )


def _points(lines: Sequence[dict[str, Any]], key: str) -> Points:
    found = [(float(line["step"]), float(line[key])) for line in lines if isinstance(line.get(key), int | float)]
    found = [(x, y) for x, y in found if math.isfinite(y)]
    return found[:: max(1, math.ceil(len(found) / MAX_POINTS))]
