"""What a scene does as a whole: add, play, wait, remove, turn the camera."""

import math
from collections.abc import Callable
from typing import Any

from stages.prepare_data_with_llm.phrases import method_phrase
from stages.prepare_data_with_llm.reading import Reading
from stages.prepare_data_with_llm.values import Act, Bound, Function, Motion, Step, Thing, flatten, is_number, things_in
from stages.prepare_data_with_llm.words import amount

Arguments = list[Any]
Options = dict[str, Any]


def perform(reader: Reading, name: str, arguments: Arguments, options: Options) -> None:
    ACTIONS[name](reader, arguments, options)


def step(reader: Reading, motions: list[Motion], seconds: float | None = None) -> None:
    reader.scene.steps.append(Step(motions, seconds, reader.repeat != 1))


def show(reader: Reading, arguments: Arguments, options: Options) -> None:
    """self.add: what was there from the start is only listed, what comes later is a step."""
    things = [thing for thing in things_in(arguments) if thing is not reader.everything and thing.seen]
    new = [thing for thing in things if thing not in reader.scene.shown]
    if new and reader.scene.plays:
        step(reader, [Motion([Act("show {x}")], new)])
    reader.scene.shown += new


def play(reader: Reading, arguments: Arguments, options: Options) -> None:
    reader.scene.plays += 1
    motions: list[Motion] = []
    items = flatten(arguments)
    for index, item in enumerate(items):
        if isinstance(item, Motion):
            motions.append(item)
        elif isinstance(item, Bound):  # play(circle.shift, LEFT)
            motions.append(old_style(reader, items[index:], None))
        elif isinstance(item, Thing) and item.acts:  # play(banner.create()): a method that gives an animation
            motions.append(Motion([item.acts.pop()], [item]))
    seconds = options.get("run_time")
    for motion in motions:
        reader.scene.shown += [thing for thing in seen_in(motion) if thing not in reader.scene.shown]
    if motions:
        step(reader, motions, seconds if is_number(seconds) else None)


def seen_in(motion: Motion) -> list[Thing]:
    """The things that a motion brings to the screen, parts counted as what they are a part of."""
    things = [*motion.subjects, *(act.target for act in motion.acts if act.target)]
    things = [thing.owner or thing for thing in things]
    found = [thing for thing in things if thing.seen]
    return found + [thing for inner in motion.inner for thing in seen_in(inner)]


def old_style(reader: Reading, items: Arguments, seconds: float | None) -> Motion:
    """`ApplyMethod(circle.shift, LEFT)`: a method and its arguments, not yet called."""
    method, arguments = items[0], []
    if not isinstance(method, Bound):
        return Motion([Act("animate {x}")], things_in(items), seconds)
    for item in items[1:]:
        if isinstance(item, Bound | Motion):
            break
        arguments.append(item)
    return Motion(
        [Act(method_phrase(method.name, arguments, {}), next(iter(things_in(arguments)), None))],
        [method.owner],
        seconds,
    )


def pause(reader: Reading, arguments: Arguments, options: Options) -> None:
    reader.scene.plays += 1
    seconds = arguments[0] if arguments else options.get("duration")
    step(reader, [Motion([Act("pause")], [])], seconds if is_number(seconds) else None)


def remove(reader: Reading, arguments: Arguments, options: Options) -> None:
    things = things_in(arguments)
    if things and reader.scene.steps:
        step(reader, [Motion([Act("remove {x}")], things)])


def clear(reader: Reading, arguments: Arguments, options: Options) -> None:
    step(reader, [Motion([Act("clear the screen")], [])])


def camera(phrase: str) -> Callable[[Reading, Arguments, Options], None]:
    """An action that needs no subject, only its words."""

    def act(reader: Reading, arguments: Arguments, options: Options) -> None:
        motions = [item for item in flatten(options.get("added_anims") or []) if isinstance(item, Motion)]
        step(reader, [Motion([Act(phrase)], []), *motions])

    return act


def orient(reader: Reading, arguments: Arguments, options: Options) -> None:
    angles = [(name, options.get(name)) for name in ("phi", "theta")]
    angles = [(name, value) for name, value in zip(("phi", "theta"), arguments, strict=False)] or angles
    known = [f"{name} {amount(math.degrees(value))} degrees" for name, value in angles if is_number(value) and value]
    view = f"View it in 3D from an angle ({', '.join(known)})" if known else "View it in 3D"
    reader.scene.notes = [f"{view}."]


