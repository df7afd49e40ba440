"""Gradients written by hand: wrong ones are found, right ones and deliberate ones are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.diagnosis.custom_functions import applications
from lastlayer.diagnosis.subject import Subject
from lastlayer.facts import REAL, ActivationFacts
from structure_cases import Forward, classes, found, mlp, normal, only

X, Y = normal(16, 4), normal(16, 1)


def function(forward: Any, backward: Any, name: str = "Own") -> Any:
    """A custom function of one tensor; backward is given the input and the gradient."""

    def run_forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return forward(x)

    def run_backward(ctx: Any, gradient: Tensor) -> Tensor:
        return backward(ctx.saved_tensors[0], gradient)

    own = {"forward": staticmethod(run_forward), "backward": staticmethod(run_backward)}
    return type(name, (torch.autograd.Function,), own)


def network(own: Any) -> Forward:
    torch.manual_seed(0)
    return Forward(lambda net, x: net.last(own.apply(net.first(x))), first=nn.Linear(4, 8), last=nn.Linear(8, 1))


def sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 - torch.sigmoid(x))


RIGHT = {
    "cube": (lambda x: x**3, lambda x, g: 3 * x**2 * g),
    "softplus": (F.softplus, lambda x, g: torch.sigmoid(x) * g),
    "relu": (lambda x: x.clamp(min=0), lambda x, g: g * (x > 0)),
    "numpy": (
        lambda x: torch.from_numpy(np.tanh(x.detach().numpy())),
        lambda x, g: g * (1 - torch.tanh(x) ** 2),
    ),
    "whole rows": (lambda x: torch.softmax(x, 1), lambda x, g: (p := torch.softmax(x, 1)) * (g - (p * g).sum(1, True))),
}
WRONG = {
    "half": (lambda x: x**3, lambda x, g: 1.5 * x**2 * g),
    "sign": (F.softplus, lambda x, g: -torch.sigmoid(x) * g),
    "a factor forgotten": (lambda x: x * torch.sigmoid(x), lambda x, g: torch.sigmoid(x) * g),
    "on one side": (lambda x: F.leaky_relu(x, 0.1), lambda x, g: g * (x > 0)),
    "off by little": (torch.tanh, lambda x, g: g * (1.01 - torch.tanh(x) ** 2)),
    "upstream forgotten": (torch.sin, lambda x, g: torch.cos(x)),
}
DELIBERATE = {
    "straight through": (torch.sign, lambda x, g: g * (x.abs() < 1)),
    "rounding": (lambda x: (4 * x).round() / 4, lambda x, g: g),
    "surrogate": (lambda x: (x > 0).to(x.dtype), lambda x, g: g * sigmoid_slope(4 * x)),
    "reversed": (lambda x: x.clone(), lambda x, g: -g),
    "scaled": (lambda x: x.view_as(x), lambda x, g: 0.1 * g),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_gradient_is_not_told(name: str) -> None:
    assert not found(network(function(*RIGHT[name])), F.mse_loss, X, Y)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_found(name: str) -> None:
    finding = only(found(network(function(*WRONG[name])), F.mse_loss, X, Y), "wrong_gradient", "error")
    assert finding.where == "Own in Forward's forward"
    assert finding.numbers["relative_error"] > 1e-3


@pytest.mark.parametrize("name", DELIBERATE)
def test_a_deliberate_gradient_is_a_note(name: str) -> None:
    findings = found(network(function(*DELIBERATE[name])), F.mse_loss, X, Y)
    only(findings, "wrong_gradient", "note")


class Halved(torch.autograd.Function):
    """The squared error with half its gradient: a loss of two tensors, one of which does not learn."""

    @staticmethod
    def forward(ctx, raw: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(raw, target)
        return ((raw - target) ** 2).mean()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        raw, target = ctx.saved_tensors
        return gradient * (raw - target) / raw.numel(), None


class Product(torch.autograd.Function):
    """In the newer style, of an input, a weight and a number; wrong for the weight alone."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, factor: float) -> Tensor:  # type: ignore[override]
        return factor * x @ weight

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[override]
        ctx.save_for_backward(*inputs[:2])
        ctx.factor = inputs[2]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return ctx.factor * gradient @ weight.T, x.T @ gradient, None


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return Product.apply(x, self.weight, 2.0)


