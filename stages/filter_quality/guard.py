"""The checks of a whole record; HARD are those that no score outweighs: a key, a licence, a person, no room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import schema
from stages.filter_quality.findings import Finding
from stages.filter_quality.safety import check_licence, check_persons, check_secrets, without_persons
from stages.filter_quality.tokens import Budget

HARD = ("secret", "licence_not_allowed", "personal_data", "too_long")


class Guard(NamedTuple):
    """What the command line asks for."""

    secrets: bool = True
    licences: frozenset[str] | None = None
    personal: str = "keep"
    budget: Budget | None = None
    conflicts: dict[str, int] = {}  # noqa: RUF012  never changed

    def prepared(self, record: schema.Record) -> schema.Record:
        """The record as it would be kept: without what is redacted, and cut where it may be cut."""
        if self.personal == "redact":
            record = without_persons(record)
        return self.budget.fitted(record) if self.budget else record

    def findings(self, record: schema.Record) -> Iterator[Finding]:
        metadata = record["metadata"]
        if others := self.conflicts.get(metadata.get("id", "")):
            message = f"{others} other rows have the same program and a description that shares no words with this one"
            yield Finding("conflicting_descriptions", message)
        if isinstance(verdict := metadata.get("judge"), dict) and verdict.get("agrees") is False:
            yield Finding("judged_mismatch", f"a judge said: {verdict.get('reason') or 'they do not agree'}")
        if self.secrets:
            yield from check_secrets(record)
        if self.licences is not None:
            yield from check_licence(record, self.licences)
        if self.personal == "reject":
            yield from check_persons(record)
        if self.budget and (size := self.budget.size(record)).all > self.budget.most:
            message = f"{size.all:,} tokens, {size.answer:,} of them the answer, where {self.budget.most:,} are allowed"
            yield Finding("too_long", message)
