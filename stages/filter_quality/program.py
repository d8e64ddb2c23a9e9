"""One parsed program: its scopes at once, its syntax tree only when a check has a suspicion to confirm.

The scopes come from `_symtable`, the compiled half of the standard module `symtable`: one pass over the source gives
the verdict of the parser and every name with its scope, in 160 us for 1.3 kB, where a tree and a walk over it cost
500. The public half wraps each name in an object, which costs as much again.
"""

from __future__ import annotations

import _symtable  # type: ignore[import-not-found]  # the type stubs leave it out
import ast
import builtins
import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

_GLOBAL = {_symtable.GLOBAL_IMPLICIT, _symtable.GLOBAL_EXPLICIT}
_BUILTINS = {*dir(builtins), "__file__", "__name__", "__doc__", "__path__", "__annotations__", "__class__"}
_BUILTINS |= {"exit", "quit", "help"}  # missing when Python runs without its site module
_STAR_IMPORT = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]*\(?[ \t]*\*", re.MULTILINE)
# The imports of most programs, one to a line; for others the tree is asked.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w.]+)(?:[ \t]+as[ \t]+\w+)?[ \t]*$)", re.MULTILINE
)
_OVER_LINES = ('"""', "'''", "\\\n")
_HEADER = re.compile(r"\s*class\s+(\w+)\s*(?:\(([\w.,\s=]*)\))?\s*:")
_NEWLINE = re.compile(r"\r\n|\r|\n")  # where the parser counts a line; splitlines() counts more
# Faults that the code generator finds and not the parser hang on these words; only programs with them pay for it.
_LATE_WORDS = ("break", "continue", "await", "yield", "async")
_LATE_RETURN = re.compile(r"^(?: {0,4}|\t)return\b", re.MULTILINE)
_LEAVES = {ast.Name, ast.Constant, ast.alias, ast.Pass, ast.Break, ast.Continue}
# The fields that can hold nodes that a check asks for; of no use are Load, Store, Add and their like.
_NO_CHILDREN = {"ctx", "op", "ops", "id", "attr", "arg", "names", "module", "level", "type_comment"}
_KINDS = [kind for kind in vars(ast).values() if isinstance(kind, type) and issubclass(kind, ast.AST)]
_CHILDREN = {kind: [name for name in kind._fields if name not in _NO_CHILDREN] for kind in _KINDS}
_CHILDREN |= {kind: ["names"] for kind in (ast.Import, ast.ImportFrom)}
_WITHOUT_MOBJECTS = {*sys.stdlib_module_names, "manim", "numpy", "scipy", "networkx", "pandas", "sympy", "PIL"}
_STANDARD = {"math", "cmath", "random", "itertools", "functools", "typing", "collections", "enum", "operator", "time"}


class ClassFacts(NamedTuple):
    """A class that all of the program knows; `bases` are the last parts of their dotted names."""

    name: str
    bases: list[str]
    scope: Any


