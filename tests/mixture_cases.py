"""Mixtures with an independent oracle each: sums of SciPy's densities, roots of sums of its distribution functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import integrate, optimize, stats

from distribution_cases import Case
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.mixture import Mixture
from lastlayer.distributions.student_t import StudentT

# Entropy and CRPS are quadratures here as there. None of the shares lies within a gap of a case's density, where the
# quantile is anyone's guess.
SHARES = (1e-6, 0.01, 0.2, 0.55, 0.7, 0.98, 1.0 - 1e-6)
TOLERANCE = 2e-7


class MixtureOracle:
    """A mixture of frozen SciPy distributions with SciPy's own names; empty components are left out.

    Integrals are taken piece by piece between the components' quantiles, which SciPy's adaptive rule would not find.
    """

    def __init__(self, parts: Sequence[Any], weights: Sequence[float]) -> None:
        pairs = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight > 0]
        self.parts = [part for part, _ in pairs]
        self.weights = np.array([weight for _, weight in pairs]) / sum(weight for _, weight in pairs)

    def pdf(self, x: Any) -> Any:
        return sum(w * part.pdf(x) for part, w in zip(self.parts, self.weights, strict=True))

    def logpdf(self, x: Any) -> Any:
        terms = [np.log(w) + part.logpdf(x) for part, w in zip(self.parts, self.weights, strict=True)]
        return np.logaddexp.reduce(terms, axis=0)

    def logpmf(self, x: Any) -> Any:
        terms = [np.log(w) + part.logpmf(x) for part, w in zip(self.parts, self.weights, strict=True)]
        return np.logaddexp.reduce(terms, axis=0)

    def cdf(self, x: Any) -> Any:
        return sum(w * part.cdf(x) for part, w in zip(self.parts, self.weights, strict=True))

    def ppf(self, q: Any) -> Any:
        if np.ndim(q):
            return np.array([self.ppf(one) for one in np.ravel(q)]).reshape(np.shape(q))
        each = [float(part.ppf(q)) for part in self.parts]
        low, high = min(each), max(each)
        if not np.isfinite(high - low) or low == high or q in (0, 1):
            return low if q < 0.5 else high
        if hasattr(self.parts[0].dist, "pmf"):
            return next(x for x in np.arange(low, high + 1) if self.cdf(x) >= q)
        if self.cdf(low) >= q:
            return low
        return optimize.brentq(lambda x: self.cdf(x) - q, low, high, xtol=1e-40, rtol=1e-15, maxiter=2000)

    def mean(self) -> float:
        return float(sum(w * part.mean() for part, w in zip(self.parts, self.weights, strict=True)))

    def var(self) -> float:
        mean = self.mean()
        parts = zip(self.parts, self.weights, strict=True)
        return float(sum(w * (part.var() + (part.mean() - mean) ** 2) for part, w in parts))

    def std(self) -> float:
        return float(np.sqrt(self.var()))

    def median(self) -> float:
        return float(self.ppf(0.5))

    def entropy(self) -> float:
        def term(x: float) -> float:
            density = self.pdf(x)
            return -density * np.log(density) if density > 0 else 0.0

        return self.integral(term)

    def crps(self, y: float) -> float:
        """``∫ (F(x) − 1{y ≤ x})² dx``, from its definition."""
        return self.integral(lambda x: (self.cdf(x) - (x >= y)) ** 2, y)

    def integral(self, function: Any, *breaks: float) -> float:
        """Between the components' quantiles, in pieces."""
        shares = [1e-14, 1e-10, 1e-7, 1e-5, 1e-3, 0.02, 0.15, 0.5, 0.85, 0.98, 0.999, 1 - 1e-5, 1 - 1e-7, 1 - 1e-10]
        places = sorted({*(float(part.ppf(q)) for part in self.parts for q in [*shares, 1 - 1e-14]), *breaks})
        pieces = pairwise(places)
        return sum(integrate.quad(function, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pieces)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gaussians() -> Case:
    """Apart; three near ones whose mode is between; one peak on another; merged ones."""
    location = [[-5.0, 1.5, 0.0, 1.0], [3.0, 2.5, 5.0, 1.0], [8.0, 2.0, 1.0, 1.0]]
    scale = [[1.0, 1.0, 2.0, 0.5], [0.7, 1.0, 1.0, 0.5], [2.0, 1.0, 1.0, 0.5]]
    weight = [[0.3, 0.4, 0.25, 0.2], [0.1, 0.4, 0.1, 0.3], [0.6, 0.2, 0.65, 0.5]]
    oracles = _oracles(lambda k, i: stats.norm(location[k][i], scale[k][i]), weight)
    distribution = Mixture.of(Gaussian(tensor(location), tensor(scale)), tensor(weight))
    modes = [optimum(oracles[0]), 2.0, optimum(oracles[2]), 1.0]
    return Case("mixture_gaussian", distribution, oracles, modes, SHARES, TOLERANCE)


def far_gaussians() -> Case:
    """Far apart, with scales of 1 to 1e6; beside an empty one of absurd parameters."""
    location, scale = [[-5.0, 0.0], [3.0, 1e9], [1e4, 1.0]], [[1.0, 2.0], [1e-3, 1e-5], [1e3, 1.0]]
    weight = [[0.3, 0.25], [0.1, 0.0], [0.6, 0.75]]
    oracles = _oracles(lambda k, i: stats.norm(location[k][i], scale[k][i]), weight)
    distribution = Mixture.of(Gaussian(tensor(location), tensor(scale)), tensor(weight))
    modes = [optimum(oracles[0], 3.0 - 1e-3, 3.0 + 1e-3), optimum(oracles[1])]
    return Case("mixture_far_gaussian", distribution, oracles, modes, SHARES, TOLERANCE)


def laplaces() -> Case:
    location, scale = [[-2.0, 0.0], [2.0, 1e-3], [2.5, 5.0]], [[1.0, 2.0], [0.5, 1e-4], [3.0, 2.0]]
    weight = [[0.5, 0.1], [0.3, 0.2], [0.2, 0.7]]
    oracles = _oracles(lambda k, i: stats.laplace(location[k][i], scale[k][i]), weight)
    distribution = Mixture.of(Laplace(tensor(location), tensor(scale)), tensor(weight))
    # At a kink: 0.3/(2 · 0.5) is more than 0.5/2 + what the others add, and 0.2/(2e-4) more than anything.
    return Case("mixture_laplace", distribution, oracles, [2.0, 1e-3], SHARES, TOLERANCE)


def student_ts() -> Case:
    location, scale, degrees = [[-2.0, 0.0], [2.0, 0.1]], [[1.0, 2.0], [0.5, 0.01]], [[2.5, 4.0], [5.0, 30.0]]
    weight = [[0.5, 0.9], [0.5, 0.1]]
    oracles = _oracles(lambda k, i: stats.t(degrees[k][i], location[k][i], scale[k][i]), weight)
    distribution = Mixture.of(StudentT(tensor(location), tensor(scale), tensor(degrees)), tensor(weight))
    return Case("mixture_student_t", distribution, oracles, [optimum(oracle) for oracle in oracles], SHARES, TOLERANCE)


def gammas() -> Case:
    """The second element's density is infinite at 0."""
    concentration, rate = [[3.0, 0.4], [20.0, 5.0]], [[2.0, 1.0], [1.0, 1.0]]
    weight = [[0.5, 0.3], [0.5, 0.7]]
    oracles = _oracles(lambda k, i: stats.gamma(concentration[k][i], scale=1 / rate[k][i]), weight)
    distribution = Mixture.of(Gamma(tensor(concentration), tensor(rate)), tensor(weight))
    return Case("mixture_gamma", distribution, oracles, [optimum(oracles[0]), 0.0], SHARES, TOLERANCE)


def log_slope(part: Any, x: float) -> float:
    """The derivative of a component's log density, by hand."""
    if part.dist.name == "norm":
        location, scale = part.args
        return -(x - location) / scale**2
    if part.dist.name == "t":
        degrees, location, scale = part.args
        return -(degrees + 1) * (x - location) / (degrees * scale**2 + (x - location) ** 2)
    assert part.dist.name == "gamma"
    return (part.args[0] - 1) / x - 1 / part.kwds["scale"]


def optimum(oracle: MixtureOracle, low: float | None = None, high: float | None = None) -> float:
    """The mode: the best point of a fine grid, refined by the root of the density's derivative."""
    low = min(float(part.ppf(1e-3)) for part in oracle.parts) if low is None else low
    high = max(float(part.ppf(1 - 1e-3)) for part in oracle.parts) if high is None else high
    grid = np.linspace(low, high, 20001)
    near, step = grid[np.argmax(oracle.pdf(grid))], grid[1] - grid[0]

    def slope(x: float) -> float:
        pairs = zip(oracle.parts, oracle.weights, strict=True)
        return float(sum(weight * part.pdf(x) * log_slope(part, x) for part, weight in pairs))

    return float(optimize.brentq(slope, near - 2 * step, near + 2 * step, xtol=1e-15, rtol=1e-15))


def _oracles(part: Any, weight: Sequence[Sequence[float]]) -> list[MixtureOracle]:
    count, elements = len(weight), len(weight[0])
    return [MixtureOracle([part(k, i) for k in range(count)], [row[i] for row in weight]) for i in range(elements)]


CASES = (gaussians(), student_ts(), gammas())
# With kinks, or narrow peaks on wide ones, which only a quadrature that looks for them integrates.
ROUGH_CASES = (far_gaussians(), laplaces())
