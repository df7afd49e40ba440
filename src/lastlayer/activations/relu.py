"""Rectifiers with a fixed slope for negative inputs: ReLU and leaky ReLU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import InputError, check_floating
from lastlayer.facts import REAL, ActivationFacts, Interval


def relu(x: Tensor) -> Tensor:
    """The rectified linear unit.

    Formula: ``max(0, x)``.

    Gradient: ``1`` for x > 0, else ``0``; the kink at 0 belongs to the flat side, as in PyTorch.

    Shapes: any, kept.

    Example:
        >>> relu(torch.tensor([-2.0, 3.0]))
        tensor([0., 3.])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    return torch.relu(x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """The leaky rectified linear unit: a small slope where ReLU is flat.

    Formula: ``x`` for x > 0, else ``slope · x``.

    Gradient: ``1`` for x > 0, else ``slope``; the kink at 0 belongs to the leak, as in PyTorch.

    Shapes: any, kept.

    Special cases: the lectures use slopes 0.01 and 0.1. A slope other than 0.01 does not make it a randomized ReLU, as
    one of them says: :func:`rrelu` draws it per unit.

    Raises:
        InputError: for a slope that is no finite number.

    Example:
        >>> leaky_relu(torch.tensor([-2.0, 3.0]), slope=0.1)
        tensor([-0.2000,  3.0000])

    Reference: SPEC C, H.
    """
    check_floating(x, what="x")
    return F.leaky_relu(x, check_slope(slope, what="leaky_relu: slope"))


def check_slope(slope: float, *, what: str) -> float:
    """The slope, a finite number.

    Raises:
        InputError: naming what was given.
    """
    if not math.isfinite(slope):
        raise InputError(f"{what} is {slope}; expected a finite number.")
    return slope


class ReLU(Activation):
    """Module form of :func:`relu`."""

    facts = ActivationFacts(
        name="relu",
        title="rectified linear unit (ReLU)",
        formula="max(0, x)",
        derivative="1 for x > 0, else 0",
        range=Interval(low=0.0, low_closed=True),
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=0.0,
        saturates_above=None,
        zero_centered=False,
        smooth=False,
        elementwise=True,
        parameters=None,
        use_when="a layer is hidden, to begin with: it is cheap, and the gradient passes unchanged if a unit is active",
        avoid_when="units die, never active on the data: leaky_relu, elu or a smaller learning rate keep them learning",
        reference="SPEC C; V. Nair, G. E. Hinton, ICML (2010)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return relu(x)

    def record(self, x: Tensor, *, in_place: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        value = x.relu_() if in_place else torch.relu(x)
        return value, (value, value)

    def _pull_back(self, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        # PyTorch's kernel of ReLU's backward; what was passed on is positive, so the output says as much as the input.
        torch.ops.aten.threshold_backward.grad_input(gradient, value, 0, grad_input=gradient)
        return gradient

    def _derivative(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


class LeakyReLU(Activation):
    """Module form of :func:`leaky_relu`."""

    facts = ActivationFacts(
        name="leaky_relu",
        title="leaky rectified linear unit",
        formula="x for x > 0, else slope · x",
        derivative="1 for x > 0, else slope",
        range=REAL,
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=None,
        zero_centered=False,
        smooth=False,
        elementwise=True,
        parameters=None,
        use_when="ReLU units die: the leak keeps a gradient on the negative side",
        avoid_when="sparse activations are wanted: nothing is ever exactly 0",
        reference="SPEC C; A. L. Maas, A. Y. Hannun, A. Y. Ng, ICML (2013)",
        example=elementwise_example,
    )

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = check_slope(slope, what="LeakyReLU: slope")

    def value(self, x: Tensor) -> Tensor:
        return leaky_relu(x, self.slope)

    def _pull_back(self, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.leaky_relu_backward(gradient, x, self.slope, False)
        return result

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x).masked_fill(~(x > 0), self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope}"
