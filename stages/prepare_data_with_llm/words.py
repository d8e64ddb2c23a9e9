"""The vocabulary of Manim in plain English: what its classes are called and what its animations do.

Used by offline.py, which writes descriptions without a language model.
"""

import re

# Only names whose plain words differ from the name itself; "RoundedRectangle" needs no entry.
# A second word after the bar is what the thing is called once it is known ("the axes").
NOUNS = {
    "AnnotationDot": "annotated dot",
    "AnnularSector": "ring sector",
    "Annulus": "ring",
    "Angle": "angle mark",
    "ArcBetweenPoints": "arc",
    "ArcBrace": "curved brace",
    "ArcPolygon": "polygon of arcs",
    "Arrow3D": "3D arrow",
    "ArrowVectorField": "field of arrows|vector field",
    "Axes": "set of coordinate axes|axes",
    "BackgroundRectangle": "background rectangle",
    "BraceBetweenPoints": "brace",
    "BraceLabel": "brace with a label|brace",
    "BraceText": "brace with a label|brace",
    "Code": "code listing",
    "ConvexHull3D": "3D convex hull",
    "CubicBezier": "Bezier curve|curve",
    "CurvedDoubleArrow": "curved double arrow",
    "Cutout": "shape with holes|shape",
    "DecimalMatrix": "matrix",
    "DecimalNumber": "number",
    "DecimalTable": "table of decimal numbers|table",
    "DiGraph": "directed graph",
    "Difference": "difference of two shapes|difference",
    "Dot3D": "3D dot",
    "DotCloud": "cloud of dots|dot cloud",
    "DoubleArrow": "double-headed arrow",
    "Exclusion": "exclusion of two shapes|exclusion",
    "FullScreenRectangle": "full-screen rectangle",
    "FunctionGraph": "function graph|curve",
    "GenericGraph": "graph",
    "Graph": "graph",
    "ImageMobject": "image",
    "ImplicitFunction": "implicit curve|curve",
    "Integer": "number",
    "IntegerMatrix": "matrix",
    "IntegerTable": "table of integers|table",
    "Intersection": "intersection of two shapes|intersection",
    "LabeledArrow": "labeled arrow",
    "Line3D": "3D line",
    "ManimBanner": "Manim banner|banner",
    "MarkupText": "text",
    "MathTable": "table of formulas|table",
    "MathTex": "formula",
    "MathTypst": "formula",
    "MobjectMatrix": "matrix of shapes|matrix",
    "MobjectTable": "table of shapes|table",
    "NumberPlane": "coordinate grid|grid",
    "ParametricFunction": "parametric curve|curve",
    "PolarPlane": "polar grid|grid",
    "Polygon": "polygon",
    "RightAngle": "right-angle mark",
    "SVGMobject": "SVG picture|picture",
    "ScreenRectangle": "screen-shaped rectangle|rectangle",
    "SingleStringMathTex": "formula",
    "StealthTip": "arrow tip",
    "StreamLines": "set of stream lines|stream lines",
    "SurroundingRectangle": "frame",
    "TangentLine": "tangent line",
    "TangentialArc": "tangential arc|arc",
    "Tex": "text",
    "TexMobject": "formula",
    "TextMobject": "text",
    "ThreeDAxes": "set of 3D axes|axes",
    "TracedPath": "traced path|path",
    "Typst": "text",
    "Union": "union of two shapes|union",
    "UnitInterval": "unit interval",
    "VMobject": "custom shape|shape",
    "Mobject": "object",
}

# Methods that make a new thing out of another one; {f} is the formula of the function that is plotted.
MADE_BY = {
    "get_area": "shaded area|area",
    "get_axis_labels": "pair of axis labels|axis labels",
    "get_graph": "curve",
    "get_graph_label": "curve label|label",
    "get_horizontal_line": "horizontal guide line|guide line",
    "get_line_from_axis_to_point": "guide line",
    "get_lines_to_point": "pair of guide lines|guide lines",
    "get_riemann_rectangles": "set of Riemann rectangles|rectangles",
    "get_secant_slope_group": "secant line with its slope|secant line",
    "get_T_label": "marker label|label",
    "get_vertical_line": "vertical guide line|guide line",
    "get_vertical_lines_to_graph": "set of vertical lines|vertical lines",
    "get_x_axis_label": "label of the x-axis|label",
    "get_y_axis_label": "label of the y-axis|label",
    "get_z_axis_label": "label of the z-axis|label",
    "get_text": "label",
    "get_tex": "label",
    "plot": "curve",
    "plot_antiderivative_graph": "antiderivative curve|curve",
    "plot_derivative_graph": "derivative curve|curve",
    "plot_implicit_curve": "implicit curve|curve",
    "plot_line_graph": "line graph",
    "plot_parametric_curve": "parametric curve|curve",
    "plot_polar_graph": "polar curve|curve",
    "plot_surface": "surface",
}

