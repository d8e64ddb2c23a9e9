"""Makes a thing in words out of a call like `Circle(radius=2, color=BLUE)`."""

import ast
import re
from typing import Any

from stages.prepare_data_with_llm.values import Thing, color_words, flatten, is_number, things_in
from stages.prepare_data_with_llm.words import (
    AROUND,
    FORMULA_CLASSES,
    GROUP_CLASSES,
    MADE_BY,
    POLYGONS,
    TEXT_CLASSES,
    UNSEEN_CLASSES,
    WRAPPERS,
    amount,
    noun_of,
    plural,
    split_name,
)

Arguments = list[Any]
Options = dict[str, Any]
NUMBER_CLASSES = frozenset({"DecimalNumber", "Integer"})
MATRIX_CLASSES = frozenset({"Matrix", "IntegerMatrix", "DecimalMatrix"})
TABLE_CLASSES = frozenset({"Table", "MathTable", "IntegerTable", "DecimalTable", "MobjectTable"})
GRAPH_CLASSES = frozenset({"Graph", "DiGraph", "GenericGraph"})


def make_thing(class_name: str, arguments: Arguments, options: Options) -> Thing:
    """A call of a class, in words."""
    members = things_in(arguments)
    if class_name in GROUP_CLASSES:
        return Thing("group", "group", members=members)
    noun, short = noun_of(class_name)
    thing = Thing(noun, short, seen=class_name not in UNSEEN_CLASSES)
    if class_name in WRAPPERS and members:
        inner = members[0]
        noun = WRAPPERS[class_name].format(inner.noun)
        thing = Thing(noun, noun, inner.label, inner.formula, inner.detail, inner.color)
    if class_name in AROUND and members:
        thing.relation = (AROUND[class_name], members[0])
    label(thing, class_name, arguments, options)
    thing.color = (
        color_words(options.get("color", options.get("fill_color", options.get("stroke_color")))) or thing.color
    )
    filled = options.get("fill_opacity")
    thing.filled = is_number(filled) and filled >= 0.5 and not thing.label
    thing.detail = thing.detail or detail(class_name, arguments, options)
    if class_name in ("RegularPolygon", "RegularPolygram"):
        name_polygon(thing, class_name, arguments, options)
    return thing


def label(thing: Thing, class_name: str, arguments: Arguments, options: Options) -> None:
    """Give a text, formula or number the words that it shows."""
    if class_name in NUMBER_CLASSES:
        value = arguments[0] if arguments else options.get("number")
        thing.label = amount(value) if is_number(value) else ""
    elif class_name in TEXT_CLASSES | FORMULA_CLASSES:
        texts = [item for item in flatten([*arguments, *options.values()][: len(arguments) or 1]) if type(item) is str]
        thing.label = " ".join(" ".join(texts).split())
        if class_name == "MarkupText":
            thing.label = re.sub(r"<[^<>]*>", "", thing.label)
        if class_name == "Tex":
            untex(thing)
        thing.formula = thing.formula or class_name in FORMULA_CLASSES


def untex(thing: Thing) -> None:
    """Tex() holds words as often as formulas; words lose their markup, a formula its dollar signs."""
    if re.fullmatch(r"\$[^$]*\$", thing.label):
        thing.noun = thing.short = "formula"
        thing.label, thing.formula = thing.label.strip("$ "), True
    else:
        plain = re.sub(r"\\(?:text\w*|emph|underline)\{([^{}]*)\}", r"\1", thing.label)
        thing.label = plain.replace("\\\\", " ").replace("\\LaTeX", "LaTeX").replace("\\TeX", "TeX")


def name_polygon(thing: Thing, class_name: str, arguments: Arguments, options: Options) -> None:
    corners = arguments[0] if arguments else options.get("n", 6 if class_name == "RegularPolygon" else None)
    if isinstance(corners, int) and class_name == "RegularPolygon":
        thing.noun = thing.short = POLYGONS.get(corners, f"regular polygon with {corners} sides")
    elif isinstance(corners, int):
        thing.noun, thing.short = f"star polygon with {corners} points", "star polygon"


