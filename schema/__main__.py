"""Look at record files and ledgers from the command line.

    python -m schema validate data_formatted/train.json
    python -m schema trace 3f9a data_split/train.jsonl data_enhanced/train.json data_formatted/train.json
    python -m schema audit data_formatted data_enhanced/train.ledger.json
    python -m schema convert --input chats.jsonl --output records.jsonl
    python -m schema parquet --input data_filtered/train.json --output-dir data_parquet
    python -m schema reshard data_formatted/train.json data_shards --shards 100

In    record files of any known shape, or folders of shards; for audit, ledgers or folders that hold them
Out   standard output for trace; a record file for convert; a folder for parquet and reshard; nothing for validate and
      audit
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

import schema
from schema._files import parse, source_name
from schema._lines import Row, rows
from schema._manifest import audit_manifest, find_ledgers
from schema._parquet import write_parquet
from schema._record import decode
from schema._reshard import write_shards
from schema._shards import MANIFEST


def must_exist(context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if path != "-" and not Path(path).exists() and not schema.exists(path):
            raise click.BadParameter(f"Path {path!r} does not exist.")
    return paths


_FILES = click.argument("files", nargs=-1, required=True, callback=must_exist)
_SHOWN = 20


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Look at record files and ledgers."""


@cli.command()
@_FILES
@click.option("--all", "show_all", is_flag=True, help=f"Name every fault, not the first {_SHOWN} of a file.")
def validate(files: tuple[str, ...], show_all: bool) -> None:
    """Say which rows are no records, and why; exit code 3 when there are any.

    Rows of other known shapes count as faults here: convert turns them into records.
    """
    bad = sum([_validate_file(path, show_all) for path in files])
    if bad:
        raise schema.Incomplete(f"{bad:,} rows are not records")


def _validate_file(path: str, show_all: bool) -> int:
    good = bad = 0
    identifiers: Counter[str] = Counter()
    for row in rows(path):
        reason, identifier = _fault_of(row)
        if reason is None:
            good += 1
            identifiers[identifier] += identifier != ""
            continue
        bad += 1
        if show_all or bad <= _SHOWN:
            schema.log(f"{path}: line {row.number}: {reason}")
    if bad > _SHOWN and not show_all:
        schema.log(f"{path}: ... and {bad - _SHOWN:,} more (--all names them)")
    for identifier, count in identifiers.items():
        if count > 1:
            schema.log(f"{path}: warning: the id {identifier} stands in {count} records")
    schema.log(f"{path}: {good:,} records, {bad:,} faults")
    return bad


def _fault_of(row: Row) -> tuple[str | None, str]:
    if row.whole_length:
        return f"{row.whole_length:,} bytes in one row", ""
    value = decode(row.data)
    if isinstance(value, schema.Fault):
        return value.message, ""
    reason = schema.problem(value)
    return reason, "" if reason else value["metadata"].get("id", "")


@cli.command()
@click.argument("identifier", metavar="ID")
@_FILES
def trace(identifier: str, files: tuple[str, ...]) -> None:
    """Show where the record with this ID (or the start of it) stands, and what each stage did to it.

    Each step names the hash of what the stage received; "found" says that one of FILES holds exactly that.
    """
    found = [(path, row.number, record) for path in files for row, record in _records(path) if _is(record, identifier)]
    if not found:
        raise schema.Failure(f"no record of {', '.join(files)} has an id that starts with {identifier}")
    whole = {record["metadata"]["id"] for _, _, record in found}
    if len(whole) > 1:
        raise click.UsageError(
            f"{identifier} is the start of {len(whole)} ids; give more of it: {', '.join(sorted(whole))}"
        )
    contents = {schema.content_hash(record): f"{path}:{number}" for path, number, record in found}
    for path, number, record in found:
        click.echo(f"{path}:{number}  {record['metadata']['id']}")
        for line in _history(record, contents):
            click.echo(f"  {line}")


def _records(path: str) -> Iterator[tuple[Row, schema.Record]]:
    for row in rows(path):
        record = parse(row, source_name(path))  # not revive: a rejected record should show its error
        if not isinstance(record, schema.Fault):
            yield row, schema.adopt(record)


