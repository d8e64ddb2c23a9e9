"""What a run says about a program: it renders, or one of the classes of error that docs/pipeline.md names."""

from __future__ import annotations

import errno
import signal
from typing import Any, NamedTuple

from stages.filter_quality.code_checks import MANIMGL, MANIMGL_NAMES
from stages.filter_quality.render.layers import Limits

# What depends on the machine and its load more than on the program is tried again, never remembered.
PASSING = ("timeout", "memory", "sandbox")
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENETUNREACH, errno.EAGAIN, errno.ENOSPC, errno.EFBIG}
_REFUSED |= {errno.EMFILE, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EDQUOT}
_NO_NETWORK = {"gaierror", "URLError", "ConnectionError"}  # the last is also what the package requests calls it

Verdict = dict[str, Any]


class End(NamedTuple):
    """How the process of a run came to its end."""

    status: int  # as os.waitstatus_to_exitcode gives it: a signal is negative
    cpu_s: float
    late: bool  # ended by the clock
    lost: bool  # the answer is not one, or is not the one that was asked for


def verdict(answer: dict[str, Any] | None, end: End, limits: Limits) -> Verdict:
    """`ok`, the scenes with their facts, the error with its class, and which TeX was met."""
    answer = answer or {}
    error = answer.get("error")
    if not error and answer.get("stage") == "done":
        return {"ok": True, "scenes": answer["scenes"], "error": None, "tex": answer["tex"]}
    if error:
        told = {"class": _class_of(error), **{key: error[key] for key in ("type", "message", "line")}}
    else:
        name, kind, message = _without_error(answer, end, limits)
        told = {"class": name, "type": kind, "message": message, "line": None}
    return {"ok": False, "scenes": answer.get("scenes", []), "error": told, "tex": answer.get("tex", "none")}


def _without_error(answer: dict[str, Any], end: End, limits: Limits) -> tuple[str, str, str]:
    """Class, type and message for a run that raised nothing, or that was over before it could say so."""
    if answer:
        return "no_output", "NoScene", "the program has no scene"
    if end.late:
        return "timeout", "WallTime", f"no end within {limits.wall_s} s"
    if end.status == -signal.SIGKILL and end.cpu_s >= limits.cpu_s / 2:
        return "timeout", "CpuTime", f"more than {limits.cpu_s} s of processor time"
    if end.lost:
        return "sandbox", "ForgedResult", "it wrote a result of its own"
    if end.status == -signal.SIGKILL:
        return "memory", "SIGKILL", "the system ended it, for memory most likely"
    if end.status < 0:
        return "other", signal.Signals(-end.status).name, f"ended by the signal {signal.Signals(-end.status).name}"
    return "no_output", "Exit", f"it left with exit code {end.status} before its picture was made"


def _class_of(error: dict[str, Any]) -> str:
    kinds, name = error["kinds"], str(error["name"] or "").split(".")[0]
    if "MemoryError" in kinds or error["errno"] == errno.ENOMEM:
        return "memory"
    if error["errno"] in _REFUSED or _NO_NETWORK & set(kinds):
        return "sandbox"
    if error["in_tex"]:
        return "tex"
    if "SystemExit" in kinds or "KeyboardInterrupt" in kinds:
        return "no_output"
    if name in (*MANIMGL, *MANIMGL_NAMES) or _is_opengl(error):
        return "other_engine"
    if "ImportError" in kinds:
        return "missing_module" if "ModuleNotFoundError" in kinds and name != "manim" else _of_import(error)
    if "OSError" in kinds:
        return "missing_asset" if "FileNotFoundError" in kinds or "could not find" in error["message"] else "other"
    return "api" if {"NameError", "AttributeError", "TypeError"} & set(kinds) else "other"


def _of_import(error: dict[str, Any]) -> str:
    """`from manim import X` of an X that Manim does not have (any more) is a name like any other."""
    words = error["message"].split("'")
    if error["message"].startswith("cannot import name") and len(words) > 3 and words[3].split(".")[0] == "manim":
        return "other_engine" if words[1] in MANIMGL_NAMES else "api"
    return "import"


def _is_opengl(error: dict[str, Any]) -> bool:
    return "opengl" in error["message"].casefold()
