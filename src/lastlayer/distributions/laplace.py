"""The Laplace distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.location_scale import LocationScale


@dataclass(frozen=True, eq=False)
class Laplace(LocationScale):
    """Laplace (double exponential) distributions.

    Domain: values are real numbers; ``scale``, the mean absolute deviation, is positive.

    Formula: density ``exp(−|z|)/(2 scale)`` with ``z = (y − location)/scale``. CRPS ``scale (|z| + exp(−|z|) − ¾)``.

    Shapes: ``location`` and ``scale`` of one shape; both in units of the target.

    Example:
        >>> Laplace(torch.tensor([1.0]), torch.tensor([2.0])).interval(0.95)
        (tensor([-4.9915]), tensor([6.9915]))

    Reference: SPEC A6; A. Jordan, F. Krüger, S. Lerch, J. Statistical Software 90 (2019), appendix A, for the CRPS.
    """

    @property
    def variance(self) -> Tensor:
        return 2.0 * self.scale**2

    @property
    def entropy(self) -> Tensor:
        return 1.0 + (2.0 * self.scale).log()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        # The difference of two waiting times, whose tails reach further than those of a quantile of a float32 share.
        first, second = self.location.new_empty(2, n, *self.shape).exponential_(generator=generator)
        return self.location + self.scale * (first - second)

    def _log_prob(self, value: Tensor) -> Tensor:
        return -((value - self.location) / self.scale).abs() - (2.0 * self.scale).log()

    def _cdf(self, value: Tensor) -> Tensor:
        z = (value - self.location) / self.scale
        return torch.where(z < 0, 0.5 * z.clamp_max(0.0).exp(), 1.0 - 0.5 * (-z.clamp_min(0.0)).exp())

    def _quantile(self, share: Tensor) -> Tensor:
        # Of either tail the logarithm of its own share. Shares are halves at the seam, where both are 0.
        z = torch.where(share < 0.5, (2.0 * share.clamp_max(0.5)).log(), -(2.0 * (1.0 - share.clamp_min(0.5))).log())
        return self.location + self.scale * z

    def _crps(self, value: Tensor) -> Tensor:
        distance = ((value - self.location) / self.scale).abs()
        return self.scale * (distance + (-distance).exp() - 0.75)
