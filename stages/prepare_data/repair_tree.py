"""Adds what a program lacks to be run by itself, decided on its syntax tree."""

from __future__ import annotations

import ast
import builtins
import itertools
import re
from collections.abc import Callable, Iterator

import schema
from stages.prepare_data.repair_tokens import Edit, apply, bound_names, inside_strings, parse, places

SCENES = {
    "Scene",
    "ThreeDScene",
    "MovingCameraScene",
    "ZoomedScene",
    "VectorScene",
    "LinearTransformationScene",
    "SpecialThreeDScene",
}
# Enough of Manim's names to know a program that needs it: those that a program without any of them would not be.
_MANIM_TEXT = """
    AnimationGroup Annulus Arc Arrow Axes BarChart Brace BulletedList Circle Code Create Cube DecimalNumber Dot
    Dot3D DoubleArrow DrawBorderThenFill Ellipse FadeIn FadeOut FadeTransform FunctionGraph Graph Group
    GrowArrow GrowFromCenter ImageMobject Indicate Integer LaggedStart Line Line3D MathTex Matrix MobjectTable
    MoveAlongPath MoveToTarget NumberLine NumberPlane ParametricFunction Polygon Rectangle RegularPolygon
    ReplacementTransform Rotate RoundedRectangle SVGMobject Sector ShowPassingFlash Sphere Square Star
    Succession Surface SurroundingRectangle Table Tex Text ThreeDAxes Transform TransformMatchingShapes
    TransformMatchingTex Triangle Typewriter Uncreate VDict VGroup VMobject ValueTracker Variable Vector Write
    always_redraw
"""
_MANIM = SCENES | set(_MANIM_TEXT.split())
_PACKAGES = ("manim", "manimlib", "manim_imports_ext", "big_ol_pile_of_manim_imports", "manimgl")
# What a scene does; loose code that calls none of them on `self` is the body of no `construct`.
_SCENE_CALLS = {
    "play",
    "add",
    "wait",
    "camera",
    "remove",
    "clear",
    "set_camera_orientation",
    "begin_ambient_camera_rotation",
}
_CALL = re.compile(rf"self[\s\\]*\.[\s\\]*(?:{'|'.join(sorted(_SCENE_CALLS))})\b")
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


# Only imports, Manim's among them, and comments stand before the first class.
_USUAL = re.compile(
    rf"""(?:[ \t]*(?:\#.*)?\n|(?:from|import)[ ][\w., *]+\n)*?
    (?:from|import)[ ](?:{"|".join(_PACKAGES)})\b[\w., *]*\n
    (?:[ \t]*(?:\#.*)?\n|(?:from|import)[ ][\w., *]+\n)*class[ ]""",
    re.VERBOSE,
)


def imports(text: str) -> str:
    """`from manim import *` where Manim's names are used and nobody imports it."""
    if _USUAL.match(text):
        return text
    names = schema.names(text)  # they are known already, and a tree costs more
    if names is None or ("__future__" not in text and _MANIM.isdisjoint(names.foreign)):
        return text
    tree = parse(text)
    if tree is None or _imports_manim(tree) or not free_names(tree) & _MANIM:
        return text
    lines = text.split("\n")
    first = _above_comments(lines, _first_line(tree))
    head, rest = "\n".join(lines[:first]).rstrip(), "\n".join(lines[first:])
    gap = "\n\n\n" if _DEFINES.match(rest) else "\n" if rest.startswith(("import ", "from ")) else "\n\n"
    return (f"{head}\n\n" if head else "") + f"from manim import *{gap}{rest}"


_DEFINES = re.compile(r"(?:#.*\n)*(?:class |def |@)")


def _imports_manim(tree: ast.Module) -> bool:
    """Is Manim or ManimGL imported, or is this a part of a package, which gets its names from the other parts?"""
    for node in itertools.chain(tree.body, ast.walk(tree)):  # most import it at the top
        match node:
            case ast.ImportFrom(level=level) if level:
                return True
            case ast.Import(names=names) if any(name.name.split(".")[0] in _PACKAGES for name in names):
                return True
            case ast.ImportFrom(module=str() as module) if module.split(".")[0] in _PACKAGES:
                return True
    return False


def free_names(tree: ast.Module) -> set[str]:
    """The names that the program uses and gives no meaning to."""
    return _used_names(tree) - bound_names(tree) - set(dir(builtins))