def zoom(reader: Reading, arguments: Arguments, options: Options) -> None:
    step(reader, [Motion([Act("open a small window that shows a magnified detail")], [])])


def voiceover(reader: Reading, arguments: Arguments, options: Options) -> None:
    note = "A voice-over explains what is happening."
    if note not in reader.scene.notes:
        reader.scene.notes.append(note)


def apply_to_plane(reader: Reading, arguments: Arguments, options: Options) -> None:
    matrix = arguments[0] if arguments and isinstance(arguments[0], list) else []
    rows = [", ".join(map(amount, row)) for row in matrix if isinstance(row, list) and all(map(is_number, row))]
    words = f" with the rows ({') and ('.join(rows)})" if rows else ""
    step(reader, [Motion([Act(f"apply the matrix{words} to the plane and its vectors")], [])])


def add_vector(reader: Reading, arguments: Arguments, options: Options) -> Thing:
    vector = Thing("vector")
    if arguments and isinstance(arguments[0], list) and all(map(is_number, arguments[0])):
        vector.detail = f"({', '.join(amount(item) for item in arguments[0])})"
    show(reader, [vector], {})
    return vector


def updater(reader: Reading, thing: Thing, arguments: Arguments) -> Thing:
    """`label.add_updater(lambda m: m.next_to(dot, UP))` as "keep the label above the dot"."""
    function = arguments[0] if arguments else None
    rule = Act("keep {x} up to date")
    if isinstance(function, Function):
        seen = thing.copy()
        reader.enter(function, [seen], {})
        rule = next((following(act) for act in seen.acts if act.target or "{y}" not in act.phrase), rule)
    reader.scene.rules.append(Step([Motion([rule], [thing])]))
    return thing


def always(reader: Reading, name: str, arguments: Arguments) -> Any:
    """Manim's functions for things that never rest."""
    head = arguments[0]
    if name == "always_redraw":
        return reader.enter(head, [], {}) if isinstance(head, Function) else None
    if name == "turn_animation_into_updater":
        if isinstance(head, Motion):
            reader.scene.rules.append(Step([head]))
        return None
    if isinstance(head, Thing):
        verb = "rotating" if name == "always_rotate" else "moving"
        reader.scene.rules.append(Step([Motion([Act(f"keep {verb} {{x}}")], [head])]))
    return head


def following(act: Act) -> Act:
    """The words of a change that never stops."""
    verb, _, rest = act.phrase.partition(" ")
    if act.phrase == "move {x} to {y}":
        return Act("let {x} follow {y}", act.target)
    if verb == "move" and act.target:
        return Act(f"keep {rest}", act.target)
    if verb in ("rotate", "move", "shrink", "enlarge"):
        return Act(f"keep {verb.removesuffix('e')}ing {{x}}")
    return Act("keep {x} up to date")


ACTIONS: dict[str, Callable[[Reading, Arguments, Options], Any]] = {
    "add": show,
    "play": play,
    "wait": pause,
    "pause": pause,
    "remove": remove,
    "clear": clear,
    "bring_to_front": show,
    "bring_to_back": show,
    "add_foreground_mobject": show,
    "add_foreground_mobjects": show,
    "add_fixed_in_frame_mobjects": show,
    "add_fixed_orientation_mobjects": show,
    "move_camera": camera("move the camera to a new angle"),
    "set_camera_orientation": orient,
    "begin_ambient_camera_rotation": camera("start rotating the camera slowly around the scene"),
    "begin_3dillusion_camera_rotation": camera("start a wobbling rotation of the camera"),
    "stop_ambient_camera_rotation": camera("stop the rotation of the camera"),
    "stop_3dillusion_camera_rotation": camera("stop the rotation of the camera"),
    "activate_zooming": zoom,
    "voiceover": voiceover,
    "add_sound": camera("play a sound"),
    "apply_matrix": apply_to_plane,
    "apply_inverse": camera("apply the inverse of the matrix to the plane"),
    "add_vector": add_vector,
    "add_plane": lambda reader, arguments, options: show(reader, [Thing("coordinate grid", "grid")], {}),
    "add_axes": lambda reader, arguments, options: show(reader, [Thing("set of coordinate axes", "axes")], {}),
}
