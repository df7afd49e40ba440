"""The gamma distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters
from lastlayer.distributions.sampling import log_standard_gamma
from lastlayer.distributions.special_functions import gamma_cdf, gamma_quantile, log_gamma_kernel
from lastlayer.distributions.support import moved_inside
from lastlayer.facts import Interval
from lastlayer.log_gamma import log_gamma_half_step, stirling_error, stirling_slope


@dataclass(frozen=True, eq=False)
class Gamma(Distribution):
    """Gamma distributions, by concentration (shape) and rate.

    Domain: values are positive; ``concentration`` and ``rate`` are positive.

    Formula: density ``rate^a y^(a−1) exp(−rate y) / Γ(a)`` with a the concentration. With ``u = rate y`` and P the
    regularized lower incomplete gamma function, cdf ``P(a, u)`` and CRPS
    ``(u (2P(a, u) − 1) − a (2P(a + 1, u) − 1) − Γ(a + ½)/(Γ(a) √π)) / rate``.

    Shapes: ``concentration`` and ``rate`` of one shape; the rate in one over the target's unit.

    Numerics: ``cdf`` and ``quantile`` are SciPy's (see :mod:`lastlayer.distributions.special_functions` for their
    gradient in the concentration). Neither density, entropy nor CRPS loses digits for a large concentration: the gamma
    functions' large parts cancel on paper. Of a concentration below 0.01 many quantiles are too small for a number: 0.

    Special cases: 0 lies outside the support. For a concentration up to 1 the mode is 0, where the density is greatest
    or without bound.

    Example:
        >>> Gamma(torch.tensor([3.0]), torch.tensor([2.0])).interval(0.95)
        (tensor([0.3093]), tensor([3.6123]))

    Reference: A. Jordan, F. Krüger, S. Lerch, J. Statistical Software 90 (2019), appendix A, for the CRPS.
    """

    concentration: Tensor
    rate: Tensor
    support = Interval(low=0.0)

    def __post_init__(self) -> None:
        check_parameters(self, concentration=self.concentration, rate=self.rate)

    @property
    def shape(self) -> torch.Size:
        return self.concentration.shape

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate**2

    @property
    def mode(self) -> Tensor:
        return (self.concentration - 1.0).clamp_min(0.0) / self.rate

    @property
    def entropy(self) -> Tensor:
        a = self.concentration
        small = stirling_error(a) + (1.0 - a) * stirling_slope(a) - 0.5 / a
        return 0.5 + 0.5 * LOG_2PI + 0.5 * a.log() + small - self.rate.log()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        draw = log_standard_gamma(self.concentration.double(), n, generator).exp() / self.rate
        # Values are positive: what is too small for a number is the least one.
        return draw.to(self.rate.dtype).clamp_min(torch.finfo(self.rate.dtype).tiny)

    def _log_prob(self, value: Tensor) -> Tensor:
        value, outside = moved_inside(value, self.support, 1.0)
        density = log_gamma_kernel(self.rate * value, self.concentration) - value.log()
        return torch.where(outside, -torch.inf, density)

    def _cdf(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value, self.support, 1.0)
        share = gamma_cdf(self.rate * safe, self.concentration)
        return torch.where(outside, (value > 0).to(share.dtype), share)

    def _quantile(self, share: Tensor) -> Tensor:
        return gamma_quantile(share, self.concentration) / self.rate

    def _crps(self, value: Tensor) -> Tensor:
        safe, outside = moved_inside(value.double(), self.support, 1.0)
        a, u = self.concentration.double(), self.rate.double() * safe
        # u f(u) is a times the difference of these two: as such it has a derivative of the right size also near 0.
        inside = u * (2.0 * gamma_cdf(u, a) - 1.0) - a * (2.0 * gamma_cdf(u, a + 1.0) - 1.0)
        spread = (log_gamma_half_step(a) + 0.5 * a.log()).exp() / math.sqrt(math.pi)
        beyond = (self.rate * value - self.concentration).abs()
        return ((torch.where(outside, beyond, inside) - spread) / self.rate).to(value.dtype)
