"""What is known of records that are read in several places, brought together as if one had read them all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schema._marks import FIELDS, Marked, Marker, Marks, MarkWriter
from schema._record import Record

if TYPE_CHECKING:
    from schema._normal import Array

_BATCH = 256  # few enough for the caches of the processor


def sketches(records: Iterable[Record], *, near: float | None, normalise: str) -> Marked:
    """What `Marks` must know of some records, as bytes: about 1.2 kB for each record."""
    marker, taken = Marker(near, normalise), []
    for record in records:
        marker.add(record)
        if len(marker) == _BATCH:
            taken.append(marker.take())
    return Marked(*map(b"".join, zip(*taken, marker.take(), strict=True)))


def gather(several: Iterable[Marked], *, near: float | None) -> Marks:
    """The marks of all records, one place after the other; they wait on the disk."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        path = Path(folder, "marks")
        with MarkWriter(path, near, "") as writer:
            for marked in several:
                writer.write(marked)
        return Marks([path], near)


def subset(marks: Marks, numbers: Array) -> Marked:
    """What is known of some records, as bytes; in `gather` they are numbered from 0, in the same order."""
    import numpy

    exact = marks.exact[numbers].tobytes()
    if marks.near is None:
        return Marked(exact, b"", b"", b"")
    counts = marks.counts[numbers].astype(numpy.uint32)
    sketch = numpy.column_stack([counts, marks.bands[numbers]])
    runs = b"".join(map(marks.runs_of, numbers.tolist()))
    return Marked(exact, sketch.tobytes(), marks.signs[numbers].tobytes(), runs)


def columns(marks: Marks, fields: Sequence[str]) -> list[Array]:
    """Every mark that two records may have in common when they say the same: equal ones, and the bands of near ones."""
    exact = [marks.exact[:, FIELDS.index(field)] for field in fields]
    return exact + (list(marks.bands.T) if marks.near is not None else [])


def pairs(column: Array) -> Array:
    """Each record that is not alone with its mark, beside the first one that has it; 0 is no mark."""
    import numpy

    order = numpy.argsort(column, kind="stable")
    ordered = column[order]
    starts = numpy.ones(len(ordered), bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = order[numpy.maximum.accumulate(numpy.where(starts, numpy.arange(len(ordered)), 0))]
    found = ~starts & (ordered != 0)
    return numpy.column_stack([order[found], first[found]])


def components(count: int, several: Iterable[Array]) -> list[Array]:
    """The records that hang together by pairs, directly or by others: the members of each such set, in their order."""
    import numpy

    edges = numpy.concatenate([numpy.empty((0, 2), numpy.int64), *several])
    label = numpy.arange(count)
    while len(edges):
        least = numpy.minimum(label[edges[:, 0]], label[edges[:, 1]])
        for end in (0, 1):
            numpy.minimum.at(label, label[edges[:, end]], least)
        label = _followed(label)
        edges = edges[label[edges[:, 0]] != label[edges[:, 1]]]
    order = numpy.argsort(label, kind="stable")
    ends = numpy.flatnonzero(numpy.diff(label[order])) + 1
    return [members for members in numpy.split(order, ends) if len(members) > 1]


def _followed(label: Array) -> Array:
    """Where each chain of labels ends."""
    while ((further := label[label]) != label).any():
        label = further
    return label


def dealt(sets: list[Array], hands: int) -> list[Array]:
    """The sets in so many parts of about the same size, each part in the order of its records."""
    import numpy

    parts: list[list[Array]] = [[] for _ in range(hands)]
    sizes = [0] * hands
    for members in sorted(sets, key=lambda members: (-len(members), int(members[0]))):
        least = sizes.index(min(sizes))
        parts[least].append(members)
        sizes[least] += len(members)
    return [numpy.sort(numpy.concatenate(part)) for part in parts if part]
