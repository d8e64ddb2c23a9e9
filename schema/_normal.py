"""What many programs say, apart from how they are written, as numbers: the same numbers, the same meaning.

A program that parses is the numbers of its tokens without comments, blank lines and the line ends in brackets, with a
number for each line and each block that begins or ends. Text that does not parse is the numbers of its words. Many
programs are worked out together, because numpy is slow with each and quick with all.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from schema._tokens import CLOSES, KIND, LINE, NOTHING, NUMBERS, OPENS, names, tokens, words

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

# A block that begins, and one that ends; no token has such a small number.
_BEGINS, _ENDS = 1 << 3, 2 << 3


class Program(NamedTuple):
    """One program or text as the numbers of its tokens, and which of them are names that it gives itself."""

    numbers: array[int]
    own: bytes
    text: bytes | None  # what the text says, when it is no program


class Sequences(NamedTuple):
    """The numbers of many programs, one program after the other."""

    numbers: Array
    own: Array
    counts: Array


def read(code: str) -> Program:
    found = names(code)
    if found is None:
        numbers = array("Q", map(NUMBERS.__getitem__, words(code)))
        # Only spaces at line ends and blank lines are known to mean nothing.
        lines = "\n".join(line for line in (line.rstrip() for line in code.split("\n")) if line)
        return Program(numbers, bytes(len(numbers)), lines.encode("utf-8", "surrogatepass"))
    own = {NUMBERS[form] for name in found.bound for form in (name, name + "=")}
    listed = list(map(NUMBERS.__getitem__, tokens(code)))
    return Program(array("Q", listed), bytes(map(own.__contains__, listed)), None)


def normal(programs: Sequence[Program]) -> Sequences:
    """The numbers that say what the programs say, and no more."""
    import numpy

    sizes = numpy.array([len(program.numbers) for program in programs], numpy.int64)
    flat = numpy.frombuffer(b"".join(program.numbers for program in programs), numpy.uint64)
    own = numpy.frombuffer(b"".join(program.own for program in programs), bool)
    owner = numpy.repeat(numpy.arange(len(programs)), sizes)
    kind = (flat & numpy.uint64(KIND)).astype(numpy.int8)
    depth = numpy.cumsum((kind == OPENS).astype(numpy.int32) - (kind == CLOSES))
    before = numpy.concatenate([[0], depth])[numpy.cumsum(sizes) - sizes]
    said = (kind != NOTHING) & ((kind != LINE) | (depth == before[owner]))
    flat, own, owner, line = flat[said], own[said], owner[said], kind[said] == LINE
    # Of several line ends the last one says how far the line that follows is indented; the first line needs none.
    last = numpy.append(owner[1:] != owner[:-1], True)
    follows = numpy.append(line[1:], True) | last
    counted = numpy.cumsum(~line)
    first = numpy.searchsorted(owner, numpy.arange(len(programs)))
    begun = counted - numpy.concatenate([[0], counted])[first][owner] > 0
    said = ~line | (begun & ~follows)
    flat, own, owner, line = flat[said], own[said], owner[said], line[said]
    return _with_blocks(flat, own, owner, line, len(programs))


def _with_blocks(flat: Array, own: Array, owner: Array, line: Array, programs: int) -> Sequences:
    """The same with the blocks that begin and end behind the line ends, whose own numbers were their indents."""
    import numpy

    (places,) = numpy.nonzero(line)
    steps = _steps((flat[places] >> numpy.uint64(3)).astype(numpy.int64), owner[places])
    more = numpy.ones(len(flat), numpy.int64)
    more[places] += numpy.abs(steps)
    flat = flat.copy()
    flat[places] = numpy.where(steps < 0, _ENDS, numpy.where(steps > 0, _BEGINS, LINE))
    starts = numpy.cumsum(more) - more
    numbers = numpy.repeat(flat, more)
    numbers[starts[places]] = LINE
    return Sequences(numbers, numpy.repeat(own, more), numpy.bincount(numpy.repeat(owner, more), minlength=programs))


def _steps(widths: Array, owner: Array) -> Array:
    """For each line: 1 if a block begins before it, else minus the number of those that end."""
    import numpy

    steps = numpy.zeros(len(widths), numpy.int64)
    new = numpy.append(True, owner[1:] != owner[:-1])[: len(owner)]
    before = numpy.where(new, 0, numpy.append(0, widths)[:-1])
    (places,) = numpy.nonzero(new | (widths != before))
    indents = [0]
    for place, width, is_new in zip(places.tolist(), widths[places].tolist(), new[places].tolist(), strict=True):
        if is_new:
            indents = [0]
        if width > indents[-1]:
            indents.append(width)
            steps[place] = 1
        while width < indents[-1]:
            indents.pop()
            steps[place] -= 1
    return steps


def fingerprints(programs: Sequence[Program], sequences: Sequences) -> list[bytes]:
    """SHA-256 of what each program says."""
    import numpy

    data = memoryview(sequences.numbers.astype("<u8").tobytes())
    ends = (numpy.cumsum(sequences.counts) * 8).tolist()
    return [
        hashlib.sha256(data[start:end] if program.text is None else program.text).digest()
        for program, start, end in zip(programs, [0, *ends], ends, strict=False)
    ]


def code_fingerprint(code: str) -> str:
    """Equal for programs that differ in comments, blank lines and formatting alone; strings and blocks count."""
    programs = [read(code)]
    return fingerprints(programs, normal(programs))[0].hex()
