"""Does several pieces of work at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, TypeVar

import schema

if TYPE_CHECKING:
    from multiprocessing.synchronize import Semaphore

Job = TypeVar("Job")
Answer = TypeVar("Answer")


Work = Callable[[Job, "Semaphore | None"], Answer]


def run_each(work: Work[Job, Answer], jobs: list[Job], workers: int) -> Iterator[tuple[int, Answer | None]]:
    """The number of each job with its answer, as they come; None when its process was killed.

    A job is told how many processes are spare: those that no other job needs, and that can help with this one.
    """
    side_by_side = min(workers, len(jobs))
    spare = multiprocessing.Semaphore(workers - side_by_side) if workers > 1 and jobs else None
    with _stoppable():
        if spare and side_by_side > 1:
            yield from _run_side_by_side(work, jobs, side_by_side, spare)
        else:
            yield from ((number, work(job, spare)) for number, job in enumerate(jobs))


def _run_side_by_side(
    work: Work[Job, Answer], jobs: list[Job], workers: int, spare: Semaphore
) -> Iterator[tuple[int, Answer | None]]:
    """A process for each job, and not a pool: what a source took of memory is given back when it ends, and a run that
    fails can stop the others in the middle of a download.
    """
    waiting = list(enumerate(jobs))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop(0)
                with _no_interrupt():  # one between the start and this entry would leave a process that nobody ends
                    connection, process = _start(work, job, spare)
                    running[connection] = (number, process)
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running.pop(ready)
                if not waiting:
                    spare.release()
                yield number, _answer(ready, process)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


@contextmanager
def _no_interrupt() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM as Ctrl-C: a run that just vanished would leave the programs that it started, such as git."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _leave(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _start(work: Work[Job, Answer], job: Job, spare: Semaphore) -> tuple[Connection, BaseProcess]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_work, args=(work, job, spare, theirs))
    process.start()
    theirs.close()  # else the end of the process would not be seen here
    return ours, process


def _work(work: Work[Job, Answer], job: Job, spare: Semaphore, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them, and only the main one should speak
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    schema.set_verbosity(-1)  # several progress bars on one terminal would overwrite each other
    connection.send(work(job, spare))


def _answer(connection: Connection, process: BaseProcess) -> Answer | None:
    try:
        answer: Answer | None = connection.recv()
    except EOFError:
        answer = None
    connection.close()
    process.join()
    return answer
