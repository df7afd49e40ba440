"""LeNet-5, the convolutional network for digits of 1998, with today's choices at its joints."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from lastlayer.checks import check_choice
from lastlayer.networks.dropout import Dropout
from lastlayer.networks.image_layers import POOLING, convolutional_layer
from lastlayer.networks.image_network import ImageNetwork
from lastlayer.networks.linear import Linear
from lastlayer.networks.tabular import hidden_layer

# The side of the images that it was made for, and of the maps that are fully connected.
_SIDE, _LAST_SIDE = 32, 5


class LeNet(ImageNetwork):
    """The layout of LeNet-5.

    ==========  =========================================  ==============================
    layer       what                                       of images of 28 × 28, 1 channel
    ==========  =========================================  ==============================
    C1          6 filters of 5 × 5                         6 × 28 × 28
    S2          a map to half the size                     6 × 14 × 14
    C3          16 filters of 5 × 5                        16 × 10 × 10
    S4          a map to half the size                     16 × 5 × 5
    C5          120 units                                  120
    F6          84 units                                   84
    last        the head's                                 outputs
    ==========  =========================================  ==============================

    61 706 weights there, with 10 outputs. Otherwise than in 1998, every map of C3 reads all of S2, pooling learns
    nothing, the activation is any of the catalog, dropout stands before F6 and the last layer if wanted, and the last
    layer is a head's, not radial basis functions.

    Images smaller than 32 × 32 are padded, by two pixels a side at most, as 28 × 28 was. Of larger ones the maps of S4
    are averaged to 5 × 5, so that there are no more weights.

    Args:
        pooling: ``"max"``, or ``"average"`` as in 1998.
        height, width, channels, outputs, activation, dropout, shifts: see :class:`ImageNetwork`.

    Example:
        >>> network = LeNet(height=28, width=28, channels=1, outputs=10)
        >>> sum(parameter.numel() for parameter in network.parameters())
        61706

    Reference: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition,
    Proceedings of the IEEE 86 (1998), II-B.
    """

    kind: ClassVar[str] = "lenet"
    least_size: ClassVar[int] = 12

    def __init__(self, *, pooling: str = "max", **options: Any) -> None:
        check_choice(pooling, tuple(POOLING), what="pooling")
        super().__init__(pooling=pooling, **options)

    def _layers(
        self, height: int, width: int, channels: int, activation: str, dropout: float, **more: Any
    ) -> tuple[list[nn.Module], int]:
        pooling = more["pooling"]
        padding = min(2, -(-max(_SIDE - min(height, width), 0) // 2))
        first = convolutional_layer(channels, 6, 5, activation, padding=padding, pooling=pooling, normalize=False)
        second = convolutional_layer(6, 16, 5, activation, padding=0, pooling=pooling, normalize=False)
        sides = [((side + 2 * padding - 4) // 2 - 4) // 2 for side in (height, width)]
        connected = [min(side, _LAST_SIDE) for side in sides]
        layers = [*first, *second]
        if connected != sides:
            layers.append(nn.AdaptiveAvgPool2d(tuple(connected)))
        layers += [nn.Flatten(), *hidden_layer(Linear, 16 * connected[0] * connected[1], 120, activation)]
        layers += [Dropout(dropout), *hidden_layer(Linear, 120, 84, activation), Dropout(dropout)]
        return layers, 84
