"""The way of each source in one line: init, quality, duplicates, fixes, render, train, test."""

from __future__ import annotations

from collections.abc import Iterator

from stages.report.census import Census
from stages.report.rows import MERGED, REJECTED

HEAD = [
    "source",
    "init",
    "quality",
    "dedup",
    "fixed",
    "described",
    "render",
    "train",
    "valid",
    "test",
    "rejected",
    "merged",
]


def rows(census: Census) -> list[list[object]]:
    """One line for each source, and one for all; counts of rows that were still there after the step."""
    lines = [[name, *_numbers(census, name)] for name in census.sources()]
    if len(lines) > 1:
        columns = zip(*(line[1:] for line in lines), strict=True)
        lines.append(["all", *(sum(column) if None not in column else None for column in columns)])
    return [[name, *("–" if value is None else value for value in values)] for name, *values in lines]


def _numbers(census: Census, source: str) -> Iterator[int | None]:
    fates, marks = census.fates[source], census.marks[source]
    first = census.stopped[source][0] if census.steps else 0
    unfit = first if census.steps and census.steps[0].ledger.stage == "prepare_data" else 0
    yield fates.total() - marks["augmented"]
    yield fates.total() - marks["augmented"] - unfit
    yield fates.total() - marks["augmented"] - unfit - fates[MERGED]
    yield marks["fixed"]
    yield marks["described"]
    # A source of which no row was ever run has no number here, which is not the same as 0.
    yield marks["rendered"] if marks["run"] else None
    for side in ("train", "valid", "test"):
        yield sum(count for label, count in census.ends[source].items() if _side(label) == side)
    yield fates[REJECTED]
    yield fates[MERGED]


def _side(label: str) -> str:
    """The file that the row ended in, without folder and suffix."""
    return label.rsplit("/", 1)[-1].split(".")[0]


def as_json(census: Census) -> dict[str, dict[str, object]]:
    return {str(name): dict(zip(HEAD[1:], values, strict=True)) for name, *values in rows(census)}


def lines(census: Census) -> Iterator[str]:
    """Columns for a terminal."""
    cells = [HEAD, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows(census))]
    widths = [max(len(row[place]) for row in cells) for place in range(len(HEAD))]
    for row in cells:
        name, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([row[0].ljust(len(name)), *numbers])
