"""What an extractor yields for a row that can not become a record."""

from __future__ import annotations

from typing import Any, NamedTuple


class BadRow(NamedTuple):
    """A row that goes to the rejects: the name of the reason, the facts, where it stands, what stood there."""

    code: str
    message: str
    origin: dict[str, Any]
    raw: str = ""
