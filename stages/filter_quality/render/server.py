"""A render server: imports Manim once, then forks a sandboxed child for each program that it is given.

    python -m stages.filter_quality.render.server        (the pool starts it, with an empty environment)

In    standard input: one JSON line with the wish, then one JSON line for each job
Out   standard output: one JSON line each, first what the server is; with `picture` bytes of PNG after the line

Each program is the first and last of its own processes, so that all it starts ends with it; the server holds the clock
and is out of its reach.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stages.filter_quality.render import child, latex, layers, tex
from stages.filter_quality.render.layers import KEPT, SCENE, Limits
from stages.filter_quality.render.verdicts import End, Verdict, verdict

_MOST_BYTES = 64 << 20
_NOT_STARTED = 113  # the sandbox itself failed
_FORMULA = {"level": "check", "frame": False, "tex": "latex"}
_CANARY = """import wave
from manim import *
class Canary(Scene):
    def construct(self):
        self.play(Write(Text("canary")))
"""


class Place(NamedTuple):
    """Where and how the programs of this server run."""

    limits: Limits
    readable: list[str]
    folder: str
    kept: str  # what the server makes for all of them
    own: int | None  # None without namespaces
    memory: tex.Memory


class Refused(Exception):
    """Why this server can not work, with the way out."""


def main() -> None:
    # What Manim or a library prints must not stand among the answers.
    gc.disable()  # almost all that is loaded stays
    jobs, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 0)
    wish = json.loads(jobs.readline())
    try:
        place = _settle(Limits(**wish["limits"]), unsafe=wish["unsafe"])
    except Refused as error:
        _reply(replies, {"refused": str(error)})
        return
    try:
        hello = _hello(place, jobs.fileno(), plain=wish["plain"])
        _reply(replies, hello)
        for line in jobs:
            job = {**json.loads(line), "tex": hello.get("tex")}
            said, picture, cpu_s, formulas = _run(job, place, jobs.fileno())
            if not wish["plain"] and place.memory.wants_shortcut(formulas):
                place.memory.shortcut = _shortcut(place)
            for formula in place.memory.wanted(formulas):
                drawn, svg, more, _ = _run(_FORMULA | {"formula": formula}, place, jobs.fileno())
                cpu_s += more
                if drawn["ok"]:
                    place.memory.known[formula] = svg.decode()
            _reply(replies, {"verdict": said, "cpu_s": round(cpu_s, 3), "picture": len(picture)}, picture)
    except BrokenPipeError:
        pass  # whoever asked is gone
    finally:
        if place.own is None:
            shutil.rmtree(Path(place.folder).parent, ignore_errors=True)


def _settle(limits: Limits, *, unsafe: bool) -> Place:
    """Go where the programs will run: out of sight of everything, or, when that was allowed, as far as it goes."""
    readable = layers.needed_folders()
    if not (problem := _tried(readable)):
        return Place(limits, ["/"], SCENE, KEPT, layers.close_in(readable), tex.Memory())
    if not unsafe:
        raise Refused(f"this system allows no sandbox ({problem}); --unsafe runs the programs without one")
    above = tempfile.mkdtemp(prefix="linemill-render-")
    if os.geteuid() == 0:
        with suppress(OSError):  # in a container root may be the only user there is
            os.chown(above, layers.NOBODY, layers.NOBODY)
            layers.drop_root()
    folder, kept = f"{above}{SCENE}", f"{above}{KEPT}"
    for each in (folder, kept):
        Path(each).mkdir()
    return Place(limits, [*readable, kept], folder, kept, None, tex.Memory())


def _tried(readable: list[str]) -> str:
    """Empty when all layers can be put on; tried in a child, because half of them could not be taken off again."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            layers.close_in(readable)
            layers.isolate()
        except OSError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as said:
        return said.read()


def _hello(place: Place, jobs: int, *, plain: bool) -> dict[str, Any]:
    """What this server is, after a first scene that proves that a child of it can import and draw."""
    from importlib.metadata import version

    os.environ.update(HOME=place.folder, TMPDIR=place.folder)
    try:
        child.warm_up(place.folder, plain=plain)
    except (ImportError, OSError) as error:
        return {"refused": f"Manim does not load: {error}"}
    gc.collect()
    _gather()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # programs end soon; what they leave behind may lie a while
    gc.enable()
    kind = tex.installed()
    canary, *_ = _run({"code": _CANARY, "scene": None, "level": "check", "frame": False, "tex": kind}, place, jobs)
    if not canary["ok"]:
        told = f"{canary['error']['type']}: {canary['error']['message']}"
        return {"refused": f"a first scene does not run in the sandbox ({told}); {_way_out(place)}"}
    versions = {name: version(name) for name in ("manim", "numpy", "pillow")}
    versions["python"] = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    names = ["limits", "namespaces"] if place.own is not None else ["limits"]
    names += [f"Landlock {landlock}"] if (landlock := layers.landlock_version()) else []
    return {"tex": kind, "versions": versions, "layers": names}


