"""Writes what ManimGL and old versions of Manim call otherwise in the words of today's Manim (Community Edition).

A program that imports ManimGL is converted whole or not at all: where something is left that Manim has no word for,
it stays as it is, still imports ManimGL, and is rejected by name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from stages.prepare_data.repair_tokens import Edit, apply, bound_names, parse, places
from stages.prepare_data.repair_tree import SCENES

PACKAGES = {"manimlib", "manimgl", "big_ol_pile_of_manim_imports", "manim_imports_ext"}
_RENAMED = {
    "TexMobject": "MathTex",
    "OldTex": "MathTex",
    "TexText": "Tex",
    "OldTexText": "Tex",
    "ShowCreation": "Create",
    "WiggleOutThenIn": "Wiggle",
    "ParametricSurface": "Surface",
    "FRAME_WIDTH": "config.frame_width",
    "FRAME_HEIGHT": "config.frame_height",
    "FRAME_X_RADIUS": "config.frame_x_radius",
    "FRAME_Y_RADIUS": "config.frame_y_radius",
}
# Name, then the keyword that its second argument has today, and the sign of a direction there.
_SHIFTED = {
    "FadeInFrom": ("FadeIn", "shift", "-", "DOWN"),
    "FadeInFromDown": ("FadeIn", "shift", "", "UP"),
    "FadeOutAndShift": ("FadeOut", "shift", "", "DOWN"),
    "FadeOutAndShiftDown": ("FadeOut", "shift", "", "DOWN"),
    "FadeInFromPoint": ("FadeIn", "target_position", "", None),
    "FadeOutToPoint": ("FadeOut", "target_position", "", None),
    "FadeInFromLarge": ("FadeIn", "scale", "", "2"),
}
_OLD_KEYWORDS = {"direction", "point", "scale_factor"}
_OPPOSITE = {"UP": "DOWN", "DOWN": "UP", "LEFT": "RIGHT", "RIGHT": "LEFT", "IN": "OUT", "OUT": "IN"}
_OPPOSITE |= {"UL": "DR", "UR": "DL", "DL": "UR", "DR": "UL"}
_SIZES = {"set_width": ("scale_to_fit_width", "stretch_to_fit_width")}
_SIZES |= {"set_height": ("scale_to_fit_height", "stretch_to_fit_height")}
# What only ManimGL has.
_FOREIGN_TEXT = """
    GraphScene ReconfigurableScene PiCreature PiCreatureScene TeacherStudentsScene Mortimer Randolph
    CountingScene TrueDot GlowDot DotCloud GlowDots SurfaceMesh TexturedSurface TexTextFromPresetString
    FlashAround FlashUnder ShowCreationThenDestruction ShowCreationThenFadeOut ShowCreationThenFadeAround
    ShowCreationThenDestructionAround ShowPassingFlashAround CircleIndicate TurnInsideOut AnimatedStreamLines
    TextMobjectWithBackground VFadeIn VFadeOut Mobject1D digest_config interpolate_color_by_hsl
    InteractiveSceneEmbed CONFIG get_norm checkpoint_paste
