"""Broken set-ups, initialization, signals and data; written without a look at how the doctor judges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_networks import Forecaster, Painter, Reader, Recurrent, adam, color_conv
from zoo.data import Split, with_features, with_target
from zoo.networks import mlp
from zoo.setup import Case, broken_blind


@broken_blind("constant_weights")
def every_parameter_filled_with_ones() -> Case:
    network = Forecaster(activation=nn.Tanh)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return Case(network, nn.MSELoss(), *made.windows(), epochs=4)


@broken_blind("constant_weights")
def own_layer_of_zeros() -> Case:
    class Dense(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.zeros(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w + self.b

    network = nn.Sequential(Dense(8, 48), nn.Sigmoid(), Dense(48, 3))
    return Case(network, nn.MSELoss(), *made.robots(), epochs=6)


@broken_blind("constant_weights")
def a_recurrent_layer_initialized_like_a_bias() -> Case:
    network = Recurrent()
    for parameter in network.gru.parameters():
        nn.init.constant_(parameter, 0.01)
    return Case(network, nn.MSELoss(), *made.windows(800), epochs=3)


@broken_blind("collapsing_activations")
def deviations_of_a_language_model_in_a_narrow_network() -> Case:
    network = mlp([8, *[32] * 8, 3], nn.GELU)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return Case(network, nn.MSELoss(), *made.robots(), epochs=3)


@broken_blind("collapsing_activations")
def sines_without_the_rate_they_were_initialized_for() -> Case:
    class Sine(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(inputs, outputs)
            bound = math.sqrt(6 / inputs) / 30
            nn.init.uniform_(self.linear.weight, -bound, bound)
            nn.init.zeros_(self.linear.bias)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.linear(x))

    network = nn.Sequential(Sine(2, 48), *(Sine(48, 48) for _ in range(4)), nn.Linear(48, 1))
    return Case(network, nn.MSELoss(), *made.wave(), epochs=3)


@broken_blind("exploding_activations")
def own_layers_straight_from_randn() -> Case:
    class Dense(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

        def forward(self, x: Tensor) -> Tensor:
            return F.leaky_relu(x @ self.w + self.b, 0.1)

    network = nn.Sequential(Dense(40, 64), Dense(64, 64), Dense(64, 64), Dense(64, 64), nn.Linear(64, 1))
    return Case(network, nn.MSELoss(), *made.shops(), epochs=2)


@broken_blind("exploding_activations")
def thirty_sums_without_normalization() -> Case:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
            for layer in (self.first, self.second):
                nn.init.kaiming_normal_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.second(F.relu(self.first(x)))

    network = nn.Sequential(nn.Linear(8, 32), *(Block() for _ in range(30)), nn.Linear(32, 1))
    return Case(network, nn.MSELoss(), *made.table(), epochs=1)


@broken_blind("vanishing_gradients")
def ten_convolutions_with_sigmoids() -> Case:
    layers: list[nn.Module] = []
    for place in range(10):
        layers += [nn.Conv1d(12 if place else 1, 12, 3, padding=1), nn.Sigmoid()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 16, 1))
    return Case(network, nn.MSELoss(), *made.windows(800), epochs=2)


@broken_blind("vanishing_gradients")
def a_deep_code_of_sigmoids() -> Case:
    (x, _), (x_validation, _) = made.bags()
    network = mlp([100, 64, 48, 32, 24, 16, 24, 32, 48, 64, 100], nn.Sigmoid)
    return Case(network, nn.MSELoss(), (x, x), (x_validation, x_validation), epochs=3)


@broken_blind("exploding_gradients")
def fast_sines_without_their_initialization() -> Case:
    class Sine(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(inputs, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(30 * self.linear(x))

    network = nn.Sequential(Sine(2, 48), *(Sine(48, 48) for _ in range(5)), nn.Linear(48, 1))
    return Case(network, nn.MSELoss(), *made.wave(), epochs=3)


@broken_blind("exploding_gradients")
def own_recurrence_with_large_weights() -> Case:
    class Recurrence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w_in, self.w = nn.Parameter(torch.randn(1, 24)), nn.Parameter(0.6 * torch.randn(24, 24))
            self.last = nn.Linear(24, 1)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(len(x), 24)
            for now in x.unbind(2):
                state = F.relu(now @ self.w_in + state @ self.w)
            return self.last(state)

    return Case(Recurrence(), nn.MSELoss(), *made.windows(600), epochs=1)


@broken_blind("saturated_units")
def watts_into_tanh_convolutions() -> Case:
    parts = with_features(made.windows(), lambda x: 300 * x)
    network = Forecaster(activation=nn.Tanh)
    return Case(network, nn.MSELoss(), *parts, epochs=3)


@broken_blind("saturated_units")
def gates_far_too_sharp() -> Case:
    class Gated(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

        def forward(self, x: Tensor) -> Tensor:
            # Multiplied where it should be divided by the temperature.
            return self.value(x) * torch.sigmoid(self.gate(x) * 100)

    network = nn.Sequential(Gated(8, 32), Gated(32, 32), nn.Linear(32, 1))
    return Case(network, nn.MSELoss(), *made.table(), epochs=4)


@broken_blind("dead_units")
def bias_of_the_detector_in_every_layer() -> Case:
    network = color_conv(norm=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.bias, -math.log(99))
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), epochs=3)


@broken_blind("dead_units")
def a_threshold_in_another_unit() -> Case:
    class Net(Reader):
        def forward(self, tokens: Tensor) -> Tensor:
            x = F.relu(self.body[0](self.pooled(tokens)) - 10.0)
            return self.body[2](x)

    return Case(Net(), nn.CrossEntropyLoss(), *made.documents(), epochs=4)


@broken_blind("unscaled_inputs")
def time_stamps_and_salaries() -> Case:
    units = torch.tensor([1.0, 30_000.0, 1.0, 1.0, 2e6, 1.0, 1.0, 1.0])
    offsets = torch.tensor([0.0, 60_000.0, 0.0, 0.0, 1.7e9, 0.0, 0.0, 0.0])
    parts = with_features(made.robots(), lambda x: x * units + offsets)
    return Case(mlp([8, 48, 3]), nn.MSELoss(), *parts, epochs=5)


@broken_blind("unscaled_inputs")
def colors_of_255() -> Case:
    parts = with_features(made.pictures(), lambda x: ((x + 3) / 6).clamp(0, 1).mul(255).round())
    return Case(color_conv(norm=False), nn.CrossEntropyLoss(), *parts, epochs=4)


@broken_blind("unscaled_inputs")
def load_in_megawatts_as_watts() -> Case:
    parts = with_features(made.windows(), lambda x: 4e7 + 1e7 * x)
    return Case(Recurrent(), nn.MSELoss(), *parts, epochs=3)


@broken_blind("unscaled_target")
def prices_as_they_are() -> Case:
    network = mlp([7, 48, 1])
    return Case(network, nn.MSELoss(), *made.prices(), optimizer=adam(network), epochs=8)


@broken_blind("unscaled_target")
def three_targets_of_which_one_in_pascals() -> Case:
    parts = with_target(made.robots(), lambda y: y * torch.tensor([1.0, 8000.0, 1.0]) + torch.tensor([0, 1e5, 0]))
    return Case(mlp([8, 48, 3], nn.SiLU), nn.MSELoss(), *parts, epochs=6)


@broken_blind("same_sign_inputs")
def pressures_around_ten() -> Case:
    parts = with_features(made.windows(), lambda x: 10.13 + 0.3 * x)
    return Case(Forecaster(activation=nn.Tanh), nn.MSELoss(), *parts, epochs=5)


@broken_blind("same_sign_inputs")
def temperatures_in_tens_of_kelvin() -> Case:
    parts = with_features(made.table(), lambda x: 29 + x)
    return Case(mlp([8, 48, 1]), nn.MSELoss(), *parts, epochs=5)


@broken_blind("unbalanced_classes")
def few_frauds_among_documents() -> Case:
    (x, y), (x_validation, y_validation) = made.documents(4000)

    def rare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        kept = (y > 0) | (torch.arange(len(y)) % 40 == 0)
        return x[kept], (y[kept] == 0).float()

    network = nn.Sequential(Reader(1), nn.Flatten(0))
    return Case(network, nn.BCEWithLogitsLoss(), rare(x, y), rare(x_validation, y_validation))


@broken_blind("unbalanced_classes")
def tiny_discs() -> Case:
    parts = made.discs(radius=(0.8, 1.3))
    return Case(Painter(), nn.BCEWithLogitsLoss(), *parts, batch_size=32, epochs=4)


@broken_blind("constant_column")
def ones_for_the_intercept() -> Case:
    parts = with_features(made.robots(), lambda x: torch.cat([torch.ones(len(x), 1), x], dim=1))
    return Case(mlp([9, 48, 3]), nn.MSELoss(), *parts)


@broken_blind("constant_column")
def a_sensor_that_is_stuck() -> Case:
    parts = with_features(made.table(), lambda x: torch.cat([x[:, :6], torch.full_like(x[:, :1], 4.2), x[:, 7:]], 1))
    return Case(mlp([8, 48, 1], nn.GELU), nn.MSELoss(), *parts)


def _beside(parts: Split, column: Tensor, column_validation: Tensor) -> Split:
    (x, y), (x_validation, y_validation) = parts
    return (torch.cat([x, column], 1), y), (torch.cat([x_validation, column_validation], 1), y_validation)


@broken_blind("leaking_column")
def the_price_with_tax() -> Case:
    parts = with_target(made.prices(), lambda y: (y.log() - 12.2) / 0.5)
    taxed = [(1.19 * y.exp()).log() for _, y in parts]
    return Case(mlp([8, 48, 1]), nn.MSELoss(), *_beside(parts, *taxed), epochs=8)


@broken_blind("leaking_column")
def a_code_given_after_the_diagnosis() -> Case:
    parts = made.bags()
    given = [F.one_hot(y, 3).float()[:, 1:2] for _, y in parts]
    parts = with_target(parts, lambda y: (y == 1).float())
    network = mlp([101, 24, 1], last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), *_beside(parts, *given))


@broken_blind("duplicated_rows")
def rare_class_copied_before_the_split() -> Case:
    (x, y), (x_validation, y_validation) = made.documents()
    x, y = torch.cat([x, x_validation]), torch.cat([y, y_validation])
    rare = y == 0
    x, y = torch.cat([x, *[x[rare]] * 4]), torch.cat([y, *[y[rare]] * 4])
    order = torch.randperm(len(y))
    return Case(Reader(), nn.CrossEntropyLoss(), *made.parted(x[order], y[order]))


@broken_blind("duplicated_rows")
def two_exports_of_the_same_pictures() -> Case:
    (x, y), _ = made.pictures()
    order = torch.randperm(2 * len(y))
    x, y = torch.cat([x, x])[order], torch.cat([y, y])[order]
    return Case(color_conv(), nn.CrossEntropyLoss(), *made.parted(x, y), epochs=4)