class Program:
    """The facts of one program that the checks share. Raises what the parser raises for text that is none."""

    def __init__(self, code: str) -> None:
        self.code = code
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.scopes = _symtable.symtable(code, "<code>", "exec")
            if any(word in code for word in _LATE_WORDS) or ("return" in code and _LATE_RETURN.search(code)):
                compile(code, "<code>", "exec", dont_inherit=True)
        self.bad_escapes = sorted({each.lineno for each in caught if "invalid escape" in str(each.message)})
        self.all_scopes = _all(self.scopes)
        self.names, self.bound, self.used = _names(self.all_scopes)
        self.star_imports = _STAR_IMPORT.findall(code)

    @cached_property
    def tree(self) -> ast.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(self.code)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """The nodes of these kinds; parents come before their children of the same kind."""
        for kind in kinds:
            yield from self._by_kind.get(kind, ())

    @cached_property
    def _by_kind(self) -> dict[type[ast.AST], list[ast.AST]]:
        """One walk for all checks, in a third of the time that ast.walk takes."""
        groups: dict[type[ast.AST], list[ast.AST]] = {}
        found: list[ast.AST] = [self.tree]
        for node in found:
            kind = type(node)
            groups.setdefault(kind, []).append(node)
            if kind in _LEAVES:
                continue
            for name in _CHILDREN[kind]:
                value = getattr(node, name)
                if type(value) is list:
                    if value:
                        found += [each for each in value if isinstance(each, ast.AST)]
                elif isinstance(value, ast.AST):
                    found.append(value)
        return groups

    @cached_property
    def classes(self) -> dict[str, ClassFacts]:
        lines = _NEWLINE.split(self.code) if "\r" in self.code else self.code.split("\n")
        classes = [scope for scope in self.scopes.children if scope.type == _symtable.TYPE_CLASS]
        if "global" in self.code:
            classes = sorted([*classes, *self._classes_of_functions()], key=lambda scope: scope.lineno)
        return {scope.name: ClassFacts(scope.name, self._bases(scope, lines), scope) for scope in classes}

    def _classes_of_functions(self) -> Iterator[Any]:
        """The classes that functions bind for the whole program: `global Example`."""
        for scope in self.all_scopes[1:]:
            for child in scope.children:
                if child.type == _symtable.TYPE_CLASS and scope.symbols.get(child.name, 0) & _symtable.DEF_GLOBAL:
                    yield child

    @cached_property
    def scenes(self) -> list[ClassFacts]:
        """The classes that Manim can render, in the order of the program."""
        return self._scenes({}) or self._scenes(self._aliases())

    @cached_property
    def has_foreign_scene(self) -> bool:
        """Whether a scene comes from a class of another module, which may draw by itself."""
        return any(
            base not in self.classes and base not in manim_names("scene")
            for scene in self.scenes
            for base in scene.bases
        )

    @cached_property
    def may_draw_unseen(self) -> bool:
        """Whether pictures may come from elsewhere: from methods of a base class, or from a library of mobjects."""
        bases = {base for scene in self.scenes for base in scene.bases}
        if self.has_foreign_scene or bases & {"LinearTransformationScene", "VectorScene"}:
            return True
        return any(module not in _WITHOUT_MOBJECTS for module in self._imports())

    def undefined(self) -> set[str]:
        """Names that are used and that nothing binds; none when a star import of an unknown module may bind them."""
        unknown = self.used - self.bound - _BUILTINS
        if not unknown or {"globals", "exec"} & self.used:
            return set()
        for module in self.star_imports:
            if module == "manim":
                unknown = unknown - manim_names()  # not -=, which would walk the whole table
            elif module in _STANDARD:
                unknown = unknown - set(dir(importlib.import_module(module)))
            else:
                return set()
        return unknown

    def bound_anywhere(self) -> set[str]:
        """The names that are bound in some scope."""
        return {
            name for scope in self.all_scopes for name, flags in scope.symbols.items() if flags & _symtable.DEF_BOUND
        }

    def line_of(self, name: str) -> int | None:
        """The first line that uses the name."""
        return min((node.lineno for node in self.nodes(ast.Name) if node.id == name), default=None)

    def construct_is_empty(self) -> bool:
        """Whether every construct method there is uses no name at all: pass, ..., a docstring, a bare return."""
        constructs = list(self.constructs())
        return bool(constructs) and all(map(_does_nothing, constructs))

    def constructs(self) -> Iterator[Any]:
        """The scope of the construct method of every scene that has one or inherits one inside this program."""
        for scene in self.scenes:
            for ancestor in self._line(scene):
                methods = {child.name: child for child in ancestor.scope.children}
                if "construct" in ancestor.scope.symbols:
                    yield methods.get("construct")
                    break

    def _imports(self) -> Iterator[str]:
        """The packages that the program imports anywhere, by the first part of their names."""
        lines = _IMPORT.findall(self.code)
        if len(lines) == self.code.count("import") and not any(sign in self.code for sign in _OVER_LINES):
            yield from ((module or alone).partition(".")[0] for module, alone in lines)
            return
        for node in self.nodes(ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        for node in self.nodes(ast.ImportFrom):
            yield "" if node.level else str(node.module).partition(".")[0]

    def _line(self, scene: ClassFacts) -> list[ClassFacts]:
        """The class and its ancestors of this program, nearest first."""
        line = [scene]
        for each in line:
            line += [
                self.classes[base] for base in each.bases if base in self.classes and self.classes[base] not in line
            ]
        return line

    def _bases(self, scope: Any, lines: list[str]) -> list[str]:
        start = scope.lineno - 1
        header = _HEADER.match("\n".join(lines[start : start + 8]))
        if header and header[1] == scope.name:
            bases = [base.strip() for base in (header[2] or "").split(",")]
        else:  # calls, subscripts or comments in the list
            node = next(
                node for node in self.nodes(ast.ClassDef) if (node.name, node.lineno) == (scope.name, scope.lineno)
            )
            bases = [ast.unparse(base) for base in node.bases]
        return [base.rpartition(".")[2] for base in bases if base and "=" not in base]

    def _scenes(self, aliases: dict[str, str]) -> list[ClassFacts]:
        found: dict[str, ClassFacts] = {}
        for facts in self.classes.values():
            bases = [aliases.get(base, base) for base in facts.bases]
            if any(base in found if base in self.classes else _is_scene(base) for base in bases):
                found[facts.name] = facts
        return list(found.values())

    def _aliases(self) -> dict[str, str]:
        """What `from manim import Scene as S` and `S = Scene` call by another name."""
        aliases: dict[str, str] = {}
        for node in self.tree.body:
            match node:
                case ast.ImportFrom(names=names):
                    aliases |= {each.asname: each.name for each in names if each.asname}
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute()):
                    last = ast.unparse(node.value).rpartition(".")[2]
                    aliases[name] = aliases.get(last, last)
        return aliases


