"""Which command has rejected the rows of a file."""

from collections import Counter
from collections.abc import Sequence

import click
import msgspec

import schema


def command_of(path: str, commands: Sequence[str]) -> str:
    """The one command that stands in all rows; a file of several, or of other stages, is one line for the user."""
    if not schema.exists(path):
        raise click.UsageError(f"--input {path}: there is no such file")
    stages: Counter[str] = Counter()
    for file in schema.files(path):
        with schema.at_hand(file) as place, open(place, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    stages[msgspec.json.decode(line)["metadata"]["error"]["stage"]] += 1
                except (ValueError, KeyError, TypeError):
                    raise click.UsageError(f"--input {file}: line {number} is no line of a rejects file") from None
    if len(stages) != 1:
        found = f"rows rejected by {', '.join(sorted(map(str, stages)))}" if stages else "no rows"
        raise click.UsageError(f"--input {path}: it holds {found}; the rejects of one command are retried at a time")
    stage = next(iter(stages))
    if stage not in commands:
        raise click.UsageError(
            f"--input {path}: its rows were rejected by {stage!r}, which is no command of this stage"
        )
    return stage
