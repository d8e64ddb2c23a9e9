"""Checks of the description against the program: does the program have what the description names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stages.filter_quality.facts import named, shows
from stages.filter_quality.findings import Finding
from stages.filter_quality.program import Program

# What in the program may draw the shape, as parts of words in small letters. Generous on purpose: a wrong accusation
# costs a good row, and a square may well be drawn as a polygon, a cell of a table or a picture.
_ANY = ("svg", "image", "surface", "parametric", "implicit", "vmobject", "points_as_corners", "polylines", "union(")
_BOX = (
    "square",
    "rect",
    "poly",
    "box",
    "frame",
    "table",
    "matrix",
    "grid",
    "plane",
    "cell",
    "tile",
    "cube",
    "prism",
    "chart",
)
_ROUND = (
    "circ",
    "dot",
    "arc",
    "annul",
    "ellipse",
    "sector",
    "sphere",
    "polar",
    "point",
    "graph",
    "ring",
    "disk",
    "node",
)
_SHAPES = {
    "circle": (*_ROUND, "banner", "torus", "cylinder", "cone", "camera"),
    "square": (*_BOX, "banner", "camera", "riemann", "code("),
    "rectangle": (*_BOX, "bar", "camera", "riemann", "code(", "sample"),
    "triangle": ("triang", "poly", "tip", "arrow", "star", "tetra", "cone", "pyramid", "line(", "banner", "camera"),
    "ellipse": ("ellipse", "circ", "oval", "arc", "conic", "stretch", "function"),
    "arrow": ("arrow", "vector", "tip", "axes", "axis", "plane", "numberline", "field", "digraph", "spin"),
    "sphere": ("sphere", "ball", "dot3d", "globe", "planet"),
    "cube": ("cube", "prism", "polyhedr", "hexahedr", "box"),
    "cylinder": ("cylind", "line3d", "arrow3d"),
    "cone": ("cone", "arrow3d"),
    "torus": ("torus",),
    "pentagon": ("pentagon", "poly", "dodeca"),
    "hexagon": ("hexagon", "poly"),
    "octagon": ("octagon", "poly"),
}
# Not a figure to be drawn: a square root, the square of x, a square matrix; nor one that other things form together.
_NAMED = re.compile(
    r"(?:\b(form(?:s|ed|ing)?|shape|formation|corners|vertices|patterns?) (?:of |into |in )*(?:an? |the )?)?"
    r"(?<![\w'-])(" + "|".join(f"[{shape[0]}{shape[0].upper()}]{shape[1:]}" for shape in _SHAPES) + r")s?\b"
    r"(?! +(?:root|bracket|matri|unit|number|wave|inequality|of|shape|formation|layout|pattern|arrange))(?![-'])"
)


def check_pair(description: str, program: Program) -> Iterator[Finding]:
    """Whether the program has every figure that the description names."""
    small = description.lower()
    if not any(shape in small for shape in _SHAPES):
        return
    shapes = sorted({shape.lower() for formed, shape in _NAMED.findall(description) if not formed})
    if not shapes:
        return
    code = program.code.lower()
    if any(part in code for part in _ANY):
        return
    missing = [shape for shape in shapes if not any(part in code for part in _SHAPES[shape])]
    if missing and not program.may_draw_unseen:
        yield Finding("missing_shape", f"the description names {' and '.join(missing)}, the program has none")


# Measured by giving descriptions to programs of other rows: more than a third of what is named finds 70 to 80 % of the
# strangers and accuses 1 to 9 % of the true pairs; exactly a third, as one of three, accuses twice as many.
_TOLERATED = 1 / 3


def check_agreement(description: str, program: Program) -> Iterator[Finding]:
    """Whether the program has most of what the description names: figures, colours, texts, motions."""
    things = named(description)
    code = program.code.lower()
    missing = [name for name in things if not shows(name, code)]
    if things and len(missing) / len(things) > _TOLERATED and not program.may_draw_unseen:
        told = ", ".join(missing[:5])
        yield Finding(
            "mismatch",
            f"of {len(things)} things that the description names, {len(missing)} are not in the program: {told}",
        )
