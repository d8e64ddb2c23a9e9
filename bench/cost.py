"""What a command costs: CPU seconds of all its processes, seconds, and what they have in memory together at the peak.

    python bench/cost.py COST.json COMMAND [ARGUMENT ...]

A program of its own, as Linux counts to a command the memory that its parent had when it started it. Processes that
outlive their parent come back to this one and are counted, too. Shared pages count once; the memory is looked at four
times a second, and is never said to be less than that of the largest process. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def memory_of(session: int) -> float:
    """What the processes of a session have now, in MB."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended in between
            if os.getsid(int(place.name)) == session:
                found = re.search(rb"^Pss: +(\d+)", (place / "smaps_rollup").read_bytes(), re.MULTILINE)
                total += int(found[1]) if found else 0
    return total / 1024


def cost(command: list[str]) -> dict[str, float]:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peak, begin = 0.0, time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.25)
            break
        peak = max(peak, memory_of(process.pid))
    seconds = time.monotonic() - begin
    with suppress(ChildProcessError):  # that there are no more
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {"cpu": used.ru_utime + used.ru_stime, "seconds": seconds, "peak": max(peak, used.ru_maxrss / 1024)}
    return figures | {"code": process.returncode}


if __name__ == "__main__":
    figures = cost(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(figures))
    sys.exit(figures["code"] != 0)
