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


def expand_weight(sample_weight: Tensor, like: Tensor, shape: torch.Size) -> Tensor:
    """Sample weights at the shape of the per-sample values, in the dtype of ``like``.

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
    return sample_weight.to(like.dtype).reshape(*sample_weight.shape, *[1] * missing).expand(shape)


def hide_masked(target: Tensor, weight: Tensor) -> Tensor:
    """Targets of weight zero become 0, so that nothing they hold, NaN included, reaches a value or a gradient."""
    masked = weight == 0
    masked = masked.reshape(*masked.shape, *[1] * (target.dim() - masked.dim()))
    return torch.where(masked, torch.zeros_like(target), target)


def total_weight(values: Tensor, counts: Tensor | None, weight: Tensor | None) -> Tensor | int:
    """The denominator of the mean."""
    if weight is None:
        return values.numel() if counts is None else counts.sum()
    return (weight if counts is None else weight * counts).sum()


def quotient(numerator: Tensor, denominator: Tensor | float) -> Tensor:
    """The quotient, and zero where nothing counted: an empty or wholly masked batch has loss 0 and gradient 0."""
    if isinstance(denominator, Tensor):
        return numerator / torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return numerator / denominator if denominator != 0 else numerator * 0.0
