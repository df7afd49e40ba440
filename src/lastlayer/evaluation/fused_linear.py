"""The last linear layer and the loss in one: the raw output is never whole in memory.

Some rows at a time: their raw output into a buffer, the loss, the gradient over the raw output in the same buffer, and
from there the products that give the gradients of features, weight and bias. Beside the gradients themselves there is
one buffer of the size of the budget, however many outputs there are.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, check_choice, check_floating, shape_text
from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.buffers import fresh_gradient
from lastlayer.evaluation.evaluate import evaluate
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.node import check_unchanged, times, versions
from lastlayer.evaluation.paths import choose_path, evaluate_with, why_plain
from lastlayer.evaluation.reduction import REDUCTIONS, quotient
from lastlayer.evaluation.sweeping import RUN, prepare

BYTE_BUDGET = 32 << 20
#: A weight gradient in half precision is added up in place over so few chunks; over more the roundings would show.
_HALF_CHUNKS = 4


@dataclass(frozen=True, slots=True)
class _Plan:
    sweep: Sweep
    rows: int
    reduction: str


def fused_linear(
    formula: Formula,
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
    byte_budget: int | None = None,
) -> Tensor:
    """``evaluate(formula, linear(features, weight, bias), target)`` without the raw output.

    Shapes: features ``(..., D)``, weight ``(K, D)``, bias ``(K,)``, target as the formula takes it for raw output
    ``(..., K)``.

    Raises:
        ShapeError: if features, weight and bias do not belong together, or the target does not belong to them.
        InputError: if the byte budget does not hold a single row.
    """
    check_choice(reduction, REDUCTIONS, what="reduction")
    check_floating(features, what="features")
    _check_shapes(features, weight, bias)
    features, weight = _autocast(features), _autocast(weight)
    bias = None if bias is None else _autocast(bias)
    _check_dtypes(features, weight, bias)
    parts = (features, weight, *(() if bias is None else (bias,)))
    # That weight and bias need gradients is what this function is for: only their kind is asked about.
    kinds = (part.detach() for part in parts[1:])
    whole = reduction == "none" or any(option is not None and option.dim() > 1 for option in formula.tensors)
    if whole or why_plain(formula, features, target, sample_weight, normalizer, *kinds):
        return evaluate(
            formula,
            F.linear(features, weight, bias),
            target,
            sample_weight=sample_weight,
            reduction=reduction,
            normalizer=normalizer,
        )
    shape = (*features.shape[:-1], weight.shape[0])
    like = features.detach().new_empty(1).expand(shape)
    sweep = prepare(formula, like, target, sample_weight, reduction, normalizer)
    plan = _Plan(sweep, _rows(weight, byte_budget), reduction)
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        loss: Tensor = _FusedLinear.apply(features, weight, bias, plan)
        return loss
    return _run(plan, features, weight, bias, None, None, None)


def _check_shapes(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or features.dim() == 0 or features.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"fused_linear: features have shape {shape_text(features)}, weight {shape_text(weight)}; expected (..., D) "
            f"and (K, D), as of nn.Linear(D, K)."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"fused_linear: bias has shape {shape_text(bias)}, weight {shape_text(weight)}; expected "
            f"({weight.shape[0]},): one per row of weight."
        )


def _check_dtypes(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dtype != features.dtype or (bias is not None and bias.dtype != features.dtype):
        raise InputError(
            f"fused_linear: features are {features.dtype}, weight {weight.dtype}"
            f"{'' if bias is None else f', bias {bias.dtype}'}; expected one dtype. Fix: features.to(weight.dtype)."
        )


def _autocast(operand: Tensor) -> Tensor:
    """As ``F.linear`` would take it inside ``torch.autocast``, which leaves float64 alone."""
    device = operand.device.type
    if operand.dtype == torch.float64 or not _autocasts(device):
        return operand
    return operand.to(torch.get_autocast_dtype(device))


def _autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _rows(weight: Tensor, byte_budget: int | None) -> int:
    budget = BYTE_BUDGET if byte_budget is None else byte_budget
    rows = budget // max(1, weight.shape[0] * weight.element_size())
    if byte_budget is not None and rows < 1:
        raise InputError(
            f"fused_linear: byte_budget is {byte_budget}; one row of {weight.shape[0]} outputs takes "
            f"{weight.shape[0] * weight.element_size()} bytes. Fix: a larger byte_budget, or None."
        )
    return max(1, rows)


def _run(
    plan: _Plan,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    of_features: Tensor | None,
    of_weight: Tensor | None,
    of_bias: Tensor | None,
) -> Tensor:
    """The loss; the gradients are written where a place is given."""
    batch = plan.sweep.raw.shape[:-1]
    features = _rows_first(features, batch)
    target = _rows_first(plan.sweep.target, batch)
    sample_weight = None if plan.sweep.weight is None else _rows_first(plan.sweep.weight, batch)
    wanted = of_features is not None or of_weight is not None or of_bias is not None
    buffer = features.new_empty(min(plan.rows, len(features)), len(weight))
    sums = []
    for start in range(0, len(features), plan.rows):
        rows = slice(start, start + plan.rows)
        raw = buffer[: len(features[rows])]
        if bias is None:
            torch.mm(features[rows], weight.t(), out=raw)
        else:
            torch.addmm(bias, features[rows], weight.t(), out=raw)
        sweep = replace(
            plan.sweep,
            raw=raw,
            target=target[rows],
            weight=None if sample_weight is None else sample_weight[rows],
        )
        sums.append(RUN[choose_path(sweep.formula, raw, sweep.target).path](sweep, raw if wanted else None))
        if of_features is not None:
            torch.mm(raw, weight, out=of_features.view(features.shape)[rows])
        if of_weight is not None:
            _add_product(of_weight, raw.t(), features[rows], first=start == 0)
        if of_bias is not None:
            of_bias += raw.sum(0, dtype=of_bias.dtype)
    total = torch.stack(sums).sum() if sums else features.new_zeros((), dtype=plan.sweep.computed)
    return quotient(total, plan.sweep.normalizer)


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """``total += left @ right``, or ``=`` the first time; slice by slice where the total is wider than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=0.0 if first else 1.0)
        return
    for rows in torch.arange(len(left)).split(4096):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        product = torch.mm(left[part], right)
        if first:
            total[part] = product
        else:
            total[part] += product


