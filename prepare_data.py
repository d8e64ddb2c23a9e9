"""Stage 1: read the sources, keep what is usable once, and split it into a train and a test side.

    python prepare_data.py prepare --sources all
    python prepare_data.py prepare --sources manim_package my_scenes --output-dir data_formatted
    python prepare_data.py list-sources

In    sources.yaml, which names each source; downloads stand in --cache-dir, so that a second run needs no network
Out   a folder whose files change together or not at all, one record a line where they hold records:
      train.json test.json       the records
      rejects.jsonl              every row that is not used, with the reason
      removed_duplicates.json    every record that was merged into another one, with the id of that one
      deduplication_report.json dataset_stats.json ledger.json

Rows in = records kept + rows rejected + duplicates merged. All records are held in memory.
"""

from __future__ import annotations

import ast
import itertools
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click

import extractors
import schema
from extractors import BadRow, Fetch
from schema import Fault, Record
from stages.prepare_data.catalogue import Source, bind, choose, nearest, read_catalogue
from stages.prepare_data.identity import merge_duplicates, split
from stages.prepare_data.outputs import STAGE, Reading, Result, priorities, write_set

Start = Callable[[], Iterable[Any]]


class Limits(NamedTuple):
    """What a record must have to be kept."""

    code: int
    description: int


