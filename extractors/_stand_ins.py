"""What stands in a program for a picture that it has no file for: the shape that the name of the file suggests."""

from __future__ import annotations

import re

_COLOR = re.compile(r"red|blue|green|yellow|orange|purple|pink|white|black|gray|grey|teal|gold|maroon")
_BOX = "RoundedRectangle(width=2.5, height=2.0, corner_radius=0.2)"
# The first word of the name that stands here decides; what has none of them is a box.
_SHAPES = {
    "arrow arrows pointer cursor": "Arrow(LEFT, RIGHT)",
    "background backdrop bg sky wallpaper": "FullScreenRectangle()",
    "button buttons btn key": "RoundedRectangle(width=2.5, height=0.8, corner_radius=0.4)",
    "face headshot photo portrait selfie": "VGroup(Rectangle(width=2.0, height=2.6), Circle(radius=0.7))",
    "boy character child creature girl hero human man men people person pi robot student teacher user woman women": (
        "VGroup(Circle(radius=0.4), RoundedRectangle(width=1.2, height=1.4, corner_radius=0.3)).arrange(DOWN, buff=0.1)"
    ),
    "bank building castle church factory home house school shop skyscraper tower": (
        "VGroup(Triangle(), Square(side_length=1.8)).arrange(DOWN, buff=0)"
    ),
    "airplane bicycle bike boat bus car plane rocket ship taxi train truck van vehicle": (
        "VGroup(RoundedRectangle(width=2.5, height=1.0, corner_radius=0.2), "
        "VGroup(Circle(radius=0.3), Circle(radius=0.3)).arrange(RIGHT, buff=0.8)).arrange(DOWN, buff=0)"
    ),
    "article book certificate doc document file letter newspaper note page paper pdf receipt report": (
        "VGroup(Rectangle(width=2.0, height=2.6), VGroup(Line(), Line(), Line()).arrange(DOWN).scale(0.7))"
    ),
    "architecture chart diagram flowchart graph map network pipeline plot scheme table": (
        "VGroup(Square(side_length=0.8), Arrow(LEFT, RIGHT), Square(side_length=0.8)).arrange(RIGHT)"
    ),
    "badge brand coin emblem icon logo medal seal": "Circle(radius=1.2)",
    "delta equation formula infinity integral math minus plus sigma sum symbol theta": "Square(side_length=1.2)",
}
SHAPE_OF = {word: shape for words, shape in _SHAPES.items() for word in words.split()}
_NAME = re.compile(r"\b[A-Z]\w*")


def stand_in(name: str, prefix: str = "") -> tuple[str, set[str]]:
    """A shape with the words of a file name on it, and the names of Manim in it; `prefix` goes before each of them."""
    words = re.findall(r"[^\W\d_]+|\d+", name)
    known = [word.lower() for word in words]
    if color := _COLOR.fullmatch("".join(known)):
        shape = f"Square(side_length=2.0, fill_opacity=1, color={color[0].upper()})"
    else:
        shape = next((SHAPE_OF[word] for word in known if word in SHAPE_OF), _BOX)
    label = " ".join(words)[:24] or "image"
    whole = f"VGroup({shape}, Text(@, font_size=24))"
    return _NAME.sub(rf"{prefix}\g<0>", whole).replace("@", f'"{label}"'), set(_NAME.findall(whole))
