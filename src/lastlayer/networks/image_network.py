"""What the networks for images share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, ShapeError, check_choice, shape_text
from lastlayer.networks.linear import Linear
from lastlayer.networks.network import Network
from lastlayer.networks.shift import RandomShift
from lastlayer.networks.tabular import ACTIVATIONS


class ImageNetwork(Network):
    """A network over images of one size: it may shift them while training, and says so where they do not fit.

    Shapes: ``(n, channels, height, width)`` to raw output ``(n, outputs)``.

    Args:
        height, width, channels: of the images.
        outputs: the head's ``raw_size``.
        activation: a key of ``ACTIVATIONS``.
        dropout: share of units dropped before the last layers while training.
        shifts: by how many pixels at most a training batch moves them; see :class:`RandomShift`.

    Raises:
        InputError: for an activation that is not known, or images smaller than ``least_size``.
        ShapeError: for a batch of other images.
    """

    over_images: ClassVar[bool] = True
    #: Height and width that images have at least.
    least_size: ClassVar[int]

    def __init__(
        self,
        *,
        height: int,
        width: int,
        channels: int,
        outputs: int,
        activation: str = "relu",
        dropout: float = 0.0,
        shifts: int = 0,
        **more: Any,
    ) -> None:
        super().__init__()
        check_choice(activation, tuple(ACTIVATIONS), what="activation")
        if min(height, width) < self.least_size:
            raise InputError(
                f"the images have {height} × {width} pixels; the network {self.kind!r} needs {self.least_size} × "
                f"{self.least_size} at least."
            )
        self.spec = {
            "height": height,
            "width": width,
            "channels": channels,
            "outputs": outputs,
            "activation": activation,
            "dropout": dropout,
            "shifts": shifts,
            **more,
        }
        self._image = (channels, height, width)
        layers, units = self._layers(height, width, channels, activation, dropout, **more)
        self.body = nn.Sequential(RandomShift(shifts), *layers)
        self.last = Linear(units, outputs)
        # Convolutions follow the layout of their weights, and pooling on a CPU is several times as fast in this one.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _layers(
        self, height: int, width: int, channels: int, activation: str, dropout: float, **more: Any
    ) -> tuple[list[nn.Module], int]:
        """The layers of the body, and how many units the last of them has."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[1:] != self._image:
            raise ShapeError(
                f"{type(self).__name__}: the images have shape {shape_text(features)}; expected (n, "
                f"{', '.join(map(str, self._image))}), that is (n, channels, height, width)."
            )
        return super().forward(features)