def detail(class_name: str, arguments: Arguments, options: Options) -> str:
    """What else is worth saying: sizes, entries, the formula of a curve."""
    if class_name in MATRIX_CLASSES:
        return entries("entries", arguments)
    if class_name == "BarChart":
        return entries("values", arguments or [options.get("values")])
    if class_name in TABLE_CLASSES:
        return table_size(arguments[0] if arguments else options.get("table"))
    if class_name.startswith("Labeled"):
        text = next((item for item in [*arguments, options.get("label")] if type(item) is str), "")
        return f'with the label "{text}"' if 0 < len(text) <= 30 else ""
    if class_name in GRAPH_CLASSES:
        vertices = arguments[0] if arguments else options.get("vertices")
        layout = options.get("layout")
        words = f"with {len(vertices)} vertices" if isinstance(vertices, list) else ""
        return f"{words} in a {split_name(layout)} layout".strip() if type(layout) is str else words
    return size(class_name, arguments, options)


def table_size(rows: Any) -> str:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        return ""
    return entries("entries", [rows]) or f"with {len(rows)} rows and {len(rows[0])} columns"


def entries(noun: str, arguments: Arguments) -> str:
    items = flatten(arguments[0]) if arguments and isinstance(arguments[0], list) else []
    words = [amount(item) if is_number(item) else item for item in items]
    if not 0 < len(words) <= 6 or not all(type(word) is str and len(word) <= 12 for word in words):
        return ""
    return f"with the {noun} {', '.join(words)}"


def size(class_name: str, arguments: Arguments, options: Options) -> str:
    if is_number(options.get("radius")) and class_name in ("Circle", "Sphere"):
        return f"of radius {amount(options['radius'])}"
    side = arguments[0] if class_name == "Square" and arguments else options.get("side_length")
    if is_number(side):
        return f"with side length {amount(side)}"
    width, height = options.get("width"), options.get("height")
    if is_number(width) and is_number(height) and class_name in ("Rectangle", "RoundedRectangle", "Ellipse"):
        return f"{amount(width)} wide and {amount(height)} high"
    return ""


def make_part(method: str, owner: Thing, arguments: Arguments, options: Options, formula: str) -> Thing:
    """What `axes.plot(...)` or `brace.get_text("x")` gives."""
    noun, _, short = MADE_BY[method].partition("|")
    thing = Thing(noun, short or noun, color=color_words(options.get("color")))
    texts = [item for item in arguments if type(item) is str]
    inner = next((item for item in arguments if isinstance(item, Thing)), None)
    if "label" in noun and texts:
        thing.label, thing.formula = " ".join(texts), method != "get_text"
    elif "label" in noun and inner and inner.label:
        thing.label, thing.formula = inner.label, inner.formula
    elif formula:
        thing.detail = formula
    elif inner and method != "get_graph_label":
        thing.relation = ("under" if method in ("get_area", "get_riemann_rectangles") else "for", inner)
    return thing


def curve_formula(function: ast.expr | None, parametric: bool) -> str:
    """`lambda x: x**2` as "of y = x^2", if it is short enough to say."""
    if not isinstance(function, ast.Lambda) or parametric:
        return ""
    names = [argument.arg for argument in function.args.args]
    text = (
        re.sub(r"\b(?:np|math|numpy|mn|manim)\.", "", ast.unparse(function.body))
        .replace(" ** ", "^")
        .replace("**", "^")
    )
    if len(text) > 40 or "self" in text or "lambda" in text or "\n" in text:
        return ""
    if len(names) == 2:
        return f"of {text} = 0"
    return f"of y = {text}" if names else ""


def part_of(owner: Thing, index: Any) -> Thing:
    """`formula[2]` and the like; a member where the members are known."""
    owner = owner.owner or owner  # a part of a part is a part
    if owner.noun == "everything":
        return Thing("one of the objects", owner=owner)
    if isinstance(index, int) and owner.members and -len(owner.members) <= index < len(owner.members):
        return owner.members[index]
    if owner.members:
        kinds = {leaf.noun for leaf in owner.leaves()}
        noun = f"one of the {plural(owner.leaves()[0].short)}" if len(kinds) == 1 else "part of the group"
        return Thing(noun, noun, owner=owner)
    if owner.count != 1:
        return Thing(f"one of the {plural(owner.short)}", owner=owner)
    return Thing("part", owner=owner)
