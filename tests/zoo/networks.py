"""Bodies that the set-ups share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[], nn.Module]


def mlp(
    widths: Sequence[int],
    activation: Make = nn.ReLU,
    *,
    last: Sequence[nn.Module] = (),
    normalization: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers of these widths with activations between, and what comes last."""
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(inputs, outputs))
        if place < len(widths) - 2:
            if normalization is not None:
                layers.append(normalization(outputs))
            layers.append(activation())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, *last)


def drawn(network: nn.Module, draw: Callable[[Tensor], object]) -> nn.Module:
    """The network with its weight matrices drawn anew, its biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def he(network: nn.Module) -> nn.Module:
    """He's initialization for rectifiers."""
    return drawn(network, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))


def xavier(network: nn.Module) -> nn.Module:
    """Glorot's symmetric initialization."""
    return drawn(network, nn.init.xavier_normal_)


def conv(
    outputs: int = 10, activation: Make = nn.ReLU, *, norm: bool = False, last: Sequence[nn.Module] = ()
) -> nn.Module:
    """Two convolutions and a linear layer for images of 8 x 8."""
    first = [nn.Conv2d(1, 16, 3, padding=1), *([nn.BatchNorm2d(16)] if norm else []), activation(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(16, 32, 3, padding=1), *([nn.BatchNorm2d(32)] if norm else []), activation(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(128, outputs), *last)


class LeNet(nn.Module):
    """The layout of LeNet-5 for images of 28 x 28, functional as tutorials write it."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.activation(self.conv1(x)), 2)
        x = F.max_pool2d(self.activation(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = self.activation(self.fc1(x))
        x = self.activation(self.fc2(x))
        return self.fc3(x)


class Residual(nn.Module):
    """x plus what a small block makes of it."""

    def __init__(self, width: int, activation: Make = nn.ReLU, *, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(width)] if norm else []
        self.block = nn.Sequential(*layers, nn.Linear(width, width), activation(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)
