"""Rows whose program also stands under descriptions of something else: only the whole file shows it."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import schema

_WORD = re.compile(r"[^\W_]{3,}")
# Two descriptions of one program share figures, colours and verbs; of 2,000 pairs that belong to different programs of
# one set, nine of ten share less than this part of their words.
_ALIKE = 0.15
_COMPARED = 50  # rows of one program; what a thousand copies of it say is said by the first fifty


class Conflicts(NamedTuple):
    """The ids of the rows that most rows of the same program contradict, each with the number of those rows."""

    found: dict[str, int]
    depends: dict[str, str]  # what it says of the rows of each shard that says anything, as one mark


def conflicts(contract: schema.Contract) -> Conflicts:
    """Two readings of the file or the shards, so that only the words of programs that stand there twice are held."""
    path = contract.input
    if path == "-":
        return Conflicts({}, {})
    files = list(map(schema.absolute, schema.files(path)))
    repeated = _repeated(schema.each(contract, _keys, files))
    groups: defaultdict[int, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    names: dict[str, set[str]] = {}
    if repeated:
        for file, members in zip(files, schema.each(contract, partial(_members, keys=repeated), files), strict=True):
            names[file] = {name for _, name, _ in members}
            for key, name, words in members:
                if len(groups[key]) < _COMPARED:
                    groups[key].append((name, words))
    found: dict[str, int] = {}
    for group in groups.values():
        for name, words in group:
            against = sum(_similarity(words, others) < _ALIKE for _, others in group)
            if 2 * against > len(group) - 1:
                found[name] = against
    said = {file: sorted((name, found[name]) for name in own if name in found) for file, own in names.items()}
    return Conflicts(found, {file: schema.sha256(schema.canonical(pairs)) for file, pairs in said.items() if pairs})


def _repeated(several: Iterable[bytes]) -> frozenset[int]:
    """The keys of programs that stand there more than once."""
    import numpy

    keys, counts = numpy.unique(numpy.frombuffer(b"".join(several), numpy.uint64), return_counts=True)
    return frozenset(keys[counts > 1].tolist())


def _keys(path: str) -> bytes:
    return array("Q", [key for key, _ in _described(path)]).tobytes()


def _members(path: str, keys: frozenset[int]) -> list[tuple[int, str, frozenset[str]]]:
    """Key, id and words of the description of the rows with one of these programs."""
    return [
        (
            key,
            schema.adopt(record)["metadata"]["id"],
            frozenset(map(str.casefold, _WORD.findall(record["description"]))),
        )
        for key, record in _described(path)
        if key in keys
    ]


def _described(path: str) -> Iterator[tuple[int, schema.Record]]:
    for record in schema.read(path, _ignore):
        metadata = record["metadata"]
        # A variation that the augmentation made says the same in other words, and repeats the program on purpose.
        if (
            metadata.get("kind", "code") == "code"
            and record["description"].strip()
            and "augmented_from" not in metadata
        ):
            bare = "".join(record["code"].split()).encode("utf-8", "surrogatepass")
            yield int.from_bytes(hashlib.blake2b(bare, digest_size=8).digest(), "little"), record


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def _ignore(item: Any, message: str, code: str = "", line: int | None = None) -> None:
    """The run itself names the lines that are no records."""
