"""Recorded runs: every request with its answer in a file, and a run out of such a file, offline and free.

One JSON object a line: {"key": ..., "request": {...}, "answer": {"text": ..., "model": ..., "usage": ...}}.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.answers import Answers
from stages.prepare_data_with_llm.questions import Found, Question, Request, Task

KEPT = ("text", "model", "finish", "usage")
MISSING = "not_recorded"


class Recording:
    """A task whose answers are written down as they are used, each once, in the order of the rows."""

    def __init__(self, task: Task, answers: Answers, put: Callable[[bytes], Any]) -> None:
        self.task, self.answers, self.put = task, answers, put
        self.written: set[str] = set()

    def question(self, record: Record) -> Question | Fault | None:
        asked = self.task.question(record)
        return asked._replace(note=(asked.request, asked.note)) if isinstance(asked, Question) else asked

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            self.task.settle(run, record, None)
            return
        request, note = found.note
        if found.key not in self.written and (answer := self.answers.get(found.key)):
            self.written.add(found.key)
            kept = {name: answer.get(name) for name in KEPT}
            self.put(schema.canonical({"key": found.key, "request": asdict(request), "answer": kept}) + b"\n")
        self.task.settle(run, record, found._replace(note=note))


class Replaying:
    """A task that asks only what was recorded; any other question is a reject that waits for a real run."""

    def __init__(self, task: Task, recorded: Answers, path: Path) -> None:
        self.task, self.recorded, self.path = task, recorded, path
        self.settle = task.settle

    def question(self, record: Record) -> Question | Fault | None:
        asked = self.task.question(record)
        if not isinstance(asked, Question):
            return asked
        found = self.recorded.get(asked.request.key)
        if found is None:
            return Fault(MISSING, f"{self.path} holds no answer to the request {asked.request.key}")
        try:
            asked.read(found["text"])
        except ValueError as error:
            return Fault(MISSING, f"{self.path}: the answer to {asked.request.key} can not be used any more: {error}")
        return asked


class Recorded(Answers):
    """The answers of a file, in memory."""

    def __init__(self, rows: dict[str, dict[str, Any]], path: Path) -> None:
        super().__init__(None, path)
        self.answers = rows

    def get(self, key: str) -> dict[str, Any] | None:
        return self.answers.get(key)


@contextmanager
def recorded(task: Task, answers: Answers, path: Path | None) -> Iterator[Task]:
    """The task, recorded into a file if there is one to be."""
    if path is None:
        yield task
        return
    with schema.atomic(path) as file:
        yield Recording(task, answers, file.write)


def load(path: Path) -> Recorded:
    return Recorded({request.key: answer for request, answer in entries(path)}, path)


def first_request(path: Path) -> Request:
    """What tells who was asked."""
    for request, _ in entries(path):
        return request
    raise click.UsageError(f"--replay {path}: it holds no recorded request")


def entries(path: Path) -> Iterator[tuple[Request, dict[str, Any]]]:
    names = {field.name for field in fields(Request)}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                told = {name: value for name, value in row["request"].items() if name in names}
                request = Request(**told | {"images": tuple(told["images"])})
                fits = row["key"] == request.key and isinstance(row["answer"]["text"], str)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise click.UsageError(f"--replay {path}: line {number} is no recorded request: {error!r}") from None
            if not fits:
                raise click.UsageError(f"--replay {path}: line {number}: its request does not fit its key")
            yield request, row["answer"]
