"""Layers of networks for images, with any activation of the catalog."""

from __future__ import annotations

from torch import Tensor, nn

from lastlayer.activations import Activation, Maxout
from lastlayer.networks.tabular import ACTIVATIONS

#: How a map is made smaller: the mean or the largest of each square of four.
POOLING: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class MaxoutConvolution(nn.Module):
    """A convolution and its activation in one: every channel is the largest of several filters.

    Formula: ``max_k (w_k * x + b_k)``, the convolution of :class:`lastlayer.activations.Maxout`'s affine pieces.

    Shapes: ``(n, inputs, height, width)`` to ``(n, units, height', width')``.

    Reference: I. J. Goodfellow et al., ICML (2013), section 5.
    """

    def __init__(self, inputs: int, units: int, kernel: int, *, padding: int = 0, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces
        self.convolution = nn.Conv2d(inputs, pieces * units, kernel, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        filtered: Tensor = self.convolution(images)
        return filtered.unflatten(1, (self.pieces, filtered.shape[1] // self.pieces)).amax(1)


class OverChannels(nn.Module):
    """An activation whose outputs depend on several inputs, such as softmax: those of one place in the image."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.activation(images.movedim(1, -1)).movedim(-1, 1)
        return result


def convolutional_layer(
    inputs: int, units: int, kernel: int, activation: str, *, padding: int, pooling: str | None, normalize: bool
) -> list[nn.Module]:
    """A convolution, a pooling to half the size if there is one, batch normalization if wanted, the activation.

    In this order the normalization and the activation have a quarter of the work; where the activation never falls and
    the pooling takes the largest, the order of those two changes nothing.

    Args:
        activation: a key of ``ACTIVATIONS``. Maxout takes the place of the convolution.
        pooling: a key of ``POOLING``.
    """
    module = ACTIVATIONS[activation]
    layers: list[nn.Module]
    if module is Maxout:
        layers = [MaxoutConvolution(inputs, units, kernel, padding=padding)]
    else:
        # The normalization has a bias of its own.
        layers = [nn.Conv2d(inputs, units, kernel, padding=padding, bias=not normalize)]
    if pooling is not None:
        layers.append(POOLING[pooling](2))
    if normalize:
        layers.append(nn.BatchNorm2d(units))
    if module is not Maxout:
        layers.append(module() if module.facts.elementwise else OverChannels(module()))
    return layers