def test_a_loss_and_a_layer_with_weights() -> None:
    assert only(found(mlp(4, 8, 1), Halved.apply, X, Y), "wrong_gradient", "error").where == "Halved in the loss"
    finding = only(found(Own(), F.mse_loss, X, Y), "wrong_gradient", "error")
    assert "about half of what it should be" in finding.evidence


def test_of_functions_one_after_another_the_wrong_one_is_named() -> None:
    right, wrong = function(*RIGHT["cube"], "Right"), function(*WRONG["sign"], "Wrong")
    both = Forward(
        lambda net, x: net.last(wrong.apply(right.apply(net.first(x)))), first=nn.Linear(4, 8), last=nn.Linear(8, 1)
    )
    finding = only(found(both, F.mse_loss, X, Y), "wrong_gradient", "error")
    assert finding.where.startswith("Wrong")


def test_a_random_function_is_not_judged() -> None:
    noisy = function(lambda x: x + torch.randn_like(x), lambda x, g: 2 * g)
    assert not found(network(noisy), F.mse_loss, X, Y)


def test_outputs_without_a_gradient_are_not_asked_for_one() -> None:
    class Sorted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            values, places = x.sort(1)
            scores = 2 * values
            ctx.mark_non_differentiable(scores)
            ctx.save_for_backward(places)
            return values, scores

        @staticmethod
        def backward(ctx, gradient: Tensor, of_scores: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros_like(gradient).scatter(1, ctx.saved_tensors[0], gradient)

    parts = {"first": nn.Linear(4, 8), "last": nn.Linear(8, 1)}
    sorting = Forward(lambda net, x: net.last(Sorted.apply(net.first(x))[0]), **parts)
    assert not found(sorting, F.mse_loss, X, Y)


def test_a_function_that_takes_single_precision_only_is_checked_in_it() -> None:
    def single(x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return x**2

    only(found(network(function(single, lambda x, g: x * g)), F.mse_loss, X, Y), "wrong_gradient", "error")
    assert not found(network(function(single, lambda x, g: 2 * x * g)), F.mse_loss, X, Y)


def test_the_functions_are_as_they_were() -> None:
    own = function(*RIGHT["cube"])
    before = own.__dict__["forward"]
    subject = Subject(network(own), F.mse_loss, X, Y)
    (applied,) = applications(subject)
    assert applied.function is own
    assert applied.arguments[0].shape == (16, 8)
    assert own.__dict__["forward"] is before


class OwnActivation(Activation):
    """A closed form that forgets a factor."""

    facts = ActivationFacts(
        name="own", title="own", formula="x²", derivative="x", range=REAL, monotonic=False, derivative_monotonic=True,
        saturates_below=None, saturates_above=None, zero_centered=False, smooth=True, elementwise=True, parameters=None,
        use_when="never", avoid_when="always", reference="this test", example=elementwise_example,
    )  # fmt: skip
    factor = 1.0

    def value(self, x: Tensor) -> Tensor:
        return x**2

    def _derivative(self, x: Tensor) -> Tensor:
        return self.factor * x


class OwnLoss:
    """A loss with a closed form, as this package's: called, it is a mean."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value(raw, target).mean()

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw - target) ** 4

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.factor * (raw - target) ** 3


@pytest.mark.parametrize("right", [True, False])
def test_closed_forms_are_checked(right: bool) -> None:
    activation = OwnActivation()
    activation.factor = 2.0 if right else 1.0
    findings = found(nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 1)), F.mse_loss, X, Y)
    assert findings.names == ([] if right else ["wrong_gradient"])
    findings = found(mlp(4, 8, 1), OwnLoss(4.0 if right else 3.0), X, Y)
    assert findings.names == ([] if right else ["wrong_gradient"])


def test_without_custom_functions_there_is_no_further_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(subject: Any) -> Any:
        raise AssertionError("another pass")

    monkeypatch.setattr("lastlayer.diagnosis.custom_gradients.applications", fail)
    assert not found(mlp(4, 8, 3), nn.CrossEntropyLoss(), X, classes(16, 3))
