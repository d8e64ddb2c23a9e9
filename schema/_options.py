"""How commands get options that several of them have."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from schema._report import set_verbosity

Command = Callable[..., Any]
Decorator = Callable[..., Command]


def stacked(options: Iterable[Decorator]) -> Decorator:
    """Several options at once, which --help shows in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


def verbosity(more: str | None = None) -> Decorator:
    """-q, and -v for a command that has more to say; the command itself is told neither."""

    def say(level: int) -> dict[str, Any]:
        def callback(context: click.Context, option: click.Parameter, given: bool) -> None:
            if given:
                set_verbosity(level)

        return {"is_flag": True, "expose_value": False, "callback": callback}

    verbose = [click.option("-v", "--verbose", help=more, **say(1))] if more else []
    return stacked([*verbose, click.option("-q", "--quiet", help="Say nothing but errors.", **say(-1))])


def dotenv(path: Path) -> dict[str, str]:
    """The settings of a .env file: NAME=value, `export` and quotes allowed, # begins a comment."""
    found = {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        match = re.fullmatch(r"\s*(?:export\s+)?(\w+)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^#]*?))\s*(?:#.*)?", line)
        if match:
            found[match[1]] = match[2] or match[3] or match[4] or ""
    return found


def take_dotenv(*beginnings: str) -> None:
    """Let .env in this folder speak where the environment does not; only of variables whose names begin so.

    What else stands there is no business of a stage, nor of the programs that it starts.
    """
    for name, value in dotenv(Path(".env")).items():
        if value and name.startswith(beginnings) and not os.environ.get(name):
            os.environ[name] = value