POLYGONS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon", 9: "nonagon"}

TEXT_CLASSES = frozenset({"Text", "MarkupText", "Paragraph", "Title", "Tex", "TextMobject", "Typst", "BulletedList"})
FORMULA_CLASSES = frozenset({"MathTex", "SingleStringMathTex", "TexMobject", "MathTypst"})
GROUP_CLASSES = frozenset({"VGroup", "Group", "VDict", "PGroup", "OpenGLVGroup", "OpenGLGroup"})
# Classes with a capital letter that are nothing to look at.
INVISIBLE = frozenset(
    {"Path", "Counter", "OrderedDict", "Fraction", "Decimal", "TexTemplate", "ManimColor", "Exception", "ValueError"}
)
# Things that steer others and are never seen themselves.
UNSEEN_CLASSES = frozenset({"ValueTracker", "ComplexValueTracker", "Point", "VectorizedPoint"})
# Wrappers around one thing; the words are put before or after its name.
WRAPPERS = {
    "DashedVMobject": "dashed {}",
    "CurvesAsSubmobjects": "{}",
    "AnimatedBoundary": "animated boundary",
}
# Things that are made for another thing, with the word between the two.
AROUND = {
    "SurroundingRectangle": "around",
    "BackgroundRectangle": "behind",
    "Brace": "along",
    "BraceLabel": "along",
    "BraceText": "along",
    "ArcBrace": "along",
    "Underline": "under",
    "Cross": "over",
    "TracedPath": "of",
    "AnimatedBoundary": "around",
    "TangentLine": "to",
    "ConvexHull": "around",
}

