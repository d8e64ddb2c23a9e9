"""Folders of models: their manifest, their ledger, and whether the disk can take another one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import schema

MANIFEST = "manifest.json"
LEDGER = "ledger.json"
# Room for the tokenizer, the manifest and the file system's own book-keeping.
SPARE_BYTES = 32 * 2**20


def check_space(output: Path, needed: int) -> None:
    """Refuse before any work, not after an hour, when the disk can not take the result."""
    folder = next(parent for parent in [output.absolute(), *output.absolute().parents] if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise schema.Failure(f"{output}: the result needs {_size(needed + SPARE_BYTES)}, {_size(free)} are free")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def model_files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (MANIFEST, LEDGER))


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if not isinstance(manifest["files"], dict) or not manifest["files"]:
            raise ValueError("it lists no files")
        # A manifest may come from anywhere, and `export` writes files under the names it finds here.
        if strange := [name for name in manifest["files"] if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise ValueError(f"it names the file {strange[0]}, which is outside of its folder")
    except FileNotFoundError:
        raise schema.Failure(f"{folder}: no {MANIFEST} there, so this is not a model that `merge` wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise schema.Failure(f"{path}: damaged: {error}") from None
    return dict(manifest)


def changed_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """One sentence for each file that is not as the manifest says."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{name} has {path.stat().st_size:,} bytes, the manifest says {expected['bytes']:,}"
        elif digest(path) != expected:
            yield f"{name} has changed: its SHA-256 is not the one in the manifest"
    for path in sorted(folder.glob("*.safetensors*")):
        if path.name not in manifest["files"]:
            yield f"{path.name} is not in the manifest, and may be loaded in place of what is"


def check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose every file is as it was written."""
    manifest = read_manifest(folder)
    if faults := list(changed_files(folder, manifest)):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise schema.Failure(f"{folder}: {faults[0]}{more}; merge again or copy it again")
    return manifest


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    files = {name: digest(folder / name) for name in model_files(folder)}
    manifest = {**facts, "version": schema.VERSION, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")


def copy_files(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
