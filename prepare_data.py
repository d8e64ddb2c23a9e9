"""Stage 1: read the sources, keep what is usable once, and split it into a train and a test side.

    python prepare_data.py prepare --sources manim_package
    python prepare_data.py prepare --sources manim_package my_scenes --output-dir data_formatted
    python prepare_data.py prepare --sources all --workers 4 --keep-going
    python prepare_data.py prepare --sources all --augmentation
    python prepare_data.py list-sources
    python prepare_data.py augment --input data_split/train.jsonl --output data_augmented/train.jsonl

In    sources.yaml, which names each source; downloads stand in --cache-dir, so that a second run needs no network
Out   a folder whose files change together or not at all, one record a line where they hold records:
      train.json test.json       the records
      rejects.jsonl              every row that is not used, with the reason
      removed_duplicates.json    every record that was merged into another one, with the id of that one
      deduplication_report.json dataset_stats.json ledger.json

Rows in = records kept + rows rejected + duplicates merged; variants of records come on top. No record is held in
memory: they wait in files, and what says who is a duplicate takes about 300 bytes of each.
"""

from __future__ import annotations

import errno
import itertools
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import extractors
import schema
from extractors import BadRow, Extract, Fetch
from extractors._voiceover import rewrite_voiceover
from stages.prepare_data import augment, augment_file, closing, identity, judge, listing, preflight, repair
from stages.prepare_data.catalogue import Source, ask, bind, choose, every_argument, nearest, read_catalogue
from stages.prepare_data.deciding import decide, read_other
from stages.prepare_data.identity import Decision, Policy
from stages.prepare_data.kept import Kept, beside
from stages.prepare_data.outputs import Reading, Result, log_reject, write_set
from stages.prepare_data.rows import Rules, read_rows
from stages.prepare_data.spool import Spool
from stages.prepare_data.spread import Answer, by_files, read_everywhere

if TYPE_CHECKING:
    from multiprocessing.synchronize import Semaphore

REPAIRS = repair.all_steps(silence=rewrite_voiceover)


class Plan(NamedTuple):
    """A source whose options are checked: its function, the arguments for it, and what this machine lacks for it."""

    source: Source
    fetch: Fetch
    extract: Extract | None
    arguments: dict[str, Any]
    lacks: list[str]

    def ask(self, name: str) -> Any:
        """What the function `needs` or `is_cached` of the type says of this source; None if there is none."""
        function = extractors.offer(self.extract, name) if self.extract else None
        if not function or not self.extract:
            return None
        try:
            return ask(function, every_argument(self.extract, self.arguments, self.fetch))
        except click.UsageError as error:
            raise click.UsageError(f"{self.source.place}: {error.message}") from error
        except Exception as error:  # code of others; it is named
            fault = f"the function {name} of the type {self.source.type} fails: {type(error).__name__}: {error}"
            raise click.UsageError(f"{self.source.place}: {fault}") from error


class Job(NamedTuple):
    """All that a process must know to read one source; it leaves the rows in `spool`."""

    plan: Plan
    limit: int | None
    rules: Rules
    spool: Path


def plan(source: Source, fetch: Fetch) -> Plan:
    """Check the options of a source, and look for what it needs; nothing is read."""
    known = extractors.types()
    if source.type not in known:
        raise click.UsageError(f"{source.place}: no type {source.type!r}{nearest(source.type, known)}")
    try:
        extract = extractors.load(source.type)
    except Exception as error:  # noqa: BLE001  code of others; whatever it raises, it is this type that is broken
        broken = f"the type {source.type}, which fails when imported ({type(error).__name__}: {error})"
        return Plan(source, fetch, None, {}, [broken])
    fetch = fetch._replace(folder=fetch.folder / source.type)
    checked = Plan(source, fetch, extract, bind(source, extract, fetch), [])
    needs = checked.ask("needs")
    return checked._replace(lacks=needs.missing()) if needs else checked