# What an animation does: {x} is its subject, {y} what it becomes or goes to.
ANIMATIONS = {
    "Add": "show {x}",
    "AddTextLetterByLetter": "write {x} letter by letter",
    "AddTextWordByWord": "write {x} word by word",
    "ApplyComplexFunction": "warp {x} by a complex function",
    "ApplyFunction": "transform {x} by a function",
    "ApplyMatrix": "apply a matrix to {x}",
    "ApplyPointwiseFunction": "warp {x} point by point",
    "ApplyPointwiseFunctionToCenter": "move {x} by a function",
    "ApplyWave": "send a wave through {x}",
    "Blink": "make {x} blink",
    "Broadcast": "send out copies of {x} like waves",
    "ChangeDecimalToValue": "count {x} to a new value",
    "ChangingDecimal": "let {x} change its value",
    "Circumscribe": "draw a temporary outline around {x}",
    "ClockwiseTransform": "transform {x} clockwise into {y}",
    "ComplexHomotopy": "deform {x} smoothly",
    "CounterclockwiseTransform": "transform {x} counterclockwise into {y}",
    "Create": "draw {x}",
    "CyclicReplace": "let {x} change places in a cycle",
    "DrawBorderThenFill": "outline and fill {x}",
    "FadeIn": "fade in {x}",
    "FadeInFrom": "fade in {x}",
    "FadeInFromDown": "fade in {x} from below",
    "FadeOut": "fade out {x}",
    "FadeOutAndShift": "fade out {x}",
    "FadeToColor": "change the color of {x}",
    "FadeTransform": "fade {x} into {y}",
    "FadeTransformPieces": "fade the pieces of {x} into {y}",
    "Flash": "flash around {x}",
    "FocusOn": "focus on {x}",
    "GrowArrow": "grow {x} from its start",
    "GrowFromCenter": "grow {x} from its center",
    "GrowFromEdge": "grow {x} from its edge",
    "GrowFromPoint": "grow {x} from a point",
    "Homotopy": "deform {x} smoothly",
    "Indicate": "highlight {x}",
    "MaintainPositionRelativeTo": "keep {x} in place relative to {y}",
    "MoveAlongPath": "move {x} along {y}",
    "MoveToTarget": "bring {x} to its new state",
    "PhaseFlow": "let {x} flow along a vector field",
    "RemoveTextLetterByLetter": "remove {x} letter by letter",
    "ReplacementTransform": "transform {x} into {y}",
    "Restore": "return {x} to its saved state",
    "Rotate": "rotate {x}",
    "Rotating": "rotate {x}",
    "ScaleInPlace": "scale {x}",
    "ShowCreation": "draw {x}",
    "ShowIncreasingSubsets": "reveal the parts of {x} one by one",
    "ShowPassingFlash": "run a flash of light along {x}",
    "ShowPassingFlashWithThinningStrokeWidth": "run a thinning flash along {x}",
    "ShowSubmobjectsOneByOne": "show the parts of {x} one at a time",
    "ShrinkToCenter": "shrink {x} to its center",
    "SmoothedVectorizedHomotopy": "deform {x} smoothly",
    "SpinInFromNothing": "spin {x} in from nothing",
    "SpiralIn": "let {x} fly in on spirals",
    "Swap": "let {x} swap places",
    "Transform": "transform {x} into {y}",
    "TransformFromCopy": "transform a copy of {x} into {y}",
    "TransformMatchingShapes": "transform {x} into {y} by matching shapes",
    "TransformMatchingTex": "transform {x} into {y} by matching terms",
    "TypeWithCursor": "type {x} with a cursor",
    "Uncreate": "erase {x}",
    "UntypeWithCursor": "delete {x} with a cursor",
    "Unwrite": "unwrite {x}",
    "UpdateFromAlphaFunc": "update {x} continuously",
    "UpdateFromFunc": "update {x} continuously",
    "Wiggle": "wiggle {x}",
    "Write": "write {x}",
}
# Animations that only hold others, with the words for how these follow each other.
COMPOSITIONS = {
    "AnimationGroup": "",
    "LaggedStart": "with a slight delay between them",
    "LaggedStartMap": "with a slight delay between them",
    "Succession": "one after another",
    "ChangeSpeed": "at changing speed",
}

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
IRREGULAR = {
    "text": "text labels",
    "axis": "axes",
    "axes": "axes",
    "matrix": "matrices",
    "vertex": "vertices",
    "box": "boxes",
    "series": "series",
    "radius": "radii",
    "lines": "lines",
    "rectangles": "rectangles",
    "labels": "labels",
}
VOWEL_SOUND = re.compile(r"(?i)[aeio]|u(?!ni|se|til)|SVG\b|hour|honest|8|11\b|18\b")


def split_name(name: str) -> str:
    """'RoundedRectangle2D' or 'rounded_rectangle' as lower-case words."""
    name = name.replace("LaTeX", "Latex").replace("TeX", "Tex")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).replace("_", " ")
    words = spaced.split()
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def noun_of(class_name: str) -> tuple[str, str]:
    """What a thing of this class is called at first, and afterwards."""
    class_name = class_name.removeprefix("OpenGL")
    noun, _, short = NOUNS.get(class_name, split_name(class_name)).partition("|")
    return noun, short or noun


def article(phrase: str) -> str:
    return f"{'an' if VOWEL_SOUND.match(phrase) else 'a'} {phrase}"


def plural(phrase: str) -> str:
    """The plural of a noun phrase; its head stands before the first preposition."""
    head, preposition, rest = phrase, "", ""
    if found := re.search(r" (of|with|from) ", phrase):
        head, preposition, rest = phrase[: found.start()], found[0], phrase[found.end() :]
    before, _, last = head.rpartition(" ")
    return f"{before} {plural_word(last)}".strip() + preposition + rest


def plural_word(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(s|x|ch|sh)$", word) else "s")


def counted(phrase: str, count: int) -> str:
    """'a dot', 'three dots', or 'several dots' where the number is not known (0)."""
    if count == 1:
        return article(phrase)
    return f"{number(count) if count else 'several'} {plural(phrase)}"


def number(count: int) -> str:
    return NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)


def join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def amount(value: float) -> str:
    """A number as people write it: 2, 1.5, 0.25."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:.3g}"
