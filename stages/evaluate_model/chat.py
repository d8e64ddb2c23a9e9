"""A conversation with a model, on a terminal or through a pipe."""

from __future__ import annotations

from collections.abc import Callable

import click

import schema
from stages.evaluate_model.asking import Asker

HELP = "/new begins anew, /adapter DIR puts another adapter on, /adapter none takes it off, /quit ends"


def say(piece: str) -> None:
    click.echo(piece, nl=False)


def once(talker: Asker, system: str | None, prompt: str) -> None:
    talker.reply([*opening(system), {"role": "user", "content": prompt}], say)
    click.echo()


def opening(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def interactive(talker: Asker, system: str | None, switch: Callable[[str], Asker]) -> None:
    """Line by line until the end of the input; what was said before is part of each prompt."""
    schema.log(HELP)
    messages = opening(system)
    while (line := next_line()) is not None:
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return
        if word == "/new":
            messages = opening(system)
        elif word == "/adapter":
            talker = switched(talker, switch, rest.strip())
        elif word.startswith("/"):
            schema.log(f"{word} is no command: {HELP}")
        elif line:
            messages.append({"role": "user", "content": line})
            messages.append({"role": "assistant", "content": talker.reply(messages, say)})
            click.echo()


def switched(talker: Asker, switch: Callable[[str], Asker], name: str) -> Asker:
    """A mistyped name is no reason to end the conversation."""
    try:
        return switch(name)
    except click.ClickException as error:
        schema.log(f"{error.format_message()}; nothing has changed")
        return talker


def next_line() -> str | None:
    import sys

    click.echo("> ", nl=False, err=True)
    line = sys.stdin.readline()
    return line.strip() if line else None
