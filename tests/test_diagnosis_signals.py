"""Signals that die out, blow up or say nothing, beside the same networks started right, and beside what they learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lastlayer.diagnosis.fresh_start as fresh_start
from lastlayer.diagnosis import activations_by_layer, gradients_by_layer, initial_weights, units
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.finding import Finding, Findings
from lastlayer.diagnosis.gradients_by_layer import leverages
from lastlayer.diagnosis.layers import record_layers
from lastlayer.diagnosis.signals import judge_layers

CHECKS = tuple(
    check for file in (initial_weights, activations_by_layer, gradients_by_layer, units) for check in file.CHECKS
)
ROWS = 200
Draw = Callable[[Tensor], object]
Make = Callable[[], nn.Module]


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images of ten digits as standardized columns."""
    features, target = load_digits(return_X_y=True)
    x = torch.as_tensor(features).float()
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-3), torch.as_tensor(target)


def mlp(depth: int, activation: Make = nn.ReLU, draw: Draw | None = None, *, width: int = 32) -> nn.Sequential:
    """So many hidden layers; PyTorch's own start, or weights as drawn and biases 0."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise([64, *[width] * depth, 10]):
        layers += [nn.Linear(inputs, outputs), activation()]
    network = nn.Sequential(*layers[:-1])
    for layer in network:
        if draw is not None and isinstance(layer, nn.Linear):
            draw(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def normal(std: float) -> Draw:
    return lambda weight: nn.init.normal_(weight, std=std)


def lecture_xavier(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))


def he(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


def judged(network: nn.Module, *, trained: bool = False) -> list[Finding]:
    x, y = digits()
    return judge_layers(record_layers(network, x[:ROWS], F.cross_entropy, y[:ROWS]), rows=ROWS, trained=trained)


def alarms(findings: list[Finding] | Findings) -> set[str]:
    return {finding.name for finding in findings if finding.severity != "note"}


BROKEN: dict[str, tuple[Make, str, str]] = {
    "small tanh": (lambda: mlp(10, nn.Tanh, normal(0.01)), "collapsing_activations", "error"),
    "Xavier for thirty ReLU layers": (lambda: mlp(30, nn.ReLU, lecture_xavier), "collapsing_activations", "warning"),
    "twelve ReLU layers of PyTorch's start": (lambda: mlp(12), "collapsing_activations", "warning"),
    "thirty ReLU layers of PyTorch's start": (lambda: mlp(30), "vanishing_gradients", "error"),
    "eight sigmoid layers": (lambda: mlp(8, nn.Sigmoid, lecture_xavier), "vanishing_gradients", "warning"),
    "twelve sigmoid layers": (lambda: mlp(12, nn.Sigmoid, lecture_xavier), "vanishing_gradients", "error"),
    "large ReLU": (lambda: mlp(5, nn.ReLU, normal(1.0)), "exploding_activations", "error"),
    "large ELU": (lambda: mlp(4, nn.ELU, normal(0.6)), "exploding_activations", "warning"),
    "large leaky ReLU": (lambda: mlp(6, nn.LeakyReLU, normal(0.8)), "exploding_gradients", "error"),
    "very large tanh": (lambda: mlp(10, nn.Tanh, normal(1.5)), "exploding_gradients", "error"),
    "large tanh": (lambda: mlp(10, nn.Tanh, normal(0.7)), "saturated_units", "warning"),
    "large sigmoid": (lambda: mlp(1, nn.Sigmoid, normal(2.0)), "saturated_units", "warning"),
    "constant": (lambda: mlp(2, nn.Tanh, lambda weight: nn.init.constant_(weight, 0.1)), "constant_weights", "error"),
    "zero": (lambda: mlp(2, nn.Sigmoid, nn.init.zeros_), "constant_weights", "error"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    make, fault, severity = BROKEN[name]
    found = [finding for finding in judged(make()) if finding.name == fault]
    assert [finding.severity for finding in found] == [severity]
    assert "layer '" in found[0].where
    assert found[0].numbers


HEALTHY: dict[str, Make] = {
    **{f"{depth} ReLU layers of PyTorch's start": (lambda depth=depth: mlp(depth)) for depth in range(2, 7)},
    "Xavier tanh": lambda: mlp(10, nn.Tanh, lecture_xavier),
    "He ReLU": lambda: mlp(12, nn.ReLU, he),
    "He ReLU, thirty layers": lambda: mlp(30, nn.ReLU, he, width=64),
    "He leaky ReLU": lambda: mlp(12, nn.LeakyReLU, he),
    "two sigmoid layers": lambda: mlp(2, nn.Sigmoid),
    "GELU": lambda: mlp(4, nn.GELU),
    "SELU": lambda: mlp(8, nn.SELU, lecture_xavier),
    "Hardswish": lambda: mlp(3, nn.Hardswish),
    "linear": lambda: nn.Linear(64, 10),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_learns_is_left_alone(name: str) -> None:
    assert not judged(HEALTHY[name]())


def loss_kept(network: nn.Module, *, steps: int = 150) -> float:
    """The share of the loss that is left after gradient descent with momentum."""
    x, y = digits()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20 / max(losses[0], math.log(10))


@pytest.mark.parametrize(
    ("make", "learns"),
    [
        (lambda: mlp(3), True),
        (lambda: mlp(12), False),
        (lambda: mlp(10, nn.Tanh, lecture_xavier), True),
        (lambda: mlp(10, nn.Tanh, normal(0.01)), False),
        (lambda: mlp(1, nn.Sigmoid), True),
        (lambda: mlp(6, nn.Sigmoid), False),
        (lambda: mlp(30, nn.ReLU, lecture_xavier), False),
    ],
)
def test_the_verdict_is_what_training_shows(make: Make, learns: bool) -> None:
    """Plain gradient descent keeps 97 % of the loss where something was found, less than a third where nothing was."""
    assert (not alarms(judged(make()))) == learns
    share = loss_kept(make())
    assert share < 1 / 3 if learns else share > 0.97


def test_the_factor_a_layer_is_what_theory_says() -> None:
    """Weights of standard deviation σ make a small signal σ√D as large; behind a ReLU half of its square is left."""
    for draw, activation, factor in (
        (normal(0.01), nn.Tanh, 0.01 * math.sqrt(128)),
        (lecture_xavier, nn.ReLU, 1 / math.sqrt(2)),
    ):
        depth = 10 if activation is nn.Tanh else 30
        (found,) = [
            finding for finding in judged(mlp(depth, activation, draw, width=128)) if finding.name.startswith("coll")
        ]
        a_layer = found.numbers["share"] ** (1 / found.numbers["layers"])
        assert a_layer == pytest.approx(factor, rel=0.1)
        assert f"{depth} layers, a factor of {a_layer:.2g} a layer" in found.evidence


def test_leverage_is_a_pure_number() -> None:
    """Neither the loss's scale nor its reduction is in it, nor which layer of ReLU units has the size."""
    x, y = digits()
    x, y = x[:ROWS], y[:ROWS]
    network = mlp(3, nn.ReLU, he)

    def measured(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        return list(leverages(record_layers(network, x, loss, y), rows=ROWS).values())

    plain = measured(network, F.cross_entropy)
    assert measured(network, lambda raw, y: F.cross_entropy(raw, y, reduction="sum")) == pytest.approx(plain, rel=1e-4)
    assert measured(network, lambda raw, y: 1e-12 * F.cross_entropy(raw, y)) == pytest.approx(plain, rel=1e-4)
    with torch.no_grad():
        network[0].weight *= 50
        network[4].weight /= 50
    assert measured(network, F.cross_entropy) == pytest.approx(plain, rel=1e-4)
    # By its definition, from PyTorch's own gradients.
    raw = network(x)
    raw.retain_grad()
    F.cross_entropy(raw, y).backward()
    weight = network[2].weight
    assert raw.grad is not None
    assert weight.grad is not None
    per_row = raw.grad * ROWS
    by_hand = weight.grad.norm() * weight.square().mean().sqrt() / per_row.square().sum(1).mean().sqrt()
    assert plain[1] == pytest.approx(by_hand.item(), rel=1e-4)


class ResidualChain(nn.Module):
    """x plus branches, which may start as nothing, and a last layer, which may as well."""

    def __init__(self, *, last_is_zero: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.inner = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))
        self.outer = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))
        for outer in self.outer:
            nn.init.zeros_(outer.weight)
            nn.init.zeros_(outer.bias)
        if last_is_zero:
            nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(torch.relu(inner(x)))
        return self.last(x)


