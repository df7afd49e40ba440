"""Numbers to mean 0 and standard deviation 1, with the median in place of missing ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

# In n training rows nothing lies further than sqrt(n - 1) standard deviations from the mean, so this holds back only
# what a network would turn into infinity: a wild value at prediction.
FARTHEST = 1e6

_LARGEST, _SMALLEST = np.finfo(np.float64).max, np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Scaling:
    """What scikit-learn's SimpleImputer (median) and StandardScaler learn of each column, as plain arrays ``(k,)``.

    Numerics: float64. A constant column has scale 1. Columns of any magnitude are fine: they are learned after division
    by a power of two, which is exact, so that no square overflows or vanishes. Results stay within ±``FARTHEST``.
    """

    median: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def learn(cls, cells: NDArray[np.float64]) -> Scaling:
        """Cells ``(n, k)``: finite or NaN, at least one finite in each column."""
        if cells.shape[1] == 0:
            return cls(np.empty(0), np.empty(0), np.empty(0))
        _, exponent = np.frexp(np.fmax.reduce(np.abs(cells), axis=0))
        shrunk = np.ldexp(cells, -exponent)
        imputer = SimpleImputer(strategy="median").fit(shrunk)
        scaler = StandardScaler(copy=False).fit(imputer.transform(shrunk))
        learned = (imputer.statistics_, scaler.mean_, scaler.scale_)
        with np.errstate(over="ignore"):  # a mean next to the largest float64 may round past it
            median, mean, scale = (np.clip(np.ldexp(value, exponent), -_LARGEST, _LARGEST) for value in learned)
        # Shrunk columns lie inside (-1, 1) and so deviate by less than 1: a scale of 1 is how scikit-learn marks
        # a constant. A scale too small for a float64 becomes the smallest normal one.
        return cls(median, mean, np.where(scaler.scale_ == 1.0, 1.0, np.maximum(scale, _SMALLEST)))

    def apply(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = np.where(np.isnan(cells), self.median, cells)
        with np.errstate(over="ignore"):  # the clip takes an overflow back
            return np.clip((filled - self.mean) / self.scale, -FARTHEST, FARTHEST)
