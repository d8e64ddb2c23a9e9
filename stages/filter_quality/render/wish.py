"""What the command line asks of the render gate."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any, NamedTuple

import click

LEVELS = ("static", "import", "check", "sampled", "last", "full")


class Wish(NamedTuple):
    """The options of the gate; `frames` and `cache` are folders."""

    level: str
    timeout: int
    memory: int
    fix: bool
    frames: str | None
    cache: str | None
    unsafe: bool

    def params(self) -> dict[str, Any]:
        """What shapes the result."""
        told = {"render": self.level, "render_timeout": self.timeout, "render_memory": self.memory}
        return told | ({"fix": True} if self.fix else {})


def take(options: dict[str, Any]) -> Wish | None:
    """The options of the gate, taken out of all; None when nothing is to run."""
    level = options.pop("render")
    wish = Wish(
        level,
        timeout=options.pop("render_timeout"),
        memory=options.pop("render_memory"),
        fix=options.pop("fix"),
        frames=options.pop("frames"),
        cache=options.pop("render_cache"),
        unsafe=options.pop("unsafe"),
    )
    if level != "static":
        _check_machine(level)
        return wish
    idle = {"--fix": wish.fix, "--frames": wish.frames, "--render-cache": wish.cache, "--unsafe": wish.unsafe}
    if names := [name for name, value in idle.items() if value]:
        raise click.UsageError(f"{names[0]} does nothing when no program runs; add --render check, for example")
    return None


def _check_machine(level: str) -> None:
    if sys.platform != "linux":
        raise click.UsageError(
            f"--render {level}: the sandbox is made of what Linux has; here only --render static works"
        )
    try:
        found = find_spec("manim")
    except ImportError:  # an import hook that says no says it so
        found = None
    if found is None:
        raise click.UsageError(
            f"--render {level} needs the package manim: pip install 'linemill[render]' (docs/faq.md)"
        )
