"""What a call in a Manim program does: makes a thing, moves it, plays an animation, turns the camera."""

import ast
import re
from typing import Any

from stages.prepare_data_with_llm import stagecraft
from stages.prepare_data_with_llm.phrases import METHODS, camera_phrase, method_phrase, placement
from stages.prepare_data_with_llm.reading import Reading
from stages.prepare_data_with_llm.things import curve_formula, make_part, make_thing
from stages.prepare_data_with_llm.values import (
    Act,
    Bound,
    Function,
    Motion,
    Thing,
    color_words,
    flatten,
    is_number,
    things_in,
)
from stages.prepare_data_with_llm.words import ANIMATIONS, COMPOSITIONS, INVISIBLE, MADE_BY, amount, split_name

# Calls that stand for their first argument.
TRANSPARENT = frozenset({"array", "list", "tuple", "reversed", "sorted", "set", "iter"})
ALWAYS = frozenset({"always_redraw", "always_rotate", "always_shift", "turn_animation_into_updater"})
ROLE_OF_OWNER = frozenset(
    {"copy", "get_part_by_tex", "get_parts_by_tex", "get_part_by_text", "get_entries", "get_rows", "get_columns"}
)
MAX_RANGE = 200


def call(reader: Reading, node: ast.Call) -> Any:
    """The value of a call, after everything that it does has been noted."""
    if isinstance(node.func, ast.Attribute) and is_self(node.func.value):
        return call_self(reader, node.func.attr, node)
    arguments, options = evaluated(reader, node)
    if isinstance(node.func, ast.Name):
        return call_name(reader, node.func.id, arguments, options, node)
    function = reader.value(node.func)
    if isinstance(function, Bound):
        return call_method(reader, function, arguments, options, node)
    if isinstance(function, Function):
        return reader.enter(function, arguments, options)
    if isinstance(function, Motion):  # circle.animate(run_time=2)
        function.seconds = seconds(options)
        return function
    if isinstance(node.func, ast.Attribute):  # manim.Circle(), np.array(), Angle.from_three_points()
        owner = node.func.value
        made = isinstance(owner, ast.Name) and owner.id[:1].isupper() and owner.id not in reader.scope
        name = owner.id if isinstance(owner, ast.Name) and made else node.func.attr
        return call_name(reader, name, arguments, options, node)
    return None


