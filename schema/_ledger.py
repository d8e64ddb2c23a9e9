"""Ledgers: what a stage read, wrote and counted, so that anybody can count again."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from schema import _storage
from schema._commit import atomic
from schema._identity import VERSION
from schema._lines import rows
from schema._record import Fault, decode

Facts = dict[str, Any]


def file_facts(
    path: str | os.PathLike[str], *, near: Path | None = None, at: Path | None = None, count: bool = True
) -> Facts:
    """Name, SHA-256 and number of rows of a file; `near` makes the name relative, `at` is where its bytes stand now."""
    if str(path) == "-":
        return {"path": "-", "sha256": None, "rows": None}
    name = _storage.address(path) if near is None else _storage.name_near(path, near)
    with _storage.at_hand(at or path) as place:
        rows_there = _count(place) if count and _holds_rows(Path(path)) else None
        facts = {"path": name, "sha256": _storage.digest(place), "rows": rows_there}
    return facts | ({"version": _storage.version(path)} if _storage.is_remote(path) and at is None else {})


def _holds_rows(path: Path) -> bool:
    names = {suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")}
    return bool(names & {".jsonl", ".ndjson", ".json"})


def _count(path: Path) -> int:
    return sum(1 for _ in rows(str(path)))


def build_ledger(
    *,
    stage: str,
    inputs: list[Facts],
    outputs: list[Facts],
    counts: dict[str, int],
    reasons: dict[str, int],
    options: dict[str, Any],
    rejects: Facts | None = None,
    files: list[Facts] | None = None,
    extra: dict[str, Any] | None = None,
) -> bytes:
    """The bytes of a ledger; no clock times, so that equal runs give equal ledgers."""
    ledger = {
        "stage": stage,
        "version": VERSION,
        "inputs": inputs,
        "outputs": outputs,
        "rejects": rejects,
        "files": files or [],
        "counts": counts,
        "reasons": dict(sorted(reasons.items())),
        "options": options,
        "versions": {"python": platform.python_version(), **_package_versions("msgspec", "jsonschema")},
        "extra": extra or {},
    }
    return msgspec.json.format(msgspec.json.encode(ledger), indent=2) + b"\n"


def write_ledger(
    path: str | os.PathLike[str],
    *,
    stage: str,
    inputs: Sequence[str | os.PathLike[str]],
    outputs: Sequence[str | os.PathLike[str]],
    counts: dict[str, int],
    reasons: dict[str, int],
    options: dict[str, Any],
    rejects: str | os.PathLike[str] | None = None,
    files: Sequence[str | os.PathLike[str]] = (),
    extra: dict[str, Any] | None = None,
    beside: str | os.PathLike[str] | None = None,
) -> None:
    """The ledger of a stage that is not file to file; names stand relative to its folder.

    `outputs` hold records, kept and augmented; `files` are everything else that was written: reports, weights.
    `beside` is the folder where the files will be once a staging folder has taken its place.
    """
    here = Path(path).absolute().parent
    there = Path(beside) if beside and _storage.is_remote(beside) else Path(beside or here).absolute()

    def facts(name: str | os.PathLike[str]) -> Facts:
        if str(name) == "-" or _storage.is_remote(name):
            return file_facts(name)
        place = Path(name).absolute()
        final = there / place.relative_to(here) if place.is_relative_to(here) else place
        return file_facts(final, near=there, at=place)

    data = build_ledger(
        stage=stage,
        inputs=[facts(name) for name in inputs],
        outputs=[facts(name) for name in outputs],
        rejects=facts(rejects) if rejects else None,
        files=[facts(name) | {"rows": None} for name in files],
        counts=counts,
        reasons=reasons,
        options=options,
        extra=extra,
    )
    with atomic(path) as file:
        file.write(data)


def audit(path: str | os.PathLike[str]) -> list[str]:
    """Everything in which a ledger and its files differ; empty when it all adds up."""
    place = Path(path)
    try:
        ledger = msgspec.json.decode(_storage.read_bytes(place))
        recorded = [*ledger["inputs"], *ledger["outputs"], *ledger["files"], *filter(None, [ledger["rejects"]])]
        faults = _audit_counts(ledger["counts"])
        for facts in recorded:
            faults += _audit_file(facts, place.parent)
        return faults or _audit_rows(ledger, place.parent)
    except (ValueError, KeyError, TypeError) as error:
        return [f"it is not a ledger: {type(error).__name__}: {error}"]


def _audit_counts(counts: dict[str, int]) -> list[str]:
    out = counts["kept"] + counts["rejected"] + counts["merged"]
    if counts["in"] != out:
        return [f"{counts['in']:,} in, but kept + rejected + merged = {out:,}"]
    return []


def _audit_file(facts: Facts, folder: Path) -> list[str]:
    if facts["sha256"] is None:
        return []
    place = _place(folder, facts)
    if not _storage.exists(place):
        return [f"{facts['path']} is gone"]
    with _storage.at_hand(place) as copy:
        now = _storage.digest(copy)
    if now != facts["sha256"]:
        return [f"{facts['path']} has changed since (SHA-256 {now[:12]}, was {facts['sha256'][:12]})"]
    return []


def _place(folder: Path, facts: Facts) -> Path:
    return Path(facts["path"]) if _storage.is_remote(facts["path"]) else folder / facts["path"]


def _audit_rows(ledger: dict[str, Any], folder: Path) -> list[str]:
    """Count again from the files: the rows read, the rows kept, and the rejects by reason."""
    faults, counts = [], ledger["counts"]
    whole_input = len(ledger["inputs"]) == 1 and ledger["options"].get("limit") is None
    if whole_input and (found := ledger["inputs"][0]["rows"]) is not None:
        taken = counts["in"] + counts.get("not_selected", 0)
        faults += [f"the input holds {found:,} rows, not {taken:,}"] if found != taken else []
    files = [_place(folder, facts) for facts in ledger["outputs"] if facts["rows"] is not None]
    expected = counts.get("made", counts["kept"] + counts.get("augmented", 0))
    kept = sum(map(_count, files))
    if files and kept != expected:
        faults.append(f"the outputs hold {kept:,} rows, not {expected:,}")
    if ledger["rejects"] and ledger["rejects"]["sha256"]:
        reasons = _reasons(_place(folder, ledger["rejects"]))
        if reasons != ledger["reasons"]:
            faults.append(f"the rejects by reason are {reasons}, not {ledger['reasons']}")
    return faults


def _reasons(path: Path) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in rows(str(path)):
        value = decode(row.data)
        found["unreadable" if isinstance(value, Fault) else value["metadata"]["error"]["code"]] += 1
    return dict(sorted(found.items()))


def _package_versions(*names: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        with suppress(PackageNotFoundError):  # a stage that runs without this package
            found[name] = version(name)
    return found
