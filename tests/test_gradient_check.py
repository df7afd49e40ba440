"""Numerical differentiation and the gradient check: what is right passes, what is wrong is caught and named."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import lastlayer
from lastlayer import activations, losses
from lastlayer.checks import InputError, KindError, LastLayerError, ShapeError
from lastlayer.gradient_check import GradientError, check_gradient, numerical_gradient
from lastlayer.losses.squared_error import SquaredErrorFormula

DTYPES = (torch.float64, torch.float32)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=random(seed))


# --- numerical_gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "tolerance"), [("symmetric", 1e-9), ("forward", 1e-6)])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (0,), (2, 0)])
def test_differences_of_known_functions(scheme, tolerance, shape):
    x = normal(*shape)
    settings = {"scheme": scheme}
    assert_close(numerical_gradient(torch.sin, x, **settings), x.cos(), rtol=tolerance, atol=tolerance)
    assert_close(numerical_gradient(lambda x: (x**3).sum(), x, **settings), 3 * x**2, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("scheme", "order"), [("symmetric", 2), ("forward", 1)])
def test_error_falls_with_the_order_of_the_scheme(scheme, order):
    x = torch.tensor([0.7], dtype=torch.float64)
    wide, narrow = (
        (numerical_gradient(torch.exp, x, scheme=scheme, step=step) - x.exp()).abs().item() for step in (1e-2, 1e-3)
    )
    assert wide / narrow == pytest.approx(10**order, rel=0.02)


@pytest.mark.parametrize(
    ("dtype", "scheme", "step"),
    [
        (torch.float32, "symmetric", (6e-8) ** (1 / 3)),
        (torch.float32, "forward", (6e-8) ** (1 / 2)),
        (torch.float64, "symmetric", (1.1e-16) ** (1 / 3)),
        (torch.float64, "forward", (1.1e-16) ** (1 / 2)),
    ],
)
@pytest.mark.parametrize("size", [0.5, 1000.0])
def test_the_step_follows_from_the_dtype_and_the_size(dtype, scheme, step, size):
    seen = []

    def record(x: Tensor) -> Tensor:
        seen.append(x.item())
        return x * 2

    numerical_gradient(record, torch.tensor(size, dtype=dtype), scheme=scheme)
    assert max(seen) - size == pytest.approx(step * max(1, size), rel=0.02)
    assert size - min(seen) == pytest.approx(step * max(1, size) if scheme == "symmetric" else 0, rel=0.02)


def test_sigmoid_in_float32_is_differentiated_best_near_the_cube_root_of_the_precision():
    """SPEC G8."""
    x = torch.linspace(-6, 6, 2001)
    exact = torch.sigmoid(x.double()) * torch.sigmoid(-x.double())

    def error(step: float | None) -> float:
        return (numerical_gradient(torch.sigmoid, x, step=step).double() - exact).square().mean().sqrt().item()

    steps = [10 ** (exponent / 4) for exponent in range(-24, 1)]
    errors = [error(step) for step in steps]
    best = steps[errors.index(min(errors))]
    assert 4e-3 / 3 < best < 4e-3 * 3
    assert error(4e-3) < 3 * min(errors)
    assert error(None) < 3 * min(errors)
    assert error(4e-4) > 10 * min(errors)
    assert error(1e-1) > 10 * min(errors)
    # Rounding on one side, in proportion to 1/h; truncation on the other, in proportion to h².
    assert error(1e-6) / error(1e-4) == pytest.approx(100, rel=0.3)
    assert error(1.0) / error(1e-1) == pytest.approx(100, rel=0.3)


def test_what_was_really_moved_divides():
    """Near 3000 float32 has steps of 2.4e-4: a step of 1e-4 is none, or more than twice as long."""
    x = torch.full((5,), 3000.0) + torch.arange(5) * 2.5e-4
    assert_close(numerical_gradient(lambda x: x * 1.0, x, step=2e-4), torch.ones(5))
    assert_close(numerical_gradient(lambda x: x.sum(dtype=torch.float64), x, step=2e-4), torch.ones(5))


def test_differences_of_a_whole_model():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    features, target = normal(8, 3), normal(8, 1, seed=1)

    def loss(weight: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(network, {"0.weight": weight}, features), target)

    F.mse_loss(network(features), target).backward()
    weight = network[0].weight
    for scheme, tolerance in (("symmetric", 1e-9), ("forward", 1e-6)):
        assert_close(numerical_gradient(loss, weight, scheme=scheme), weight.grad, rtol=tolerance, atol=tolerance)


def test_a_function_whose_elements_depend_on_each_other_is_refused():
    x = normal(5)
    for f in (lambda x: torch.softmax(x, 0), lambda x: x.cumsum(0), lambda x: x.flip(0)):
        with pytest.raises(InputError, match="depend on other elements"):
            numerical_gradient(f, x)
    weights = normal(5, seed=1)
    expected = torch.autograd.functional.jacobian(lambda x: torch.softmax(x, 0), x).T @ weights
    assert_close(
        numerical_gradient(lambda x: (weights * torch.softmax(x, 0)).sum(), x), expected, rtol=1e-8, atol=1e-10
    )


def test_numerical_gradient_says_what_is_wrong_with_its_input():
    x = normal(3)
    with pytest.raises(KindError, match=r"int64.*x\.float\(\)"):
        numerical_gradient(torch.sin, torch.arange(3))
    with pytest.raises(InputError, match="'central'; expected one of 'symmetric', 'forward'"):
        numerical_gradient(torch.sin, x, scheme="central")
    with pytest.raises(ShapeError, match=r"\(3,\) to shape \(2,\).*f\(x\)\.sum\(\)"):
        numerical_gradient(lambda x: x[:2], x)
    for step in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="expected a positive number"):
            numerical_gradient(torch.sin, x, step=step)


def test_numerical_gradient_leaves_its_input_alone_and_keeps_dtype():
    x = normal(3, 4).t()[::2].requires_grad_()
    before = x.detach().clone()
    result = numerical_gradient(lambda x: x.mul_(2).square(), x)
    assert_close(result, 8 * before, rtol=1e-8, atol=1e-8)
    assert_close(x.detach(), before, rtol=0, atol=0)
    assert not result.requires_grad
    assert numerical_gradient(torch.sin, x.float()).dtype == torch.float32


# --- what is right passes ---------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("name", losses.catalog())
def test_every_loss_passes(name, dtype):
    result = check_gradient(losses.catalog()[name], dtype=dtype)
    assert result, str(result)
    assert [row.how for row in result.tensors] == ["the closed form", "backward"]
    assert all(row.name == "raw" and row.checked >= 20 * max(1, row.unsettled) for row in result.tensors)
    assert dtype == torch.float32 or not any(row.unsettled for row in result.tensors)


@every_dtype
@pytest.mark.parametrize("name", activations.catalog())
def test_every_activation_passes(name, dtype):
    result = check_gradient(activations.catalog()[name].to(dtype), dtype=dtype)
    assert result, str(result)
    assert [row.how for row in result.tensors][:2] == ["the derivative", "backward"]
    assert result.tensors[0].checked == 100
    assert 2 * result.tensors[0].unsettled < 100


def test_inputs_of_a_loss_can_be_given():
    raw, target = normal(6, 5), torch.arange(6) % 5
    loss = losses.CrossEntropy(torch.rand(5, dtype=torch.float64, generator=random()), label_smoothing=0.1)
    for result in (check_gradient(loss, raw, target), check_gradient(loss, raw, target=target)):
        assert result, str(result)
        assert result.tensors[0].checked == 30
    with pytest.raises(InputError, match="raw and target, and 1 inputs"):
        check_gradient(loss, raw)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.cell(features)[0][:, -1])


NETWORKS = {
    "relu": (lambda: nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)), (8,)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)
        ),
        (2, 6, 6),
    ),
    "recurrent": (Recurrent, (5, 3)),
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Flatten(), nn.Linear(24, 2)
        ),
        (3, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_right_networks_pass(name, training):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = build().double().train(training)
    result = check_gradient(
        network, normal(6, *shape), loss=losses.cross_entropy, target=torch.arange(6) % 2, samples=30
    )
    assert result, str(result)
    assert [row.name for row in result.tensors] == [name for name, _ in network.named_parameters()]
    assert not any(row.kinks or row.unsettled or row.unused for row in result.tensors)


def test_right_networks_pass_in_float32_and_the_result_advises_float64():
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    result = check_gradient(
        network, normal(16, 4).float(), loss=F.mse_loss, target=normal(16, 1, seed=1).float(), samples=40
    )
    assert result, str(result)
    assert "Checked in float32, whose rounding hides" in str(result)
    assert "float64 shows more" in str(result)
    assert result.tensors[0].tolerance == pytest.approx(4e-4, rel=0.1)


def test_a_network_without_a_loss_and_its_input():
    network = nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1)).double()
    features = normal(4, 3)
    assert [row.name for row in check_gradient(network, features).tensors] == ["0.weight", "0.bias"]
    with_input = check_gradient(network, features.requires_grad_())
    assert with_input, str(with_input)
    assert [row.name for row in with_input.tensors] == ["0.weight", "0.bias", "input"]
    assert "The function gives 8 numbers" in str(with_input)
    without_parameters = check_gradient(nn.Softmax(-1), features.detach())
    assert [row.name for row in without_parameters.tensors] == ["input"]


def test_a_method_of_a_module_has_the_modules_parameters():
    class Model(nn.Linear):
        def objective(self, features: Tensor, target: Tensor) -> Tensor:
            return F.mse_loss(self(features), target)

    model = Model(3, 1).double()
    result = check_gradient(model.objective, normal(5, 3), normal(5, 1))
    assert result, str(result)
    assert [row.name for row in result.tensors] == ["weight", "bias"]


def test_a_network_that_differentiates_in_its_forward_passes():
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, place: Tensor) -> Tensor:
            place = place.requires_grad_()
            return torch.autograd.grad(self.energy(place).sum(), place, create_graph=True)[0]

    with torch.no_grad():
        result = check_gradient(Force().double(), normal(4, 2))
    assert [row.name for row in result.tensors if row.unused] == ["energy.2.bias"]
    assert result, str(result)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: x.exp(), normal(50) * 8),
        (lambda x: x**3, torch.zeros(())),
        (lambda x: (x - 1e6) ** 2, normal(5)),
        (lambda x: 1e6 + x.sin().sum(), normal(5)),
        (lambda x: 1e-30 * x.sin().sum(), normal(5)),
        (lambda x: x.log(), torch.tensor([1e-5, 1e-3, 1.0])),
        (lambda x: x.sqrt(), torch.tensor([1e-5, 1.0])),
        (lambda x: torch.xlogy(x, x).sum() + x.square().sum(), torch.tensor([1e-5, 0.5])),
        (lambda x: (100 * x).sin(), normal(20)),
        (lambda x: torch.sigmoid(x), torch.tensor([-800.0, -40.0, 40.0, 800.0])),
        (lambda x: x * 0, normal(5)),
    ],
)
def test_difficult_right_functions_pass(f, x):
    result = check_gradient(f, x.double())
    assert result, str(result)
    assert not result.tensors[0].unsettled


# --- what is wrong is caught and named --------------------------------------------------------------------------------


class _Scaled(torch.autograd.Function):
    """The identity whose backward multiplies."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradient, None


