"""Proper scores of predicted distributions, and what intervals hold: weighted means over all elements."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, shape_text
from lastlayer.distributions.distribution import Distribution
from lastlayer.evaluation.reduction import hide_masked
from lastlayer.uncertainty.class_probabilities import class_index, class_probabilities
from lastlayer.uncertainty.weighting import checked_weight, weighted_average


def mean_nll(distribution: Distribution, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood: the logarithmic score.

    Domain: whatever the distribution gives likelihoods for.

    Formula: ``−Σ w log p(y) / Σ w``.

    Shapes: ``target`` of the distribution's shape, or ``(..., *shape)``; ``sample_weight`` of the target's shape or of
    its leading axes; the mean is one number. Units: nats.

    Special cases: infinite where a target was ruled out. A target of weight 0 does not count, NaN included.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> mean_nll(Gaussian(torch.zeros(2), torch.ones(2)), torch.tensor([0.0, 2.0]))
        tensor(1.9189)

    Reference: T. Gneiting, A. E. Raftery, J. American Statistical Association 102 (2007).
    """
    return weighted_average(-distribution.log_prob(target), sample_weight, what="mean_nll")


def mean_crps(distribution: Distribution, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
    """Mean continuous ranked probability score: the absolute error, of a distribution.

    Domain: quantities and counts. For classes, whose numbers mean nothing, use :func:`brier_score`.

    Formula: ``Σ w crps(y) / Σ w`` with ``crps(y) = ∫ (F(x) − 1{y ≤ x})² dx``.

    Shapes: as :func:`mean_nll`. Units: the target's.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> mean_crps(Gaussian(torch.zeros(1), torch.ones(1)), torch.tensor([0.0]))
        tensor(0.2337)

    Reference: T. Gneiting, A. E. Raftery, J. American Statistical Association 102 (2007).
    """
    return weighted_average(distribution.crps(target), sample_weight, what="mean_crps")


def brier_score(distribution: Distribution, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
    """Mean squared distance between the predicted probabilities and what happened.

    Domain: distributions over classes or labels; targets are their classes.

    Formula: of three classes and more ``Σ_k (p_k − 1{y = k})²``, from 0 to 2, as Brier defined it; of two classes the
    half of it, ``(p_1 − y)²``, from 0 to 1. Both are what scikit-learn's ``brier_score_loss`` gives unasked.

    Shapes: ``target`` of the distribution's shape; ``sample_weight`` of that shape or of its leading axes; the mean is
    one number.

    Raises:
        KindError: if the distribution is not over classes.
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a target names no class, or a weight is negative, infinite or NaN.

    Reference: G. W. Brier, Monthly Weather Review 78 (1950).
    """
    weight = checked_weight(sample_weight, target, what="brier_score")
    index = class_index(distribution, hide_masked(target, weight))
    probability = class_probabilities(distribution)
    distance = probability - torch.nn.functional.one_hot(index, probability.shape[-1]).to(probability.dtype)
    total = distance.square().sum(dim=-1)
    return weighted_average(total / 2 if probability.shape[-1] == 2 else total, weight)


def randomized_pit(distribution: Distribution, target: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Probability integral transform: where in its predicted distribution each target lies; uniform for the truth.

    Formula: ``F(y)``; of whole numbers ``F(y − 1) + u (F(y) − F(y − 1))`` with u uniform on [0, 1).

    Shapes: of the target, which is the distribution's shape or ``(..., *shape)``.

    Special cases: the generator is only asked where values are whole numbers.

    Raises:
        ShapeError: if the target does not fit the distribution.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> randomized_pit(Gaussian(torch.zeros(2), torch.ones(2)), torch.tensor([0.0, 2.0]))
        tensor([0.5000, 0.9772])

    Reference: C. Czado, T. Gneiting, L. Held, Predictive model assessment for count data, Biometrics 65 (2009).
    """
    upper = distribution.cdf(target)
    if not distribution.discrete:
        return upper
    lower = distribution.cdf(target - 1)
    share = torch.rand(upper.shape, dtype=upper.dtype, device=upper.device, generator=generator)
    return lower + share * (upper - lower)


def coverage(
    distribution: Distribution,
    target: Tensor,
    level: float | Sequence[float] | Tensor,
    *,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """The share of targets that lie in the central intervals, ends included: the level itself for the truth.

    Shapes: ``target`` of the distribution's shape; a number for one level, ``(levels,)`` for several.

    Special cases: of whole numbers the intervals hold at least their level, so that even the truth covers more.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a level does not lie in [0, 1], or a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> coverage(Gaussian(torch.zeros(3), torch.ones(3)), torch.tensor([0.0, 1.0, -2.0]), [0.5, 0.9])
        tensor([0.3333, 0.6667])
    """
    _check_target(distribution, target)
    low, high = distribution.interval(level)
    value = target.to(low.dtype)
    return _means(((value >= low) & (value <= high)).to(low.dtype), target, sample_weight, what="coverage")


def mean_width(
    distribution: Distribution, level: float | Sequence[float] | Tensor, *, sample_weight: Tensor | None = None
) -> Tensor:
    """The mean width of the central intervals, in the target's units: sharpness, to be read beside the coverage.

    Shapes: a number for one level, ``(levels,)`` for several; ``sample_weight`` of the distribution's shape or of its
    leading axes.

    Raises:
        ShapeError: if the weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a level does not lie in [0, 1], or a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> mean_width(Gaussian(torch.zeros(2), torch.tensor([1.0, 3.0])), 0.95)
        tensor(7.8399)
    """
    low, high = distribution.interval(level)
    return _means(high - low, distribution.mean, sample_weight, what="mean_width")


def interval_score(
    distribution: Distribution,
    target: Tensor,
    level: float | Sequence[float] | Tensor,
    *,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Mean interval score: width, and a fine for every target outside; least for the true central interval.

    Formula: ``(u − l) + (2/α) (l − y)₊ + (2/α) (y − u)₊`` with ``α = 1 − level``.

    Shapes: ``target`` of the distribution's shape; a number for one level, ``(levels,)`` for several. Units: the
    target's.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a level does not lie in [0, 1), or a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> interval_score(Gaussian(torch.zeros(2), torch.ones(2)), torch.tensor([0.0, 3.0]), 0.9)
        tensor(16.8412)

    Reference: T. Gneiting, A. E. Raftery, J. American Statistical Association 102 (2007), section 6.2.
    """
    _check_target(distribution, target)
    low, high = distribution.interval(level)
    share = torch.as_tensor(level, dtype=low.dtype, device=low.device)
    if bool((share >= 1).any()):
        raise DomainError(
            f"interval_score: the level is {level!r}; expected levels in [0, 1): at 1 the fine is infinite."
        )
    fine = (2.0 / (1.0 - share)).reshape(*share.shape, *(1 for _ in distribution.shape))
    value = target.to(low.dtype)
    score = (high - low) + fine * ((low - value).clamp_min(0.0) + (value - high).clamp_min(0.0))
    return _means(score, target, sample_weight, what="interval_score")


def _check_target(distribution: Distribution, target: Tensor) -> None:
    if target.shape != distribution.shape:
        raise ShapeError(
            f"the target has shape {shape_text(target)}; expected one value for each distribution, "
            f"{tuple(distribution.shape)}."
        )


def _means(values: Tensor, like: Tensor, sample_weight: Tensor | None, *, what: str) -> Tensor:
    """The mean over all elements, for every level where the values have an axis of them."""
    if values.dim() == like.dim():
        return weighted_average(values, sample_weight, what=what)
    if not len(values):
        raise DomainError(f"{what}: there is no level; expected a number or a sequence of numbers in [0, 1].")
    return torch.stack([weighted_average(part, sample_weight, what=what) for part in values])
