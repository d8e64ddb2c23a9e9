"""The rows of the scenes of a repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import click

from extractors._inline import Unfit, stand_alone
from extractors._modules import (
    MANIMGL,
    Module,
    Modules,
    decode,
    has_construct,
    imported,
    parse,
    read_module,
    scenes,
    without_tabs,
)
from extractors._repository import Repository
from extractors._rewrites import assets, inline_texts, opened, replace_assets
from extractors._rows import BadRow
from extractors._voiceover import rewrite_voiceover, speaks

Row = dict[str, Any] | BadRow


class Wishes(NamedTuple):
    """What a source says about its scenes."""

    assets: str
    voiceover: str
    whole_files: bool
    kept: set[str]
    youtube: dict[str, str]
    path_pattern: str | None = None
    title: str | None = None


def rows_of(repository: Repository, wanted: list[str], wishes: Wishes) -> Iterator[Row]:
    """One row for each scene of the wanted files; the other files are there to be imported."""
    check_title(wishes)
    modules = Modules()
    texts: dict[str, str] = {}
    broken: dict[str, BadRow] = {}
    for path, data in repository.files.items():
        if path.endswith(".py"):
            texts[path] = decode(data)
            try:
                texts[path] = without_tabs(texts[path])
                modules[path] = prepare(repository, path, texts[path], wishes)
            except (SyntaxError, ValueError) as error:
                line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
                broken[path] = _bad(repository, path, 1, "file_not_python", f"{path}: {line}", texts[path])
            except RecursionError:
                broken[path] = _bad(repository, path, 1, *_too_deep(path), texts[path])
    for path in wanted:
        if path in modules:
            try:
                yield from _rows_of_file(repository, modules, modules[path], texts[path], wishes)
            except RecursionError:
                yield _bad(repository, path, 1, *_too_deep(path), texts[path])
        elif re.search(r"\bclass\b.*Scene", texts[path]):
            yield broken[path]


def prepare(repository: Repository, path: str, text: str, wishes: Wishes) -> Module:
    """A module without what it takes from elsewhere, as far as the source wants that."""

    def read(name: str) -> str | None:
        for folder in PurePosixPath(path).parents:
            data = repository.files.get(str(folder / name))
            if data is not None:
                return decode(data)
        return None

    parse(text)
    text = inline_texts(text, read) if "open(" in text else text
    text = replace_assets(text) if wishes.assets == "replace" else text
    text = rewrite_voiceover(text) if wishes.voiceover == "rewrite" else text
    return read_module(path, text)


def _rows_of_file(repository: Repository, modules: Modules, module: Module, text: str, wishes: Wishes) -> Iterator[Row]:
    lines = _class_lines(text)
    found = scenes(modules, module)
    if wishes.whole_files and found:
        yield _row(repository, module, None, 1, wishes, modules, text)
        return
    seen: dict[str, int] = {}
    for node in found:
        number = seen[node.name] = seen.get(node.name, -1) + 1
        line = (lines.get(node.name) or [node.lineno])[min(number, len(lines.get(node.name, [0])) - 1)]
        yield _row(repository, module, node, line, wishes, modules, text)


def _class_lines(text: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for node in sorted(
        (node for node in ast.walk(parse(text)) if isinstance(node, ast.ClassDef)), key=lambda node: node.lineno
    ):
        found.setdefault(node.name, []).append(node.lineno)
    return found


def _row(
    repository: Repository,
    module: Module,
    node: ast.ClassDef | None,
    line: int,
    wishes: Wishes,
    modules: Modules,
    text: str,
) -> Row:
    try:
        refuse_manimgl(module)
        if node is None:
            code = _whole(modules, module, wishes.kept)
        else:
            code = scene_program(modules, module, node, wishes.kept)
        refuse_unfit(code, wishes)
    except Unfit as unfit:
        name = node.name if node else PurePosixPath(module.path).stem
        return _bad(repository, module.path, line, unfit.code, f"{module.path}: {name}: {unfit.message}", text)
    except RecursionError:
        return _bad(repository, module.path, line, *_too_deep(module.path), text)
    origin = {**repository.origin, "path": module.path, "line": line}
    metadata = {"kind": "code", "needs_description": True, "licence": repository.licence, "origin": origin}
    names = {"scene": node.name} if node else {"scenes": [scene.name for scene in scenes(modules, module)]}
    context = _context(module.tree, text, node, line)
    return {
        "description": "",
        "code": code,
        "metadata": metadata
        | names
        | ({"original_context": context} if context else {})
        | _titles(module.path, node, wishes),
    }


def _too_deep(path: str) -> tuple[str, str]:
    return "nested_too_deep", f"{path}: an expression of hundreds of terms; its tree is too deep to be looked through"


def scene_program(modules: Modules, module: Module, node: ast.ClassDef, kept: set[str]) -> str:
    """The program of one scene; Unfit when there is none."""
    if node not in module.tree.body and not any(node in ast.walk(item) for item in module.tree.body if _is_block(item)):
        raise Unfit("nested_scene", "the class stands inside a function or a class")
    if not has_construct(modules, module, node):
        raise Unfit("no_construct", "neither the class nor one that it is derived from has a method construct")
    statement = next(item for item in module.tree.body if node is item or node in ast.walk(item))
    try:
        return stand_alone(modules, module, statement, node.name, kept)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Unfit("does_not_parse", f"what it needs can not be followed: {error}") from error


def _is_block(item: ast.stmt) -> bool:
    return isinstance(item, ast.If | ast.Try)


def refuse_manimgl(module: Module) -> None:
    if names := sorted(imported(module) & MANIMGL):
        raise Unfit("manimgl", f"imports {', '.join(names)}: it is written for ManimGL")


def refuse_unfit(code: str, wishes: Wishes) -> None:
    """Unfit when a program does not parse, or needs what is not there."""
    try:
        tree = parse(code)
    except (SyntaxError, ValueError) as error:
        raise Unfit("does_not_parse", f"what was put together does not parse: {error}") from error
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if found := sorted({name.split(".")[0] for name in names} & MANIMGL):
        raise Unfit("manimgl", f"needs {', '.join(found)}: it is written for ManimGL")
    if speaks(tree):
        raise Unfit("voiceover", "needs the package manim_voiceover")
    if wishes.assets != "keep" and (needed := next(assets(tree), None)):
        raise Unfit("needs_asset", f"{needed} needs a file that the record does not hold")
    if call := next(opened(tree), None):
        raise Unfit("needs_file", f"{call} needs a file that the record does not hold")


def _whole(modules: Modules, module: Module, kept: set[str]) -> str:
    for name in sorted({*module.stars, *(item.module for item in module.imports.values())}):
        if name.split(".")[0] not in kept and modules.find(name, module.path):
            raise Unfit("local_import", f"imports {name} of the same repository; whole_files keeps files apart")
    return module.text


def _bad(repository: Repository, path: str, line: int, code: str, message: str, raw: str) -> BadRow:
    return BadRow(code, message, {**repository.origin, "path": path, "line": line}, raw[:20_000])


def _context(tree: ast.Module, text: str, node: ast.ClassDef | None, line: int) -> str:
    """What the author says: the docstring of the file, the comment above the class, the docstring of the class."""
    lines = text.split("\n")
    first = line - 1
    while node and first > 0 and lines[first - 1].startswith(("#", "@")):
        first -= 1
    comment = [row.lstrip("# ") for row in lines[first : line - 1] if row.startswith("#")] if node else []
    parts = [ast.get_docstring(tree), "\n".join(comment), ast.get_docstring(node) if node else None]
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def check_title(wishes: Wishes) -> None:
    """UsageError for a pattern or a title that can not be used."""
    try:
        groups = re.compile(wishes.path_pattern or "").groupindex
        (wishes.title or "").format(**dict.fromkeys([*groups, "scene", "path"], ""))
    except re.error as error:
        raise click.UsageError(f"path_pattern {wishes.path_pattern!r}: {error}") from error
    except (KeyError, IndexError, ValueError) as error:
        raise click.UsageError(f"title {wishes.title!r}: {error} is no group of path_pattern, scene or path") from error


def _titles(path: str, node: ast.ClassDef | None, wishes: Wishes) -> dict[str, Any]:
    found = re.search(wishes.path_pattern, path) if wishes.path_pattern else None
    groups = {name: value for name, value in (found.groupdict() if found else {}).items() if value is not None}
    facts: dict[str, Any] = {name: int(value) if value.isdecimal() else value for name, value in groups.items()}
    scene = node.name if node else PurePosixPath(path).stem
    if wishes.title and (found or not wishes.path_pattern):
        empty = dict.fromkeys(found.groupdict() if found else {}, "")
        facts["video_title"] = wishes.title.format(**{**empty, **facts, "scene": scene, "path": path}).strip()
    films = [url for name, url in wishes.youtube.items() if name == scene or path.startswith(name)]
    return facts | ({"youtube_url": films[0]} if films else {})
