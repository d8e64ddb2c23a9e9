"""Turns calls into words: where something goes, what `.animate` does with it."""

import math
from collections.abc import Callable
from typing import Any

from stages.prepare_data_with_llm.values import Thing, Vector, color_words, is_number, vector
from stages.prepare_data_with_llm.words import amount, number, split_name

Arguments = list[Any]
Options = dict[str, Any]


def heading(direction: Vector | None) -> str:
    """Which way a vector points: "up", "to the right", "to the upper left"."""
    if not direction:
        return ""
    x, y, z = direction
    size = max(abs(x), abs(y), abs(z))
    if size == 0:
        return ""
    if abs(z) == size:
        return "towards the viewer" if z > 0 else "away from the viewer"
    vertical = "" if abs(y) < size / 3 else ("up" if y > 0 else "down")
    horizontal = "" if abs(x) < size / 3 else ("right" if x > 0 else "left")
    if vertical and horizontal:
        return f"to the {'upper' if vertical == 'up' else 'lower'} {horizontal}"
    return vertical or f"to the {horizontal}"


def region(point: Vector | None) -> str:
    """Where a point of the screen lies: "in the center", "on the left"."""
    if not point:
        return ""
    way = heading(point)
    return {"": "in the center", "up": "in the upper half", "down": "in the lower half"}.get(
        way, way.replace("to the", "on the")
    )


def edge(direction: Vector | None) -> str:
    way = heading(direction)
    if not way or "viewer" in way:
        return "edge"
    if "upper" in way or "lower" in way:
        return way.removeprefix("to the ") + " corner"
    return {"up": "top", "down": "bottom"}.get(way, way.removeprefix("to the ")) + " edge"


def beside(direction: Vector | None) -> str:
    """The preposition of next_to: below, above, to the right of."""
    way = heading(direction)
    return {"": "next to", "up": "above", "down": "below"}.get(way, "next to" if "viewer" in way else f"{way} of")


def first(arguments: Arguments, options: Options, name: str, default: Any = None) -> Any:
    return arguments[0] if arguments else options.get(name, default)


def shift(arguments: Arguments, options: Options) -> str:
    total = vector(first(arguments, options, "vector"))
    way = heading(total)
    if not total or not way:
        return "move {x}"
    distance = math.hypot(*total)
    whole = round(distance)
    if abs(distance - whole) < 0.01 and 1 < whole <= 12 and "upper" not in way and "lower" not in way:
        return f"move {{x}} {number(whole)} units {way}"
    return f"move {{x}} {way}"


def move_to(arguments: Arguments, options: Options) -> str:
    goal = first(arguments, options, "point_or_mobject")
    if isinstance(goal, Thing):
        return "move {x} to {y}"
    point = vector(goal)
    if not point:
        return "move {x} to a new position"
    return "move {x} to the center" if not any(point) else f"move {{x}} {heading(point)}"


def next_to(arguments: Arguments, options: Options) -> str:
    way = arguments[1] if len(arguments) > 1 else options.get("direction", (1.0, 0.0, 0.0))
    return f"move {{x}} {beside(vector(way))} {{y}}"


def color(arguments: Arguments, options: Options) -> str:
    words = color_words(first(arguments, options, "color"))
    if not words and is_number(options.get("opacity")):
        return opacity([options["opacity"]], {})
    return f"turn {{x}} {words}" if words else "change the color of {x}"


def opacity(arguments: Arguments, options: Options) -> str:
    value = first(arguments, options, "opacity")
    if not is_number(value):
        return "change the opacity of {x}"
    if value <= 0:
        return "make {x} invisible"
    return "make {x} fully opaque" if value >= 1 else f"set the opacity of {{x}} to {amount(100 * value)}%"


SIZES = {
    2: "to twice its size",
    3: "to three times its size",
    0.5: "to half its size",
    0.25: "to a quarter of its size",
}


def scale(arguments: Arguments, options: Options) -> str:
    factor = first(arguments, options, "scale_factor")
    if not is_number(factor):
        return "scale {x}"
    verb = "enlarge" if factor > 1 else "shrink"
    return f"{verb} {{x}} {SIZES.get(factor, f'by a factor of {amount(factor)}')}"


def rotate(arguments: Arguments, options: Options) -> str:
    angle = first(arguments, options, "angle")
    if not is_number(angle) or abs(angle) > 1e4:
        return "rotate {x}"
    degrees = round(math.degrees(angle), 1)
    turned = f"{amount(abs(degrees))} degrees"
    return f"rotate {{x}} by {turned} clockwise" if degrees < 0 else f"rotate {{x}} by {turned}"


def arrange(arguments: Arguments, options: Options) -> str:
    way = vector(first(arguments, options, "direction", (1.0, 0.0, 0.0)))
    return "arrange {x} in a column" if way and abs(way[1]) > abs(way[0]) else "arrange {x} in a row"


def set_value(arguments: Arguments, options: Options) -> str:
    value = first(arguments, options, "value")
    return f"change {{x}} to {amount(value)}" if is_number(value) else "change {x}"


