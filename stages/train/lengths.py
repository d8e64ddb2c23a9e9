"""How long the rows are, what each choice for the long ones costs, and how well the rows fill their sequences."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from stages.train.rows import Row, Speaker, trim

PERCENTILES = (50, 90, 95, 99, 100)


def table(rows: Sequence[Row]) -> str:
    """How long the rows are, in tokens."""
    columns = {
        "prompt": [row.prompt for row in rows],
        "answer": [row.answer for row in rows],
        "row": [len(row.ids) for row in rows],
    }
    head = "tokens  " + "".join(f"{'max' if share == 100 else f'p{share}':>8}" for share in PERCENTILES)
    lines = [
        f"{name:<8}" + "".join(f"{_percentile(sizes, share):>8,}" for share in PERCENTILES)
        for name, sizes in columns.items()
    ]
    return "\n".join([head, *lines])


def _percentile(sizes: Sequence[int], share: int) -> int:
    """The smallest size that so many percent of the rows do not exceed."""
    return sorted(sizes)[max(0, -(-len(sizes) * share // 100) - 1)]


def long_rows_cost(speaker: Speaker, rows: Sequence[Row], limit: int) -> str:
    """One sentence: what each choice for the rows that are too long would cost."""
    long = [row for row in rows if len(row.ids) > limit]
    trimmed = [trim(speaker, row, limit) for row in long]
    kept = [(old, new) for old, new in zip(long, trimmed, strict=True) if isinstance(new, Row)]
    cut = sum(len(old.ids) - len(new.ids) for old, new in kept)
    return (
        f"{len(long):,} of {len(rows):,} rows are longer than {limit:,} tokens; --on-long reject leaves them out "
        f"({sum(row.answer for row in long):,} tokens of answers), --on-long trim-prompt cuts {cut:,} tokens from the "
        f"prompts of {len(kept):,} and leaves out {len(long) - len(kept):,}, "
        f"--max-length {max(len(row.ids) for row in long)} keeps all"
    )


def filling(rows: Sequence[Row], limit: int, batch_size: int) -> str:
    """Which share of what is computed is rows: packed, and padded to the longest of a batch."""
    sizes = [len(row.ids) for row in rows if len(row.ids) <= limit]
    if not sizes:
        return "no row fits"
    bins = best_fit(sizes, limit)
    padded = sum(
        max(part) * len(part) for part in (sizes[i : i + batch_size] for i in range(0, len(sizes), batch_size))
    )
    return (
        f"packed: {len(sizes):,} rows fill {bins:,} sequences of {limit:,} tokens to {sum(sizes) / bins / limit:.1%}; "
        f"in batches of {batch_size}, {sum(sizes) / padded:.1%} of the tokens are no padding"
    )


def best_fit(sizes: Sequence[int], limit: int) -> int:
    """How many sequences best-fit-decreasing packing needs."""
    room: list[int] = []  # what is left in each sequence, ascending
    for size in sorted(sizes, reverse=True):
        place = bisect.bisect_left(room, size)
        left = room.pop(place) if place < len(room) else limit
        bisect.insort(room, left - size)
    return len(room)
