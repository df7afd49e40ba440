"""The rules and the fans: what variance every kind of layer gets, and what it makes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lastlayer.activations import Maxout
from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.initialization import RULES, Constant, Glorot, He, Normal, Orthogonal, Rule, Xavier, gain, initialize
from lastlayer.initialization.layers import layer_of
from lastlayer.networks import Linear, SharedLinear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PLAIN: list[nn.Module] = [
    nn.Linear(30, 70),
    nn.Conv1d(6, 10, 5),
    nn.Conv2d(6, 10, (3, 5), stride=2, dilation=2),
    nn.Conv3d(3, 4, (1, 2, 3)),
]


@pytest.mark.parametrize("module", PLAIN, ids=lambda module: type(module).__name__)
def test_fans_are_pytorchs(module: nn.Module) -> None:
    layer = layer_of("", module)
    assert layer is not None
    fans = nn.init._calculate_fan_in_and_fan_out(module.weight)
    assert (layer.blocks.fan_in, layer.blocks.fan_out) == fans


def test_an_input_of_a_grouped_convolution_goes_into_its_own_group() -> None:
    module = nn.Conv2d(8, 12, 3, groups=4)
    layer = layer_of("", module)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    assert layer is not None
    # PyTorch's fan out does not know of groups.
    assert (layer.blocks.fan_in, layer.blocks.fan_out) == (fan_in, fan_out / 4)
    # The gradient of one input is that of so many products.
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    reached = sum(
        bool(torch.autograd.grad(module(x)[0, unit].sum(), x)[0][0, 0].any()) for unit in range(module.out_channels)
    )
    assert layer.blocks.fan_out == reached * 9


# A layer, the shape of an input, and where its output is that of the inside.
KEEPS: list[tuple[nn.Module, tuple[int, ...], tuple[slice, ...]]] = [
    (nn.Linear(300, 100), (400, 300), ()),
    (nn.Linear(100, 900), (100, 100), ()),
    (nn.Conv1d(40, 50, 5), (20, 40, 60), ()),
    (nn.Conv2d(32, 64, 3, groups=4), (20, 32, 12, 12), ()),
    (nn.Conv2d(64, 64, 3, groups=64, stride=2), (20, 64, 24, 24), ()),
    (nn.Conv3d(16, 40, (2, 3, 2)), (8, 16, 7, 7, 7), ()),
    (nn.ConvTranspose1d(60, 50, 6, stride=3), (20, 60, 30), (..., slice(6, -6))),
    (nn.ConvTranspose2d(64, 48, 4, stride=2, groups=2), (6, 64, 12, 12), (..., slice(4, -4), slice(4, -4))),
    (nn.ConvTranspose3d(32, 24, 2, stride=1), (4, 32, 6, 6, 6), (..., *[slice(2, -2)] * 3)),
    (Linear(200, 120, members=3), (200, 200), ()),
    (SharedLinear(200, 120, members=3, diverse=True), (200, 200), ()),
]


@pytest.mark.parametrize("rule", ["xavier", "he", "auto"])
@pytest.mark.parametrize(("module", "shape", "inside"), KEEPS, ids=lambda value: str(value)[:40])
def test_a_layer_keeps_the_variance_of_unit_inputs(
    module: nn.Module, shape: tuple[int, ...], inside: Any, rule: str
) -> None:
    initialize(module, "identity", rule=rule, generator=generator(1))
    output = module(torch.randn(shape, generator=generator(2)))[inside].detach()
    # The weights of a depthwise kernel are few: 9 of each of 64 channels, a relative deviation of √(2/576) = 0.06.
    assert float(output.square().mean()) == pytest.approx(1.0, abs=0.2 if "groups=64" in str(module) else 0.1)


class OfFanOut(He):
    """Wrong on purpose."""

    def std(self, blocks: Any, gain: float) -> float:
        return gain / math.sqrt(blocks.fan_out)


class OfRootGain(He):
    """Wrong on purpose: the gain where its square belongs."""

    def std(self, blocks: Any, gain: float) -> float:
        return math.sqrt(gain / blocks.fan_in)


@pytest.mark.parametrize("twin", [He(), OfFanOut(), OfRootGain()], ids=lambda rule: type(rule).__name__)
def test_a_rule_of_the_wrong_fan_or_of_the_gain_itself_is_caught(twin: Rule) -> None:
    layer = nn.Linear(200, 600)
    initialize(layer, "relu", rule=twin, generator=generator())
    pre = torch.randn(500, 200, generator=generator(1))
    mean_square = float(layer(torch.relu(pre)).detach().square().mean())
    # The deviation of the mean over 120000 weights and 500 rows is about 0.01.
    assert (abs(mean_square - 1) < 0.05) == (type(twin) is He)


def test_the_deviations_are_those_of_the_lecture() -> None:
    """SPEC E3: 0.01, 0.2, 1/D_in, 2/D_in, 2/((1 + a²) D_in); a sample's deviation is within 4/√(2 · 200000) of them."""
    expected: list[tuple[str | Rule, Any, float]] = [
        ("normal", None, 0.01),
        (Normal(0.2), None, 0.2),
        ("xavier", None, math.sqrt(1 / 400)),
        ("glorot", None, math.sqrt(2 / 900)),
        ("he", None, math.sqrt(2 / 400)),
        ("he", "relu", math.sqrt(2 / 400)),
        ("auto", "relu", math.sqrt(2 / 400)),
        ("he", nn.LeakyReLU(0.1), math.sqrt(2 / (1.01 * 400))),
        ("auto", "tanh", math.sqrt(1 / 400)),
    ]
    for rule, activation, std in expected:
        layer = nn.Linear(400, 500)
        record = initialize(layer, activation, rule=rule, generator=generator())
        assert record.layers[0].std == pytest.approx(std, rel=1e-6)
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.0064)
        assert abs(float(layer.weight.detach().mean())) < 4 * std / math.sqrt(200_000)
        assert not layer.bias.any()


