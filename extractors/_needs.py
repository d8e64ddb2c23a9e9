"""What a type needs on this machine before it can read a source."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NamedTuple


class Needs(NamedTuple):
    """What the function `needs` of a type gives back."""

    packages: tuple[str, ...] = ()  # as they are imported: "bs4"
    extra: str = "sources"  # the extra of Linemill that brings them; "" when there is none
    keys: tuple[str, ...] = ()  # environment variables
    tools: tuple[str, ...] = ()  # programs

    def missing(self) -> list[str]:
        """Everything that is not here, each with the way to get it."""
        way = f" (pip install 'linemill[{self.extra}]')" if self.extra else ""
        return [
            *(f"the package {name}{way}" for name in self.packages if not _is_installed(name)),
            *(f"the key {name} (in the environment or in .env)" for name in self.keys if not os.environ.get(name)),
            *(f"the program {name} (on the PATH)" for name in self.tools if not shutil.which(name)),
        ]


def _is_installed(name: str) -> bool:
    """Without importing the package itself: some take seconds."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # the package around a submodule is not here
        return False
