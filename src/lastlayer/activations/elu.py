"""The exponential linear unit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import InputError, check_floating
from lastlayer.facts import ActivationFacts, Interval


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """The exponential linear unit.

    Formula: ``x`` for x > 0, else ``alpha · (exp(x) − 1)``.

    Gradient: ``1`` for x > 0, else ``alpha · exp(x)``; at 0 it is ``alpha``, as in PyTorch, and continuous where that
    is 1.

    Shapes: any, kept.

    Raises:
        InputError: for an alpha that is not positive and finite.

    Example:
        >>> elu(torch.tensor([-1.0, 3.0]))
        tensor([-0.6321,  3.0000])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    return F.elu(x, _checked_alpha(alpha))


def _checked_alpha(alpha: float) -> float:
    if not 0 < alpha < math.inf:
        raise InputError(f"elu: alpha is {alpha}; expected a positive number.")
    return alpha


class ELU(Activation):
    """Module form of :func:`elu`."""

    facts = ActivationFacts(
        name="elu",
        title="exponential linear unit (ELU)",
        formula="x for x > 0, else α (exp(x) − 1)",
        derivative="1 for x > 0, else α exp(x)",
        range=Interval(low=-1.0),
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=-9.22,
        saturates_above=None,
        zero_centered=False,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="ReLU units die, or the mean of their outputs should come closer to 0",
        avoid_when="every microsecond counts: it takes an exponential",
        reference="SPEC C; D.-A. Clevert, T. Unterthiner, S. Hochreiter, ICLR (2016)",
        example=elementwise_example,
    )

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = _checked_alpha(alpha)

    def value(self, x: Tensor) -> Tensor:
        return elu(x, self.alpha)

    def _derivative(self, x: Tensor) -> Tensor:
        # The exponential of the positive side would overflow, and its derivative with it.
        return torch.where(x > 0, torch.ones_like(x), self.alpha * torch.exp(x.clamp(max=0.0)))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
