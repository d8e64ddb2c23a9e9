"""Python files of a repository as modules that know what they define, what they import, and which scenes they hold."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from posixpath import normpath

SCENES = {
    "Scene",
    "ThreeDScene",
    "MovingCameraScene",
    "ZoomedScene",
    "VectorScene",
    "LinearTransformationScene",
    "GraphScene",
    "VoiceoverScene",
    "SpecialThreeDScene",
    "SampleSpaceScene",
    "InteractiveScene",
    "SpaceScene",
    "Slide",
    "ThreeDSlide",
}
MANIMGL = {"manimlib", "big_ol_pile_of_manim_imports", "manim_imports_ext"}


@dataclass
class Import:
    """One imported name: `from module import name as bound`, or `import module as bound` when name is empty."""

    module: str
    name: str
    bound: str


@dataclass
class Module:
    """One file. `binds` has the statements of the top level by the names that they define."""

    path: str
    text: str
    tree: ast.Module
    binds: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class Modules(dict[str, Module]):
    """The modules of a repository by path."""

    def __init__(self, given: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.added: dict[str, None] = {}
        for path, module in (given or {}).items():
            self[path] = module

    def __setitem__(self, path: str, module: Module) -> None:
        """Keep the module, and what it adds to sys.path: one program does so for all that it imports."""
        super().__setitem__(path, module)
        self.added |= dict.fromkeys(module.paths)

    def find(self, name: str, importer: str) -> Module | None:
        """The file that an import means: beside the importer, in a folder above it, or in src/ of those.

        Also in the folders that a program of the repository adds to sys.path, seen from where it may be run.
        """
        place = PurePosixPath(*name.split("."))
        for folder in PurePosixPath(importer).parents:
            more = (PurePosixPath(normpath(folder / path)) for path in self.added)
            for base in (folder, folder / "src", *more):
                for path in (base / place.with_suffix(".py"), base / place / "__init__.py"):
                    if str(path) in self and str(path) != importer:
                        return self[str(path)]
        return None


def decode(data: bytes) -> str:
    """The text as its own first lines say; else Latin-1, in which any file is a text. One kind of line end."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def parse(text: str) -> ast.Module:
    """SyntaxError or ValueError when it is not Python; what is odd in its strings is nobody's business here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (RecursionError, MemoryError) as error:
            raise ValueError("the parser gives up") from error


def without_tabs(text: str) -> str:
    """Spaces where lines are indented by tabs, unless that would change the program."""
    if "\t" not in text:
        return text
    lines = [
        line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4) + line.lstrip(" \t") for line in text.split("\n")
    ]
    try:
        same = ast.dump(parse("\n".join(lines))) == ast.dump(parse(text))
    except (SyntaxError, ValueError, RecursionError):  # the latter where the tree is too deep to be compared
        return text
    return "\n".join(lines) if same else text


def read_module(path: str, text: str) -> Module:
    """The module of one text; SyntaxError or ValueError when it is not Python."""
    module = Module(path, text, parse(text))
    for statement in module.tree.body:
        if not is_main(statement):
            _bind(module, statement, statement)
        if isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("sys.path."):
            constants = (node.value for node in ast.walk(statement) if isinstance(node, ast.Constant))
            module.paths += [value for value in constants if isinstance(value, str)]
    return module


def is_main(statement: ast.stmt) -> bool:
    """Is it `if __name__ == "__main__":`?"""
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def _bind(module: Module, node: ast.stmt, statement: ast.stmt) -> None:
    if isinstance(node, ast.Import | ast.ImportFrom) and node is statement:
        _bind_import(module, node)
        return
    for name in _names(node):
        module.binds.setdefault(name, []).append(statement)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler):
            for inner in child.body:
                _bind(module, inner, statement)
        elif isinstance(child, ast.stmt) and not isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            _bind(module, child, statement)


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.split(".")[0] for alias in names)
        case _:
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, ast.stmt | ast.ExceptHandler):
                    found = (part for part in ast.walk(child) if isinstance(part, ast.Name))
                    yield from (name.id for name in found if isinstance(name.ctx, ast.Store))


def _bind_import(module: Module, node: ast.Import | ast.ImportFrom) -> None:
    base = _absolute(module.path, node) if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        if alias.name == "*":
            module.stars.append(base)
        elif isinstance(node, ast.ImportFrom):
            module.imports[alias.asname or alias.name] = Import(base, alias.name, alias.asname or alias.name)
        else:
            bound = alias.asname or alias.name.split(".")[0]
            module.imports[bound if alias.asname else alias.name] = Import(alias.name, "", bound)


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """The module named without dots: those of a relative import are counted from the top folder."""
    folders = list(PurePosixPath(path).parent.parts)
    base = folders[: len(folders) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def imported(module: Module) -> set[str]:
    """The first part of every module name that is imported, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def scenes(modules: Modules, module: Module) -> list[ast.ClassDef]:
    """The scene classes at the top level, in the order of the file."""
    classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    found = (node for node in classes if any(_is_scene(modules, module, base, set()) for base in node.bases))
    return sorted(found, key=lambda node: node.lineno)


