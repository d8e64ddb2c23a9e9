"""What people read: standard error, and the way every script ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

T = TypeVar("T")
_verbosity = 0
_listener: Callable[[str], None] | None = None
_UPDATE_EVERY = 256


class Failure(click.ClickException):
    """What the world did: the old output is untouched."""

    exit_code = 1


class Incomplete(click.ClickException):
    """What there is has been written, but something is missing from it."""

    exit_code = 3


def set_verbosity(level: int) -> None:
    """-1 says nothing but errors, 0 the result, 1 more."""
    global _verbosity
    _verbosity = level


def log(message: str, *, level: int = 0) -> None:
    """One line for people."""
    if _verbosity >= level:
        click.echo(message, err=True)
    if _listener:
        _listener(message)


@contextmanager
def also_log(listener: Callable[[str], None]) -> Iterator[None]:
    """Give every line that is logged to `listener` as well, those included that are not shown."""
    global _listener
    _listener = listener
    try:
        yield
    finally:
        _listener = None


def progress(items: Iterable[T], label: str, note: Callable[[], str] = str) -> Iterator[T]:
    """The items; on a terminal, with a line that shows how many have gone by, and the note."""
    if _verbosity < 0 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}: {task.completed:,} rows {task.fields[note]}")
    with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, note="")
        shown = 0.0
        for position, item in enumerate(items, 1):
            # By the clock as well: rows that are asked about can take seconds.
            if position % _UPDATE_EVERY == 0 or time.monotonic() > shown + 0.5:
                shown = time.monotonic()
                bar.update(task, completed=position, note=note())
            yield item


def group(default: str) -> type[click.Group]:
    """A click group whose sub-command may be left out: `train.py --data X` is `train.py train --data X`."""

    class WithDefault(click.Group):
        def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
            if args and args[0] not in self.commands and args[0] not in context.help_option_names:
                args = [default, *args]
            return super().parse_args(context, args)

    return WithDefault


def main(command: click.Command) -> NoReturn:
    """Run a script: errors are one line, and the exit code says what kind they are."""
    try:
        code = command.main(standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        code = _say(130, "interrupted; nothing half-written is left, and the same command starts again")
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the help, which is no error
        code = error.exit_code
    except click.ClickException as error:
        code = _say(error.exit_code, error.format_message())
    except BrokenPipeError:
        # Whoever read standard output has enough; without this the interpreter complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _say(1, f"{place}{error.strerror or error}; the old output is untouched")
    sys.exit(code if isinstance(code, int) else 0)


def _say(code: int, message: str) -> int:
    click.echo(f"Error: {message}", err=True)
    return code


def ignore_interrupt(*_: Any) -> None:
    """For worker processes: the terminal sends Ctrl-C to all of them, and only the main one should speak."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
