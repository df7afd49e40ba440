"""The readable value under autograd: right under every transform of PyTorch, and what the others are judged by."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.paths import transforming
from lastlayer.evaluation.reduction import (
    computed_dtype,
    expand_weight,
    hide_masked,
    in_dtype,
    quotient,
    rounded,
    total_weight,
)


def evaluate_plainly(
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
    return quotient(weighted.sum(), in_dtype(normalizer, raw.dtype))


def _widened(raw: Tensor) -> Tensor:
    """Raw output in the dtype of the arithmetic; the gradient that comes back to float16 is rounded as ours is."""
    wide = raw.to(computed_dtype(raw))
    if raw.dtype == torch.float16 and wide.requires_grad and not (torch.compiler.is_compiling() or transforming()):
        wide.register_hook(lambda gradient: rounded(gradient, raw.dtype).to(gradient.dtype))
    return wide
