"""Reads the files of one source in several places, and puts what they found together as if one had read them all."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

import schema
from stages.prepare_data.workers import Work, run_each

Job = TypeVar("Job", bound=Any)  # has a `plan`, and a `spool`: the name of the files that it writes
Answer = TypeVar("Answer", bound=Any)  # tells what has `failed`, and the `error` that ended the reading


def by_files(job: Job, place: schema.Workplace) -> list[Job]:
    """On a cluster a job for each file of a source; on one machine, processes share the rows of any source."""
    pieces = None
    if place.engine != "local" and job.limit is None:
        with suppress(click.UsageError):  # the reading says it, too, and a run can do without a source that fails
            pieces = job.plan.ask("pieces")
    plans = [job.plan._replace(arguments=job.plan.arguments | piece) for piece in pieces or [{}]]
    return [job._replace(plan=plan, spool=Path(f"{job.spool}-{n}")) for n, plan in enumerate(plans)]


def read_everywhere(
    work: Work[Job, Answer], jobs: list[list[Job]], place: schema.Workplace
) -> Iterator[tuple[int, Answer | None]]:
    """The number of each source with its answer, as they come; a source is a list of jobs, one for each of its files.

    The spool of the first job becomes that of the source, so that whoever asks for it finds all rows in it.
    """
    flat = [(number, job) for number, parts in enumerate(jobs) for job in parts]
    answers: dict[int, dict[int, Answer | None]] = {number: {} for number in range(len(jobs))}
    for position, answer in _each(work, [job for _, job in flat], place):
        number, found = flat[position][0], answers[flat[position][0]]
        found[position] = answer
        if len(found) == len(jobs[number]):
            yield number, _together([found[position] for position in sorted(found)], jobs[number])


def _each(work: Work[Job, Answer], jobs: list[Job], place: schema.Workplace) -> Iterator[tuple[int, Answer | None]]:
    if place.engine == "local":
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


def _together(answers: list[Answer | None], jobs: list[Job]) -> Answer | None:
    """One answer for a source: the first that went wrong, or the sum of all."""
    good = [answer for answer in answers if answer is not None and not answer.error]
    if len(good) < len(answers):
        return next(answer for answer in answers if answer is None or answer.error)
    if len(jobs) > 1:
        _join([job.spool for job in jobs])
    failed: Counter[str] = Counter()
    for answer in good:
        failed.update(answer.failed)
    joined: Answer = good[0]._replace(failed=dict(failed))
    return joined


def _join(spools: list[Path]) -> None:
    """Append the files of all spools to those of the first."""
    first, *others = spools
    with ExitStack() as stack:
        ends = {path.suffix: stack.enter_context(open(path, "ab")) for path in _files(first)}
        for path in (path for other in others for path in _files(other)):
            with path.open("rb") as rest:
                shutil.copyfileobj(rest, ends[path.suffix])
            path.unlink()


def _files(spool: Path) -> list[Path]:
    return sorted(spool.parent.glob(f"{spool.name}.*"))
