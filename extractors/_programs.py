"""Runs a program that fetches something, and ends it together with its own children when we are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread


def run_program(
    command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """What the program said; `TimeoutExpired` when it takes longer. It can ask nobody anything."""
    release = _hold_signals()
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own: git and pip leave what really downloads to children
        )
    except BaseException:
        release()
        raise
    with process:
        try:
            release()
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _hold_signals() -> Callable[[], None]:
    """Keep what would stop us until the function that is given back is called.

    One that came between the start of a program and the first line that can end it would leave it running.
    """
    if current_thread() is not main_thread():
        return lambda: None
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }

    def release() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in caught:
            signal.raise_signal(one)

    return release
