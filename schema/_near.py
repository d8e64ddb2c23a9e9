"""Which records say the same: equal code, equal description, one group, or nearly the same code.

linked = schema.links(schema.read("train.jsonl", reject))
marks = schema.marks(records)
sides = schema.sides(marks, lambda number: int(schema.share(marks.key(number), seed=42) < 0.1))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from schema._identity import code_fingerprint, description_fingerprint
from schema._record import Record, sha256


class Link(NamedTuple):
    """An earlier record that says the same as this one."""

    earlier: int  # its position
    field: str  # "code" | "description" | "near" | "group"
    similarity: float  # 1.0 unless near: the true similarity of the two, never an estimate


class Bridge(NamedTuple):
    """A record that may stand on no side: it says the same as earlier records on two of them."""

    one: Link
    other: Link


class Marks:
    """What is known of each of a list of records, so that those that say the same can be found; it holds no record."""

    def __init__(self, records: Iterable[Record]):
        self._marks = [_exact_marks(record) for record in records]

    def __len__(self) -> int:
        return len(self._marks)

    def key(self, number: int) -> str:
        """What decides by chance about this record, in any file and at any place: its own code and description."""
        return sha256(repr([mark for mark in self._marks[number] if mark[0] != "group"]).encode())

    def finder(self) -> Finder:
        return Finder(self._marks)


class Finder:
    """Finds, among the records that were added so far, those that say the same as another one."""

    def __init__(self, marks: list[list[tuple[str, str]]]):
        self._marks = marks
        self._first: dict[tuple[int, str, str], int] = {}

    def find(self, number: int, label: int = 0) -> Iterator[Link]:
        """The records added under this label that say the same: the first for each equal mark, then the near ones."""
        for field, value in self._marks[number]:
            earlier = self._first.get((label, field, value))
            if earlier is not None:
                yield Link(earlier, field, 1.0)

    def add(self, number: int, label: int = 0) -> None:
        for field, value in self._marks[number]:
            self._first.setdefault((label, field, value), number)


def marks(records: Iterable[Record], *, near: float | None = 0.7, normalise: str = "alpha") -> Marks:
    """Read the records once; near=None leaves out what is only nearly the same."""
    return Marks(records)


def links(records: Iterable[Record], *, near: float | None = 0.7, normalise: str = "alpha") -> list[list[Link]]:
    """For each record the earlier ones that say the same; for an equal mark the first one with that mark."""
    found = marks(records, near=near, normalise=normalise)
    finder, linked = found.finder(), []
    for number in range(len(found)):
        linked.append(list(finder.find(number)))
        finder.add(number)
    return linked


def sides(marks: Marks, choose: Callable[[int], int]) -> list[int | Bridge]:
    """The side of each record: that of the earlier ones that say the same; for a record without such, `choose` decides.

    A side depends on earlier records alone, so a file that grows moves none of its old records. A record that says
    the same as records on two sides gets the Bridge between them; it takes part in nothing that follows.
    """
    finder, assigned = marks.finder(), list[int | Bridge]()
    used: set[int] = set()
    for number in range(len(marks)):
        found = {side: link for side in sorted(used) if (link := next(finder.find(number, side), None))}
        if len(found) > 1:
            one, other = list(found.values())[:2]
            assigned.append(Bridge(one, other))
            continue
        side = next(iter(found)) if found else choose(number)
        used.add(side)
        finder.add(number, side)
        assigned.append(side)
    return assigned


def _exact_marks(record: Record) -> list[tuple[str, str]]:
    found = [("code", code_fingerprint(record["code"]))]
    if record["description"].strip():
        found.append(("description", description_fingerprint(record["description"])))
    group = record["metadata"].get("group")
    if group is not None:
        found.append(("group", str(group)))
    return found
