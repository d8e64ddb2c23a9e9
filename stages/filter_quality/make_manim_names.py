"""Write manim_names.txt: what `from manim import *` makes known, and what each class of it is.

    python stages/filter_quality/make_manim_names.py WHEEL > stages/filter_quality/manim_names.txt

WHEEL is a wheel of Manim (`pip download --no-deps manim==0.22.0`). Its source is read as syntax trees and never run:
importing Manim needs system libraries that a machine which only filters text has no other use for.

Out   one line for each name: the name and its kind (mobject, animation, scene, or other), sorted by name
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

ROOTS = {"Mobject": "mobject", "OpenGLMobject": "mobject", "Animation": "animation", "Scene": "scene"}
Modules = dict[str, ast.Module]


@click.command()
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(wheel: Path) -> None:
    """Print the public names of Manim, one a line with its kind."""
    modules = read_modules(wheel)
    kinds = class_kinds(modules)
    version = wheel.name.split("-")[1]
    click.echo(f"# `from manim import *` of Manim {version}; written by make_manim_names.py, do not edit")
    for name in sorted(exports(modules)):
        click.echo(f"{name} {kinds.get(name, 'other')}")


def read_modules(wheel: Path) -> Modules:
    """The syntax tree of every module, by its dotted name."""
    with zipfile.ZipFile(wheel) as archive:
        paths = [path for path in archive.namelist() if path.startswith("manim/") and path.endswith(".py")]
        return {_module_name(path): ast.parse(archive.read(path)) for path in paths}


def exports(modules: Modules) -> set[str]:
    """The names that a star import of the package binds: the module's own, and the submodules that it loads."""

    @cache
    def star(module: str) -> frozenset[str]:
        names: set[str] = set()
        listed: list[str] | None = None
        for statement in _statements(modules[module].body):
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                names |= star(_resolve(module, statement, modules))
            elif listed is None:
                listed = _listed(statement)
            names |= _bound(statement)
        return frozenset(listed if listed is not None else (name for name in names if not name.startswith("_")))

    top = (name.split(".")[1] for name in modules if name.count(".") == 1)
    loaded = {name for name in top if not name.startswith("_")}
    return set(star("manim")) | loaded


def class_kinds(modules: Modules) -> dict[str, str]:
    """Which classes are mobjects, animations or scenes, by following their bases to the three roots."""
    bases: dict[str, list[str]] = {}
    for tree in modules.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                # Two modules may each have a class of one name, as Polygon; either makes it what it is.
                found = [re.split(r"[.\[]", ast.unparse(base))[-1] for base in node.bases]
                bases.setdefault(node.name, []).extend(found)
    kinds = dict(ROOTS)
    for name in bases:
        _follow(name, bases, kinds)
    return {name: kind for name, kind in kinds.items() if kind}


def _follow(name: str, bases: dict[str, list[str]], kinds: dict[str, str]) -> str:
    if name not in kinds:
        kinds[name] = ""
        kinds[name] = next(filter(None, (_follow(base, bases, kinds) for base in bases.get(name, []))), "")
    return kinds[name]


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement that runs when the module is imported, those inside if, try and with included."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _statements(getattr(statement, field, []))


def _resolve(module: str, statement: ast.ImportFrom, modules: Modules) -> str:
    if not statement.level:
        return str(statement.module)
    is_package = any(name.startswith(f"{module}.") for name in modules)
    parts = module.split(".")
    base = parts[: len(parts) - statement.level + is_package]
    return ".".join([*base, *filter(None, [statement.module])])


def _listed(statement: ast.stmt) -> list[str] | None:
    """The content of `__all__`, if this statement sets it."""
    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
        return [str(name) for name in ast.literal_eval(statement.value)]
    return None


def _bound(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.split(".")[0] for alias in names if alias.name != "*"}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return {name}
    return set()


if __name__ == "__main__":
    sys.exit(main())
