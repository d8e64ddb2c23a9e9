"""TeX without LaTeX: every formula becomes a row of boxes with the parts that Manim looks for.

A program that runs with real formulas runs with these as well; what it can not show is a mistake in the TeX itself, so
a verdict says which of the two it met.

With LaTeX a formula costs five times as much as a scene. The server therefore sets those that a second program asks
for once more, each in a sandbox of its own, and what comes out is there for all later ones: what a program makes itself
is never shown to another. When a few have been asked for it also makes what all others become quicker with (latex.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from stages.filter_quality.render.latex import Shortcut, usual_start

_MARK = re.compile(r"(\\special\{dvisvgm:raw <g id='[^']*'>\}|\\special\{dvisvgm:raw </g>\})")
_COMMAND_OR_SPACE = re.compile(r"\\[a-zA-Z]+|[{}$^_&~\\\s]")
_BOX = '<path d="M{0} 0L{1} 0L{1} 8L{0} 8Z"/>'
_WIDTH, _STEP, _MOST = 5, 6, 40
_LONGEST, _MOST_NEW, _MOST_KNOWN = 10_000, 50, 20_000
_DRAWN = {"latex": ".dvi"}  # what the server draws again: Manim's own way
_FEW = 4  # formulas, after which a shortcut saves what it costs


def installed() -> str:
    """Which TeX there is: "latex", with what makes pictures of it and the class of Manim's documents, or "stub"."""
    if not (shutil.which("latex") and shutil.which("dvisvgm") and shutil.which("kpsewhich")):
        return "stub"
    found = subprocess.run(["kpsewhich", "standalone.cls", "preview.sty"], capture_output=True, text=True)
    return "latex" if len(found.stdout.split()) == 2 else "stub"


class Memory:
    """In the server: the formulas that a second program asked for, each as the SVG that it became here, and the
    shortcut for the others."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.shortcut: Shortcut | None = None
        self._usual = 0
        self._seen: set[str] = set()

    def wanted(self, documents: Any) -> list[str]:
        """Which of these documents to set now. They are what a program says, so nothing about them is sure."""
        asked = [each for each in documents if isinstance(each, str) and len(each) <= _LONGEST][:_MOST_NEW]
        again = [each for each in dict.fromkeys(asked) if each in self._seen and each not in self.known]
        if len(self._seen) < _MOST_KNOWN:
            self._seen.update(asked)
        return again

    def wants_shortcut(self, documents: list[Any]) -> bool:
        """Whether it is time to make it: once, when a few documents could have been set with it."""
        before, start = self._usual, usual_start()
        self._usual += sum(isinstance(each, str) and each.startswith(start) for each in documents[:_MOST_NEW])
        return before < _FEW <= self._usual


def svg_of(document: str) -> str:
    """A document as Manim would set it; in a sandbox, it is a stranger's."""
    import manim.utils.tex_file_writing as writer
    from manim import config

    folder = Path(config.get_dir("tex_dir"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "formula.tex"
    path.write_text(document, "utf-8")
    return Path(writer.convert_to_svg(writer.compile_tex(path, "latex", ".dvi"), ".dvi")).read_text("utf-8")


class Tex:
    """Notes whether a program sets TeX at all, and sets boxes where there is no LaTeX."""

    def __init__(self, kind: str, known: dict[str, str]) -> None:
        import manim.mobject.text.tex_mobject as user
        import manim.utils.tex_file_writing as writer

        self.kind, self.used, self.known = kind, False, known
        self.asked: list[str] = []
        self._writer, self._real = writer, writer.tex_to_svg_file
        writer.tex_to_svg_file = self._picture
        user.tex_to_svg_file = self._picture

    def _picture(self, expression: str, environment: str | None = None, tex_template: Any = None) -> Path:
        self.used = True
        if self.kind == "latex":
            return self._set(expression, environment, tex_template)
        from manim import config

        folder = Path(config.get_dir("tex_dir"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._writer.tex_hash(f'{expression}{environment}')}.svg"
        if not path.exists():
            path.write_text(boxes(expression), "utf-8")
        return path

    def _set(self, expression: str, environment: str | None, template: Any) -> Path:
        from manim import config

        template = config["tex_template"] if template is None else template
        if template.output_format == _DRAWN.get(str(template.tex_compiler)):
            path = Path(self._writer.generate_tex_file(expression, environment, template))
            document = path.read_text("utf-8")
            if document in self.known:
                path.with_suffix(".svg").write_text(self.known[document], "utf-8")
            elif document not in self.asked:
                self.asked.append(document)
        return Path(self._real(expression, environment, template))


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
