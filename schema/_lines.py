"""The rows of a file as bytes: JSONL or one JSON array, plain or compressed, at a flat memory cost."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import IO, NamedTuple

import click

from schema._shards import files
from schema._storage import at_hand

# Longer than any real program or document chunk; one line of 50 MB read whole would cost 250 MB of memory.
LONGEST_ROW = 16 * 2**20
_KEPT_OF_LONGER = 2**16
_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_STRUCTURE = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)


class Row(NamedTuple):
    """One row of a file: where it stands, its bytes, and its whole length when only the start was kept."""

    number: int
    data: bytes
    whole_length: int | None = None


def rows(path: str) -> Iterator[Row]:
    """Every row that is not blank, of a file or of a set of shards.

    Numbers are line numbers, or positions in a JSON array; of a set, those in each shard.
    """
    if path == "-":
        yield from _rows_of(_decompressed(sys.stdin.buffer, path))
        return
    for shard in files(path):
        with at_hand(shard) as place, open(place, "rb") as file:
            yield from _rows_of(_decompressed(file, shard))


def _rows_of(chunks: Iterator[bytes]) -> Iterator[Row]:
    first = next(chunks, b"").removeprefix(_BOM)
    if first.lstrip()[:1] == b"[":
        yield from _array_rows(first, chunks)
    else:
        yield from _line_rows(first, chunks)


def _decompressed(file: IO[bytes], path: str) -> Iterator[bytes]:
    """The plain bytes, chunk by chunk; a compressed file is known by how it begins, whatever its name."""
    import zlib

    start = file.peek(4)[:4]  # type: ignore[attr-defined]  # both kinds of file that reach here are buffered
    try:
        if start[:2] == _GZIP:
            yield from _chunks(gzip.GzipFile(fileobj=file))
        elif start == _ZSTD:
            yield from _zstd_chunks(file)
        else:
            yield from _chunks(file)
    except (EOFError, zlib.error) as error:
        raise click.ClickException(f"{path}: the compressed file is damaged or cut off: {error}") from error


def _chunks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    # Not stream_reader: at a cut-off file it just ends, and the rows behind the cut would vanish without a word.
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    for chunk in _chunks(file):
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


def _line_rows(first: bytes, chunks: Iterator[bytes], number: int = 0) -> Iterator[Row]:
    """Split at newlines only: other line separators of Unicode stand inside strings of valid JSON."""
    begun, dropped = b"", 0
    for chunk in chain([first], chunks, [b"\n"]):  # the last newline ends a last line that has none
        lines = (begun + chunk).split(b"\n")
        begun = lines.pop()
        for data in lines:
            number += 1
            if dropped or len(data) > LONGEST_ROW:
                yield Row(number, data[:_KEPT_OF_LONGER], len(data) + dropped)
                dropped = 0
            elif data and not data.isspace():
                yield Row(number, data)
        if len(begun) > LONGEST_ROW:
            dropped += len(begun) - _KEPT_OF_LONGER
            begun = begun[:_KEPT_OF_LONGER]


def _array_rows(first: bytes, chunks: Iterator[bytes]) -> Iterator[Row]:
    """The elements of a JSON array, then what follows it as lines: a first line like "[1]" ends no file."""
    number, depth, quoted, begun, scanned = 0, 0, False, b"", 0
    for chunk in chain([first], chunks):
        begun += chunk
        start = 0
        # An odd backslash at the end is half of a pair; its other half is in the next chunk.
        end = len(begun) - (len(begun) - len(begun.rstrip(b"\\"))) % 2
        for token in _STRUCTURE.finditer(begun, scanned, end):
            depth, quoted, closes = _step(token.group(), depth, quoted)
            if closes:
                number += 1
                if data := begun[start : token.start()].strip().removeprefix(b"[" if number == 1 else b""):
                    yield Row(number, data.strip())
                start = token.end()
            if depth == 0 and not quoted:
                yield from _line_rows(begun[start:], chunks, number)
                return
        begun, scanned = begun[start:], end - start
        if len(begun) > LONGEST_ROW:
            break
    yield from _line_rows(begun, chunks, number)


def _step(token: bytes, depth: int, quoted: bool) -> tuple[int, bool, bool]:
    """How one sign changes the depth and whether a string is open, and whether it ends an element of the array."""
    if token == b'"':
        return depth, not quoted, False
    if quoted or token[:1] == b"\\":
        return depth, quoted, False
    if token == b",":
        return depth, quoted, depth == 1
    depth += 1 if token in b"[{" else -1
    return depth, quoted, depth == 0