def set_options(arguments: Arguments, options: Options) -> str:
    names = [split_name(name) for name in options]
    return f"change the {' and '.join(names)} of {{x}}" if names else "change {x}"


METHODS: dict[str, Callable[[Arguments, Options], str]] = {
    "shift": shift,
    "move_to": move_to,
    "next_to": next_to,
    "to_edge": lambda a, o: f"move {{x}} to the {edge(vector(first(a, o, 'edge', (-1.0, 0.0, 0.0))))}",
    "to_corner": lambda a, o: f"move {{x}} to the {edge(vector(first(a, o, 'corner', (-1.0, -1.0, 0.0))))}",
    "set_color": color,
    "set_fill": color,
    "set_stroke": color,
    "set_opacity": opacity,
    "set_fill_opacity": opacity,
    "scale": scale,
    "rotate": rotate,
    "arrange": arrange,
    "set_value": set_value,
    "set": set_options,
    "set_number": set_value,
    "increment_value": lambda a, o: "increase {x}",
    "arrange_in_grid": lambda a, o: "arrange {x} in a grid",
    "become": lambda a, o: "turn {x} into {y}",
    "flip": lambda a, o: "flip {x}",
    "stretch": lambda a, o: "stretch {x}",
    "center": lambda a, o: "move {x} to the center",
    "fade": lambda a, o: "fade {x}",
    "restore": lambda a, o: "return {x} to its saved state",
    "apply_matrix": lambda a, o: "apply a matrix to {x}",
    "apply_function": lambda a, o: "warp {x} by a function",
    "apply_complex_function": lambda a, o: "warp {x} by a complex function",
    "align_to": lambda a, o: "align {x} with {y}",
    "match_color": lambda a, o: "give {x} the color of {y}",
    "scale_to_fit_width": lambda a, o: "resize {x}",
    "scale_to_fit_height": lambda a, o: "resize {x}",
    "match_width": lambda a, o: "resize {x}",
    "match_height": lambda a, o: "resize {x}",
    "set_width": lambda a, o: "resize {x}",
    "set_height": lambda a, o: "resize {x}",
    "set_x": lambda a, o: "move {x} sideways",
    "set_y": lambda a, o: "move {x} up or down",
    "set_z": lambda a, o: "move {x} in depth",
    "put_start_and_end_on": lambda a, o: "move the ends of {x}",
    "rotate_about_origin": rotate,
    "set_color_by_gradient": lambda a, o: "give {x} a color gradient",
    "set_color_by_tex": lambda a, o: "color a term of {x}",
    "set_stroke_width": lambda a, o: "change the line width of {x}",
    "create": lambda a, o: "draw {x}",
    "end_animation": lambda a, o: "let {x} come to an end",
    "expand": lambda a, o: "expand {x}",
    "move_camera": lambda a, o: "move the camera",
    "change_layout": lambda a, o: "change the layout of {x}",
    "add_vertices": lambda a, o: "add vertices to {x}",
    "remove_vertices": lambda a, o: "remove vertices from {x}",
    "add_edges": lambda a, o: "add edges to {x}",
    "remove_edges": lambda a, o: "remove edges from {x}",
    "swap_rows": lambda a, o: "swap rows of {x}",
    "shuffle": lambda a, o: "shuffle {x}",
}


def method_phrase(name: str, arguments: Arguments, options: Options) -> str:
    """What a method does with {x}; an unknown name is taken at its word."""
    if name in METHODS:
        phrase = METHODS[name](arguments, options)
    elif name.startswith("set_"):
        phrase = f"change the {split_name(name[4:])} of {{x}}"
    else:
        phrase = f"apply {split_name(name)} to {{x}}"
    target = next((item for item in arguments if isinstance(item, Thing)), None)
    return phrase if target else phrase.replace("{y}", "its new position")


def camera_phrase(name: str, arguments: Arguments, options: Options) -> str:
    """The same methods on the frame of the camera mean something else to a viewer."""
    if name in ("scale", "set", "set_width", "set_height", "scale_to_fit_width", "scale_to_fit_height", "auto_zoom"):
        factor = first(arguments, options, "scale_factor")
        if name == "scale" and is_number(factor):
            return "zoom the camera in" if factor < 1 else "zoom the camera out"
        return "zoom the camera"
    if name == "restore":
        return "return the camera to its starting view"
    return method_phrase(name, arguments, options)


def placement(name: str, arguments: Arguments, options: Options) -> tuple[str, Thing | None]:
    """Where a plain call (not animated) puts a thing: words and, where there is one, the thing it refers to."""
    if name == "to_edge":
        return f"at the {edge(vector(first(arguments, options, 'edge', (-1.0, 0.0, 0.0))))}", None
    if name == "to_corner":
        return f"in the {edge(vector(first(arguments, options, 'corner', (-1.0, -1.0, 0.0))))}", None
    if name == "next_to" and arguments and isinstance(arguments[0], Thing):
        way = arguments[1] if len(arguments) > 1 else options.get("direction", (1.0, 0.0, 0.0))
        return beside(vector(way)), arguments[0]
    if name in ("shift", "move_to"):
        return region(vector(first(arguments, options, "vector"))), None
    return "", None
