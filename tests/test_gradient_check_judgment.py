"""Where the gradient check must not judge too soon: kinks, chance, rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradient_cases import every_dtype, normal, scaled
from lastlayer.gradient_check import GradientError, check_gradient


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