def _is(record: schema.Record, identifier: str) -> bool:
    own = str(record["metadata"]["id"])
    return own.startswith(identifier)


def _history(record: schema.Record, contents: dict[str, str]) -> list[str]:
    metadata = record["metadata"]
    origin = ", ".join(f"{name} {value}" for name, value in (metadata.get("origin") or {}).items())
    lines = [f"source {record['source']}: {origin or 'no origin is recorded'}"]
    for entry in metadata.get("lineage", []):
        lines.append(_step(entry, contents))
    lines.append(f"now {schema.content_hash(record)[:12]}: {_short(record['description'])}")
    if error := metadata.get("error"):
        lines.append(f"rejected by {error.get('stage') or 'a stage'}: {error['code']}: {error['message']}")
    return lines


def _step(entry: dict[str, Any], contents: dict[str, str]) -> str:
    params = ", ".join(f"{name}={value}" for name, value in (entry.get("params") or {}).items())
    parent = entry.get("parent")
    came = "from the source" if parent is None else f"received {parent[:12]}"
    if parent in contents:
        came += f" (found: {contents[parent]})"
    request = f", request {entry['request'][:12]}" if entry.get("request") else ""
    return f"{entry['stage']} {entry.get('version', '')}: {came}{request}{f' [{params}]' if params else ''}"


def _short(text: str, length: int = 72) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


@cli.command()
@_FILES
def audit(files: tuple[str, ...]) -> None:
    """Count again what ledgers say, from the files themselves; exit code 1 when something differs."""
    ledgers = sorted({ledger for path in files for ledger in find_ledgers(path)})
    if not ledgers:
        raise schema.Failure(f"no ledger in {', '.join(files)}; a stage writes one beside its output")
    faults = 0
    for ledger in ledgers:
        found = audit_manifest(ledger) if Path(ledger).name == MANIFEST else schema.audit(ledger)
        faults += len(found)
        schema.log(f"{ledger}: {'; '.join(found) if found else 'adds up'}")
    if faults:
        raise schema.Failure(f"{faults} differences in {len(ledgers)} ledgers; run the stages again (make all)")


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--shards", type=click.IntRange(1), metavar="N", help="Write N shards of about as many rows each.")
@click.option("--rows", type=click.IntRange(1), metavar="N", help="Write shards of N rows, and a last one of the rest.")
@click.option("--compress", type=click.Choice(["gz", "zst"]), help="Compress the shards.")
def reshard(source: str, output: str, shards: int | None, rows: int | None, compress: str | None) -> None:
    """Cut a record file, or a folder of shards, into shards; the rows and their order stay.

    All shards one after the other are what IN is, row by row; nothing is converted or rejected.
    """
    if (shards is None) == (rows is None):
        raise click.UsageError("how many shards? say --shards N, or --rows N for each")
    if not schema.exists(source):
        raise click.UsageError(f"{source}: there is no such file or folder")
    count, written = write_shards(source, output, shards, rows, f".{compress}" if compress else "")
    schema.log(f"reshard: {count:,} rows -> {written:,} shards in {output}")


@cli.command()
@schema.options
def convert(contract: schema.Contract) -> None:
    """Turn rows of any known shape into records; what has no known shape is rejected with a reason."""
    with schema.run("convert", contract, params={}) as run:
        run.map(_unchanged)


def _unchanged(record: schema.Record) -> schema.Record:
    return record


@cli.command()
@click.option(
    "--input", "source", required=True, metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help='Record file of any known shape; "-" is standard input.',
)  # fmt: skip
@click.option("--output-dir", required=True, type=click.Path(file_okay=False), help="Folder to write.")
def parquet(source: str, output_dir: str) -> None:
    """Write all.parquet, and a file for each source; metadata as one column of JSON text."""
    if find_spec("pyarrow") is None:
        raise click.UsageError("parquet needs the package pyarrow: pip install 'linemill[sources]'")
    kept, reasons = write_parquet(source, output_dir)
    rejected = reasons.total()
    schema.log(f"parquet: {kept + rejected:,} in, {kept:,} kept, {rejected:,} rejected -> {output_dir}")


if __name__ == "__main__":
    schema.main(cli)
