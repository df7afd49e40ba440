"""The arc tangent: a bounded activation with slow tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import ActivationFacts, Interval


def arctan(x: Tensor) -> Tensor:
    """The arc tangent.

    Formula: ``arctan(x)``.

    Gradient: ``1 / (1 + x²)``.

    Shapes: any, kept.

    Example:
        >>> arctan(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.7854,  0.0000,  0.7854])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    return torch.atan(x)


class Arctan(Activation):
    """Module form of :func:`arctan`."""

    facts = ActivationFacts(
        name="arctan",
        title="arc tangent",
        formula="arctan(x)",
        derivative="1 / (1 + x²)",
        range=Interval(-math.pi / 2, math.pi / 2),
        monotonic=True,
        derivative_monotonic=False,
        saturates_below=-100.0,
        saturates_above=100.0,
        zero_centered=True,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="a bounded unit centered at 0 should keep some gradient far out, where tanh has none",
        avoid_when="the range should end at round numbers, or the network is deep",
        reference="SPEC C",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return arctan(x)

    def _derivative(self, x: Tensor) -> Tensor:
        return 1.0 / (1.0 + x * x)
