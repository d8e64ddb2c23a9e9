"""Replaces what a program takes from files beside it: pictures by shapes, small texts by themselves."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from extractors._modules import parse
from extractors._stand_ins import stand_in

# More text than this is data that no model should learn by heart.
LARGEST_TEXT = 4_000
_PICTURES = {"ImageMobject", "SVGMobject"}

Edit = tuple[int, int, str]
ReadText = Callable[[str], str | None]


def apply(text: str, edits: list[Edit]) -> str:
    """The text with its edits, which are places in its UTF-8 bytes; one inside another is left out."""
    data = text.encode("utf-8", "surrogatepass")
    pieces, end = [], 0
    for start, stop, new in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= end:
            pieces += [data[end:start], new.encode("utf-8", "surrogatepass")]
            end = stop
    return b"".join([*pieces, data[end:]]).decode("utf-8", "surrogatepass")


def places(text: str) -> Callable[[ast.AST], tuple[int, int]]:
    """A function that tells where a node begins and ends in the UTF-8 bytes of the text."""
    starts = [0]
    for line in text.encode("utf-8", "surrogatepass").split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def span(node: ast.AST) -> tuple[int, int]:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        end_line, end_column = getattr(node, "end_lineno", 1), getattr(node, "end_col_offset", 0)
        return starts[line - 1] + column, starts[end_line - 1] + end_column

    return span


def replace_assets(text: str) -> str:
    """Pictures become a shape with the name of the picture on it, sounds become silence."""
    span, tree = places(text), parse(text)
    edits, needed = list[Edit](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _is_sound(node.value):
            edits.append((*span(node), "pass"))
        elif isinstance(node, ast.Call) and _is_picture(node):
            shape, names = _shape(node)
            edits.append((*span(node), shape))
            needed |= names
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "manim":
            # A program that imports the names of Manim one by one has to import those of the shapes, too.
            edits += [(*span(one), ", ".join([one.name, *sorted(needed)])) for one in node.names if _is_named(one)]
    return apply(text, edits)


def _is_named(imported: ast.alias) -> bool:
    return imported.name in _PICTURES and not imported.asname


def assets(tree: ast.AST) -> Iterator[str]:
    """The calls that need a picture or a sound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (_is_picture(node) or _is_sound(node)):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.ClassDef):
            yield from (name for name in map(ast.unparse, node.bases) if name.rpartition(".")[2] in _PICTURES)


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _is_picture(node: ast.Call) -> bool:
    # An array is a picture that the program itself makes.
    arrays = ("np.", "numpy.")
    return _called(node) in _PICTURES and not (node.args and ast.unparse(node.args[0]).startswith(arrays))


def _is_sound(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "add_sound"


def _shape(node: ast.Call) -> tuple[str, set[str]]:
    """What stands for a picture, and the names in it that have to be imported."""
    named = [node.args[0]] if node.args else [word.value for word in node.keywords if word.arg in _NAMES]
    prefix = f"{ast.unparse(node.func.value)}." if isinstance(node.func, ast.Attribute) else ""
    shape, names = stand_in(_stem(named[0]) if named else "", prefix)
    sizes = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg in ("width", "height")}
    scaled = "".join(f".scale_to_fit_{side}({size})" for side, size in sizes.items() if size != "None")
    return shape + scaled, set() if prefix else names


_NAMES = ("filename_or_array", "file_name")


def _stem(name: ast.expr) -> str:
    """The file name without its folder and suffix, as far as it is a constant."""
    constants = [
        part.value for part in ast.walk(name) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    return PurePosixPath("".join(constants)).stem


def inline_texts(text: str, read: ReadText) -> str:
    """`open("x").read()` becomes the text of x, any other `open("x")` a file in memory."""
    span = places(text)
    edits, needs_io = [], False
    for node in ast.walk(parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(attr="read", value=ast.Call() as opened), args=[]):
                content = _content(opened, read)
                if content is not None:
                    edits.append((*span(node), repr(content)))
            case ast.Call():
                content = _content(node, read)
                if content is not None:
                    edits.append((*span(node), f"io.StringIO({content!r})"))
    new = apply(text, edits)
    needs_io = "io.StringIO(" in new and "io.StringIO(" not in text
    return _import_io(new) if needs_io else new


def _import_io(text: str) -> str:
    """Below the docstring and the imports from __future__, which must come first."""
    first = 0
    for statement in parse(text).body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_text and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        first = statement.end_lineno or 0
    lines = text.split("\n")
    return "\n".join([*lines[:first], "import io", *lines[first:]])


def _content(node: ast.Call, read: ReadText) -> str | None:
    match node:
        case ast.Call(func=ast.Name(id="open"), args=[ast.Constant(value=str() as name), *rest]):
            mode = rest[0].value if rest and isinstance(rest[0], ast.Constant) else "r"
            text = read(name) if mode in ("r", "rt") and _reads(node) else None
            return text if text is not None and len(text) <= LARGEST_TEXT else None
    return None


def opened(tree: ast.AST) -> Iterator[str]:
    """The calls that read a file which the record does not hold."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open" and _reads(node):
            yield ast.unparse(node)


def _reads(node: ast.Call) -> bool:
    modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
    return not any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)
