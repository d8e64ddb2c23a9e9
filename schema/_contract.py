"""What every file-to-file stage is told on its command line, checked before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from pathlib import Path
from typing import Any

import click

from schema import _storage
from schema._engine import Workplace, check
from schema._files import rejects_path
from schema._options import stacked, verbosity
from schema._record import Record
from schema._report import Failure
from schema._shards import folder_of, is_set, shards_of

RESHARD = "let --input be a folder of them (python -m schema reshard)"
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
    engine: str = "local"
    address: str | None = None


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the contract; the command gets them as one parameter, `contract`."""

    @wraps(command)
    def with_contract(rejects: str | None, **others: Any) -> Any:
        output = others["output"]
        many = is_set(others["input"])
        contract = _contract(others, rejects or (_storage.join(output, "rejects") if many else rejects_path(output)))
        if not many and output != "-" and _storage.is_folder(output):
            raise click.UsageError(f"--output {output}: is a folder; name a file in it")
        return command(contract=contract, **others)

    return stacked([_INPUT, _OUTPUT, _REJECTS, *_OPTIONS])(with_contract)


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a stage whose output is a folder of files, its rejects among them (see `run`, parts)."""

    @wraps(command)
    def with_contract(**others: Any) -> Any:
        place = others["output"]
        if place == "-" or Path(place).is_file():
            raise click.UsageError(f"--output {place}: several files are written; name a folder")
        return command(contract=_contract(others, _storage.join(place, "rejects.jsonl")), **others)

    return stacked([_INPUT, _FOLDER, *_OPTIONS])(with_contract)


def workplace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where to work, for a stage without the contract; the command gets one parameter, `workplace`."""

    @wraps(command)
    def with_workplace(workers: int, engine: str, address: str | None, **others: Any) -> Any:
        return command(workplace=Workplace(workers, engine, address), **others)

    return stacked([WORKERS, *ENGINE])(with_workplace)


def _contract(others: dict[str, Any], rejects: str) -> Contract:
    """Take the options of the contract out of all others, and check them."""
    told = {field.name: others.pop(field.name) for field in fields(Contract) if field.name != "rejects"}
    contract = Contract(rejects=rejects, **told)
    _check_places(contract)
    return contract


_INPUT = click.option(
    "--input",
    required=True,
    metavar="FILE|DIR",
    help='Record file of any known shape, or a folder of shards, here or at s3://, gs:// or hf://; "-" is standard '
    "input.",
)
_OUTPUT = click.option(
    "--output",
    required=True,
    metavar="FILE|DIR",
    help='File to write, replaced only on success, or a folder for shards of the same names; "-" is standard output.',
)
_FOLDER = click.option(
    "--output", required=True, metavar="DIR", help="Folder to write; its files are replaced as a set, only on success."
)
_REJECTS = click.option("--rejects", metavar="FILE", help="Where rejected rows go.  [default: OUTPUT's .rejects.jsonl]")
WORKERS = click.option(
    "--workers",
    default=1,
    type=click.IntRange(1),
    metavar="N",
    help="Processes that share the work; the output is the same.",
)
ENGINE = [
    click.option(
        "--engine",
        default="local",
        type=click.Choice(["local", "ray"]),
        help="Where the work on shards runs: in processes of this machine, or on a Ray cluster.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT|local",
        help="With --engine ray: the head of the cluster; local starts one for this run.",
    ),
]
_OPTIONS = [
    click.option("--where", metavar="JQ", help="Take only the rows for which this jq program gives something true."),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after this many rows."),
    click.option("--seed", default=42, help="Decides everything that is left to chance."),
    WORKERS,
    click.option("--strict", is_flag=True, help="Fail at the first rejected row and write nothing."),
    click.option(
        "--max-reject-rate",
        type=click.FloatRange(0, 1),
        metavar="R",
        help="End with exit code 3 when a larger share of rows is rejected.",
    ),
    *ENGINE,
    verbosity("Say more."),
]


def _check_places(contract: Contract) -> None:
    if is_set(contract.input):
        _check_folders(contract)
    else:
        _check_files(contract)
    if contract.where:
        selector(contract.where)


def _check_files(contract: Contract) -> None:
    source = contract.input
    check(contract, shards=RESHARD)
    if source != "-" and (
        not _storage.exists(source) or (not _storage.is_remote(source) and not Path(source).is_file())
    ):
        raise click.UsageError(f"--input {source}: there is no such file")
    for name in ("output", "rejects"):
        place = getattr(contract, name)
        if "-" not in (place, source) and _same(place, source):
            raise click.UsageError(f"--{name} {place}: is the input; name another file")


def _check_folders(contract: Contract) -> None:
    """Shards come from a folder and go to a folder, each to a file of its own that is complete when its work is."""
    source = contract.input
    for name in ("output", "rejects"):
        place = getattr(contract, name)
        if place == "-" or (not _storage.is_remote(place) and Path(place).is_file()):
            raise click.UsageError(
                f"--{name} {place}: --input {source} is a folder of shards; name a folder for theirs"
            )
        if _lies_in(place, source):
            raise click.UsageError(f"--{name} {place}: is a folder in --input {source}; name one outside of it")
    if contract.strict:
        raise click.UsageError(
            "--strict writes nothing after the first rejected row, but shards are written one by one; "
            "--max-reject-rate 0 ends with exit code 3"
        )
    check(contract, shards=None)
    shards_of(source)


def _same(one: str, other: str) -> bool:
    if _storage.is_remote(one) or _storage.is_remote(other):
        return _storage.address(one) == _storage.address(other)
    return Path(one).exists() and Path(one).samefile(other)


def _lies_in(place: str, source: str) -> bool:
    folder = folder_of(source)
    if _storage.is_remote(place) or _storage.is_remote(folder):
        return f"{_storage.address(place)}/".startswith(f"{_storage.address(folder).rstrip('/')}/")
    return Path(place).resolve().is_relative_to(Path(folder).resolve())


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
            raise Failure(f"--where {program!r}: {error} (record {record['metadata'].get('id')})") from error

    return selects