def is_self(node: ast.expr) -> bool:
    """`self.x` and `super().x` are both about the scene."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id == "self"


def evaluated(reader: Reading, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
    arguments: list[Any] = []
    for argument in node.args:
        value = reader.value(argument)
        if isinstance(argument, ast.Starred):
            arguments += value if isinstance(value, list) else spread(reader, value)
        else:
            arguments.append(value)
    return arguments, {keyword.arg: reader.value(keyword.value) for keyword in node.keywords if keyword.arg}


def spread(reader: Reading, value: Any) -> list[Any]:
    """The elements of `*value`."""
    if isinstance(value, Thing):
        return [value] if value is reader.everything else (list(value.members) or [value])
    return [] if value is None else [value]


def call_self(reader: Reading, name: str, node: ast.Call) -> Any:
    if name in reader.methods:
        return reader.enter(Function(reader.methods[name], {**reader.globals}), *evaluated(reader, node))
    arguments, options = evaluated(reader, node)
    if name in ("play", "add") or name in stagecraft.ACTIONS:
        return stagecraft.perform(reader, name, arguments, options)
    if isinstance(reader.fields.get(name), Function):
        return reader.enter(reader.fields[name], arguments, options)
    # A helper that is not in this file: its name is the only thing known about what it gives.
    return Thing(split_name(re.sub("^(get|create|make)_", "", name))) if "_" in name else None


def call_name(reader: Reading, name: str, arguments: list[Any], options: dict[str, Any], node: ast.Call) -> Any:
    if isinstance(reader.scope.get(name), Function):
        return reader.enter(reader.scope[name], arguments, options)
    if isinstance(reader.scope.get(name), Bound):
        return call_method(reader, reader.scope[name], arguments, options, node)
    if name in ANIMATIONS or name in COMPOSITIONS or name == "ApplyMethod" or name == "Wait":
        return animation(reader, name, arguments, options)
    if name in reader.animations:
        return Motion([Act(f"play the {split_name(name)} animation on {{x}}")], things_in(arguments), seconds(options))
    if name[:1].isupper() and name not in INVISIBLE:
        return noted(reader, made_by_class(reader, name, arguments, options, node))
    if name in ALWAYS and arguments:
        return stagecraft.always(reader, name, arguments)
    return builtin(name, arguments)


def made_by_class(reader: Reading, name: str, arguments: list[Any], options: dict[str, Any], node: ast.Call) -> Thing:
    thing = make_thing(name, arguments, options)
    if name in ("FunctionGraph", "ImplicitFunction") and not thing.detail:
        thing.detail = curve_formula(node.args[0] if node.args else None, False)
    return thing


def noted(reader: Reading, thing: Thing) -> Thing:
    """Remember a new thing; inside a loop it stands for as many as the loop makes."""
    if not thing.members:
        thing.count *= reader.repeat
    reader.scene.made.append(thing)
    return thing


def builtin(name: str, arguments: list[Any]) -> Any:
    """The few functions of Python that decide how many things there are."""
    head = arguments[0] if arguments else None
    if name == "range" and arguments and all(isinstance(item, int) and is_number(item) for item in arguments[:3]):
        if len(arguments) == 3 and arguments[2] == 0:
            return None
        numbers = range(*arguments[:3])
        return list(numbers) if len(numbers) <= MAX_RANGE else None
    if name in TRANSPARENT:
        return head
    if name == "str":
        return text_of(head)
    if name == "len" and isinstance(head, list):
        return len(head)
    if name == "enumerate" and isinstance(members(head), list):
        return [[index, item] for index, item in enumerate(members(head))]
    if name == "zip" and arguments and all(isinstance(members(item), list) for item in arguments):
        return [list(items) for items in zip(*(members(item) for item in arguments), strict=False)]
    return None


def members(value: Any) -> Any:
    return value.members if isinstance(value, Thing) and value.members else value


def text_of(value: Any) -> str:
    """A value inside an f-string; the unknown ones leave no trace."""
    if type(value) is str:
        return value
    return amount(value) if is_number(value) else ""


def seconds(options: dict[str, Any]) -> float | None:
    value = options.get("run_time", options.get("duration"))
    return value if is_number(value) else None


def animation(reader: Reading, name: str, arguments: list[Any], options: dict[str, Any]) -> Motion | None:
    """`Rotate(square, PI)` in words."""
    time = seconds(options)
    if name == "Wait":
        return Motion([Act("pause")], [], time)
    if name == "ApplyMethod":
        return stagecraft.old_style(reader, arguments, time)
    if name in COMPOSITIONS:
        inner = [item for item in flatten(arguments) if isinstance(item, Motion) and not item.is_pause()]
        if name == "LaggedStartMap":
            inner = [Motion([Act(class_phrase(arguments))], things_in(arguments[1:]))]
        return Motion([], [], time, inner, COMPOSITIONS[name])
    things = things_in(arguments) or list(things_in(list(options.values())))
    phrase = ANIMATIONS[name]
    if "{y}" in phrase:
        act = Act(phrase, things[1]) if len(things) > 1 else Act(phrase.split(" {x}")[0] + " {x}")
        return Motion([act], things[:1], time)
    if name == "MoveToTarget" and things and things[0].target and things[0].target.acts:
        return Motion(things[0].target.acts, things[:1], time)
    if name in ("Rotate", "Rotating", "ScaleInPlace"):
        phrase = method_phrase("scale" if name == "ScaleInPlace" else "rotate", arguments[1:], options)
    if name == "FadeToColor" and len(arguments) > 1:
        phrase = method_phrase("set_color", arguments[1:], options)
    return Motion([Act(phrase)], things, time)


def class_phrase(arguments: list[Any]) -> str:
    return ANIMATIONS.get(arguments[0] or "", "animate {x}") if arguments else "animate {x}"


def call_method(reader: Reading, bound: Bound, arguments: list[Any], options: dict[str, Any], node: ast.Call) -> Any:
    """A method of a thing, called plainly or after `.animate`."""
    thing, name = bound.owner, bound.name
    target = next(iter(things_in(arguments)), None)
    if bound.motion:
        words = camera_phrase if thing is reader.camera else method_phrase
        bound.motion.acts.append(Act(words(name, arguments, options), target))
        bound.motion.seconds = bound.motion.seconds or seconds(options)
        return bound.motion
    if name in MADE_BY:
        parametric = name in ("plot_parametric_curve", "plot_surface", "plot_polar_graph", "get_area")
        formula = curve_formula(node.args[0] if node.args else None, parametric)
        return noted(reader, make_part(name, thing, arguments, options, formula))
    if name == "generate_target":
        thing.target = thing.copy()
        return thing.target
    if name in ROLE_OF_OWNER:
        return thing.copy() if name == "copy" else Thing("part", owner=thing)
    if name.startswith("get_") or name in ("c2p", "n2p", "coords_to_point", "point_from_proportion", "i2gp", "pfp"):
        return None
    if name == "add_updater":
        return stagecraft.updater(reader, thing, arguments)
    if thing in reader.scene.shown and reader.scene.plays and name in METHODS:
        stagecraft.step(reader, [Motion([Act(method_phrase(name, arguments, options), target)], [thing])])
        return thing
    if thing is reader.camera:
        thing.acts.append(Act(camera_phrase(name, arguments, options), target))
        return thing
    return change(thing, name, arguments, options, target)


def change(thing: Thing, name: str, arguments: list[Any], options: dict[str, Any], target: Thing | None) -> Thing:
    """What a plain call does to the looks of a thing; it gives the thing back, as Manim does."""
    if name in ("set_color", "set_fill", "set_stroke") and arguments and name != "set_stroke":
        thing.color = color_words(arguments[0]) or thing.color
    if name == "set_color_by_gradient":
        thing.color = color_words(arguments) or thing.color
    if name == "set_fill" and is_number(options.get("opacity")):
        thing.filled = options["opacity"] >= 0.5
    if name == "add":
        thing.members += [] if not thing.members and thing.noun != "group" else things_in(arguments)
    place, beside = placement(name, arguments, options)
    if beside:
        thing.relation, thing.place = thing.relation or (place, beside), ""
    elif place and not thing.relation:
        thing.place = place
    thing.acts.append(Act(method_phrase(name, arguments, options), target))
    return thing


def attribute(reader: Reading, owner: Any, node: ast.Attribute) -> Any:
    if isinstance(owner, Thing):
        if node.attr == "animate":
            return Motion([], [owner])
        if owner is reader.camera and node.attr == "frame":
            return owner
        if node.attr == "target":
            return owner.target or owner
        return Bound(owner, node.attr)
    if isinstance(owner, Motion) and owner.subjects:
        return Bound(owner.subjects[0], node.attr, owner)
    if isinstance(owner, Bound) and node.attr == "animate":  # self.label.tip.animate
        return Motion([], [owner.owner])
    if isinstance(owner, Bound):
        return Bound(owner.owner, node.attr, owner.motion)
    return None


def field_of_self(reader: Reading, name: str) -> Any:
    if name in reader.fields:
        return reader.fields[name]
    if name == "mobjects":
        return reader.everything
    if name in ("camera", "renderer"):
        return reader.camera
    if name in reader.methods:
        return Function(reader.methods[name], {**reader.globals})
    return None


def set_attribute(reader: Reading, owner: str, name: str, value: Any) -> None:
    """`self.camera.background_color = WHITE` and `circle.color = RED`."""
    if name == "background_color":
        reader.scene.background = color_words(value)
    thing = reader.scope.get(owner)
    if isinstance(thing, Thing) and name == "color":
        thing.color = color_words(value) or thing.color
