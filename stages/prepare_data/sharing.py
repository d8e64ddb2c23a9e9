"""Lets several processes judge the rows of one source: one reads, and all of them judge, batch by batch, in order.

Batches and what becomes of them travel in files, because a pipe that is full would stop both of its ends. Whoever
reads judges, too, when no helper is free. A helper ends when its pipe does, so it never outlives the run.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import schema

if TYPE_CHECKING:
    from multiprocessing.synchronize import Semaphore

Done = TypeVar("Done")
Work = Callable[[list[Any]], Done]

BATCH = 256
# Enough for a helper to have the next batch at hand when it ends one.
_QUEUED = 2


class Helper:
    """A process that does the batches whose numbers it is told."""

    def __init__(self, work: Work[Any], place: Path):
        ours, theirs = multiprocessing.Pipe()
        self.process: BaseProcess = multiprocessing.Process(target=_help, args=(work, place, theirs), daemon=True)
        self.process.start()
        theirs.close()  # else the end of the process would not be seen here
        self.pipe: Connection = ours
        self.numbers: deque[int] = deque()  # in the order in which they will come back

    def take(self, number: int) -> None:
        self.numbers.append(number)
        self.pipe.send(number)


class Sharing(Generic[Done]):
    """The work on the batches of one source; `spare` counts the processes that nobody uses yet."""

    def __init__(self, work: Work[Done], place: Path, spare: Semaphore | None):
        self._work, self._place, self._spare = work, place, spare
        self._helpers: list[Helper] = []
        self._done: dict[int, Done] = {}

    def map(self, items: Iterator[Any]) -> Iterator[Done]:
        """What becomes of the batches, in their order."""
        following = 0
        try:
            for number, batch in enumerate(iter(lambda: list(islice(items, BATCH)), [])):
                if not self._give(number, batch):
                    self._done[number] = self._work(batch)
                self._collect(0)
                while number - following > 2 * _QUEUED * (1 + len(self._helpers)) and following not in self._done:
                    self._collect(None)  # else a slow batch would let the others fill the memory
                while following in self._done:
                    yield self._done.pop(following)
                    following += 1
            while any(helper.numbers for helper in self._helpers):
                self._collect(None)
            for number in sorted(self._done):
                yield self._done[number]
        finally:
            self._dismiss()

    def _give(self, number: int, batch: list[Any]) -> bool:
        """Hand the batch to a helper, if there is one with little to do or the run may have one more."""
        free = min(self._helpers, key=lambda helper: len(helper.numbers), default=None)
        if (free is None or len(free.numbers) >= _QUEUED) and number and self._spare and self._spare.acquire(False):
            free = Helper(self._work, self._place)
            self._helpers.append(free)
        if free is None or len(free.numbers) >= _QUEUED:
            return False
        try:
            data = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
            return False  # a row of somebody's type that can not travel is judged where it was read
        _batch_file(self._place, number).write_bytes(data)
        free.take(number)
        return True

    def _collect(self, timeout: float | None) -> None:
        """Take what the helpers have done; without a limit, wait for one of them."""
        busy = {helper.pipe: helper for helper in self._helpers if helper.numbers}
        for ready in wait(list(busy), timeout) if busy else []:
            assert isinstance(ready, Connection)
            helper = busy[ready]
            try:
                error = ready.recv()
            except EOFError:
                raise schema.Failure("its process was killed, perhaps for memory; try fewer --workers") from None
            if error is not None:
                raise error
            number = helper.numbers.popleft()
            file = _batch_file(self._place, number)
            self._done[number] = pickle.loads(file.read_bytes())
            file.unlink()

    def _dismiss(self) -> None:
        for helper in self._helpers:
            helper.pipe.close()
            helper.process.terminate()
            helper.process.join()
            if self._spare:
                self._spare.release()


def _batch_file(place: Path, number: int) -> Path:
    # Pickled, as all that multiprocessing sends is: an extractor may yield what JSON has no word for. Nobody else can
    # put anything there: the folder is made anew for each run, with the rights of its owner alone, and is gone with it.
    return Path(f"{place}.batch{number}")


def _help(work: Work[Any], place: Path, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them, and only the main one should speak
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, OSError):  # the reader is gone
        while True:
            file = _batch_file(place, pipe.recv())
            pipe.send(_do(work, file))


def _do(work: Work[Any], file: Path) -> Exception | None:
    """Put what becomes of a batch in its place; the error, if there is one, goes back to the reader."""
    try:
        file.write_bytes(pickle.dumps(work(pickle.loads(file.read_bytes())), pickle.HIGHEST_PROTOCOL))
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001  it is raised again where it is named
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note(traceback.format_exc())  # for -v; the message stays one line
        return told
    return None
