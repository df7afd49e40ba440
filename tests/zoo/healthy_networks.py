"""Ordinary networks, trained as they usually are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lastlayer
from lastlayer import activations
from zoo import data
from zoo.networks import LeNet, Residual, conv, he, mlp, xavier
from zoo.setup import Case, healthy


@healthy
def relu_on_digits() -> Case:
    return Case(mlp([64, 64, 10]), nn.CrossEntropyLoss(), *data.digits())


@healthy
def two_relu_layers_on_digits() -> Case:
    return Case(he(mlp([64, 128, 64, 10])), F.cross_entropy, *data.digits())


@healthy
def tanh_on_wines() -> Case:
    return Case(xavier(mlp([13, 16, 3], nn.Tanh)), nn.CrossEntropyLoss(), *data.wines(), batch_size=16, epochs=20)


@healthy
def sigmoid_on_irises() -> Case:
    network = mlp([4, 16, 3], nn.Sigmoid)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    return Case(network, nn.CrossEntropyLoss(), *data.irises(), optimizer=optimizer, batch_size=16, epochs=20)


@healthy
def elu_on_tumors() -> Case:
    return Case(mlp([30, 32, 16, 1], nn.ELU), nn.BCEWithLogitsLoss(), *data.as_column(data.tumors()), epochs=15)


@healthy
def gelu_on_friedman() -> Case:
    return Case(mlp([10, 64, 64, 1], nn.GELU), nn.MSELoss(), *data.as_column(data.friedman()), epochs=15)


@healthy
def selu_with_its_own_initialization() -> Case:
    network = mlp([64, 64, 64, 64, 10], nn.SELU)
    lastlayer.initialize(network, nn.SELU())
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@healthy
def silu_on_diabetes() -> Case:
    return Case(mlp([10, 32, 1], nn.SiLU), nn.MSELoss(), *data.as_column(data.diabetes()), batch_size=32, epochs=15)


@healthy
def leaky_relu_on_moons() -> Case:
    network = mlp([2, 32, 32, 1], lambda: nn.LeakyReLU(0.1), last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), *data.moons(), epochs=20)


@healthy
def relu_on_moons() -> Case:
    network = mlp([2, 32, 32, 1], last=[nn.Flatten(0)])
    return Case(network, nn.BCEWithLogitsLoss(), *data.moons(), epochs=20)


@healthy
def prelu_without_decay() -> Case:
    network = mlp([64, 32, 32, 10], nn.PReLU)
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@healthy
def softplus_on_friedman() -> Case:
    return Case(mlp([10, 64, 1], nn.Softplus), nn.MSELoss(), *data.as_column(data.friedman()), epochs=15)


@healthy
def mish_with_layer_norm() -> Case:
    return Case(mlp([64, 64, 64, 10], nn.Mish, normalization=nn.LayerNorm), nn.CrossEntropyLoss(), *data.digits())


@healthy
def batch_norm_on_digits() -> Case:
    network = mlp([64, 64, 64, 10], normalization=nn.BatchNorm1d)
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@healthy
def dropout_on_digits() -> Case:
    return Case(mlp([64, 128, 10], dropout=0.5), nn.CrossEntropyLoss(), *data.digits(), epochs=10)


@healthy
def default_five_layers() -> Case:
    return Case(mlp([64, 64, 64, 64, 64, 10]), nn.CrossEntropyLoss(), *data.digits(), epochs=10)


@healthy
def twelve_relu_layers_from_he() -> Case:
    return Case(he(mlp([64, *[64] * 12, 10])), nn.CrossEntropyLoss(), *data.digits(), epochs=8)


@healthy
def ten_tanh_layers_from_xavier() -> Case:
    return Case(xavier(mlp([64, *[64] * 10, 10], nn.Tanh)), nn.CrossEntropyLoss(), *data.digits(), epochs=8)


@healthy
def residual_network() -> Case:
    network = nn.Sequential(nn.Linear(64, 64), *[Residual(64) for _ in range(6)], nn.LayerNorm(64), nn.Linear(64, 10))
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@healthy
def residual_network_of_twenty_blocks() -> Case:
    network = nn.Sequential(
        nn.Linear(64, 32), *[Residual(32, nn.GELU) for _ in range(20)], nn.LayerNorm(32), nn.Linear(32, 10)
    )
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=4)


@healthy
def residual_blocks_that_start_as_nothing() -> Case:
    blocks = [Residual(64, norm=False) for _ in range(4)]
    for block in blocks:
        nn.init.zeros_(block.block[-1].weight)
    network = nn.Sequential(nn.Linear(10, 64), *blocks, nn.Linear(64, 1))
    return Case(network, nn.MSELoss(), *data.as_column(data.friedman()), epochs=15)


@healthy
def convolutions_on_digits() -> Case:
    return Case(conv(), nn.CrossEntropyLoss(), *data.digit_images())


@healthy
def convolutions_with_batch_norm() -> Case:
    return Case(conv(norm=True), nn.CrossEntropyLoss(), *data.digit_images())


@healthy
def convolutions_with_elu() -> Case:
    return Case(conv(activation=nn.ELU), F.cross_entropy, *data.digit_images())


@healthy
def convolutions_with_tanh() -> Case:
    return Case(xavier(conv(activation=nn.Tanh)), nn.CrossEntropyLoss(), *data.digit_images())


@healthy
def lenet_functional() -> Case:
    return Case(LeNet(), nn.CrossEntropyLoss(), *data.digit_images(28), epochs=3)


@healthy
def lenet_with_tanh() -> Case:
    return Case(LeNet(torch.tanh), nn.CrossEntropyLoss(), *data.digit_images(28), epochs=3)


@healthy
def convolutions_with_log_softmax_and_nll() -> Case:
    return Case(conv(last=[nn.LogSoftmax(dim=1)]), nn.NLLLoss(), *data.digit_images())


@healthy
def basic_mnist_example() -> Case:
    class Net(nn.Module):
        """The layout of PyTorch's MNIST example, smaller."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, 1), nn.Conv2d(8, 16, 3, 1)
            self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
            self.fc1, self.fc2 = nn.Linear(2304, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv2(F.relu(self.conv1(x))))
            x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
            x = self.fc2(self.dropout2(F.relu(self.fc1(x))))
            return F.log_softmax(x, dim=1)

    return Case(Net(), F.nll_loss, *data.digit_images(28), epochs=3)