def test_a_constant_makes_all_units_alike() -> None:
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    initialize(network, rule=Constant(0.3))
    network(torch.randn(20, 5)).square().sum().backward()
    gradient = network[0].weight.grad
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, gradient[:1].expand_as(gradient))
    initialize(network, rule="constant")
    assert not any(parameter.any() for parameter in network.parameters())


SQUARES: list[tuple[nn.Module, Any]] = [
    (nn.Linear(20, 12), lambda w: w.unsqueeze(0)),
    (nn.Linear(12, 20), lambda w: w.unsqueeze(0)),
    (nn.Conv2d(4, 10, 3), lambda w: w.reshape(1, 10, -1)),
    (nn.Conv1d(8, 12, 2, groups=4), lambda w: w.reshape(4, 3, 4)),
    (nn.ConvTranspose2d(6, 5, 2), lambda w: w.transpose(0, 1).reshape(1, 5, -1)),
    (Linear(9, 7, members=3), lambda w: w),
    (SharedLinear(9, 7, members=3), lambda w: w.unsqueeze(0)),
    (Maxout(9, 7, 3), lambda w: w.reshape(3, 7, 9)),
]


@pytest.mark.parametrize(("module", "matrices"), SQUARES, ids=lambda value: getattr(value, "__name__", str(value))[:30])
def test_orthogonal_rows_or_columns_have_the_length_of_the_gain(module: nn.Module, matrices: Any) -> None:
    initialize(module.double(), "relu", rule="orthogonal", generator=generator())
    matrix: Tensor = matrices(module.weight.detach())
    rows, columns = matrix.shape[1:]
    product = matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix
    expected = gain("relu") ** 2 * torch.eye(min(rows, columns), dtype=torch.float64)
    torch.testing.assert_close(product, expected.expand_as(product), rtol=0, atol=1e-12)


def test_orthogonal_matrices_are_uniform_and_not_of_the_factorizations_signs() -> None:
    first = torch.stack([Orthogonal().fill(torch.empty(3, 3), generator=generator(seed)) for seed in range(400)])
    # An element of a uniform orthogonal 3 × 3 matrix has mean 0 and variance 1/3: four standard errors of the mean.
    assert first.mean(0).abs().max() < 4 * math.sqrt(1 / 3 / 400)
    assert 0.4 < float((torch.linalg.det(first) > 0).double().mean()) < 0.6


@pytest.mark.parametrize("rule", [Normal(0.1), Xavier(), Glorot(), He(), Orthogonal()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_drawn_with_the_rules_deviation(rule: Rule, dtype: torch.dtype) -> None:
    module = nn.Conv2d(16, 32, 3).to(dtype)
    record = initialize(module, rule=rule, generator=generator())
    assert module.weight.dtype == dtype
    # 4608 weights: four standard errors are 4%.
    assert float(module.weight.detach().double().std()) == pytest.approx(record.layers[0].std, rel=0.045)


def test_one_weight_of_a_layer_of_ones_own() -> None:
    """The lecture's LinearLayer (S3) has its weight laid out (inputs, outputs)."""
    weight = nn.Parameter(torch.zeros(300, 50))
    assert He().fill(weight, fan_in=300, activation="relu", generator=generator()) is weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / 300), rel=0.03)
    for rule, fan_in, std in ((He(), None, math.sqrt(2 / 50)), (Xavier(), 300, math.sqrt(1 / 300))):
        rule.fill(weight, fan_in=fan_in, generator=generator())
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.03)
    Orthogonal().fill(weight, fan_in=300)
    torch.testing.assert_close(weight.detach().T @ weight.detach(), torch.eye(50), rtol=0, atol=1e-5)
    for wrong in ({"fan_in": 7}, {"fan_in": 0}):
        with pytest.raises(ShapeError, match="does not divide"):
            He().fill(weight, **wrong)
    with pytest.raises(ShapeError, match="two axes or more"):
        He().fill(torch.zeros(3))
    with pytest.raises(KindError, match="floating point"):
        He().fill(torch.zeros(3, 3, dtype=torch.long))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", list(RULES))
def test_layers_without_inputs_or_outputs_are_no_accident(name: str) -> None:
    network = nn.Sequential(nn.Linear(0, 5), nn.ReLU(), nn.Linear(5, 0))
    initialize(network, rule=name)
    assert network(torch.zeros(2, 0)).shape == (2, 0)


@pytest.mark.parametrize("make", [lambda: Normal(-1.0), lambda: Normal(math.nan), lambda: Constant(math.inf)])
def test_options_that_are_no_numbers_are_an_error(make: Any) -> None:
    with pytest.raises(InputError, match="expected a"):
        make()
