"""Healthy set-ups on series and tokens, written without a look at how the doctor judges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_networks import Attentive, Forecaster, Language, Reader, Recurrent, adam
from zoo.setup import Case, healthy_blind


def pinball(raw: Tensor, target: Tensor) -> Tensor:
    """The quantile loss at 0.1, 0.5, 0.9 for three columns of raw output and one of targets."""
    level = torch.tensor([0.1, 0.5, 0.9])
    error = target - raw
    return torch.maximum(level * error, (level - 1) * error).mean()


@healthy_blind
def forecast_by_convolutions() -> Case:
    network = Forecaster()
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=adam(network))


@healthy_blind
def forecast_by_dilated_causal_convolutions() -> Case:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Conv1d(1 if reach == 1 else 16, 16, 2, dilation=reach) for reach in (1, 2, 4, 8)
            )
            self.last = nn.Conv1d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = F.relu(layer(F.pad(x, (layer.dilation[0], 0))))
            return self.last(x)[:, :, -1]

    network = Causal()
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=adam(network, 5e-3), epochs=12)


@healthy_blind
def forecast_by_a_gated_recurrent_unit() -> Case:
    network = Recurrent()
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=adam(network, 1e-2), epochs=10)


@healthy_blind
def forecast_by_two_layers_of_lstm() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(1, 20, num_layers=2, batch_first=True, dropout=0.1)
            self.last = nn.Linear(20, 1)

        def forward(self, x: Tensor) -> Tensor:
            _, (state, _) = self.lstm(x.mT)
            return self.last(state[-1])

    network = Net()
    return Case(network, nn.MSELoss(), *made.windows(800), optimizer=adam(network, 1e-2), epochs=14)


@healthy_blind
def three_steps_ahead() -> Case:
    network = Forecaster(3, activation=nn.GELU)
    return Case(network, nn.HuberLoss(), *made.windows(ahead=3), optimizer=adam(network))


@healthy_blind
def quantiles_of_the_next_value() -> Case:
    network = Forecaster(3, activation=nn.ELU)
    return Case(network, pinball, *made.windows(), optimizer=adam(network), epochs=8)


@healthy_blind
def gated_convolutions_with_skips() -> Case:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(1, 16, 1)
            self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=reach) for reach in (1, 2, 4))
            self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3))
            self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            total = torch.zeros_like(x)
            for gate, skip in zip(self.gates, self.skips, strict=True):
                signal, opening = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, dim=1)
                piece = skip(torch.tanh(signal) * torch.sigmoid(opening))
                x, total = x + piece, total + piece
            return self.last(total)[:, :, -1]

    network = Wave()
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=adam(network, 5e-3), epochs=10)


@healthy_blind
def change_on_top_of_the_last_value() -> Case:
    class Change(Forecaster):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, -1] + super().forward(x)

    network = Change(activation=nn.SiLU)
    return Case(network, nn.SmoothL1Loss(), *made.windows(), optimizer=adam(network))


@healthy_blind
def codes_of_windows() -> Case:
    (x, _), (x_validation, _) = made.windows()
    network = nn.Sequential(
        *(nn.Conv1d(1, 8, 4, stride=2, padding=1), nn.ELU(), nn.Conv1d(8, 4, 4, stride=2, padding=1), nn.ELU()),
        *(nn.ConvTranspose1d(4, 8, 4, stride=2, padding=1), nn.ELU(), nn.ConvTranspose1d(8, 1, 4, stride=2, padding=1)),
    )
    return Case(network, nn.MSELoss(), (x, x), (x_validation, x_validation), optimizer=adam(network, 1e-2), epochs=12)


@healthy_blind
def the_channel_with_a_bump() -> Case:
    network = nn.Sequential(
        *(nn.Conv1d(3, 24, 5, padding=2, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(24, 3)),
    )
    return Case(network, nn.CrossEntropyLoss(), *made.sensors(), epochs=8)


@healthy_blind
def mean_of_embeddings() -> Case:
    network = Reader()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network, 5e-3), epochs=8)


@healthy_blind
def bag_of_embeddings() -> Case:
    network = nn.Sequential(nn.EmbeddingBag(60, 16, mode="mean", padding_idx=0), nn.LayerNorm(16), nn.Linear(16, 4))
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network, 1e-2), epochs=6)


@healthy_blind
def convolutions_over_tokens() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(60, 16)
            self.filters = nn.ModuleList(nn.Conv1d(16, 12, size, padding=size // 2) for size in (1, 3, 5))
            self.last = nn.Sequential(nn.Dropout(0.2), nn.Linear(36, 4))

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens).mT
            return self.last(torch.cat([F.relu(part(x)).amax(dim=2) for part in self.filters], dim=1))

    network = Net()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network), epochs=8)


@healthy_blind
def tokens_weighted_by_attention() -> Case:
    network = Attentive()
    return Case(network, F.cross_entropy, *made.documents(), optimizer=adam(network, 5e-3), epochs=10)


def waves_of_places(length: int, width: int) -> Tensor:
    """The sines and cosines of the places in a sequence."""
    rate = torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


@healthy_blind
def transformer_with_sines_for_places() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(60, 16, padding_idx=0)
            self.register_buffer("places", waves_of_places(12, 16))
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
            self.last = nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            padding = tokens == 0
            x = self.block(4 * self.embedding(tokens) + self.places, src_key_padding_mask=padding)
            return self.last(x.masked_fill(padding.unsqueeze(-1), 0).sum(1) / (~padding).sum(1, keepdim=True))

    network = Net()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(900), optimizer=adam(network), epochs=8)


@healthy_blind
def attention_with_learned_places() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.places = nn.Embedding(60, 16), nn.Parameter(0.02 * torch.randn(13, 16))
            self.start = nn.Parameter(0.02 * torch.randn(1, 1, 16))
            self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
            self.last = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4))

        def forward(self, tokens: Tensor) -> Tensor:
            x = torch.cat([self.start.expand(len(tokens), -1, -1), self.embedding(tokens)], dim=1) + self.places
            normed = self.norm(x)
            x = x + self.attention(normed, normed, normed, need_weights=False)[0]
            return self.last(x[:, 0])

    network = Net()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network, 5e-3), epochs=6)


@healthy_blind
def read_in_both_directions() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(60, 16, padding_idx=0)
            self.gru = nn.GRU(16, 16, batch_first=True, bidirectional=True)
            self.last = nn.Linear(32, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            states, _ = self.gru(self.embedding(tokens))
            return self.last(states.amax(dim=1))

    network = Net()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(900), optimizer=adam(network, 5e-3), epochs=8)


def of_each_token(raw: Tensor, target: Tensor) -> Tensor:
    """Cross entropy over all places of (n, length, words)."""
    return F.cross_entropy(raw.flatten(0, 1), target.flatten())


@healthy_blind
def the_next_token() -> Case:
    network = Language()
    return Case(network, of_each_token, *made.sentences(), optimizer=adam(network, 1e-2), epochs=8)


@healthy_blind
def the_next_token_with_tied_embeddings() -> Case:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 24)
            nn.init.normal_(self.embedding.weight, std=0.2)
            self.body = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            return F.linear(x + self.body(x), self.embedding.weight)

    network = Tied()
    return Case(network, of_each_token, *made.sentences(), optimizer=adam(network, 1e-2), epochs=8)


@healthy_blind
def the_next_token_by_causal_attention() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.places = nn.Embedding(20, 24), nn.Embedding(12, 24)
            self.mix, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
            self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(3))
            self.wide = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))
            self.last = nn.Linear(24, 20, bias=False)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens) + self.places(torch.arange(tokens.shape[1]))
            query, key, value = self.mix(self.norms[0](x)).unflatten(-1, (6, 12)).transpose(1, 2).chunk(3, dim=1)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            x = x + self.wide(self.norms[1](x))
            return self.last(self.norms[2](x))

    network = Net()
    return Case(network, of_each_token, *made.sentences(), optimizer=adam(network, 5e-3), epochs=10)


@healthy_blind
def recurrent_with_root_mean_squares() -> Case:
    network = Reader(width=16)
    network.embedding.weight.data.mul_(0.5)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=3e-3, momentum=0.5)
    return Case(network, nn.CrossEntropyLoss(label_smoothing=0.1), *made.documents(), optimizer=optimizer, epochs=8)
