"""The Bernoulli distribution: yes or no."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.distributions.distribution import Distribution, check_parameters
from lastlayer.distributions.support import outside_support
from lastlayer.facts import UNIT


@dataclass(frozen=True, eq=False)
class Bernoulli(Distribution):
    """Bernoulli distributions: 1 with probability ``σ(logit)``, else 0.

    Domain: values are 0 and 1; ``logit`` is any real number.

    Formula: ``log p(1) = log σ(logit)``, ``log p(0) = log σ(−logit)``. CRPS, for y of 0 or 1: ``(y − p)²``, the Brier
    score; between them ``y (1 − p)² + (1 − y) p²``, beyond them the distance more.

    Shapes: ``logit`` of the distribution's shape.

    Numerics: everything is computed from the logit, so that neither ``p`` nor ``1 − p`` loses digits near 1. The
    quantile compares with the rounded ``1 − p``.

    Special cases: where the logit is 0 the mode is 0.

    Example:
        >>> answer = Bernoulli(torch.tensor([2.0, -1000.0]))
        >>> answer.probability, answer.log_prob(1.0)
        (tensor([0.8808, 0.0000]), tensor([-1.2693e-01, -1.0000e+03]))

    Reference: G. W. Brier, Monthly Weather Review 78 (1950) for the score.
    """

    logit: Tensor
    support = UNIT
    discrete = True

    def __post_init__(self) -> None:
        check_parameters(self, logit=self.logit)

    @property
    def shape(self) -> torch.Size:
        return self.logit.shape

    @property
    def probability(self) -> Tensor:
        """Of a 1."""
        return torch.sigmoid(self.logit)

    @property
    def mean(self) -> Tensor:
        return self.probability

    @property
    def variance(self) -> Tensor:
        return torch.sigmoid(self.logit) * torch.sigmoid(-self.logit)

    @property
    def mode(self) -> Tensor:
        return (self.logit > 0).to(self.logit.dtype)

    @property
    def entropy(self) -> Tensor:
        # With a = |logit|: −log of the likelier answer, and a more wherever the other one comes.
        size = self.logit.abs()
        return size * torch.sigmoid(-size) - F.logsigmoid(size)

    def mixed(self, weight: Tensor | None = None) -> Bernoulli:
        """The mixture over the first axis: again yes or no, with the mean of the probabilities.

        Args:
            weight: of every member, shape (members,) or that of the distributions, not negative; equal where left out.

        Raises:
            ShapeError: if there is no first axis, or the weights' shape is neither.
            DomainError: if a weight is negative or not finite, or all of an element's are 0.
        """
        from lastlayer.distributions.mixture import Mixture

        log_weight = Mixture.of(self, weight).log_weight
        # Nothing of a member without weight is looked at, be it NaN.
        logit = self.logit.masked_fill(log_weight == -math.inf, 0.0)
        yes = torch.logsumexp(F.logsigmoid(logit) + log_weight, dim=0)
        no = torch.logsumexp(F.logsigmoid(-logit) + log_weight, dim=0)
        return Bernoulli(yes - no)

    def _log_prob(self, value: Tensor) -> Tensor:
        allowed = (value == 0) | (value == 1)
        log_prob = F.logsigmoid(torch.where(value > 0.5, self.logit, -self.logit))
        return torch.where(allowed, log_prob, outside_support(value))

    def _cdf(self, value: Tensor) -> Tensor:
        of_zero = torch.sigmoid(-self.logit).expand_as(value)
        below, from_one = (value < 0).to(value.dtype), (value >= 1).to(value.dtype)
        cdf = torch.where(value < 1, of_zero * (1.0 - below), from_one)
        return torch.where(value.isnan(), value, cdf)

    def _quantile(self, share: Tensor) -> Tensor:
        return (share > torch.sigmoid(-self.logit)).to(self.logit.dtype)

    def _crps(self, value: Tensor) -> Tensor:
        inside = value.clamp(0.0, 1.0)
        yes, no = torch.sigmoid(self.logit), torch.sigmoid(-self.logit)
        return inside * no**2 + (1.0 - inside) * yes**2 + (value - inside).abs()