def read_job(job: Job, spare: Semaphore | None) -> Answer:
    """Read one source, here or in a process of its own, with the help of processes that have nothing to do."""
    source = job.plan.source
    try:
        assert job.plan.extract
        items = job.plan.extract(**job.plan.arguments)
        return Answer(read_rows(itertools.islice(items, job.limit), job.rules, job.spool, spare))
    except click.UsageError as error:
        return Answer({}, click.UsageError(f"{source.place}: {error.message}"), fatal=True)
    except click.ClickException as error:
        return Answer({}, schema.Failure(error.message))
    except OSError as error:
        # Without room on the disk no other source would do better.
        return Answer({}, schema.Failure(str(error)), fatal=error.errno == errno.ENOSPC)
    except Exception as error:  # noqa: BLE001  code of others; it is named, and the source counts as failed
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        message = f"{type(error).__name__}: {error} ({place}), a fault in the type {source.type}; -v shows where"
        return Answer({}, schema.Failure(" ".join(message.split())), details=traceback.format_exc())


def read_all(
    jobs: list[list[Job]], place: schema.Workplace, kept: Kept, *, keep_going: bool
) -> tuple[list[Reading], dict[str, str]]:
    """Read the sources; one that fails ends the run, or is noted as missing."""
    readings: dict[int, Reading] = {}
    missing: dict[str, str] = {}
    killed = Answer({}, schema.Failure("its process was killed, perhaps for memory; try fewer --workers"))
    for number, answer, spool in read_everywhere(read_job, jobs, place, kept):
        job, (failed, error, fatal, details) = jobs[number][0]._replace(spool=spool), answer or killed
        name = job.plan.source.name
        if not error:
            readings[number] = load(job, failed)
            schema.log(f"  {listing.describe(readings[number], job.limit)}")
            continue
        if details:
            schema.log(details.rstrip(), level=1)
        if isinstance(error, click.UsageError):
            raise error
        if fatal or not keep_going:
            raise schema.Failure(f"{name}: {error.message}{'' if fatal else '; --keep-going does without it'}")
        missing[name] = error.message
        schema.log(f"  {name}: MISSING: {error.message}")
    return [readings[number] for number in sorted(readings)], missing


def load(job: Job, failed: dict[str, int]) -> Reading:
    """Look at what a process wrote down."""
    spool, rejected, first = Spool(job.spool), Counter[str](), None
    for row in spool.rejects():
        log_reject(row)
        error = row["metadata"]["error"]
        rejected[error["code"]] += 1
        first = first or error["message"]
    return Reading(job.plan.source, spool, failed, rejected, first)


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


CACHE_DIR = click.option(
    "--cache-dir", default="~/.cache/manim_datasets", metavar="DIR", help="Where downloads are kept."
)


@main.command()
@click.option(
    "--sources", multiple=True, metavar="NAME...", help="Sources to read; all is every enabled one, and the default."
)
@click.argument("more_sources", nargs=-1, metavar="")
@SOURCES_FILE
@click.option("--output-dir", default="data_formatted", type=click.Path(file_okay=False), help="Folder to write.")
@CACHE_DIR
@click.option("--offline", is_flag=True, help="Use no network; a source that is neither local nor cached fails.")
@click.option("--refresh", is_flag=True, help="Download again what is in the cache.")
@click.option("--keep-going", is_flag=True, help="Do without a source that fails or lacks something; exit code 3.")
@schema.workplace_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take at most this many rows of each source.")
@click.option("--test-ratio", default=0.1, type=click.FloatRange(0, 1), metavar="R", help="Share of the test side.")
@click.option("--seed", default=42, help="Decides which records fall on the test side.")
@identity.options
@augment.options
@click.option("--min-code-length", default=0, type=click.IntRange(0), metavar="N", help="Shortest code, in characters.")
@click.option(
    "--min-description-length",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Shortest description, in characters; one that is missing is written later.",
)
@click.option("--max-description-words", type=click.IntRange(1), metavar="N", help="Longest description, in words.")
@repair.options(REPAIRS)
@click.option(
    "--shard-rows", type=click.IntRange(1), metavar="N", help="Write train and test as folders of shards of N rows."
)
@schema.verbosity("Say why each row is rejected.")
def prepare(
    sources: tuple[str, ...],
    more_sources: tuple[str, ...],
    sources_file: Path,
    output_dir: str,
    cache_dir: str,
    offline: bool,
    refresh: bool,
    keep_going: bool,
    workplace: schema.Workplace,
    against: tuple[str, ...],
    fix: tuple[str, ...],
    no_fix: tuple[str, ...],
    **options: Any,
) -> None:
    """Read the sources, and write the records as a train and a test side."""
    if more_sources and not sources:
        raise click.UsageError(
            f"{more_sources[0]!r} follows no option; did you mean --sources {' '.join(more_sources)}?"
        )
    schema.check(workplace, shards=None)
    if offline and refresh:
        raise click.UsageError("--refresh downloads again and --offline forbids it; leave one out")
    repairs = repair.choose(REPAIRS, fix, no_fix)
    chosen = choose(read_catalogue(sources_file), [*sources, *more_sources])
    preflight.refuse_own_output(chosen, Path(output_dir))
    schema.take_dotenv(*preflight.OF_HUBS)
    fetch = Fetch(Path(cache_dir).expanduser(), offline, refresh)
    # Everything is checked before the first source is read: a download should not be wasted on a misspelt name.
    plans = [plan(source, fetch) for source in chosen]
    if not keep_going:
        preflight.refuse_missing({plan.source.name: plan.lacks for plan in plans})
    policy = Policy(**{name: options[name] for name in Policy._fields})
    if against and not policy.deduplicate:
        raise click.UsageError("--against removes duplicates and --no-deduplicate forbids it; leave one out")
    told = {"sources": [source.name for source in chosen], "fix": [step.name for step in repairs], **options}
    told["against"] = list(against)
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder, beside(Path(output_dir)) as kept:
        result = read_plans(plans, Path(folder), policy, repairs, workplace, kept, keep_going=keep_going, **options)
        others = {path: read_other(path, policy, Path(folder, f"against{n}")) for n, path in enumerate(against)}
        result = decide(result._replace(others=others), options["test_ratio"], options["seed"], workplace)
        inputs = [sources_file, *map(Path, against)]
        written = write_set(result, Path(output_dir), inputs, told, augment.plan_of(**options))
    closing.report(result, written, output_dir, several=len(chosen) > 1)


