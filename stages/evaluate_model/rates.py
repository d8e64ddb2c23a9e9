"""Shares, means and differences, each with the interval that holds the true value in 95 of 100 such samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations


class Rate(NamedTuple):
    """A share, and the Wilson interval that holds the true one in 95 of 100 such samples."""

    passed: int
    n: int
    rate: float | None
    low: float | None
    high: float | None


def wilson(passed: int, n: int) -> Rate:
    """Unlike the textbook interval it stays within 0 and 1, and says something at 0 of n and at n of n."""
    if n == 0:
        return Rate(0, 0, None, None, None)
    low, high = limits(passed / n, n)
    return Rate(passed, n, round(passed / n, 6), round(low, 6), round(high, 6))


def limits(share: float, n: int) -> tuple[float, float]:
    weight = Z * Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / n / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_of(groups: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """The share of passed answers; the answers to one prompt stand together in a group.

    Answers to one prompt resemble each other, so prompts are counted for the interval and not answers. It is that of
    a yes or no for each prompt, the widest that a mean of shares can have.
    """
    answers = [verdict for group in groups for verdict in group]
    found = wilson(sum(answers), len(answers))._asdict()
    if len(groups) == len(answers):
        return found
    low, high = limits(sum(answers) / len(answers), len(groups))
    return {**found, "low": round(low, 6), "high": round(high, 6), "prompts": len(groups)}


def pass_at(groups: Sequence[Sequence[bool]], k: int) -> dict[str, Any]:
    """How often at least one of k answers passes, without bias (Chen 2021); each prompt has at least k."""
    chances = [1 - math.comb(len(group) - sum(group), k) / math.comb(len(group), k) for group in groups]
    share = min(1.0, sum(chances) / len(chances))
    low, high = limits(share, len(groups))
    return {"prompts": len(groups), "rate": round(share, 6), "low": round(low, 6), "high": round(high, 6)}


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """The mean with Student's interval; one value alone has none."""
    if not values:
        return {"n": 0, "mean": None, "low": None, "high": None}
    mean = math.fsum(values) / len(values)
    reach = _reach(values, mean)
    ends = (None, None) if reach is None else (round(mean - reach, 6), round(mean + reach, 6))
    return {"n": len(values), "mean": round(mean, 6), "low": ends[0], "high": ends[1]}


def _reach(values: Sequence[float], mean: float) -> float | None:
    n = len(values)
    if n < 2:
        return None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return student(n - 1) * math.sqrt(variance / n)


def student(freedom: int) -> float:
    """Within so many standard errors lie 95 % of Student's distribution."""
    low, high = Z, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """The chance of a value between -t and t: the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    if freedom > 2000:
        return math.erf(t / math.sqrt(2))
    angle, odd = math.atan(t / math.sqrt(freedom)), freedom % 2
    term = total = 0.0 if freedom == 1 else math.cos(angle) if odd else 1.0
    for number in range(2 + odd, freedom - 1, 2):
        term *= (number - 1) / number * math.cos(angle) ** 2
        total += term
    area = math.sin(angle) * total
    return 2 / math.pi * (angle + area) if odd else area


def paired_difference(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The interval of the second value minus the first: Newcombe's for yes and no, else Student's."""
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        return newcombe(pairs)
    differences = [b - a for a, b in pairs]
    mean = math.fsum(differences) / len(differences)
    reach = _reach(differences, mean)
    return None if reach is None else (mean - reach, mean + reach)


def newcombe(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Method 10 of Newcombe (1998), Statistics in Medicine 17, 2635: from the Wilson intervals of both shares."""
    n = len(pairs)
    both, first = sum(a * b for a, b in pairs), sum(a for a, _ in pairs)
    second = sum(b for _, b in pairs)
    p, q = second / n, first / n
    (low_p, high_p), (low_q, high_q) = limits(p, n), limits(q, n)
    phi = _phi(both, second - both, first - both, n - first - second + both)
    down = (p - low_p) ** 2 - 2 * phi * (p - low_p) * (high_q - q) + (high_q - q) ** 2
    up = (high_p - p) ** 2 - 2 * phi * (high_p - p) * (q - low_q) + (q - low_q) ** 2
    return p - q - math.sqrt(max(0.0, down)), p - q + math.sqrt(max(0.0, up))


def _phi(both: float, second_only: float, first_only: float, neither: float) -> float:
    n = both + second_only + first_only + neither
    margins: float = (both + second_only) * (first_only + neither) * (both + first_only) * (second_only + neither)
    if margins == 0:
        return 0.0
    top: float = both * neither - second_only * first_only
    corrected = max(0.0, top - n / 2) if top > 0 else top
    return float(corrected / math.sqrt(margins))


def sign_test(better: int, worse: int) -> float:
    """The chance of a split at least as uneven if neither side were better; for yes and no this is exact McNemar."""
    n = better + worse
    tail = sum(math.comb(n, hit) for hit in range(min(better, worse) + 1))
    return min(1.0, float(2 * tail / 2**n))
