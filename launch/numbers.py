"""Small statistics over plain lists, without numpy: means, percentiles, correlations of values and of ranks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return math.fsum(values) / len(values) if values else None


def share(flags: Sequence[bool]) -> float | None:
    """The share that is true; None of nothing."""
    return sum(flags) / len(flags) if flags else None


def spread(values: Sequence[float]) -> float:
    """Standard deviation of these values, 0 of one."""
    return statistics.pstdev(values) if len(values) > 1 else 0.0


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of 100 do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else None


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation in [-1, 1]; None where either does not vary."""
    if len(first) < 2 or spread(first) < 1e-12 or spread(second) < 1e-12:
        return None
    return max(-1.0, min(1.0, statistics.correlation(first, second)))


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for i in order[start : end + 1]:
            found[i] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of the ranks; None where either does not vary."""
    return pearson(ranks(first), ranks(second))


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b: agreement of the order of all pairs, ties accounted for; None where either is all ties."""
    agree = only_first = only_second = 0
    for i in range(len(first)):
        for j in range(i):
            a, b = sign(first[i] - first[j]), sign(second[i] - second[j])
            agree += a * b
            only_first += a != 0
            only_second += b != 0
    return agree / math.sqrt(only_first * only_second) if only_first and only_second else None


def sign(value: float, tolerance: float = 1e-9) -> int:
    """-1, 0 or 1; what is closer to 0 than the tolerance is rounding."""
    return (value > tolerance) - (value < -tolerance)