@cache
def manim_names(kind: str | None = None) -> frozenset[str]:
    """What `from manim import *` binds, or only the names of one kind: mobject, animation, scene."""
    rows = (line.split() for line in Path(__file__).with_name("manim_names.txt").read_text("utf-8").splitlines()[1:])
    return frozenset(name for name, is_a in rows if kind in (None, is_a))


@cache
def manim_version() -> str:
    with Path(__file__).with_name("manim_names.txt").open(encoding="utf-8") as file:
        header = file.readline()
    return header.partition("of Manim ")[2].partition(";")[0]


def _is_scene(base: str) -> bool:
    # Manim's own, those of older versions and add-ons (GraphScene, VoiceoverScene), and those of the row's project all
    # end so; whether the name is defined is another check's question.
    return base.endswith(("Scene", "Slide"))


def _does_nothing(method: Any | None) -> bool:
    if method is None or method.children:
        return False
    return not any(flags & _symtable.USE for flags in method.symbols.values())


def _all(scope: Any) -> list[Any]:
    scopes = [scope]
    for each in scopes:
        scopes += each.children
    return scopes


def _names(scopes: list[Any]) -> tuple[set[str], set[str], set[str]]:
    """All names, those that the program binds for all its scopes, and the global ones that its scopes use."""
    bound = {name for name, flags in scopes[0].symbols.items() if flags & _symtable.DEF_BOUND}
    names: set[str] = set()
    used: set[str] = set()
    for scope in scopes:
        names.update(scope.symbols)
        for name, flags in scope.symbols.items():
            if flags >> _symtable.SCOPE_OFF & _symtable.SCOPE_MASK in _GLOBAL:
                if flags & _symtable.DEF_BOUND:  # `global name` and an assignment to it
                    bound.add(name)
                if flags & _symtable.USE:
                    used.add(name)
    return names, bound, used