def scaled(x: Tensor, factor: float | Tensor) -> Tensor:
    return _Scaled.apply(x, torch.as_tensor(factor, dtype=x.dtype))


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


# --- kinks, chance, rounding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [torch.relu, torch.abs, lambda x: x.clamp(0, 1), lambda x: F.leaky_relu(x, 0.2)])
@every_dtype
def test_a_gradient_between_the_sides_of_a_kink_is_right(f, dtype):
    x = torch.tensor([-1.5, 0.0, 0.5], dtype=dtype)
    result = check_gradient(f, x)
    assert result, str(result)
    assert result.tensors[0].kinks == (f is not torch.abs)
    if f is not torch.abs:
        # The symmetric difference of |x| at 0 happens to be the 0 that backward takes.
        assert f"{result.tensors[0].name} has 1 of 3 elements at a kink" in str(result)


def test_a_gradient_outside_the_sides_of_a_kink_is_wrong():
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    factor = torch.tensor([1.0, 7.0, 1.0], dtype=torch.float64)
    (row,) = check_gradient(lambda x: scaled(x, factor).abs().sum() + scaled(x, factor).sum() / 2, x).wrong
    assert row.worst == (1,)
    assert row.kinks == 0


@pytest.mark.parametrize("distance", [1e-6, 3e-6, -1e-6, -3e-6])
def test_a_kink_beside_the_point_is_no_wrong_gradient(distance):
    x = torch.tensor([distance, 1.0], dtype=torch.float64)
    result = check_gradient(torch.relu, x)
    assert result, str(result)
    assert not result.tensors[0].kinks
    assert not check_gradient(lambda x: scaled(torch.relu(x), 0.5), x)


