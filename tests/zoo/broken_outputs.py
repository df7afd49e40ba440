"""The last layer does not fit the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from zoo import data
from zoo.networks import LeNet, conv, mlp
from zoo.setup import Case, broken


@broken("softmax_before_cross_entropy")
def softmax_module_before_cross_entropy() -> Case:
    return Case(mlp([64, 32, 10], last=[nn.Softmax(dim=1)]), nn.CrossEntropyLoss(), *data.digits())


@broken("softmax_before_cross_entropy")
def softmax_call_in_a_convolutional_forward() -> Case:
    class Net(LeNet):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), dim=1)

    training, validation = data.digit_images(28)
    return Case(Net(), F.cross_entropy, training, validation, epochs=1)


@broken("softmax_before_cross_entropy")
def softmax_before_a_categorical_head() -> Case:
    return Case(mlp([13, 16, 3], nn.Tanh, last=[nn.Softmax(-1)]), heads.Categorical(3), *data.wines())


@broken("softmax_before_cross_entropy")
def softmax_inside_the_own_loss() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(torch.softmax(raw, dim=-1), target)

    return Case(mlp([64, 64, 10], nn.ELU), loss, *data.digits())


@broken("softmax_before_cross_entropy")
def softmax_for_every_pixel() -> Case:
    images = torch.randn(64, 1, 8, 8)
    target = (images[:, 0] > 0).long()
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1), nn.Softmax(dim=1))
    return Case(network, nn.CrossEntropyLoss(), (images, target))


@broken("sigmoid_before_logit_loss")
def sigmoid_module_before_bce_with_logits() -> Case:
    network = mlp([30, 16, 1], last=[nn.Sigmoid()])
    training, validation = data.as_column(data.tumors())
    return Case(network, nn.BCEWithLogitsLoss(), training, validation)


@broken("sigmoid_before_logit_loss")
def sigmoid_before_our_binary_cross_entropy() -> Case:
    network = mlp([2, 16, 1], nn.GELU, last=[nn.Sigmoid(), nn.Flatten(0)])
    return Case(network, losses.BinaryCrossEntropy(), *data.moons())


@broken("sigmoid_before_logit_loss")
def sigmoid_before_a_bernoulli_head() -> Case:
    return Case(mlp([30, 16, 1], nn.SiLU, last=[nn.Sigmoid()]), heads.Bernoulli(), *data.tumors())


@broken("sigmoid_before_logit_loss")
def sigmoid_before_labels() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([20, 32, 5])

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.body(x))

    training, validation = data.labels()
    return Case(Net(), F.binary_cross_entropy_with_logits, training, validation)


@broken("log_of_no_probability")
def raw_scores_into_bce() -> Case:
    training, validation = data.as_column(data.tumors())
    return Case(mlp([30, 16, 1]), nn.BCELoss(), training, validation)


@broken("log_of_no_probability")
def log_of_raw_scores() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(torch.log(raw), target)

    return Case(mlp([64, 32, 10]), loss, *data.digits())


@broken("log_of_no_probability")
def own_logarithm_of_raw_scores() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return -(target * raw.log() + (1 - target) * (1 - raw).log()).mean()

    return Case(mlp([2, 16, 1], nn.Tanh, last=[nn.Flatten(0)]), loss, *data.moons())


@broken("log_softmax_missing")
def raw_scores_into_nll() -> Case:
    return Case(mlp([64, 32, 10]), nn.NLLLoss(), *data.digits())


@broken("log_softmax_missing")
def probabilities_into_nll() -> Case:
    return Case(mlp([13, 16, 3], last=[nn.Softmax(dim=1)]), nn.NLLLoss(), *data.wines())


@broken("log_softmax_missing")
def convolutional_scores_into_nll() -> Case:
    return Case(conv(activation=nn.ELU), F.nll_loss, *data.digit_images())


@broken("link_applied_twice")
def sigmoid_after_sigmoid() -> Case:
    training, validation = data.as_column(data.tumors())
    return Case(mlp([30, 16, 1], last=[nn.Sigmoid(), nn.Sigmoid()]), nn.BCELoss(), training, validation)


@broken("link_applied_twice")
def softmax_after_softmax() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([64, 32, 10], last=[nn.Softmax(dim=1)])

        def forward(self, x: Tensor) -> Tensor:
            return torch.log_softmax(self.body(x), dim=1)

    return Case(Net(), nn.NLLLoss(), *data.digits())


@broken("link_applied_twice")
def softplus_before_a_poisson_head() -> Case:
    return Case(mlp([6, 16, 1], last=[nn.Softplus()]), heads.Poisson(), *data.counts())


@broken("relu_before_signed_target")
def relu_at_the_end_of_a_regression() -> Case:
    training, validation = data.as_column(data.diabetes())
    return Case(mlp([10, 16, 1], last=[nn.ReLU()]), nn.MSELoss(), training, validation)


@broken("relu_before_signed_target")
def sigmoid_at_the_end_of_a_regression() -> Case:
    training, validation = data.as_column(data.friedman())
    return Case(mlp([10, 32, 1], nn.Tanh, last=[nn.Sigmoid()]), F.mse_loss, training, validation)


@broken("relu_before_signed_target")
def relu_call_before_the_absolute_error() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(10, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.second(F.relu(self.first(x)))).squeeze(-1)

    return Case(Net(), nn.L1Loss(), *data.friedman())


@broken("relu_before_signed_target")
def relu_before_a_gaussian_head() -> Case:
    return Case(mlp([10, 32, 1], nn.ELU, last=[nn.ReLU()]), heads.Gaussian(), *data.diabetes())


@broken("scale_without_positive_link")
def raw_variance_into_gaussian_nll() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.gaussian_nll_loss(raw[:, 0], target, raw[:, 1])

    return Case(mlp([10, 32, 2]), loss, *data.friedman())


@broken("scale_without_positive_link")
def own_gaussian_with_a_raw_scale() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        mean, scale = raw.unbind(-1)
        return (torch.log(scale) + 0.5 * ((target - mean) / scale) ** 2).mean()

    return Case(mlp([10, 32, 2], nn.Tanh), loss, *data.diabetes())


@broken("scale_without_positive_link")
def own_laplace_with_a_raw_scale() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return (raw[:, 1].log() + (target - raw[:, 0]).abs() / raw[:, 1]).mean()

    return Case(mlp([10, 16, 2], nn.SiLU), loss, *data.friedman())


@broken("softmax_over_wrong_axis")
def softmax_over_the_samples() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([64, 32, 10])

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(F.softmax(self.body(x), dim=0) + 1e-9)

    return Case(Net(), nn.NLLLoss(), *data.digits())


@broken("softmax_over_wrong_axis")
def log_softmax_over_the_samples() -> Case:
    return Case(mlp([13, 16, 3], nn.Tanh, last=[nn.LogSoftmax(dim=0)]), F.nll_loss, *data.wines())


@broken("squared_error_behind_sigmoid")
def squared_error_of_a_probability() -> Case:
    training, validation = data.as_column(data.tumors())
    return Case(mlp([30, 16, 1], last=[nn.Sigmoid()]), nn.MSELoss(), training, validation)


@broken("squared_error_behind_sigmoid")
def squared_error_of_softmax_and_one_hot() -> Case:
    parts = data.with_target(data.digits(), lambda y: F.one_hot(y, 10).float())
    return Case(mlp([64, 32, 10], last=[nn.Softmax(dim=-1)]), F.mse_loss, *parts)


@broken("squared_error_behind_sigmoid")
def own_quadratic_cost() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.last = nn.Linear(2, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.last(torch.sigmoid(self.hidden(x)))).squeeze(1)

    return Case(Net(), lambda raw, target: 0.5 * ((raw - target) ** 2).mean(), *data.moons())


@broken("wrong_gradient")
def own_loss_with_half_the_gradient() -> Case:
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, raw: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(raw, target)
            return ((raw - target) ** 2).mean()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
            raw, target = ctx.saved_tensors
            return gradient * (raw - target) / raw.numel(), None

    training, validation = data.as_column(data.diabetes())
    return Case(mlp([10, 16, 1]), Halved.apply, training, validation)


@broken("wrong_gradient")
def own_activation_with_a_wrong_slope() -> Case:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return gradient * torch.sigmoid(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(Swish.apply(self.first(x)))

    return Case(Net(), nn.CrossEntropyLoss(), *data.digits())
