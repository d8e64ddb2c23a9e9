"""Which records are kept when several say the same, and which side of the split each falls on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import click

import schema
from schema import Bridge, Link, Marks


class Policy(NamedTuple):
    """What makes a duplicate, and what happens to it."""

    deduplicate: bool
    tag_only: bool
    near_threshold: float
    normalise: str
    same_code: str
    same_description: str
    max_descriptions: int
    many_descriptions: str

    @property
    def near(self) -> float | None:
        """1 is what `code` says already."""
        return self.near_threshold if self.near_threshold < 1 else None

    def fields(self) -> list[str]:
        """What two records must have in common, one of these, to be one."""
        fields = ["both"]
        if self.same_code == "merge":
            fields += ["code", "near"]
        if self.same_description == "merge":
            fields.append("description")
        return [field for field in ("code", "description", "both", "near") if field in fields]


# Every option of this stage that says what a duplicate is; the names are those of Policy, and the other files.
OPTIONS = [
    click.option("--deduplicate/--no-deduplicate", default=True, help="Keep one record of those that say the same."),
    click.option(
        "--tag-only", is_flag=True, help="Keep duplicates, and let metadata.duplicate_of say what they repeat."
    ),
    click.option(
        "--near-threshold",
        default=0.7,
        type=click.FloatRange(0.3, 1),
        metavar="S",
        help="Share of equal runs of tokens from which code counts as the same; 1 is for equal code alone.",
    ),
    click.option(
        "--normalise",
        default="alpha",
        type=click.Choice(["alpha", "raw"]),
        help="Compare code without the names that it gives itself, or as written.",
    ),
    click.option(
        "--same-code",
        default="merge",
        type=click.Choice(["merge", "keep"]),
        help="Same code, different descriptions: one record, or all of them.",
    ),
    click.option(
        "--same-description",
        default="merge",
        type=click.Choice(["merge", "keep"]),
        help="Same description, different code: one record, or all of them.",
    ),
    click.option(
        "--max-descriptions",
        default=3,
        type=click.IntRange(1),
        metavar="N",
        help="Code under more different descriptions than this is suspicious: they can not all be true.",
    ),
    click.option(
        "--many-descriptions",
        default="flag",
        type=click.Choice(["ignore", "flag", "drop"]),
        help="What becomes of suspicious code: a note in the metadata, or the rejects file.",
    ),
    click.option(
        "--against",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Remove, too, what stands in this record file; may be given several times.",
    ),
]


class Decision(NamedTuple):
    """What becomes of each record, by its number over all sources."""

    merged: dict[int, Link]
    side: dict[int, int]
    bridges: dict[int, Bridge]
    descriptions: dict[int, int]  # of the code that this record has, where they are too many

    def dropped(self, number: int, policy: Policy) -> bool:
        return policy.many_descriptions == "drop" and number in self.descriptions


options = schema.stacked(OPTIONS)


def decide(
    marks: Marks, order: list[int], policy: Policy, test_ratio: float, seed: int, place: schema.Workplace
) -> Decision:
    """Merge duplicates, then split what is left; records behind those of `order` stand in other files."""
    merge, divide = merge_duplicates, split
    if place.engine != "local":
        from stages.prepare_data import parting

        merge, divide = partial(parting.merge_duplicates, place=place), partial(parting.split, place=place)
    read, descriptions = len(order), dict[int, int]()
    if policy.many_descriptions != "ignore":
        descriptions = many_descriptions(marks, read, policy.max_descriptions)
    if policy.many_descriptions == "drop":
        order = [number for number in order if number not in descriptions]
    merged = dict[int, Link]()
    if policy.deduplicate:
        merged = merge(marks, order, range(read, len(marks)), policy)
    stays = [number for number in order if policy.tag_only or number not in merged]
    # No two of those that stay are near: whoever was near to one of them is merged.
    is_sure = policy.deduplicate and not policy.tag_only and "near" in policy.fields()
    left = marks.exactly() if is_sure else marks
    found = dict(zip(stays, divide(left, stays, test_ratio, seed), strict=True))
    side = {number: place for number, place in found.items() if isinstance(place, int)}
    bridges = {number: place for number, place in found.items() if isinstance(place, Bridge)}
    return Decision(merged, side, bridges, descriptions)


def merge_duplicates(marks: Marks, order: Sequence[int], firm: Sequence[int], policy: Policy) -> dict[int, Link]:
    """The records that say the same as one that is kept, with the link to it.

    `order` says who comes first, so that neither the order of the sources nor the number of processes matters;
    `firm` are records that are kept in any case, because they stand in another file.
    """
    finder = schema.Finder(marks, policy.fields(), itertools.chain(firm, order))
    for number in firm:
        finder.add(number)
    merged = {}
    for number in order:
        if finder.is_alone(number):
            continue
        if link := next(finder.find(number), None):
            merged[number] = link
        else:
            finder.add(number)
    return merged


def many_descriptions(marks: Marks, numbers: int, most: int) -> dict[int, int]:
    """The records whose code stands under more than so many descriptions: one of them at most tells what it does."""
    import numpy

    code, description = marks.exact[:numbers, 0], marks.exact[:numbers, 1]
    pairs = numpy.unique(numpy.column_stack([code, description])[description != 0], axis=0)
    codes, counts = numpy.unique(pairs[:, 0], return_counts=True)
    many = dict(zip(codes[counts > most].tolist(), counts[counts > most].tolist(), strict=True))
    found = numpy.flatnonzero(numpy.isin(code, list(many))).tolist() if many else []
    return {number: many[int(code[number])] for number in found}


def split(marks: Marks, numbers: list[int], test_ratio: float, seed: int) -> list[int | Bridge]:
    """0 for train and 1 for test; records that say the same stay together."""
    shares: dict[int, float] = {}
    extremes: dict[str, tuple[float, int]] = {}

    def choose(number: int) -> int:
        share = schema.share(marks.key(number), seed)
        extremes["low"] = min(extremes.get("low", (share, number)), (share, number))
        extremes["high"] = max(extremes.get("high", (share, number)), (share, number))
        return int(shares.get(number, share) < test_ratio)

    found = schema.sides(marks, choose, numbers)
    used = {side for side in found if isinstance(side, int)}
    if 0 < test_ratio < 1 and len(used) == 1 and extremes["low"][1] != extremes["high"][1]:
        # By chance a small set can fall on one side alone; an empty side tests or trains nothing.
        shares = {extremes["high"][1]: 1.0} if used == {1} else {extremes["low"][1]: 0.0}
        found = schema.sides(marks, choose, numbers)
    return found
