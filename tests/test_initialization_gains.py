"""The gain of an activation, against SciPy's quadrature, closed forms and PyTorch where they agree."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.special import erf, expit, ndtr
from scipy.stats import norm
from torch import Tensor, nn

from lastlayer import activations
from lastlayer.checks import InputError, KindError
from lastlayer.initialization import gain
from lastlayer.initialization.gains import gain_of


def elu(alpha: float) -> Callable[[float], float]:
    return lambda x: x if x > 0 else alpha * math.expm1(x)


def leaky(slope: float) -> Callable[[float], float]:
    return lambda x: x if x > 0 else slope * x


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def selu(x: float) -> float:
    return 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))


# What is given to gain, the same function by hand, and where that has kinks.
BY_MOMENT: list[tuple[Any, Callable[[float], float], list[float]]] = [
    ("identity", lambda x: x, []),
    ("relu", lambda x: max(x, 0.0), [0]),
    (nn.ReLU, lambda x: max(x, 0.0), [0]),
    (nn.ReLU(inplace=True), lambda x: max(x, 0.0), [0]),
    (F.relu, lambda x: max(x, 0.0), [0]),
    ("binary_step", lambda x: float(x >= 0), [0]),
    ("leaky_relu", leaky(0.01), [0]),
    (activations.LeakyReLU(0.1), leaky(0.1), [0]),
    (nn.LeakyReLU(0.3), leaky(0.3), [0]),
    ("prelu", leaky(0.25), [0]),
    (activations.PReLU(initial=0.6), leaky(0.6), [0]),
    (nn.PReLU(init=-0.5), leaky(-0.5), [0]),
    (activations.RReLU().eval(), leaky((1 / 8 + 1 / 3) / 2), [0]),
    ("elu", elu(1.0), [0]),
    (activations.ELU(0.3), elu(0.3), [0]),
    (nn.ELU(2.0), elu(2.0), [0]),
    ("softplus", softplus, []),
    ("silu", lambda x: x * expit(x), []),
    ("gelu", lambda x: x * ndtr(x), []),
    (
        nn.GELU(approximate="tanh"),
        lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        [],
    ),
    (nn.SELU(), selu, [0]),
    (nn.Mish(), lambda x: x * math.tanh(softplus(x)), []),
    (nn.Hardswish(), lambda x: x * min(max(x + 3, 0), 6) / 6, [-3, 3]),
    (nn.ReLU6(), lambda x: min(max(x, 0.0), 6.0), [0, 6]),
    (lambda x: x * x, lambda x: x * x, []),
    (torch.sin, math.sin, []),
]


@pytest.mark.parametrize(
    ("activation", "by_hand", "kinks"), BY_MOMENT, ids=lambda value: getattr(value, "__name__", str(value))[:30]
)
def test_the_gain_is_that_of_the_second_moment(activation: Any, by_hand: Any, kinks: list[float]) -> None:
    moment, _ = quad(
        lambda z: by_hand(z) ** 2 * norm.pdf(z), -12, 12, points=kinks or [0], limit=500, epsabs=1e-12, epsrel=1e-12
    )
    assert gain(activation) == pytest.approx(1 / math.sqrt(moment), rel=1e-7)


BY_SLOPE: list[tuple[Any, float, float]] = [
    ("tanh", 1.0, 0.0),
    (nn.Tanh(), 1.0, 0.0),
    (torch.tanh, 1.0, 0.0),
    ("arctan", 1.0, 0.0),
    (nn.Hardtanh(), 1.0, 0.0),
    (nn.Softsign(), 1.0, 0.0),
    (torch.erf, math.sqrt(math.pi) / 2, 0.0),
    ("sigmoid", 4.0, 0.5),
    (nn.Sigmoid(), 4.0, 0.5),
    (nn.Hardsigmoid(), 6.0, 0.5),
]


@pytest.mark.parametrize(
    ("activation", "expected", "center"), BY_SLOPE, ids=lambda value: getattr(value, "__name__", str(value))[:30]
)
def test_what_is_a_line_around_0_has_the_gain_of_its_slope(activation: Any, expected: float, center: float) -> None:
    assert gain(activation) == pytest.approx(expected, rel=1e-6)
    found = gain_of(activation)
    assert found.by_slope
    assert found.center == pytest.approx(center, abs=1e-12)


def test_the_slope_of_the_error_function_by_differences() -> None:
    assert gain(torch.erf) == pytest.approx(2e-4 / (erf(1e-4) - erf(-1e-4)), rel=1e-7)


@pytest.mark.parametrize(("name", "option"), [("linear", None), ("conv2d", None), ("relu", None), ("leaky_relu", 0.2)])
def test_the_gain_is_pytorchs_where_the_definitions_agree(name: str, option: float | None) -> None:
    ours = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2)}.get(name, "identity")
    assert gain(ours) == pytest.approx(nn.init.calculate_gain(name, option), rel=1e-12)


def test_a_prelu_counts_with_the_slopes_that_it_has() -> None:
    slopes = torch.tensor([0.9, -0.4, 0.1])
    for module in (activations.PReLU(3), nn.PReLU(3)):
        with torch.no_grad():
            next(module.parameters()).copy_(slopes)
        assert gain(module) ** 2 == pytest.approx(2 / (1 + float(slopes.square().mean())), rel=1e-6)


def test_an_rrelu_counts_with_the_slopes_that_it_draws() -> None:
    for kind in (activations.RReLU, nn.RReLU):
        drawn = np.random.default_rng(0).uniform(0.1, 0.9, 1_000_000)
        # Four standard errors of the mean of a million squares, whose deviation is 0.24.
        assert 2 / gain(kind(0.1, 0.9)) ** 2 - 1 == pytest.approx(np.mean(drawn**2), abs=1e-3)
        assert 2 / gain(kind(0.1, 0.9).eval()) ** 2 - 1 == pytest.approx(0.25)


def test_maxout_has_the_moment_of_the_largest_of_k_normals() -> None:
    """Order statistics: 1 + √3/2π of three and 1 + √3/π of four (H. A. David, H. N. Nagaraja, Order Statistics)."""
    assert gain("maxout") == gain(activations.Maxout) == pytest.approx(1.0)
    for pieces, moment in ((2, 1.0), (3, 1 + math.sqrt(3) / (2 * math.pi)), (4, 1 + math.sqrt(3) / math.pi)):
        assert gain(activations.Maxout(3, 4, pieces)) ** -2 == pytest.approx(moment, rel=1e-9)


def test_a_gated_linear_unit_is_a_normal_times_the_sigmoid_of_another() -> None:
    value = F.glu(torch.randn(1_000_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    square = value.square()
    error = float(square.std()) / 1000
    assert gain(nn.GLU()) ** -2 == pytest.approx(float(square.mean()), abs=4 * error)


def test_a_module_is_left_as_it_was() -> None:
    calls: list[Any] = []

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return torch.relu(x) * self.scale + 0 * torch.randn(())

    module = Own()
    module.register_forward_hook(lambda *call: calls.append(call))
    torch.manual_seed(0)
    state, before = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    assert gain(module) == pytest.approx(math.sqrt(2) / 2, rel=1e-6)
    assert module.training
    assert module.calls == 0
    assert not calls
    assert module.state_dict() == before
    assert module.scale.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("swish", "'swish'; expected one of 'identity'"),
        ("softmax", "not an elementwise function"),
        (nn.Softmax(-1), "not an elementwise function"),
        (lambda x: x + torch.randn_like(x), "not an elementwise function"),
        (lambda x: x.sum(), "not an elementwise function"),
        (lambda x: None, "not an elementwise function"),
        (lambda x: 0 * x, r"mean square of <lambda> .* is 0\.0"),
        (lambda x: x / 0, "mean square of <lambda> .* is (nan|inf)"),
        (nn.LayerNorm(3), "LayerNorm could not be called with a vector"),
        (nn.Linear, "class Linear, which is not made without arguments"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_has_no_gain_is_an_error_that_says_why(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gain(wrong)


@pytest.mark.parametrize(
    "wrong", [3, None, torch.zeros(3), int], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_what_is_no_activation_is_an_error(wrong: Any) -> None:
    with pytest.raises(KindError, match="expected"):
        gain(wrong)


def test_every_elementwise_activation_of_the_catalog_has_a_gain() -> None:
    for name, module in activations.catalog().items():
        if module.facts.elementwise:
            assert 0.1 < gain(name) < 10, name


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "silu", "gelu", "softplus"])
def test_the_gain_brings_the_mean_square_back_to_1_and_no_other_does(name: str) -> None:
    """Wrong twins: the gain's square, its root, and the deviation, without the mean, instead of the second moment."""
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1))
    value = activations.catalog()[name](z)

    def mean_square(factor: float) -> float:
        return float((factor * value).square().mean())

    # Four standard errors of a mean of a million squares are 0.01 at most.
    assert mean_square(gain(name)) == pytest.approx(1.0, abs=0.01)
    for wrong in (gain(name) ** 2, math.sqrt(gain(name)), 1 / float(value.std())):
        assert abs(mean_square(wrong) - 1.0) > 0.03
