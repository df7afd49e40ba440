"""What an activation is: a module with its value, its derivative in closed form, and its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lastlayer.checks import check_floating
from lastlayer.facts import ActivationFacts


class Activation(nn.Module, ABC):
    """An activation as a module: ``activation(x)``.

    Every activation is also a function of the same name in snake case. The ``value`` is plain differentiable PyTorch:
    autograd, ``torch.func`` and higher orders go through it. The ``derivative`` is the closed form, computed in float32
    at least; at a kink it is what PyTorch's backward takes.

    Shapes: an elementwise activation keeps the shape, and so does its derivative. Where every output depends on
    several inputs the derivative is the Jacobian, ``(..., outputs, inputs)``.
    """

    facts: ClassVar[ActivationFacts]

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """The activation of x; without chance, also while training."""

    @abstractmethod
    def _derivative(self, x: Tensor) -> Tensor:
        """The derivative, of float32 or float64."""

    def derivative(self, x: Tensor) -> Tensor:
        """The derivative of ``value`` with respect to x, in closed form."""
        check_floating(x, what="x")
        return self._derivative(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x)

    def record(self, x: Tensor, *, in_place: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The output, and what :meth:`backpropagate` needs of it: x and the output.

        ``in_place`` allows the output to be written over x.
        """
        value = self.value(x)
        return value, (x, value)

    def backpropagate(self, saved: tuple[Tensor, Tensor], gradient: Tensor, *, further: bool) -> Tensor | None:
        """The gradient of the input, where it is to go ``further``; of elementwise activations without parameters."""
        return self._pull_back(*saved, gradient) if further else None

    def _pull_back(self, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """``gradient · derivative``, which may be written over the gradient.

        Overridden where PyTorch has a kernel that does it in one pass.
        """
        return gradient * self.derivative(x)

    def profile(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative over the numbers x, as a plot shows them; the facts say what of a wider function."""
        return self.value(x), self.derivative(x)


def elementwise_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers on both sides of 0, some of them far."""
    return 3 * torch.randn(n, dtype=dtype, generator=generator)
