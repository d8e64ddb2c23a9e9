"""The seam between the tasks, which know what to ask about a record, and the engine, which gets it answered.

A task makes a Question for a record and gets back, in the order of the records, what its `read` made of the answer:

    class Judging:                                          # any object with these two methods is a Task
        def question(self, record):                         # pure; called once for each record, also by a plan
            return Question(self.service.request("judge", self.prompt, self.prompt.fill(...)), self.read)
        def settle(self, run, record, found):               # called in input order
            run.keep(... found.value ..., request=found.key)

    online.perform("judge", contract, service, Judging(service), params={...})
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import schema
from schema import Fault, Record

REQUEST_FORMAT = 2  # part of every key: to change what is sent is to ask anew


@dataclass(frozen=True)
class Request:
    """Everything that shapes an answer, and nothing else: all of it is in the key."""

    task: str  # name and version of what is asked for, "generate-descriptions/1"
    provider: str  # the shape of the service: "openai" or "anthropic"
    host: str
    model: str
    system: str
    user: str
    schema: dict[str, Any]
    max_tokens: int
    parameters: dict[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()  # data: addresses, shown before the text of the user
    sample: int = 0  # tells apart several answers to the same question

    @cached_property
    def key(self) -> str:
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return schema.sha256(schema.canonical({"format": REQUEST_FORMAT, **told}))


@dataclass(frozen=True)
class Answer:
    """What a provider said."""

    text: str
    model: str
    finish: str  # stop, length or refusal
    input_tokens: int  # all that were read, those of a prompt cache included
    output_tokens: int
    cached_tokens: int = 0  # of input_tokens: read from the provider's prompt cache
    stored_tokens: int = 0  # of input_tokens: written to the provider's prompt cache


class BadAnswer(ValueError):
    """What is wrong with an answer, where the rejects file has a name of its own for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Question(NamedTuple):
    """What a task asks about one record."""

    request: Request
    # What the text of an answer means. A ValueError says what is wrong with it, in words for the model: it is asked
    # once more with them, and the second such answer makes the row a reject. Answers from the cache are read again,
    # and equal requests share an answer: it must depend on nothing but the text and the request. A BadAnswer names
    # the reject; any other ValueError is an llm_bad_answer.
    read: Callable[[str], Any]
    note: Any = None  # comes back with the answer


class Found(NamedTuple):
    """The answer to a question."""

    value: Any  # what `read` made of it
    key: str  # of the request, for run.keep(record, request=...)
    note: Any = None


class Task(Protocol):
    """What is to be done with each record."""

    def question(self, record: Record) -> Question | Fault | None:
        """What to ask; a Fault when the record can not be asked about, None when nothing is wanted for it."""

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        """Keep or reject a record, in input order; None when nothing was asked. Faults never come here."""
