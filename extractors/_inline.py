"""Makes a scene stand alone: the scene, and of the repository only what it needs, in an order that runs.

Names decide: those that a statement uses are looked up in its module and in the modules that it imports from the same
repository, and what defines them is taken along, until nothing is missing.
"""

from __future__ import annotations

import ast
import symtable
import warnings
from typing import NamedTuple

from extractors._modules import Import, Module, Modules, is_main
from extractors._rewrites import Edit, apply, places

# Settings of the picture: they belong to every scene of the file.
_SETTINGS = {"config"}
_PATH_HACKS = ("sys.path", "os.chdir", "importlib.reload")


class Unfit(Exception):
    """Why a scene can not stand alone."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Piece(NamedTuple):
    path: str
    line: int
    text: str
    names: tuple[str, ...]


def stand_alone(modules: Modules, module: Module, scene: ast.stmt, name: str, kept: set[str]) -> str:
    """The program of one scene; imports of the packages `kept` stay imports. Unfit when it can not be."""
    closure = _Closure(modules, kept, module, name)
    closure.take(module, scene)
    while closure.settle():
        pass
    return closure.program()


class _Closure:
    """What was taken so far."""

    def __init__(self, modules: Modules, kept: set[str], home: Module, scene: str) -> None:
        self.modules, self.kept, self.home, self.scene = modules, kept, home, scene
        self.pieces: dict[tuple[str, int], _Piece] = {}
        self.after: dict[str, list[str]] = {}
        self.imports: dict[str, None] = {}
        self.needed: dict[str, dict[str, bool]] = {}
        self.visited: dict[str, Module] = {}

    def take(self, module: Module, statement: ast.stmt) -> None:
        """Take one statement, and all that it needs."""
        key = (module.path, statement.lineno * 1000 + statement.col_offset)
        if key in self.pieces:
            return
        text, extra = self._plain(module, statement)
        defined = tuple(name for name, found in module.binds.items() if statement in found)
        self.pieces[key] = _Piece(module.path, key[1], text, defined)
        self.visit(module)
        for name in sorted(_uses(text)):
            self.need(module, name)
        for target, name in extra:
            self.need_from(module, target, name)

    def need_from(self, module: Module, target: Module, name: str) -> bool:
        """Take what another module defines; its part of the program has to stand first."""
        known = self.need(target, name)
        if known:
            self.after.setdefault(module.path, []).append(target.path)
        return known

    def visit(self, module: Module) -> None:
        """The names that a module has from everywhere come with it."""
        if module.path in self.visited:
            return
        self.visited[module.path] = module
        for star in module.stars:
            target = self.local(star, module)
            if target:
                self.visit(target)
            elif not star.startswith("manim_voiceover"):
                self.imports[f"from {star} import *"] = None

    def need(self, module: Module, name: str) -> bool:
        """Take what defines a name; False when this module does not know it."""
        needed = self.needed.setdefault(module.path, {})
        if name in needed:
            return needed[name]
        given = [item for item in module.imports.values() if item.bound == name]
        # Noted before it is taken: modules may import each other.
        needed[name] = bool(given) or name in module.binds
        self.visit(module)
        if name in module.binds:
            if name != self.scene or module is not self.home:
                for statement in _last_definition(module.binds[name]):
                    self.take(module, statement)
        elif given:
            for item in given:
                self.take_import(module, item)
        else:
            targets = [self.local(star, module) for star in module.stars]
            needed[name] = any(target is not None and self.need_from(module, target, name) for target in targets)
        return needed[name]

    def take_import(self, module: Module, item: Import) -> None:
        wanted = ".".join(filter(None, [item.module, item.name]))
        if wanted.split(".")[0] not in self.kept and self.modules.find(wanted, module.path):
            raise Unfit("module_object", f"{module.path} uses the module {wanted} of the repository as a value")
        target = self.local(item.module, module)
        if target is None:
            self.imports[_line(item)] = None
            return
        if self.need_from(module, target, item.name):
            if item.bound != item.name:
                line = 10**6 * -1 + len(self.pieces)
                self.pieces[(module.path, line)] = _Piece(
                    module.path, line, f"{item.bound} = {item.name}", (item.bound,)
                )
        else:
            raise Unfit("missing_name", f"{module.path} imports {item.name} from {target.path}, which has none")

    def local(self, name: str, importer: Module) -> Module | None:
        """The file of the repository that an import means; Unfit when it should be there and is not."""
        first = name.split(".")[0]
        if first in self.kept:
            return None
        found = self.modules.find(name, importer.path)
        if found is None and (not name or any(path.split("/")[0] == first for path in self.modules if "/" in path)):
            raise Unfit("missing_module", f"{importer.path} imports {name or '.'}, which the repository does not hold")
        return found

    def settle(self) -> bool:
        """Take the statements that change what was taken; True when there were some."""
        before = len(self.pieces)
        for module in list(self.visited.values()):
            taken = {name for piece in self.pieces.values() if piece.path == module.path for name in piece.names}
            known = (taken - {self.scene}) | _SETTINGS | (set(self.needed.get(module.path, {})) & _bound(module))
            for statement in module.tree.body:
                if changes(statement) & known and not _is_hack(statement):
                    self.take(module, statement)
        return len(self.pieces) > before

    def _plain(self, module: Module, statement: ast.stmt) -> tuple[str, list[tuple[Module, str]]]:
        """The text of a statement, with `utils.draw` of a module of the repository as `draw`."""
        edits: list[Edit] = []
        extra: list[tuple[Module, str]] = []
        span = places(module.text)
        start, end = span(statement)
        for decorator in getattr(statement, "decorator_list", []):
            start = min(start, span(decorator)[0] - 1)
        stored = {
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        stored |= {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and (target := self._module_of(module, node.value)):
                if node.attr in stored:
                    raise Unfit("name_clash", f"{module.path}: {node.attr} is a name of {target.path} and a variable")
                edits.append((*span(node), node.attr))
                extra.append((target, node.attr))
            elif isinstance(node, ast.Import | ast.ImportFrom) and node is not statement:
                self._refuse_inner(module, node)
        moved = [(left - start, right - start, new) for left, right, new in edits]
        data = module.text.encode("utf-8", "surrogatepass")[start:end].decode("utf-8", "surrogatepass")
        return apply(data, moved), extra

    def _module_of(self, module: Module, value: ast.expr) -> Module | None:
        """The module of the repository that an expression means: `utils`, or `pkg.utils`."""
        if not isinstance(value, ast.Name | ast.Attribute):
            return None
        given = module.imports.get(ast.unparse(value))
        if given is None:
            return None
        wanted = ".".join(filter(None, [given.module, given.name]))
        return None if wanted.split(".")[0] in self.kept else self.modules.find(wanted, module.path)

    def _refuse_inner(self, module: Module, node: ast.Import | ast.ImportFrom) -> None:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for name in names:
            if (isinstance(node, ast.ImportFrom) and node.level) or self.local(name, module):
                raise Unfit(
                    "inner_import", f"{module.path}:{node.lineno}: imports a file of the repository inside code"
                )

    def program(self) -> str:
        """All that was taken as one text: imports, then each module after those that it needs."""
        self._refuse_clashes()
        lines = list(self.imports)
        first = [line for line in lines if line.startswith("from __future__")]
        rest = [line for line in lines if line not in first]
        stars = [line for line in rest if line == "from manim import *"]
        if not any(line.startswith(("from manim ", "from manim.", "import manim")) for line in rest):
            stars = ["from manim import *"]
        head = [*first, *stars, *(line for line in rest if line not in stars)]
        order = self._order(self.home.path, [])
        # A module of which only the settings are taken is needed by nobody.
        order = [*sorted({piece.path for piece in self.pieces.values()} - set(order)), *order]
        pieces = sorted(self.pieces.values(), key=lambda piece: (order.index(piece.path), piece.line))
        return "\n".join(head) + "\n\n\n" + "\n\n".join(piece.text for piece in pieces) + "\n"

    def _order(self, path: str, seen: list[str]) -> list[str]:
        """The modules, each after those that it needs; in a circle, the first that was met comes last."""
        seen.append(path)
        before = [
            found
            for other in dict.fromkeys(self.after.get(path, []))
            if other not in seen
            for found in self._order(other, seen)
        ]
        return [*before, path]

    def _refuse_clashes(self) -> None:
        homes: dict[str, str] = {}
        for piece in self.pieces.values():
            for name in piece.names:
                if homes.setdefault(name, piece.path) != piece.path:
                    raise Unfit("name_clash", f"{homes[name]} and {piece.path} both define {name}")


def _last_definition(found: list[ast.stmt]) -> list[ast.stmt]:
    """A second class or function of a name replaces the first; a second assignment may use it."""
    for position in range(len(found) - 1, -1, -1):
        if isinstance(found[position], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            return found[position:]
    return found


def _line(item: Import) -> str:
    if item.name:
        bound = "" if item.bound == item.name else f" as {item.bound}"
        return f"from {item.module} import {item.name}{bound}"
    bound = "" if item.bound == item.module.split(".")[0] else f" as {item.bound}"
    return f"import {item.module}{bound}"


def _bound(module: Module) -> set[str]:
    return set(module.binds) | {item.bound for item in module.imports.values()}


def changes(statement: ast.stmt) -> set[str]:
    """The names of what a statement without a name of its own changes: `random.seed(1)`, `table["x"] = 1`."""
    if is_main(statement):
        return set()
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute() as changed)) | ast.AugAssign(target=changed):
            return _root(changed)
        case ast.Assign(targets=targets):
            return {name for target in targets if not isinstance(target, ast.Name) for name in _root(target)}
        case ast.For() | ast.While() | ast.With():
            return {name for inner in statement.body for name in changes(inner)}
    return set()


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _is_hack(statement: ast.stmt) -> bool:
    return any(hack in ast.unparse(statement) for hack in _PATH_HACKS)


def _uses(text: str) -> set[str]:
    """The names that a statement takes from its module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = symtable.symtable(text, "statement", "exec")
    found = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return found
