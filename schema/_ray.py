"""Runs functions as tasks of a Ray cluster, which is asked for nothing but places to run and tasks done again.

What a task makes is in its files, and what says that it is done is its ledger: a cluster that is lost takes nothing
with it, and the same command on another one goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from schema._commit import Held
from schema._report import Failure, log

T = TypeVar("T")
R = TypeVar("R")

_WINDOW = 512  # tasks that wait in the cluster: enough for any, and few enough for the memory of its head
_RETRIES = 20  # of a task whose node was lost
_PATIENCE = 120.0  # seconds until the process of a lost node has let go of its output
_NODES = 300.0  # seconds until a first node must be there
_GOES_ON = "the same command goes on with what is not finished"
_CODE = ("schema", "stages", "extractors")


def each_on_ray(address: str, workers: int, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """What `work` gives for every task, in their order."""
    ray = connect(address, workers)
    waiting: deque[Any] = deque()
    try:
        with _last_words(address):
            shared = ray.put(work)  # it may hold much, and travels once to each node
            do = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do)
            for task in tasks:
                waiting.append(do.remote(shared, task, str(Path.cwd())))
                if len(waiting) > _WINDOW:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        message = " ".join(str(error).split())[:300]
        raise Failure(f"Ray at {address}: {message}; {_GOES_ON}") from None


@contextmanager
def _last_words(address: str) -> Iterator[None]:
    """Ray ends this process without a word when the head, or the node here, is lost: a shell says it then."""
    message = f"Error: Ray at {address}: the cluster, or this process, was ended; {_GOES_ON}"
    with subprocess.Popen(
        ["sh", "-c", 'read end || echo "$0" >&2', message], stdin=subprocess.PIPE, bufsize=0
    ) as shell:
        try:
            yield
        finally:
            with suppress(BrokenPipeError):  # Ctrl-C has ended the shell, too
                os.write(shell.stdin.fileno(), b"well\n")  # type: ignore[union-attr]


def _do(work: Callable[[T], R], task: T, folder: str) -> R:
    """A task whose node was lost starts again elsewhere, perhaps before the old process has noticed its end."""
    with suppress(OSError):  # so that names mean the same there as here; a node without this folder has its own
        os.chdir(folder)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return work(task)
        except Held:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def connect(address: str, workers: int = 1) -> Any:
    """Ray, with a connection to the cluster at this address; `local` starts one for this run, of so many workers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a busy machine starts slowly, and that is no fault
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise click.UsageError("--engine ray needs the package ray: pip install 'linemill[scale]'") from None
    if ray.is_initialized():
        return ray
    _knock(address)
    alone: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    with tempfile.TemporaryDirectory(prefix="linemill-") as folder:
        try:
            # The address is always given: without one Ray joins whatever cluster it finds on this machine.
            ray.init(
                address=address,
                runtime_env={"working_dir": str(_code(Path(folder)))},
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **alone,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            message = " ".join(str(error).split())
            raise Failure(f"--address {address}: no Ray cluster: {message}; does it want RAY_AUTH_TOKEN?") from None
    _wait_for_processors(ray, address)
    return ray


def _wait_for_processors(ray: Any, address: str) -> None:
    """A cluster whose nodes are not there yet, or never will be, would take tasks and say nothing."""
    deadline, told = time.monotonic() + _NODES, False
    while not ray.cluster_resources().get("CPU"):
        if time.monotonic() > deadline:
            raise Failure(f"--address {address}: the cluster has no processor for tasks; start a node (ray start)")
        if not told:
            log(f"--address {address}: no node has a processor for tasks yet; waiting {_NODES:.0f} s for one")
        told = True
        time.sleep(1)


def _knock(address: str) -> None:
    """Ray itself waits for long where nobody answers, and then ends the process."""
    host, _, port = address.rpartition(":")
    if address == "local":
        return
    if not host or not port.isdigit():
        raise click.UsageError(f"--address {address}: it takes HOST:PORT, or local")
    try:
        socket.create_connection((host, int(port)), timeout=30).close()
    except OSError as error:
        raise Failure(f"--address {address}: no Ray cluster answers there: {error.strerror or error}") from None


def _code(folder: Path) -> Path:
    """Our own modules, which travel to the nodes; the packages that they need are installed there."""
    root = Path(__file__).parent.parent
    for name in _CODE:
        if (root / name).is_dir():  # a script may have been copied with schema and its own folder alone
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
