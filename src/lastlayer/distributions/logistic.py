"""The logistic distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.distributions.location_scale import LocationScale


@dataclass(frozen=True, eq=False)
class Logistic(LocationScale):
    """Logistic distributions: tails like a Laplace's, no kink.

    Domain: values are real numbers; ``scale`` is positive.

    Formula: density ``σ(z) σ(−z)/scale`` with ``z = (y − location)/scale``. CRPS ``scale (z − 2 log σ(z) − 1)``.

    Shapes: ``location`` and ``scale`` of one shape; both in units of the target.

    Example:
        >>> Logistic(torch.tensor([1.0]), torch.tensor([2.0])).interval(0.5)
        (tensor([-1.1972]), tensor([3.1972]))

    Reference: A. Jordan, F. Krüger, S. Lerch, J. Statistical Software 90 (2019), appendix A, for the CRPS.
    """

    @property
    def variance(self) -> Tensor:
        return (math.pi**2 / 3.0) * self.scale**2

    @property
    def entropy(self) -> Tensor:
        return 2.0 + self.scale.log()

    def _log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.location) / self.scale
        return F.logsigmoid(z) + F.logsigmoid(-z) - self.scale.log()

    def _cdf(self, value: Tensor) -> Tensor:
        return torch.sigmoid((value - self.location) / self.scale)

    def _quantile(self, share: Tensor) -> Tensor:
        return self.location + self.scale * (share.log() - torch.log1p(-share))

    def _crps(self, value: Tensor) -> Tensor:
        # Even in z, and written for its absolute value: there nothing large cancels.
        z = ((value - self.location) / self.scale).abs()
        return self.scale * (z - 1.0 - 2.0 * F.logsigmoid(z))
