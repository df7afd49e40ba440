"""The parametric ReLU: its leak is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.activations.relu import check_slope
from lastlayer.checks import InputError, ShapeError, check_floating, shape_text
from lastlayer.facts import REAL, ActivationFacts


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """The parametric rectified linear unit.

    Formula: ``max(0, x) + slope · min(0, x)``.

    Gradient: with respect to x ``1`` for x > 0, else ``slope``. With respect to the slope ``Σ ∂E/∂f · min(0, x)``,
    over all elements of its channel; over all channels where it is shared.

    Shapes: x any, kept; slope ``(1,)``, shared, or one per channel, the channels on axis 1 of x.

    Raises:
        ShapeError: if there is neither one slope nor one per channel.

    Example:
        >>> prelu(torch.tensor([[-2.0, -2.0]]), torch.tensor([0.25, 0.5]))
        tensor([[-0.5000, -1.0000]])

    Reference: SPEC C2; K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015).
    """
    check_floating(x, what="x")
    if slope.dim() != 1 or (len(slope) != 1 and (x.dim() < 2 or x.shape[1] != len(slope))):
        raise ShapeError(
            f"prelu: slope has shape {shape_text(slope)}, x {shape_text(x)}; expected one slope, (1,), or one per "
            f"channel, the size of axis 1 of x."
        )
    # PyTorch's own kernel takes longer on large tensors, and a vmap over its reverse mode gives wrong numbers.
    return torch.lerp(torch.relu(x), x, _along_channels(slope.to(x.dtype), x))


def _along_channels(slope: Tensor, x: Tensor) -> Tensor:
    """The slopes, shaped to broadcast against x."""
    if len(slope) == 1:
        return slope if x.dim() else slope[0]
    return slope.reshape(-1, *[1] * (x.dim() - 2))


class PReLU(Activation):
    """Module form of :func:`prelu`: the slope is a parameter.

    Weight decay would pull it to 0 and make the unit a ReLU, so it should have none. ``training`` decays matrices only,
    and the slope is a vector; an optimizer of your own should leave parameters of fewer than two axes out as well.

    Args:
        channels: one slope for each; 1 for a single slope that all share.
        initial: what every slope starts at.
    """

    facts = ActivationFacts(
        name="prelu",
        title="parametric rectified linear unit (PReLU)",
        formula="max(0, x) + slope · min(0, x)",
        derivative="1 for x > 0, else slope; in the slope Σ ∂E/∂f · min(0, x)",
        range=REAL,
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=None,
        zero_centered=False,
        smooth=False,
        elementwise=True,
        parameters="the slope, one per channel or shared, from 0.25, without weight decay",
        use_when="there is data enough to learn the leak of every channel",
        avoid_when="the data are few: it can overfit where a fixed leak would not",
        reference="SPEC C2; K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015)",
        example=elementwise_example,
    )

    def __init__(
        self,
        channels: int = 1,
        initial: float = 0.25,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"PReLU: channels is {channels}; expected 1 (shared) or more.")
        self.initial = check_slope(initial, what="PReLU: initial")
        self.slope = nn.Parameter(torch.full((channels,), float(initial), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Every slope where it started."""
        nn.init.constant_(self.slope, self.initial)

    def value(self, x: Tensor) -> Tensor:
        return prelu(x, self.slope)

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.ones_like(x), _along_channels(self.slope.to(x.dtype), x))

    def extra_repr(self) -> str:
        return f"channels={len(self.slope)}, initial={self.initial}"
