"""The sweep through ``torch.compile``: one fused loop, on a GPU by Triton, on a CPU by the C++ compiler there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.reduction import hide_masked, rounded


def run(sweep: Sweep, gradient: Tensor | None = None, values: Tensor | None = None) -> Tensor:
    """The weighted sum of the loss, not divided; gradient and weighted values are written where a place is given."""
    if not sweep.raw.numel():
        return sweep.raw.new_zeros((), dtype=sweep.computed)
    scale = sweep.scale
    if not isinstance(scale, Tensor):
        # As a tensor, or every new batch size would be compiled again.
        scale = torch.tensor(scale, dtype=sweep.computed, device=sweep.raw.device)
    compiled = _compiled(type(sweep.formula), sweep.raw.dim(), gradient is not None)
    total: Tensor = compiled(
        sweep.formula, sweep.raw, sweep.target, sweep.weight, scale, sweep.computed, gradient, values
    )
    return total


@cache
def _compiled(*kind: object) -> Callable[..., Any]:
    """Compiled anew for every kind: PyTorch counts recompilations by code object and stops at the eighth."""
    own = FunctionType(_sweep.__code__.replace(), globals(), argdefs=_sweep.__defaults__)
    return torch.compile(own, dynamic=True)


def _sweep(
    formula: Formula,
    raw: Tensor,
    target: Tensor,
    weight: Tensor | None,
    scale: Tensor,
    computed: torch.dtype,
    gradient: Tensor | None,
    values: Tensor | None,
) -> Tensor:
    raw = raw.to(computed)
    target = formula.conform(raw, target)
    if weight is not None:
        weight = weight.to(computed)
        target = hide_masked(target, weight)
    if gradient is None:
        result = formula.value(raw, target)
    else:
        result, exact = formula.value_and_gradient(raw, target)
        factor = scale
        if weight is not None:
            factor = (weight * scale).unsqueeze(-1) if formula.event_dims else weight * scale
        gradient.copy_(rounded(exact * factor, gradient.dtype))
    if weight is not None:
        result = result * weight
    if values is not None:
        values.copy_(result)
    return result.sum()
