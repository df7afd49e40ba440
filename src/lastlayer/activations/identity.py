"""The identity: no activation, the last layer of a regression."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import REAL, ActivationFacts


def identity(x: Tensor) -> Tensor:
    """The identity: x itself.

    Formula: ``x``.

    Gradient: ``1``.

    Shapes: any, kept.

    Example:
        >>> identity(torch.tensor([-2.0, 3.0]))
        tensor([-2.,  3.])

    Reference: SPEC C, A4.
    """
    check_floating(x, what="x")
    return x


class Identity(Activation):
    """Module form of :func:`identity`."""

    facts = ActivationFacts(
        name="identity",
        title="identity (linear)",
        formula="x",
        derivative="1",
        range=REAL,
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=None,
        zero_centered=True,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="the last layer predicts a real-valued quantity",
        avoid_when="the layer is hidden: two linear layers in a row are one",
        reference="SPEC C, A4",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return identity(x)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)
