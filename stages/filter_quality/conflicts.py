"""Rows whose program also stands under descriptions of something else: only the whole file shows it."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from typing import NamedTuple

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
    """Reads all rows, and then once more those whose program stands there twice: only their words are held."""
    path = contract.input
    if path == "-":
        return Conflicts({}, {})
    files = list(map(schema.absolute, schema.files(path)))
    again = _repeated(list(schema.each(contract, _keys, files)))
    groups: defaultdict[int, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    names: dict[str, set[str]] = {}
    if any(again):
        for file, members in zip(
            files, schema.each(contract, _members, list(zip(files, again, strict=True))), strict=True
        ):
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


def _repeated(several: list[tuple[bytes, bytes]]) -> list[frozenset[int]]:
    """Of each file the numbers of the rows whose program stands somewhere else, too."""
    import numpy

    keys, counts = numpy.unique(
        numpy.frombuffer(b"".join(keys for keys, _ in several), numpy.uint64), return_counts=True
    )
    common = keys[counts > 1]
    return [
        frozenset(
            numpy.frombuffer(rows, numpy.uint64)[numpy.isin(numpy.frombuffer(own, numpy.uint64), common)].tolist()
        )
        for own, rows in several
    ]


def _keys(path: str) -> tuple[bytes, bytes]:
    """The key of each program, and the number of its row."""
    keys, numbers = array("Q"), array("Q")
    for number, record in schema.numbered(path):
        if _is_described(record):
            keys.append(_key(record))
            numbers.append(number)
    return keys.tobytes(), numbers.tobytes()


def _members(some: tuple[str, frozenset[int]]) -> list[tuple[int, str, frozenset[str]]]:
    """Key, id and words of the description of some rows of a file."""
    path, numbers = some
    return [
        (
            _key(record),
            schema.adopt(record)["metadata"]["id"],
            frozenset(map(str.casefold, _WORD.findall(record["description"]))),
        )
        for _, record in (schema.numbered(path, numbers) if numbers else ())
    ]


def _is_described(record: schema.Record) -> bool:
    """A variation that the augmentation made says the same in other words, and repeats the program on purpose."""
    metadata = record["metadata"]
    return (
        metadata.get("kind", "code") == "code"
        and "augmented_from" not in metadata
        and bool(record["description"].strip())
    )


def _key(record: schema.Record) -> int:
    bare = "".join(record["code"].split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(bare, digest_size=8).digest(), "little")


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
