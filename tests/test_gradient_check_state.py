"""The gradient check leaves everything as it was, takes inputs of every shape, and heeds its options."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import lastlayer
from gradient_cases import normal, scaled
from lastlayer import losses
from lastlayer.checks import InputError, KindError
from lastlayer.gradient_check import check_gradient, numerical_gradient


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
