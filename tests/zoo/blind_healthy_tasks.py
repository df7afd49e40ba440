"""Healthy set-ups on tables, with losses by hand; written without a look at how the doctor judges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from zoo import blind_data as made
from zoo.blind_healthy import pinball
from zoo.blind_networks import adam
from zoo.data import digits, tumors, with_features, with_target
from zoo.networks import mlp
from zoo.setup import Case, healthy_blind


def _table(network: nn.Module, *, rate: float = 5e-3, epochs: int = 12) -> Case:
    return Case(network, nn.MSELoss(), *made.table(), optimizer=adam(network, rate), epochs=epochs)


@healthy_blind
def three_targets_at_once() -> Case:
    network = mlp([8, 48, 48, 3], nn.SiLU)
    return Case(network, nn.MSELoss(), *made.robots(), optimizer=adam(network, 5e-3), epochs=12)


@healthy_blind
def weights_as_length_and_direction() -> Case:
    return _table(nn.Sequential(weight_norm(nn.Linear(8, 48)), nn.ReLU(), weight_norm(nn.Linear(48, 1))), rate=1e-2)


@healthy_blind
def gated_linear_units() -> Case:
    return _table(nn.Sequential(nn.Linear(8, 64), nn.GLU(), nn.Linear(32, 64), nn.GLU(), nn.Linear(32, 1)), rate=1e-2)


@healthy_blind
def highways() -> Case:
    class Highway(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
            nn.init.constant_(self.gate.bias, -1.0)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(x))
            return gate * torch.tanh(self.change(x)) + (1 - gate) * x

    return _table(nn.Sequential(nn.Linear(8, 32), *(Highway(32) for _ in range(4)), nn.Linear(32, 1)), rate=1e-2)


class Sine(nn.Module):
    """A layer of sines, with the initialization that keeps their arguments in proportion."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 6.0, first: bool = False) -> None:
        super().__init__()
        self.linear, self.rate = nn.Linear(inputs, outputs), rate
        bound = 1 / inputs if first else math.sqrt(6 / inputs) / rate
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.rate * self.linear(x))


@healthy_blind
def layers_of_sines() -> Case:
    network = nn.Sequential(Sine(2, 32, first=True), Sine(32, 32), nn.Linear(32, 1))
    return Case(network, nn.MSELoss(), *made.wave(), optimizer=adam(network), epochs=12)


@healthy_blind
def fixed_random_waves() -> Case:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rates", 3 * torch.randn(2, 24))
            self.body = mlp([48, 32, 1])

        def forward(self, x: Tensor) -> Tensor:
            angle = x @ self.rates
            return self.body(torch.cat([angle.sin(), angle.cos()], dim=1))

    network = Waves()
    return Case(network, nn.MSELoss(), *made.wave(), optimizer=adam(network), epochs=12)


@healthy_blind
def a_network_for_each_column() -> Case:
    class Additive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(mlp([1, 16, 1], nn.ELU) for _ in range(6))
            self.offset = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return sum(part(x[:, place : place + 1]) for place, part in enumerate(self.parts)) + self.offset

    parts = with_features(made.robots(), lambda x: x[:, :6])
    network = Additive()
    parts = with_target(parts, lambda y: y[:, 1:2])
    return Case(network, nn.MSELoss(), *parts, optimizer=adam(network, 5e-3), epochs=10)


@healthy_blind
def logarithms_of_prices() -> Case:
    parts = with_target(made.prices(), lambda y: (y.log() - 12.2) / 0.5)
    network = mlp([7, 48, 1], nn.GELU)
    return Case(network, nn.MSELoss(), *parts, optimizer=adam(network, 1e-2), epochs=12)


@healthy_blind
def prices_scaled_back_inside() -> Case:
    class Scaled(nn.Module):
        def __init__(self, mean: Tensor, scale: Tensor) -> None:
            super().__init__()
            self.body = mlp([7, 48, 1], nn.SiLU)
            self.register_buffer("mean", mean)
            self.register_buffer("scale", scale)

        def forward(self, x: Tensor) -> Tensor:
            return self.mean + self.scale * self.body(x)

    (x, y), (x_validation, y_validation) = with_target(made.prices(), lambda y: y / 1000)
    network = Scaled(y.mean(), y.std())
    parts = (x, y), (x_validation, y_validation)
    return Case(network, nn.SmoothL1Loss(beta=20.0), *parts, optimizer=adam(network, 1e-2), epochs=12)


