"""The sigmoid: a score to a probability."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import ActivationFacts, Interval


def sigmoid(x: Tensor) -> Tensor:
    """The logistic sigmoid.

    Formula: ``σ(x) = 1 / (1 + exp(−x))``.

    Gradient: ``σ(x) σ(−x)``, at most 1/4, at x = 0.

    Shapes: any, kept.

    Numerics: the module's ``derivative`` keeps its digits on both sides; ``σ (1 − σ)`` would lose them for large x.

    Example:
        >>> sigmoid(torch.tensor([3.2, -5.7, 0.6]))
        tensor([0.9608, 0.0033, 0.6457])

    Reference: SPEC C, G3.
    """
    check_floating(x, what="x")
    return torch.sigmoid(x)


class Sigmoid(Activation):
    """Module form of :func:`sigmoid`."""

    facts = ActivationFacts(
        name="sigmoid",
        title="logistic sigmoid",
        formula="σ(x) = 1 / (1 + exp(−x))",
        derivative="σ(x) σ(−x)",
        range=Interval(0.0, 1.0),
        monotonic=True,
        derivative_monotonic=False,
        saturates_below=-9.22,
        saturates_above=9.22,
        zero_centered=False,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="the last layer predicts a probability: one of two classes, or each of many labels",
        avoid_when="the layer is hidden: it saturates on both sides, and its outputs are all positive",
        reference="SPEC C; D. E. Rumelhart, G. E. Hinton, R. J. Williams, Nature 323 (1986)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return sigmoid(x)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * torch.sigmoid(-x)
