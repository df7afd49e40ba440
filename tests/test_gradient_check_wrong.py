"""The gradient check catches what is wrong and names it: the tensor, the element, the factor."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_cases import every_dtype, normal, random, scaled
from lastlayer import activations, losses
from lastlayer.checks import InputError, LastLayerError, ShapeError
from lastlayer.gradient_check import GradientError, check_gradient
from lastlayer.losses.squared_error import SquaredErrorFormula


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.5, "every checked element is about half of what it should be"),
        (2.0, "every checked element is about twice what it should be"),
        (-1.0, "every checked element is right but for its sign"),
        (0.0, "every checked element is 0"),
        (0.1, "every checked element is about 0.1 times what it should be"),
    ],
)
@every_dtype
def test_a_constant_factor_is_named(factor, words, dtype):
    x = normal(12, dtype=dtype)
    result = check_gradient(lambda x: scaled(x, factor).square().sum(), x)
    (row,) = result.wrong
    assert not result
    assert words in str(result)
    assert row.ratio == pytest.approx(factor, abs=1e-3)
    assert row.wrong == 12
    assert row.analytic == pytest.approx(factor * 2 * x[row.worst].item())
    assert row.numerical == pytest.approx(2 * x[row.worst].item(), rel=1e-3)
    assert str(result) == f"1 of 1 gradient did not pass.\n{row}" + "".join(f"\n{note}" for note in result.notes)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-5), (torch.float32, 1e-2)])
def test_a_small_error_is_caught(dtype, error):
    x = 1 + torch.rand(8, dtype=dtype, generator=random())
    assert not check_gradient(lambda x: scaled(x, 1 + error).log().sum(), x)
    assert check_gradient(lambda x: scaled(x, 1.0).log().sum(), x)


def test_the_message_reads_as_it_should():
    def f(weight: Tensor) -> Tensor:
        factor = torch.ones(4, 2, dtype=torch.float64)
        factor[3, 1] = 0.5
        return scaled(weight, factor).square().sum() / 2

    weight = torch.full((4, 2), 0.84, dtype=torch.float64)
    assert str(check_gradient(f, weight)) == (
        "1 of 1 gradient did not pass.\n"
        "weight is wrong: at [3, 1] backward gives 0.42, differences give 0.84 (relative error 0.5, allowed 5e-07); "
        "1 of 8 checked elements are wrong."
    )


class OneWrong(nn.Module):
    """A linear layer of which one element of the weight's gradient is wrong."""

    def __init__(self, inputs: int, outputs: int, at: tuple[int, int], factor: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.at, self.factor = at, factor

    def forward(self, features: Tensor) -> Tensor:
        factor = torch.ones_like(self.weight)
        factor[self.at] = self.factor
        return F.linear(features, scaled(self.weight, factor), self.bias)


@pytest.mark.parametrize("samples", [1, 5, 10_000])
@pytest.mark.parametrize("factor", [0.0, -1.0, 3.0])
def test_the_one_wrong_element_among_many_parameters_is_named(samples, factor):
    """Also where the sample misses it: a direction sees it, and halving finds it."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 40), nn.Tanh(), OneWrong(40, 30, (17, 23), factor), nn.Tanh(), nn.Linear(30, 3)
    ).double()
    result = check_gradient(
        network, normal(16, 6), loss=losses.cross_entropy, target=torch.arange(16) % 3, samples=samples
    )
    (row,) = result.wrong
    assert (row.name, row.worst, row.wrong) == ("2.weight", (17, 23), 1)
    assert row.analytic == pytest.approx(factor * row.numerical, rel=1e-4)
    assert "weight of '2' is wrong: at [17, 23] backward gives" in str(result)


@every_dtype
def test_one_wrong_parameter_among_many_is_named(dtype):
    class WrongBias(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            return F.linear(features, self.weight, scaled(self.bias, 2.0))

    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(5, 5), nn.Tanh())]
    network = nn.Sequential(*layers, WrongBias(5, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
    result = check_gradient(
        network, normal(32, 5, dtype=dtype), loss=F.mse_loss, target=normal(32, 1, seed=1, dtype=dtype)
    )
    assert [row.name for row in result.wrong] == ["8.bias"]
    assert result.wrong[0].ratio == pytest.approx(2, rel=0.02)
    with pytest.raises(GradientError, match="bias of '8' is wrong") as caught:
        result.raise_if_wrong()
    assert isinstance(caught.value, LastLayerError)
    assert isinstance(caught.value, AssertionError)


def test_a_detached_branch_is_caught():
    x, y = normal(4), normal(4, seed=1)
    result = check_gradient(lambda x, y: x.sin() * y + (x * y).detach(), x, y)
    assert [row.name for row in result.wrong] == ["x", "y"]
    result = check_gradient(lambda x, y: (x * y.detach()).sum(), x, y)
    assert [(row.name, row.missing) for row in result.wrong] == [("y", True)]
    assert "y is wrong: at [" in str(result)
    assert "backward gives no gradient (None), differences give" in str(result)
    assert "detached" in str(result)
    nothing = check_gradient(lambda x: (x * x).detach(), x)
    assert not nothing
    assert nothing.tensors[0].missing


def test_unused_and_frozen_parameters():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

        def forward(self, features: Tensor) -> Tensor:
            return self.frozen(self.used(features))

    result = check_gradient(Spare().double(), normal(3, 2))
    assert result, str(result)
    assert {row.name: row.unused for row in result.tensors} == {
        "used.weight": False,
        "used.bias": False,
        "spare.weight": True,
        "spare.bias": True,
    }
    assert "weight of 'spare' gets no gradient, and nothing depends on it." in str(result)


class HalfGradient(SquaredErrorFormula):
    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return raw - target


class HalfDetached(SquaredErrorFormula):
    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw - target).detach() * (raw - target)


class WrongShape(SquaredErrorFormula):
    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return 2 * (raw - target).sum()


def test_a_wrong_loss_is_caught_in_the_way_that_is_wrong():
    for loss, how in ((HalfGradient(), "the closed form"), (HalfDetached(), "backward")):
        (row,) = check_gradient(loss).wrong
        assert row.how == how
        assert row.ratio == pytest.approx(0.5)
        assert f"raw is wrong: at {list(row.worst)} {how} gives" in str(row)
    with pytest.raises(ShapeError, match=r"the closed form has shape \(\), raw \(20,\)"):
        check_gradient(WrongShape())


class WrongTanh:
    """An activation by what it offers alone."""

    facts = activations.catalog()["tanh"].facts

    def value(self, x: Tensor) -> Tensor:
        return x.tanh()

    def derivative(self, x: Tensor) -> Tensor:
        return 1 - x.tanh()


class WrongSoftmax(WrongTanh):
    facts = activations.catalog()["softmax"].facts

    def value(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.diag_embed(x.softmax(-1))


@pytest.mark.parametrize("activation", [WrongTanh(), WrongSoftmax()])
def test_a_wrong_derivative_of_an_activation_is_caught(activation):
    result = check_gradient(activation)
    assert [row.how for row in result.wrong] == ["the derivative"]
    assert "x is wrong: at [" in str(result)
    with pytest.raises(InputError, match="takes x, and 2 inputs"):
        check_gradient(activation, normal(3), normal(3))


def test_not_a_number():
    result = check_gradient(lambda x: x.log().sum(), torch.tensor([1.0, -1.0]))
    assert not result
    assert "the function is nan at the given point" in str(result)
    assert result.tensors == ()
    result = check_gradient(lambda x: x.sqrt().sum(), torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert "x is wrong: at [1] backward gives inf" in str(result)
    # The infamous one: a masked branch whose gradient is 0 · inf.
    result = check_gradient(lambda x: torch.where(x > 0, x.sqrt(), x).sum(), -normal(3).abs())
    assert "backward gives nan" in str(result)
    json.dumps([dataclasses.asdict(row) for row in result.tensors])
