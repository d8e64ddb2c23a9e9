"""Outputs that appear under their real names only when they are complete, alone or as a set."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click

from schema import _storage
from schema._storage import PathLike


class Held(click.ClickException):
    """Another run writes the same output."""

    exit_code = 4


class Sink:
    """Where a run writes: a file that is not yet under its real name, or a stream."""

    def __init__(
        self,
        path: PathLike,
        write: Callable[[bytes], Any],
        close: Callable[[], Any] | None = None,
        part: Path | None = None,
    ):
        self.path, self.write, self.part = str(path), write, part
        self.close = close or (lambda: None)

    def facts(self, near: Path) -> dict[str, Any]:
        """Name and SHA-256 of what was written; only once it is closed."""
        if self.part is None:
            return {"path": self.path, "sha256": None}
        return {"path": _storage.name_near(self.path, near), "sha256": _storage.digest(self.part)}


@contextmanager
def atomic(path: PathLike) -> Iterator[Sink]:
    """A binary file that takes the place of `path` when the block ends without an error."""
    with together([Path(path)]) as (sink,):
        yield sink


@contextmanager
def together(paths: list[Path]) -> Iterator[list[Sink]]:
    """Files that are written at the same time and renamed one after the other, the last of the list last.

    A kill between two renames leaves the last file, the data, old and whole: the next run mends the rest.
    """
    parts = [_part(_storage.stand_in(path)) for path in paths]
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(lock(path))
            _remove_stale(_storage.stand_in(path))
        for part in parts:
            stack.callback(part.unlink, missing_ok=True)
        sinks = [_open_sink(part, path, stack) for part, path in zip(parts, paths, strict=True)]
        yield sinks
        for sink in sinks:
            sink.close()
        for part, path in zip(parts, paths, strict=True):
            _sync(part)
            _storage.put(part, path)
        for folder in {path.parent for path in paths if not _storage.is_remote(path)}:
            _sync(folder)


@contextmanager
def folder(path: PathLike) -> Iterator[Path]:
    """A staging folder whose files take the place of those in `path` as one set when the block ends well.

    Files of `path` that no earlier set wrote stay. The switch is one exchange of two folders, so that nobody ever
    sees the train side of one run beside the test side of another.
    """
    is_remote = _storage.is_remote(path)
    target = _storage.stand_in(Path(path)) if is_remote else Path(path).absolute()
    staging = _part(target)
    with lock(Path(path) if is_remote else target):
        _remove_stale(target)
        staging.mkdir()
        try:
            yield staging
            if is_remote:
                _storage.upload(staging, path, last="ledger.json")
                return
            _keep_foreign_files(target, staging)
            for entry in [*staging.rglob("*"), staging]:
                _sync(entry)
            _exchange(staging, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def together_in(path: PathLike, names: list[str]) -> Iterator[list[Sink]]:
    """Files of one folder that are written at the same time and switched as one set."""
    with folder(path) as staging, ExitStack() as stack:
        target = Path(path) if _storage.is_remote(path) else Path(path).absolute()
        yield [_open_sink(staging / name, target / name, stack) for name in names]


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` for this process; the system lets go of it when the process ends, however it ends.

    A store has no locks: there the other runs of this machine are kept off, not those of others.
    """
    here = _storage.stand_in(path)
    here.parent.mkdir(parents=True, exist_ok=True)
    name = here.with_name(f".{here.name}.lock")
    told = _storage.address(path)
    with open(name, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(f"{told}: another run is writing it; wait for it to end, or choose another output") from None
        if not _still_named(file, name):  # the run before removed the file between our open and our lock
            raise Held(f"{told}: another run is just ending; start again")
        try:
            yield
        finally:
            name.unlink(missing_ok=True)


def beside(path: PathLike, name: str) -> Path:
    """A hidden place beside an output, for what a run that is stopped leaves to the next one."""
    here = _storage.stand_in(Path(path))
    here = here if _storage.is_remote(path) else here.absolute()
    return here.with_name(f".{here.name}.{name}")


def _still_named(file: IO[bytes], name: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    return False


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _remove_stale(path: Path) -> None:
    """What a killed run left; only called while the lock is held, so it is nobody's work in progress."""
    for stale in path.parent.glob(f".{path.name}.*.part"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()


def _open_sink(part: Path, path: Path, stack: ExitStack) -> Sink:
    """A file that is compressed the way its final name says, always to the same bytes."""
    inner = stack.enter_context(ExitStack())
    plain = inner.enter_context(part.open("wb", buffering=2**20))
    write: Callable[[bytes], Any] = plain.write
    if path.suffix == ".gz":
        write = inner.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0)).write
    elif path.suffix == ".zst":
        import zstandard

        write = inner.enter_context(zstandard.ZstdCompressor(level=3).stream_writer(plain, closefd=False)).write
    return Sink(path, write, inner.close, part)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_foreign_files(target: Path, staging: Path) -> None:
    """Link into the new set what stands in the old folder and is nobody's output."""
    if not target.is_dir():
        return
    ours = _names_in_ledger(target)
    for entry in target.iterdir():
        twin = staging / entry.name
        if entry.name in ours or twin.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, twin, symlinks=True, copy_function=_link)
        else:
            _link(str(entry), str(twin))


def _names_in_ledger(target: Path) -> set[str]:
    """The files of the set before: a file that this run no longer writes must not survive beside the new ones."""
    try:
        ledger: dict[str, Any] = json.loads((target / "ledger.json").read_bytes())
        written = [*ledger["outputs"], *ledger["files"], *filter(None, [ledger["rejects"]])]
        return {Path(facts["path"]).parts[0] for facts in written}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return set()  # no set was ever written here, or it is not ours to understand


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    swap = _system_swap()
    if swap and swap(os.fsencode(staging), os.fsencode(target)) == 0:
        return
    if swap and ctypes.get_errno() in (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))
    # No exchange on this file system: the ledger goes first and comes back last, so its absence marks a torn set.
    (target / "ledger.json").unlink(missing_ok=True)
    for name in _names_in_ledger(target) - {entry.name for entry in staging.iterdir()}:
        (target / name).unlink(missing_ok=True)
    for entry in sorted(staging.iterdir(), key=lambda entry: entry.name == "ledger.json"):
        if (target / entry.name).is_dir():
            shutil.rmtree(target / entry.name)
        entry.replace(target / entry.name)


def _system_swap() -> Callable[[bytes, bytes], int] | None:
    """The system call that exchanges two folders in one step, where there is one."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return lambda one, other: int(library.renameat2(here, one, here, other, exchange))
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda one, other: int(library.renamex_np(one, other, 2))  # RENAME_SWAP
    return None
