"""Heads and losses of every kind, on the targets they are meant for."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from zoo import data
from zoo.networks import conv, mlp
from zoo.setup import Case, healthy


def _adam(network: nn.Module, rate: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=rate)


def _head(head: heads.Head, parts: data.Split, *, activation: Any = nn.ReLU, epochs: int = 15) -> Case:
    network = mlp([parts[0][0].shape[1], 32, head.raw_size], activation)
    return Case(network, head, *parts, optimizer=_adam(network), epochs=epochs)


@healthy
def bernoulli_head() -> Case:
    return _head(heads.Bernoulli(), data.tumors())


@healthy
def categorical_head() -> Case:
    return _head(heads.Categorical(10), data.digits(), epochs=8)


@healthy
def ordinal_head() -> Case:
    parts = data.with_target(data.friedman(), lambda y: torch.bucketize(y, torch.tensor([-0.7, 0.0, 0.7])))
    return _head(heads.Ordinal(4), parts)


@healthy
def label_head() -> Case:
    return _head(heads.MultiLabel(5), data.labels())


@healthy
def gaussian_head() -> Case:
    return _head(heads.Gaussian(), data.friedman())


@healthy
def gaussian_head_with_a_predicted_scale() -> Case:
    return _head(heads.Gaussian(scale="predicted"), data.friedman(), activation=nn.SiLU)


@healthy
def laplace_head_with_a_predicted_scale() -> Case:
    return _head(heads.Laplace(scale="predicted"), data.diabetes(), epochs=20)


@healthy
def student_t_head() -> Case:
    return _head(heads.StudentT(), data.friedman(), activation=nn.ELU)


@healthy
def mixture_head() -> Case:
    return _head(heads.Mixture(3), data.friedman())


@healthy
def quantile_head() -> Case:
    return _head(heads.Quantiles((0.1, 0.5, 0.9)), data.friedman())


@healthy
def poisson_head() -> Case:
    return _head(heads.Poisson(), data.counts())


@healthy
def negative_binomial_head() -> Case:
    return _head(heads.NegativeBinomial(), data.counts())


@healthy
def gamma_head() -> Case:
    return _head(heads.Gamma(), data.positives())


@healthy
def log_normal_head() -> Case:
    return _head(heads.LogNormal(), data.positives(), activation=nn.Tanh)


@healthy
def beta_head() -> Case:
    return _head(heads.Beta(), data.shares())


@healthy
def unit_interval_head() -> Case:
    return _head(heads.UnitInterval(), data.shares())


@healthy
def unit_interval_head_with_squared_error() -> Case:
    return _head(heads.UnitInterval(criterion="squared_error"), data.shares())


@healthy
def sigmoid_and_squared_error_of_shares() -> Case:
    network = mlp([4, 32, 1], last=[nn.Sigmoid()])
    return Case(network, nn.MSELoss(), *data.as_column(data.shares()), optimizer=_adam(network), epochs=15)


@healthy
def sigmoid_and_bce() -> Case:
    network = mlp([30, 16, 1], last=[nn.Sigmoid()])
    return Case(network, nn.BCELoss(), *data.as_column(data.tumors()), optimizer=_adam(network), epochs=15)


@healthy
def poisson_loss_of_pytorch() -> Case:
    network = mlp([6, 32, 1], last=[nn.Flatten(0)])
    return Case(network, nn.PoissonNLLLoss(), *data.counts(), optimizer=_adam(network), epochs=15)


@healthy
def softplus_output_for_positive_targets() -> Case:
    parts = data.with_target(data.positives(), lambda y: y.clamp(max=8))
    network = mlp([5, 32, 1], last=[nn.Softplus(), nn.Flatten(0)])
    return Case(network, nn.MSELoss(), *parts, optimizer=_adam(network), epochs=20)


@healthy
def relu_output_for_counts() -> Case:
    parts = data.with_target(data.counts(), lambda y: y.clamp(max=10))
    network = mlp([6, 32, 1], last=[nn.ReLU(), nn.Flatten(0)])
    # Positive, so that no output starts dead.
    nn.init.constant_(network[2].bias, 2.0)
    return Case(network, nn.L1Loss(), *parts, optimizer=_adam(network), epochs=20)


@healthy
def tanh_output_for_bounded_targets() -> Case:
    parts = data.with_target(data.friedman(), lambda y: torch.tanh(y))
    network = mlp([10, 32, 1], last=[nn.Tanh(), nn.Flatten(0)])
    return Case(network, nn.MSELoss(), *parts, optimizer=_adam(network), epochs=15)


@healthy
def gaussian_nll_of_pytorch() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.gaussian_nll_loss(raw[:, 0], target, F.softplus(raw[:, 1]) + 1e-4)

    network = mlp([10, 32, 2])
    return Case(network, loss, *data.friedman(), optimizer=_adam(network), epochs=15)


@healthy
def own_gaussian_with_the_logarithm_of_the_scale() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        mean, log_scale = raw.unbind(-1)
        return (log_scale + 0.5 * ((target - mean) * torch.exp(-log_scale)) ** 2).mean()

    network = mlp([10, 32, 2], nn.Tanh)
    return Case(network, loss, *data.friedman(), optimizer=_adam(network), epochs=15)


@healthy
def huber_loss() -> Case:
    network = mlp([10, 32, 1])
    return Case(network, nn.HuberLoss(), *data.as_column(data.diabetes()), optimizer=_adam(network), epochs=20)


@healthy
def focal_loss_on_rare_cases() -> Case:
    torch.manual_seed(0)
    x = torch.randn(2000, 6)
    y = (x[:, 0] + 0.5 * torch.randn(2000) > 1.7).float()
    network = mlp([6, 32, 1], last=[nn.Flatten(0)])
    loss = losses.Focal()
    return Case(network, loss, (x[:1500], y[:1500]), (x[1500:], y[1500:]), optimizer=_adam(network), epochs=15)


@healthy
def weighted_classes() -> Case:
    (x, y), validation = data.digits()
    kept = (y != 3) | (torch.arange(len(y)) % 10 == 0)
    x, y = x[kept], y[kept]
    weight = len(y) / (10 * torch.bincount(y, minlength=10).float())
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(weight=weight), (x, y), validation, epochs=10)


@healthy
def smoothed_labels() -> Case:
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(label_smoothing=0.1), *data.digits(), epochs=10)


@healthy
def probabilities_as_targets() -> Case:
    def soften(y: Tensor) -> Tensor:
        return 0.9 * F.one_hot(y, 10).float() + 0.01

    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(), *data.with_target(data.digits(), soften), epochs=10)


@healthy
def distilled_from_a_teacher() -> Case:
    (x, _), (x_validation, _) = data.digits()
    teacher = mlp([64, 64, 10])
    with torch.no_grad():
        target, target_validation = (torch.softmax(5 * teacher(part), -1) for part in (x, x_validation))
    network = mlp([64, 32, 10], last=[nn.LogSoftmax(-1)])
    loss = nn.KLDivLoss(reduction="batchmean")
    return Case(network, loss, (x, target), (x_validation, target_validation), optimizer=_adam(network), epochs=15)


@healthy
def some_pixels_ignored() -> Case:
    images = torch.randn(120, 1, 8, 8)
    target = (images[:, 0] > 0).long()
    target[torch.rand(target.shape) < 0.2] = -100
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 3, padding=1))
    parts = (images[:90], target[:90]), (images[90:], target[90:])
    return Case(network, nn.CrossEntropyLoss(), *parts, optimizer=_adam(network, 1e-2), batch_size=16, epochs=10)


@healthy
def margin_of_a_hinge() -> Case:
    network = mlp([64, 32, 10])
    return Case(network, losses.Hinge(), *data.digits(), optimizer=_adam(network), epochs=10)


@healthy
def multi_margin_of_pytorch() -> Case:
    return Case(conv(), nn.MultiMarginLoss(), *data.digit_images(), epochs=8)
