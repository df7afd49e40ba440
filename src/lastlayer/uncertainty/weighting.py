"""Weights of rows: checked once, the same way for every score and every calibration."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.checks import DomainError, InputError, ShapeError
from lastlayer.evaluation.reduction import expand_weight


def checked_weight(sample_weight: Tensor | None, values: Tensor, *, what: str) -> Tensor:
    """Weights in float64 at the shape of the values, on their device; ones where none are given.

    Args:
        sample_weight: of the values' shape or of its leading axes.
        values: what is weighted.
        what: whose weights they are, for the messages.

    Raises:
        InputError: if there is no value, or all weights are zero.
        DomainError: if a weight is negative, infinite or NaN.
        ShapeError: if the weights' shape is not that of the values' leading axes.

    Example:
        >>> checked_weight(torch.tensor([1.0, 2.0]), torch.zeros(2, 2), what="a score")
        tensor([[1., 1.],
                [2., 2.]], dtype=torch.float64)
    """
    if not values.numel():
        raise InputError(f"{what}: there are no values, shape {tuple(values.shape)}; give at least one row.")
    if sample_weight is None:
        return torch.ones(values.shape, dtype=torch.float64, device=values.device)
    weight = sample_weight.to(device=values.device, dtype=torch.float64)
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise DomainError(
            f"{what}: sample_weight holds a negative, infinite or NaN weight; expected numbers from 0 up."
        )
    weight = expand_weight(weight, weight, values.shape)
    if not bool((weight > 0).any()):
        raise InputError(f"{what}: every sample_weight is 0; give at least one row a positive weight.")
    return weight


def weighted_average(values: Tensor, sample_weight: Tensor | None = None, *, what: str = "a weighted mean") -> Tensor:
    """The mean over all values, weighted: summed in float64, given in the values' dtype.

    Special cases: a value of weight 0 does not count, whatever it is: NaN and infinite values included.

    Raises:
        InputError: if there is no value, or all weights are zero.
        DomainError: if a weight is negative, infinite or NaN.
        ShapeError: if the weights' shape is not that of the values' leading axes.

    Example:
        >>> weighted_average(torch.tensor([1.0, 4.0, torch.nan]), torch.tensor([2.0, 1.0, 0.0]))
        tensor(2.)
    """
    weight = checked_weight(sample_weight, values, what=what)
    counted = torch.where(weight > 0, values.double(), 0.0)
    # Weights near the largest number would overflow their sum.
    weight = weight / weight.max()
    return ((weight * counted).sum() / weight.sum()).to(values.dtype)


def as_rows(values: Tensor, sample_weight: Tensor | None, *, what: str) -> tuple[Tensor, Tensor]:
    """Values as float64 (rows, columns), the first axis the rows; and one weight per row.

    Raises:
        ShapeError: if the values have no axis, or there is not one weight per row.
        InputError: if there is no value, or all weights are zero.
        DomainError: if a weight is negative, infinite or NaN.
    """
    if not values.dim():
        raise ShapeError(f"{what}: the values have shape (); expected at least one axis, whose elements are the rows.")
    if sample_weight is not None and sample_weight.shape != values.shape[:1]:
        raise ShapeError(
            f"{what}: sample_weight has shape {tuple(sample_weight.shape)}; expected one weight for each of the "
            f"{len(values)} rows."
        )
    if not values.numel():
        raise InputError(f"{what}: there are no values, shape {tuple(values.shape)}; give at least one row.")
    flat = values.detach().double().reshape(len(values), -1)
    return flat, checked_weight(sample_weight, flat[:, 0], what=what)
