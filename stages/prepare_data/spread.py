"""Reads the files of one source in several places, and puts what they found together as if one had read them all."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

import schema
from stages.prepare_data.kept import Kept, files_in
from stages.prepare_data.rows import judge_rows
from stages.prepare_data.workers import Work, run_each

Job = TypeVar("Job", bound=Any)  # has a `plan`, its `rules`, and a `spool`: the name of the files that it writes
LEAST = 2**18  # bytes of a file: to read so many takes 0.1 CPU-s, to start a process for it 0.015
EXAMPLE = {"description": "Draw a circle.", "code": "from manim import *\n\nclass A(Scene):\n    pass\n"}


class Answer(NamedTuple):
    """How the reading of one source, or of one file of it, ended: counts, or the error that ended it."""

    failed: dict[str, int]
    error: click.ClickException | None = None
    fatal: bool = False
    details: str = ""


def by_files(job: Job, place: schema.Workplace, kept: Kept) -> list[Job]:
    """A job for each file of a source, for a cluster, and so that a run that is stopped goes on with the rest of them.

    On one machine small files are read as one, and processes share their rows.
    """
    pieces: list[dict[str, Any]] = []
    if job.limit is None:
        with suppress(click.UsageError):  # the reading says it, too, and a run can do without a source that fails
            pieces = job.plan.ask("pieces") or []
    size = sum(file.stat().st_size for piece in pieces for file in files_in(piece))
    if len(pieces) < 2 or (place.engine == "local" and size < LEAST * len(pieces)):
        return [job]
    jobs = []
    for number, piece in enumerate(pieces):
        arguments = job.plan.arguments | piece
        spool = kept.spool_of(job.rules, arguments, piece) or Path(f"{job.spool}-{number}")
        jobs.append(job._replace(plan=job.plan._replace(arguments=arguments), spool=spool))
    return jobs


def read_everywhere(
    work: Work[Job, Answer], jobs: list[list[Job]], place: schema.Workplace, kept: Kept
) -> Iterator[tuple[int, Answer | None, Path]]:
    """The number of each source with its answer and its rows, as they come; a source is a list of jobs."""
    flat = [(number, job) for number, parts in enumerate(jobs) for job in parts]
    answers: dict[int, dict[int, Answer | None]] = {number: {} for number in range(len(jobs))}
    for position, answer in _each_left(work, [job for _, job in flat], place, kept):
        number, found = flat[position][0], answers[flat[position][0]]
        found[position] = answer
        if len(found) == len(jobs[number]):
            spools = [job.spool for job in jobs[number]]
            joined = spools[0] if len(spools) == 1 else kept.own / str(number)
            yield number, _together([found[position] for position in sorted(found)], spools, joined), joined


def _each_left(
    work: Work[Job, Answer], jobs: list[Job], place: schema.Workplace, kept: Kept
) -> Iterator[tuple[int, Answer | None]]:
    """First what an earlier run has read."""
    kept.clear()
    left = []
    for position, job in enumerate(jobs):
        if (failed := kept.find(job.spool)) is None:
            left.append(position)
        else:
            yield position, Answer(failed)
    if len(left) < len(jobs):
        schema.log(f"  {len(jobs) - len(left):,} of {len(jobs):,} files were read before")
    begun = [jobs[position]._replace(spool=kept.begun(jobs[position].spool)) for position in left]
    for number, answer in _each(work, begun, place):
        job = jobs[left[number]]
        if answer and not answer.error and kept.is_kept(job.spool):
            kept.keep(job.spool, answer)
        yield left[number], answer


def _each(work: Work[Job, Answer], jobs: list[Job], place: schema.Workplace) -> Iterator[tuple[int, Answer | None]]:
    if place.engine == "local":
        if len(jobs) > place.workers > 1:
            # As many processes as files: what the first row makes each of them import costs more than a small file.
            judge_rows([EXAMPLE], jobs[0].rules)
        yield from run_each(work, jobs, place.workers)
        return
    for position, (answer, files) in enumerate(schema.each(place, partial(_read_there, work=work), jobs)):
        for suffix, data in files.items():
            Path(f"{jobs[position].spool}{suffix}").write_bytes(data)
        yield position, answer


def _read_there(job: Job, work: Work[Job, Answer]) -> tuple[Answer, dict[str, bytes]]:
    """Read on another machine; what was written there comes back with the answer."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        answer = work(job._replace(spool=Path(folder, "spool")), None)
        return answer, {path.suffix: path.read_bytes() for path in Path(folder).iterdir()}


def _together(answers: list[Answer | None], spools: list[Path], joined: Path) -> Answer | None:
    """One answer for a source: the first that went wrong, or the sum of all."""
    good = [answer for answer in answers if answer is not None and not answer.error]
    if len(good) < len(answers):
        return next(answer for answer in answers if answer is None or answer.error)
    if len(spools) > 1:
        _join(spools, joined)
    failed: Counter[str] = Counter()
    for answer in good:
        failed.update(answer.failed)
    return good[0]._replace(failed=dict(failed))


def _join(spools: list[Path], joined: Path) -> None:
    """The files of all spools, one after the other; those of each stay, for a run that is stopped later."""
    joined.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ends = {path.suffix: stack.enter_context(open(f"{joined}{path.suffix}", "wb")) for path in _files(spools[0])}
        for path in (path for spool in spools for path in _files(spool)):
            with path.open("rb") as part:
                shutil.copyfileobj(part, ends[path.suffix], 2**20)


def _files(spool: Path) -> list[Path]:
    return sorted(spool.parent.glob(f"{spool.name}.*"))
