"""The lecture's picture (SPEC E4): activations and gradients, layer by layer, under each initialization.

Margins: the mean square of the outputs of a layer of n ReLU units, once all rows point the same way, is the sum of n
products whose ratio to its expectation has a standard deviation of √(5/n), 0.1 for 512 units. The geometric mean of the
ratios of k layers therefore has one of 0.1/√k, and margins are three to four of those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lastlayer import activations, initialize
from lastlayer.initialization import He, Normal, Rule, gain
from lastlayer.initialization.layers import Blocks

WIDTH, ROWS = 512, 1000


@dataclass(frozen=True)
class Picture:
    """What the lecture draws.

    Attributes:
        pre: mean square of every layer's pre-activations.
        std: standard deviation of every layer's activations.
        signal: standard deviation over the rows of every layer's activations, in the mean over units.
        near: share of every layer's activations whose size is beyond 0.99.
        slope: median size of every layer's local derivative.
        gradient: mean square of the gradient with respect to every layer's activations.
        weight_gradient: root mean square of the gradient with respect to every layer's weights.
    """

    pre: list[float]
    std: list[float]
    signal: list[float]
    near: list[float]
    slope: list[float]
    gradient: list[float]
    weight_gradient: list[float]


def deep(activation: Callable[[], nn.Module], depth: int = 10) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), activation()]
    return nn.Sequential(*layers)


def picture(network: nn.Sequential, rows: int = ROWS) -> Picture:
    """Standard normal rows in, random gradients of size 1 at the last activations back."""
    source = torch.Generator().manual_seed(7)
    value, pre, post = torch.randn(rows, WIDTH, generator=source), [], []
    for module in network:
        value = module(value)
        value.retain_grad()
        (pre if isinstance(module, nn.Linear) else post).append(value)
    value.backward(torch.randn(value.shape, generator=source))
    gradients = [(z.grad, a.grad) for z, a in zip(pre, post, strict=True)]
    linear = [module for module in network if isinstance(module, nn.Linear)]
    pre, post = [z.detach() for z in pre], [a.detach() for a in post]
    return Picture(
        [float(z.square().mean()) for z in pre],
        [float(a.std()) for a in post],
        [float(a.std(0).mean()) for a in post],
        [float((a.abs() > 0.99).double().mean()) for a in post],
        [float((back / front).abs().median()) for back, front in gradients],
        [float(front.square().mean()) for _, front in gradients],
        [float(layer.weight.grad.square().mean().sqrt()) for layer in linear],
    )


@cache
def drawn(activation: Any, rule: str | Rule, depth: int = 10) -> Picture:
    network = deep(activation, depth)
    initialize(network, rule=rule, generator=torch.Generator().manual_seed(0))
    return picture(network, ROWS if depth == 10 else 200)


def per_layer(values: list[float]) -> float:
    """The geometric mean of the ratios of neighbors."""
    return (values[-1] / values[0]) ** (1 / (len(values) - 1))


# --- tanh -------------------------------------------------------------------------------------------------------------


def test_small_numbers_let_tanh_activations_collapse() -> None:
    """σ = 0.01: every layer multiplies by 0.01 √512 = 0.226, so the tenth has a deviation of 0.226¹⁰ = 3.5e-7."""
    found = drawn(nn.Tanh, "normal")
    factor = 0.01 * math.sqrt(WIDTH)
    for layer, std in enumerate(found.std, start=1):
        # tanh bends a little in the first layers, each of which may add 2% below; 10 layers vary by some percent.
        assert std == pytest.approx(factor**layer, rel=0.1)
    assert found.std[-1] < 1e-6
    # The gradient with respect to what comes in from below goes the same way.
    assert per_layer(found.gradient) == pytest.approx(1 / factor**2, rel=0.1)
    assert found.gradient[0] < 1e-11


def test_large_numbers_saturate_tanh() -> None:
    """σ = 0.2: pre-activations have a deviation of 0.2 √(512 · 0.81) = 4.07, so 52% of them lie beyond 2.65, where
    |tanh| is 0.99. Their local derivatives are under 0.02, which the lecture calls zero. What comes back to the first
    layer is not small for it: through weights this large the gradient grows, and the loss is chaotic."""
    found = drawn(nn.Tanh, Normal(0.2))
    assert min(found.near) > 0.48
    assert max(found.near) < 0.6
    assert max(found.slope) < 1 - 0.98**2
    assert min(found.std) > 0.85
    assert found.gradient[0] > 1000 * found.gradient[-1]


def test_xavier_keeps_tanh_activations_and_gradients() -> None:
    """1/D_in: deviations fall from 0.63 to 0.23 in ten layers, since tanh is flatter than its slope at 0; that is like
    1/√layer, and no exponential. None saturates."""
    for found in (drawn(nn.Tanh, "xavier"), drawn(nn.Tanh, "auto")):
        assert max(found.std) < 0.7
        assert min(found.std) > 0.2
        assert max(found.near) < 0.02
        assert 0.1 < found.gradient[0] / found.gradient[-1] < 1
        assert 0.7 < found.weight_gradient[0] / found.weight_gradient[-1] < 1.5


@pytest.mark.parametrize("activation", [activations.Arctan, nn.Softsign, nn.Hardtanh])
def test_so_it_does_of_other_activations_around_0(activation: Any) -> None:
    """Softsign bends at 0 already, and falls like 1/layer: from 0.43 to 0.06."""
    found = drawn(activation, "auto")
    assert min(found.std) > found.std[0] / 10
    assert min(found.gradient) > found.gradient[-1] / 100


def test_sigmoids_start_as_tanhs_since_their_center_is_taken_away() -> None:
    """σ(x) = ½ + ½ tanh(x/2): with gain 4 and the bias against ½ the network is one of tanhs. The wrong twins: without
    the bias, or with gain 1, the rows are all alike behind ten layers."""
    found = drawn(nn.Sigmoid, "auto")
    assert found.signal[-1] > 0.08
    network = deep(nn.Sigmoid)
    initialize(network, generator=torch.Generator().manual_seed(0))
    for module in network:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    assert picture(network).signal[-1] < 0.01
    assert drawn(nn.Sigmoid, "xavier").signal[-1] < 1e-5
    as_tanh, half = deep(nn.Tanh), deep(nn.Sigmoid)
    initialize(half, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for place, (ours, other) in enumerate(zip(half, as_tanh, strict=True)):
            if isinstance(ours, nn.Linear):
                other.weight.copy_(ours.weight / (2 if place == 0 else 4))
                other.bias.zero_()
        x = torch.randn(20, WIDTH)
        torch.testing.assert_close(2 * half(x) - 1, as_tanh(x), rtol=0, atol=1e-4)


# --- rectifiers -------------------------------------------------------------------------------------------------------


def test_xavier_halves_the_mean_square_of_relu_with_every_layer() -> None:
    found = drawn(nn.ReLU, "xavier")
    assert per_layer(found.pre) == pytest.approx(0.5, rel=0.1)
    assert per_layer(found.gradient) == pytest.approx(2.0, rel=0.1)
    assert found.std[-1] < 0.06 * found.std[0]


@pytest.mark.parametrize("rule", ["he", "auto", "orthogonal"])
def test_he_keeps_the_mean_square_of_relu_forward_and_back(rule: str) -> None:
    found = drawn(nn.ReLU, rule)
    assert per_layer(found.pre) == pytest.approx(1.0, rel=0.1)
    assert per_layer(found.gradient) == pytest.approx(1.0, rel=0.1)
    # Every layer, and not only in the mean: four of the deviations after so many layers.
    for layer, mean_square in enumerate(found.pre):
        assert abs(math.log(mean_square)) < 4 * 0.1 * math.sqrt(layer + 1)


class Leaks(activations.PReLU):
    """Slopes of its own, one per channel, as training leaves them."""

    def __init__(self) -> None:
        super().__init__(WIDTH)
        nn.init.uniform_(self.slope, -0.5, 1.5, generator=torch.Generator().manual_seed(3))


DEEP = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.3),
    "prelu": activations.PReLU,
    "prelu, learned": Leaks,
    "rrelu": activations.RReLU,
    "elu": activations.ELU,
    "selu": nn.SELU,
}


@pytest.mark.parametrize("name", DEEP)
def test_the_own_gain_keeps_the_mean_square_through_30_layers(name: str) -> None:
    """The geometric mean of 29 ratios, within 3.5 of its deviations of 0.1/√29."""
    assert per_layer(drawn(DEEP[name], "auto", 30).pre) == pytest.approx(1.0, abs=0.065)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu", "prelu, learned"])
def test_and_that_of_the_gradient_of_rectifiers(name: str) -> None:
    """For f(x) = max(x, ax) the mean square of the slope is that of the value."""
    assert per_layer(drawn(DEEP[name], "auto", 30).gradient) == pytest.approx(1.0, abs=0.065)


class OfRootGain(He):
    """Wrong on purpose: variance gain / D_in."""

    def std(self, blocks: Blocks, gain: float) -> float:
        return math.sqrt(gain / blocks.fan_in)


def test_wrong_gains_do_not_pass_for_right() -> None:
    assert abs(per_layer(drawn(nn.ReLU, OfRootGain(), 30).pre) - 1) > 0.2
    # The slopes of a new PReLU in place of those that there are.
    network = deep(Leaks, 30)
    initialize(network, activations.PReLU(), generator=torch.Generator().manual_seed(0))
    assert abs(per_layer(picture(network, 200).pre) - 1) > 0.2


class OfFanOut(He):
    """Wrong on purpose: variance gain² / D_out."""

    def std(self, blocks: Blocks, gain: float) -> float:
        return gain / math.sqrt(blocks.fan_out)


def test_the_fan_in_decides_where_widths_change() -> None:
    """The widths fall from 1024 to 64: with fan-out every layer but the last would double its mean square."""

    def last(rule: str | Rule) -> float:
        widths = (1024, 512, 256, 128, 64)
        layers = [part for i, o in itertools.pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())]
        network = nn.Sequential(*layers[:-1])
        initialize(network, rule=rule, generator=torch.Generator().manual_seed(0))
        x = torch.randn(500, 1024, generator=torch.Generator().manual_seed(1))
        return float(network(x).detach().square().mean())

    # The deviation of four layers is √(5/512 + 5/256 + 5/128 + 2/64) = 0.3.
    assert 0.4 < last("auto") < 2.2
    assert last(OfFanOut()) > 6


# --- which activation's gain ------------------------------------------------------------------------------------------


def following(activation: Callable[[], nn.Module], depth: int = 10) -> Picture:
    """The common practice: every layer takes the gain of the activation behind it."""
    network = deep(activation, depth)
    source = torch.Generator().manual_seed(0)
    for module in network:
        if isinstance(module, nn.Linear):
            He().fill(module.weight, activation=activation(), generator=source)
            nn.init.zeros_(module.bias)
    return picture(network)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Mish])
def test_the_gain_of_what_is_read_keeps_smooth_rectifiers_where_that_of_what_follows_does_not(activation: Any) -> None:
    """Variance 1 is a fixed point that repels: deviations grow, so they may add up to more than with ReLU; but a start
    at gain² = 2.2 to 2.8 is 20% to 40% more in every layer."""
    ours, theirs = drawn(activation, "auto"), following(activation)
    assert ours.pre[0] == pytest.approx(1.0, abs=0.05)
    assert 0.5 < ours.pre[-1] < 2.0
    assert theirs.pre[0] == pytest.approx(gain(activation) ** 2, rel=0.05)
    assert theirs.pre[-1] > 1.3 * theirs.pre[0]
    assert abs(math.log(theirs.pre[-1])) > 2 * abs(math.log(ours.pre[-1]))


def test_for_relu_it_is_the_same_network_in_the_end() -> None:
    """The factor √2 is at the first layer with one, at the last with the other: outputs have one distribution."""
    ours = drawn(nn.ReLU, "auto")
    theirs = following(nn.ReLU)
    assert theirs.pre[-1] / ours.pre[-1] == pytest.approx(2.0, rel=1e-3)


def mixed() -> tuple[Tensor, nn.Sequential]:
    source = torch.Generator().manual_seed(2)
    kinds = [nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus, lambda: nn.LeakyReLU(0.5), nn.SELU, nn.Softsign, nn.ELU]
    layers = [part for kind in kinds for part in (nn.Linear(WIDTH, WIDTH), nn.Dropout(0.0), kind())]
    return torch.randn(ROWS, WIDTH, generator=source), nn.Sequential(*layers, nn.Linear(WIDTH, WIDTH))


def test_a_network_of_many_activations_is_read_layer_by_layer() -> None:
    """What comes behind tanh and softsign is smaller, as Xavier has it; everything else has mean square 1."""
    x, network = mixed()
    initialize(network, generator=torch.Generator().manual_seed(0))
    squares = []
    with torch.no_grad():
        for module in network:
            x = module(x)
            if isinstance(module, nn.Linear):
                squares.append(float(x.square().mean()))
    assert squares[:2] == pytest.approx([1, 1], abs=0.15)
    # E[tanh²] = 0.394 of standard normal numbers.
    assert squares[2] == pytest.approx(0.394, abs=0.08)
    assert all(0.1 < square < 1.5 for square in squares)
