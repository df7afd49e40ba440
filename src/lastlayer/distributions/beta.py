"""The beta distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters
from lastlayer.distributions.sampling import log_standard_gamma
from lastlayer.distributions.special_functions import beta_cdf, beta_quantile, log_beta_density
from lastlayer.distributions.support import moved_inside
from lastlayer.facts import UNIT
from lastlayer.log_gamma import stirling_error, stirling_slope


@dataclass(frozen=True, eq=False)
class Beta(Distribution):
    """Beta distributions of a share, by their two concentrations: that of 1 and that of 0.

    Domain: values are in [0, 1]; both concentrations are positive.

    Formula: density ``y^(a−1) (1 − y)^(b−1) / B(a, b)`` with a, b the concentrations of 1 and 0, B the beta function.
    With I the regularized incomplete beta function, n = a + b and m the mean a/n, cdf ``I(y; a, b)`` and CRPS
    ``y (2I(y; a, b) − 1) − m (2I(y; a + 1, b) − 1) − 2B(2a, 2b)/(n B(a, b)²)``.

    Shapes: the concentrations of one shape; values are shares.

    Numerics: ``cdf`` and ``quantile`` are SciPy's (see :mod:`lastlayer.distributions.special_functions` for their
    gradient in the concentrations). The density is computed in float64 whatever the dtype, to about n·1e-16 of its
    logarithm; entropy and CRPS lose no digits for large concentrations.

    Special cases: where a or b is at most 1 the density is greatest at an end, and the mode is that end: 0 where a < b,
    1 where a > b. With a = b < 1 both ends are alike, and the mode is 0; with a = b = 1 every value is, and it is ½. At
    an end the density may be infinite.

    Example:
        >>> Beta(torch.tensor([3.0]), torch.tensor([2.0])).interval(0.95)
        (tensor([0.1941]), tensor([0.9324]))

    Reference: A. Jordan, F. Krüger, S. Lerch, J. Statistical Software 90 (2019), appendix A, for the CRPS.
    """

    concentration1: Tensor
    concentration0: Tensor
    support = UNIT

    def __post_init__(self) -> None:
        check_parameters(self, concentration1=self.concentration1, concentration0=self.concentration0)

    @property
    def shape(self) -> torch.Size:
        return self.concentration1.shape

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return (self.concentration1 / total) * (self.concentration0 / total) / (total + 1.0)

    @property
    def mode(self) -> Tensor:
        one, zero = self.concentration1 - 1.0, self.concentration0 - 1.0
        inside = (one > 0) & (zero > 0)
        peak = torch.where(inside, one, torch.ones_like(one)) / torch.where(inside, one + zero, torch.ones_like(one))
        flat = torch.where((one == 0) & (zero == 0), 0.5, 0.0)
        return torch.where(inside, peak, torch.where(one > zero, 1.0, flat))

    @property
    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        n = a + b
        large = 0.5 * (a.log() + b.log() - 3.0 * n.log() + LOG_2PI + 1.0) - 0.5 / a - 0.5 / b + 1.0 / n
        errors = stirling_error(a) + stirling_error(b) - stirling_error(n)
        slopes = (a - 1.0) * stirling_slope(a) + (b - 1.0) * stirling_slope(b) - (n - 2.0) * stirling_slope(n)
        return large + errors - slopes

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        # The share of one of two gamma draws: from their logarithms, for both may be too small for a number.
        one = log_standard_gamma(self.concentration1.double(), n, generator)
        zero = log_standard_gamma(self.concentration0.double(), n, generator)
        return torch.sigmoid(one - zero).to(self.concentration1.dtype)

    def _log_prob(self, value: Tensor) -> Tensor:
        value, outside = moved_inside(value, self.support, 0.5)
        density = log_beta_density(value.double(), self.concentration1.double(), self.concentration0.double())
        return torch.where(outside, -torch.inf, density.to(value.dtype))

    def _cdf(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value, self.support, 0.5)
        share = beta_cdf(safe, self.concentration1, self.concentration0)
        return torch.where(outside, (value > 1).to(share.dtype), share)

    def _quantile(self, share: Tensor) -> Tensor:
        return beta_quantile(share, self.concentration1, self.concentration0)

    def _crps(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value.double(), self.support, 0.5)
        a, b = self.concentration1.double(), self.concentration0.double()
        mean = a / (a + b)
        # y(1 − y) f(y) is written as a difference of these two, whose derivative is of the right size also near 0.
        inside = safe * (2.0 * beta_cdf(safe, a, b) - 1.0) - mean * (2.0 * beta_cdf(safe, a + 1.0, b) - 1.0)
        score = torch.where(outside, (value - mean).abs(), inside) - _half_mean_difference(a, b)
        return score.to(value.dtype)


def _half_mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """``½ E|Y − Y′| = 2B(2a, 2b)/(n B(a, b)²)``, of whose logarithm only the parts that stay small are left."""
    n = a + b
    left = _doubling(a) + _doubling(b) - _doubling(n)
    return (a / n).sqrt() * (b / n).sqrt() * left.exp() / (n * math.pi).sqrt()


def _doubling(x: Tensor) -> Tensor:
    return stirling_error(2.0 * x) - 2.0 * stirling_error(x)
