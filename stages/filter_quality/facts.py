"""What a description can name, and how a program that shows it may look: both as patterns, generous on purpose.

A wrong accusation costs a good row, and a square may well be drawn as a polygon or as a cell of a table. So a program
is only said to lack a thing when nothing in it comes near, and one missing thing alone proves little.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

_COLOURS = "green blue yellow teal gold maroon"
# thing -> (words of the description, parts of the program in small letters)
_THINGS = {
    "circle": (r"circles?|circular|ring", "circ|annul|ellips|polar|arc|ring"),
    "square": (r"squares?", "square|rect|poly|cube|grid|table|matrix"),
    "rectangle": (r"rectang\w+", r"rect|square|bar|poly|grid|sample|code\(|screen"),
    "triangle": (r"triang\w+", "triang|poly|tip|star|tetra"),
    "line": (r"lines?", "line|axes|axis|plane|edge|arrow|plot|vector|path|brace|graph|under|segment|ray"),
    "dot": (r"dots?|points?", "dot|point|circ|vert|scatter|coords"),
    "arrow": (r"arrows?", "arrow|vector|tip|field|axes|axis|plane|digraph|to_"),
    "polygon": (r"polygons?|pentagons?|hexagons?|octagons?|star", "poly|star|gon|hedron|vertices"),
    "arc": (r"arcs?", "arc|angle|curve|sector|brace|circ"),
    "ellipse": (r"ellip\w+|ovals?", "ellip|circ|stretch|surround|oval"),
    "sphere": (r"spheres?|balls?|globe", "sphere|ball|surface|dot3d"),
    "cube": (r"cubes?|prisms?|box(?:es)?", "cube|prism|box|rect|poly|square|surround"),
    "cylinder": (r"cylind\w+|cones?|torus", "cylind|cone|torus|surface"),
    "surface": (r"surfaces?", "surface|sphere|cylind|cone|torus|3d|prism|cube"),
    "depth": (r"3d|dimensional|depth", "3d|three|sphere|cube|surface|camera|hedron|prism|phi|theta"),
    "axes": (r"axes|axis|coordinate|plane|grid", "axes|axis|plane|numberline|grid|coord|chart|polar|table|matrix"),
    "number line": (r"numberlines?", "numberline|number_line|axes|chart|plane"),
    "graph": (
        r"graphs?|curves?|functions?|plots?|plotted|wave|parabola|sine|cosine",
        "graph|plot|curve|function|axes|parametric|sin|cos|lambda|bezier|path",
    ),
    "network": (r"networks?|nodes?|vertices|edges?|directed|tree", "graph|node|vert|edge|tree|dot|poly|circ"),
    "bars": (r"barcharts?|histogram|bars", "bar|rect|hist|riemann"),
    "table": (r"tables?|rows?|columns?|cells?", "table|grid|matrix|arrange|row|column|cells"),
    "matrix": (r"matri\w+|determinant", r"matri|\[\["),
    "text": (
        r"text|words?|titles?|phrases?|labels?|labeled|captions?|letters?|reads?|reading|saying",
        "text|tex|title|label|write|markup|paragraph|integer|number|code|bullet|table|matrix|chart|coord|axes|font",
    ),
    "formula": (r"formulas?|equations?|latex|mathematical|expression|integral|theorem", "tex|formula|equation|math"),
    "listing": (r"code|syntax|snippet", "code"),
    "brace": (r"braces?|curly", r"brac|delim|matrix|\{"),
    "vector": (r"vectors?", "vector|arrow|field"),
    "field": (r"vectorfields?|streamlines?", "field|stream"),
    "picture": (r"images?|photos?|pixels?|logos?|svg", "image|svg|logo|banner|pixel|array"),
    "rotation": (
        r"rotat\w+|spin\w*|revolv\w+|orbit\w*|turns?|angle\w*|degrees?",
        r"rotat|spin|angle|degrees|path|orbit|updater|theta|pi\b|direction|camera",
    ),
    "movement": (
        r"mov(?:e|es|ing|ement)|shift\w*|slid\w+|travel\w*",
        "mov|shift|animate|path|next_to|updater|align|to_edge|to_corner|transform|camera|zoom|play|target|tracker",
    ),
    "growth": (
        r"scal(?:e|es|ed|ing)|grow\w*|shrink\w*|enlarg\w+|zoom\w*|larger|bigger|smaller",
        "scal|grow|shrink|width|height|zoom|stretch|size|radius|camera|frame|font|length|buff",
    ),
    "fading": (r"fad(?:e|es|ing|ed)|dissolv\w+", "fade|opacity|uncreate|remove"),
    "change of form": (
        r"transform\w*|morph\w*|becom\w+|replac\w+|swap\w*",
        "transform|become|morph|replac|swap|apply|matching|cyclic|restore|animate|target|homotopy",
    ),
    "highlight": (
        r"highlight\w*|indicat\w+|flash\w*|emphasi\w+|surround\w*|boxed",
        "indicat|flash|surround|circumscrib|background|focus|wiggle|highlight|color|rect|box|frame|set_|underline"
        "|brace|cross",
    ),
    "trace": (
        r"trac(?:e|es|ing|ed)|trail|path",
        "trac|path|trail|bound|curve|arc|line|updater|along|plot|motion|edge",
    ),
    "counter": (
        r"count(?:s|er|ing|down)?|valuetracker|increas\w+|decimal|digits?",
        "tracker|integer|decimal|number|count|range|variable|updater|text",
    ),
    "gradient": (r"gradient", "gradient|color|sheen"),
    "dashes": (r"dash\w*|dotted", "dash|dot|stroke|num_"),
    "overlap": (
        r"intersect\w*|union|overlap\w*|venn|exclusion",
        "inters|union|differ|exclu|boolean|opacity|circ|cutout|venn|z_index|overlap|poly|square",
    ),
    # Many parts of Manim are red, pink, purple or orange without being told.
    "red": (r"red(?:dish)?", "red|#f|fc6255|maroon|pure_|gradient|color"),
    "pink": (r"pink(?:ish)?", "pink|#|magenta|light|red|color_"),
    "purple": (r"purple|violet", "purple|violet|#|magenta"),
    "orange": (r"orange", "orange|#|gold"),
    **{name: (rf"{name}(?:ish)?", f"{name}|#[0-9a-f]|rgb|color_map|random|gradient") for name in _COLOURS.split()},
}


# The square root of a number and a line of text are nothing to be drawn; two words may name one thing.
_NOT_MEANT = re.compile(
    r"\b(?:squares? (?:root|bracket|matri|unit|number|wave|of|shape|formation|layout|pattern|arrange)"
    r"|lines? of\b|points? (?:to|out|at|in|up|down|left|right)\b)"
)
_JOINED = re.compile(r"\b(number|bar|vector|stream|value) (?=(?:line|chart|field|tracker)s?\b)")
_WORD = re.compile(r"\w+")


def named(description: str) -> list[str]:
    """The things that a description names."""
    text = description.lower()
    if "square" in text or "line" in text or "point" in text:
        text = _NOT_MEANT.sub(" ", text)
    if "chart" in text or "field" in text or "line" in text or "tracker" in text:
        text = _JOINED.sub(r"\1", text)
    found = set().union(*map(_named_by, _WORD.findall(text)))
    return [name for name in _THINGS if name in found]


@lru_cache(100_000)
def _named_by(word: str) -> frozenset[str]:
    return frozenset(name for name, words in _words().items() if words.fullmatch(word))


@cache
def _words() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(words) for name, (words, _) in _THINGS.items()}


def shows(name: str, code: str) -> bool:
    """Whether a program in small letters shows a thing."""
    words, others = shown()[name]
    return any(word in code for word in words) or (others is not None and others.search(code) is not None)


@cache
def shown() -> dict[str, tuple[list[str], re.Pattern[str] | None]]:
    """The words that are looked for as they are, at a tenth of the cost of a pattern, and the pattern of the others."""
    found = {}
    for name, (_, parts) in _THINGS.items():
        words = [part for part in parts.split("|") if re.escape(part) == part]
        others = "|".join(part for part in parts.split("|") if re.escape(part) != part)
        found[name] = words, re.compile(others) if others else None
    return found
