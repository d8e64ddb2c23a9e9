"""Who a record is: its id, its history, and which records are the same."""

from __future__ import annotations

import hashlib
from typing import Any

from schema._convert import drop_placeholder
from schema._record import Record, canonical, sha256

VERSION = "0.1.0"


def record_id(record: Record) -> str:
    """SHA-256 over the source, the place it was found at and the original code."""
    metadata = record["metadata"]
    code = metadata.get("original_code", record["code"])
    return sha256(canonical([record["source"], metadata.get("origin"), code]))


def adopt(record: Record) -> Record:
    """The record with an id, and with the flag in place of a text that stands for a missing description."""
    record = drop_placeholder(record)
    if "id" in record["metadata"]:
        return record
    return {**record, "metadata": {"id": record_id(record), **record["metadata"]}}


def content_hash(record: Record) -> str:
    """What the stages may change: two records with the same hash say the same."""
    return sha256(canonical([record["description"], record["code"]]))


def add_lineage(
    record: Record, *, stage: str, params: dict[str, Any], parent: str | None, request: str | None = None
) -> Record:
    """The record with one more entry in its history; no clock times, so that equal runs give equal bytes."""
    entry = {"stage": stage, "version": VERSION, "params": params, "parent": parent}
    if request is not None:
        entry["request"] = request
    history = [*record["metadata"].get("lineage", []), entry]
    return {**record, "metadata": {**record["metadata"], "lineage": history}}


def description_fingerprint(description: str) -> str:
    """Equal for descriptions that differ in case and spacing alone."""
    return sha256(" ".join(description.split()).casefold().encode())


def share(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on the key and the seed alone: the side of a split that a record falls on."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
