"""The network for images that measured best at the size of LeNet-5."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from lastlayer.networks.dropout import Dropout
from lastlayer.networks.image_layers import convolutional_layer
from lastlayer.networks.image_network import ImageNetwork
from lastlayer.networks.linear import Linear
from lastlayer.networks.tabular import hidden_layer

# Filters of each layer; of deeper ones as many as of the last.
_FILTERS = (12, 32, 48, 64)
_HIDDEN = 64
# Maps at least so large are filtered by 5 × 5 and halved once more.
_WORTH_HALVING = 10
_LAST_SIDE = 3


class ConvolutionalNetwork(ImageNetwork):
    """Filters and max pooling until the maps are small, each normalized over its batch, then one hidden layer.

    ==============================  ======================================  ==============================
    layer                           what                                    of images of 28 × 28, 1 channel
    ==============================  ======================================  ==============================
    first                           12 filters of 5 × 5, halved             12 × 14 × 14
    while maps have 10 × 10         more filters of 5 × 5, halved           32 × 5 × 5
    then                            more filters of 3 × 3                   48 × 3 × 3
    mean over blocks                to 3 × 3, where maps are larger         48 × 3 × 3
    hidden                          64 units, dropout on both sides         64
    last                            the head's                              outputs
    ==============================  ======================================  ==============================

    52 270 weights there, with 10 outputs: fewer than LeNet-5 (:class:`lastlayer.networks.LeNet`), with more of them in
    the filters. A layer of filters is a convolution, max pooling, batch normalization and the activation, in that
    order; the numbers of filters are 12, 32, 48 and 64, and 64 beyond.

    Args:
        height, width, channels, outputs, activation, dropout, shifts: see :class:`ImageNetwork`.

    Example:
        >>> network = ConvolutionalNetwork(height=28, width=28, channels=1, outputs=10)
        >>> sum(parameter.numel() for parameter in network.parameters())
        52270

    Reference: S. Ioffe, C. Szegedy, Batch normalization (ICML 2015); N. Srivastava et al., Dropout (JMLR 2014).
    """

    kind: ClassVar[str] = "convolutional"
    least_size: ClassVar[int] = 8

    def _layers(
        self, height: int, width: int, channels: int, activation: str, dropout: float, **more: Any
    ) -> tuple[list[nn.Module], int]:
        def filters(inputs: int, kernel: int, padding: int, pooling: str | None) -> int:
            """Adds one layer of filters, and gives their number."""
            units = _FILTERS[min(depth, len(_FILTERS) - 1)]
            layers.extend(
                convolutional_layer(inputs, units, kernel, activation, padding=padding, pooling=pooling, normalize=True)
            )
            return units

        layers: list[nn.Module] = []
        depth = 0
        units = filters(channels, 5, 2, "max")
        sides = [height // 2, width // 2]
        while min(sides) >= _WORTH_HALVING:
            depth += 1
            units = filters(units, 5, 0, "max")
            sides = [(side - 4) // 2 for side in sides]
        depth += 1
        padding = 0 if min(sides) >= _LAST_SIDE + 2 else 1
        units = filters(units, 3, padding, None)
        sides = [side - 2 + 2 * padding for side in sides]
        connected = [min(side, _LAST_SIDE) for side in sides]
        if connected != sides:
            layers.append(nn.AdaptiveAvgPool2d(tuple(connected)))
        layers += [nn.Flatten(), Dropout(dropout)]
        layers += [*hidden_layer(Linear, units * connected[0] * connected[1], _HIDDEN, activation), Dropout(dropout)]
        return layers, _HIDDEN