def _rows_first(operand: Tensor, batch: torch.Size) -> Tensor:
    """Target or weight with all batch axes in one."""
    if operand.dim() > len(batch) and operand.numel() and operand.stride(-1) == 0:
        # One number for all outputs of a row: as such it takes no more memory than the rows do.
        return operand.select(-1, 0).reshape(-1, 1).expand(-1, operand.shape[-1])
    return operand.reshape(batch.numel(), *operand.shape[len(batch) :])


class _FusedLinear(torch.autograd.Function):
    """One node: three gradients, written while the loss is computed."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
        needs = ctx.needs_input_grad
        count = features.shape[:-1].numel()
        of_features = torch.empty_like(features, memory_format=torch.contiguous_format) if needs[0] else None
        of_weight = None
        if needs[1]:
            few = count <= _HALF_CHUNKS * plan.rows
            of_weight = fresh_gradient(weight, dtype=weight.dtype if few else plan.sweep.computed)
            if not count:
                of_weight.zero_()
        of_bias = None if bias is None or not needs[2] else bias.new_zeros(bias.shape, dtype=plan.sweep.computed)
        ctx.plan, ctx.versions = plan, versions(plan.sweep)
        device = features.device.type
        with torch.autocast(device, enabled=False) if _autocasts(device) else nullcontext():
            loss = _run(plan, features, weight, bias, of_features, of_weight, of_bias)
        ctx.save_for_backward(
            features,
            weight,
            bias,
            of_features,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None or bias is None else of_bias.to(bias.dtype),
        )
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_gradients(ctx, features, weight, bias, upstream), None
        return *(None if one is None else times(one, upstream) for one in gradients), None


def _differentiable_gradients(
    ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, upstream: Tensor
) -> list[Tensor | None]:
    """The gradients as a graph of their own (``create_graph=True``): through the readable formula."""
    sweep: Sweep = ctx.plan.sweep
    check_unchanged(sweep, ctx.versions)
    parts = (features, weight, bias)
    wanted = [part for part, needs in zip(parts, ctx.needs_input_grad, strict=False) if needs and part is not None]
    with torch.enable_grad(), evaluate_with(path="plain"):
        loss = evaluate(
            sweep.formula,
            F.linear(features, weight, bias),
            sweep.target,
            sample_weight=sweep.weight,
            reduction=ctx.plan.reduction,
            normalizer=sweep.normalizer,
        )
        found = iter(torch.autograd.grad(loss, wanted, upstream, create_graph=True))
    return [next(found) if needs else None for needs in ctx.needs_input_grad[:3]]
