"""The binary step: a unit that fires or does not."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_floating
from lastlayer.facts import UNIT, ActivationFacts


def binary_step(x: Tensor) -> Tensor:
    """The binary step: 1 from 0 on, 0 below.

    Formula: ``0`` for x < 0, ``1`` for x ≥ 0.

    Gradient: ``0``; the jump at 0 has none, and backward takes 0 there, too.

    Shapes: any, kept.

    Example:
        >>> binary_step(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([0., 1., 1.])

    Reference: SPEC C.
    """
    check_floating(x, what="x")
    # Not heaviside, which autograd refuses: the sign has a derivative, and it is 0.
    return torch.sign(x).add(1.0).clamp(max=1.0)


class BinaryStep(Activation):
    """Module form of :func:`binary_step`."""

    facts = ActivationFacts(
        name="binary_step",
        title="binary step (Heaviside, threshold unit)",
        formula="0 for x < 0, 1 for x ≥ 0",
        derivative="0; none at the jump, taken as 0",
        range=UNIT,
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=0.0,
        saturates_above=0.0,
        zero_centered=False,
        smooth=False,
        elementwise=True,
        parameters=None,
        use_when="a trained score is to become a decision",
        avoid_when="anything below it is to learn: no gradient passes",
        reference="SPEC C; W. McCulloch, W. Pitts, Bulletin of Mathematical Biophysics 5 (1943)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return binary_step(x)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
