"""A loss evaluated: the path chosen, the value and its gradient taken that way."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.checks import check_choice, check_floating
from lastlayer.evaluation.buffers import fresh_gradient
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.node import ClosedForm, small_loss
from lastlayer.evaluation.paths import choose_path, gradient_buffer_for, why_plain
from lastlayer.evaluation.plain import evaluate_plainly
from lastlayer.evaluation.reduction import REDUCTIONS, computed_dtype, quotient, rounded
from lastlayer.evaluation.sweeping import RUN, is_small, prepare, run_reduced, small_mean


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
    differentiable = raw.requires_grad and torch.is_grad_enabled()
    plainly = sample_weight is None and normalizer is None and reduction == "mean"
    if differentiable and plainly and is_small(formula, raw, target):
        return small_loss(formula, raw, target)
    check_choice(reduction, REDUCTIONS, what="reduction")
    check_floating(raw, what="raw")
    path = choose_path(formula, raw, target, sample_weight, normalizer, reduction=reduction).path
    if path == "plain":
        return evaluate_plainly(formula, raw, target, sample_weight, reduction, normalizer)
    sweep = prepare(formula, raw, target, sample_weight, reduction, normalizer)
    if differentiable:
        loss: Tensor = ClosedForm.apply(raw, sweep, path, reduction)
        return loss
    with torch.no_grad():
        return run_reduced(sweep, path, reduction, None)


@torch.no_grad()
def mean_and_gradient(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The mean loss, and its closed-form gradient with respect to ``raw`` times a factor, without an autograd graph.

    ``raw.backward(gradient)`` then continues into the network: one node and its bookkeeping fewer than a loss under
    autograd. The gradient has the dtype of ``raw``.
    """
    raw = raw.detach()
    if sample_weight is None and normalizer is None and is_small(formula, raw, target):
        return small_mean(formula, raw, formula.conform(raw, target), factor)
    check_floating(raw, what="raw")
    path = choose_path(formula, raw, target, sample_weight, normalizer).path
    sweep = prepare(formula, raw, target, sample_weight, "mean", normalizer)
    gradient = _gradient_place(raw)
    total = RUN["blockwise" if path == "plain" else path](sweep, gradient)
    return quotient(total, sweep.normalizer), gradient if factor == 1.0 else gradient.mul_(factor)


def gradient_of_values(formula: Formula, raw: Tensor, target: Tensor) -> Tensor:
    """The derivative of every sample's loss with respect to its raw output, in the dtype of raw.

    In closed form; where it may itself be differentiated, through the readable value.
    """
    check_floating(raw, what="raw")
    computed = raw.to(computed_dtype(raw))
    if why_plain(formula, raw, target) or (torch.is_grad_enabled() and raw.requires_grad):
        # Differentiable once more, under whatever transform there is, also with respect to what the function holds.
        gradient = torch.func.grad(lambda source: evaluate_plainly(formula, source, target, None, "sum", None))(
            computed
        )
    else:
        gradient = formula.gradient(computed, formula.conform(computed, target))
    return rounded(gradient, raw.dtype)


def _gradient_place(raw: Tensor) -> Tensor:
    buffer = gradient_buffer_for(raw)
    return fresh_gradient(raw) if buffer is None else buffer
