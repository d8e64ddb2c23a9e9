"""Where records come from: one module per type of source, found by its file name.

    my_source:              # in sources.yaml: the name of the source
      type: local           # extractors/local.py
      path: rows.jsonl      # an argument of its function extract()

`extract` is a generator. It yields what it has, as {"description", "code", "metadata"}; a row that it can not
read is a `BadRow`. prepare_data.py validates, rejects, deduplicates and writes. If `extract` has a parameter
`fetch`, it gets the `Fetch` of this run: the cache folder, and whether the network may be used.
Three more functions may stand beside it: `needs`, for what must be installed, `is_cached`, and `pieces`, for the
arguments that read the parts of a source in several processes.
A package of somebody else adds a type with an entry point in the group `linemill.extractors`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from extractors._fetch import Fetch
from extractors._needs import Needs
from extractors._rows import BadRow

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["BadRow", "Extract", "Fetch", "Needs", "load", "offer", "types"]

Extract = Callable[..., Iterator[Any]]


def types() -> list[str]:
    """The names that `type:` may have."""
    own = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return sorted(own | _foreign().names)


def load(name: str) -> Extract:
    """The function `extract` of one type; the other types are not imported."""
    if name in _foreign().names:
        extract: Extract = _foreign()[name].load()
    else:
        extract = importlib.import_module(f"extractors.{name}").extract
    return extract


def offer(extract: Extract, name: str) -> Callable[..., Any] | None:
    """The function `needs`, `is_cached` or `pieces` that stands beside `extract`, if the type has one."""
    found: Callable[..., Any] | None = getattr(sys.modules.get(extract.__module__), name, None)
    return found


def _foreign() -> EntryPoints:
    from importlib.metadata import entry_points  # half of what this package costs, and no help text needs it

    return entry_points(group="linemill.extractors")
