"""The probability of every class, asked of a distribution over classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.checks import DomainError, KindError, ShapeError, shape_text
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution


def over_classes(distribution: Distribution) -> bool:
    """Whether the values are whole numbers of a bounded range: classes, labels, grades."""
    return (
        distribution.discrete and math.isfinite(distribution.support.low) and math.isfinite(distribution.support.high)
    )


def class_count(distribution: Distribution) -> int:
    """How many classes there are: 2 of labels.

    Raises:
        KindError: if the distribution is not over classes.
    """
    if not over_classes(distribution):
        raise KindError(
            f"{type(distribution).__name__} is not a distribution over classes: its values lie in "
            f"{distribution.support}; expected Bernoulli or Categorical."
        )
    return int(distribution.support.high) - int(distribution.support.low) + 1


def class_probabilities(distribution: Distribution) -> Tensor:
    """The probability of every class, in a new last axis.

    Shapes: ``(*shape, classes)``; of labels the last axis holds the probabilities of 0 and of 1.

    Raises:
        KindError: if the distribution is not over classes.
    """
    if isinstance(distribution, Categorical):
        return distribution.probability
    first, count = int(distribution.support.low), class_count(distribution)
    return torch.stack([distribution.log_prob(float(first + k)) for k in range(count)], dim=-1).exp()


def class_index(distribution: Distribution, target: Tensor) -> Tensor:
    """The place of every target's class among the probabilities: int64, of the distribution's shape.

    Raises:
        KindError: if the distribution is not over classes.
        ShapeError: if the target's shape is not the distribution's.
        DomainError: if a target names no class.
    """
    count = class_count(distribution)
    if target.shape != distribution.shape:
        raise ShapeError(
            f"the target has shape {shape_text(target)}; expected one class for each distribution, "
            f"{tuple(distribution.shape)}."
        )
    low = int(distribution.support.low)
    outside = ~((target >= low) & (target <= low + count - 1) & (target == target.round()))
    if bool(outside.any()):
        raise DomainError(
            f"the target holds {target[outside][0].item()}; expected the classes {low} to {low + count - 1} as "
            f"whole numbers."
        )
    return target.long() - low
