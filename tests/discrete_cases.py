"""The discrete distributions as SciPy knows them, and knots of quantiles with a twin written in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats

from distribution_cases import SHARES, Case
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.negative_binomial import NegativeBinomial
from lastlayer.distributions.poisson import Poisson
from lastlayer.distributions.quantile_knots import QuantileKnots

# Of a distribution over few values a share of 1e-100 asks SciPy's rv_discrete for less than it distinguishes.
NEAR = SHARES[3:-1]


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bernoulli() -> Case:
    logits = [-20.0, -0.4, 0.3, 3.0, 12.0]
    oracles = [stats.bernoulli(1.0 / (1.0 + math.exp(-logit))) for logit in logits]
    return Case("bernoulli", Bernoulli(tensor(logits)), oracles, [0.0, 0.0, 1.0, 1.0, 1.0])


def _index_oracle(probability: np.ndarray) -> Any:
    return stats.rv_discrete(values=(np.arange(len(probability)), probability / probability.sum()))()


def categorical() -> Case:
    logits = np.array([[0.1, 0.4, -1.0, 2.0], [3.0, -2.0, 0.0, 1.0], [-30.0, 0.0, 0.2, -30.0]])
    oracles = [_index_oracle(np.exp(row)) for row in logits]
    return Case("categorical", Categorical(tensor(logits)), oracles, [3.0, 0.0, 2.0], NEAR)


def ordinal() -> Case:
    cumulative = np.array([[-2.0, 0.3, 0.5, 1.0], [-9.0, -8.0, 8.0, 9.0], [1.0, 2.0, 3.0, 4.0]])
    shares = 1.0 / (1.0 + np.exp(-cumulative))
    oracles = [_index_oracle(np.diff([0.0, *row, 1.0])) for row in shares]
    distribution = Categorical.from_cumulative_logits(tensor(cumulative))
    return Case("ordinal", distribution, oracles, [1.0, 2.0, 0.0], NEAR)


def poisson() -> Case:
    log_rate = np.log([0.01, 0.7, 20.5, 31.5, 4000.3])
    oracles = [stats.poisson(rate) for rate in np.exp(log_rate)]
    return Case("poisson", Poisson(tensor(log_rate)), oracles, [0.0, 0.0, 20.0, 31.0, 4000.0], SHARES[2:])


def negative_binomial() -> Case:
    log_mean, concentration = np.array([-3.0, 1.0, 2.0, 3.0, 5.0, 2.0]), np.array([0.5, 1.0, 0.3, 7.5, 300.0, 1e5])
    mean = np.exp(log_mean)
    oracles = [stats.nbinom(r, r / (r + m)) for m, r in zip(mean, concentration, strict=True)]
    # Where the ratio of neighbors, (k + r) q/(k + 1), falls below 1.
    modes = np.floor(np.maximum(0.0, mean * (1.0 - 1.0 / concentration))).tolist()
    distribution = NegativeBinomial(tensor(log_mean), tensor(concentration))
    # SciPy forms 1 − p, and sums the entropy until terms fall below 1e-10 or so.
    return Case("negative_binomial", distribution, oracles, modes, SHARES[3:], tolerance=3e-8)


class KnotsOracle:
    """Linear interpolation between quantiles, exponential tails of continuous density; integrals by quadrature."""

    def __init__(self, values: list[float], levels: tuple[float, ...]) -> None:
        self.values, self.levels = np.array(values), np.array(levels)
        self.slopes = np.diff(self.levels) / np.diff(self.values)

    def pdf(self, x: Any) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        segment = np.clip(np.searchsorted(self.values, x, side="right") - 1, 0, len(self.slopes) - 1)
        first, last, a, b = self.slopes[0], self.slopes[-1], self.levels[0], self.levels[-1]
        with np.errstate(over="ignore"):
            left = first * np.exp(first / a * (x - self.values[0]))
            right = last * np.exp(-last / (1.0 - b) * (x - self.values[-1]))
        inside = np.where(x < self.values[0], left, np.where(x > self.values[-1], right, self.slopes[segment]))
        return np.where(np.isfinite(x), inside, 0.0)

    def logpdf(self, x: Any) -> np.ndarray:
        # In the tails from the exponent, where the density itself may be 0.
        x = np.asarray(x, dtype=float)
        first, last, a, b = self.slopes[0], self.slopes[-1], self.levels[0], self.levels[-1]
        left = np.log(first) + first / a * (x - self.values[0])
        right = np.log(last) - last / (1.0 - b) * (x - self.values[-1])
        middle = np.log(self.pdf(np.clip(x, self.values[0], self.values[-1])))
        return np.where(x < self.values[0], left, np.where(x > self.values[-1], right, middle))

    def cdf(self, x: Any) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        first, last, a, b = self.slopes[0], self.slopes[-1], self.levels[0], self.levels[-1]
        with np.errstate(over="ignore"):
            left = a * np.exp(first / a * (x - self.values[0]))
            right = 1.0 - (1.0 - b) * np.exp(-last / (1.0 - b) * (x - self.values[-1]))
        middle = np.interp(x, self.values, self.levels)
        return np.where(x < self.values[0], left, np.where(x > self.values[-1], right, middle))

    def ppf(self, share: Any) -> np.ndarray:
        share = np.asarray(share, dtype=float)
        first, last, a, b = self.slopes[0], self.slopes[-1], self.levels[0], self.levels[-1]
        with np.errstate(divide="ignore"):
            left = self.values[0] + a / first * np.log(share / a)
            right = self.values[-1] - (1.0 - b) / last * np.log((1.0 - share) / (1.0 - b))
        return np.where(share < a, left, np.where(share > b, right, np.interp(share, self.levels, self.values)))

    def expect(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """By Gauss-Legendre panels: one a segment, a hundred in each tail until exp(−60)."""
        first, last, a, b = self.slopes[0], self.slopes[-1], self.levels[0], self.levels[-1]
        tails = np.linspace(0.0, 60.0, 101)
        edges = np.concatenate(
            [self.values[0] - tails[:0:-1] * a / first, self.values, self.values[-1] + tails[1:] * (1.0 - b) / last]
        )
        left, right = edges[:-1, None], edges[1:, None]
        nodes, weights = np.polynomial.legendre.leggauss(12)
        x = 0.5 * (left + right) + 0.5 * (right - left) * nodes
        return float((0.5 * (right - left) * weights * function(x) * self.pdf(x)).sum())

    def mean(self) -> float:
        return self.expect(lambda x: x)

    def var(self) -> float:
        mean = self.mean()
        return self.expect(lambda x: (x - mean) ** 2)

    def std(self) -> float:
        return math.sqrt(self.var())

    def median(self) -> float:
        return float(self.ppf(0.5))

    def entropy(self) -> float:
        return self.expect(lambda x: -self.logpdf(x))


# Where the general tests end the panels of their integrals: the density jumps there.
LEVELS = (0.15, 0.25, 0.5, 0.7, 0.9)


def quantile_knots() -> Case:
    values = [[-3.0, -1.0, 0.5, 1.0, 4.0], [0.0, 1e-3, 0.5, 20.0, 21.0], [9.0, 9.1, 9.4, 10.0, 20.0]]
    oracles = [KnotsOracle(row, LEVELS) for row in values]
    return Case("quantile_knots", QuantileKnots(tensor(values), LEVELS), oracles, [0.75, 5e-4, 9.05])


CASES = (bernoulli(), categorical(), ordinal(), poisson(), negative_binomial(), quantile_knots())
