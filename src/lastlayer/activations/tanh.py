"""The hyperbolic tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import ActivationFacts, Interval


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent: a sigmoid from −1 to 1, ``tanh(x) = 2 σ(2x) − 1``.

    Formula: ``tanh(x)``.

    Gradient: ``1 − tanh²(x) = 4 σ(2x) σ(−2x)``.

    Shapes: any, kept.

    Numerics: the module's ``derivative`` takes the second form, which keeps its digits where tanh rounds to ±1.

    Example:
        >>> tanh(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.7616,  0.0000,  0.7616])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    return torch.tanh(x)


class Tanh(Activation):
    """Module form of :func:`tanh`."""

    facts = ActivationFacts(
        name="tanh",
        title="hyperbolic tangent",
        formula="tanh(x)",
        derivative="1 − tanh²(x)",
        range=Interval(-1.0, 1.0),
        monotonic=True,
        derivative_monotonic=False,
        saturates_below=-5.3,
        saturates_above=5.3,
        zero_centered=True,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="hidden units or outputs should be bounded and centered at 0",
        avoid_when="the network is deep or its inputs unscaled: it saturates on both sides",
        reference="SPEC C; Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, Efficient BackProp (1998)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _pull_back(self, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.tanh_backward(gradient, value)
        return result

    def _derivative(self, x: Tensor) -> Tensor:
        return 4.0 * torch.sigmoid(2.0 * x) * torch.sigmoid(-2.0 * x)
