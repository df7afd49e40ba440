"""Other ways to train that are right: schedules, accumulation, clipping, transfer, members, our own network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, networks
from zoo import data
from zoo.networks import conv, he, mlp
from zoo.setup import Case, healthy, validation_loss


@healthy
def plain_descent() -> Case:
    network = mlp([64, 32, 10])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer, epochs=10)


@healthy
def momentum_with_decay() -> Case:
    network = conv(norm=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), optimizer=optimizer)


@healthy
def adamw_with_decay() -> Case:
    network = mlp([10, 64, 64, 1], nn.SiLU)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), optimizer=optimizer, epochs=15)


@healthy
def root_mean_square_propagation() -> Case:
    network = mlp([64, 32, 10], nn.Tanh)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer)


def _cosine(case: Case, recorder: Any) -> None:
    """Warm-up and a cosine, step by step."""
    assert case.optimizer is not None
    steps = case.epochs * -(-len(case.training[1]) // case.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(case.optimizer, max_lr=1e-2, total_steps=steps + 1)
    for _ in range(case.epochs):
        case.network.train()
        for features, target in case.batches():
            case.optimizer.zero_grad()
            value = case.compute(case.network(features), target)
            value.backward()
            case.optimizer.step()
            schedule.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@healthy
def one_cycle() -> Case:
    return Case(mlp([64, 64, 10]), nn.CrossEntropyLoss(), *data.digits(), epochs=10, loop=_cosine)


def _accumulates(case: Case, recorder: Any) -> None:
    """Four small batches to a step, their gradients added on purpose."""
    assert case.optimizer is not None
    for _ in range(case.epochs):
        case.network.train()
        for number, (features, target) in enumerate(case.batches()):
            value = case.compute(case.network(features), target) / 4
            value.backward()
            if number % 4 == 3:
                case.optimizer.step()
                case.optimizer.zero_grad()
            recorder.log(4 * value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@healthy
def accumulated_gradients() -> Case:
    network = mlp([64, 32, 10])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    loss = nn.CrossEntropyLoss()
    return Case(network, loss, *data.digits(), optimizer=optimizer, batch_size=16, epochs=8, loop=_accumulates)


def _clips(case: Case, recorder: Any) -> None:
    """Clears between forward and backward, and clips."""
    assert case.optimizer is not None
    for _ in range(case.epochs):
        case.network.train()
        for features, target in case.batches():
            value = case.compute(case.network(features), target)
            case.optimizer.zero_grad(set_to_none=False)
            value.backward()
            nn.utils.clip_grad_norm_(case.network.parameters(), 1.0)
            case.optimizer.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@healthy
def clipped_gradients() -> Case:
    network = mlp([10, 64, 64, 1], nn.Tanh)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    parts = data.as_column(data.friedman())
    return Case(network, nn.MSELoss(), *parts, optimizer=optimizer, epochs=15, loop=_clips)


@healthy
def transfer_with_a_frozen_body() -> Case:
    network = he(mlp([64, 128, 64, 10]))
    for place in (0, 2):
        network[place].requires_grad_(False)
    optimizer = torch.optim.Adam(network[4].parameters(), lr=1e-2)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer, epochs=10)


@healthy
def decay_spared_on_slopes_and_biases() -> Case:
    network = mlp([64, 32, 10], nn.PReLU)
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer)


@healthy
def network_of_our_tables() -> Case:
    training, validation = data.digits()
    codes = networks.PiecewiseLinear.learn(training[0].numpy(), 8)
    network = networks.TabularNetwork(
        inputs=64, numeric=64, outputs=10, hidden=(64, 64), activation="relu", dropout=0.1, codes=codes
    )
    return Case(network, heads.Categorical(10), training, validation)


@healthy
def members_side_by_side() -> Case:
    training, validation = data.friedman()
    codes = networks.PiecewiseLinear.learn(training[0].numpy(), 8)
    network = networks.TabularNetwork(
        inputs=10, numeric=10, outputs=2, hidden=(32,), activation="silu", dropout=0.0, codes=codes, members=4
    )
    head = heads.Gaussian(scale="predicted")

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return head.loss(raw, target.expand(len(raw), *target.shape))

    return Case(network, loss, training, validation, epochs=12)


@healthy
def small_steps_on_few_rows() -> Case:
    (x, y), validation = data.irises()
    network = mlp([4, 8, 3], nn.Tanh)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loss = nn.CrossEntropyLoss()
    return Case(network, loss, (x[:60], y[:60]), validation, optimizer=optimizer, batch_size=10, epochs=20)


@healthy
def unit_pixels_as_most_people_have_them() -> Case:
    def to_unit(x: Tensor) -> Tensor:
        return ((x + 0.812) / 3.47).clamp(0, 1)

    return Case(conv(norm=True), nn.CrossEntropyLoss(), *data.with_features(data.digit_images(), to_unit))


@healthy
def raw_columns_behind_batch_norm() -> Case:
    features, target = data._loaded("wine")
    parts = data.split(features, target)
    network = nn.Sequential(nn.BatchNorm1d(13), *mlp([13, 32, 3]))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    return Case(network, nn.CrossEntropyLoss(), *parts, optimizer=optimizer, batch_size=32, epochs=20)


@healthy
def one_hot_columns_beside_standardized_ones() -> Case:
    (x, y), (x_validation, y_validation) = data.friedman()

    def with_categories(x: Tensor) -> Tensor:
        kind = torch.bucketize(x[:, 5].contiguous(), torch.tensor([-0.8, 0.0, 0.8]))
        return torch.cat([x, F.one_hot(kind, 4).float(), (x[:, 6:7] > 1.5).float()], dim=1)

    network = mlp([15, 64, 1])
    training, validation = (with_categories(x), y), (with_categories(x_validation), y_validation)
    return Case(network, nn.MSELoss(), *data.as_column((training, validation)), epochs=15)


@healthy
def mild_imbalance() -> Case:
    torch.manual_seed(0)
    x = torch.randn(2000, 6)
    y = (x[:, 0] + 0.5 * torch.randn(2000) > 1.0).float()
    network = mlp([6, 32, 1], last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), (x[:1500], y[:1500]), (x[1500:], y[1500:]), epochs=12)


@healthy
def whole_table_in_one_batch() -> Case:
    network = mlp([30, 16, 1], nn.Tanh, last=[nn.Flatten(0)])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    return Case(network, nn.BCEWithLogitsLoss(), *data.tumors(), optimizer=optimizer, batch_size=10_000, epochs=60)


@healthy
def double_precision_throughout() -> Case:
    parts = data.with_target(data.with_features(data.friedman(), lambda x: x.double()), lambda y: y.double())
    network = mlp([10, 32, 1], nn.ELU, last=[nn.Flatten(0)]).double()
    return Case(network, nn.MSELoss(), *parts, epochs=15)


@healthy
def two_looks_at_the_same_weights() -> Case:
    class Net(nn.Module):
        """Tied: the decoder is the encoder's transpose."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.18 * torch.randn(8, 30))
            self.hidden, self.visible = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(30))

        def forward(self, x: Tensor) -> Tensor:
            code = torch.tanh(F.linear(x, self.weight, self.hidden))
            return F.linear(code, self.weight.t(), self.visible)

    (x, _), (x_validation, _) = data.tumors()
    return Case(Net(), nn.MSELoss(), (x, x), (x_validation, x_validation), epochs=20)


@healthy
def multiply_used_network() -> Case:
    class Net(nn.Module):
        """Compares two halves of the row by one shared encoder."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.last = mlp([5, 32, 16], nn.GELU), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.encoder(x[:, :5]) - self.encoder(x[:, 5:])).squeeze(-1)

    def difference(parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, _ = parts
        return x, x[:, 0] * x[:, 1] - x[:, 5] * x[:, 6] + x[:, 2] - x[:, 7]

    training, validation = map(difference, data.friedman())
    network = Net()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    return Case(network, nn.SmoothL1Loss(), training, validation, optimizer=optimizer, epochs=15)
