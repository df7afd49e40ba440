"""Bodies that the blind set-ups share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks import Make


def adam(network: nn.Module, rate: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=rate)


class Forecaster(nn.Module):
    """Convolutions over time, then a linear layer on all that is left."""

    def __init__(self, outputs: int = 1, *, channels: int = 1, length: int = 16, activation: Make = nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, 16, 3, padding=1)
        self.second = nn.Conv1d(16, 16, 3, padding=1)
        self.activation = activation()
        self.last = nn.Linear(16 * length, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = self.activation(self.second(x))
        return self.last(x.flatten(1))


class Recurrent(nn.Module):
    """The last state of a recurrent layer over windows (n, channels, length)."""

    def __init__(self, outputs: int = 1, *, channels: int = 1, width: int = 24, layers: int = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, width, num_layers=layers, batch_first=True)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(x.mT)
        return self.last(states[:, -1])


class Reader(nn.Module):
    """The mean of the embedded tokens that are no padding, then two layers."""

    def __init__(self, outputs: int = 4, *, words: int = 60, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, outputs))

    def pooled(self, tokens: Tensor) -> Tensor:
        known = (tokens != 0).unsqueeze(-1).float()
        return (self.embedding(tokens) * known).sum(1) / known.sum(1).clamp(min=1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(self.pooled(tokens))


class Attentive(nn.Module):
    """Tokens weighted by a learned score; ``dim`` is the axis that the weights add up over."""

    def __init__(self, outputs: int = 4, *, words: int = 60, width: int = 24, dim: int | None = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.score = nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 1))
        self.last = nn.Linear(width, outputs)
        self.dim = dim

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        score = self.score(x).squeeze(-1).masked_fill(tokens == 0, -1e4)
        weight = F.softmax(score, dim=self.dim)
        return self.last((weight.unsqueeze(-1) * x).sum(1))


class Painter(nn.Module):
    """A small U: down once, up once, with the fine features beside; one value or more for each pixel."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.coarse = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.last(torch.cat([fine, self.up(self.coarse(fine))], dim=1))


def color_conv(outputs: int = 4, activation: Make = nn.ReLU, *, norm: bool = True) -> nn.Sequential:
    """Two strided convolutions, the mean over the places, a linear layer."""
    layers: list[nn.Module] = []
    for inputs, width in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), *([nn.BatchNorm2d(width)] if norm else [])]
        layers.append(activation())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, outputs))


class Language(nn.Module):
    """Scores (n, length, words) of the next token at each place."""

    def __init__(self, *, words: int = 20, outputs: int = 20, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.last = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.gru(self.embedding(tokens))[0])
