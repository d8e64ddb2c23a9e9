"""Counts what became of every row, one record at a time; no record is held."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from schema import Record
from stages.prepare_data.augment import AUTHORS, author_of

FIELDS = ("description", "code")
PERCENTILES = (5, 25, 50, 75, 95, 99)
# What the tokenizers of today make one token or a little more of: a word of common length, up to three digits, one
# sign, an indentation. Beside a vocabulary of 128,000 it counts 7 % too many in descriptions and 14 % in programs.
_PIECE = re.compile(r"[^\W\d_]{1,8}|\d{1,3}|\n\s*|[^\w\s]|_")
_PIECE_OF_ASCII = re.compile(r"[a-zA-Z]{1,8}|[0-9]{1,3}|\n\s*|[^a-zA-Z0-9\s]")  # the same, in two thirds of the time


class Lengths:
    """The lengths of texts: how often each one occurs, so that the percentiles are those of all texts."""

    def __init__(self, parts: Iterable[Lengths] = ()) -> None:
        self.characters: Counter[int] = Counter()
        self.tokens: Counter[int] = Counter()
        for part in parts:
            self.characters.update(part.characters)
            self.tokens.update(part.tokens)

    def add(self, characters: int, tokens: int) -> None:
        self.characters[characters] += 1
        self.tokens[tokens] += 1

    def report(self) -> dict[str, dict[str, float]]:
        return {"characters": summary(self.characters), "about_tokens": summary(self.tokens)}


def about_how_many_tokens(text: str) -> int:
    return len((_PIECE_OF_ASCII if text.isascii() else _PIECE).findall(text))


def about_tokens_of(texts: Sequence[str]) -> list[int]:
    """The same for many texts, counted together where they are ASCII: that costs a fifth."""
    counts = [-1 if text.isascii() else about_how_many_tokens(text) for text in texts]
    plain = [text for text, count in zip(texts, counts, strict=True) if count < 0]
    found = iter(_about_tokens_of_ascii(plain) if plain else ())
    return [next(found) if count < 0 else count for count in counts]


_OTHER, _LETTER, _DIGIT, _BLANK, _END = range(5)
# How many signs of each kind make a token; blanks are looked at apart, and ends are none.
_PER_TOKEN = [1, 8, 3, 2**31 - 1, 2**31 - 1]
_KINDS = bytes(
    _LETTER if sign.isalpha() else _DIGIT if sign.isdigit() else _BLANK if sign.isspace() else _OTHER
    for sign in map(chr, range(128))
) + bytes([_END] * 128)


def _about_tokens_of_ascii(texts: list[str]) -> list[int]:
    """What the pattern finds, worked out from where runs of one kind of sign begin, and how long they are."""
    import numpy

    data = b"\x80".join([*(text.encode() for text in texts), b""])
    kind = numpy.frombuffer(data.translate(_KINDS), numpy.uint8)
    begins = kind <= _OTHER  # each is a token of its own
    begins[0] = True
    begins[1:] |= kind[1:] != kind[:-1]
    (starts,) = numpy.nonzero(begins)
    kind, length = kind[starts], numpy.diff(starts, append=len(data)).astype(numpy.int32)
    size = numpy.array(_PER_TOKEN, numpy.int32)[kind]
    tokens = numpy.where(kind < _BLANK, -(-length // size), 0)
    (lines,) = numpy.nonzero(numpy.frombuffer(data, numpy.uint8) == ord("\n"))
    tokens[numpy.searchsorted(starts, lines, "right") - 1] = 1
    # Two ends without a text between them are one run.
    ends = numpy.repeat(numpy.cumsum(tokens)[kind == _END], length[kind == _END])
    counted: list[int] = numpy.diff(ends, prepend=0).tolist()
    return counted


def summary(lengths: Counter[int]) -> dict[str, float]:
    """Mean and percentiles, each a length that occurs (the nearest rank)."""
    total = lengths.total()
    if not total:
        return {}
    ordered = sorted(lengths)
    found: dict[str, float] = {"mean": round(sum(length * lengths[length] for length in ordered) / total, 1)}
    below, ranks = 0, [(math.ceil(total * percent / 100), f"p{percent}") for percent in PERCENTILES]
    for length in ordered:
        below += lengths[length]
        while ranks and ranks[0][0] <= below:
            found[ranks.pop(0)[1]] = length
    return found | {"min": ordered[0], "max": ordered[-1]}


def of_lengths(sources: Iterable[dict[str, Lengths]]) -> dict[str, Any]:
    """The lengths of descriptions and of programs, over some sources."""
    chosen = list(sources)
    return {field: Lengths(part[field] for part in chosen).report() for field in FIELDS}


class Augmented(NamedTuple):
    """How many described rows of the train side there are by one kind of author, and how many variants of them."""

    described: int
    augmented: int

    def report(self) -> dict[str, Any]:
        factor = round((self.described + self.augmented) / self.described, 2) if self.described else 1.0
        return {"described": self.described, "augmented": self.augmented, "factor": factor}


class Statistics:
    """Where the records of each source are: passed, then merged, or kept on the train or the test side."""

    def __init__(self) -> None:
        self.steps: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.lengths: defaultdict[str, dict[str, Lengths]] = defaultdict(lambda: {field: Lengths() for field in FIELDS})
        self.kinds: Counter[str] = Counter()
        self.authors: Counter[tuple[str, str]] = Counter()
        self.forms: Counter[str] = Counter()

    def passed(self, record: Record) -> None:
        """A record that is fit for use, perhaps after repairs."""
        self.steps[record["source"]]["passed"] += 1
        self.steps[record["source"]]["repaired"] += bool(record["metadata"].get("fixes_applied"))

    def merged(self, record: Record) -> None:
        self.steps[record["source"]]["merged"] += 1

    def kept(self, record: Record, side: str, tokens: Sequence[int]) -> None:
        """A record of the train or of the test side, with about how many tokens its code and its description have."""
        source, metadata = record["source"], record["metadata"]
        pending = bool(metadata.get("needs_description"))
        steps, lengths = self.steps[source], self.lengths[source]
        steps[side] += 1
        steps["needs_description"] += pending
        self.kinds[metadata.get("kind", "code")] += 1
        lengths["code"].add(len(record["code"]), tokens[0])
        if not pending:
            lengths["description"].add(len(record["description"]), tokens[1])
        if side == "train" and not pending:
            self.authors[author_of(record), "described"] += 1

    def augmented(self, variant: Record) -> None:
        """A variant of a record of the train side."""
        self.steps[variant["source"]]["augmented"] += 1
        self.authors[author_of(variant), "augmented"] += 1
        self.forms[variant["metadata"]["lineage"][-1]["params"]["augmentation"]] += 1

    def total(self, step: str) -> int:
        return sum(counts[step] for counts in self.steps.values())

    def of_source(self, name: str) -> dict[str, Any]:
        """What the records of one source have come to."""
        steps = self.steps[name]
        return {
            "repaired": steps["repaired"],
            "merged": steps["merged"],
            "kept": steps["train"] + steps["test"],
            "share": round((steps["train"] + steps["test"]) / max(1, self.total("train") + self.total("test")), 4),
            "train": steps["train"],
            "test": steps["test"],
            "augmented": steps["augmented"],
            "needs_description": steps["needs_description"],
            "lengths": of_lengths([self.lengths[name]]),
        }

    def of_augmentation(self) -> dict[str, Any]:
        """How many rows the train side grew by, against its rows that have a description."""
        by_author = {
            author: Augmented(self.authors[author, "described"], self.authors[author, "augmented"])
            for author in AUTHORS
        }
        whole = Augmented(*map(sum, zip(*by_author.values(), strict=True)))
        return {
            "train_before": self.total("train"),
            "train_after": self.total("train") + self.total("augmented"),
            **whole.report(),
            "by_author": {author: counts.report() for author, counts in by_author.items()},
            "by_form": dict(sorted(self.forms.items())),
        }