def test_active_dropout_is_named():
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 1))).double()
    result = check_gradient(network, normal(8, 4), loss=F.mse_loss, target=normal(8, 1))
    assert not result
    assert "two evaluations at the same point differ" in str(result)
    assert "dropout is active in '1'. Fix: network.eval()" in str(result)
    with pytest.raises(GradientError, match="dropout is active"):
        result.raise_if_wrong()
    network.eval()
    assert check_gradient(network, normal(8, 4), loss=F.mse_loss, target=normal(8, 1))


def test_a_random_function_is_named():
    result = check_gradient(lambda x: x + torch.rand(()), normal(3))
    assert not result
    assert "it is random, or remembers earlier calls" in str(result)


def test_a_function_too_rough_to_judge_is_not_called_wrong():
    """Computed in float32 inside, it is float64 in name alone."""
    result = check_gradient(lambda x: x.float().sin().double().sum(), normal(200))
    assert not result
    assert result.tensors[0].wrong == 0
    assert "cannot be judged: the differences do not settle" in str(result)
    assert "Fix: check in float64" in str(result)


# --- state, shapes, options -------------------------------------------------------------------------------------------


class Busy(nn.Module):
    """Changes whatever a module can change in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(4))
        self.last = None

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norm(self.linear(features))
        self.calls += 1
        self.seen = hidden.detach().mean(0)
        self.last = hidden
        self.count = 1
        self.norm.training = False
        torch.rand(3)
        return hidden * (1 + self.calls)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was(fails):
    network = Busy().double()
    network.linear.weight.grad = torch.ones(4, 3, dtype=torch.float64)
    features = normal(5, 3)
    state, buffers = copy.deepcopy(network.state_dict()), dict(network.named_buffers())
    grad, data = network.linear.weight.grad, network.linear.weight.data_ptr()
    version = network.linear.weight._version
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    calls = 0

    def loss(hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if fails and calls == 40:
            raise RuntimeError("the fortieth call")
        return hidden.square().mean()

    if fails:
        with pytest.raises(RuntimeError, match="fortieth"):
            check_gradient(network, features, loss=loss)
    else:
        result = check_gradient(network, features, loss=loss)
        assert result, str(result)
    assert calls >= 40
    assert torch.equal(torch.rand(4), expected)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(value is buffers[name] for name, value in network.named_buffers())
    assert network.linear.weight.grad is grad
    assert torch.equal(grad, torch.ones(4, 3, dtype=torch.float64))
    assert network.linear.bias.grad is None
    assert network.linear.weight.data_ptr() == data
    assert network.linear.weight._version == version
    assert network.training
    assert network.norm.training
    assert network.last is None
    assert not hasattr(network, "count")


def test_a_graph_that_waits_for_its_backward_still_has_it():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    features = normal(4, 3)
    waiting = network(features).sum()
    expected = torch.autograd.grad(network(features).sum(), list(network.parameters()))
    check_gradient(network, features)
    waiting.backward()
    assert_close([parameter.grad for parameter in network.parameters()], list(expected), rtol=0, atol=0)


def test_a_loss_with_parameters_of_its_own():
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, raw: Tensor, target: Tensor) -> Tensor:
            return ((raw - target) / self.log_scale.exp()).square().mean() + scaled(self.log_scale, 2.0)

    result = check_gradient(nn.Linear(2, 1).double(), normal(4, 2), loss=Learned(), target=normal(4, 1))
    (row,) = result.wrong
    assert (row.name, row.worst) == ("loss.log_scale", ())
    assert "log_scale of 'loss' is wrong: backward gives" in str(result)


def test_tied_weights_are_one_parameter():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    network[2].weight = network[0].weight
    result = check_gradient(network, normal(4, 3))
    assert result, str(result)
    assert [row.name for row in result.tensors] == ["0.weight", "0.bias", "2.bias"]


def test_integers_and_other_things_are_passed_on():
    table, index = normal(5, 3), torch.tensor([0, 2, 2])

    def f(table: Tensor, index: Tensor, power: int, names: list[str]) -> Tensor:
        assert index.dtype == torch.int64
        assert names == ["a"]
        return (table[index] ** power).sum()

    result = check_gradient(f, table, index, 2, ["a"])
    assert result, str(result)
    assert [row.name for row in result.tensors] == ["table"]
    assert torch.equal(index, torch.tensor([0, 2, 2]))


def test_inputs_that_require_grad_are_the_ones_that_are_asked_for():
    x, y = normal(3).requires_grad_(), normal(3, seed=1)
    assert [row.name for row in check_gradient(lambda x, y: x * y, x, y).tensors] == ["x"]
    assert [row.name for row in check_gradient(lambda *all: all[0] * all[1], y, y).tensors] == ["input 0", "input 1"]
    assert x.grad is None


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 1, 3)])
def test_shapes_of_every_kind(shape):
    result = check_gradient(lambda x: x.sin() * 2, normal(*shape))
    assert result, str(result)
    assert result.tensors[0].shape == shape
    assert result.tensors[0].checked == math.prod(shape)
    if not math.prod(shape):
        assert str(result) == "There is nothing to compare: every tensor is empty."
    wrong = check_gradient(lambda x: scaled(x, 0.5).sin(), normal(*shape))
    assert bool(wrong) == (not math.prod(shape))


def test_strides_are_kept_and_nothing_is_written_to():
    base = normal(6, 4)
    x = base.t()
    before, strides = base.clone(), []

    def f(x: Tensor) -> Tensor:
        strides.append(x.stride())
        return x.mul_(3).square().sum()

    assert check_gradient(f, x)
    assert set(strides) == {x.stride()}
    assert torch.equal(base, before)
    assert check_gradient(lambda x: x.square().sum(), torch.ones(1, dtype=torch.float64).expand(4))


def test_what_cannot_be_checked_is_an_error():
    with pytest.raises(InputError, match="no input is floating point, and no parameter requires grad"):
        check_gradient(lambda x: x, torch.arange(3))
    with pytest.raises(KindError, match="f is int; expected a function"):
        check_gradient(3, normal(3))
    with pytest.raises(KindError, match=r"f gives tuple; expected one tensor. Fix: lambda"):
        check_gradient(lambda x: (x, x), normal(3))
    with pytest.raises(KindError, match="the result of f must be floating point"):
        check_gradient(lambda x: x.argmax(), normal(3))
    with pytest.raises(InputError, match="a target is given, and no loss"):
        check_gradient(nn.Linear(3, 1), normal(3), target=normal(1))
    for option, value in (("samples", 0), ("directions", -1), ("tolerance", 0.0), ("tolerance", 1.0), ("step", -1.0)):
        with pytest.raises(InputError, match=f"{option} is {value}"):
            check_gradient(torch.sin, normal(3), **{option: value})


def test_the_options_are_heard():
    x = normal(1000)
    calls = 0

    def f(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x.sin().sum()

    few = check_gradient(f, x, samples=10, directions=0)
    assert (few.tensors[0].checked, few.tensors[0].directions) == (10, 0)
    assert calls == 2 + 1 + 1 + 2 * 10  # Twice for chance, backward, the point itself, each element twice.
    more = check_gradient(f, x, samples=20, directions=5)
    assert (more.tensors[0].checked, more.tensors[0].directions) == (20, 6)
    assert not check_gradient(lambda x: scaled(x, 1.01).sin(), x[:9])
    assert check_gradient(lambda x: scaled(x, 1.01).sin(), x[:9], tolerance=0.02)
    moved = set()
    check_gradient(lambda x: moved.add(x[0].item()) or x.sum(), x[:2], step=0.5, directions=0)
    assert moved == {x[0].item(), x[0].item() + 0.5, x[0].item() - 0.5}
    assert check_gradient(losses.CrossEntropy(), seed=1).tensors != check_gradient(losses.CrossEntropy()).tensors


def test_the_public_names():
    assert lastlayer.check_gradient is check_gradient
    assert lastlayer.gradient_check.numerical_gradient is numerical_gradient
