"""The scenes of Jupyter notebooks: one record for each scene in a cell, with what it needs of the other cells.

    my_notebooks:
      type: notebook
      path: lessons/              # a notebook, or a folder; or repo, url and revision as in the type github
      include: ["*.ipynb"]
      exclude: ["*/old/*"]
      assets: replace             # and voiceover, keep_imports and youtube as in the type github
      describe: true              # take the Markdown before a cell as its description, not only as its context

Magics such as `%%manim -v WARNING -ql Name` are left out. Nothing is run.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from extractors._fetch import Fetch
from extractors._inline import Unfit, changes
from extractors._modules import Modules, decode, parse, read_module, scenes
from extractors._repository import Repository, chosen, is_cached, left_out, needs, open_repositories
from extractors._rows import BadRow
from extractors._scenes import Wishes, prepare, refuse_manimgl, refuse_unfit, scene_program

__all__ = ["extract", "is_cached", "needs"]

_MAGIC = re.compile(r"^\s*[%!?]")
Row = dict[str, Any] | BadRow


class _Cell(NamedTuple):
    """Where a cell stands, what is said above it, and whether that describes its first scene."""

    place: dict[str, Any]
    words: str
    describe: bool

    @property
    def named(self) -> str:
        return f"{self.place['path']}: cell {self.place['cell']}"


def extract(
    *,
    fetch: Fetch,
    repo: str | list[str] | None = None,
    url: str | None = None,
    path: str | None = None,
    revision: str | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    assets: Literal["keep", "replace", "reject"] = "replace",
    voiceover: Literal["rewrite", "reject"] = "rewrite",
    keep_imports: list[str] | None = None,
    youtube: dict[str, str] | None = None,
    describe: bool = False,
) -> Iterator[Row]:
    """One row for each scene, in the order of the notebooks and of their cells."""
    wishes = Wishes(assets, voiceover, False, {"manim", *(keep_imports or [])}, youtube or {})
    for repository in open_repositories(fetch, repo, url, path, revision):
        yield from left_out(repository, include or ["*.ipynb"], exclude or [])
        modules = _modules_of(repository, wishes)
        for name in chosen(repository.files, include or ["*.ipynb"], exclude or []):
            if name.endswith(".ipynb"):
                yield from _rows_of(repository, modules, name, wishes, describe)


def _rows_of(repository: Repository, beside: Modules, name: str, wishes: Wishes, describe: bool) -> Iterator[Row]:
    try:
        cells = [(str(cell["cell_type"]), _text(cell)) for cell in _cells(repository.files[name])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield BadRow("not_a_notebook", f"{name}: no cells can be read: {error}", {**repository.origin, "path": name})
        return
    programs = [_program(text) if kind == "code" else None for kind, text in cells]
    words: list[str] = []
    fresh = False
    for number, (kind, text) in enumerate(cells):
        if kind == "markdown":
            # What stands over several cells is said of all of them, until something else is said.
            fresh = True
            words = [*words, text] if number and cells[number - 1][0] == "markdown" else [text]
            continue
        cell = _Cell(
            {**repository.origin, "path": name, "cell": number}, "\n\n".join(words).strip(), describe and fresh
        )
        program = programs[number]
        if program is None:
            yield from _broken(cell, text) if kind == "code" else []
            continue
        found: list[Row] = []
        if "class" in program:
            around = _around([one for one in programs[:number] if one], program, programs[number + 1 :])
            found = list(_rows_of_cell(repository, beside, cell, around, program, wishes))
        yield from found
        # Two scenes with one description would be taken for duplicates: it is that of the first.
        fresh = fresh and not found


def _program(text: str) -> str | None:
    program = without_magics(text)
    try:
        parse(program)
    except (SyntaxError, ValueError):
        return None
    return program


def _broken(cell: _Cell, text: str) -> Iterator[Row]:
    """A reject for a cell that is not Python, if it looks like a scene."""
    program = without_magics(text)
    if re.search(r"\bclass\b.*Scene", program):
        try:
            parse(program)
        except (SyntaxError, ValueError) as error:
            yield BadRow("cell_not_python", f"{cell.named}: {error}", cell.place, program)


def _around(before: list[str], program: str, after: list[str | None]) -> str:
    """What a cell may use: the cells before it, and of those after it what nothing so far has a name for.

    Cells are run in any order; who reads the notebook from top to bottom may still not find a helper.
    """
    module = read_module("cells.py", "\n".join([*before, program]))
    known = set(module.binds) | {item.bound for item in module.imports.values()}
    added: list[str] = []
    for later in filter(None, after):
        module = read_module("cells.py", later)
        new = (set(module.binds) | {item.bound for item in module.imports.values()}) - known
        for statement in module.tree.body:
            names = {name for name, found in module.binds.items() if statement in found} | _imported(statement)
            if (names and names <= new) or (not names and changes(statement) and changes(statement) <= new):
                added.append(_lines(later, statement))
        known |= new
    return "\n".join([*before, *added])


def _imported(statement: ast.stmt) -> set[str]:
    """The names that an import binds, `*` among them."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    return {alias.asname or alias.name.split(".")[0] for alias in statement.names}


