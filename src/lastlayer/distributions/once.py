"""Derivatives that are only numbers: a function may be differentiated once, and a second time is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lastlayer.checks import LastLayerError


def once(slopes: Callable[..., tuple[Tensor, ...]], *arguments: Tensor, of: str) -> tuple[Tensor, ...]:
    """``slopes(*arguments)``: what a backward multiplies by, where a formula for its own derivatives is missing.

    Without it a second derivative would pass for 0.

    Args:
        of: the function whose derivatives they are, as the error names it.

    Raises:
        LastLayerError: when they are differentiated.
    """
    result: tuple[Tensor, ...] = _Once.apply(of, slopes, *arguments)
    return result


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(of: str, slopes: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
        return slopes(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.of = inputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise LastLayerError(
            f"a second derivative of {ctx.of}; only the first is there. Fix: detach what depends on the parameters, or "
            f"differentiate log_prob instead."
        )
