"""What a training says, kept beside its result with the time of each line: OUTPUT/train.log, and those before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import click

import schema

FILE = "train.log"
KEPT, LARGEST = 5, 10 * 2**20  # logs of earlier runs; a run that says more than this starts another file


@contextmanager
def kept(output: Path) -> Iterator[None]:
    """Write everything that is said into the log as well, whatever is shown; and how it ended."""
    output.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(output / FILE, maxBytes=LARGEST, backupCount=KEPT, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    if (output / FILE).exists():
        handler.doRollover()

    def write(message: str) -> None:
        handler.emit(logging.LogRecord("train", logging.INFO, "", 0, click.unstyle(message), None, None))

    try:
        with schema.also_log(write):
            yield
    except click.ClickException as error:
        write(f"Error: {error.format_message()}")
        raise
    except KeyboardInterrupt:
        write("interrupted")
        raise
    finally:
        handler.close()
