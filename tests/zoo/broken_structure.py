"""The network computes something else than its owner thinks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import data
from zoo.networks import conv, mlp
from zoo.setup import Case, broken


class LinearLayer(nn.Module):
    """The custom layer of the lecture (SPEC S3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(inputs, outputs))
        self.b = nn.Parameter(torch.randn(outputs))

    def forward(self, activations: Tensor) -> Tensor:
        return torch.mm(activations, self.w) + self.b


class FullBasicModel(nn.Module):
    """The whole model of the lecture, with its mistakes (SPEC S3, D9)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 128, 3)
        self.fc = LinearLayer(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        t1 = self.conv(x)
        t2 = nn.functional.relu(t1)  # noqa: F841
        t3 = self.fc(t1)
        return nn.functional.softmax(t3)


@broken("value_never_used")
def full_basic_model() -> Case:
    return Case(FullBasicModel(), nn.CrossEntropyLoss(), *data.digit_images(28), epochs=0)


@broken("value_never_used")
def activation_without_effect() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Linear(64, 32), nn.Linear(32, 10), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            self.act(x)
            return self.second(x)

    return Case(Net(), nn.CrossEntropyLoss(), *data.digits())


@broken("value_never_used")
def dropout_whose_result_is_lost() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(30, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.first(x))
            F.dropout(hidden, 0.5, training=self.training)
            return self.second(hidden)

    return Case(Net(), nn.BCEWithLogitsLoss(), *data.as_column(data.tumors()))


@broken("softmax_without_dimension")
def softmax_without_its_axis() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([64, 32, 10])

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(F.softmax(self.body(x)) + 1e-9)

    return Case(Net(), nn.NLLLoss(), *data.digits(), epochs=0)


@broken("softmax_without_dimension")
def log_softmax_module_without_its_axis() -> Case:
    return Case(conv(last=[nn.LogSoftmax()]), nn.NLLLoss(), *data.digit_images(), epochs=0)


@broken("softmax_without_dimension")
def the_model_of_the_lecture() -> Case:
    return Case(FullBasicModel(), F.cross_entropy, *data.digit_images(28), epochs=0)


@broken("layer_shape_mismatch")
def flatten_forgotten() -> Case:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(128, 10))
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), epochs=0)


@broken("layer_shape_mismatch")
def wrong_width_behind_the_convolutions() -> Case:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), epochs=0)


@broken("layer_shape_mismatch")
def double_precision_into_single() -> Case:
    parts = data.with_features(data.diabetes(), lambda x: x.double())
    return Case(mlp([10, 16, 1]), nn.MSELoss(), *data.as_column(parts), epochs=0)


@broken("layer_shape_mismatch")
def channels_last_into_a_convolution() -> Case:
    parts = data.with_features(data.digit_images(), lambda x: x.permute(0, 2, 3, 1))
    return Case(conv(), nn.CrossEntropyLoss(), *parts, epochs=0)


@broken("unused_parameter")
def layer_that_is_never_called() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.third(F.relu(self.first(x)))

    return Case(Net(), nn.CrossEntropyLoss(), *data.digits())


@broken("unused_parameter")
def detached_body() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = mlp([10, 32, 16], nn.Tanh), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.body(x).detach())

    return Case(Net(), nn.MSELoss(), *data.as_column(data.friedman()))


@broken("frozen_parameter")
def a_layer_in_the_middle_is_frozen() -> Case:
    network = mlp([64, 32, 32, 10])
    network[2].requires_grad_(False)
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@broken("frozen_parameter")
def everything_is_frozen() -> Case:
    network = conv().requires_grad_(False)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), epochs=0)


@broken("parameter_not_optimized")
def only_the_last_layer_in_the_optimizer() -> Case:
    network = mlp([64, 32, 10])
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=torch.optim.Adam(network[-1].parameters()))


@broken("parameter_not_optimized")
def optimizer_of_another_network() -> Case:
    old, network = mlp([30, 16, 1]), mlp([30, 16, 1])
    optimizer = torch.optim.SGD(old.parameters(), lr=0.1)
    return Case(network, nn.BCEWithLogitsLoss(), *data.as_column(data.tumors()), optimizer=optimizer)


@broken("decay_on_slopes")
def decay_on_prelu() -> Case:
    network = mlp([64, 32, 10], nn.PReLU)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), optimizer=optimizer)


@broken("decay_on_slopes")
def decay_on_convolutional_slopes() -> Case:
    network = conv(activation=lambda: nn.PReLU())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), optimizer=optimizer)


@broken("batch_norm_of_one")
def batch_norm_on_single_rows() -> Case:
    network = mlp([64, 32, 10], normalization=nn.BatchNorm1d)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), shown=1, batch_size=1, epochs=0)


@broken("batch_norm_of_one")
def batch_norm_on_single_pooled_images() -> Case:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 10)
    )
    return Case(network, nn.CrossEntropyLoss(), *data.digit_images(), shown=1, batch_size=1, epochs=0)


@broken("not_a_number")
def missing_cells_in_the_inputs() -> Case:
    def with_gaps(x: Tensor) -> Tensor:
        return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.01, torch.nan)

    parts = data.with_features(data.digits(), with_gaps)
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(), *parts, epochs=1)


@broken("not_a_number")
def logarithm_of_a_rectified_value() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(10, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.log(F.relu(self.first(x))))

    return Case(Net(), nn.MSELoss(), *data.as_column(data.friedman()), epochs=1)


@broken("not_a_number")
def square_root_whose_slope_is_infinite() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(10, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            # A rectifier of its own: 0 times the infinite slope of the root at 0 is no number.
            return self.second(torch.sqrt(hidden * (hidden > 0)))

    return Case(Net(), nn.MSELoss(), *data.as_column(data.diabetes()), epochs=1)


@broken("not_a_number")
def own_softmax_that_overflows() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([64, 32, 10])

        def forward(self, x: Tensor) -> Tensor:
            power = torch.exp(200 * self.body(x))
            return torch.log(power / power.sum(1, keepdim=True))

    return Case(Net(), nn.NLLLoss(), *data.digits(), epochs=1)
