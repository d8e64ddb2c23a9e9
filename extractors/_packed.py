"""Reads files that are packed with gzip or zstd as if they were not; one that is cut off is an error."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

_CHUNK = 1 << 18


@contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """The plain bytes as a file; what it begins with decides, for names are changed on the way."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start[:2] == b"\x1f\x8b":
                yield gzip.GzipFile(fileobj=file)
            elif start == b"\x28\xb5\x2f\xfd":
                yield io.BufferedReader(_Plain(_zstd_chunks(file)), _CHUNK)
            else:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise click.ClickException(f"{path}: broken, it can not be unpacked: {error}") from error


class _Plain(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._chunks, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    # Not stream_reader: at the end of a file that is cut off it just ends, and the rows behind the cut would vanish.
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    while chunk := file.read(_CHUNK):
        while chunk:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                if plain := frame.decompress(chunk):
                    yield plain
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            chunk = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError("the last frame does not end")
