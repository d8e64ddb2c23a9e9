"""The two readings of a split: the first decides the side of every record, the second writes them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

import schema
from schema import Fault, Record
from stages.split_data.formats import FORMATS, find_fault
from stages.split_data.leaks import Files
from stages.split_data.sides import SIDES, Clash, Facts, Placement, assign, bond, upstream_side, value_of

STAGE = "split_data"


class Job(NamedTuple):
    """What is asked of one split."""

    ratios: list[float]
    seed: int
    row_format: str
    stratify: list[str]
    honour_split: str | None
    benchmarks: list[str]
    near: float | None
    normalise: str

    @property
    def names(self) -> tuple[str, ...]:
        return SIDES[: len(self.ratios)]

    def options(self) -> dict[str, Any]:
        told = {"format" if key == "row_format" else key: value for key, value in self._asdict().items()}
        return {"near_threshold" if key == "near" else key: value for key, value in told.items()}


class Input(NamedTuple):
    """A record file, or a folder of shards; standard input as the copy of it that can be read twice."""

    path: str
    told: str
    source: str | None = None
    shard: str = ""

    def read(self, reject: schema.Reject) -> Iterator[Record]:
        found = schema.read(self.path, reject, source=self.source)
        return (schema.adopt(record) for record in found)

    def is_set(self) -> bool:
        return schema.is_set(self.path)

    def pieces(self) -> list[Input]:
        """Every file of a set, or the one."""
        if not self.is_set():
            return [self]
        name = schema.set_name(self.path)
        return [Input(file, file, name, Path(file).name) for file in map(schema.absolute, schema.files(self.path))]

    def output(self, side: str) -> str:
        """Where the rows of one side go: those of a shard to a shard of the same name."""
        return f"{side}/{self.shard}" if self.shard else f"{side}.jsonl"


@contextmanager
def readable_twice(source: str) -> Iterator[Input]:
    """The file itself, which must not change meanwhile; what can be read only once is copied."""
    if source != "-" and (schema.is_set(source) or schema.is_remote(source) or Path(source).is_file()):
        before = schema.stamp(source)
        with ExitStack() as stack:
            if not schema.is_set(source):
                stack.enter_context(schema.at_hand(source))  # one download for both readings
            yield Input(source, source)
        if before != schema.stamp(source):
            raise schema.Failure(f"{source}: it changed while it was read; start again")
        return
    name = "stdin" if source == "-" else Path(source).name
    with tempfile.NamedTemporaryFile(prefix="linemill-") as spool:
        with sys.stdin.buffer if source == "-" else open(source, "rb") as pipe:
            shutil.copyfileobj(pipe, spool)
        spool.flush()
        yield Input(spool.name, source, name)


def accepted(input_: Input, job: Job, reject: schema.Reject) -> Iterator[Record]:
    """All records of the file that the format can hold."""
    for record in input_.read(reject):
        upstream = upstream_side(record, job.honour_split, len(job.ratios))
        fault = upstream if isinstance(upstream, Fault) else find_fault(record, job.row_format)
        if fault:
            reject(record, fault.message, code=fault.code)
        else:
            yield record


class Looked:
    """The first reading of some rows: what the second one and the sides need of them."""

    def __init__(self) -> None:
        self.facts: list[Facts] = []
        self.seen: set[str] = set()
        self.fault = ""

    def records(self, input_: Input, job: Job) -> Iterator[Record]:
        for record in accepted(input_, job, self.note):
            self.facts.append(facts_of(record, job))
            self.seen.update(key for key in asked_keys(job) if value_of(record, key) is not None)
            yield record

    def note(self, item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        """It is rejected in the second reading."""
        self.fault = self.fault or f"; the first row is rejected: {code}: {message}"

    def add(self, other: Looked) -> None:
        self.facts += other.facts
        self.seen |= other.seen
        self.fault = self.fault or other.fault


def look(piece: Input, job: Job) -> tuple[schema.Marked, Looked]:
    """The first reading of one shard, in a process of its own."""
    looked = Looked()
    return schema.sketches(looked.records(piece, job), near=job.near, normalise=job.normalise), looked


def place(input_: Input, benchmarks: Files, job: Job, workplace: schema.Workplace) -> Placement:
    """The first reading: the side of every record."""
    looked = Looked()

    def found() -> Iterator[schema.Marked]:
        yield schema.sketches(benchmarks.records(), near=job.near, normalise=job.normalise)
        for marks, one in schema.each(workplace, partial(look, job=job), input_.pieces()):
            looked.add(one)
            yield marks

    def stream() -> Iterator[Record]:
        yield from benchmarks.records()
        yield from schema.progress(looked.records(input_, job), STAGE)

    if input_.is_set():
        marks = schema.gather(found(), near=job.near)
    else:
        marks = schema.marks(stream(), near=job.near, normalise=job.normalise)
    facts = looked.facts
    if not facts:
        raise schema.Failure(f"{input_.told}: there is no record to split{looked.fault}")
    for key in asked_keys(job):
        if key not in looked.seen:
            option = "--honour-split" if key == job.honour_split else "--stratify"
            raise click.UsageError(f"{option} {key}: no record has this key in its metadata")
    return assign(marks, facts, job.ratios, job.seed, exact=bool(job.stratify))


def asked_keys(job: Job) -> list[str]:
    return [*job.stratify, *filter(None, [job.honour_split])]


def facts_of(record: Record, job: Job) -> Facts:
    upstream = upstream_side(record, job.honour_split, len(job.ratios))
    group = record["metadata"].get("group")
    return Facts(
        group=None if group is None else str(group),
        stratum=tuple(sys.intern(value_of(record, key) or "") for key in job.stratify),
        upstream=upstream if isinstance(upstream, int) else None,
    )


def write_sides(
    staging: Path, input_: Input, benchmarks: Files, placement: Placement, job: Job, reject: schema.Reject
) -> dict[str, int]:
    """The second reading: every record to its side or to the rejects; gives the size of each side."""
    first = sum(benchmarks.sizes())
    wanted = {link.earlier for found in placement if isinstance(found, Clash) for link in found.links}
    named = benchmarks.name({number for number in wanted if number < first})
    names = {number: benchmarks.title(number, whose.id) for number, whose in named.items()}
    sizes = Counter(dict.fromkeys(job.names, 0))
    numbered = iter(enumerate(placement, first))
    for piece in input_.pieces():
        with ExitStack() as stack:
            keep = [stack.enter_context(side_writer(staging / piece.output(name), name, job)) for name in job.names]
            for record in accepted(piece, job, reject):
                number, found = next(numbered)
                if number in wanted:
                    names[number] = f"{record['metadata']['id']} in {side_name(found)}"
                if isinstance(found, Clash):
                    reject(record, why(found, record, job, names), code=found.code)
                else:
                    keep[found](record)
                    sizes[SIDES[found]] += 1
    return dict(sizes)


def side_name(found: int | Clash) -> str:
    return "no side" if isinstance(found, Clash) else SIDES[found]


def why(clash: Clash, record: Record, job: Job, names: dict[int, str]) -> str:
    told = " and ".join(f"{bond(link)} {names[link.earlier]}" for link in clash.links)
    if clash.code == "split_conflict" and job.honour_split:
        return f"its {job.honour_split} is {value_of(record, job.honour_split)!r}, but it {told}"
    return f"it {told}"


@contextmanager
def side_writer(path: Path, name: str, job: Job) -> Iterator[Callable[[Record], None]]:
    convert = FORMATS[job.row_format]
    if convert is None:
        with schema.write(path) as put:
            yield partial(put_record, put, {**job.options(), "side": name})
    else:
        with schema.atomic(path) as file:
            yield lambda record: put_row(file.write, convert(record))


def put_record(put: Callable[[Record], None], params: dict[str, Any], record: Record) -> None:
    put(schema.add_lineage(record, stage=STAGE, params=params, parent=schema.content_hash(record)))


def put_row(put: Callable[[bytes], Any], row: dict[str, Any]) -> None:
    put(schema.encode(row) + b"\n")
