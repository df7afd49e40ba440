"""Squared error behind a sigmoid: how much of the gradient is left, and that it is told from a choice."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis import slowdown
from lastlayer.diagnosis.slowdown import gradient_left
from output_cases import (
    BINARY,
    INDEX,
    ONE_HOT,
    REAL,
    SHARE,
    Ends,
    X,
    column,
    findings_of,
    loud,
    mlp,
    sigmoid_by_hand,
    the_one,
)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowdown, "train_a_copy", lambda *args, **options: 1 / 0)


def _by_hand(probability: Tensor, target: Tensor) -> Tensor:
    return 0.5 * ((probability - target) ** 2).sum()


def _of_softmax(raw: Tensor, target: Tensor) -> Tensor:
    return (raw.softmax(-1) - target).square().sum(-1).mean()


FORMS: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "module": (column(1, nn.Sigmoid()), nn.MSELoss(), BINARY, "layer '3' (Sigmoid)"),
    "softmax": (mlp(4, nn.Softmax(1)), F.mse_loss, ONE_HOT, "layer '3' (Softmax)"),
    "quadratic by hand": (Ends(1, lambda raw: raw.sigmoid()[:, 0]), _by_hand, BINARY, "sigmoid in Ends's forward"),
    "in the loss": (column(1), lambda raw, y: F.mse_loss(torch.sigmoid(raw), y), BINARY, "sigmoid in the loss"),
    "sigmoid by hand": (Ends(1, sigmoid_by_hand), nn.MSELoss(), BINARY, "exp in Ends's forward"),
    "both by hand": (column(1), lambda raw, y: ((1 / (1 + torch.exp(-raw)) - y) ** 2).mean(), BINARY, "layer '2'"),
    "softmax in the loss": (mlp(4), _of_softmax, ONE_HOT, "layer '2' (Linear)"),
    "ours": (column(1, nn.Sigmoid()), losses.squared_error, BINARY, "layer '3' (Sigmoid)"),
    "head": (mlp(1, nn.Sigmoid()), heads.Gaussian(), BINARY, "layer '3' (Sigmoid)"),
}


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", FORMS)
def test_squared_error_of_yes_or_no(form: str) -> None:
    network, loss, target, where = FORMS[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["squared_error_behind_sigmoid"]
    found = the_one(findings, "squared_error_behind_sigmoid")
    assert found.severity == "warning"
    assert where in found.where


def _one_hot(target: Tensor) -> Tensor:
    return F.one_hot(target, 4)


INSIDE: dict[str, tuple[Any, Any, Tensor]] = {
    "power": (
        lambda raw, y: ((raw.softmax(1) - _one_hot(y)) ** 2).sum(1).mean(),
        lambda raw, y: ((raw - _one_hot(y)) ** 2).sum(1).mean(), INDEX,
    ),
    "pow, target first": (
        lambda raw, y: (_one_hot(y).float() - raw.softmax(-1)).pow(2).sum(),
        lambda raw, y: (_one_hot(y).float() - raw).pow(2).sum(), INDEX,
    ),
    "rows of the unit matrix": (
        lambda raw, y: torch.square(torch.softmax(raw, 1) - torch.eye(4)[y]).mean(),
        lambda raw, y: torch.square(raw - torch.eye(4)[y]).mean(), INDEX,
    ),
    "norm": (
        lambda raw, y: torch.norm(raw.softmax(1) - _one_hot(y).float(), dim=1).pow(2).mean(),
        lambda raw, y: torch.norm(raw - _one_hot(y).float(), dim=1).pow(2).mean(), INDEX,
    ),
    "sigmoid of classes": (
        lambda raw, y: (raw.sigmoid() - _one_hot(y)).square().mean(),
        lambda raw, y: (raw - _one_hot(y)).square().mean(), INDEX,
    ),
    "product, weighted": (
        lambda raw, y: ((raw.sigmoid() - y) * (raw.sigmoid() - y)).mean() + ((raw.sigmoid() - y) ** 2 * (1 + y)).sum(),
        lambda raw, y: ((raw - y) ** 2 * (1 + y)).sum(), BINARY,
    ),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", INSIDE)
def test_the_link_and_the_square_in_an_own_loss(form: str) -> None:
    loss, of_raw, target = INSIDE[form]
    network = column(1) if target is BINARY else mlp(4)
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["squared_error_behind_sigmoid"]
    assert loud(findings_of(network, of_raw, X, target)) == []


@pytest.mark.usefixtures("untried")
def test_an_absolute_error_is_no_squared_one() -> None:
    loss = lambda raw, y: (raw.softmax(1) - _one_hot(y)).abs().sum(1).mean()  # noqa: E731
    assert "squared_error_behind_sigmoid" not in loud(findings_of(mlp(4), loss, X, INDEX))


def test_the_cross_entropy_is_tried_of_class_indices() -> None:
    found = the_one(findings_of(mlp(4), INSIDE["power"][0], X, INDEX), "squared_error_behind_sigmoid")
    assert found.tried is not None
    assert found.tried.startswith("On the cross-entropy, 40 steps of Adam")


def test_the_neuron_of_the_lecture() -> None:
    """SPEC G7: one sigmoid neuron, input 1, target 0. The gradient of (a − y)² in w is 2 (a − y) a (1 − a)."""
    for weight, bias, output in ((0.6, 0.9, 0.82), (2.0, 2.0, 0.98)):
        a = 1 / (1 + math.exp(-(weight + bias)))
        assert a == pytest.approx(output, abs=0.005)
        neuron = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid()).double()
        nn.init.constant_(neuron[0].weight, weight)
        nn.init.constant_(neuron[0].bias, bias)
        rows = torch.ones(8, 1, dtype=torch.float64)
        found = the_one(findings_of(neuron, nn.MSELoss(), rows, 0 * rows), "squared_error_behind_sigmoid")
        assert found.numbers["gradient_share"] == pytest.approx(2 * a * (1 - a), rel=1e-9)


def test_the_share_is_that_of_autograd() -> None:
    raw = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    target = F.one_hot(torch.arange(50) % 4, 4).double()
    (squared,) = torch.autograd.grad((raw.softmax(-1) - target).square().sum(), raw)
    (cross,) = torch.autograd.grad(F.cross_entropy(raw, target, reduction="sum"), raw)
    left = gradient_left(raw.detach().softmax(-1), target, axis=1)
    assert left.share == pytest.approx(float(squared.abs().sum() / cross.abs().sum()))
    (squared,) = torch.autograd.grad((raw.sigmoid() - target).square().sum(), raw)
    (cross,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(raw, target, reduction="sum"), raw)
    wrong = cross.abs().flatten()
    worst = np.argsort(-wrong.numpy())[: math.ceil(0.1 * wrong.numel())]
    left = gradient_left(raw.detach().sigmoid(), target)
    assert left.share == pytest.approx(float(squared.abs().sum() / wrong.sum()))
    assert left.worst == len(worst)
    assert left.worst_share == pytest.approx(float(squared.abs().flatten()[worst].sum() / wrong[worst].sum()))


def _trained(network: nn.Sequential, loss: Any, target: Tensor) -> tuple[float, float]:
    """The squared error before and after 40 steps on a loss of the raw scores, written out."""
    body = copy.deepcopy(network)
    optimizer = torch.optim.Adam(body.parameters(), lr=1e-2)
    errors = []
    for _ in range(41):
        optimizer.zero_grad()
        raw = body(X)
        errors.append(float(F.mse_loss(raw.sigmoid(), target).detach()))
        loss(raw, target).backward()
        optimizer.step()
    return errors[0], errors[-1]


def test_the_cross_entropy_is_tried_and_judged_by_the_own_loss() -> None:
    body = column(1)
    nn.init.constant_(body[2].bias, 4.0)
    found = the_one(
        findings_of(nn.Sequential(*body, nn.Sigmoid()), nn.MSELoss(), X, BINARY), "squared_error_behind_sigmoid"
    )
    first, after = _trained(body, F.binary_cross_entropy_with_logits, BINARY)
    _, as_it_is = _trained(body, lambda raw, y: F.mse_loss(raw.sigmoid(), y), BINARY)
    assert found.tried == (
        f"On the cross-entropy, 40 steps of Adam on a copy took this batch's own loss from {first:.3g} to {after:.3g}; "
        f"as it is, to {as_it_is:.3g}."
    )


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("network", "loss", "target"),
    [
        (column(1, nn.Sigmoid()), nn.MSELoss(), SHARE),
        (mlp(1), heads.UnitInterval(criterion="squared_error"), SHARE),
        (column(1), losses.SigmoidSquaredError(), BINARY),
        (mlp(4), losses.RegularizedExpectation(), INDEX),
        (column(1, nn.Sigmoid()), nn.MSELoss(), BINARY[:4]),
    ],
    ids=["shares", "head", "chosen", "chosen softmax", "too few to tell"],
)
def test_where_it_is_a_choice_it_is_a_note(network: nn.Module, loss: Any, target: Tensor) -> None:
    findings = findings_of(network, loss, X[: len(target)], target)
    assert [(finding.name, finding.severity) for finding in findings] == [("squared_error_behind_sigmoid", "note")]


@pytest.mark.usefixtures("untried")
def test_other_ends_are_none() -> None:
    for network, loss, target in (
        (column(1, nn.Tanh()), nn.MSELoss(), 2 * BINARY - 1),
        (column(1), nn.MSELoss(), BINARY),
        (column(1, nn.Hardtanh(0, 1)), nn.MSELoss(), BINARY),
        (column(1), nn.MSELoss(), REAL),
        (Ends(1, lambda raw: 1 + 4 * raw.sigmoid()[:, 0]), nn.MSELoss(), 1 + 4 * SHARE),
    ):
        assert list(findings_of(network, loss, X, target)) == []
