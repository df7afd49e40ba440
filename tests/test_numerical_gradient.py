"""Numerical differentiation: as exact as its scheme, with a step that follows from dtype and size."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from gradient_cases import normal
from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.gradient_check import numerical_gradient


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
