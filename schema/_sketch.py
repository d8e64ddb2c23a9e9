"""How alike two programs are: the runs of five tokens that they share, and a sketch that finds who may share many.

The names that a program gives itself are one token all alike, so that a renamed copy shares every run. The sketch is a
one-permutation MinHash of 128 bins, cut into 25 bands of 5; two programs that share 70 % of their runs have a band in
common with a probability of 99 %. A band proves nothing: among many programs most that share one have little else in
common. The share of equal bins tells those apart, and the runs themselves are counted before anybody is linked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schema._tokens import LINE

if TYPE_CHECKING:
    from schema._normal import Array, Sequences

RUN = 5
BINS = 128
BANDS, ROWS = 25, 5
_EMPTY = 0xFFFFFFFF
_OWN_NAME = 0x9E3779B1
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)


def runs(sequences: Sequences, normalise: str) -> tuple[Array, Array]:
    """A hash of every run of five tokens, one program after the other, and how many each has.

    The names of a program are all the same token, unless it is taken as written; the end of a line says nothing.
    """
    import numpy

    numbers, own, counts = sequences
    flat = numbers if normalise == "raw" else numpy.where(own, numpy.uint64(_OWN_NAME), numbers)
    owner = numpy.repeat(numpy.arange(len(counts)), counts)
    said = flat != LINE
    flat, owner = flat[said], owner[said]
    flat ^= flat << numpy.uint64(29)
    size = max(0, len(flat) - RUN + 1)
    mixed = numpy.zeros(size, numpy.uint64)
    for place, factor in enumerate(_MIX):
        mixed += flat[place : place + size] * numpy.uint64(factor)
    mixed ^= mixed >> numpy.uint64(32)
    mixed *= numpy.uint64(_MIX[3])
    mixed ^= mixed >> numpy.uint64(29)
    whole = owner[:size] == owner[len(owner) - size :]
    return mixed[whole], numpy.bincount(owner[:size][whole], minlength=len(counts))


def bins(hashes: Array, counts: Array) -> Array:
    """The least run of each of 128 classes of runs, a row for each program."""
    import numpy

    place = numpy.repeat(numpy.arange(len(counts)) * BINS, counts)
    place += (hashes >> numpy.uint64(57)).astype(numpy.int64)
    found = numpy.full(len(counts) * BINS, _EMPTY, numpy.uint32)
    numpy.minimum.at(found, place, (hashes & numpy.uint64(0x7FFFFFFF)).astype(numpy.uint32))
    return _fill(found.reshape(-1, BINS))


def bands(bins: Array, counts: Array) -> Array:
    """The 25 numbers of each program that an alike one is found by; all 0 for a program without a run."""
    import numpy

    rows = bins[:, : BANDS * ROWS].reshape(-1, BANDS, ROWS)
    keys = numpy.tile(numpy.arange(BANDS, dtype=numpy.uint64), (len(bins), 1))
    for row in range(ROWS):
        keys ^= rows[:, :, row]
        keys *= numpy.uint64(_MIX[0])
        keys ^= keys >> numpy.uint64(31)
    found = (keys >> numpy.uint64(16)).astype(numpy.uint32) | numpy.uint32(1)
    found[counts == 0] = 0
    return found


def signs(bins: Array) -> Array:
    """A byte of each bin: enough to see about how many bins of two programs are equal."""
    import numpy

    return bins.astype(numpy.uint8)


def least_agreement(near: float, counts: Array) -> Array:
    """The share of bins below which programs of so many runs are not as near: five standard deviations are not met."""
    import numpy

    return near - 5 * numpy.sqrt(near * (1 - near) / numpy.clip(counts, 1, BINS))


def _fill(bins: Array) -> Array:
    """Give each empty bin the value of another one, chosen alike for all programs; short ones have many."""
    import numpy

    flat = bins.reshape(-1)
    filled = flat.copy()
    empty = bins == _EMPTY
    place = numpy.flatnonzero(empty & ~empty.all(1)[:, None])
    for turn in range(1, 400):
        if not len(place):
            break
        here = place % BINS
        # An odd factor makes it a permutation of the bins.
        taken = flat[place - here + (here * (2 * turn + 1) + turn * 37 % BINS) % BINS]
        can = taken != _EMPTY
        filled[place[can]] = taken[can] + numpy.uint32(turn * 2654435 & 0x7FFFFFF)
        place = place[~can]
    return filled.reshape(-1, BINS)
