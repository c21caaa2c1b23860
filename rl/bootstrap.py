"""Bootstrap 95 % intervals over documents, and of the paired difference of two policies on the same documents.

Every metric is a ratio of two sums over documents (a mean is sum(value) / sum(1), a micro F1 is sum(2 tp) over
sum(2 tp + fp + fn)), so one resampling of the documents serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
SEED = 20240917  # fixed: the same answers give the same interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """Example: Estimate(value=0.72, low=0.65, high=0.78); all None where no document has the metric."""

    value: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, object]:
        return {"value": self.value, "ci95": [self.low, self.high]}


class Bootstrap:
    """The resampled document counts for `n` documents, shape [RESAMPLES, n], drawn once and shared by all metrics."""

    def __init__(self, n: int, seed: int = SEED, resamples: int = RESAMPLES) -> None:
        generator = np.random.Generator(np.random.PCG64(seed))
        self.n = n
        self._counts: NDArray[np.int32] = np.zeros((resamples, n), dtype=np.int32)
        for row in self._counts:  # row by row: the whole draw as int64 would need gigabytes at 100,000 documents
            row += np.bincount(generator.integers(0, n, size=n), minlength=n).astype(np.int32) if n else 0

    def ratio(self, numerator_N: Floats, denominator_N: Floats) -> Estimate:
        """sum(numerator) / sum(denominator) with its percentile interval; both of shape [n]."""
        value, samples = self._ratios(numerator_N, denominator_N)
        return _estimate(value, samples)

    def paired_delta(self, a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> Estimate:
        """ratio(b) - ratio(a) where document i of `a` is document i of `b` (each a pair numerator, denominator)."""
        value_a, samples_a = self._ratios(*a)
        value_b, samples_b = self._ratios(*b)
        return _estimate(value_b - value_a, samples_b - samples_a)

    def _ratios(self, numerator_N: Floats, denominator_N: Floats) -> tuple[float, Floats]:
        if numerator_N.shape != (self.n,) or denominator_N.shape != (self.n,):
            raise ValueError(f"expected {self.n} documents, got {numerator_N.shape} and {denominator_N.shape}")
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = (self._counts @ numerator_N) / (self._counts @ denominator_N)
            value = float(np.float64(numerator_N.sum()) / np.float64(denominator_N.sum()))
        return value, samples


def _estimate(value: float, samples: Floats) -> Estimate:
    known = samples[np.isfinite(samples)]  # a resample may miss every document that has the metric
    if not np.isfinite(value) or known.size == 0:
        return Estimate(None, None, None)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high))
