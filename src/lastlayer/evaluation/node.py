"""A loss as a node of PyTorch's graph: the closed form forward, and what autograd may ask of it afterwards.

Backward may come never, once, again, with an upstream gradient, with many at a time, or with a graph of its own; in
between a buffer may have been used again or a target changed. Each gives the right gradient or an error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lastlayer.checks import InputError
from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.buffers import fresh_gradient
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.paths import gradient_buffer_for, lies_over, many_at_once
from lastlayer.evaluation.plain import evaluate_plainly
from lastlayer.evaluation.reduction import hide_masked, quotient
from lastlayer.evaluation.sweeping import RUN, run_reduced, small_mean

# Up to so many numbers a loss costs what its calls cost, and PyTorch's own, where it has the same, makes the fewest.
_ONLY_CALLS_COUNT = 4096


class ClosedForm(torch.autograd.Function):
    """The loss as one node of the graph. Its gradient is written while the loss is computed.

    Where single values are wanted, their upstream gradients are not known yet, and the gradient waits for backward.
    So it does in float16, whose small gradients only a scaled loss keeps from vanishing, and on a GPU, where reading
    raw a second time is cheaper than rescaling a gradient that was stored.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor, sweep: Sweep, path: str, reduction: str) -> Tensor:
        ctx.sweep, ctx.path, ctx.reduction, ctx.versions = sweep, path, reduction, versions(sweep)
        buffer = gradient_buffer_for(raw)
        if reduction == "none" or raw.is_cuda or raw.dtype == torch.float16:
            ctx.buffer, ctx.buffer_version = buffer, None if buffer is None else buffer._version
            ctx.save_for_backward(raw)
            return run_reduced(sweep, path, reduction, None)
        gradient = fresh_gradient(raw) if buffer is None else buffer
        loss = run_reduced(sweep, path, reduction, gradient)
        overwritten = buffer is not None and lies_over(buffer, raw)
        ctx.save_for_backward(None if overwritten else raw, gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Once: under activation checkpointing there is no second look.
        raw, *stored = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradient(ctx, raw, upstream), None, None, None
        if stored:
            return times(stored[0], upstream), None, None, None
        if many_at_once(upstream):
            return _differentiable_gradient(ctx, raw, upstream), None, None, None
        sweep = ctx.sweep
        check_unchanged(sweep, ctx.versions)
        # Written since, by another loss or by this one's first backward, it holds a gradient that autograd may need.
        free = ctx.buffer is not None and ctx.buffer._version == ctx.buffer_version
        place = ctx.buffer if free else fresh_gradient(raw)
        if ctx.reduction == "none":
            weight = upstream if sweep.weight is None else upstream * sweep.weight.to(upstream.dtype)
            sweep = replace(sweep, weight=weight)
        else:
            sweep = replace(sweep, scale=sweep.scale * upstream)
        RUN[ctx.path](sweep, place)
        return place, None, None, None


def small_loss(formula: Formula, raw: Tensor, target: Tensor) -> Tensor:
    """The differentiable mean of a single block: PyTorch's own where that is the same, else one node."""
    target = formula.conform(raw, target)
    if raw.numel() <= _ONLY_CALLS_COUNT:
        twin = formula.twin(raw, target)
        if twin is not None:
            return twin
    loss: Tensor = SmallMean.apply(raw, formula, target)
    return loss


class SmallMean(torch.autograd.Function):
    """The mean loss of a single block as one node, with nothing in it but the formula's own operations."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, formula: Formula, target: Tensor) -> Tensor:
        loss, gradient = small_mean(formula, raw, target)
        ctx.formula, ctx.target, ctx.versions = formula, target, _versions(target)
        ctx.save_for_backward(raw, gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        raw, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            _check_same(_versions(ctx.target), ctx.versions)
            with torch.enable_grad():
                loss = evaluate_plainly(ctx.formula, raw, ctx.target, None, "mean", None)
                return *torch.autograd.grad(loss, raw, upstream, create_graph=True), None, None
        return times(gradient, upstream), None, None


def _differentiable_gradient(ctx: Any, raw: Tensor | None, upstream: Tensor) -> Tensor:
    """The gradient as a graph of its own (``create_graph=True``): through the readable value."""
    sweep: Sweep = ctx.sweep
    if raw is None:
        raise InputError(
            "a gradient of the gradient was asked for, and the raw output it needs was overwritten by its gradient. "
            "Fix: do not give the raw output itself as gradient_buffer."
        )
    check_unchanged(sweep, ctx.versions)
    with torch.enable_grad():
        computed = raw.to(sweep.computed)
        target = sweep.formula.conform(computed, sweep.target)
        weight = None if sweep.weight is None else sweep.weight.to(sweep.computed)
        if weight is not None:
            target = hide_masked(target, weight)
        values = sweep.formula.value(computed, target)
        if weight is not None:
            values = values * weight
        loss = values if ctx.reduction == "none" else quotient(values.sum(), sweep.normalizer)
        (gradient,) = torch.autograd.grad(loss, raw, upstream, create_graph=True)
    return gradient


def times(gradient: Tensor, upstream: Tensor) -> Tensor:
    """A stored gradient times the upstream one: almost always 1, and on a CPU it costs nothing to look."""
    if upstream.device.type == "cpu" and not many_at_once(upstream) and upstream.item() == 1.0:
        return gradient
    # Not rounded first: in float16 the upstream gradient of a scaled loss is infinite.
    return (gradient * upstream).to(gradient.dtype)


def versions(sweep: Sweep) -> list[int]:
    """How often each operand has been written so far."""
    return _versions(sweep.target, sweep.weight, *sweep.formula.tensors)


def _versions(*operands: Tensor | None) -> list[int]:
    return [tensor._version for tensor in operands if tensor is not None and not tensor.is_inference()]


def check_unchanged(sweep: Sweep, before: list[int]) -> None:
    """Backward reads target and weights once more: as autograd does with its own, it insists that they are the same.

    Raises:
        InputError: if one was written in between.
    """
    _check_same(versions(sweep), before)


def _check_same(now: list[int], before: list[int]) -> None:
    if now != before:
        raise InputError(
            "target, sample_weight or a weight of the loss was modified in place between the loss and its backward "
            "pass, which reads it again. Fix: take backward first, or modify a copy."
        )