def to_record(item: Any, source: Source) -> Record | Fault:
    """The record that an extractor's row stands for, with an id, or why there is none."""
    if isinstance(item, BadRow):
        return Fault(item.code, item.message)
    if not isinstance(item, dict) or not isinstance(item.get("metadata", {}), dict):
        return Fault("not_a_row", "the extractor gave something that is no row")
    # A rejects file can be a source: its rows are judged again.
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key != "error"}
    if item.get("source") not in (None, source.name):
        metadata.setdefault("upstream_source", item["source"])
    try:
        record = schema.to_record({**item, "source": source.name, "metadata": metadata}, source.name)
        if isinstance(record, Fault):
            return record
        defaults = {"kind": "code", "needs_description": False}
        licence = {"licence": record["metadata"].get("licence") or source.entry.licence}
        record = {**record, "metadata": defaults | record["metadata"] | licence}
        schema.encode(record)
        return schema.adopt(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Fault("not_json", f"holds a value that JSON has no word for: {error}")


def find_fault(record: Record, limits: Limits) -> Fault | None:
    """Why a record is of no use, or None."""
    code, description = record["code"], record["description"]
    if len(code) < limits.code:
        return Fault("short_code", f"{len(code)} characters of code; --min-code-length is {limits.code}")
    if description and len(description) < limits.description:
        return Fault(
            "short_description", f"{len(description)} characters; the shortest allowed are {limits.description}"
        )
    return find_syntax_error(code) if record["metadata"]["kind"] == "code" else None


def find_syntax_error(code: str) -> Fault | None:
    """Where a program stops being Python, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape sequence is a warning, and most TeX has some
            ast.parse(code)
    except SyntaxError as error:
        return Fault("does_not_parse", f"line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Fault("does_not_parse", f"the parser gives up: {error or type(error).__name__}")
    return None


def read_source(source: Source, items: Iterable[Any], limits: Limits) -> Reading:
    """Judge every row of one source."""
    reading = Reading(source, [], [])
    for item in schema.progress(items, source.name):
        record = to_record(item, source)
        if isinstance(record, Fault):
            reading.rejected.append(mark(unusable(item, source), record, raw=as_text(item)))
        elif fault := find_fault(record, limits):
            reading.rejected.append(mark(record, fault))
        else:
            parent = schema.content_hash(record) if record["metadata"].get("lineage") else None
            params = {"type": source.entry.type}
            reading.records.append(schema.add_lineage(record, stage=STAGE, params=params, parent=parent))
    return reading


def mark(record: Record, fault: Fault, **more: str) -> Record:
    """The record as it stands in the rejects file."""
    schema.log(f"    rejected: {fault.code}: {fault.message}", level=1)
    error = {"stage": STAGE, "code": fault.code, "message": fault.message, **more}
    return {**record, "metadata": {**record["metadata"], "error": error}}


def unusable(item: Any, source: Source) -> Record:
    """What stands in the rejects file for a row that is no record: where it was found."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    origin = item.origin if isinstance(item, BadRow) else metadata.get("origin") if isinstance(metadata, dict) else None
    place = {"origin": json.loads(json.dumps(origin, default=str))} if isinstance(origin, dict) else {}
    return {"description": "", "code": "", "source": source.name, "metadata": place}


def as_text(item: Any) -> str:
    """All of a row that is no record."""
    if isinstance(item, BadRow):
        return item.raw.encode("utf-8", "replace").decode()
    try:
        return schema.encode(item).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ascii(item)  # what an extractor made and JSON has no word for


def read_all(starts: list[tuple[Source, Start]], limits: Limits, *, keep_going: bool) -> Result:
    """Read the sources one after the other; one that fails ends the run, or is noted as missing."""
    readings: list[Reading] = []
    missing: dict[str, str] = {}
    for source, start in starts:
        try:
            reading = read_source(source, start(), limits)
        except click.UsageError as error:
            raise click.UsageError(f"{source.place}: {error.message}") from error
        except (click.ClickException, OSError) as error:
            reason = error.message if isinstance(error, click.ClickException) else str(error)
            if not keep_going:
                raise schema.Failure(f"{source.name}: {reason}; --keep-going does without it") from error
            missing[source.name] = reason
            schema.log(f"  {source.name}: MISSING: {reason}")
        else:
            readings.append(reading)
            schema.log(f"  {describe(reading)}")
    return Result(readings, missing, [], [], [])


def describe(reading: Reading) -> str:
    """One line about one source."""
    expected = reading.source.entry.expected_samples
    hope = "" if expected in (None, reading.rows) else f" where {expected:,} were expected"
    why = ", ".join(f"{count:,} {code}" for code, count in reading.reasons().items())
    rejected = f", rejected: {why}" if why else ""
    return f"{reading.source.name}: {reading.rows:,} rows{hope}, {len(reading.records):,} records{rejected}"


def merge_and_split(result: Result, *, deduplicate: bool, test_ratio: float, seed: int) -> Result:
    """Merge duplicates over all sources, then split."""
    records = [record for reading in result.readings for record in reading.records]
    if not records:
        raise schema.Failure(f"there is no record to write: {why_nothing(result)}")
    unique, removed = merge_duplicates(records, priorities(result.readings)) if deduplicate else (records, [])
    train, test = split(unique, test_ratio, seed)
    return result._replace(removed=removed, train=train, test=test)


def why_nothing(result: Result) -> str:
    reasons = [f"{count:,} {code}" for code, count in sorted(result.reasons().items())]
    first = next((row for reading in result.readings for row in reading.rejected), None)
    example = f" (the first: {first['metadata']['error']['message']})" if first else ""
    gone = [f"{name} is missing: {reason}" for name, reason in result.missing.items()]
    return "; ".join([*filter(None, [", ".join(reasons) + example]), *gone]) or "the sources gave no rows"


def starter(source: Source, fetch: Fetch, limit: int | None) -> Start:
    """Check the options of a source; the function that is returned begins to read it."""
    known = extractors.types()
    if source.entry.type not in known:
        raise click.UsageError(f"{source.place}: no type {source.entry.type!r}{nearest(source.entry.type, known)}")
    extract = extractors.load(source.entry.type)
    arguments = bind(source, extract, fetch._replace(folder=fetch.folder / source.entry.type))
    return lambda: itertools.islice(extract(**arguments), limit)


@click.group(context_settings=schema.CONTEXT)
def main() -> None:
    """Stage 1: sources -> train.json and test.json."""


def find_sources_file(context: click.Context, parameter: click.Parameter, given: str | None) -> Path:
    """The file that was given, else the one in this folder, else the one that came with the script."""
    places = [Path(given)] if given else [Path("sources.yaml"), Path(__file__).with_name("sources.yaml")]
    for place in places:
        if place.is_file():
            return place
    raise click.BadParameter(f"{places[0]}: there is no such file")


SOURCES_FILE = click.option(
    "--sources-file",
    metavar="FILE",
    callback=find_sources_file,
    help="The file that names the sources.  [default: sources.yaml, here or beside this script]",
)


@main.command()
@click.option(
    "--sources", multiple=True, metavar="NAME...", help="Sources to read; all is every enabled one, and the default."
)
@click.argument("more_sources", nargs=-1, metavar="")
@SOURCES_FILE
@click.option("--output-dir", default="data_formatted", type=click.Path(file_okay=False), help="Folder to write.")
@click.option("--cache-dir", default="~/.cache/manim_datasets", metavar="DIR", help="Where downloads are kept.")
@click.option("--offline", is_flag=True, help="Use no network; a source that is neither local nor cached fails.")
@click.option("--refresh", is_flag=True, help="Download again what is in the cache.")
@click.option("--keep-going", is_flag=True, help="Do without a source that fails, and end with exit code 3.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take at most this many rows of each source.")
@click.option("--test-ratio", default=0.1, type=click.FloatRange(0, 1), metavar="R", help="Share of the test side.")
@click.option("--seed", default=42, help="Decides which records fall on the test side.")
@click.option("--deduplicate/--no-deduplicate", default=True, help="Keep one record of those that say the same.")
@click.option("--min-code-length", default=0, type=click.IntRange(0), metavar="N", help="Shortest code, in characters.")
@click.option(
    "--min-description-length",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Shortest description, in characters; one that is missing is written later.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say why each row is rejected.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def prepare(
    sources: tuple[str, ...],
    more_sources: tuple[str, ...],
    sources_file: Path,
    output_dir: str,
    cache_dir: str,
    offline: bool,
    refresh: bool,
    keep_going: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Read the sources, and write the records as a train and a test side."""
    schema.set_verbosity(1 if verbose else -1 if quiet else 0)
    if more_sources and not sources:
        raise click.UsageError(
            f"{more_sources[0]!r} follows no option; did you mean --sources {' '.join(more_sources)}?"
        )
    if offline and refresh:
        raise click.UsageError("--refresh downloads again and --offline forbids it; leave one out")
    chosen = choose(read_catalogue(sources_file), [*sources, *more_sources])
    fetch = Fetch(Path(cache_dir).expanduser(), offline, refresh)
    # All options are checked before the first source is read: a download should not be wasted on a misspelt name.
    starts = [(source, starter(source, fetch, options["limit"])) for source in chosen]
    limits = Limits(options["min_code_length"], options["min_description_length"])
    result = read_all(starts, limits, keep_going=keep_going)
    split_by = {name: options[name] for name in ("deduplicate", "test_ratio", "seed")}
    result = merge_and_split(result, **split_by)
    told = {"sources": [source.name for source in chosen], **options}
    write_set(result, Path(output_dir), sources_file, told)
    report(result, output_dir)


def report(result: Result, output_dir: str) -> None:
    counts = result.counts()
    schema.log(
        f"{STAGE}: {counts['in']:,} in, {counts['kept']:,} kept ({counts['train']:,} train, {counts['test']:,} test),"
        f" {counts['rejected']:,} rejected, {counts['merged']:,} merged -> {output_dir}"
    )
    if not result.test or not result.train:
        schema.log(f"  the {'train' if result.test else 'test'} side is empty")
    if result.missing:
        raise schema.Incomplete("missing: " + "; ".join(f"{name}: {why}" for name, why in result.missing.items()))


@main.command("list-sources")
@SOURCES_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_sources(sources_file: Path, as_json: bool) -> None:
    """Show the sources that can be named."""
    for source in read_catalogue(sources_file):
        facts = {"name": source.name, **{name: getattr(source.entry, name) for name in source.entry.__struct_fields__}}
        click.echo(schema.encode(facts).decode() if as_json else as_line(facts))


def as_line(facts: dict[str, Any]) -> str:
    expected = "" if facts["expected_samples"] is None else f"{facts['expected_samples']:,} rows"
    state = "enabled" if facts["enabled"] else f"disabled: {facts['reason'] or 'no reason given'}"
    line = f"{facts['name']:<24} {facts['type']:<16} priority {facts['priority']:<3} {expected:<12} "
    return f"{line}{facts['licence'] or 'licence unknown':<20} {state}"


if __name__ == "__main__":
    schema.main(main)
