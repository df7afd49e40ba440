"""A sweep made ready and run: the target checked, the weights and the normalizer known, then one of the ways to go."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from lastlayer.evaluation import blockwise, compiled, kernels
from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.formula import Formula, Scaled
from lastlayer.evaluation.paths import nothing_special
from lastlayer.evaluation.reduction import (
    computed_dtype,
    expand_weight,
    in_dtype,
    quotient,
    reciprocal,
    total_weight,
)

RUN: dict[str, Callable[..., Tensor]] = {
    "blockwise": blockwise.run,
    "kernel": kernels.run,
    "compiled": compiled.run,
}
#: Computed and returned in their own dtype.
_EXACT = (torch.float32, torch.float64)


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
    normalizer = in_dtype(normalizer, computed)
    return Sweep(formula, raw.detach(), target, weight, normalizer, reciprocal(normalizer), computed)


def run_reduced(sweep: Sweep, path: str, reduction: str, gradient: Tensor | None) -> Tensor:
    """The reduced loss, and its gradient where a place is given; single values of reduction ``"none"``."""
    if reduction != "none":
        return quotient(RUN[path](sweep, gradient), sweep.normalizer)
    values = sweep.raw.new_empty(sweep.raw.shape[: sweep.raw.dim() - sweep.formula.event_dims], dtype=sweep.computed)
    RUN[path](sweep, gradient, values)
    return values


def is_small(formula: Formula, raw: Tensor, target: Tensor) -> bool:
    """Whether only fixed costs count: one block, nothing asked for, nothing to convert or to weigh."""
    return raw.dtype in _EXACT and 0 < raw.numel() <= blockwise.BLOCK and nothing_special(formula, raw, target)


@lru_cache(maxsize=64)
def _number(number: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """As a tensor: a number of Python's is made one at every use, which takes as long as the product."""
    return torch.tensor(number, dtype=dtype, device=device)


def small_mean(formula: Formula, raw: Tensor, target: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean, and gradient times a factor, with nothing in between but the formula's own operations.

    The target is conformed.
    """
    if isinstance(formula, Scaled):
        # Slope and factor are one product over the gradient; over the mean they are a product of two numbers.
        loss, gradient = small_mean(formula.inner, raw, target, formula.slope * factor)
        return loss.mul_(formula.slope).add_(formula.offset), gradient
    formula = formula.specialized(target)
    values, gradient = formula.value_and_gradient(raw, target)
    counts = formula.normalizing_weight(raw, target)
    if counts is None:
        return values.mean(), gradient * _number(factor / values.numel(), raw.dtype, raw.device)
    total = counts.sum()
    return quotient(values.sum(), total), gradient * (reciprocal(total) * factor)
