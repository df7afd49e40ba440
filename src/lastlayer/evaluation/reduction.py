"""Reduction: the weighted sum, the sum of weights, and their quotient.

The mean of a batch is ``Σ wᵢ·valueᵢ / Σ wᵢ·cᵢ`` with sample weights w and the counts c that a formula gives (one
each, or the weight of the sample's class). The denominator can be passed in, so that the gradients of any partition
of a batch, each with the whole batch's normalizer, add up to the gradient of the one big batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.checks import ShapeError

REDUCTIONS = ("mean", "sum", "none")


def computed_dtype(raw: Tensor) -> torch.dtype:
    """The dtype in which raw output is computed: half precision in float32."""
    return torch.float32 if raw.dtype in (torch.float16, torch.bfloat16) else raw.dtype


def rounded(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient in a dtype that may be narrower.

    What float16 cannot hold becomes its largest number: a step too short, never an infinite one.
    """
    if dtype == torch.float16:
        largest = torch.finfo(dtype).max
        exact = exact.clamp(-largest, largest)
    return exact.to(dtype)


def expand_weight(
    sample_weight: Tensor, like: Tensor, shape: torch.Size, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Sample weights at the shape of the per-sample values, in the dtype of ``like`` unless another is given.

    A weight may have that shape, or be given for the leading axes alone: ``(N,)`` for values ``(N, K)``.

    Raises:
        ShapeError: for any other shape.
    """
    if sample_weight.shape != shape[: sample_weight.dim()]:
        raise ShapeError(
            f"sample_weight has shape {tuple(sample_weight.shape)}, the per-sample values {tuple(shape)}; "
            f"expected that shape or its leading axes."
        )
    missing = len(shape) - sample_weight.dim()
    return sample_weight.to(dtype or like.dtype).reshape((*sample_weight.shape, *[1] * missing)).expand(shape)


def hide_masked(target: Tensor, weight: Tensor) -> Tensor:
    """Targets of weight zero become 0, so that nothing they hold, NaN included, reaches a value or a gradient."""
    masked = weight == 0
    masked = masked.reshape((*masked.shape, *[1] * (target.dim() - masked.dim())))
    return torch.where(masked, torch.zeros_like(target), target)


def total_weight(number: int, counts: Tensor | None, weight: Tensor | None, dtype: torch.dtype) -> Tensor | float:
    """The denominator of the mean of so many values."""
    if weight is None:
        return number if counts is None else counts.sum()
    return (weight if counts is None else weight * counts).sum(dtype=dtype)


def quotient(numerator: Tensor, denominator: Tensor | float) -> Tensor:
    """The quotient, and zero where nothing counted: an empty or wholly masked batch has loss 0."""
    return numerator / _never_zero(denominator) if _counts(denominator) else numerator * 0.0


def reciprocal(denominator: Tensor | float) -> Tensor | float:
    """One over the denominator, and zero where nothing counted: such a batch has gradient 0."""
    if isinstance(denominator, Tensor):
        return (denominator != 0) / _never_zero(denominator)
    return 1.0 / denominator if denominator != 0 else 0.0


def _counts(denominator: Tensor | float) -> bool:
    return isinstance(denominator, Tensor) or denominator != 0


def _never_zero(denominator: Tensor | float) -> Tensor | float:
    if isinstance(denominator, Tensor):
        return torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return denominator


def in_dtype(normalizer: Tensor | float, dtype: torch.dtype) -> Tensor | float:
    """A count of rows or a float32 sum of weights would give the gradient its own precision."""
    return normalizer.to(dtype) if isinstance(normalizer, Tensor) else normalizer