"""
_FOREIGN = set(_FOREIGN_TEXT.split())
_FOREIGN_ATTRIBUTES = {
    "frame",
    "reorient",
    "embed",
    "setup_axes",
    "f_always",
    "always",
    "checkpoint_paste",
    "set_backstroke",
}
# Most programs hold none of these, and need not be looked through.
_SIGNS = [*PACKAGES, *_RENAMED, *_SHIFTED, "TextMobject", "get_graph"]
_SIGNS += [f"{axis}_{end}" for axis in "xyz" for end in ("min", "max")]
_SIGN = re.compile("|".join(sorted(_SIGNS)))
Span = Callable[[ast.AST], tuple[int, int]]


def manimgl(text: str) -> str:
    """The program for Manim, or the text as it is."""
    tree = parse(text) if _SIGN.search(text) else None
    if tree is None:
        return text
    foreign = imports_manimgl(tree)
    own = bound_names(tree) - set(_imported(tree))
    edits = list(_edits(text, tree, own, foreign))
    if not edits:
        return text
    new = apply(text, edits)
    after = parse(new)
    if foreign and (after is None or _is_left(after)):
        return text
    return _one_import(new) if foreign else new


def imports_manimgl(tree: ast.AST) -> bool:
    """Does anything in it import ManimGL?"""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if any(name.name.split(".")[0] in PACKAGES for name in names):
                return True
            case ast.ImportFrom(module=str() as module) if module.split(".")[0] in PACKAGES:
                return True
    return False


def _is_left(tree: ast.Module) -> bool:
    """Is something left that Manim has no word for?"""
    own = bound_names(tree) - {"CONFIG"}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in _FOREIGN - own:
                return True
            case ast.Attribute(attr=name, value=ast.Name(id="self")) if name in _FOREIGN_ATTRIBUTES - own:
                return True
            case ast.Call(func=ast.Attribute(attr="play"), args=arguments) if any(map(_is_method, arguments)):
                return True
            case ast.ClassDef(bases=bases) if any(_is_foreign_scene(base, own) for base in bases):
                return True
    return imports_manimgl(tree)


def _is_method(argument: ast.expr) -> bool:
    """`self.play(square.shift, UP)`: a method without its call."""
    return isinstance(argument, ast.Attribute) and not ast.unparse(argument.value).startswith("self")


def _is_foreign_scene(base: ast.expr, own: set[str]) -> bool:
    return isinstance(base, ast.Name) and base.id.endswith("Scene") and base.id not in SCENES | own


def _edits(text: str, tree: ast.Module, own: set[str], foreign: bool) -> Iterator[Edit]:
    span = places(text)
    axes = _names_of_axes(tree)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str() as module) if module.split(".")[0] in PACKAGES:
                yield (*span(node), "from manim import *")
            case ast.Call(func=ast.Name(id=name)) if name in _SHIFTED and name not in own:
                yield from _shifted(text, node, span)
            case ast.Call(func=ast.Name(id="TextMobject")) if "TextMobject" not in own:
                yield (*span(node.func), "Text" if _is_plain(node) else "Tex")
            case ast.Call(func=ast.Name(id="Axes" | "NumberPlane" | "ThreeDAxes")):
                yield from _ranges(text, node, span)
            case ast.Call(func=ast.Attribute(attr="get_graph", value=ast.Name(id=name))) if name in axes:
                yield (span(node.func)[1] - len("get_graph"), span(node.func)[1], "plot")
            case ast.Name(id=name, ctx=ast.Load()) if name in _RENAMED and name not in own:
                yield (*span(node), _RENAMED[name])
            case ast.ImportFrom(module="manim", names=names):
                yield from ((*span(alias), new) for alias in names if (new := _new_name(alias)))
            case _ if foreign:
                yield from _foreign_edits(text, node, span, own)


def _new_name(alias: ast.alias) -> str:
    """What to import today in its place; nothing for a name that is the same."""
    old = "" if alias.asname else alias.name
    new = {"TextMobject": "Tex, Text"}.get(old) or _SHIFTED.get(old, [""])[0] or _RENAMED.get(old, "")
    return str(new).partition(".")[0]


def _imported(tree: ast.Module) -> Iterator[str]:
    """The names that come from Manim or ManimGL, one by one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES | {"manim"}:
            yield from (alias.name for alias in node.names if not alias.asname)


def _foreign_edits(text: str, node: ast.AST, span: Span, own: set[str]) -> Iterator[Edit]:
    """What means something else in Manim, so that only a program that imports ManimGL may be changed."""
    match node:
        case ast.Call(func=ast.Name(id="Tex")) if "Tex" not in own:
            yield (*span(node.func), "MathTex")
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="embed", value=ast.Name(id="self")))):
            yield (*span(node), "pass")
        case ast.Call(func=ast.Attribute(attr=name), args=[_]) if name in _SIZES and name not in own:
            stretch = [word for word in node.keywords if word.arg == "stretch"]
            if not node.keywords:
                yield (span(node.func)[1] - len(name), span(node.func)[1], _SIZES[name][0])
            elif len(node.keywords) == len(stretch) == 1 and ast.unparse(stretch[0].value) == "True":
                yield (span(node.func)[1] - len(name), span(node.func)[1], _SIZES[name][1])
                yield (span(node.args[0])[1], span(stretch[0])[1], "")
        case ast.Attribute(attr="camera_frame", value=ast.Name(id="self")):
            yield (span(node)[1] - len("camera_frame"), span(node)[1], "camera.frame")
        case ast.Name(id="InteractiveScene", ctx=ast.Load()) if "InteractiveScene" not in own:
            yield (*span(node), "Scene")
        case ast.ClassDef(bases=bases) if any(ast.unparse(base).endswith("Scene") for base in bases):
            yield from _settings(text, node, span)


