"""Write manim_calls.txt: how each class, function and method of Manim may be called, and which attributes there are.

    python stages/filter_quality/make_manim_calls.py WHEEL > stages/filter_quality/manim_calls.txt

WHEEL is a wheel of Manim. Its source is read as syntax trees and never run, as make_manim_names.py does.

Out   one line each, sorted:
      call NAME MOST [KEYWORD...]    a class or function of `from manim import *`: at most MOST arguments by position
      method NAME MOST [KEYWORD...]  any class may define it; what one of them takes is listed
      attribute NAME                 a method or attribute of some class
      MOST or a keyword is * where anything is taken.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

# Run as a script, only this folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stages.filter_quality.make_manim_names import Modules, exports, read_modules

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Shape(NamedTuple):
    """What a call may hold; `most` is None and `keywords` holds "*" where there is no limit."""

    most: int | None
    keywords: frozenset[str]


ANYTHING = Shape(None, frozenset("*"))


@click.command()
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(wheel: Path) -> None:
    """Print the calls that Manim understands, one a line."""
    modules = read_modules(wheel)
    version = wheel.name.split("-")[1]
    click.echo(f"# the calls of Manim {version}; written by make_manim_calls.py, do not edit")
    classes = _by_name(node for tree in modules.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    shapes = {**_functions(modules), **{name: shape_of_class(name, classes, ()) for name in classes}}
    for name in sorted(exports(modules) & shapes.keys()):
        click.echo(_line("call", name, shapes[name]))
    methods = _methods(classes)
    for name in sorted(methods):
        click.echo(_line("method", name, methods[name]))
    for name in sorted(_attributes(classes) | methods.keys()):
        click.echo(f"attribute {name}")


def _line(what: str, name: str, shape: Shape) -> str:
    most = "*" if shape.most is None else str(shape.most)
    return " ".join([what, name, most, *sorted(shape.keywords)])


def _by_name(nodes: Iterator[ast.ClassDef]) -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for node in nodes:
        found.setdefault(node.name, []).append(node)
    return found


def shape_of_class(name: str, classes: dict[str, list[ast.ClassDef]], below: tuple[str, ...]) -> Shape:
    """What the constructor takes, with what it hands on to the classes that it is derived from."""
    if name == "object" or (name not in classes and name in ("ABC", "Generic", "Protocol")):
        return Shape(0, frozenset())
    if name not in classes or name in below:
        return ANYTHING
    return _either([_shape_of_node(node, classes, (*below, name)) for node in classes[name]])


def _shape_of_node(node: ast.ClassDef, classes: dict[str, list[ast.ClassDef]], below: tuple[str, ...]) -> Shape:
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return ANYTHING
    bases = [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases] or ["object"]
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    parents = [shape_of_class(base, classes, below) for base in bases if base not in ("Generic", "Protocol")]
    above = _either(parents) if parents else Shape(0, frozenset())
    if own is None:
        return above
    shape = _shape_of_function(own, bound=True)
    if own.args.kwarg is None:
        return shape
    handed = above.keywords if _hands_on(own, own.args.kwarg.arg) else frozenset("*")
    return Shape(shape.most, (shape.keywords - {"*"}) | handed)


def _hands_on(function: Function, name: str) -> bool:
    """Whether the collected keywords go to the constructor of a parent and nowhere else."""
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    handed = [
        each.value
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("__init__")
        for each in node.keywords
        if each.arg is None
    ]
    return bool(uses) and all(any(use is each for each in handed) for use in uses)


def _shape_of_function(function: Function, *, bound: bool) -> Shape:
    arguments = function.args
    by_position = [each.arg for each in (*arguments.posonlyargs, *arguments.args)][bound:]
    keywords = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)} - ({"self", "cls"} if bound else set())
    if arguments.kwarg:
        keywords.add("*")
    return Shape(None if arguments.vararg else len(by_position), frozenset(keywords))


def _either(shapes: list[Shape]) -> Shape:
    most = None if any(shape.most is None for shape in shapes) else max(shape.most or 0 for shape in shapes)
    return Shape(most, frozenset().union(*(shape.keywords for shape in shapes)))


def _functions(modules: Modules) -> dict[str, Shape]:
    found: dict[str, list[Shape]] = {}
    for tree in modules.values():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                shape = ANYTHING if node.decorator_list else _shape_of_function(node, bound=False)
                found.setdefault(node.name, []).append(shape)
    return {name: _either(shapes) for name, shapes in found.items()}


def _methods(classes: dict[str, list[ast.ClassDef]]) -> dict[str, Shape]:
    found: dict[str, list[Shape]] = {}
    for node in (node for nodes in classes.values() for node in nodes):
        for each in node.body:
            if isinstance(each, Function) and not each.name.startswith("__"):
                found.setdefault(each.name, []).append(_shape_of_method(each))
    return {name: _either(shapes) for name, shapes in found.items()}


def _shape_of_method(method: Function) -> Shape:
    decorators = {ast.unparse(each) for each in method.decorator_list}
    # A property gives something else that is called; what an override of an animation takes is not seen here.
    if decorators - {"staticmethod", "classmethod", "override_animate"}:
        return ANYTHING
    return _shape_of_function(method, bound="staticmethod" not in decorators)


def _attributes(classes: dict[str, list[ast.ClassDef]]) -> set[str]:
    names: set[str] = set()
    for node in (node for nodes in classes.values() for node in nodes):
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
                names.add(each.attr)
            elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                names.add(each.target.id)
        names |= {
            target.id
            for each in node.body
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name)
        }
    return names


if __name__ == "__main__":
    sys.exit(main())
