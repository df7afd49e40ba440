"""A linear layer of one network, or of several side by side."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.checks import InputError, ShapeError, shape_text


def uniform_start(weight: Tensor, bias: Tensor, inputs: int) -> None:
    """Draws both uniform in ``±1/√inputs``, as PyTorch's linear layer starts."""
    bound = 1.0 / math.sqrt(max(inputs, 1))
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)


class Linear(nn.Module):
    """An affine layer; with ``members``, one for every member of an ensemble, computed as one batched product.

    Formula: ``x Wᵀ + b``, for each member with its own W and b.

    Shapes: weight ``(units, inputs)``, bias ``(units,)``, and ``(..., inputs)`` to ``(..., units)``. With members
    weight ``(members, units, inputs)``, bias ``(members, units)``; ``(n, inputs)`` that all members share or
    ``(members, n, inputs)`` become ``(members, n, units)``.

    Weights and biases start uniform in ``±1/√inputs``, as PyTorch's do.

    Raises:
        InputError: for fewer than one member.
        ShapeError: if the input does not fit.

    Example:
        >>> Linear(3, 2, members=5)(torch.zeros(7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(self, inputs: int, units: int, *, members: int | None = None) -> None:
        super().__init__()
        if members is not None and members < 1:
            raise InputError(f"members is {members}; expected a whole number from 1 on, or None for a single network.")
        leading = () if members is None else (members,)
        self.inputs, self.units, self.members = inputs, units, members
        self.weight = nn.Parameter(torch.empty(*leading, units, inputs))
        self.bias = nn.Parameter(torch.empty(*leading, units))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights and biases."""
        uniform_start(self.weight, self.bias, self.inputs)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.inputs:
            raise ShapeError(f"Linear: the input has shape {shape_text(x)}; expected (..., {self.inputs}).")
        if self.members is None:
            return F.linear(x, self.weight, self.bias)
        return torch.baddbmm(self.bias.unsqueeze(1), self._of_each(x), self.weight.transpose(1, 2))

    def record(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and what :meth:`backpropagate` needs of it."""
        return self(x), x

    def backpropagate(self, x: Tensor, gradient: Tensor, *, further: bool) -> Tensor | None:
        """Sets the gradients of weight and bias, and gives that of the input where it is to go ``further``."""
        if self.members is None:
            self.bias.grad = gradient.sum(0)
            self.weight.grad = torch.mm(gradient.t(), x)
            return torch.mm(gradient, self.weight) if further else None
        self.bias.grad = gradient.sum(1)
        self.weight.grad = torch.bmm(gradient.transpose(1, 2), self._of_each(x))
        if not further:
            return None
        back = torch.bmm(gradient, self.weight)
        return back if x.dim() == 3 else back.sum(0)

    def _of_each(self, x: Tensor) -> Tensor:
        """The input of every member: its own, or the rows that all of them read."""
        assert self.members is not None
        if x.dim() == 2:
            return x.expand(self.members, *x.shape)
        if x.dim() == 3 and x.shape[0] == self.members:
            return x
        raise ShapeError(
            f"Linear: the input has shape {shape_text(x)}; expected (n, {self.inputs}), or ({self.members}, n, "
            f"{self.inputs}) for its {self.members} members."
        )

    def extra_repr(self) -> str:
        members = "" if self.members is None else f", members={self.members}"
        return f"inputs={self.inputs}, units={self.units}{members}"
