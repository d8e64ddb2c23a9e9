"""The HTML pages in a folder or in an archive; an archive is read in memory and never unpacked."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import click

from extractors._rows import BadRow

_LARGEST_PAGE = 16 << 20
_LARGEST_ARCHIVE = 1 << 30

Page = tuple[str, bytes]


def read_pages(place: Path) -> list[Page | BadRow]:
    """The pages in the order of their names, which begin below the folder that all of them stand in."""
    if place.is_dir():
        found = list(_folder_pages(place))
    elif place.suffix in (".html", ".htm"):
        with place.open("rb") as file:
            found = [_page(place.name, file)]
    else:
        found = list(_read_archive(place))
    pages = [item for item in found if not isinstance(item, BadRow)]
    bad = [item for item in found if isinstance(item, BadRow)]
    top = "" if place.is_dir() else _common_folder([name for name, _ in pages])
    return [*sorted((name.removeprefix(top), body) for name, body in pages), *bad]


def _folder_pages(place: Path) -> Iterator[Page | BadRow]:
    for path in sorted(place.rglob("*.html")):
        if path.is_file() and path.resolve().is_relative_to(place.resolve()):
            with path.open("rb") as file:
                yield _page(path.relative_to(place).as_posix(), file)


def _read_archive(place: Path) -> Iterator[Page | BadRow]:
    broken = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, NotImplementedError)
    try:
        yield from _zip_pages(place) if zipfile.is_zipfile(place) else _tar_pages(place)
    except (*broken, RuntimeError) as error:  # zipfile says RuntimeError to an encrypted file
        raise click.ClickException(
            f"{place}: neither a folder of HTML nor a readable archive of it (.tar.xz, .tar.gz, .zip): {error}"
        ) from error


def _tar_pages(place: Path) -> Iterator[Page | BadRow]:
    with tarfile.open(place) as archive:
        total = 0
        for member in archive:
            total += member.size
            _check_total(place, total)
            file = archive.extractfile(member) if member.isfile() and member.name.endswith(".html") else None
            if file:
                yield _page(member.name, file)


def _zip_pages(place: Path) -> Iterator[Page | BadRow]:
    with zipfile.ZipFile(place) as archive:
        total = 0
        for member in archive.infolist():
            if member.filename.endswith(".html") and not member.is_dir():
                with archive.open(member) as file:
                    page = _page(member.filename, file)
                total += 0 if isinstance(page, BadRow) else len(page[1])
                _check_total(place, total)
                yield page


def _page(name: str, file: IO[bytes]) -> Page | BadRow:
    """The sizes that an archive states may be lies: read no more than a page can have."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        return BadRow("unsafe_name", f"{name!r} points out of the archive", {"path": name})
    body = file.read(_LARGEST_PAGE + 1)
    if len(body) > _LARGEST_PAGE:
        return BadRow("page_too_large", f"{name}: larger than {_LARGEST_PAGE >> 20} MiB", {"path": name})
    return parts.as_posix(), body


def _check_total(place: Path, total: int) -> None:
    if total > _LARGEST_ARCHIVE:
        raise click.ClickException(f"{place}: holds more than {_LARGEST_ARCHIVE >> 30} GiB, which no documentation is")


def _common_folder(names: list[str]) -> str:
    """`html/` when all pages stand below it: an archive has such a folder, the address of the page has not."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) and len(names) > 1 else ""
