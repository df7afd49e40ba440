"""The log-normal distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters, normal_cdf
from lastlayer.distributions.sampling import standard_normal
from lastlayer.distributions.support import moved_inside
from lastlayer.facts import Interval


@dataclass(frozen=True, eq=False)
class LogNormal(Distribution):
    """Log-normal distributions: the logarithm of the value is Gaussian.

    Domain: values are positive; ``scale`` is positive.

    Formula: density ``exp(−z²/2) / (y scale √2π)`` with ``z = (log y − location)/scale``. With σ the scale and
    m the mean ``exp(location + σ²/2)``, CRPS ``y (2Φ(z) − 1) − 2m (Φ(z − σ) − Φ(−σ/√2))``.

    Shapes: ``location`` and ``scale`` of one shape; both of the logarithm of the target, hence without a unit.

    Numerics: the mean's overflow for a large scale does not reach the CRPS: its factors are multiplied as logarithms.

    Special cases: 0 lies outside the support.

    Example:
        >>> LogNormal(torch.tensor([1.0]), torch.tensor([0.5])).interval(0.95)
        (tensor([1.0202]), tensor([7.2426]))

    Reference: S. Baran, S. Lerch, Quarterly J. Royal Meteorological Society 141 (2015) for the CRPS.
    """

    location: Tensor
    scale: Tensor
    support = Interval(low=0.0)

    def __post_init__(self) -> None:
        check_parameters(self, location=self.location, scale=self.scale)

    @property
    def shape(self) -> torch.Size:
        return self.location.shape

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.location + 0.5 * self.scale**2)

    @property
    def variance(self) -> Tensor:
        return torch.expm1(self.scale**2) * torch.exp(2.0 * self.location + self.scale**2)

    @property
    def median(self) -> Tensor:
        return self.location.exp()

    @property
    def mode(self) -> Tensor:
        return torch.exp(self.location - self.scale**2)

    @property
    def entropy(self) -> Tensor:
        return self.location + 0.5 + 0.5 * LOG_2PI + self.scale.log()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.exp(self.location + self.scale * standard_normal(self.location, n, generator))

    def _log_prob(self, value: Tensor) -> Tensor:
        value, outside = moved_inside(value, self.support, 1.0)
        logarithm = value.log()
        density = -0.5 * ((logarithm - self.location) / self.scale) ** 2 - logarithm - self.scale.log() - 0.5 * LOG_2PI
        return torch.where(outside, -torch.inf, density)

    def _cdf(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value, self.support, 1.0)
        share = normal_cdf((safe.log() - self.location) / self.scale)
        return torch.where(outside, (value > 0).to(share.dtype), share)

    def _quantile(self, share: Tensor) -> Tensor:
        return torch.exp(self.location + self.scale * torch.special.ndtri(share))

    def _crps(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value, self.support, 1.0)
        z = (safe.log() - self.location) / self.scale
        log_mean = self.location + 0.5 * self.scale**2
        below = torch.exp(log_mean + torch.special.log_ndtr(z - self.scale))
        inside = safe * torch.erf(z / math.sqrt(2.0)) - 2.0 * below
        spread = 2.0 * torch.exp(log_mean + torch.special.log_ndtr(-self.scale / math.sqrt(2.0)))
        return torch.where(outside, value.abs(), inside) + spread
