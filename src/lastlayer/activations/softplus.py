"""Softplus: a smooth rectifier, and the link of scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import ActivationFacts, Interval

# Above it PyTorch's kernel returns x. At its default, 20, float64 would lose seven digits of the derivative.
_LINEAR_ABOVE = 40.0


def softplus(x: Tensor) -> Tensor:
    """Softplus, a smooth maximum of 0 and x.

    Formula: ``log(1 + exp(x))``.

    Gradient: ``σ(x)``.

    Shapes: any, kept.

    Numerics: nothing overflows; ``exp(x)`` keeps its digits for large negative x.

    Example:
        >>> softplus(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.3133, 0.6931, 1.3133])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    return F.softplus(x, threshold=_LINEAR_ABOVE)


class Softplus(Activation):
    """Module form of :func:`softplus`."""

    facts = ActivationFacts(
        name="softplus",
        title="softplus (smooth ReLU)",
        formula="log(1 + exp(x))",
        derivative="σ(x)",
        range=Interval(low=0.0),
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=-9.22,
        saturates_above=None,
        zero_centered=False,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="an output must be positive, such as a scale: it grows only linearly",
        avoid_when="the layer is hidden: relu costs less",
        reference="SPEC C, A6; C. Dugas et al., NIPS (2000)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)
