"""What every file-to-file stage is told on its command line, checked before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from pathlib import Path
from typing import Any

import click

from schema import _report
from schema._files import rejects_path
from schema._record import Record

CONTEXT = {"show_default": True, "max_content_width": 120, "help_option_names": ["-h", "--help"]}


@dataclass(frozen=True)
class Contract:
    """What every file-to-file stage is told on its command line."""

    input: str
    output: str
    rejects: str
    where: str | None
    limit: int | None
    seed: int
    workers: int
    strict: bool
    max_reject_rate: float | None
    engine: str


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the contract; the command gets them as one parameter, `contract`."""

    @wraps(command)
    def with_contract(rejects: str | None, **others: Any) -> Any:
        contract = _contract(others, rejects or rejects_path(others["output"]))
        if contract.output != "-" and Path(contract.output).is_dir():
            raise click.UsageError(f"--output {contract.output}: is a folder; name a file in it")
        return command(contract=contract, **others)

    for option in reversed([_INPUT, _OUTPUT, _REJECTS, *_OPTIONS]):
        option(with_contract)
    return with_contract


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a stage whose output is a folder of files, its rejects among them (see `run`, parts)."""

    @wraps(command)
    def with_contract(**others: Any) -> Any:
        place = Path(others["output"])
        if others["output"] == "-" or (place.exists() and not place.is_dir()):
            raise click.UsageError(f"--output {place}: several files are written; name a folder")
        return command(contract=_contract(others, str(place / "rejects.jsonl")), **others)

    for option in reversed([_INPUT, _FOLDER, *_OPTIONS]):
        option(with_contract)
    return with_contract


def _contract(others: dict[str, Any], rejects: str) -> Contract:
    """Take the options of the contract out of all others, and check them."""
    verbose, quiet = others.pop("verbose"), others.pop("quiet")
    _report.set_verbosity(1 if verbose else -1 if quiet else 0)
    told = {field.name: others.pop(field.name) for field in fields(Contract) if field.name != "rejects"}
    contract = Contract(rejects=rejects, **told)
    _check_places(contract)
    return contract


_INPUT = click.option(
    "--input", required=True, metavar="FILE", help='Record file of any known shape; "-" is standard input.'
)
_OUTPUT = click.option(
    "--output", required=True, metavar="FILE", help='File to write, replaced only on success; "-" is standard output.'
)
_FOLDER = click.option(
    "--output", required=True, metavar="DIR", help="Folder to write; its files are replaced as a set, only on success."
)
_REJECTS = click.option("--rejects", metavar="FILE", help="Where rejected rows go.  [default: OUTPUT's .rejects.jsonl]")
_OPTIONS = [
    click.option("--where", metavar="JQ", help="Take only the rows for which this jq program gives something true."),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after this many rows."),
    click.option("--seed", default=42, help="Decides everything that is left to chance."),
    click.option(
        "--workers",
        default=1,
        type=click.IntRange(1),
        metavar="N",
        help="Processes that share the work; the output is the same.",
    ),
    click.option("--strict", is_flag=True, help="Fail at the first rejected row and write nothing."),
    click.option(
        "--max-reject-rate",
        type=click.FloatRange(0, 1),
        metavar="R",
        help="End with exit code 3 when a larger share of rows is rejected.",
    ),
    click.option("--engine", default="local", type=click.Choice(["local"]), help="Where the work runs."),
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
]


def _check_places(contract: Contract) -> None:
    source = Path(contract.input)
    if contract.input != "-" and not source.is_file():
        what = "is a folder, not a file" if source.is_dir() else "there is no such file"
        raise click.UsageError(f"--input {source}: {what}")
    for name in ("output", "rejects"):
        place = getattr(contract, name)
        if "-" not in (place, contract.input) and Path(place).exists() and source.samefile(place):
            raise click.UsageError(f"--{name} {place}: is the input; name another file")
    if contract.where:
        selector(contract.where)


@cache
def selector(program: str) -> Callable[[Record], bool]:
    """Whether a jq program gives anything but false, null or nothing for a record."""
    import jq

    try:
        compiled = jq.compile(program)
    except ValueError as error:
        raise click.UsageError(f"--where {program!r}: {str(error).splitlines()[0]}") from error

    def selects(record: Record) -> bool:
        try:
            return any(value not in (None, False) for value in compiled.input_value(record).all())
        except ValueError as error:
            raise _report.Failure(f"--where {program!r}: {error} (record {record['metadata'].get('id')})") from error

    return selects
