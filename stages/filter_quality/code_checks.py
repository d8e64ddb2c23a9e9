"""Checks of the programs: does it parse, is it a Manim scene, does it draw, and does anything bind what it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stages.filter_quality.call_checks import check_calls
from stages.filter_quality.findings import Finding
from stages.filter_quality.pair_checks import check_agreement, check_pair
from stages.filter_quality.program import Program, manim_names, manim_version
from stages.filter_quality.safety import check_danger

# Programs come from anywhere: every repetition here is possessive or can match in one way only, so that no program
# makes a search slow.
MANIM_IMPORT = re.compile(
    # `import a, manim` counts; `import important` and a mention in a comment do not. Add-ons re-export it with a star.
    r"^[ \t]*+(?:from[ \t]++manim(?:\.[\w.]+)?[ \t]++import\b|from[ \t]++manim\w+[\w.]*+[ \t]++import[ \t]*+\*"
    r"|import[ \t]++(?:[\w.]++(?:[ \t]++as[ \t]++\w++)?[ \t]*+,[ \t]*+)*manim(?![\w-]))",
    re.MULTILINE,
)
MANIMGL = ("manimlib", "manimgl", "manim_imports_ext", "big_ol_pile_of_manim_imports")
_MANIMGL_IMPORT = re.compile(rf"^[ \t]*(?:from|import)[ \t]+(?:{'|'.join(MANIMGL)})\b", re.MULTILINE)
# What ManimGL and the Manim of before 2020 called what now has another name, or none.
MANIMGL_NAMES = {
    "CircleIndicate": "Circumscribe",
    "FRAME_HEIGHT": "config.frame_height",
    "FRAME_WIDTH": "config.frame_width",
    "FRAME_X_RADIUS": "config.frame_x_radius",
    "FRAME_Y_RADIUS": "config.frame_y_radius",
    "FadeInFrom": "FadeIn(shift=...)",
    "FadeInFromDown": "FadeIn(shift=UP)",
    "FadeInFromLarge": "FadeIn(scale=...)",
    "FadeOutAndShift": "FadeOut(shift=...)",
    "FadeOutAndShiftDown": "FadeOut(shift=DOWN)",
    "FlashAround": "Circumscribe",
    "GraphScene": "Axes",
    "InteractiveScene": "Scene",
    "OldTex": "MathTex",
    "OldTexText": "Tex",
    "ParametricCurve": "ParametricFunction",
    "ParametricSurface": "Surface",
    "ShowCreation": "Create",
    "ShowCreationThenDestruction": "ShowPassingFlash",
    "ShowCreationThenDestructionAround": "Circumscribe",
    "ShowCreationThenFadeOut": "Create and FadeOut",
    "TexMobject": "MathTex",
    "TexText": "Tex",
    "TextMobject": "Tex",
    "TransformMatchingStrings": "TransformMatchingShapes",
    "VShowPassingFlash": "ShowPassingFlash",
}
_PLACEHOLDER_COMMENT = re.compile(
    # No quote before the sign: a text that shows code on the screen may well say this.
    r"""^[^'"\n]*\#[ \t]*+\W{0,3}(?:
          (?:(?:add|put|insert|write|place)[ \t]++)?(?:(?:your|more|rest[ \t]of[ \t](?:the|your))[ \t]++)?
              (?:own[ \t])?(?:code|implementation|animation[ \t]code|logic|animations?)[ \t](?:goes[ \t])?here\b
        | (?:the[ \t])?(?:rest|remainder)[ \t]of[ \t](?:the|your)[ \t](?:code|scene|animation|implementation)
        | (?:todo|fixme)\b[ \t:]*+(?:implement|write|complete|fill[ \t]in|finish)\b
        | implement[ \t](?:me|this|here)\b | fill[ \t]in[ \t](?:here|the[ \t](?:code|rest))
        | \.\.\.[ \t]*+(?:rest|more|etc|and[ \t]so[ \t]on|\(?existing|previous)\b
        )""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_ELLIPSIS = re.compile(r"(?:^|:)[ \t]*+\.\.\.[ \t]*+(?:\#.*)?$", re.MULTILINE)
# TeX commands that begin like an escape of Python: in an ordinary string "\frac" is a form feed and "rac".
_TEX_LIKE = re.compile(
    r"\\(?:frac|forall|theta|times|tau|text|to\b|tan|rho|right|rangle|alpha|approx|angle|ast|beta|bar|begin|big|vec|varphi|vert)"
)
_RAW_STRING = re.compile(
    r"""\b(?:[rR][fFbB]?|[fFbB][rR])(?:'''.*?'''|\"\"\".*?\"\"\"|"[^"\n]*"|'[^'\n]*')""", re.DOTALL
)
_MANGLED = re.compile(r"[\a\b\f\v]|\t(?:heta|imes|au\b|ext|o\b|an\b)|\r(?:ho\b|ight|angle)")


def check_code(code: str, description: str, least_characters: int) -> Iterator[Finding]:
    """Everything that can be said about a program that is not run."""
    size = len(code.strip())
    if size < least_characters:
        yield Finding("short_code", f"the program has {size} characters, fewer than {least_characters}")
    try:
        program = Program(code)
        for check in (
            _check_imports,
            _check_scene,
            _check_names,
            _check_gaps,
            _check_escapes,
            check_danger,
            check_calls,
        ):
            yield from check(program)
        yield from check_pair(description, program)
        yield from check_agreement(description, program)
    except SyntaxError as error:
        yield Finding("does_not_parse", f"it is not a Python program: {error.msg}", error.lineno)
    except (RecursionError, MemoryError):  # both the parser's and that of the walks over its trees
        yield Finding("does_not_parse", "it is nested too deeply to be parsed")
    except ValueError as error:  # a null byte, a number of more than 4,300 digits
        yield Finding("does_not_parse", f"it is not a Python program: {error}")


def _check_imports(program: Program) -> Iterator[Finding]:
    mentioned = any(name in program.code for name in MANIMGL)
    if mentioned and (found := _MANIMGL_IMPORT.search(program.code)):
        line = program.code.count("\n", 0, found.end()) + 1
        yield Finding("manimgl_code", f"it is written for ManimGL: {found.group().strip()}", line)
    elif not MANIM_IMPORT.search(program.code) and not program.has_foreign_scene:
        yield Finding("no_manim_import", "it does not import manim")


def _check_scene(program: Program) -> Iterator[Finding]:
    if not program.scenes:
        names = ", ".join(list(program.classes)[:3])
        classes = f"none of its classes ({names}) is one" if names else "it has no class"
        yield Finding("no_scene_class", f"there is no Manim scene to render: {classes}")
        return
    constructs = list(program.constructs())
    name = program.scenes[-1].name
    if not constructs and not program.has_foreign_scene:
        yield Finding("no_construct", f"{name} has no construct method, so nothing happens in it")
    elif program.construct_is_empty():
        yield Finding("empty_construct", f"the construct method of {name} does nothing", constructs[-1].lineno)
    elif not _draws(program):
        yield Finding("no_mobject", "it names no mobject, so there is nothing to be seen")


def _draws(program: Program) -> bool:
    if program.used & manim_names("mobject") or program.may_draw_unseen:
        return True
    return not manim_names("mobject").isdisjoint(re.findall(r"\b[A-Z]\w+", program.code))


def _check_names(program: Program) -> Iterator[Finding]:
    unknown = program.undefined()
    if not MANIM_IMPORT.search(program.code):  # the missing import is a finding of its own
        unknown = unknown - manim_names()
    absent = _absent_imports(program)
    if not unknown and not absent:
        return
    if old := sorted((unknown | absent.keys()) & MANIMGL_NAMES.keys()):
        advice = ", ".join(f"{name} (now {MANIMGL_NAMES[name]})" for name in old)
        line = absent.get(old[0]) or program.line_of(old[0])
        yield Finding("manimgl_code", f"it uses names of ManimGL: {advice}", line)
    if absent.keys() - MANIMGL_NAMES.keys():
        names = sorted(absent.keys() - MANIMGL_NAMES.keys())
        yield Finding("undefined_name", f"manim {manim_version()} has no {_listed(names)}", absent[names[0]])
    elif names := sorted(unknown - MANIMGL_NAMES.keys()):
        yield Finding("undefined_name", f"nothing defines {_listed(names)}", program.line_of(names[0]))


def _absent_imports(program: Program) -> dict[str, int]:
    """The names that the program asks of manim by name and that manim does not have, with their lines."""
    if program.code.count("from manim import") == program.code.count("from manim import *"):
        return {}
    wanted = {
        each.name: each.lineno
        for node in program.tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "manim" and not node.level
        for each in node.names
    }
    return {name: line for name, line in wanted.items() if name[0] not in "*_" and name not in manim_names()}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_gaps(program: Program) -> Iterator[Finding]:
    """Places where somebody meant to write the program later."""
    if "#" in program.code and (found := _PLACEHOLDER_COMMENT.search(program.code)):
        line = program.code.count("\n", 0, found.end()) + 1
        comment = found.group()[found.group().find("#") :].strip()
        yield Finding("placeholder_comment", f"a comment stands where code should: {comment}", line)
    if "..." in program.code and _ELLIPSIS.search(program.code) and (lines := _ellipsis_lines(program.tree)):
        yield Finding("ellipsis_body", "three dots stand where code should", lines[0])


def _ellipsis_lines(tree: ast.Module) -> list[int]:
    """Statements of three dots, save where Python means them: classes, protocols, overloads, abstract methods."""
    lines: list[int] = []
    nodes: list[ast.AST] = [tree]
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            continue
        if isinstance(node, ast.FunctionDef) and any(_is_abstract(each) for each in node.decorator_list):
            continue
        for child in ast.iter_child_nodes(node):
            is_dots = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and child.value.value is ...
            if is_dots and not isinstance(node, ast.ClassDef):
                lines.append(child.lineno)  # type: ignore[attr-defined]
            nodes.append(child)
    return sorted(lines)


def _is_abstract(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).rpartition(".")[2] in ("overload", "abstractmethod", "override_animation")


def _check_escapes(program: Program) -> Iterator[Finding]:
    if program.bad_escapes:
        line = program.bad_escapes[0]
        yield Finding("bad_escape", "a string has a backslash sequence that Python does not know; make it raw", line)
    elif "\\" in program.code and _TEX_LIKE.search(_RAW_STRING.sub("", program.code)):
        for node in program.nodes(ast.Constant):
            if isinstance(node.value, str) and _MANGLED.search(node.value):
                yield Finding("bad_escape", "a string has TeX that Python read as control characters", node.lineno)
                break
