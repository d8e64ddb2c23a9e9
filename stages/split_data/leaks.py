"""Records of one file that also stand in another: by code, by description, in a near copy or by their group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import schema
from schema import Link, Record


class Place(NamedTuple):
    """Where a record stands: the file by its number, and the row, counted from 1."""

    file: int
    row: int


class Named(NamedTuple):
    """What a report says of a record."""

    id: str
    source: str


Reader = Callable[[str], Iterable[Record]]


class Files:
    """Several files read one after the other, as one stream in which each position knows its file."""

    def __init__(self, paths: Sequence[str], read: Reader):
        self.paths, self.read = list(paths), read
        self.ends: list[int] = []

    def records(self) -> Iterator[Record]:
        self.ends, position = [], 0
        for path in self.paths:
            for record in self.read(path):
                position += 1
                yield record
            self.ends.append(position)

    def place(self, position: int) -> Place:
        """Valid once `records` has come to its end."""
        number = next(number for number, end in enumerate(self.ends) if position < end)
        return Place(number, position - (self.ends[number - 1] if number else 0) + 1)

    def sizes(self) -> list[int]:
        return [end - begin for begin, end in zip([0, *self.ends], self.ends, strict=False)]

    def title(self, position: int, identifier: str) -> str:
        place = self.place(position)
        return f"row {place.row:,} of {self.paths[place.file]} ({identifier})"

    def name(self, wanted: set[int]) -> dict[int, Named]:
        """Id and source of some positions; the files are read again, so that no record is held."""
        names = {}
        for position, record in enumerate(self.records()):
            if position in wanted:
                names[position] = Named(str(record["metadata"]["id"]), record["source"])
        return names


class Crossing(NamedTuple):
    """A record, an earlier one in another file, and what they share."""

    later: int
    link: Link


def crossings(files: Files, own: int, near: float | None, normalise: str) -> Iterator[Crossing]:
    """Every link between two files; the first files, before number `own`, are not compared with each other."""
    marks = schema.marks(files.records(), near=near, normalise=normalise)
    finder = schema.Finder(marks)
    for file, (begin, end) in enumerate(zip([0, *files.ends], files.ends, strict=False)):
        numbers = range(begin, end)
        for number in numbers:
            for earlier in range(file) if file >= own else ():
                yield from (Crossing(number, link) for link in finder.find(number, earlier))
        for number in numbers:
            finder.add(number, file)


def as_pair(crossing: Crossing, files: Files, names: dict[int, Named]) -> dict[str, Any]:
    """One line of the audit's standard output."""
    one, other = files.place(crossing.link.earlier), files.place(crossing.later)
    a, b = names[crossing.link.earlier], names[crossing.later]
    return {
        "field": crossing.link.field,
        "similarity": round(crossing.link.similarity, 4),
        "a": a.id,
        "a_file": files.paths[one.file],
        "a_row": one.row,
        "b": b.id,
        "b_file": files.paths[other.file],
        "b_row": other.row,
        "b_source": b.source,
    }


def summary(found: list[Crossing], files: Files) -> str:
    """One sentence for each two files that share something: how many records, and by what."""
    sizes = files.sizes()
    leaked: dict[tuple[int, int], set[int]] = {}
    fields: dict[tuple[int, int], Counter[str]] = {}
    for crossing in found:
        pair = (files.place(crossing.link.earlier).file, files.place(crossing.later).file)
        leaked.setdefault(pair, set()).add(crossing.later)
        fields.setdefault(pair, Counter())[crossing.link.field] += 1
    told = []
    for (one, other), records in sorted(leaked.items()):
        by_field = ", ".join(f"{count:,} by {field}" for field, count in sorted(fields[one, other].items()))
        told.append(
            f"{len(records):,} of {sizes[other]:,} records of {files.paths[other]} also stand in "
            f"{files.paths[one]} ({by_field})"
        )
    return "; ".join(told)
