"""The randomized leaky ReLU: a leak of its own for every unit and every pass while training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.activations.relu import check_slope
from lastlayer.checks import InputError, check_floating
from lastlayer.facts import REAL, ActivationFacts


def rrelu(
    x: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    *,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The randomized leaky rectified linear unit.

    Formula: ``x`` for x > 0, else ``a · x``: while training, a is drawn uniformly from [lower, upper] for every
    element; otherwise it is their mean ``(lower + upper) / 2``.

    Gradient: ``1`` for x > 0, else ``a``, the slope that was drawn.

    Shapes: any, kept.

    Raises:
        InputError: for slopes that are not finite, or a lower one above the upper.

    Example:
        >>> rrelu(torch.tensor([-24.0, 3.0]))
        tensor([-5.5000,  3.0000])

    Reference: SPEC C, H; B. Xu et al., arXiv 1505.00853 (2015).
    """
    check_floating(x, what="x")
    _check_slopes(lower, upper)
    if not training:
        return F.leaky_relu(x, (lower + upper) / 2)
    slope = torch.empty_like(x, requires_grad=False).uniform_(lower, upper, generator=generator)
    return torch.lerp(torch.relu(x), x, slope)


def _check_slopes(lower: float, upper: float) -> None:
    for name, slope in (("lower", lower), ("upper", upper)):
        check_slope(slope, what=f"rrelu: {name}")
    if lower > upper:
        raise InputError(f"rrelu: lower is {lower}, upper {upper}; expected lower ≤ upper. Fix: swap them.")


class RReLU(Activation):
    """Module form of :func:`rrelu`: random slopes in training mode, their mean in evaluation mode.

    ``value`` and ``derivative`` are those of evaluation, in either mode.
    """

    facts = ActivationFacts(
        name="rrelu",
        title="randomized leaky rectified linear unit (RReLU)",
        formula="x for x > 0, else a · x; a drawn from [lower, upper] while training, their mean afterwards",
        derivative="1 for x > 0, else a",
        range=REAL,
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=None,
        zero_centered=False,
        smooth=False,
        elementwise=True,
        parameters=None,
        use_when="the data are few: the random leak regularizes",
        avoid_when="training must repeat exactly without a seed, or every step counts: it draws a number per unit",
        reference="SPEC C; B. Xu, N. Wang, T. Chen, M. Li, arXiv 1505.00853 (2015)",
        example=elementwise_example,
    )

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        _check_slopes(lower, upper)
        self.lower, self.upper = lower, upper

    def value(self, x: Tensor) -> Tensor:
        return rrelu(x, self.lower, self.upper)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x).masked_fill(~(x > 0), (self.lower + self.upper) / 2)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return rrelu(x, self.lower, self.upper, training=self.training, generator=generator)

    def extra_repr(self) -> str:
        return f"lower={self.lower:.4g}, upper={self.upper:.4g}"