def has_construct(modules: Modules, module: Module, node: ast.ClassDef, seen: frozenset[int] = frozenset()) -> bool:
    """Does the class, or one that it is derived from in this repository, say what is shown?"""
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    if names & {"construct", "setup_construct"} or id(node) in seen:
        return bool(names & {"construct"})
    for base in node.bases:
        home, parent = _definition(modules, module, ast.unparse(base), set())
        if home and parent and has_construct(modules, home, parent, seen | {id(node)}):
            return True
    return False


def _is_scene(modules: Modules, module: Module, base: ast.expr, seen: set[tuple[str, str]]) -> bool:
    name = ast.unparse(base)
    home, node = _definition(modules, module, name, set())
    if home and node:
        if (home.path, node.name) in seen:
            return False
        seen.add((home.path, node.name))
        if node.name in SCENES:  # the repository of Manim itself
            return True
        return any(_is_scene(modules, home, parent, seen) for parent in node.bases)
    last = _real_name(module, name).rpartition(".")[2]
    return last in SCENES or last.endswith(("Scene", "Slide"))


def _real_name(module: Module, name: str) -> str:
    """The name behind `from manim import Scene as S` and behind `S = Scene`."""
    for _ in range(10):
        given = module.imports.get(name)
        if given and given.name:
            return given.name
        match module.binds.get(name, [None])[-1]:
            case ast.Assign(value=ast.Name() | ast.Attribute() as value):
                name = ast.unparse(value)
            case _:
                break
    return name


def _definition(
    modules: Modules, module: Module, name: str, seen: set[tuple[str, str]]
) -> tuple[Module | None, ast.ClassDef | None]:
    """The class of this repository that a name means in a module, and the module that it stands in."""
    if (module.path, name) in seen:
        return None, None
    seen.add((module.path, name))
    match module.binds.get(name, [None])[-1]:
        case ast.ClassDef() as node:
            return module, node
        case ast.Assign(value=ast.Name() | ast.Attribute() as value):
            return _definition(modules, module, ast.unparse(value), seen)
    for target, wanted in _elsewhere(modules, module, name):
        found = _definition(modules, target, wanted, seen)
        if found[1]:
            return found
    return None, None


def _elsewhere(modules: Modules, module: Module, name: str) -> Iterator[tuple[Module, str]]:
    """The modules that a name may come from, and its name there."""
    head, _, last = name.rpartition(".")
    given = module.imports.get(head or name)
    if given:
        wanted = ".".join(filter(None, [given.module, given.name if head else ""]))
        if target := modules.find(wanted, module.path):
            yield target, last if head else given.name
    for star in module.stars if not head else []:
        if star.split(".")[0] != "manim" and (target := modules.find(star, module.path)):
            yield target, name
