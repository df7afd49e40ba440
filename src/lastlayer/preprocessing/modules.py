"""What a transformer learned, as a module of tensors: for inside a network, on its device, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.preprocessing.moments import Floats


class ElementwiseScaling(nn.Module):
    """Subtracts a mean and divides by a scale, element by element; :meth:`inverse` goes back.

    Formula: ``(x − mean) / scale``.

    Shapes: ``(..., *shape)``, kept. Where ``shape`` says ``None`` any size goes: ``(channels, None, None)`` for images,
    channels first as convolutions take them, ``(columns,)`` for tables. The result has the dtype of the buffers, and
    uint8 images may come in.

    Numerics: the mean is held in two parts, the second the rounding of the first. A float32 module loses nothing where
    the mean is 10⁴ times the spread, and ``.double()`` finds the digits that float32 could not hold.

    Args:
        mean, scale: arrays that broadcast to ``shape``.
        shape: what the last axes of the input must be.
        dtype: of the buffers; ``None`` is float32.

    Raises:
        ShapeError: for an input of other channels, columns or size.
        InputError: if a value does not fit into ``dtype``.

    Example:
        >>> scaler = StandardScaler().fit([[1.0, 10.0], [3.0, 30.0]])
        >>> ElementwiseScaling.of(scaler)(torch.tensor([3.0, 20.0]))
        tensor([1., 0.])
    """

    mean: Tensor
    mean_rounding: Tensor
    scale: Tensor

    def __init__(
        self, mean: Floats, scale: Floats, *, shape: tuple[int | None, ...], dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.shape = shape
        _register_mean(self, mean, dtype)
        self.register_buffer("scale", _as_tensor(scale, dtype, what="scale", zero=False))

    @classmethod
    def of(cls, scaler: StandardScaler, *, dtype: torch.dtype | None = None) -> ElementwiseScaling:
        """What scikit-learn's StandardScaler learned."""
        if not isinstance(scaler, StandardScaler):
            raise KindError(f"expected a fitted StandardScaler, and got {type(scaler).__name__}.")
        check_is_fitted(scaler)
        columns = scaler.n_features_in_
        mean = scaler.mean_ if scaler.with_mean else np.zeros(columns)
        scale = scaler.scale_ if scaler.with_std else np.ones(columns)
        return cls(mean, scale, shape=(columns,), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        _check_last_axes(x, self.shape)
        return (x.to(self.mean.dtype) - self.mean - self.mean_rounding) / self.scale

    def inverse(self, scaled: Tensor) -> Tensor:
        """The input that gives this output."""
        _check_last_axes(scaled, self.shape)
        return scaled.to(self.mean.dtype) * self.scale + self.mean_rounding + self.mean

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class AffineMap(nn.Module):
    """Subtracts a mean and multiplies by a matrix; :meth:`inverse` goes back.

    Formula: ``(x − mean) · matrix``; back, ``z · back + mean``.

    Shapes: ``(..., columns)`` to ``(..., directions)``. The result has the dtype of the buffers.

    Numerics: the mean is held in two parts, as in :class:`ElementwiseScaling`. The product cancels: in a direction of
    standard deviation σ, the error of float32 is about ``6e-8 · σ_max / σ`` standard deviations. The product is taken
    in the buffers' dtype also under autocast, whose bfloat16 would leave nothing of a small direction.

    Args:
        mean: ``(columns,)``.
        matrix: ``(columns, directions)``.
        back: ``(directions, columns)``.
        dtype: of the buffers; ``None`` is float32.

    Raises:
        ShapeError: for an input of another number of columns.
        InputError: if a value does not fit into ``dtype``.
    """

    mean: Tensor
    mean_rounding: Tensor
    matrix: Tensor
    back: Tensor

    def __init__(self, mean: Floats, matrix: Floats, back: Floats, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        _register_mean(self, mean, dtype)
        self.register_buffer("matrix", _as_tensor(matrix, dtype, what="matrix"))
        self.register_buffer("back", _as_tensor(back, dtype, what="matrix"))

    def forward(self, x: Tensor) -> Tensor:
        _check_last_axes(x, (len(self.matrix),))
        centered = x.to(self.mean.dtype) - self.mean - self.mean_rounding
        with torch.autocast(x.device.type, enabled=False):
            return centered @ self.matrix

    def inverse(self, mapped: Tensor) -> Tensor:
        """The input that gives this output, but for directions that were dropped: there, the mean."""
        _check_last_axes(mapped, (len(self.back),))
        with torch.autocast(mapped.device.type, enabled=False):
            return mapped.to(self.mean.dtype) @ self.back + self.mean_rounding + self.mean

    def extra_repr(self) -> str:
        return f"columns={self.matrix.shape[0]}, directions={self.matrix.shape[1]}"


def _register_mean(module: nn.Module, mean: Floats, dtype: torch.dtype | None) -> None:
    rounded = _as_tensor(mean, dtype, what="mean")
    module.register_buffer("mean", rounded)
    module.register_buffer("mean_rounding", (torch.from_numpy(np.array(mean)) - rounded.double()).to(rounded.dtype))


def _as_tensor(values: Floats, dtype: torch.dtype | None, *, what: str, zero: bool = True) -> Tensor:
    dtype = dtype or torch.float32
    exact = torch.from_numpy(np.array(values, dtype=np.float64))
    result = exact.to(dtype)
    if not result.isfinite().all() or (not zero and not result.all()):
        raise InputError(f"the {what} does not fit into {dtype}. Fix: dtype=torch.float64.")
    return result


def _check_last_axes(x: Tensor, shape: tuple[int | None, ...]) -> None:
    given: tuple[Any, ...] = tuple(x.shape[-len(shape) :])
    if len(given) < len(shape) or any(
        size is not None and size != there for size, there in zip(shape, given, strict=True)
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ShapeError(f"the input has shape {tuple(x.shape)}; expected (..., {expected}).")
