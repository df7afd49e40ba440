"""The Gaussian distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.distribution import LOG_2PI, normal_cdf
from lastlayer.distributions.location_scale import LocationScale
from lastlayer.distributions.sampling import standard_normal


@dataclass(frozen=True, eq=False)
class Gaussian(LocationScale):
    """Gaussian (normal) distributions.

    Domain: values are real numbers; ``scale`` is positive.

    Formula: density ``exp(−z²/2) / (scale √2π)`` with ``z = (y − mean)/scale``. CRPS
    ``scale (z (2Φ(z) − 1) + 2φ(z) − 1/√π)``.

    Shapes: ``location`` and ``scale`` of one shape; both in units of the target.

    Example:
        >>> Gaussian(torch.tensor([1.0]), torch.tensor([2.0])).interval(0.95)
        (tensor([-2.9199]), tensor([4.9199]))

    Reference: SPEC A6; T. Gneiting, A. E. Raftery, J. American Statistical Association 102 (2007) for the CRPS.
    """

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    @property
    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * LOG_2PI + self.scale.log()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.location + self.scale * standard_normal(self.location, n, generator)

    def _log_prob(self, value: Tensor) -> Tensor:
        # Divided before it is squared: a square of the distance alone could overflow where z² does not.
        return -0.5 * ((value - self.location) / self.scale) ** 2 - self.scale.log() - 0.5 * LOG_2PI

    def _cdf(self, value: Tensor) -> Tensor:
        return normal_cdf((value - self.location) / self.scale)

    def _quantile(self, share: Tensor) -> Tensor:
        return self.location + self.scale * torch.special.ndtri(share)

    def _crps(self, value: Tensor) -> Tensor:
        z = (value - self.location) / self.scale
        density = torch.exp(-0.5 * z**2 - 0.5 * LOG_2PI)
        return self.scale * (z * torch.erf(z / math.sqrt(2.0)) + 2.0 * density - 1.0 / math.sqrt(math.pi))
