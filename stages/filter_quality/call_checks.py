"""Checks of the calls: are there such arguments and such methods in the Manim that the rows are for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from stages.filter_quality.findings import Finding
from stages.filter_quality.glance import Doubt, doubts, line_of
from stages.filter_quality.manim_api import PLAIN_METHODS, attributes, calls
from stages.filter_quality.program import Program, manim_names, manim_version

# Methods that give back the mobject that they change.
_CHAINING = """
    shift scale move_to next_to to_edge to_corner rotate set_color set_fill set_stroke set_opacity arrange flip stretch
    align_to center set_z_index copy
"""
_CHAINED = frozenset(_CHAINING.split())
_STAR = re.compile(r"^[ \t]*from[ \t]+manim[ \t]+import[ \t]*\*", re.MULTILINE)


def check_calls(program: Program) -> Iterator[Finding]:
    """The first wrong argument and the first unknown method. Only of what can be nothing but Manim's."""
    if not _STAR.search(program.code) or any(module != "manim" for module in program.star_imports):
        return
    suspected = doubts(program.code, program.all_scopes)
    if not suspected:
        return
    if len(suspected) == 1 and _is_certain(suspected[0], program):
        (doubt,) = suspected
        fault = f"{doubt.name} of manim {manim_version()} has no argument {doubt.keyword}"
        yield Finding("wrong_argument", fault, line_of(doubt, program.code))
        return
    yield from wrong_calls(program)


def wrong_calls(program: Program) -> Iterator[Finding]:
    """What the tree says."""
    own = _defined(program)
    made = _made(program, own)
    arguments = (_wrong_argument(node, own, made) for node in program.nodes(ast.Call))
    methods = (_unknown_method(node, own, made, program) for node in program.nodes(ast.Attribute))
    for findings in (arguments, methods):
        if found := next(filter(None, findings), None):
            yield found


def _is_certain(doubt: Doubt, program: Program) -> bool:
    """Whether there is a call of this name, of a program that never gives the name to anything else."""
    if not doubt.name or doubt.name not in program.used or doubt.name in program.bound_anywhere():
        return False
    return not re.search(rf"\.\s*{doubt.name}\b|\bcase\b", program.code)


def _wrong_argument(node: ast.Call, own: set[str], made: set[str]) -> Finding | None:
    name = ""
    if isinstance(node.func, ast.Name):
        name = node.func.id
        call = calls("call").get(name) if name not in own else None
    elif isinstance(node.func, ast.Attribute) and _is_manims(node.func.value, made):
        name = node.func.attr
        call = calls("method").get(name) if name not in own | PLAIN_METHODS else None
    else:
        call = None
    fault = call.fault(node) if call else None
    return Finding("wrong_argument", f"{name} of manim {manim_version()} {fault}", node.lineno) if fault else None


def _unknown_method(node: ast.Attribute, own: set[str], made: set[str], program: Program) -> Finding | None:
    name = node.attr
    if name in attributes() or name in own or type(node.ctx) is not ast.Load or not _is_manims(node.value, made):
        return None
    if name in PLAIN_METHODS or (name.startswith(("get_", "set_")) and not _is_self(node.value)):
        return None  # mobjects answer to any getter and setter
    if _is_self(node.value) and (program.may_draw_unseen or "setattr" in program.used):
        return None  # a base class or a method that is not seen may bring it
    return Finding("unknown_method", f"manim {manim_version()} knows no .{name}", node.lineno)


def _is_manims(node: ast.expr, made: set[str]) -> bool:
    """Whether the value can only be a mobject, an animation or a scene: self, what a constructor gave, `.animate`."""
    if isinstance(node, ast.Attribute):
        return node.attr == "animate" or (_is_self(node.value) and node.attr == "camera")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in _constructors()
        # A method of a mobject mostly gives the mobject; a getter gives anything.
        return isinstance(node.func, ast.Attribute) and node.func.attr in _CHAINED and _is_manims(node.func.value, made)
    return _is_self(node) or (isinstance(node, ast.Name) and node.id in made)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _defined(program: Program) -> set[str]:
    """Every name that the program binds anywhere, and every attribute that it sets."""
    names = {node.id for node in program.nodes(ast.Name) if type(node.ctx) is ast.Store}
    names |= {node.attr for node in program.nodes(ast.Attribute) if type(node.ctx) is ast.Store}
    names |= {node.name for node in program.nodes(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)}
    names |= {node.arg for node in program.nodes(ast.arg)}
    return names | {node.asname or node.name.partition(".")[0] for node in program.nodes(ast.alias)}


def _made(program: Program, own: set[str]) -> set[str]:
    """The variables that only ever hold what a constructor of Manim gave."""
    good: set[str] = set()
    bad: set[str] = {node.arg for node in program.nodes(ast.arg)}
    simple: set[int] = set()
    for node in program.nodes(ast.Assign):
        if len(node.targets) == 1 and isinstance(target := node.targets[0], ast.Name):
            simple.add(id(target))
            maker = node.value.func if isinstance(node.value, ast.Call) else None
            known = isinstance(maker, ast.Name) and maker.id in _constructors() and maker.id not in own
            (good if known else bad).add(target.id)
    stored = (node for node in program.nodes(ast.Name) if type(node.ctx) is ast.Store)
    bad |= {node.id for node in stored if id(node) not in simple}
    return good - bad


@cache
def _constructors() -> frozenset[str]:
    return manim_names("mobject") | manim_names("animation")
