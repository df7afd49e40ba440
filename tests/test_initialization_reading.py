"""What each layer of a network is seen to read, and what is not seen."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lastlayer
from lastlayer import LastLayerWarning, activations, initialize
from lastlayer.initialization import Initialization, gain


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), *between, nn.Linear(16, 2))


def gains(record: Initialization) -> dict[str, float]:
    return {row.name: row.gain for row in record.layers}


class Functional(nn.Module):
    """Activations that no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(F.relu(self.first(x)))))


class LinearLayer(nn.Module):
    """The lecture's (S3), with its own names and layout."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(inputs, outputs))
        self.b = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + self.b


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class ScaleNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / x.norm(dim=-1, keepdim=True) + self.bias


# --- what a layer reads -----------------------------------------------------------------------------------------------

RELU = math.sqrt(2)
BETWEEN: list[tuple[tuple[nn.Module, ...], float, str]] = [
    ((nn.ReLU(),), RELU, "ReLU"),
    ((activations.ReLU(),), RELU, "ReLU"),
    ((nn.ReLU(inplace=True), nn.Dropout(0.5)), RELU, "ReLU"),
    ((nn.BatchNorm1d(16), nn.GELU()), gain("gelu"), "GELU"),
    ((nn.ReLU(), nn.Identity(), Nothing(), Noise()), RELU, "ReLU"),
    ((nn.ReLU(), nn.Unflatten(1, (4, 4)), nn.AvgPool1d(1), nn.Flatten()), RELU, "ReLU"),
    ((nn.ReLU(), nn.LayerNorm(16)), 1.0, "LayerNorm"),
    ((nn.ReLU(), ScaleNorm(16)), 1.0, "ScaleNorm"),
    ((nn.Tanh(),), 1.0, "Tanh"),
    ((nn.Sigmoid(),), 4.0, "Sigmoid"),
    ((Square(),), 1 / math.sqrt(3), "Square"),
    ((nn.ReLU(), nn.ELU(2.0)), gain(nn.ELU(2.0)), "ELU"),
    ((nn.PReLU(init=0.9),), math.sqrt(2 / 1.81), "PReLU"),
]


@pytest.mark.parametrize(("between", "expected", "reads"), BETWEEN, ids=lambda value: str(value)[:40])
def test_a_layer_has_the_gain_of_what_it_reads(between: tuple[nn.Module, ...], expected: float, reads: str) -> None:
    first, second = initialize(mlp(*between)).layers
    assert (first.reads, first.gain) == ("the input", 1.0)
    assert second.reads == reads
    assert second.gain == pytest.approx(expected, rel=1e-6)
    assert second.std == pytest.approx(expected / 4, rel=1e-6)


def test_an_activation_used_twice_is_read_twice() -> None:
    shared = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared, nn.Linear(3, 3))
    assert list(gains(initialize(network)).values()) == pytest.approx([1, RELU, RELU])


def test_maxout_is_a_layer_and_what_the_next_one_reads() -> None:
    network = nn.Sequential(activations.Maxout(4, 5, 4), nn.Linear(5, 2))
    assert list(gains(initialize(network)).values()) == pytest.approx([1, gain(network[0])])


def test_a_recurrent_or_foreign_layer_starts_anew() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.LSTM(3, 3), nn.Linear(3, 3))
    before = copy.deepcopy(network[2].state_dict())
    record = initialize(network)
    assert gains(record) == {"0": 1.0, "3": 1.0}
    assert record.notes == ("Left as it was, which starts by rules of its own: '2'.",)
    assert all(torch.equal(before[name], value) for name, value in network[2].state_dict().items())


@pytest.mark.parametrize("activation", ["relu", nn.ReLU, nn.ReLU(), torch.relu])
def test_an_activation_that_is_named_is_read_by_all_layers_but_the_first(activation: Any) -> None:
    assert list(gains(initialize(Functional(), activation)).values()) == pytest.approx([1, RELU, RELU])
    assert list(gains(initialize(mlp(nn.Tanh()), activation)).values()) == pytest.approx([1, RELU])
    # A single layer is one from the middle.
    assert list(gains(initialize(nn.Linear(3, 3), activation)).values()) == pytest.approx([RELU])


def test_functions_that_are_activations_cannot_be_seen_and_that_is_said() -> None:
    with pytest.warns(LastLayerWarning, match=r"no activation was found between the 3 layers.*'relu'"):
        assert list(gains(initialize(Functional())).values()) == [1, 1, 1]
    registered = Functional()
    registered.activation = nn.ReLU()
    with pytest.warns(LastLayerWarning, match="or that is registered elsewhere"):
        initialize(registered)
    with pytest.warns(LastLayerWarning, match="or that is registered elsewhere"):
        initialize(nn.ModuleList([nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 3)]))
    initialize(Functional(), "identity")
    initialize(Functional(), rule="xavier")
    # He is the rule of ReLU, if nothing else is seen.
    assert list(gains(initialize(Functional(), rule="he")).values()) == pytest.approx([1, RELU, RELU])
    assert gains(initialize(mlp(nn.ELU()), rule="he"))["2"] == pytest.approx(gain("elu"))


def test_prelu_slopes_stay_unless_they_are_to_start_again() -> None:
    network = mlp(activations.PReLU(16, 0.1))
    with torch.no_grad():
        network[1].slope.fill_(0.8)
    assert gains(initialize(network))["2"] == pytest.approx(math.sqrt(2 / 1.64), rel=1e-6)
    assert (network[1].slope == 0.8).all()
    assert gains(initialize(network, reset_slopes=True))["2"] == pytest.approx(math.sqrt(2 / 1.01), rel=1e-6)
    assert (network[1].slope == 0.1).all()
    network = mlp(nn.PReLU(init=0.7))
    nn.init.zeros_(network[1].weight)
    initialize(network, reset_slopes=True)
    assert network[1].weight.item() == pytest.approx(0.7)


# --- what cannot be guessed -------------------------------------------------------------------------------------------


def test_a_layer_of_ones_own_is_named_with_the_fix() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), LinearLayer(5, 3))
    before = network[2].w.detach().clone()
    with pytest.warns(LastLayerWarning) as caught:
        record = initialize(network)
    (message,) = [str(warning.message) for warning in caught]
    fix = "lastlayer.initialization.He().fill(network.get_parameter('2.w'), fan_in=5)"
    assert "'2.w'" in message
    assert "(5, 3)" in message
    assert fix in message
    assert torch.equal(network[2].w, before)
    assert record.notes[0] in message
    eval(fix, {"lastlayer": lastlayer, "network": network})
    assert not torch.equal(network[2].w, before)
    # A network of nothing else, too.
    with pytest.warns(LastLayerWarning, match=r"'0\.w', '1\.w'"):
        assert initialize(nn.Sequential(LinearLayer(2, 2), LinearLayer(2, 2))).layers == ()


def test_matrices_that_a_subclass_adds_are_named_too() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.lower = nn.Parameter(torch.ones(4, 1))

    network = nn.Sequential(Adapted(), nn.ReLU(), nn.Linear(4, 1))
    with pytest.warns(LastLayerWarning, match=r"initialize: '0\.lower': left as it was"):
        assert [row.name for row in initialize(network).layers] == ["0", "2"]
    assert (network[0].lower == 1).all()


class Own(nn.Module):
    """Somebody's linear layer, laid out as PyTorch's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(outputs, inputs)), nn.Parameter(torch.rand(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def test_a_weight_of_an_unknown_class_is_drawn_if_the_rule_is_named() -> None:
    network = nn.Sequential(Own(200, 300), nn.ReLU(), nn.Linear(300, 2))
    with pytest.warns(LastLayerWarning, match=r"'0\.weight'.*name the rule"):
        initialize(network)
    assert network[0].weight.min() >= 0
    initialize(network, rule="he", generator=generator())
    assert float(network[0].weight.detach().std()) == pytest.approx(1 / math.sqrt(200), rel=0.02)
    assert not network[0].bias.any()
