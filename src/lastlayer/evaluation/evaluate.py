"""A loss evaluated: the path chosen, the target and weights made ready, the result tied into autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lastlayer.checks import InputError, check_choice, check_floating
from lastlayer.evaluation import blockwise, compiled, kernels
from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.buffers import fresh_gradient
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.paths import (
    choose_path,
    gradient_buffer_for,
    lies_over,
    many_at_once,
    nothing_special,
    transforming,
    why_plain,
)
from lastlayer.evaluation.reduction import (
    REDUCTIONS,
    computed_dtype,
    expand_weight,
    hide_masked,
    quotient,
    reciprocal,
    rounded,
    total_weight,
)

RUN: dict[str, Callable[..., Tensor]] = {
    "blockwise": blockwise.run,
    "kernel": kernels.run,
    "compiled": compiled.run,
}


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
    if differentiable and plainly and _is_small(formula, raw, target):
        small: Tensor = _Small.apply(raw, formula, target)
        return small
    check_choice(reduction, REDUCTIONS, what="reduction")
    check_floating(raw, what="raw")
    path = choose_path(formula, raw, target, sample_weight, normalizer, reduction=reduction).path
    if path == "plain":
        return _plain(formula, raw, target, sample_weight, reduction, normalizer)
    sweep = prepare(formula, raw, target, sample_weight, reduction, normalizer)
    if differentiable:
        loss: Tensor = _ClosedForm.apply(raw, sweep, path, reduction)
        return loss
    with torch.no_grad():
        return _forward(sweep, path, reduction, None)


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
    raw = raw.detach()
    if sample_weight is None and normalizer is None and _is_small(formula, raw, target):
        return _small_mean(formula, raw, formula.conform(raw, target))
    check_floating(raw, what="raw")
    path = choose_path(formula, raw, target, sample_weight, normalizer).path
    sweep = prepare(formula, raw, target, sample_weight, "mean", normalizer)
    gradient = _gradient_place(raw)
    total = RUN["blockwise" if path == "plain" else path](sweep, gradient)
    return quotient(total, sweep.normalizer), gradient


def gradient_of_values(formula: Formula, raw: Tensor, target: Tensor) -> Tensor:
    """The derivative of every sample's loss with respect to its raw output, in the dtype of raw.

    In closed form; where it may itself be differentiated, through the readable value.
    """
    check_floating(raw, what="raw")
    computed = raw.to(computed_dtype(raw))
    if why_plain(formula, raw, target) or (torch.is_grad_enabled() and raw.requires_grad):
        # Differentiable once more, under whatever transform there is, also with respect to what the function holds.
        gradient = torch.func.grad(lambda source: _plain(formula, source, target, None, "sum", None))(computed)
    else:
        gradient = formula.gradient(computed, formula.conform(computed, target))
    return rounded(gradient, raw.dtype)


def _plain(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    sample_weight: Tensor | None,
    reduction: str,
    normalizer: Tensor | float | None,
) -> Tensor:
    """Through the readable value, every operation of which autograd and the transforms of PyTorch know."""
    raw = _widened(raw)
    target = formula.conform(raw, target)
    weight = None
    if sample_weight is not None:
        weight = expand_weight(sample_weight, raw, raw.shape[: raw.dim() - formula.event_dims])
        target = hide_masked(target, weight)
    values = formula.value(raw, target)
    weighted = values if weight is None else weight * values
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if normalizer is None:
        normalizer = total_weight(values.numel(), formula.normalizing_weight(raw, target), weight, raw.dtype)
    return quotient(weighted.sum(), _in_dtype(normalizer, raw.dtype))


def _in_dtype(normalizer: Tensor | float, dtype: torch.dtype) -> Tensor | float:
    """A count of rows or a float32 sum of weights would give the gradient its own precision."""
    return normalizer.to(dtype) if isinstance(normalizer, Tensor) else normalizer


def _widened(raw: Tensor) -> Tensor:
    """Raw output in the dtype of the arithmetic; the gradient that comes back to float16 is rounded as ours is."""
    wide = raw.to(computed_dtype(raw))
    if raw.dtype == torch.float16 and wide.requires_grad and not (torch.compiler.is_compiling() or transforming()):
        wide.register_hook(lambda gradient: rounded(gradient, raw.dtype).to(gradient.dtype))
    return wide


def prepare(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    sample_weight: Tensor | None,
    reduction: str,
    normalizer: Tensor | float | None,
) -> Sweep:
    """Everything checked and the normalizer known, before the first number is read."""
    computed = computed_dtype(raw)
    shape = raw.shape[: raw.dim() - formula.event_dims]
    if target.dtype != computed and (target.is_floating_point() or target.shape == raw.shape):
        # Checked whole and converted block by block: shapes alone are looked at here.
        formula.conform(raw.to("meta", computed), target.to("meta"))
        counted = target
    else:
        target = counted = formula.conform(raw.detach() if raw.dtype == computed else raw.to("meta", computed), target)
        formula = formula.specialized(target)
    weight = None if sample_weight is None else expand_weight(sample_weight, raw, shape, dtype=sample_weight.dtype)
    if reduction != "mean":
        normalizer = 1.0
    elif normalizer is None:
        like = raw.new_empty((), dtype=computed).expand(raw.shape)
        normalizer = total_weight(shape.numel(), formula.normalizing_weight(like, counted), weight, computed)
    normalizer = _in_dtype(normalizer, computed)
    return Sweep(formula, raw.detach(), target, weight, normalizer, reciprocal(normalizer), computed)


def _gradient_place(raw: Tensor) -> Tensor:
    buffer = gradient_buffer_for(raw)
    return fresh_gradient(raw) if buffer is None else buffer


def _forward(sweep: Sweep, path: str, reduction: str, gradient: Tensor | None) -> Tensor:
    """The reduced loss, and its gradient where a place is given; single values of reduction ``"none"``."""
    if reduction != "none":
        return quotient(RUN[path](sweep, gradient), sweep.normalizer)
    values = sweep.raw.new_empty(sweep.raw.shape[: sweep.raw.dim() - sweep.formula.event_dims], dtype=sweep.computed)
    RUN[path](sweep, gradient, values)
    return values


#: Computed and returned in their own dtype.
_EXACT = (torch.float32, torch.float64)


class _ClosedForm(torch.autograd.Function):
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
            return _forward(sweep, path, reduction, None)
        gradient = fresh_gradient(raw) if buffer is None else buffer
        loss = _forward(sweep, path, reduction, gradient)
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


def _is_small(formula: Formula, raw: Tensor, target: Tensor) -> bool:
    """Whether only fixed costs count: one block, nothing asked for, nothing to convert or to weigh."""
    return raw.dtype in _EXACT and 0 < raw.numel() <= blockwise.BLOCK and nothing_special(formula, raw, target)


@lru_cache(maxsize=64)
def _one_over(number: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """As a tensor: a number of Python's is made one at every use, which takes as long as the product."""
    return torch.tensor(1.0 / number, dtype=dtype, device=device)


def _small_mean(formula: Formula, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and gradient with nothing in between but the formula's own operations; the target is conformed."""
    formula = formula.specialized(target)
    values, gradient = formula.value_and_gradient(raw, target)
    counts = formula.normalizing_weight(raw, target)
    if counts is None:
        return values.mean(), gradient * _one_over(values.numel(), raw.dtype, raw.device)
    total = counts.sum()
    return quotient(values.sum(), total), gradient * reciprocal(total)


class _Small(torch.autograd.Function):
    """The mean loss of a single block as one node, with nothing in it but the formula's own operations."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, formula: Formula, target: Tensor) -> Tensor:
        target = formula.conform(raw, target)
        loss, gradient = _small_mean(formula, raw, target)
        ctx.formula, ctx.target, ctx.versions = formula, target, _versions(target)
        ctx.save_for_backward(raw, gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        raw, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            _check_same(_versions(ctx.target), ctx.versions)
            with torch.enable_grad():
                loss = _plain(ctx.formula, raw, ctx.target, None, "mean", None)
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