class Sequence(nn.Module):
    """Rows of pixels as a sequence, through PyTorch's layers for such."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.embed, self.body, self.last = nn.Linear(8, width), body, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.embed(x.view(-1, 8, 8)))
        return self.last((x[0] if isinstance(x, tuple) else x)[:, -1])


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    return Sequence(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), 32)


def zero_last() -> nn.Module:
    network = mlp(4)
    nn.init.zeros_(network[-1].weight)
    return network


def normalized() -> nn.Module:
    """Small weights do no harm before a normalization."""
    network = nn.Sequential(
        *itertools.chain.from_iterable(
            (nn.Linear(64, 64), nn.BatchNorm1d(64, eps=1e-12), nn.ReLU()) for _ in range(12)
        ),
        nn.Linear(64, 10),
    )
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.005)
    return network


def frozen() -> nn.Module:
    network = mlp(3)
    for layer in network[:4]:
        layer.requires_grad_(False)
    nn.init.constant_(network[0].weight, 0.1)
    return network


ARCHITECTURES: dict[str, Make] = {
    "branches that start as nothing": lambda: ResidualChain(last_is_zero=False),
    "and a last layer that does": ResidualChain,
    "a last layer that starts as nothing": zero_last,
    "small weights before batch normalization": normalized,
    "transformer": transformer,
    "LSTM": lambda: Sequence(nn.LSTM(32, 32, 2, batch_first=True), 32),
    "GRU": lambda: Sequence(nn.GRU(32, 32, 3, batch_first=True), 32),
    "recurrent": lambda: Sequence(nn.RNN(32, 32, 2, batch_first=True), 32),
    "weight normalization": lambda: nn.Sequential(
        *(nn.utils.parametrizations.weight_norm(layer) if isinstance(layer, nn.Linear) else layer for layer in mlp(3))
    ),
    "a body that is frozen": frozen,
    "embedding": lambda: nn.Sequential(nn.Embedding(50, 16), nn.Flatten(), nn.Linear(64 * 16, 10)),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rows", [2, 8, ROWS])
def test_architectures_that_are_right(name: str, rows: int) -> None:
    x, y = digits()
    torch.manual_seed(0)
    network = ARCHITECTURES[name]()
    x = (x.abs() * 10).long().clamp(max=49) if name == "embedding" else x
    assert not alarms(judge_layers(record_layers(network, x[:rows], F.cross_entropy, y[:rows]), rows=rows))


def test_sizes_of_the_data_are_another_question() -> None:
    """Inputs of any size and of any target's: what a linear layer makes larger is not the weights' doing."""
    x, y = digits()
    for scale in (1e-5, 1e5):
        network = mlp(3)
        layers = record_layers(network, scale * x[:ROWS], F.cross_entropy, y[:ROWS])
        assert not judge_layers(layers, rows=ROWS)
    target = 1e6 * torch.randn(ROWS, 10, generator=torch.Generator().manual_seed(0))
    assert not judge_layers(record_layers(mlp(3), x[:ROWS], nn.MSELoss(), target), rows=ROWS)


def test_what_was_learned_is_no_fault() -> None:
    """After training large outputs and tanh units at one end or the other are what tells the classes apart."""
    network = mlp(2, nn.Tanh)
    with torch.no_grad():
        network[0].weight *= 20
        network[4].weight *= 150
    assert {"saturated_units", "exploding_activations"} <= alarms(judged(network))
    assert not {"saturated_units", "exploding_activations"} & alarms(judged(network, trained=True))


def test_before_training_with_what_a_right_start_does() -> None:
    x, y = digits()
    network = mlp(10, nn.Tanh, normal(0.01))
    (found,) = [
        finding
        for finding in examine(CHECKS, network, nn.CrossEntropyLoss(), (x[:ROWS], y[:ROWS]))
        if finding.name == "collapsing_activations"
    ]
    assert found.tried is not None
    assert found.tried.startswith("started by lastlayer.initialize, 40 steps of Adam on a copy took this batch's loss")
    assert "lastlayer.initialize(network)" in found.fix
    assert found.to_dict()["numbers"]["layers"] == 10
    # What would take long is not tried.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_start, "_MOST_PRODUCTS", 1.0)
        findings = examine(CHECKS, network, nn.CrossEntropyLoss(), (x[:ROWS], y[:ROWS]))
    assert [finding.tried for finding in findings] == [None] * len(findings)


def test_silent_where_there_is_nothing_to_see() -> None:
    x, y = digits()
    loss = nn.CrossEntropyLoss()
    broken = mlp(10, nn.Tanh, normal(0.01))
    for network, value, batch in (
        (mlp(2), loss, (x[:1], y[:1])),  # One row.
        (mlp(2), loss, (x[:0], y[:0])),
        (mlp(2), loss, (torch.zeros(ROWS, 64), y[:ROWS])),  # Rows that are all the same.
        (mlp(2), loss, (torch.full((ROWS, 64), math.nan), y[:ROWS])),
        (mlp(2), loss, (x[:ROWS, :60], y[:ROWS])),  # A pass that fails.
        (mlp(2), lambda raw, target: raw.detach().mean(), (x[:ROWS], y[:ROWS])),  # No gradient.
        (mlp(2), loss, (x[:ROWS], None)),
        (nn.Identity(), loss, (x[:ROWS], y[:ROWS])),
    ):
        findings = examine(CHECKS, network, value, batch)
        assert not alarms(findings), findings
    # Without a target the forward pass alone says enough.
    assert alarms(examine(CHECKS, broken, None, (x[:ROWS], None))) == {"collapsing_activations"}


def test_faults_are_described() -> None:
    faults = [
        fault for file in (initial_weights, activations_by_layer, gradients_by_layer, units) for fault in file.FAULTS
    ]
    assert [fault.name for fault in faults] == [
        "constant_weights",
        "collapsing_activations",
        "exploding_activations",
        "vanishing_gradients",
        "exploding_gradients",
        "dead_units",
        "saturated_units",
    ]
    for fault in faults:
        assert all((fault.title, fault.why, fault.fix, fault.reference))
