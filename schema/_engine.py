"""Where pure functions over shards run: here, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

import click

from schema import _report

T = TypeVar("T")
R = TypeVar("R")


class HasPlace(Protocol):
    """What is told where to work, such as the contract of a stage."""

    @property
    def workers(self) -> int: ...
    @property
    def engine(self) -> str: ...
    @property
    def address(self) -> str | None: ...


class Workplace(NamedTuple):
    """Where the work on shards runs, for a stage that has no place."""

    workers: int = 1
    engine: str = "local"
    address: str | None = None


def check(place: HasPlace, shards: str | None) -> None:
    """Refuse options that do not go together; `shards` says what to do when there are none, and is None else."""
    if place.engine == "local" and place.address:
        raise click.UsageError("--address is for --engine ray")
    if place.engine == "ray" and shards:
        raise click.UsageError(f"--engine {place.engine} works on shards: {shards}")
    if place.engine == "ray" and not place.address:
        raise click.UsageError("--engine ray needs --address: HOST:PORT of a cluster, or local to start one")


def each(place: HasPlace, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """What `work` gives for every task, in their order; several run at a time."""
    if place.engine == "ray":
        from schema._ray import each_on_ray

        assert place.address
        yield from each_on_ray(place.address, place.workers, work, tasks)
    elif min(place.workers, len(tasks)) <= 1:
        yield from map(work, tasks)
    else:
        with processes(place.workers) as in_order:
            yield from in_order(work, tasks)


@contextmanager
def processes(workers: int) -> Iterator[Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]]:
    """Worker processes that share tasks; results come in the order of the tasks, and few wait at a time."""
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    pool = ProcessPoolExecutor(workers, initializer=_report.ignore_interrupt)

    def in_order(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 4 * workers:  # the window that keeps memory flat
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        with pool:
            try:
                yield in_order
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except BrokenProcessPool as error:
        raise _report.Failure("a worker process was killed, perhaps for memory; try fewer --workers") from error
