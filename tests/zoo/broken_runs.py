"""What goes wrong in the loop."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lastlayer import heads
from zoo import data
from zoo.networks import LeNet, conv, mlp
from zoo.setup import Case, broken, validation_loss


def _sgd(network: nn.Module, rate: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)


@broken("learning_rate_too_high")
def adam_with_a_rate_of_one() -> Case:
    network = mlp([64, 64, 10])
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer)


@broken("learning_rate_too_high")
def descent_that_diverges() -> Case:
    network = mlp([10, 32, 1], nn.ELU)
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), optimizer=_sgd(network, 2.0))


@broken("learning_rate_too_high")
def momentum_that_overshoots() -> Case:
    network = conv(activation=nn.Tanh)
    optimizer = _sgd(network, 1.5, momentum=0.9)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), optimizer=optimizer)


@broken("learning_rate_too_high")
def a_head_with_too_large_a_rate() -> Case:
    network = mlp([10, 64, 2])
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.5)
    return Case(network, heads.Gaussian(scale="predicted"), *data.friedman(), optimizer=optimizer)


@broken("learning_rate_too_low")
def adam_with_a_rate_of_a_millionth() -> Case:
    network = mlp([64, 32, 10])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer, epochs=10)


@broken("learning_rate_too_low")
def descent_that_creeps() -> Case:
    network = mlp([10, 32, 1], nn.Tanh)
    optimizer = _sgd(network, 1e-5)
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), optimizer=optimizer, epochs=10)


@broken("learning_rate_too_low")
def filters_that_creep() -> Case:
    network = conv()
    optimizer = _sgd(network, 1e-5, momentum=0.9)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), optimizer=optimizer, epochs=8)


@broken("overfitting")
def a_wide_network_on_forty_rows() -> Case:
    (x, y), validation = data.as_column(data.diabetes())
    network = mlp([10, 256, 256, 1])
    return Case(network, nn.MSELoss(), (x[:40], y[:40]), validation, batch_size=8, epochs=150)


@broken("overfitting")
def noise_learned_by_heart() -> Case:
    (x, y), (x_validation, y_validation) = data.tumors()
    y, y_validation = (torch.where(torch.rand(len(part)) < 0.3, 1 - part, part) for part in (y, y_validation))
    network = mlp([30, 256, 256, 1], nn.SiLU, last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), (x, y), (x_validation, y_validation), batch_size=32, epochs=60)


@broken("worse_than_constant")
def labels_of_validation_in_another_order() -> Case:
    (x, y), (x_validation, y_validation) = data.digits()
    # The owner's second file counts the classes from the other end.
    network = mlp([64, 32, 10])
    return Case(network, nn.CrossEntropyLoss(), (x, y), (x_validation, 9 - y_validation), epochs=15)


@broken("worse_than_constant")
def validation_columns_not_scaled_alike() -> Case:
    (x, y), (x_validation, y_validation) = data.as_column(data.friedman())
    network = mlp([10, 64, 1])
    return Case(network, nn.MSELoss(), (x, y), (10 * x_validation + 30, y_validation), epochs=20)


@broken("worse_than_linear")
def a_bottleneck_of_one() -> Case:
    network = mlp([64, 1, 10], nn.Tanh)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer, epochs=15)


@broken("worse_than_linear")
def far_too_much_dropout() -> Case:
    network = mlp([10, 16, 16, 1], dropout=0.9)
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), epochs=15)


def _forgets_evaluation(case: Case, recorder: Any) -> None:
    """Judges the validation rows with the network still in training mode."""
    assert case.optimizer is not None
    case.network.train()
    for _ in range(case.epochs):
        for features, target in case.batches():
            case.optimizer.zero_grad()
            value = case.compute(case.network(features), target)
            value.backward()
            case.optimizer.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case, evaluating=False))


@broken("dropout_in_evaluation")
def dropout_left_on() -> Case:
    network = mlp([64, 64, 10], dropout=0.5)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), loop=_forgets_evaluation)


@broken("dropout_in_evaluation")
def convolutional_dropout_left_on() -> Case:
    network = nn.Sequential(*conv(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    return Case(network, F.cross_entropy, *data.digit_images(), loop=_forgets_evaluation)


def _never_clears(case: Case, recorder: Any) -> None:
    """Forgets ``zero_grad``: every step is along the sum of all gradients so far."""
    assert case.optimizer is not None
    for _ in range(case.epochs):
        case.network.train()
        for features, target in case.batches():
            value = case.compute(case.network(features), target)
            value.backward()
            case.optimizer.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@broken("gradients_not_cleared")
def gradients_that_pile_up() -> Case:
    network = mlp([64, 32, 10])
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=_sgd(network, 0.01), loop=_never_clears)


@broken("gradients_not_cleared")
def gradients_that_pile_up_in_filters() -> Case:
    case_data = data.digit_images(28)
    return Case(LeNet(), nn.CrossEntropyLoss(), *case_data, epochs=1, loop=_never_clears)


@broken("gradients_not_cleared")
def gradients_that_pile_up_under_a_head() -> Case:
    return Case(mlp([10, 32, 2], nn.ELU), heads.Gaussian(scale="predicted"), *data.friedman(), loop=_never_clears)


@broken("not_a_number")
def a_loss_that_overflows_in_the_loop() -> Case:
    network = mlp([10, 64, 64, 1])
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), optimizer=_sgd(network, 100.0), epochs=3)


@broken("not_a_number")
def one_broken_row_in_the_loop() -> Case:
    (x, y), validation = data.as_column(data.friedman())
    x = x.clone()
    # Beyond the rows that are looked at before training.
    x[800, 3] = torch.inf
    return Case(mlp([10, 32, 1]), nn.MSELoss(), (x, y), validation, epochs=2)
