"""Losses of log-probabilities, logarithms of what is no probability, softmaxes over another axis than the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from output_cases import (
    BINARY,
    CLASSES,
    COUNT,
    IMAGES,
    INDEX,
    ONE_HOT,
    PIXELS,
    ROWS,
    Ends,
    X,
    column,
    findings_of,
    loud,
    mlp,
    the_one,
)

Form = tuple[nn.Module, Any, Any, Tensor, str]


def _picked(raw: Tensor, target: Tensor) -> Tensor:
    return -raw.gather(1, target.unsqueeze(1)).mean()


def _masked(raw: Tensor, target: Tensor) -> Tensor:
    return -(raw * F.one_hot(target, CLASSES)).sum(1).mean()


MISSING: dict[str, Form] = {
    "raw scores": (mlp(4), nn.NLLLoss(), X, INDEX, "layer '2' (Linear)"),
    "probabilities": (mlp(4, nn.Softmax(1)), F.nll_loss, X, INDEX, "layer '3' (Softmax)"),
    "shares per class": (mlp(4, nn.Sigmoid()), nn.NLLLoss(), X, INDEX, "layer '3' (Sigmoid)"),
    "function in forward": (Ends(4, lambda raw: raw.softmax(1)), F.nll_loss, X, INDEX, "softmax in Ends's forward"),
    "picked by hand": (mlp(4), _picked, X, INDEX, "layer '2' (Linear)"),
    "masked by hand": (mlp(4), _masked, X, INDEX, "layer '2' (Linear)"),
    "dense": (nn.Sequential(nn.Conv2d(3, 4, 1)), nn.NLLLoss(), IMAGES, PIXELS, "layer '0' (Conv2d)"),
    "divergence of probabilities": (mlp(4, nn.Softmax(1)), nn.KLDivLoss(reduction="sum"), X, ONE_HOT, "(Softmax)"),
    "divergence of scores": (mlp(4), nn.KLDivLoss(reduction="sum"), X, ONE_HOT, "layer '2' (Linear)"),
}  # fmt: skip


@pytest.mark.parametrize("form", MISSING)
def test_log_softmax_missing(form: str) -> None:
    network, loss, features, target, where = MISSING[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["log_softmax_missing"]
    found = the_one(findings, "log_softmax_missing")
    assert found.severity == "error"
    assert where in found.where


def test_what_raw_scores_add_up_to() -> None:
    network = mlp(4)
    found = the_one(findings_of(network, nn.NLLLoss()), "log_softmax_missing")
    scores = network(X).detach().double().numpy()
    expected = np.sort(np.exp(scipy.special.logsumexp(scores, axis=1)))[(ROWS - 1) // 2]
    assert found.numbers["median_sum"] == pytest.approx(expected, rel=1e-5)


def _binary_by_hand(raw: Tensor, target: Tensor) -> Tensor:
    return -(target * torch.log(raw) + (1 - target) * torch.log(1 - raw)).mean()


def _chosen(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.log(raw[torch.arange(len(target)), target]).mean()


def _bernoulli(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Bernoulli(probs=raw).log_prob(target).mean()


def _categorical(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Categorical(probs=raw).log_prob(target).mean()


NO_PROBABILITY: dict[str, Form] = {
    "raw scores into BCELoss": (column(1), nn.BCELoss(), X, BINARY, "layer '2' (Linear)"),
    "tanh into BCELoss": (column(1, nn.Tanh()), nn.BCELoss(), X, BINARY, "layer '3' (Tanh)"),
    "ReLU into BCELoss": (column(1, nn.ReLU()), F.binary_cross_entropy, X, BINARY, "layer '3' (ReLU)"),
    "log of raw scores": (mlp(4), lambda raw, y: F.nll_loss(raw.log(), y), X, INDEX, "layer '2' (Linear)"),
    "log of log-softmax": (
        mlp(4, nn.LogSoftmax(1)), lambda raw, y: F.nll_loss(raw.log(), y), X, INDEX, "layer '3' (LogSoftmax)",
    ),
    "log in forward": (Ends(4, lambda raw: raw.log()), nn.NLLLoss(), X, INDEX, "layer 'body.2' (Linear)"),
    "two classes by hand": (column(1), _binary_by_hand, X, BINARY, "layer '2' (Linear)"),
    "several classes by hand": (mlp(4), _chosen, X, INDEX, "layer '2' (Linear)"),
    "Bernoulli": (column(1), _bernoulli, X, BINARY, "Bernoulli(probs=…)"),
    "Categorical": (mlp(4), _categorical, X, INDEX, "Categorical(probs=…)"),
    "rates": (column(1), nn.PoissonNLLLoss(log_input=False), X, COUNT, "layer '2' (Linear)"),
}  # fmt: skip


@pytest.mark.parametrize("form", NO_PROBABILITY)
def test_log_of_no_probability(form: str) -> None:
    network, loss, features, target, where = NO_PROBABILITY[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["log_of_no_probability"]
    found = the_one(findings, "log_of_no_probability")
    assert found.severity == "error"
    assert where in found.where


def test_how_many_have_no_logarithm() -> None:
    network = mlp(4)
    found = the_one(findings_of(network, lambda raw, y: F.nll_loss(raw.log(), y)), "log_of_no_probability")
    expected = float((network(X) <= 0).double().mean())
    assert 0 < expected < 1
    assert found.numbers["share_without_logarithm"] == pytest.approx(expected)


def test_scores_that_happen_to_be_positive_are_a_warning() -> None:
    network = mlp(4)
    nn.init.constant_(network[2].bias, 5.0)
    found = the_one(findings_of(network, lambda raw, y: F.nll_loss(raw.log(), y)), "log_of_no_probability")
    assert found.severity == "warning"
    assert found.numbers["share_without_logarithm"] == 0.0


def _of_clamped(raw: Tensor, target: Tensor) -> Tensor:
    p = raw.clamp(1e-6, 1 - 1e-6)
    return -torch.where(target > 0, p, 1 - p).log().mean()


def _clipped_from_two_sides(raw: Tensor, target: Tensor) -> Tensor:
    p = raw.clamp_min(1e-4).clamp_max(0.9999)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def _picked_of_clamped(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.clip(raw, 1e-3, 1.0).gather(1, target.unsqueeze(1)).log().mean()


CLAMPED: dict[str, tuple[nn.Module, nn.Module, Any, Tensor]] = {
    "where": (column(1), column(1, nn.Sigmoid()), _of_clamped, BINARY),
    "two clamps": (column(1), column(1, nn.Sigmoid()), _clipped_from_two_sides, BINARY),
    "classes": (mlp(4), mlp(4, nn.Softmax(1)), _picked_of_clamped, INDEX),
    "in forward": (
        Ends(1, lambda raw: raw.clamp(1e-6, 1 - 1e-6)[:, 0]),
        Ends(1, lambda raw: raw.sigmoid().clamp(1e-6, 1 - 1e-6)[:, 0]), nn.BCELoss(), BINARY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", CLAMPED)
def test_a_clamp_makes_no_probability(form: str) -> None:
    broken, healthy, loss, target = CLAMPED[form]
    findings = findings_of(broken, loss, X, target)
    assert loud(findings) == ["log_of_no_probability"]
    found = the_one(findings, "log_of_no_probability")
    assert "2' (Linear)" in found.where
    assert found.severity == "error"
    assert loud(findings_of(healthy, loss, X, target)) == []


def _focal_of_clamped(raw: Tensor, target: Tensor) -> Tensor:
    p = raw.clamp(1e-6, 1 - 1e-6)
    hit = torch.where(target > 0, p, 1 - p)
    return -((1 - hit) ** 2 * hit.log()).mean()


def test_how_many_scores_a_clamp_cuts() -> None:
    network = column(1)
    raw = network(X).detach()
    expected = float(((raw < 1e-6) | (raw > 1 - 1e-6)).double().mean())
    found = the_one(findings_of(network, _focal_of_clamped, X, BINARY), "log_of_no_probability")
    assert found.numbers["share_cut"] == pytest.approx(expected)
    # A linear model of a probability, which a clamp keeps from leaving it.
    nn.init.constant_(network[2].bias, 0.5)
    with torch.no_grad():
        network[2].weight.mul_(0.1)
    assert loud(findings_of(network, _focal_of_clamped, X, BINARY)) == []


AXIS: dict[str, Form] = {
    "module": (mlp(4, nn.Softmax(0)), lambda p, y: F.nll_loss(p.log(), y), X, INDEX, "layer '3' (Softmax)"),
    "log-softmax in forward": (Ends(4, lambda raw: F.log_softmax(raw, 0)), nn.NLLLoss(), X, INDEX, "in Ends"),
    "guarded": (Ends(4, lambda raw: torch.log(raw.softmax(0) + 1e-9)), nn.NLLLoss(), X, INDEX, "softmax in Ends"),
    "in the loss": (mlp(4), lambda raw, y: F.nll_loss(torch.log(raw.softmax(0)), y), X, INDEX, "softmax in the loss"),
    "by hand": (mlp(4, nn.Softmax(0)), _chosen, X, INDEX, "layer '3' (Softmax)"),
    "one output": (mlp(1, nn.Softmax(1), nn.Flatten(0)), nn.BCELoss(), X, BINARY, "layer '3' (Softmax)"),
    "flattened": (column(1, nn.Flatten(0), nn.Softmax(0)), nn.BCELoss(), X, BINARY, "layer '4' (Softmax)"),
    "rows of pixels": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.LogSoftmax(-1)), nn.NLLLoss(), IMAGES, PIXELS, "layer '1' (LogSoftmax)",
    ),
    "samples for classes": (column(1), nn.CrossEntropyLoss(), X, BINARY, "layer '2' (Linear)"),
    "squared error": (mlp(4, nn.Softmax(0)), nn.MSELoss(), X, ONE_HOT, "layer '3' (Softmax)"),
}  # fmt: skip


@pytest.mark.parametrize("form", AXIS)
def test_softmax_over_the_wrong_axis(form: str) -> None:
    network, loss, features, target, where = AXIS[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["softmax_over_wrong_axis"]
    assert where in the_one(findings, "softmax_over_wrong_axis").where


def test_over_the_samples_every_column_adds_up_to_one() -> None:
    found = the_one(findings_of(mlp(4, nn.LogSoftmax(0)), nn.NLLLoss()), "softmax_over_wrong_axis")
    assert found.numbers == {"axis": 0, "length": ROWS}
    assert "dim=1" in found.fix


def test_a_list_put_in_order_is_one_sample() -> None:
    """Listwise ranking: a softmax over the batch on both sides."""
    target = torch.softmax(X[:, 0], 0)
    network = column(1, nn.Flatten(0), nn.Softmax(0))
    assert loud(findings_of(network, lambda p, y: -(y * p.log()).sum(), X, target)) == []
