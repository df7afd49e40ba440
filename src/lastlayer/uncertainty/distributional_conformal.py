"""Conformal intervals at any level from one list of scores: how far from its distribution's middle each target lay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.conformal import conformal_quantile, finite_bound


def distance_from_middle(distribution: Distribution, target: Tensor) -> Tensor:
    """``|F(y) − ½|``; of whole numbers with ``½ F(y − 1) + ½ F(y)`` for F(y).

    Shapes: of the target, which is the distribution's.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> distance_from_middle(Gaussian(torch.zeros(2), torch.ones(2)), torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.4772])
    """
    return (_share(distribution, target) - 0.5).abs()


def conformal_threshold(scores: Sequence[float], level: float) -> float:
    """The score that a further row stays within, with probability ``level`` at least.

    Raises:
        InputError: if there are too few scores for the level.
        DomainError: if the level is not between 0 and 1.
    """
    held_out = torch.tensor(scores, dtype=torch.float64)
    bound = conformal_quantile(held_out, level) if len(held_out) else torch.tensor(torch.inf, dtype=torch.float64)
    return float(finite_bound(bound, level, len(held_out)))


def conformal_share_interval(
    distribution: Distribution, scores: Sequence[float], level: float
) -> tuple[Tensor, Tensor]:
    """The interval of every value that is no further from the middle than the level's share of held-out targets was.

    Domain: quantities and counts.

    Formula: from the quantile of ``½ − c`` to that of ``½ + c``, c the :func:`conformal_threshold` of the scores that
    :func:`distance_from_middle` gave for held-out rows.

    Shapes: each end of the distribution's shape, in its units.

    Special cases: of whole numbers both ends are inside; where no number is so close to the middle, the median stands
    alone, which holds more than is promised.

    Raises:
        InputError: if there are too few scores for the level.
        DomainError: if the level is not between 0 and 1.

    Reference: V. Chernozhukov, K. Wüthrich, Y. Zhu, Distributional conformal prediction, PNAS 118 (2021).
    """
    threshold = min(conformal_threshold(scores, level), 0.5)
    low, high = distribution.quantile(0.5 - threshold), distribution.quantile(0.5 + threshold)
    if distribution.discrete:
        # Compared as scores are made: of equal distributions ties are common, and rounding must not break them.
        low = torch.where(distance_from_middle(distribution, low) > threshold, low + 1.0, low)
        high = torch.where(distance_from_middle(distribution, high) > threshold, high - 1.0, high)
        empty = low > high
        low, high = (torch.where(empty, distribution.median, end) for end in (low, high))
    return low, high


def _share(distribution: Distribution, value: Tensor) -> Tensor:
    share = distribution.cdf(value)
    return 0.5 * (share + distribution.cdf(value - 1.0)) if distribution.discrete else share