def _lines(text: str, statement: ast.stmt) -> str:
    first = min([statement.lineno, *(part.lineno for part in getattr(statement, "decorator_list", []))])
    return "\n".join(text.split("\n")[first - 1 : statement.end_lineno])


def _rows_of_cell(
    repository: Repository, beside: Modules, cell: _Cell, around: str, program: str, wishes: Wishes
) -> Iterator[Row]:
    name = str(cell.place["path"]).removesuffix(".ipynb") + ".py"
    modules = Modules(beside)
    module = modules[name] = prepare(repository, name, f"{around}\n{program}" if around else program, wishes)
    own = {node.name for node in ast.walk(parse(program)) if isinstance(node, ast.ClassDef)}
    last = {node.name: node for node in scenes(modules, module) if node.name in own}
    for node in last.values():
        try:
            refuse_manimgl(module)
            code = scene_program(modules, module, node, wishes.kept)
            refuse_unfit(code, wishes)
        except Unfit as unfit:
            yield BadRow(unfit.code, f"{cell.named}: {node.name}: {unfit.message}", cell.place, program)
            continue
        described = _prose(cell.words) if cell.describe else ""
        metadata = {
            "kind": "code",
            "needs_description": not described,
            "licence": repository.licence,
            "origin": cell.place,
            "scene": node.name,
        }
        film = {"youtube_url": wishes.youtube[node.name]} if node.name in wishes.youtube else {}
        context = {"original_context": cell.words} if cell.words else {}
        yield {"description": described, "code": code, "metadata": metadata | film | context}


def _prose(words: str) -> str:
    """The text without its headings: "Outro" describes no picture, and stands in many notebooks."""
    return "\n".join(line for line in words.split("\n") if line.strip() and not line.startswith("#")).strip()


def _modules_of(repository: Repository, wishes: Wishes) -> Modules:
    """The scripts beside the notebooks, which cells may import; one that is not Python is no module."""
    modules = Modules()
    for path, data in repository.files.items():
        if path.endswith(".py"):
            with contextlib.suppress(SyntaxError, ValueError):
                modules[path] = prepare(repository, path, decode(data), wishes)
    return modules


def _cells(data: bytes) -> list[dict[str, Any]]:
    notebook = json.loads(data)
    cells = notebook.get("cells")
    if cells is None:  # format 3 has work sheets
        cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
    return list(cells)


def _text(cell: dict[str, Any]) -> str:
    text = cell.get("source", cell.get("input", ""))
    return ("".join(text) if isinstance(text, list) else str(text)).replace("\r\n", "\n")


def without_magics(text: str) -> str:
    """The cell without lines for the notebook; a cell in another language is empty."""
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("%%") and not first.startswith(("%%manim", "%%time", "%%capture", "%%python")):
        return ""
    try:
        parse(text)
    except (SyntaxError, ValueError):
        lines = text.split("\n")
        return "\n".join("" if _MAGIC.match(line) else line for line in lines)
    return text
