"""What the tests of numerical differentiation and of the gradient check share: points, and a wrong backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=random(seed))


class _Scaled(torch.autograd.Function):
    """The identity whose backward multiplies."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradient, None


def scaled(x: Tensor, factor: float | Tensor) -> Tensor:
    return _Scaled.apply(x, torch.as_tensor(factor, dtype=x.dtype))
