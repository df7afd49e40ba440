"""``head="auto"``: every head that fits the target is trained, and the likeliest on rows held out is taken."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.distributions import Distribution
from lastlayer.fitting import Fitted, Task
from lastlayer.heads import Head, admissible_heads, from_text
from lastlayer.uncertainty import mean_nll

# Of a step: differences of numbers such as 0.1 and 0.2, in float32 at the worst, are multiples of it up to rounding.
_ROUNDING = 1e-3
_NEXT_TO_NOTHING = 1e-10


def choose_by_validation(task: Task, fit: Callable[[Task], Fitted]) -> tuple[Head, dict[str, float]]:
    """The head of least negative log-likelihood on the held-out rows, and that of each.

    All are judged in the target's units. Where the target comes in equal steps, as whole numbers do, every head is
    judged by the probability that it gives to what would be rounded to the target, as a count's head is: a density
    alone can be made as high as one likes there. Heads that the calibration does not fit are not tried.

    Args:
        fit: trains a task without a second training on all rows.
    """
    tried: dict[str, float] = {}
    heads: dict[str, Head] = {}
    step = grid_step(task.target)
    for text in admissible_heads(task.target):
        head = from_text(text)
        if task.calibration == "scale" and head.whole:
            continue
        heads[text] = head
        fitted = fit(dataclasses.replace(task, head=head, calibration=None))
        model, rows = fitted.model, fitted.judged
        distribution = model.distribution_of(model.raw_of(rows.features))
        weight = rows.ones_or_weight().double()
        judged = model.own_units(model.head.judged(rows.target))
        if step is None:
            tried[text] = float(mean_nll(distribution, judged, sample_weight=weight))
        else:
            log_probability = cell_log_probability(distribution, model.own_units(rows.target), step, judged)
            tried[text] = float(-(weight * log_probability).sum() / weight.sum())
        if fitted.history.stopped == "interrupted":
            # Ctrl-C once is for all of them.
            break
    # One that is no number is no candidate.
    best = min(tried, key=lambda text: tried[text] if np.isfinite(tried[text]) else np.inf)
    return heads[best], tried


def grid_step(target: NDArray[Any] | Sequence[float]) -> float | None:
    """The step that a target's values are apart, or a multiple of it; ``None`` where they come in no equal steps.

    Example:
        >>> tuple(map(grid_step, ([3.0, 6.0, 4.5], [2.0, 4.0, 7.0], [0.1, 2.3, 9.0])))
        (1.5, 1.0, None)
    """
    values = np.unique(np.asarray(target, dtype=np.float64))
    gaps = np.diff(values)
    if not len(gaps):
        return 1.0 if values[0] == np.floor(values[0]) else None
    if (gaps == np.floor(gaps)).all() and gaps.max() < 2**53:
        return float(np.gcd.reduce(gaps.astype(np.int64)))
    step = float(gaps.min())
    steps = gaps / step
    return step if (np.abs(steps - steps.round()) < _ROUNDING).all() else None


def cell_log_probability(distribution: Distribution, target: Tensor, step: float, judged: Tensor) -> Tensor:
    """Logarithm of the probability between half a step below each target and half a step above.

    Args:
        judged: the same targets where the density has a value; it stands in where the probability is next to nothing.
    """
    mass = distribution.cdf(target + 0.5 * step) - distribution.cdf(target - 0.5 * step)
    at_target = distribution.log_prob(judged)
    if not distribution.discrete:
        at_target = at_target + math.log(step)
    # In the tails a difference of two numbers close to 1 rounds to 0, where the density does not.
    return torch.where(mass > _NEXT_TO_NOTHING, mass.clamp_min(_NEXT_TO_NOTHING).log(), at_target)
