"""Numbers that others published, shown beside ours only when the benchmark is the same file, asked whole.

{"benchmark_sha256": "...", "url": "where they stand", "models": {"NAME": {"render": 0.59, "syntax": 1.0}}}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

import schema
from stages.evaluate_model import measures


class Published(msgspec.Struct, forbid_unknown_fields=True):
    """What a file of published numbers holds."""

    benchmark_sha256: str
    url: str
    models: dict[str, dict[str, float]]


def read(path: Path) -> Published:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Published)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--published {path}: {error}") from None
    for model, shares in found.models.items():
        for name, share in shares.items():
            if name not in measures.CHECKS or not 0 <= share <= 1:
                known = ", ".join(measures.CHECKS)
                raise click.UsageError(f"--published {path}: {model}: {name}: it takes shares from 0 to 1 of {known}")
    return found


def beside(path: Path, folder: Path) -> dict[str, Any]:
    """The published numbers for scores.json, once the ledgers show that the same was asked."""
    found = read(path)
    asked = benchmark_of(folder)
    if asked != found.benchmark_sha256:
        what = f"another file was asked (SHA-256 {asked[:12]})" if asked else "the benchmark was not asked whole"
        raise schema.Failure(f"--published {path}: its numbers can not stand beside these: {what}")
    return {"url": found.url, "models": found.models}


def benchmark_of(folder: Path) -> str | None:
    """The SHA-256 of the file that `generate` was given; None where it did not ask about all of its rows."""
    for name in ("generated.ledger.json", "asked.ledger.json"):
        place = folder / name
        if not place.is_file():
            raise schema.Failure(f"{place} is not there, so nobody knows which benchmark was asked")
        ledger = msgspec.json.decode(place.read_bytes())
        if ledger["options"].get("where") or ledger["options"].get("limit"):
            return None
        if not ledger["inputs"] or Path(ledger["inputs"][0]["path"]).name != "asked.jsonl":
            break
    return str(ledger["inputs"][0]["sha256"]) if ledger["inputs"] else None


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"published ({found['url']}):"
    for model, shares in found["models"].items():
        yield f"  {model}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
