"""Says in one line what there is to say about a source."""

from __future__ import annotations

from typing import Any

import schema
from stages.prepare_data.catalogue import Entry, Source
from stages.prepare_data.outputs import Reading

# The words for programs, and those for people; a source that can never be read has none.
CACHED = {
    "yes": "cached",
    "no": "not cached",
    "local": "local files",
    "missing": "files missing",
    "unknown": "cache unknown",
    None: "",
}


def facts_of(source: Source) -> dict[str, Any]:
    """What sources.yaml says, for programs."""
    return {"name": source.name, **{name: getattr(source.entry, name) for name in Entry.__struct_fields__}}


def as_line(facts: dict[str, Any]) -> str:
    expected = "" if facts["expected_samples"] is None else f"{facts['expected_samples']:,} rows"
    lacks = "".join(f"; needs {thing}" for thing in facts["lacks"])
    fault = f"; {facts['fault']}" if facts["fault"] else ""
    if not facts["type"]:
        state = f"rejected: {facts['reason']}"
    elif facts["enabled"]:
        state = "enabled"
    else:
        state = f"disabled: {facts['reason'] or 'no reason given'}"
    line = f"{facts['name']:<24} {facts['type'] or '-':<16} priority {facts['priority']:<3} {expected:<12} "
    licence = facts["licence"] or "licence unknown"
    return f"{line}{licence:<20} {CACHED[facts['cached']]:<13} {state}{lacks}{fault}"


def describe(reading: Reading, limit: int | None) -> str:
    """What one source gave."""
    expected = reading.source.entry.expected_samples
    hope = "" if expected in (None, reading.rows) or reading.rows == limit else f" where {expected:,} were expected"
    why = ", ".join(f"{count:,} {code}" for code, count in sorted(reading.rejected.items()))
    rejected = f", rejected: {why}" if why else ""
    return f"{reading.source.name}: {reading.rows:,} rows{hope}, {len(reading.spool):,} records{rejected}"


def say_what_is_odd(source: Source, lack: str | None) -> None:
    """A source that is read against a warning, or not read at all."""
    if lack:
        schema.log(f"  {source.name}: MISSING: {lack}")
    elif not source.entry.enabled:
        reason = source.entry.reason or "no reason given"
        schema.log(f"  {source.name}: disabled ({reason}), and read because it was named")


def name_missing(missing: dict[str, str]) -> str:
    """All names; the reasons as long as they can be read, for each stood on a line of its own already."""
    told = [f"{name}: {why}" for name, why in missing.items()]
    if len(told) <= 3:
        return "; ".join(told)
    return f"{', '.join(missing)} (the first: {told[0]}; the others stand above, and in ledger.json if there is one)"
