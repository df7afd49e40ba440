"""Broken set-ups, the loop; written without a look at how the doctor judges."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_networks import Forecaster, Reader, Recurrent, adam, color_conv
from zoo.networks import mlp
from zoo.setup import Case, broken_blind, validation_loss


def _loop(
    *,
    clear: Callable[[Case, int], object] = lambda case, step: case.optimizer.zero_grad(),
    after: Callable[[Case, int], object] = lambda case, step: None,
    evaluating: bool = True,
) -> Callable[[Case, Any], None]:
    """A loop with what its owner does before ``backward`` and after ``step``; steps are counted within the epoch."""

    def run(case: Case, recorder: Any) -> None:
        assert case.optimizer is not None
        case.network.train()
        for _ in range(case.epochs):
            if evaluating:
                case.network.train()
            for step, (features, target) in enumerate(case.batches()):
                clear(case, step)
                value = case.compute(case.network(features), target)
                value.backward()
                case.optimizer.step()
                after(case, step)
                recorder.log(value)
            recorder.end_epoch(validation_loss=validation_loss(case, evaluating=evaluating))

    return run


@broken_blind("learning_rate_too_high")
def colored_stripes_at_a_rate_of_five() -> Case:
    network = color_conv(norm=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=5.0, momentum=0.9)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=optimizer)


@broken_blind("learning_rate_too_high")
def recurrent_with_adam_at_one_half() -> Case:
    network = Recurrent(layers=2)
    return Case(network, nn.MSELoss(), *made.windows(900), optimizer=adam(network, 0.5), epochs=4)


@broken_blind("learning_rate_too_high")
def rate_times_the_rows_of_a_batch() -> Case:
    network = mlp([8, 48, 3])
    # Scaled with the batch for a loss that is a mean already.
    optimizer = torch.optim.RMSprop(network.parameters(), lr=5e-3 * 64)
    return Case(network, nn.MSELoss(), *made.robots(), optimizer=optimizer)


@broken_blind("learning_rate_too_low")
def recurrent_that_creeps() -> Case:
    network = Recurrent()
    return Case(network, nn.MSELoss(), *made.windows(900), optimizer=adam(network, 1e-6))


@broken_blind("learning_rate_too_low")
def a_step_of_the_schedule_for_every_batch() -> Case:
    network = Reader()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    loop = _loop(after=lambda case, step: schedule.step())
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=optimizer, epochs=10, loop=loop)


@broken_blind("learning_rate_too_low")
def a_rate_meant_for_fine_tuning() -> Case:
    network = color_conv()
    optimizer = torch.optim.SGD(network.parameters(), lr=2e-6, momentum=0.9)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=optimizer)


@broken_blind("overfitting")
def sixty_documents_by_heart() -> Case:
    (x, y), validation = made.documents()
    network = Reader(width=128)
    training = (x[:60], y[:60])
    return Case(
        network, nn.CrossEntropyLoss(), training, validation, optimizer=adam(network, 1e-2), batch_size=16, epochs=60
    )


@broken_blind("overfitting")
def more_columns_than_rows() -> Case:
    (x, y), validation = made.genes()
    x = x[:40]
    y = torch.where(torch.rand(40) < 0.3, 1 - y[:40], y[:40])
    network = mlp([240, 256, 256, 1], last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), (x, y), validation, batch_size=8, epochs=60)


@broken_blind("worse_than_constant")
def validation_differences_taken_the_other_way_round() -> Case:
    training, (x_validation, y_validation) = made.robots()
    # Expected less measured in one file, measured less expected in the other.
    network = mlp([8, 48, 3], nn.SiLU)
    return Case(
        network, nn.MSELoss(), training, (x_validation, -y_validation), optimizer=adam(network, 5e-3), epochs=10
    )


@broken_blind("worse_than_constant")
def validation_pictures_as_bytes() -> Case:
    training, (x_validation, y_validation) = made.pictures()
    validation = ((x_validation + 3) / 6).clamp(0, 1) * 255, y_validation
    network = color_conv(norm=False)
    return Case(network, nn.CrossEntropyLoss(), training, validation, optimizer=adam(network))


@broken_blind("worse_than_constant")
def validation_windows_reversed() -> Case:
    training, (x_validation, y_validation) = made.windows()
    network = Recurrent()
    validation = (x_validation.flip(2), y_validation)
    return Case(network, nn.MSELoss(), training, validation, optimizer=adam(network, 1e-2), epochs=10)


def _straight() -> made.Split:
    x = torch.randn(1200, 12)
    y = x @ torch.randn(12, 4) / 3.5 + 0.1 * torch.randn(1200, 4)
    return made.parted(x, y)


@broken_blind("worse_than_linear")
def two_units_for_four_straight_targets() -> Case:
    network = mlp([12, 2, 4], nn.Sigmoid)
    return Case(network, nn.MSELoss(), *_straight(), optimizer=adam(network, 1e-2), epochs=12)


@broken_blind("worse_than_linear")
def decay_a_hundred_times_too_strong() -> Case:
    network = mlp([12, 32, 4])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=30.0)
    return Case(network, nn.MSELoss(), *_straight(), optimizer=optimizer, epochs=12)


@broken_blind("dropout_in_evaluation")
def functional_dropout_that_is_always_on() -> Case:
    class Net(Reader):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.body(F.dropout(self.pooled(tokens), 0.5))

    network = Net()
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network))


@broken_blind("dropout_in_evaluation")
def channels_dropped_from_validation_pictures() -> Case:
    layers = list(color_conv())
    network = nn.Sequential(*layers[:3], nn.Dropout2d(0.3), *layers[3:])
    loop = _loop(evaluating=False)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=adam(network), loop=loop)


@broken_blind("dropout_in_evaluation")
def recurrent_dropout_left_on() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(1, 20, num_layers=2, batch_first=True, dropout=0.4)
            self.last = nn.Linear(20, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(x.mT)[0][:, -1])

    network = Net()
    loop = _loop(evaluating=False)
    return Case(network, nn.MSELoss(), *made.windows(800), optimizer=adam(network, 1e-2), loop=loop)


@broken_blind("gradients_not_cleared")
def cleared_once_an_epoch() -> Case:
    def first_only(case: Case, step: int) -> None:
        if step == 0:
            case.optimizer.zero_grad()

    network = mlp([8, 48, 3], nn.SiLU)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    return Case(network, nn.MSELoss(), *made.robots(), optimizer=optimizer, loop=_loop(clear=first_only))


@broken_blind("gradients_not_cleared")
def the_gradients_of_another_copy_cleared() -> Case:
    network = Recurrent()
    slow = copy.deepcopy(network)
    loop = _loop(clear=lambda case, step: slow.zero_grad())
    return Case(network, nn.MSELoss(), *made.windows(800), optimizer=adam(network), epochs=4, loop=loop)


@broken_blind("not_a_number")
def an_exponential_rate_that_runs_away() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return (raw.exp() - target * raw).mean()

    network = mlp([5, 48, 1])
    optimizer = torch.optim.SGD(network.parameters(), lr=3.0)
    return Case(network, loss, *made.events(), optimizer=optimizer, epochs=3)


@broken_blind("not_a_number")
def one_gap_late_in_the_series() -> Case:
    (x, y), validation = made.windows()
    x = x.clone()
    # Only a few of the later windows see it.
    for back in range(16):
        x[700 + back, 0, 15 - back] = torch.nan
    return Case(Forecaster(), nn.MSELoss(), (x, y), validation, epochs=2)


@broken_blind("frozen_parameter")
def a_group_left_at_a_rate_of_zero() -> Case:
    network = Reader()
    groups = [{"params": network.embedding.parameters(), "lr": 0.0}, {"params": network.body.parameters()}]
    # Meant to be raised after a first phase; nobody does.
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=optimizer)


@broken_blind("dead_units")
def units_killed_by_adam_at_the_rate_of_plain_descent() -> Case:
    network = mlp([8, 48, 48, 48, 3])
    return Case(network, nn.MSELoss(), *made.robots(), optimizer=adam(network, 0.1), epochs=4)