def _used_names(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _first_line(tree: ast.Module) -> int:
    """The line of the first statement after the docstring and the imports from __future__."""
    first = 0
    for node in tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_text and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            return max(first, _first_line_of(node))
        first = node.end_lineno or 0
    return first


def scene(text: str) -> str:
    """A scene around code that is the body of one: it says `self.play` and stands in no class."""
    if _USUAL.match(text) or not ("construct" in text or _CALL.search(text)):
        return text
    tree = parse(text)
    if tree is None or any(isinstance(node, ast.ClassDef) for node in tree.body) or _runs_itself(tree):
        return text
    if node := _bare_construct(tree):
        first = _first_line_of(node)
        others = [other for other in tree.body if other.lineno > node.lineno and not isinstance(other, _FUNCTIONS)]
        return text if others else _indented(text, first, 1, ["class AnimationScene(Scene):"])
    if not _loose_calls(tree):
        return text
    body = tree.body
    while body and (isinstance(body[0], ast.Import | ast.ImportFrom) or _is_docstring(body[0])):
        body = body[1:]
    if not body or any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in body):
        return text
    return _indented(text, _first_line_of(body[0]), 2, ["class AnimationScene(Scene):", "    def construct(self):"])


def _bare_construct(tree: ast.Module) -> ast.FunctionDef | None:
    """`def construct(self):` with no class around it."""
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef)
            and node.name == "construct"
            and [arg.arg for arg in node.args.args] == ["self"]
        ):
            return node
    return None


def _loose_calls(tree: ast.Module) -> bool:
    """Is `self.play` or the like said outside of any function, where `self` is nothing?"""
    if "self" in {name for node in tree.body for name in _assigned_here(node)}:
        return False
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr in _SCENE_CALLS
        for statement in tree.body
        if not isinstance(statement, _FUNCTIONS)
        for node in ast.walk(statement)
    )


def _assigned_here(node: ast.stmt) -> Iterator[str]:
    found = (part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))
    yield from (part.id for part in found)


def _runs_itself(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _first_line_of(node: ast.stmt) -> int:
    """Counted from 0; decorators are above what the tree takes for the first line."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(part.lineno for part in decorators)]) - 1


def _above_comments(lines: list[str], first: int) -> int:
    """A comment belongs to the line that it stands above; what only the system reads stays at the top."""
    while first and re.match(r"\s*#(?!!|.*coding[:=])", lines[first - 1]):
        first -= 1
    return first


def _indented(text: str, first: int, depth: int, heads: list[str]) -> str:
    """The lines from `first` on as a block; those that begin inside a string stay where they are."""
    lines = text.split("\n")
    inside = inside_strings(text)
    first = _above_comments(lines, first)
    moved = [
        line if number in inside or not line.strip() else "    " * depth + line
        for number, line in enumerate(lines[first:], first)
    ]
    head = "\n".join(lines[:first]).rstrip()
    return "\n".join([*([head, "", ""] if head else []), *heads, *moved])


def voiceover(text: str, silence: Callable[[str], str]) -> str:
    """The program without its voice, and without the `pass` that stands where a call was and nothing needs it."""
    new = silence(text)
    tree = parse(new) if new != text else None
    if tree is None:
        return text
    lines: list[str | None] = list(new.split("\n"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) and len(body) > 1 else []:
            number = statement.lineno - 1
            if isinstance(statement, ast.Pass) and (lines[number] or "").strip() == "pass" and body != [statement]:
                lines[number] = None
    return "\n".join(line for line in lines if line is not None)


def static_wait(text: str) -> str:
    """`self.wait()` at the end of scenes that show a still: a film of it has a length."""
    tree = parse(text)
    edits: list[Edit] = []
    span = places(text)
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.FunctionDef) and node.name == "construct" and node.args.args:
            scene_name, last = node.args.args[0].arg, node.body[-1]
            if _shows_a_still(node, scene_name) and not isinstance(last, ast.Return | ast.Raise):
                inline = last.lineno == node.lineno
                end = span(last)[1]
                blank = "; " if inline else "\n" + " " * node.body[0].col_offset
                edits.append((end, end, f"{blank}{scene_name}.wait()"))
    return apply(text, edits)


def _shows_a_still(node: ast.FunctionDef, name: str) -> bool:
    calls = {
        part.func.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and ast.unparse(part.func.value) == name
    }
    return bool(calls & {"add"}) and not calls & {"play", "wait", "pause", "next_slide"} and calls <= _KNOWN


# A method of the program's own may play what it likes.
_KNOWN = {
    "add",
    "remove",
    "clear",
    "set_camera_orientation",
    "add_fixed_in_frame_mobjects",
    "bring_to_back",
    "bring_to_front",
}


def animation_group(text: str) -> str:
    """`self.play(a, b, run_time=2)` with its animations in an AnimationGroup."""
    tree = parse(text)
    span = places(text)
    edits: list[Edit] = []
    for node in ast.walk(tree) if tree else []:
        match node:
            case ast.Call(func=ast.Attribute(attr="play", value=ast.Name(id="self")), args=[first, *_, last]):
                if any(word.arg == "run_time" for word in node.keywords) and last.end_lineno is not None:
                    start, end = span(first)[0], span(last)[1]
                    edits += [(start, start, "AnimationGroup("), (end, end, ")")]
    return apply(text, edits)
