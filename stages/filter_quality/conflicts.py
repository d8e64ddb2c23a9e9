"""Rows whose program also stands under descriptions of something else: only the whole file shows it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import schema

_WORD = re.compile(r"[^\W_]{3,}")
# Two descriptions of one program share figures, colours and verbs; of 2,000 pairs that belong to different programs of
# one set, nine of ten share less than this part of their words.
_ALIKE = 0.15
_COMPARED = 50  # rows of one program; what a thousand copies of it say is said by the first fifty


def conflicts(path: str) -> dict[str, int]:
    """The ids of the rows that most rows of the same program contradict, each with the number of those rows.

    Two readings of the file, so that only the words of programs that stand there twice are held.
    """
    if path == "-":
        return {}
    counts = Counter(key for key, _ in _described(path))
    groups: defaultdict[bytes, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for key, record in _described(path):
        if counts[key] > 1 and len(groups[key]) < _COMPARED:
            words = frozenset(word.casefold() for word in _WORD.findall(record["description"]))
            groups[key].append((schema.adopt(record)["metadata"]["id"], words))
    found: dict[str, int] = {}
    for members in groups.values():
        for name, words in members:
            against = sum(_similarity(words, others) < _ALIKE for _, others in members)
            if 2 * against > len(members) - 1:
                found[name] = against
    return found


def _described(path: str) -> Iterator[tuple[bytes, schema.Record]]:
    for record in schema.read(path, _ignore):
        metadata = record["metadata"]
        # A variation that the augmentation made says the same in other words, and repeats the program on purpose.
        if (
            metadata.get("kind", "code") == "code"
            and record["description"].strip()
            and "augmented_from" not in metadata
        ):
            bare = "".join(record["code"].split()).encode("utf-8", "surrogatepass")
            yield hashlib.blake2b(bare, digest_size=8).digest(), record


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def _ignore(item: Any, message: str, code: str = "", line: int | None = None) -> None:
    """The run itself names the lines that are no records."""