def read_plans(
    plans: list[Plan],
    folder: Path,
    policy: Policy,
    repairs: list[repair.Step],
    place: schema.Workplace,
    kept: Kept,
    *,
    keep_going: bool,
    **options: Any,
) -> Result:
    """Read what can be read; the rest is missing."""
    limits = judge.Limits(
        options["min_code_length"], options["min_description_length"], options["max_description_words"]
    )
    lacking = {plan.source.name: f"needs {'; '.join(plan.lacks)}" for plan in plans if plan.lacks}
    for plan in plans:
        listing.say_what_is_odd(plan.source, lacking.get(plan.source.name))
    ready = [plan for plan in plans if not plan.lacks]
    rules = [Rules(one.source, limits, policy, repairs, BadRow) for one in ready]
    jobs = [Job(one, options["limit"], rules[number], Path(folder, str(number))) for number, one in enumerate(ready)]
    readings, failing = read_all([by_files(job, place, kept) for job in jobs], place, kept, keep_going=keep_going)
    missing = lacking | failing
    in_order = {plan.source.name: missing[plan.source.name] for plan in plans if plan.source.name in missing}
    return Result(readings, in_order, {}, Decision({}, {}, {}, {}), policy)


main.add_command(augment_file.command)


@main.command("list-sources")
@SOURCES_FILE
@CACHE_DIR
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_sources(sources_file: Path, cache_dir: str, as_json: bool) -> None:
    """Show the sources that can be named, whether they are cached, and what they lack."""
    schema.take_dotenv(*preflight.OF_HUBS)
    fetch = Fetch(Path(cache_dir).expanduser())
    for source in read_catalogue(sources_file):
        facts = listing.facts_of(source) | state_of(source, fetch)
        click.echo(schema.encode(facts).decode() if as_json else listing.as_line(facts))


def state_of(source: Source, fetch: Fetch) -> dict[str, Any]:
    """Whether a source is at hand (see `listing.CACHED`), what it lacks, and what is wrong with its entry."""
    if not source.entry.type:
        return {"cached": None, "lacks": [], "fault": None}
    try:
        checked = plan(source, fetch)
        at_hand = checked.ask("is_cached")
    except click.ClickException as error:
        return {"cached": "unknown", "lacks": [], "fault": error.message}
    words = {True: "local", False: "missing"} if source.options.get("path") else {True: "yes", False: "no"}
    return {"cached": words.get(at_hand, "unknown"), "lacks": checked.lacks, "fault": None}


if __name__ == "__main__":
    schema.main(main)
