"""The manifest of a set of shards: what each holds and what became of its rows. It is written last."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from schema import _storage
from schema._commit import atomic
from schema._contract import Contract
from schema._identity import VERSION
from schema._ledger import audit as audit_ledger
from schema._lines import rows
from schema._shards import MANIFEST, UNFINISHED, read_manifest, stem


class Entry(NamedTuple):
    """What the manifest says of one finished shard; `was_there` when an earlier run has made it."""

    told: dict[str, Any]
    was_there: bool = False


def entry_of(ledger: str, was_there: bool = False) -> Entry:
    """From the ledger of a shard."""
    told = json.loads(_storage.read_bytes(ledger))
    own = Path(ledger).name == "ledger.json"  # a shard that became a folder of files
    facts = told["outputs"][0]
    name = Path(ledger).parent.name if own else Path(facts["path"]).name
    entry: dict[str, Any] = {"name": name, "ledger": f"{name}/ledger.json" if own else Path(ledger).name}
    entry |= {"sha256": facts["sha256"]} if not own else {}
    entry["rows"] = sum(output["rows"] for output in told["outputs"])
    entry["input"] = told["inputs"][0]
    entry |= {key: told[key] for key in ("counts", "reasons")}
    return Entry(entry, was_there)


def open_set(folder: str, stage: str) -> None:
    """Say that the shards of a folder are being written; what they were before is no longer a set."""
    if not _storage.is_remote(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    why = f"{stage} writes the shards in this folder; when it is stopped, the same command goes on with the rest"
    with atomic(_storage.join(folder, UNFINISHED)) as file:
        file.write(msgspec.json.encode({"why": why, "shards": sorted(_names_before(folder))}) + b"\n")
    _storage.remove(_storage.join(folder, MANIFEST))


def close_set(
    folder: str, source: str, stage: str, options: dict[str, Any], shards: list[dict[str, Any]], told: dict[str, Any]
) -> None:
    """Commit: remove the shards of earlier sets that are not in this one, and write the manifest."""
    for name in sorted(_names_before(folder) - {shard["name"] for shard in shards}):
        _remove_shard(folder, name)
    near = Path(folder) if _storage.is_remote(folder) else Path(folder).absolute()
    manifest: dict[str, Any] = {"stage": stage, "version": VERSION, "input": _storage.name_near(source, near)}
    manifest |= {"options": options, "shards": shards, **told}
    with atomic(_storage.join(folder, MANIFEST)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    _storage.remove(_storage.join(folder, UNFINISHED))


def commit(
    contract: Contract,
    stage: str,
    options: dict[str, Any],
    entries: Sequence[Entry],
    counts: dict[str, int],
    reasons: Mapping[str, int],
    extra: dict[str, Any],
) -> None:
    told = {"counts": counts, "reasons": dict(sorted(reasons.items())), "extra": extra}
    close_set(contract.output, contract.input, stage, options, [entry.told for entry in entries], told)


def find_ledgers(path: str) -> list[str]:
    """The ledgers in a folder and below it, and the manifests of shards, which answer for the ledgers of theirs."""
    if not _storage.is_folder(path):
        return [path]
    found = [place for place in _storage.walk(path) if _is_ledger(place)]
    folders = {_storage.address(Path(place).parent) for place in found if Path(place).name == MANIFEST}
    return [place for place in found if Path(place).name == MANIFEST or not _is_in(place, folders)]


def _is_ledger(place: str) -> bool:
    name = Path(place).name
    return name == "ledger.json" or name.endswith(".ledger.json") or (name == MANIFEST and not _is_of_others(place))


def _is_of_others(place: str) -> bool:
    """Whether a file of this name tells of something else, as that of a merged model does of its weights."""
    try:
        return "shards" not in msgspec.json.decode(_storage.read_bytes(place), type=dict)
    except msgspec.DecodeError:
        return False


def _is_in(place: str, folders: set[str]) -> bool:
    own = Path(place).parent.parent if Path(place).name == "ledger.json" else Path(place).parent
    return _storage.address(own) in folders


def audit_manifest(path: str) -> list[str]:
    """Everything in which a manifest differs from its shards and their ledgers; empty when it all adds up."""
    folder = _storage.address(Path(path).parent)
    try:
        manifest = read_manifest(folder)
        there = set(_storage.names(folder))
        faults = [f"{UNFINISHED}: the run has not ended"] if UNFINISHED in there else []
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for shard in manifest["shards"]:
            counts.update(shard["counts"])
            reasons.update(shard["reasons"])
            faults += [f"{shard['name']}: {fault}" for fault in _audit_shard(folder, shard)]
        faults += [f"its shards have {dict(counts)}, not {manifest['counts']}"] if counts != manifest["counts"] else []
        if dict(reasons) != manifest["reasons"]:
            faults.append(f"its shards have the reasons {dict(reasons)}, not {manifest['reasons']}")
        return faults
    except (KeyError, TypeError, ValueError) as error:
        return [f"it is not a manifest of ours: {type(error).__name__}: {error}"]


def _audit_shard(folder: str, shard: dict[str, Any]) -> list[str]:
    if shard["ledger"]:
        ledger = _storage.join(folder, shard["ledger"])
        if not _storage.exists(ledger):
            return ["its ledger is gone"]
        faults = audit_ledger(ledger)
        return faults or ([] if entry_of(ledger).told == shard else ["its ledger says something else"])
    place = _storage.join(folder, shard["name"])
    if not _storage.exists(place):
        return ["it is gone"]
    with _storage.at_hand(place) as copy:
        if _storage.digest(copy) != shard["sha256"]:
            return ["it has changed since"]
        found = sum(1 for _ in rows(str(copy)))
    return [] if found == shard["rows"] else [f"it holds {found:,} rows, not {shard['rows']:,}"]


def _names_before(folder: str) -> set[str]:
    """The shards that earlier runs have written, or have begun to write."""
    if not _storage.is_folder(folder):
        return set()
    there = _storage.names(folder)
    found = {shard["name"] for shard in read_manifest(folder)["shards"]} if MANIFEST in there else set()
    if UNFINISHED in there:
        found |= set(json.loads(_storage.read_bytes(_storage.join(folder, UNFINISHED)))["shards"])
    return found


def _remove_shard(folder: str, name: str) -> None:
    inside = _storage.join(folder, name)
    _storage.remove(_storage.join(folder, f"{stem(name)}.receipts.jsonl"))
    if _storage.is_folder(inside):
        for file in _storage.names(inside):
            _storage.remove(_storage.join(inside, file))
        if not _storage.is_remote(inside):
            Path(inside).rmdir()
        return
    for place in (inside, _storage.join(folder, f"{stem(name)}.ledger.json"), _storage.join(folder, f"rejects/{name}")):
        _storage.remove(place)
