"""The continuous distributions as SciPy knows them, at parameters from everyday to extreme."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from distribution_cases import SHARES, Case
from lastlayer.distributions import Affine, Beta, Gamma, Gaussian, Laplace, Logistic, LogNormal, StudentT

# SciPy's ppf of t and beta is now and then no root of its cdf, far out in the tail.
NEAR = SHARES[2:]


class WithoutMean:
    """A frozen distribution that has no mean, whatever SciPy answers: of its t up to one degree of freedom, ∞."""

    def __init__(self, oracle: Any) -> None:
        self._oracle = oracle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def mean(self) -> float:
        return math.nan


class Bisected:
    """A frozen distribution on [0, 1] whose quantiles are found by halving: SciPy's of a beta warn and miss."""

    def __init__(self, oracle: Any) -> None:
        self._oracle = oracle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def ppf(self, share: Any) -> Any:
        share = np.asarray(share, dtype=float)
        low, high = np.full(share.shape, -800.0), np.zeros(share.shape)
        for _ in range(80):
            middle = (low + high) / 2
            over = self._oracle.cdf(np.exp(middle)) >= share
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        return np.where(share == 0, 0.0, np.exp(high))


def columns(*rows: tuple[float, ...]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


def gaussian() -> Case:
    rows = [(-3.0, 0.5), (0.0, 1.0), (1e4, 3.0), (2.0, 1e-3)]
    return Case("gaussian", Gaussian(*columns(*rows)), [stats.norm(*row) for row in rows], [row[0] for row in rows])


def laplace() -> Case:
    rows = [(-3.0, 0.5), (0.0, 1.0), (1e4, 3.0), (2.0, 1e-3)]
    return Case("laplace", Laplace(*columns(*rows)), [stats.laplace(*row) for row in rows], [row[0] for row in rows])


def logistic() -> Case:
    rows = [(-3.0, 0.5), (0.0, 1.0), (1e4, 3.0), (2.0, 1e-3)]
    return Case("logistic", Logistic(*columns(*rows)), [stats.logistic(*row) for row in rows], [row[0] for row in rows])


def student_t() -> Case:
    rows = [
        (0.0, 1.0, 0.8), (0.0, 1.0, 1.0), (2.0, 0.5, 1.5), (-1e3, 3.0, 2.0), (1.0, 1e-3, 4.0), (0.5, 2.0, 30.0),
        (0.0, 1.0, 1e6),
    ]  # fmt: skip
    oracles = [stats.t(degrees, location, scale) for location, scale, degrees in rows]
    oracles = [oracle if row[2] > 1 else WithoutMean(oracle) for oracle, row in zip(oracles, rows, strict=True)]
    # SciPy's logpdf of 1e6 degrees of freedom is a difference of two gammaln of 6e6.
    return Case("student_t", StudentT(*columns(*rows)), oracles, [row[0] for row in rows], NEAR, 1e-8)


def log_normal() -> Case:
    rows = [(0.0, 0.5), (2.0, 1.5), (-8.0, 1e-2), (5.0, 2.5)]
    oracles = [stats.lognorm(scale, scale=math.exp(location)) for location, scale in rows]
    return Case("log_normal", LogNormal(*columns(*rows)), oracles, [math.exp(m - s * s) for m, s in rows])


def gamma() -> Case:
    rows = [(0.05, 1.0), (0.5, 1e-3), (1.0, 2.0), (3.3, 5e3), (16.0, 1.0), (250.0, 1.0), (1e6, 1e6)]
    oracles = [stats.gamma(concentration, scale=1.0 / rate) for concentration, rate in rows]
    modes = [max(concentration - 1.0, 0.0) / rate for concentration, rate in rows]
    # SciPy's logpdf of a concentration of 1e6 is a difference of numbers of 1e7.
    return Case("gamma", Gamma(*columns(*rows)), oracles, modes, tolerance=2e-8)


def beta() -> Case:
    # With a U-shaped one, two that fall, the uniform one and one that rises.
    rows = [
        (0.3, 0.3), (0.5, 2.0), (1.0, 3.0), (1.0, 1.0), (3.0, 1.0), (2.0, 5.0), (200.0, 30.0), (1e5, 3e5), (1.0, 0.5),
    ]  # fmt: skip
    modes = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0 / 5.0, 199.0 / 228.0, 99999.0 / 399998.0, 1.0]
    return Case("beta", Beta(*columns(*rows)), [Bisected(stats.beta(*row)) for row in rows], modes, SHARES, 1e-8)


def affine_gamma() -> Case:
    base = Gamma(*columns((0.5, 1.0), (3.0, 2.0)))
    oracles = [stats.gamma(0.5, loc=-5.0, scale=2.0), stats.gamma(3.0, loc=-5.0, scale=1.0)]
    return Case("affine_gamma", Affine(base, -5.0, 2.0), oracles, [-5.0, -3.0], tolerance=1e-9)


def affine_beta() -> Case:
    base = Beta(*columns((0.5, 0.5), (3.0, 2.0)))
    oracles = [stats.beta(0.5, 0.5, loc=0.1, scale=0.6), stats.beta(3.0, 2.0, loc=0.1, scale=0.6)]
    return Case("affine_beta", Affine(base, 0.1, 0.6), oracles, [0.1, 0.1 + 0.6 * 2.0 / 3.0], NEAR, 1e-9)


CASES = (gaussian(), laplace(), logistic(), student_t(), log_normal(), gamma(), beta(), affine_gamma(), affine_beta())
