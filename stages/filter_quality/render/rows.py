"""The rows of a run through both gates: the checks first, then, for those that pass, the picture."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import schema
from stages.filter_quality.render.fixes import repaired
from stages.filter_quality.render.pool import Pool
from stages.filter_quality.render.verdicts import Verdict

_AHEAD = 8  # rows for each worker that may be in work before the oldest is written
_NOT_RUNNABLE = {"does_not_parse", "no_scene_class"}
_ONE_AT_A_TIME = threading.Lock()  # the parser's warnings are caught in a place that all threads share

Check = Callable[[schema.Record], schema.Record | schema.Fault]


class Judged(NamedTuple):
    """A record as it will be written, and why it is rejected when it is."""

    record: schema.Record
    fault: schema.Fault | None = None


class Gate(NamedTuple):
    """Both gates, and what is to be done with rows that fail."""

    check: Check
    pool: Pool
    tag_only: bool

    def rows(self, run: schema.Run) -> None:
        """Keep or reject every row in order; several are in work at the same time."""
        waiting: deque[Future[Judged]] = deque()
        for record in run.records():
            waiting.append(self.pool.submit(self._judge, record))
            if len(waiting) > _AHEAD * self.pool.workers:
                _settle(run, waiting.popleft().result())
        while waiting:
            _settle(run, waiting.popleft().result())

    def _judge(self, record: schema.Record) -> Judged:
        judged = self._look(record)
        if not self.pool.wish.fix or _passes(judged):
            return judged
        with _ONE_AT_A_TIME:
            code, names = repaired(record["code"])
        if not names or record["metadata"].get("kind", "code") != "code":
            return judged
        metadata = record["metadata"]
        told = {"original_code": metadata.get("original_code", record["code"])}
        told |= {"fixes_applied": [*metadata.get("fixes_applied", []), *names]}
        again = self._look({**record, "code": code, "metadata": {**metadata, **told}})
        return again if _passes(again) else judged

    def _look(self, record: schema.Record) -> Judged:
        with _ONE_AT_A_TIME:
            checked = self.check(record)
        if isinstance(checked, schema.Fault):
            return Judged(record, checked)
        if not _can_run(checked):
            return Judged(checked)
        said = self.pool.judge(checked)
        checked = {**checked, "metadata": {**checked["metadata"], "render": said}}
        return Judged(checked, None if said["ok"] or self.tag_only else _fault(said))


def _settle(run: schema.Run, judged: Judged) -> None:
    if judged.fault:
        run.reject(judged.record, judged.fault)
    else:
        run.keep(judged.record)


def _passes(judged: Judged) -> bool:
    said = judged.record["metadata"].get("render")
    return judged.fault is None and (said is None or bool(said["ok"]))


def _can_run(record: schema.Record) -> bool:
    issues = {issue["check"] for issue in record["metadata"]["quality"]["issues"]}
    return record["metadata"].get("kind", "code") == "code" and not issues & _NOT_RUNNABLE


def _fault(said: Verdict) -> schema.Fault:
    error = said["error"]
    place = f" (line {error['line']})" if error["line"] else ""
    return schema.Fault(f"render_{error['class']}", f"{error['type']}: {error['message']}{place}")
