"""``head="auto"``: every head that fits the target is trained, and the likeliest on rows held out is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lastlayer.distributions import Distribution
from lastlayer.fitting import Fitted, Task
from lastlayer.heads import Head, admissible_heads, from_text
from lastlayer.uncertainty import mean_nll


def choose_by_validation(task: Task, fit: Callable[[Task], Fitted]) -> tuple[Head, dict[str, float]]:
    """The head of least negative log-likelihood on the held-out rows, and that of each.

    All are judged in the target's units. Where the target is whole numbers, a density is judged by the probability that
    it gives to the number and what would be rounded to it, as a count's head is: a density alone can be made as high as
    one likes there.

    Args:
        fit: trains a task without a second training on all rows.
    """
    tried: dict[str, float] = {}
    heads: dict[str, Head] = {}
    whole = bool((task.target == np.floor(task.target)).all())
    for text in admissible_heads(task.target):
        heads[text] = from_text(text)
        fitted = fit(dataclasses.replace(task, head=heads[text], calibration=None))
        model, rows = fitted.model, fitted.judged
        distribution = model.distribution_of(model.raw_of(rows.features))
        target = model.own_units(model.head.judged(rows.target))
        weight = None if rows.weight is None else rows.weight.double()
        if whole:
            tried[text] = _of_whole_numbers(distribution, target, rows.ones_or_weight().double())
        else:
            tried[text] = float(mean_nll(distribution, target, sample_weight=weight))
    # One that is no number is no candidate.
    best = min(tried, key=lambda text: tried[text] if np.isfinite(tried[text]) else np.inf)
    return heads[best], tried


def _of_whole_numbers(distribution: Distribution, target: Tensor, weight: Tensor) -> float:
    if distribution.discrete:
        log_probability = distribution.log_prob(target.round())
    else:
        mass = distribution.cdf(target + 0.5) - distribution.cdf(target - 0.5)
        # In the tails a difference of two numbers close to 1 rounds to 0, where the density does not.
        log_probability = torch.where(mass > 1e-10, mass, distribution.log_prob(target).exp()).log()
    return float(-(weight * log_probability).sum() / weight.sum())