def _gather() -> None:
    """Let the kernel move what lies in memory to large pages, where it can: a fork copies, and its end takes away, an
    entry for each page. With all of Manim loaded that was half of what they cost."""
    madvise, large, collapse = ctypes.CDLL(None).madvise, 21, 25
    for number in {id(each) >> large for each in gc.get_objects()}:
        madvise(ctypes.c_void_p(number << large), ctypes.c_size_t(1 << large), collapse)


def _way_out(place: Place) -> str:
    return (
        "is the memory limit too low?"
        if place.own is not None
        else f"programs run as nobody, who may not read {sys.base_prefix}: run as an ordinary user, or with a Python "
        "that all may read"
    )


def _shortcut(place: Place) -> latex.Shortcut | None:
    """What makes formulas quicker, where programs can read and not change it; None where that is not to be had."""
    if place.own is None:
        return latex.make(Path(place.kept)) if layers.landlock_version() else None
    with suppress(OSError):
        layers.open_shelf()
        made = latex.make(Path(place.kept))
        layers.close_shelf()
        return made
    return None


def _run(job: dict[str, Any], place: Place, jobs: int) -> tuple[Verdict, bytes, float, Any]:
    """Start one program, end it at its time or when nobody waits for it any more, say what became of it.

    With its verdict come its picture, its time, and the formulas that it set.
    """
    nonce = os.urandom(16).hex()
    answers, answer = os.pipe()
    pid = os.fork() if place.own is None else layers.fork_alone(place.own)
    if pid == 0:
        try:
            _be_the_program(job, place, answer, nonce)
        finally:
            os._exit(_NOT_STARTED)
    os.close(answer)
    said, late = _wait(pid, answers, jobs, place.limits)
    os.close(answers)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        if place.own is None:
            os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    facts, picture = _read(said, nonce)
    cpu_s = usage.ru_utime + usage.ru_stime
    lost = facts is None and bool(said)
    end = End(os.waitstatus_to_exitcode(status), cpu_s, late=late and facts is None, lost=lost)
    if place.own is None:
        _empty(place.folder)
    formulas = facts.get("formulas") if facts else None
    return verdict(facts, end, place.limits), picture, cpu_s, formulas if isinstance(formulas, list) else []


def _be_the_program(job: dict[str, Any], place: Place, answer: int, nonce: str) -> None:
    child.detach(answer)
    os.setsid()  # a signal to its own group must not reach the server
    if place.own is not None:
        layers.isolate()
    os.chdir(place.folder)
    layers.confine(place.limits, place.readable, [place.folder, "/dev/null"])
    facts, picture = child.run(job, place.folder, place.memory)
    header = json.dumps({**facts, "nonce": nonce}).encode() + b"\n"
    with os.fdopen(answer, "wb") as file:
        file.write(header + picture)
    os._exit(0)


def _wait(pid: int, answers: int, jobs: int, limits: Limits) -> tuple[bytes, bool]:
    """What the program wrote until it ended or was out of time, and whether that was by the clock.

    It also stops when the server is left alone.
    """
    said, end = bytearray(), time.monotonic() + limits.wall_s
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(answers, select.POLLIN)
    poll.register(jobs, 0)  # only its end: whoever asked is gone
    while (left := end - time.monotonic()) > 0 and (unused := limits.cpu_s - _cpu_s(pid)) > 0:
        ready = [number for number, _ in poll.poll(1000 * min(left, max(unused, 0.05)))]
        if answers in ready:
            piece = os.read(answers, 1 << 20)
            said += piece
            if len(said) > _MOST_BYTES:
                break
            if not piece:
                poll.unregister(answers)
        elif process in ready or jobs in ready:
            break
    os.close(process)
    return bytes(said), left <= 0


def _cpu_s(pid: int) -> float:
    """The processor's time of another process, to the nanosecond; its limit counts ticks, and too many of them where
    the machine is shared."""
    return time.clock_gettime(~pid << 3 | 2)


def _read(said: bytes, nonce: str) -> tuple[dict[str, Any] | None, bytes]:
    """The answer, if it is the one that was asked for."""
    header, _, picture = said.partition(b"\n")
    try:
        facts = json.loads(header)
    except ValueError:
        return None, b""
    if not isinstance(facts, dict) or facts.pop("nonce", None) != nonce:
        return None, b""
    return facts, picture


def _empty(folder: str) -> None:
    for path in Path(folder).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _reply(replies: Any, header: dict[str, Any], picture: bytes = b"") -> None:
    replies.write(json.dumps(header).encode() + b"\n" + picture)
    replies.flush()


if __name__ == "__main__":
    main()
