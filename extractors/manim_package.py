"""The scenes that Manim carries in its own documentation: the `.. manim::` blocks of the package's docstrings.

    manim_package:
      type: manim_package
      version: "0.22.0"
      sha256: ...             # of the wheel; checked whenever a wheel is read
      path: manim.whl         # a wheel, or a folder that manim was unpacked or installed into

Without `path`: the wheel in the cache, else the installed manim of that version, else `pip download` (0.7 MB,
no dependencies). Nothing of the package is ever imported or run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import click

from extractors._directives import Block, find_blocks
from extractors._fetch import Fetch, digest
from extractors._needs import Needs
from extractors._programs import run_program
from extractors._rows import BadRow

_STAR_IMPORT = re.compile(r"^from manim import \*", re.MULTILINE)


def extract(
    *, fetch: Fetch, version: str = "0.22.0", sha256: str | None = None, path: str | None = None
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each block; the words around the example stand in before_context and after_context."""
    manim = _local_copy(path, version, sha256) if path else _find(fetch, version, sha256)
    licence = _licence(manim)
    for name in _python_files(manim):
        origin = {"package": "manim", "version": version, "path": name}
        source = manim.locate_file(name).read_bytes()  # type: ignore[attr-defined]  # a path, or one in a zip file
        try:
            for block in find_blocks(source.decode("utf-8"), _module(name)):
                yield _row(block, {**origin, "line": block.line, "object": block.documented}, licence)
        except ValueError as error:  # SyntaxError is none, but UnicodeDecodeError and NUL bytes are
            yield BadRow("file_not_python", f"{name}: {error}", origin)
        except SyntaxError as error:
            yield BadRow("file_not_python", f"{name}: line {error.lineno}: {error.msg}", origin)


def needs(*, fetch: Fetch, version: str, sha256: str | None, path: str | None) -> Needs:
    """The installer, when there is no other way to the wheel."""
    at_hand = path or is_cached(fetch=fetch, version=version, sha256=sha256, path=path)
    return Needs() if at_hand else Needs(packages=("pip",), extra="")


def is_cached(*, fetch: Fetch, version: str, sha256: str | None, path: str | None) -> bool:
    """Whether a wheel or the installed package is here."""
    if path:
        return Path(path).expanduser().exists()
    try:
        return _find(fetch._replace(offline=True), version, sha256) is not None
    except click.ClickException:
        return False


def _row(block: Block, origin: dict[str, Any], licence: str | None) -> dict[str, Any] | BadRow:
    if not block.code:
        return BadRow("empty_block", f"the directive '.. manim:: {block.scene}' has no program under it", origin)
    metadata = {
        "kind": "code",
        "needs_description": True,
        "licence": licence,
        "origin": origin,
        "scene": block.scene,
        "directive": block.options,
        "before_context": block.before,
        "after_context": block.after,
    }
    # The directive runs this line first, whatever else the program imports.
    code = block.code if _STAR_IMPORT.search(block.code) else f"from manim import *\n\n{block.code}"
    return {"description": "", "code": code + "\n", "metadata": metadata}


def _local_copy(path: str, version: str, sha256: str | None) -> Distribution:
    place = Path(path).expanduser()
    if not place.exists():
        raise click.ClickException(f"{path}: no such file or folder")
    if sha256 and place.is_file() and (found := digest(place)) != sha256:
        raise click.ClickException(f"{path}: has SHA-256 {found}, sources.yaml expects {sha256}")
    manim = _look_in(place)
    if manim is None:
        raise click.ClickException(f"{path}: holds no installed or packed manim")
    if manim.version != version:
        raise click.ClickException(f"{path}: holds manim {manim.version}, sources.yaml expects {version}")
    return manim


def _find(fetch: Fetch, version: str, sha256: str | None) -> Distribution:
    name = f"manim-{version}-py3-none-any.whl"
    wheel = fetch.cached(name, sha256)
    if wheel is None and not fetch.refresh:
        installed = _look_in(None)
        if installed is not None and installed.version == version and _python_files(installed):
            return installed
    if wheel is None:
        wheel = fetch.download(name, lambda folder: _download(version, folder), sha256)
    return _local_copy(str(wheel), version, sha256)


def _look_in(place: Path | None) -> Distribution | None:
    """The package manim in a wheel, in a folder, or in this environment: the import system reads all three."""
    return next(iter(distributions(name="manim", path=sys.path if place is None else [str(place)])), None)


def _python_files(package: Distribution) -> list[str]:
    """None, for example, when the package is installed in editable mode."""
    return sorted(str(file) for file in package.files or [] if file.suffix == ".py" and file.parts[0] == "manim")


def _download(version: str, folder: Path) -> None:
    # Only wheels: to build a source package would run its code.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--retries=2", "--timeout=15", "--no-input"]
    command = [*pip, "--only-binary=:all:", "--dest", str(folder), f"manim=={version}"]
    done = run_program(command)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        # What pip says last would blame the version.
        reason = "no connection to the package index" if "connection broken by" in done.stderr else reason
        raise click.ClickException(f"pip download manim=={version}: {reason}; or give the wheel with 'path: FILE'")


def _licence(package: Distribution) -> str | None:
    facts = package.metadata
    named = [*(facts.get_all("License-Expression") or []), *(facts.get_all("License") or [])]
    if named and "\n" not in named[0]:  # some packages put the whole text there
        return str(named[0])
    classifiers = [str(line) for line in facts.get_all("Classifier") or [] if line.startswith("License ::")]
    return classifiers[0].rpartition(":: ")[2].removesuffix(" License") if classifiers else None


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