@healthy_blind
def raw_units_standardized_inside() -> Case:
    class Standardized(nn.Module):
        def __init__(self, x: Tensor) -> None:
            super().__init__()
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("scale", x.std(0))
            self.body = mlp([8, 48, 1])

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x - self.mean) / self.scale)

    units = torch.tensor([1.0, 10.0, 300.0, 0.01, 5.0, 1000.0, 2.0, 40.0])
    (x, y), validation = with_features(made.table(), lambda x: (x + 20) * units)
    network = Standardized(x)
    return Case(network, nn.MSELoss(), (x, y), validation, optimizer=adam(network, 5e-3), epochs=7)


@healthy_blind
def exponential_lifetimes() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        time, seen = target.unbind(1)
        return (time * raw[:, 0].exp() - seen * raw[:, 0]).mean()

    network = mlp([6, 32, 1], nn.Tanh)
    return Case(network, loss, *made.lifetimes(), optimizer=adam(network, 1e-2), epochs=10)


@healthy_blind
def weibull_lifetimes() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        time, seen = target.unbind(1)
        log_scale, shape = raw[:, 0], F.softplus(raw[:, 1]) + 0.1
        log_ratio = time.log() - log_scale
        log_hazard = shape.log() - log_scale + (shape - 1) * log_ratio
        return ((shape * log_ratio).clamp(max=10).exp() - seen * log_hazard).mean()

    network = mlp([6, 32, 2])
    return Case(network, loss, *made.lifetimes(2400), optimizer=adam(network, 5e-3), epochs=5)


@healthy_blind
def risk_by_partial_likelihood() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        order = target[:, 0].argsort(descending=True)
        risk, seen = raw[order, 0], target[order, 1]
        return ((torch.logcumsumexp(risk, dim=0) - risk) * seen).sum() / seen.sum().clamp(min=1)

    network = mlp([6, 32, 1], nn.ELU)
    return Case(network, loss, *made.lifetimes(), optimizer=adam(network, 5e-3), batch_size=128, epochs=12)


@healthy_blind
def three_quantiles() -> Case:
    network = mlp([8, 48, 3])
    return Case(network, pinball, *made.table(), optimizer=adam(network, 5e-3), epochs=12)


@healthy_blind
def mixture_of_three_densities() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        share, mean, log_scale = raw.chunk(3, dim=1)
        log_scale = log_scale.clamp(-4, 4)
        log_density = -0.5 * ((target - mean) / log_scale.exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(F.log_softmax(share, dim=1) + log_density, dim=1).mean()

    network = mlp([8, 48, 9], nn.Tanh)
    return Case(network, loss, *made.table(2400), optimizer=adam(network, 5e-3), epochs=8)


@healthy_blind
def grades_by_cumulative_logits() -> Case:
    class Cumulative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([8, 48, 1])
            self.first, self.gaps = nn.Parameter(torch.tensor([-1.5])), nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            cuts = torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])
            return self.body(x) - cuts

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        above = (target[:, None] > torch.arange(4)).float()
        return F.binary_cross_entropy_with_logits(raw, above)

    network = Cumulative()
    return Case(network, loss, *made.grades(), optimizer=adam(network, 1e-2), epochs=10)


