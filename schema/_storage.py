"""Files by their addresses: s3://, gs:// and hf:// through fsspec, everything else on this machine.

An object store has no rename and no lock: a file is written here first and put there whole, and what says that a set
of files is complete, its ledger or its manifest, is put last.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PathLike = str | os.PathLike[str]
_ADDRESS = re.compile(r"(s3|gs|hf):/+(.*)")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
_at_hand: dict[str, Path] = {}  # copies that somebody in this process is reading


def is_remote(path: PathLike) -> bool:
    return bool(_ADDRESS.match(os.fspath(path)))


def address(path: PathLike) -> str:
    """The address, also of what pathlib has made of it: that folds two slashes into one."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    return f"{found[1]}://{found[2]}" if found else os.fspath(path)


def store_of(path: PathLike) -> Any:
    """The fsspec file system of an address; credentials and endpoints come from its usual environment variables."""
    scheme = address(path).split(":")[0]
    try:
        import fsspec

        # gcsfs asks by gRPC what kind a bucket is; that does not survive a fork, and only zonal buckets need it.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        store = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=False)
        if (
            scheme == "hf"
        ):  # it looks up what a file holds in the listing of its folder alone, so that must be a new one
            store.dircache.clear()
        return store
    except ImportError:
        package = _PACKAGES[scheme]
        raise click.UsageError(
            f"{address(path)} needs the package {package}: pip install 'linemill[storage]'"
        ) from None


@contextmanager
def at_hand(path: PathLike) -> Iterator[Path]:
    """The file itself, or a copy of it for as long as the block runs; blocks within each other share one copy."""
    name = address(path)
    if not is_remote(path) or name in _at_hand:
        yield _at_hand.get(name, Path(path))
        return
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        copy = Path(folder, Path(name).name)
        with told(path):
            store_of(path).get_file(name, str(copy))
        _at_hand[name] = copy
        try:
            yield copy
        finally:
            del _at_hand[name]


@contextmanager
def told(path: PathLike) -> Iterator[None]:
    """What a store complains about, as one line that names the address."""
    try:
        yield
    except click.ClickException:
        raise
    except FileNotFoundError:
        raise click.ClickException(f"{address(path)}: there is no such file") from None
    except Exception as error:
        # Each store has errors of its own, and none of them may end in a traceback.
        message = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(f"{address(path)}: {message}") from error


def put(file: Path, path: PathLike) -> None:
    """Bring a file to its place; in a store it appears there whole or not at all."""
    if not is_remote(path):
        file.replace(path)
        return
    with told(path):
        store_of(path).put_file(str(file), address(path))
    file.unlink()


def exists(path: PathLike) -> bool:
    if not is_remote(path):
        return Path(path).exists()
    with told(path):
        return bool(store_of(path).exists(address(path)))


def is_folder(path: PathLike) -> bool:
    """Whether files lie under this name; a store has no folders of its own."""
    if not is_remote(path):
        return Path(path).is_dir()
    with told(path):
        return bool(store_of(path).isdir(address(path).rstrip("/")))


def names(folder: PathLike) -> list[str]:
    """The names of the files of a folder, in their order."""
    if not is_remote(folder):
        return sorted(entry.name for entry in Path(folder).iterdir() if entry.is_file())
    with told(folder):
        found = store_of(folder).ls(address(folder).rstrip("/"), detail=True)
    return sorted(entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")


def walk(folder: PathLike) -> list[str]:
    """Every file below a folder."""
    if not is_remote(folder):
        return sorted(str(entry) for entry in Path(folder).rglob("*") if entry.is_file())
    scheme = address(folder).split(":")[0]
    with told(folder):
        return [f"{scheme}://{name}" for name in sorted(store_of(folder).find(address(folder).rstrip("/")))]


def join(folder: PathLike, name: str) -> str:
    return f"{address(folder).rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder, name))


def absolute(path: PathLike) -> str:
    return address(path) if is_remote(path) else str(Path(path).absolute())


def remove(path: PathLike) -> None:
    """Remove a file, if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        with told(path):
            store_of(path).rm_file(address(path))


def read_bytes(path: PathLike) -> bytes:
    with at_hand(path) as place:
        return place.read_bytes()


def version(path: PathLike) -> str:
    """What changes when the content does: its SHA-256, or what the store says instead without a download."""
    if not is_remote(path):
        return digest(Path(path))
    with told(path):
        info = store_of(path).info(address(path))
    told_by_store = {key: str(info[key]) for key in ("ETag", "etag", "md5Hash", "blob_id", "size") if key in info}
    return f"{address(path)} {sorted(told_by_store.items())}"


def stamp(path: PathLike) -> Any:
    """What changes when somebody writes the file, without reading it."""
    if is_remote(path):
        return version(path)
    found = Path(path).stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_near(path: PathLike, near: Path) -> str:
    """The name from a folder, as ledgers have it; an address stays one, and beside an address all names are whole."""
    if is_remote(path):
        return address(path)
    return str(Path(path).absolute()) if is_remote(near) else os.path.relpath(path, near)


def stand_in(path: Path) -> Path:
    """Where a file of a store is made before it is put there, and where the lock lies that other runs here see."""
    if not is_remote(path):
        return path
    mark = hashlib.sha256(address(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"linemill-{os.getuid()}", f"{mark}-{path.name}")


def upload(folder: Path, path: PathLike, last: str) -> None:
    """Put all files of a folder, `last` at the end: while that is missing the set is not complete."""
    remove(join(path, last))
    files = [entry for entry in sorted(folder.rglob("*")) if entry.is_file()]
    for entry in sorted(files, key=lambda entry: entry == folder / last):
        put(entry, join(path, str(entry.relative_to(folder))))
    shutil.rmtree(folder, ignore_errors=True)