def _settings(text: str, node: ast.ClassDef, span: Span) -> Iterator[Edit]:
    """`CONFIG = {"radius": 2}` of a scene as `radius = 2`; the keys that its base reads have other names today."""
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="CONFIG")], value=ast.Dict(keys=keys, values=values)):
                names = [key.value for key in keys if isinstance(key, ast.Constant)]
                fit = [name for name in names if isinstance(name, str) and name.isidentifier() and "camera" not in name]
                if len(fit) == len(keys) > 0:
                    blank = "\n" + " " * statement.col_offset
                    lines = [f"{name} = {_source(text, value, span)}" for name, value in zip(fit, values, strict=True)]
                    yield (*span(statement), blank.join(lines))


def _source(text: str, node: ast.AST, span: Span) -> str:
    """The text of a node; in brackets where it goes over several lines."""
    start, end = span(node)
    piece = text.encode("utf-8", "surrogatepass")[start:end].decode("utf-8", "surrogatepass")
    return f"({piece})" if "\n" in piece and piece[:1] not in "([{'\"" else piece


def _shifted(text: str, node: ast.Call, span: Span) -> Iterator[Edit]:
    """`FadeInFrom(square, UP)` as `FadeIn(square, shift=DOWN)`."""
    assert isinstance(node.func, ast.Name)
    name, keyword, sign, default = _SHIFTED[node.func.id]
    old = [word for word in node.keywords if word.arg in _OLD_KEYWORDS]
    takes_none = node.func.id.endswith("Down")
    if (
        not node.args
        or len(node.args) + len(old) > (1 if takes_none else 2)
        or any(isinstance(argument, ast.Starred) for argument in node.args)
    ):
        return
    given: ast.AST | None = node.args[1] if len(node.args) == 2 else old[0] if old else None
    if given is None and default is None:
        return
    yield (*span(node.func), name)
    if given is None:
        end = span(node.args[0])[1]
        yield (end, end, f", {keyword}={_opposite(str(default)) if sign else default}")
    else:
        value = _source(text, given.value if isinstance(given, ast.keyword) else given, span)
        yield (*span(given), f"{keyword}={_opposite(value) if sign else value}")


def _opposite(direction: str) -> str:
    simple = re.fullmatch(r"[\w.]+", direction)
    return _OPPOSITE.get(direction) or (f"-{direction}" if simple else f"-({direction})")


def _is_plain(node: ast.Call) -> bool:
    """One text without TeX, and no option that only TeX has."""
    match node.args:
        case [ast.Constant(value=str() as text)]:
            return not re.search(r"[\\$_^{}&%#]|--|``", text) and all(
                word.arg in ("color", "fill_opacity") for word in node.keywords
            )
    return False


def _ranges(text: str, node: ast.Call, span: Span) -> Iterator[Edit]:
    """`x_min=-1, x_max=5` as `x_range=[-1, 5]`."""
    words = {word.arg: word for word in node.keywords if word.arg}
    for axis in "xyz":
        low, high = words.get(f"{axis}_min"), words.get(f"{axis}_max")
        if low is None or high is None or f"{axis}_range" in words:
            continue
        first, second = sorted((low, high), key=lambda word: span(word)[0])
        before = [place for part in [*node.args, *node.keywords] if (place := span(part)) < span(second)]
        yield (*span(first), f"{axis}_range=[{_source(text, low.value, span)}, {_source(text, high.value, span)}]")
        yield (max(before)[1], span(second)[1], "")


def _names_of_axes(tree: ast.Module) -> set[str]:
    """The names that stand for axes and for nothing else."""
    found: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                made = value.func if isinstance(value, ast.Call) else None
                (
                    found if isinstance(made, ast.Name) and made.id in ("Axes", "NumberPlane", "ThreeDAxes") else others
                ).add(name)
    return found - others


def _one_import(text: str) -> str:
    """The program with one import of Manim where several were, each from another part of ManimGL."""
    line = "from manim import *"
    before, found, after = text.partition(f"{line}\n")
    return before + found + re.sub(rf"^{re.escape(line)}\n", "", after, flags=re.MULTILINE)
