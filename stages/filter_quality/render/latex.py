"""LaTeX for a third: what all documents of Manim's have in common is done once, and each formula looks the same.

Nearly all documents begin alike, with packages that take three times as long to read as a formula takes to set; what
LaTeX knows after these lines is written down once, as a format to begin with. And dvisvgm starts Ghostscript for the
sake of specials in PostScript, of which a formula has none but those of the class, which draw nothing; it goes on
without where Ghostscript finds no program to start with. Whatever is otherwise than in a first document of our own
goes Manim's way. The DVI file is the same to the byte and so is each line of the SVG; the order of its definitions,
which draws nothing, dvisvgm makes from where things lie in its memory.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_BEGIN = r"\begin{document}"
# A document is read as it is, so that its lines keep their numbers; what the format knows of it is passed over.
_PASS_OVER = r"""
\let\linemillclass\documentclass
\long\def\documentclass#1\begin{\let\documentclass\linemillclass\let\linemillclass\undefined\begin}
\dump
"""
# Wherever such bytes stand in a DVI file, there may be a special for Ghostscript.
_POSTSCRIPT = re.compile(
    rb"(?=(?:\xef.|\xf0..|\xf1...|\xf2....)\s*(?:header=|psfile=|pdffile=|pdf:|ps:|pst:|!|\"))",
    re.DOTALL | re.IGNORECASE,
)
_WAY = "GS_LIB"  # in the environment: where Ghostscript looks first


class Shortcut(NamedTuple):
    """What the server has made for the programs; they can read it and not change it."""

    format: Path
    without: Path | None  # a folder in which Ghostscript does not start; None where dvisvgm then does not go on
    specials: int  # in PostScript, in a document that draws with none


def usual_start() -> str:
    """How a document of Manim's begins unless a program says otherwise."""
    from manim import TexTemplate

    head, begin, _ = str(TexTemplate().body).partition(_BEGIN)
    return head + begin


def make(folder: Path) -> Shortcut | None:
    """In the server, in an empty folder; None where LaTeX makes no format or sets nothing with it."""
    start, made, dvi = usual_start(), folder / "usual.fmt", folder / "trial.dvi"
    with suppress(OSError, subprocess.TimeoutExpired):
        (folder / "head.tex").write_text(start.removesuffix(_BEGIN) + _PASS_OVER, "utf-8")
        (folder / "trial.tex").write_text(start + r"$x$\end{document}", "utf-8")
        _latex(folder, "-ini", "-jobname=packed", "&latex", "head.tex")
        packed = (folder / "packed.fmt").read_bytes()  # to unpack it takes longer than a formula
        made.write_bytes(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)
        (folder / "packed.fmt").unlink()
        _latex(folder, f"-fmt={made}", "-output-format=dvi", "trial.tex")
        return Shortcut(made, _without(folder), _specials(dvi.read_bytes()))
    return None


def _without(folder: Path) -> Path | None:
    (folder / "gs_init.ps").touch()
    pictures = []
    for name, more in (("with.svg", {}), ("without.svg", {_WAY: str(folder)})):
        _run(folder, "dvisvgm", "--no-fonts", "--verbosity=0", f"--output={name}", "trial.dvi", **more)
        pictures.append((folder / name).read_bytes() if (folder / name).exists() else b"")
    return folder if pictures[0] and pictures[0] == pictures[1] else None


def _latex(folder: Path, *options: str) -> None:
    _run(folder, "latex", "-interaction=batchmode", "-halt-on-error", *options)


def _run(folder: Path, *command: str, **more: str) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, env=os.environ | more, stdout=nothing, stderr=nothing, timeout=60)


def _specials(dvi: bytes) -> int:
    return sum(1 for _ in _POSTSCRIPT.finditer(dvi))


def _read(path: Path) -> bytes:
    """Nothing where there is nothing to read: Manim says it better."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def take(shortcut: Shortcut) -> None:
    """In a child: Manim's own functions, with the format and without Ghostscript where the document allows it."""
    import manim.utils.tex_file_writing as writer

    own_command, own_convert, start = writer.make_tex_compilation_command, writer.convert_to_svg, usual_start().encode()

    def make_tex_compilation_command(compiler: str, output: str, document: Path, folder: Path) -> list[str]:
        command: list[str] = own_command(compiler, output, document, folder)
        if (compiler, output) == ("latex", ".dvi") and _read(document).startswith(start):
            command.insert(1, f"-fmt={shortcut.format}")
        return command

    def convert_to_svg(dvi: Path, extension: str, page: int = 1) -> Path:
        if shortcut.without and extension == ".dvi" and _specials(_read(dvi)) == shortcut.specials:
            os.environ[_WAY] = str(shortcut.without)
            try:
                return Path(own_convert(dvi, extension, page))
            except ValueError:  # there is no picture
                pass
            finally:
                del os.environ[_WAY]
        return Path(own_convert(dvi, extension, page))

    writer.make_tex_compilation_command = make_tex_compilation_command
    writer.convert_to_svg = convert_to_svg