@healthy
def autoencoder_of_digits() -> Case:
    (images, _), (validation, _) = data.digit_images()
    pixels, others = (images - images.min()) / 4, (validation - validation.min()) / 4
    pixels, others = pixels.clamp(0, 1), others.clamp(0, 1)
    network = nn.Sequential(nn.Flatten(), *mlp([64, 32, 8, 32, 64]), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    return Case(network, nn.BCELoss(), (pixels, pixels), (others, others), optimizer=optimizer, epochs=10)


@healthy
def autoencoder_of_columns() -> Case:
    (x, _), (x_validation, _) = data.tumors()
    return Case(mlp([30, 16, 4, 16, 30], nn.Tanh), nn.MSELoss(), (x, x), (x_validation, x_validation), epochs=30)


@healthy
def recurrent_over_rows_of_pixels() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.last = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.recurrent(x.squeeze(1))
            return self.last(states[:, -1])

    return Case(Net(), nn.CrossEntropyLoss(), *data.digit_images(), epochs=10)


@healthy
def transformer_over_rows_of_pixels() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Linear(8, 32), nn.Parameter(0.02 * torch.randn(8, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
            self.body, self.last = nn.TransformerEncoder(layer, 2), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.body(self.embed(x.squeeze(1)) + self.place).mean(1))

    return Case(Net(), nn.CrossEntropyLoss(), *data.digit_images(), epochs=6)


@healthy
def embedded_tokens() -> Case:
    tokens = torch.randint(50, (1000, 12))
    target = ((tokens < 10).sum(1) > 2).float()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.last = nn.Embedding(50, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.embedding(x).mean(1)).squeeze(-1)

    network = Net()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    parts = (tokens[:750], target[:750]), (tokens[750:], target[750:])
    return Case(network, nn.BCEWithLogitsLoss(), *parts, optimizer=optimizer, epochs=15)


@healthy
def gated_mixture_of_experts() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(10, 3)
            self.experts = nn.ModuleList([mlp([10, 16, 1]) for _ in range(3)])

        def forward(self, x: Tensor) -> Tensor:
            share = torch.softmax(self.gate(x), dim=-1)
            return (share * torch.cat([expert(x) for expert in self.experts], dim=1)).sum(1)

    return Case(Net(), nn.MSELoss(), *data.friedman(), epochs=15)


@healthy
def maxout_of_our_catalog() -> Case:
    network = nn.Sequential(activations.Maxout(64, 48), activations.Maxout(48, 32), nn.Linear(32, 10))
    return Case(network, nn.CrossEntropyLoss(), *data.digits())


@healthy
def our_activations() -> Case:
    network = mlp([64, 32, 32, 10], activations.Arctan)
    return Case(network, lastlayer.losses.CrossEntropy(), *data.digits())


@healthy
def linear_model() -> Case:
    network = nn.Linear(64, 10)
    return Case(network, nn.CrossEntropyLoss(), *data.digits(), epochs=10)


@healthy
def swish_of_its_own_with_the_right_slope() -> Case:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            gate = torch.sigmoid(x)
            return gradient * (gate + x * gate * (1 - gate))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(Swish.apply(self.first(x)))

    return Case(Net(), nn.CrossEntropyLoss(), *data.digits())
