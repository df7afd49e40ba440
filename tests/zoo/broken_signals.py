"""Signals that die, explode or say nothing on their way through the network (SPEC E3, E4, F)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import data
from zoo.networks import LeNet, conv, drawn, mlp, xavier
from zoo.setup import Case, broken


def normal(network: nn.Module, std: float) -> nn.Module:
    return drawn(network, lambda weight: nn.init.normal_(weight, std=std))


@broken("constant_weights")
def all_weights_zero() -> Case:
    network = drawn(mlp([64, 32, 10], nn.Tanh), nn.init.zeros_)
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@broken("constant_weights")
def all_weights_alike() -> Case:
    network = drawn(mlp([10, 32, 1]), lambda weight: nn.init.constant_(weight, 0.1))
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()))


@broken("constant_weights")
def all_filters_alike() -> Case:
    network = drawn(conv(), lambda weight: nn.init.constant_(weight, 0.05))
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images())


@broken("constant_weights")
def all_units_of_a_layer_alike() -> Case:
    network = mlp([64, 32, 32, 10], nn.Sigmoid)
    with torch.no_grad():
        network[2].weight.copy_(network[2].weight[:1].expand_as(network[2].weight))
        network[2].bias.zero_()
        network[4].weight.copy_(network[4].weight[:, :1].expand_as(network[4].weight))
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@broken("collapsing_activations")
def ten_tanh_layers_from_small_weights() -> Case:
    network = normal(mlp([64, *[128] * 10, 10], nn.Tanh), 0.01)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=2)


@broken("collapsing_activations")
def thirty_relu_layers_from_xavier() -> Case:
    network = xavier(mlp([64, *[64] * 30, 10]))
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=2)


@broken("collapsing_activations")
def small_filters() -> Case:
    layers: list[nn.Module] = []
    for place in range(6):
        layers += [nn.Conv2d(16 if place else 1, 16, 3, padding=1), nn.ReLU()]
    network = normal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10)), 0.005)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), epochs=1)


@broken("exploding_activations")
def ten_relu_layers_from_large_weights() -> Case:
    network = normal(mlp([64, *[128] * 10, 10]), 0.5)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=1)


@broken("exploding_activations")
def standard_normal_filters() -> Case:
    network = normal(LeNet(), 1.0)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(28), epochs=1)


@broken("exploding_activations")
def standard_normal_regression() -> Case:
    network = normal(mlp([10, 256, 256, 256, 1], nn.ELU), 1.0)
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), epochs=1)


@broken("vanishing_gradients")
def twelve_sigmoid_layers() -> Case:
    network = xavier(mlp([64, *[64] * 12, 10], nn.Sigmoid))
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=2)


@broken("vanishing_gradients")
def recurrent_by_hand_over_many_steps() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(1 if not place else 32, 32) for place in range(20)])
            self.last = nn.Linear(32, 1)
            for layer in self.layers:
                nn.init.uniform_(layer.weight, -0.05, 0.05)

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, :1]
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.last(x)

    return Case(Net(), nn.MSELoss(), *data.as_column(data.friedman()), epochs=1)


@broken("vanishing_gradients")
def deep_default_relu_without_normalization() -> Case:
    network = mlp([64, *[64] * 30, 10])
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=1)


@broken("exploding_gradients")
def twelve_leaky_layers_from_large_weights() -> Case:
    network = normal(mlp([64, *[64] * 12, 10], nn.LeakyReLU), 0.4)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=1)


@broken("exploding_gradients")
def ten_tanh_layers_from_standard_normal_weights() -> Case:
    network = normal(mlp([64, *[64] * 10, 10], nn.Tanh), 1.0)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=1)


@broken("saturated_units")
def ten_tanh_layers_from_large_weights() -> Case:
    network = normal(mlp([64, *[128] * 10, 10], nn.Tanh), 0.5)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=2)


@broken("saturated_units")
def sigmoid_units_on_raw_magnitudes() -> Case:
    training, validation = data.with_features(data.tumors(), lambda x: 200 * x)
    return Case(mlp([30, 32, 1], nn.Sigmoid), nn.BCEWithLogitsLoss(), *data.as_column((training, validation)), epochs=2)


@broken("saturated_units")
def saturated_tanh_filters() -> Case:
    network = normal(LeNet(torch.tanh), 1.0)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(28), epochs=1)


@broken("dead_units")
def biases_far_below_zero() -> Case:
    network = mlp([64, 64, 32, 10])
    nn.init.constant_(network[0].bias, -20.0)
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@broken("dead_units")
def half_of_the_filters_dead() -> Case:
    network = conv()
    with torch.no_grad():
        network[3].bias[:20] = -100.0
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images())


@broken("dead_units")
def a_step_that_killed_the_units() -> Case:
    network = mlp([10, 64, 64, 1])
    optimizer = torch.optim.SGD(network.parameters(), lr=3.0)
    return Case(network, nn.L1Loss(), *data.as_column(data.friedman()), optimizer=optimizer, epochs=4)


@broken("dead_units")
def hard_tanh_beyond_its_ends() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(30, 32), nn.Linear(32, 1)
            nn.init.constant_(self.first.bias, 50.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.hardtanh(self.first(x))).squeeze(-1)

    return Case(Net(), nn.BCEWithLogitsLoss(), *data.tumors())
