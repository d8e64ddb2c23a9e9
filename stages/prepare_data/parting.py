"""The decisions of identity.py, made in several places: records that can not say the same are independent.

A shuffle by marks brings the records with one mark together: equal code, equal description, one band of the sketch.
What hangs together by such marks is a component, and the same functions that decide over all records on one machine
decide over some components each; the result is the same, because they never compare records without a common mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import schema
from schema import Bridge, Link, Marks
from stages.prepare_data import identity
from stages.prepare_data.identity import Policy

PARTS = 32  # enough for as many processors; a part costs some milliseconds


class Part(NamedTuple):
    """Some components: the numbers of their records over all sources, and what is known of these."""

    numbers: list[int]
    marked: schema.Marked
    near: float | None
    order: list[int]  # places in `numbers`
    firm: list[int]

    def marks(self) -> Marks:
        return schema.gather([self.marked], near=self.near)

    def link(self, link: Link) -> Link:
        """With the number that the earlier record has over all sources."""
        return link._replace(earlier=self.numbers[link.earlier])


def merge_duplicates(
    marks: Marks, order: Sequence[int], firm: Sequence[int], policy: Policy, place: schema.Workplace
) -> dict[int, Link]:
    fields = ["code", "description"] if "description" in policy.fields() else ["code"]
    parts = parts_of(marks, fields, order, firm, place)
    found: dict[int, Link] = {}
    for merged in schema.each(place, partial(merge_part, policy=policy), parts):
        found |= merged
    return found


def merge_part(part: Part, policy: Policy) -> dict[int, Link]:
    merged = identity.merge_duplicates(part.marks(), part.order, part.firm, policy)
    return {part.numbers[number]: part.link(link) for number, link in merged.items()}


def split(
    marks: Marks, numbers: list[int], test_ratio: float, seed: int, place: schema.Workplace
) -> list[int | Bridge]:
    found: dict[int, int | Bridge] = {}
    for sides in schema.each(
        place,
        partial(split_part, test_ratio=test_ratio, seed=seed),
        parts_of(marks, schema.FIELDS, numbers, [], place),
    ):
        found |= sides
    for number in numbers:
        if number not in found:  # it says what no other says
            found[number] = int(schema.share(marks.key(number), seed) < test_ratio)
    if 0 < test_ratio < 1 and len({side for side in found.values() if isinstance(side, int)}) == 1:
        return identity.split(marks, numbers, test_ratio, seed)  # so few that one side is empty by chance
    return [found[number] for number in numbers]


def split_part(part: Part, test_ratio: float, seed: int) -> dict[int, int | Bridge]:
    marks = part.marks()
    sides = schema.sides(marks, lambda number: int(schema.share(marks.key(number), seed) < test_ratio), part.order)
    found: dict[int, int | Bridge] = {}
    for number, side in zip(part.order, sides, strict=True):
        both = Bridge(*map(part.link, side)) if isinstance(side, Bridge) else side
        found[part.numbers[number]] = both
    return found


def parts_of(
    marks: Marks, fields: Sequence[str], order: Sequence[int], firm: Sequence[int], place: schema.Workplace
) -> list[Part]:
    """The components with more than one of these records; the others say what no other says."""
    import numpy

    # The rank of a record is where it stands in the order; those that are kept in any case stand before all others.
    rank = numpy.full(len(marks), -1, numpy.int64)
    rank[list(firm)] = 0
    rank[list(order)] = numpy.arange(1, len(order) + 1)
    pairs: list[Any] = list(schema.each(place, schema.pairs, schema.columns(marks, fields)))
    sets = [members[rank[members] >= 0] for members in schema.components(len(marks), pairs)]
    parts = []
    for numbers in schema.dealt([members for members in sets if len(members) > 1], PARTS):
        ranks = rank[numbers]
        by_rank = numpy.argsort(ranks, kind="stable")
        ordered = by_rank[ranks[by_rank] > 0].tolist()
        marked = schema.subset(marks, numbers)
        parts.append(Part(numbers.tolist(), marked, marks.near, ordered, numpy.flatnonzero(ranks == 0).tolist()))
    return parts
