"""What a check hands back."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong: the name of the check, a sentence with the facts, and the line of the code."""

    check: str
    message: str
    line: int | None = None
