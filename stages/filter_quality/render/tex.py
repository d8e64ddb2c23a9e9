"""TeX without LaTeX: every formula becomes a row of boxes with the parts that Manim looks for.

A program that runs with real formulas runs with these as well; what it can not show is a mistake in the TeX itself, so
a verdict says which of the two it met.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

_MARK = re.compile(r"(\\special\{dvisvgm:raw <g id='[^']*'>\}|\\special\{dvisvgm:raw </g>\})")
_COMMAND_OR_SPACE = re.compile(r"\\[a-zA-Z]+|[{}$^_&~\\\s]")
_BOX = '<path d="M{0} 0L{1} 0L{1} 8L{0} 8Z"/>'
_WIDTH, _STEP, _MOST = 5, 6, 40


def installed() -> str:
    """Which TeX there is: "latex", with what makes pictures of it, or "stub"."""
    return "latex" if shutil.which("latex") and shutil.which("dvisvgm") else "stub"


class Tex:
    """Notes whether a program sets TeX at all, and sets boxes where there is no LaTeX."""

    def __init__(self, kind: str) -> None:
        import manim.mobject.text.tex_mobject as user
        import manim.utils.tex_file_writing as writer

        self.kind, self.used = kind, False
        self._writer, self._real = writer, writer.tex_to_svg_file
        writer.tex_to_svg_file = self._picture
        user.tex_to_svg_file = self._picture

    def _picture(self, expression: str, environment: str | None = None, tex_template: Any = None) -> Path:
        self.used = True
        if self.kind == "latex":
            return Path(self._real(expression, environment, tex_template))
        from manim import config

        folder = Path(config.get_dir("tex_dir"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._writer.tex_hash(f'{expression}{environment}')}.svg"
        if not path.exists():
            path.write_text(boxes(expression), "utf-8")
        return path


def boxes(expression: str) -> str:
    """An SVG with a box for each sign, inside the groups that the expression marks."""
    parts, place, depth = [], 0, 0
    for piece in _MARK.split(expression):
        if piece.startswith(r"\special{dvisvgm:raw <g"):
            parts.append(piece[len(r"\special{dvisvgm:raw ") : -1])
            depth += 1
        elif piece.startswith(r"\special{dvisvgm:raw </g"):
            parts.append("</g>")
            depth -= 1
        else:
            for _ in _COMMAND_OR_SPACE.sub(_sign, piece)[:_MOST]:
                parts.append(_BOX.format(place, place + _WIDTH))
                place += _STEP
    parts += ["</g>"] * depth
    if not place:  # Manim refuses a picture without a path
        parts.append(_BOX.format(0, _WIDTH))
    size = f'width="{place + _STEP}pt" height="9pt" viewBox="0 0 {place + _STEP} 9"'
    body = "".join(parts)
    return f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" version="1.1" {size}>{body}</svg>'


def _sign(found: re.Match[str]) -> str:
    """A command draws one sign, save those of a letter or two, which are accents and spaces."""
    return "x" if len(found[0]) > 2 and found[0].startswith("\\") else ""
