"""Constants that are best for a whole target: what several losses share to find theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lastlayer.evaluation import Formula, weighted_mean

# The interval shrinks by 2⁸⁰, far below the last place of float64.
_HALVINGS = 80


def weighted_quantile(target: Tensor, sample_weight: Tensor, level: float) -> Tensor:
    """Over the first axis: the least value at or below which lies a share ``level`` of the weight.

    At level ½ the (lower) weighted median. ``sample_weight`` is one weight per row.

    Example:
        >>> weighted_quantile(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 3.0]), 0.5)
        tensor(2.)
    """
    ordered, order = torch.sort(target, dim=0)
    weight = sample_weight.reshape(-1, *[1] * (target.dim() - 1)).expand(target.shape).gather(0, order)
    total = weight.cumsum(0)
    # The last sum, not weight.sum(): added up in another order, that might never be reached.
    reached = total >= level * total[-1:]
    first = reached.to(torch.int8).argmax(dim=0, keepdim=True)
    return ordered.gather(0, first).squeeze(0)


def root_of_increasing(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a function turns from negative to positive between ``low`` and ``high``, elementwise, by bisection.

    Example:
        >>> root_of_increasing(lambda x: x**3 - 8, torch.tensor(0.0), torch.tensor(10.0))
        tensor(2.)
    """
    for _ in range(_HALVINGS):
        middle = low + 0.5 * (high - low)
        beyond = function(middle) > 0
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return low + 0.5 * (high - low)


def best_between_targets(formula: Formula, target: Tensor, sample_weight: Tensor) -> Tensor:
    """The best constant of an elementwise convex loss that is least at the target: the root of its mean gradient."""

    def slope(constant: Tensor) -> Tensor:
        return weighted_mean(formula.gradient(constant.expand_as(target), target), sample_weight)

    return root_of_increasing(slope, target.amin(0), target.amax(0))