@healthy_blind
def mean_and_its_uncertainty() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.spread = mlp([8, 32, 32]), nn.Linear(32, 1), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = F.relu(self.body(x))
            return self.mean(x), F.softplus(self.spread(x)) + 1e-3

    def loss(raw: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return F.gaussian_nll_loss(raw[0], target, raw[1])

    network = Net()
    return Case(network, loss, *made.table(2400), optimizer=adam(network), epochs=7)


@healthy_blind
def a_fifth_of_the_labels_wrong() -> Case:
    (x, y), (x_validation, y_validation) = digits()
    wrong = torch.rand(len(y)) < 0.2
    y = torch.where(wrong, torch.randint(10, (len(y),)), y)
    network = mlp([64, 32, 10], dropout=0.2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Case(network, loss, (x, y), (x_validation, y_validation), optimizer=optimizer, epochs=8)


@healthy_blind
def sixty_rows_and_a_small_network() -> Case:
    (x, y), validation = with_target(tumors(), lambda y: y[:, None])
    network = mlp([30, 16, 1], nn.Tanh)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    loss = nn.BCEWithLogitsLoss()
    return Case(network, loss, (x[:60], y[:60]), validation, optimizer=optimizer, batch_size=15, epochs=9)


@healthy_blind
def many_columns_and_few_rows() -> Case:
    network = nn.Sequential(nn.Dropout(0.3), *mlp([240, 8, 1], nn.Tanh, last=[nn.Flatten(0)]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.5)
    return Case(network, nn.BCEWithLogitsLoss(), *made.genes(120), optimizer=optimizer, batch_size=16, epochs=20)


@healthy_blind
def forty_columns_of_zero_and_one() -> Case:
    network = mlp([40, 48, 1])
    return Case(network, nn.MSELoss(), *made.shops(), optimizer=adam(network, 5e-3), epochs=10)


@healthy_blind
def factors_of_sparse_columns() -> Case:
    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.factors = nn.Linear(40, 1), nn.Parameter(0.1 * torch.randn(40, 8))

        def forward(self, x: Tensor) -> Tensor:
            both = (x @ self.factors) ** 2 - (x**2) @ self.factors**2
            return self.linear(x) + 0.5 * both.sum(1, keepdim=True)

    network = Factors()
    return Case(network, nn.MSELoss(), *made.shops(), optimizer=adam(network, 1e-2), epochs=15)


@healthy_blind
def counts_of_words() -> Case:
    network = mlp([100, 24, 3])
    optimizer = torch.optim.Adagrad(network.parameters(), lr=2e-2)
    return Case(network, nn.CrossEntropyLoss(), *made.bags(), optimizer=optimizer, epochs=6)


@healthy_blind
def logarithms_of_counts() -> Case:
    network = mlp([100, 24, 3], nn.Softplus)
    parts = with_features(made.bags(), torch.log1p)
    return Case(network, nn.CrossEntropyLoss(), *parts, optimizer=adam(network), epochs=15)


@healthy_blind
def bounded_controls() -> Case:
    parts = with_target(made.robots(), lambda y: torch.tanh(0.8 * y))
    network = mlp([8, 64, 3], nn.SiLU, last=[nn.Tanh()])
    return Case(network, nn.MSELoss(), *parts, optimizer=adam(network, 5e-3), epochs=12)


@healthy_blind
def counts_with_many_zeros() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        none, rate, y = raw[:, 0], raw[:, 1].clamp(-6, 6), target[:, 0]
        of_counts = y * rate - rate.exp() - torch.lgamma(y + 1)
        of_zero = torch.logaddexp(F.logsigmoid(none), F.logsigmoid(-none) - rate.exp())
        return -torch.where(y == 0, of_zero, F.logsigmoid(-none) + of_counts).mean()

    network = mlp([5, 48, 2], nn.Tanh)
    return Case(network, loss, *made.events(), optimizer=adam(network, 1e-2), epochs=12)


@healthy_blind
def deviance_of_positive_quantities() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        mean = torch.exp(raw)
        return 2 * (target / mean - 1 - torch.log(target / mean)).mean()

    network = mlp([7, 48, 1], nn.SiLU)
    parts = with_target(made.prices(), lambda y: y / 2e5)
    return Case(network, loss, *parts, optimizer=adam(network, 5e-3), epochs=12)


@healthy_blind
def soft_targets_for_ordered_grades() -> Case:
    def soft(y: Tensor) -> Tensor:
        return F.softmax(-1.5 * (y[:, None] - torch.arange(5)).abs().float(), dim=1)

    network = mlp([8, 48, 5])
    parts = with_target(made.grades(), soft)
    return Case(network, nn.CrossEntropyLoss(), *parts, optimizer=adam(network, 5e-3), epochs=10)
