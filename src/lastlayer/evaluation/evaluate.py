"""The one place that says how a formula is evaluated.

Two ways so far, chosen by the caller: the readable value under autograd, which every transform of PyTorch goes
through, and value with closed-form gradient in one call, which the training step feeds straight into backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.checks import check_choice, check_floating
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.reduction import REDUCTIONS, expand_weight, hide_masked, quotient, total_weight


def evaluate(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """The loss, differentiable to any order. Half precision is computed and returned in float32."""
    check_choice(reduction, REDUCTIONS, what="reduction")
    raw, target, weight = _prepare(formula, raw, target, sample_weight)
    values = formula.value(raw, target)
    weighted = values if weight is None else weight * values
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if normalizer is None:
        normalizer = total_weight(values, formula.normalizing_weight(raw, target), weight)
    return quotient(weighted.sum(), normalizer)


@torch.no_grad()
def mean_and_gradient(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    normalizer: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean loss and its closed-form gradient with respect to ``raw``, without an autograd graph.

    ``raw.backward(gradient)`` then continues into the network: one node and its bookkeeping fewer than a loss under
    autograd. The gradient has the dtype of ``raw``.
    """
    computed, target, weight = _prepare(formula, raw, target, sample_weight)
    values, gradient = formula.value_and_gradient(computed, target)
    if normalizer is None:
        normalizer = total_weight(values, formula.normalizing_weight(computed, target), weight)
    if weight is not None:
        values = weight * values
        gradient = (weight.unsqueeze(-1) if formula.event_dims else weight) * gradient
    return quotient(values.sum(), normalizer), quotient(gradient, normalizer).to(raw.dtype)


def to_computed(raw: Tensor) -> Tensor:
    """Raw output in the dtype it is computed in: half precision in float32."""
    check_floating(raw, what="raw")
    return raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw


def _prepare(
    formula: Formula, raw: Tensor, target: Tensor, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Raw output in the dtype it is computed in, the target as the formula takes it, the weight of every value."""
    raw = to_computed(raw)
    target = formula.conform(raw, target)
    if sample_weight is None:
        return raw, target, None
    weight = expand_weight(sample_weight, raw, raw.shape[: raw.dim() - formula.event_dims])
    return raw, hide_masked(target, weight), weight
