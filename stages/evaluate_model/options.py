"""What several commands are told alike, and who answers because of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import schema
from stages.evaluate_model import server
from stages.evaluate_model.asking import Asker, Sampling
from stages.evaluate_model.local import Local

Command = Callable[..., Any]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
TARGET = click.Path(file_okay=False, path_type=Path)


def is_left_out(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT


ADAPTER = click.option("--adapter", metavar="DIR", type=FOLDER, help="LoRA adapter to put on the model.")
MODEL = click.option("--model", required=True, metavar="DIR|NAME", help="Model folder, or a name on the hub.")
OUTPUT = click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for the results.")
NEAR = click.option(
    "--near-threshold", "near", default=0.7, type=click.FloatRange(0.3, 1), metavar="S",
    help="Share of equal runs of tokens from which code counts as the same; 1 is for equal code alone.",
)  # fmt: skip
SELECTION = schema.stacked(
    [
        click.option("--where", metavar="JQ", help="Take only rows for which this jq program gives something true."),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after this many rows."),
    ]
)
SERVER = schema.stacked([
    click.option("--base-url", metavar="URL", help="Ask a server that speaks like OpenAI; --model is its name there."),
    click.option("--api-key-file", metavar="FILE", type=FILE,
                 help=f"File with the key for --base-url.  [default: {server.KEY_NAME}, if it is set]"),
    click.option("--concurrency", default=4, type=click.IntRange(1), help="Prompts that a server is sent together."),
    click.option("--timeout", default=300.0, type=click.FloatRange(1), help="Seconds that a server may be silent."),
    click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", callback=server.parameters,
                 help="Also sent to a server, such as repeat_penalty=1.0; can be given several times."),
])  # fmt: skip
_CHOICE = schema.stacked([
    click.option("--system", metavar="TEXT", help="Said before every prompt that has no system text of its own."),
    click.option("--max-new-tokens", default=1024, type=click.IntRange(1), help="Cut an answer after this many."),
    click.option("--temperature", default=0.0, type=click.FloatRange(0),
                 help="0 always takes the most likely token; above it, how freely to draw."),
    click.option("--top-p", default=1.0, type=click.FloatRange(0, 1, min_open=True),
                 help="Draw from the likeliest tokens that have this share together."),
    click.option("--seed", default=42, help="Decides what a temperature leaves to chance."),
])  # fmt: skip


def choice_options(command: Command) -> Command:
    """How an answer is drawn; the command gets it as one parameter, `choice`, beside `system`."""

    @wraps(command)
    def with_choice(max_new_tokens: int, temperature: float, top_p: float, seed: int, **others: Any) -> Any:
        return command(choice=Sampling(max_new_tokens, temperature, top_p, seed), **others)

    return _CHOICE(with_choice)


def opened(
    model: str,
    adapter: Path | None,
    *,
    choice: Sampling,
    system: str | None,
    base_url: str | None,
    api_key_file: Path | None,
    concurrency: int,
    timeout: float,
    parameters: dict[str, Any],
    batch_size: int = 1,
) -> Asker:
    """Who will answer: a server, or weights that are loaded now."""
    if not base_url:
        return Local(model, adapter, choice, batch_size, system)
    if adapter:
        raise click.UsageError("--adapter is for weights in this process; a server has its own models")
    key = server.find_key(api_key_file)
    address = server.checked_url(base_url)
    settings: dict[str, Any] = {"concurrency": concurrency, "system": system, "timeout": timeout, "more": parameters}
    return server.Server(address, model, key, choice, **settings)
