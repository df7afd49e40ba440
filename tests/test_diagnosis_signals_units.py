"""Units that start alike, that are dead, that are saturated; and those that only look so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import activations
from lastlayer.diagnosis import initial_weights, units
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.layers import record_layers
from lastlayer.diagnosis.signals import judge_layers

ROWS = 256


def rows(width: int = 8, count: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, width, generator=generator)
    return x, (x[:, :1] * x[:, 1:2] + x[:, 2:3]).tanh()


def network(activation: nn.Module | None = None, *, width: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    activation = nn.ReLU() if activation is None else activation
    return nn.Sequential(nn.Linear(8, width), activation, nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 1))


def judged(module: nn.Module, *, count: int = ROWS, x: Tensor | None = None) -> list[Finding]:
    given, y = rows(count=count)
    layers = record_layers(module, given if x is None else x, F.mse_loss, y if x is None else torch.zeros(len(x), 1))
    return judge_layers(layers, rows=count)


def verdict(findings: list[Finding], name: str) -> str | None:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) <= 1
    return found[0].severity if found else None


# --- units that start alike ----------------------------------------------------------------------------------------


def constant(module: nn.Module, value: float = 0.1, *, biases: bool = True) -> nn.Module:
    """Every weight matrix the same number; biases 0, unless they are left as drawn."""
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            nn.init.constant_(parameter, value)
        elif biases and "bias" in name:
            nn.init.zeros_(parameter)
    return module


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x.unsqueeze(1))[0][:, -1])


def images() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 1),
    )  # fmt: skip


@pytest.mark.parametrize("make", [network, images, Recurrent])
@pytest.mark.parametrize("value", [0.1, -0.05])
def test_constant_weights_stay_constant(make: Callable[[], nn.Module], value: float) -> None:
    """Found; and after steps of training the units are still alike, which is what the finding says."""
    module = constant(make(), value)
    if make is images:
        nn.init.constant_(module.get_parameter("1.bias"), 1.0)  # So that not all units are dead.
        nn.init.constant_(module.get_parameter("3.bias"), 1.0)
    (found,) = [finding for finding in judged(module) if finding.name == "constant_weights"]
    assert found.severity == "error"
    assert "Their gradients are alike too" in found.evidence
    x, y = rows()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(module(x), y).backward()
        optimizer.step()
    first = next(parameter for name, parameter in module.named_parameters() if parameter.dim() > 1)
    of_units = first.detach().view(3, 6, 8) if make is Recurrent else first.detach().flatten(1).unsqueeze(0)
    assert (of_units - of_units[:, :1]).abs().max() < 1e-5 * of_units.abs().max()


def test_zero_weights() -> None:
    for activation in (nn.ReLU(), nn.Sigmoid(), nn.Tanh()):
        assert verdict(judged(constant(network(activation), 0.0)), "constant_weights") == "error"
    # One layer of zeros between drawn ones: a ReLU of 0 has no slope, and nothing will ever tell its units apart. A
    # tanh has, and the weights behind it do.
    for activation, expected in ((nn.ReLU(), "error"), (nn.Tanh(), None)):
        module = network(activation)
        nn.init.zeros_(module[0].weight)
        nn.init.zeros_(module[0].bias)
        assert verdict(judged(module), "constant_weights") == expected


def test_what_tells_constant_units_apart_is_said() -> None:
    by_biases = judged(constant(network(), biases=False))
    assert verdict(by_biases, "constant_weights") == "warning"
    assert "Only their biases" in str(by_biases)
    one_layer = network()
    nn.init.constant_(one_layer[0].weight, 0.1)
    assert verdict(judged(one_layer), "constant_weights") == "note"


def test_chance_of_dropout_is_not_what_should_tell_units_apart() -> None:
    module = constant(nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 16), nn.Linear(16, 1)))
    found = examine(initial_weights.CHECKS, module, nn.MSELoss(), rows())
    assert found.errors
    assert found.errors[0].tried is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda module: nn.init.zeros_(module[4].weight),  # The output layer starts at nothing.
        lambda module: nn.init.constant_(module[4].weight, 0.3),
        lambda module: nn.init.zeros_(module[0].bias),
        lambda module: nn.init.eye_(module[2].weight),
        lambda module: nn.init.constant_(module[0].weight[:5], 0.2),  # Some units, not all.
        lambda module: module[0].weight.mul_(1e-6),
    ],
)
def test_ways_to_start_that_are_right(change: Callable[[nn.Module], object]) -> None:
    module = network(nn.GELU())
    with torch.no_grad():
        change(module)
    assert verdict(judged(module), "constant_weights") is None


def test_one_unit_and_one_channel_each() -> None:
    narrow = nn.Sequential(nn.Linear(8, 1), nn.Tanh(), nn.Linear(1, 1))
    nn.init.constant_(narrow[0].weight, 0.3)
    assert not judged(narrow)
    blur = nn.Sequential(
        nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 2, groups=6), nn.Flatten(), nn.Linear(18, 1)
    )
    nn.init.constant_(blur[2].weight, 0.25)
    assert verdict(judged(blur), "constant_weights") is None


def test_frozen_weights_are_left_alone() -> None:
    module = network()
    nn.init.constant_(module[0].weight, 0.1)
    module[0].requires_grad_(False)
    assert verdict(judged(module), "constant_weights") is None


# --- dead units ----------------------------------------------------------------------------------------------------


def with_dead(share: float, activation: nn.Module | None = None, *, width: int = 32) -> nn.Sequential:
    """A network of which a share of the first layer lies far below 0."""
    module = network(activation, width=width)
    with torch.no_grad():
        module[0].bias[: round(share * width)] = -50.0
    return module


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, None), (0.1, None), (0.3, "note"), (0.6, "warning"), (1.0, "error")]
)
def test_dead_units(share: float, expected: str | None) -> None:
    findings = judged(with_dead(share))
    assert verdict(findings, "dead_units") == expected
    if expected is not None:
        assert f"{round(32 * share)} of 32 units of layer '1' (ReLU) are flat on all 256 rows" in str(findings)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU6(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Hardswish(), nn.Hardtanh(), nn.Threshold(0.0, 0.0)],
    ids=lambda activation: type(activation).__name__,
)
def test_every_activation_with_a_flat_side_can_die(activation: nn.Module) -> None:
    assert verdict(judged(with_dead(1.0, activation)), "dead_units") == "error"
    assert verdict(judged(with_dead(0.0, activation)), "dead_units") is None


class Concatenated(nn.Module):
    """Both sides of 0, each by a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(x), F.relu(-x)], dim=-1)[:, ::2]


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.1), nn.PReLU(), activations.PReLU(), activations.RReLU(), Concatenated()],
    ids=["leaky ReLU", "PReLU", "PReLU of ours", "RReLU of ours", "concatenated"],
)
def test_what_is_flat_nowhere_cannot(activation: nn.Module) -> None:
    """Nor what is written as a ReLU and the rest beside it."""
    assert verdict(judged(with_dead(1.0, activation)), "dead_units") is None


