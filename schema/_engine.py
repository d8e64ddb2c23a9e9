"""Where pure functions over shards run: here, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from schema import _report
from schema._contract import Contract

T = TypeVar("T")
R = TypeVar("R")


def each(contract: Contract, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """What `work` gives for every task, in their order; several run at a time."""
    if contract.engine == "ray":
        from schema._ray import each_on_ray

        assert contract.address
        yield from each_on_ray(contract.address, contract.workers, work, tasks)
    elif min(contract.workers, len(tasks)) <= 1:
        yield from map(work, tasks)
    else:
        with processes(contract.workers) as in_order:
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