@pytest.mark.parametrize("name", [name for name, each in activations.catalog().items() if each.facts.elementwise])
def test_every_activation_of_ours_is_left_alone(name: str) -> None:
    assert not judged(network(activations.modules()[name]()))


def test_units_that_are_flat_by_chance_are_not_dead() -> None:
    """With rows that hardly differ, half of the units are flat on all of them, and half on none."""
    x = torch.ones(ROWS, 8) + 0.01 * torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
    for width in (8, 32, 128):
        module = network(width=width)
        relu = record_layers(module, x)[1]
        assert relu.dead_units is not None
        assert relu.dead_units >= width // 4
        assert verdict(judged(module, x=x), "dead_units") is None
        assert verdict(judged(with_dead(0.9, width=64), x=x), "dead_units") == "warning"


def test_few_rows_show_less() -> None:
    assert verdict(judged(with_dead(0.6), count=32), "dead_units") == "note"
    assert verdict(judged(with_dead(1.0), count=32), "dead_units") == "error"
    assert verdict(judged(with_dead(1.0), count=4), "dead_units") is None


def test_a_dead_branch_beside_a_living_path() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 1)
            nn.init.constant_(self.branch.bias, -50.0)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x))
            return self.last(x + F.relu(self.branch(x)))

    (found,) = judged(Net())
    assert (found.name, found.severity) == ("dead_units", "warning")
    assert found.where == "relu in Net's forward, after layer 'branch' (Linear)"


# --- saturated units -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "large"), [(nn.Tanh(), 15.0), (nn.Sigmoid(), 30.0), (nn.Hardtanh(), 5.0), (nn.Softsign(), 50.0)]
)
def test_saturated_units(activation: nn.Module, large: float) -> None:
    for factor, expected in ((1.0, None), (large, "warning"), (100 * large, "error")):
        module = network(activation)
        with torch.no_grad():
            module[0].weight *= factor
        assert verdict(judged(module), "saturated_units") == expected, factor


def test_large_inputs_are_what_is_to_be_mended() -> None:
    x = 500 * rows()[0]
    (found,) = [each for each in judged(network(nn.Tanh()), x=x) if each.name == "saturated_units"]
    assert found.fix == f"Standardize the inputs, whose root mean square is {x.square().mean().sqrt():.3g}."
    with_large_weights = network(nn.Tanh())
    nn.init.normal_(with_large_weights[0].weight, std=30.0)
    assert "Xavier" in str(judged(with_large_weights))


class Gated(nn.Module):
    """An output that is a sigmoid, and gates before it that lie around ``bias``."""

    def __init__(self, *, bias: float = 0.0, sharpness: float = 1.0) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 1)
        self.sharpness = sharpness
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.sharpness * self.gate(x)).view(-1, 32)
        return torch.sigmoid(30 + self.last(F.gelu(self.first(x)) * gate))


def test_gates_and_outputs_may_lie_at_an_end() -> None:
    torch.manual_seed(0)
    for bias in (0.0, 15.0, -15.0):
        assert verdict(judged(Gated(bias=bias)), "saturated_units") is None


def test_gates_may_not_switch_before_they_have_learned_to() -> None:
    torch.manual_seed(0)
    (found,) = judged(Gated(sharpness=300.0))
    assert (found.name, found.severity) == ("saturated_units", "error")
    assert found.where == "sigmoid in Gated's forward, after layer 'gate' (Linear)"


def test_checks_of_units_say_what_a_right_start_does() -> None:
    module = network(nn.Tanh())
    with torch.no_grad():
        module[0].weight *= 300
    (found,) = examine(units.CHECKS, module, nn.MSELoss(), rows())
    assert found.name == "saturated_units"
    assert found.tried is not None
    assert "started by lastlayer.initialize" in found.tried
