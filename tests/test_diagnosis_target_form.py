"""Shapes and dtypes of prediction and target: what broadcasts without a word, and what raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from output_cases import (
    BINARY,
    COUNT,
    IMAGES,
    INDEX,
    ONE_HOT,
    PIXELS,
    REAL,
    ROWS,
    X,
    column,
    findings_of,
    loud,
    mlp,
    the_one,
)

TARGET = "the target"


def _log_cosh(raw: Tensor, target: Tensor) -> Tensor:
    return torch.log(torch.cosh(raw - target)).mean()


def _bce_by_hand(raw: Tensor, target: Tensor) -> Tensor:
    return (F.softplus(raw) - target * raw).mean()


def _gaussian(raw: Tensor, target: Tensor) -> Tensor:
    return F.gaussian_nll_loss(raw[:, :1], target, raw[:, 1:].exp())


BROADCAST: dict[str, tuple[nn.Module, Any, Tensor]] = {
    "mse": (mlp(1), nn.MSELoss(), REAL),
    "mse, target as column": (column(1), F.mse_loss, REAL.unsqueeze(1)),
    "l1": (mlp(1), nn.L1Loss(), REAL),
    "smooth l1": (mlp(1), F.smooth_l1_loss, REAL),
    "huber": (mlp(1), nn.HuberLoss(), REAL),
    "poisson": (mlp(1), nn.PoissonNLLLoss(), COUNT),
    "gaussian": (mlp(2), _gaussian, REAL),
    "in a lambda": (mlp(1), lambda raw, y: F.mse_loss(raw, y), REAL),
    "the other way round": (mlp(1), lambda raw, y: F.mse_loss(y, raw), REAL),
    "quadratic by hand": (mlp(1), lambda raw, y: ((raw - y) ** 2).mean(), REAL),
    "absolute by hand": (mlp(1), lambda raw, y: (y - raw).abs().mean(), REAL),
    "another by hand": (mlp(1), _log_cosh, REAL),
    "product by hand": (mlp(1), _bce_by_hand, BINARY),
}


@pytest.mark.parametrize("form", BROADCAST)
def test_what_broadcasts(form: str) -> None:
    network, loss, target = BROADCAST[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["shape_mismatch"]
    found = the_one(findings, "shape_mismatch")
    assert found.severity == "error"
    assert f"({ROWS}, {ROWS})" in found.evidence
    assert found.numbers["compared"] == ROWS**2
    assert "squeeze(1)" in found.fix


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("form", BROADCAST)
def test_the_fix_gives_the_loss_that_was_meant(form: str) -> None:
    """What it says, done: nothing is found any more."""
    network, loss, target = BROADCAST[form]
    mended = target.squeeze(1) if target.dim() == 2 else target.unsqueeze(1)
    assert loud(findings_of(network, loss, X, mended)) == []


REFUSED: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "logits": (mlp(1), nn.BCEWithLogitsLoss(), BINARY, "target.unsqueeze(1)"),
    "probabilities": (mlp(1, nn.Sigmoid()), nn.BCELoss(), BINARY, "target.unsqueeze(1)"),
    "logits in a lambda": (mlp(1), lambda raw, y: F.binary_cross_entropy_with_logits(raw, y), BINARY, "unsqueeze(1)"),
    "column of classes": (mlp(4), nn.CrossEntropyLoss(), INDEX.unsqueeze(1), "target.squeeze(1)"),
    "rows": (mlp(4), nn.CrossEntropyLoss(), INDEX[:-1], f"{ROWS} and {ROWS - 1} samples"),
    "classes last": (
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4)), F.cross_entropy, INDEX.unsqueeze(1).expand(-1, 2),
        "movedim(2, 1)",
    ),
    "other outputs": (mlp(3), nn.MSELoss(), X[:, :2], "(2,) per sample"),
    "variance": (mlp(2), lambda raw, y: F.gaussian_nll_loss(raw[:, 0], y, raw[:, 1:].exp()), REAL, "the variance"),
    "ours": (mlp(1), losses.squared_error, REAL, "unsqueeze(1)"),
    "ours in a lambda": (mlp(1), lambda raw, y: losses.huber(raw, y), REAL, "raw.squeeze(-1)"),
    "classes of ours": (mlp(4), losses.cross_entropy, INDEX.unsqueeze(1), "target.squeeze(1)"),
    "head without an axis": (column(1), heads.Gaussian(), REAL, "unsqueeze(-1)"),
    "head of a column": (mlp(1), heads.Gaussian(), REAL.unsqueeze(1), "target.squeeze(-1)"),
    "head of two": (mlp(1), heads.Gaussian(scale="predicted"), REAL, "nn.Linear(width, 2)"),
    "head of classes": (mlp(3), heads.Categorical(4), INDEX.clamp(max=2), "nn.Linear(width, 4)"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_shapes_that_raise_are_explained(form: str) -> None:
    network, loss, target, remedy = REFUSED[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["shape_mismatch"]
    assert remedy in the_one(findings, "shape_mismatch").fix


FORMS: dict[str, tuple[nn.Module, Any, Tensor, Tensor, str]] = {
    "whole one-hot": (mlp(4), nn.CrossEntropyLoss(), X, ONE_HOT.long(), "argmax(1) or target.float()"),
    "one-hot for a likelihood": (mlp(4, nn.LogSoftmax(1)), nn.NLLLoss(), X, ONE_HOT, "target.argmax(1)."),
    "one-hot for a margin": (mlp(4), nn.MultiMarginLoss(), X, ONE_HOT, "target.argmax(1)."),
    "floating index": (mlp(4), F.cross_entropy, X, INDEX.float(), "target.long()"),
    "floating column": (mlp(4), nn.CrossEntropyLoss(), X, INDEX.float().unsqueeze(1), "target.squeeze(1).long()"),
    "short integers": (mlp(4), nn.CrossEntropyLoss(), X, INDEX.int(), "target.long()"),
    "truth values": (mlp(2), nn.CrossEntropyLoss(), X, BINARY > 0, "target.long()"),
    "real numbers": (mlp(4), nn.CrossEntropyLoss(), X, REAL, "mse_loss"),
    "dense": (
        nn.Sequential(nn.Conv2d(3, 4, 1)), F.cross_entropy, IMAGES, F.one_hot(PIXELS, 4).movedim(-1, 1), "argmax(1)",
    ),
    "one-hot of ours": (mlp(4), losses.cross_entropy, X, ONE_HOT.long(), "argmax(1) or target.float()"),
    "one-hot in a lambda": (mlp(4), lambda raw, y: losses.cross_entropy(raw, y), X, ONE_HOT.long(), "argmax(-1)"),
    "floating index of ours": (mlp(4), losses.CrossEntropy(), X, INDEX.float(), "target.long()"),
    "head": (mlp(4), heads.Categorical(4), X, ONE_HOT.long(), "argmax(1) or target.float()"),
    "whole numbers for logits": (column(1), nn.BCEWithLogitsLoss(), X, BINARY.long(), "target.to(torch.float32)"),
    "truth values for logits": (column(1), nn.BCEWithLogitsLoss(), X, BINARY > 0, "target.to(torch.float32)"),
    "whole numbers for BCE": (column(1, nn.Sigmoid()), nn.BCELoss(), X, BINARY.long(), "target.to(torch.float32)"),
    "whole numbers for Huber": (column(1), nn.HuberLoss(), X, COUNT.long(), "target.to(torch.float32)"),
    "double precision": (column(1), nn.HuberLoss(), X, REAL.double(), "target.to(torch.float32)"),
    "index for logits": (mlp(4), nn.BCEWithLogitsLoss(), X, INDEX, "one_hot(target, 4).float()"),
    "index for squares": (mlp(4), nn.MSELoss(), X, INDEX, "one_hot(target, 4).float()"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_targets_of_another_form_are_explained(form: str) -> None:
    network, loss, features, target, remedy = FORMS[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["one_hot_into_index_loss"]
    found = the_one(findings, "one_hot_into_index_loss")
    assert found.where == TARGET
    assert remedy in found.fix


def _pairs(raw: Tensor, target: Tensor) -> Tensor:
    difference = raw.unsqueeze(0) - raw.unsqueeze(1)
    return F.softplus(-difference * torch.sign(target.unsqueeze(0) - target.unsqueeze(1))).mean()


def _pinball(raw: Tensor, target: Tensor) -> Tensor:
    levels = torch.tensor([0.1, 0.5, 0.9])
    error = target.unsqueeze(1) - raw
    return torch.maximum(levels * error, (levels - 1) * error).mean()


def _prototypes(raw: Tensor, target: Tensor) -> Tensor:
    centers = torch.arange(ROWS, dtype=raw.dtype).unsqueeze(1)
    return (raw.unsqueeze(1) - centers).square().amin(1).mean() + 0 * target.sum()


RIGHT: dict[str, tuple[nn.Module, Any, Tensor]] = {
    "one number for all": (mlp(1), lambda raw, y: F.mse_loss(raw, torch.ones_like(raw)), BINARY),
    "a number of Python's": (mlp(1), lambda raw, y: ((raw - 1) ** 2).mean(), BINARY),
    "pairs on purpose": (column(1), _pairs, REAL),
    "several quantiles": (mlp(3), _pinball, REAL),
    "prototypes": (column(1), _prototypes, REAL),
    "whole numbers for squares": (column(1), nn.MSELoss(), COUNT.long()),
    "one-hot in floating point": (mlp(4), nn.CrossEntropyLoss(), ONE_HOT),
    "head": (mlp(1), heads.Gaussian(), REAL),
    "head in a lambda": (mlp(1), lambda raw, y: heads.Gaussian().loss(raw, y), REAL),
}


@pytest.mark.parametrize("form", RIGHT)
def test_what_broadcasts_on_purpose_is_left_alone(form: str) -> None:
    network, loss, target = RIGHT[form]
    assert loud(findings_of(network, loss, X, target)) == []


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_one_row_is_one_row_in_any_shape() -> None:
    assert loud(findings_of(mlp(1), nn.MSELoss(), X[:1], REAL[:1])) == []


def test_a_loss_that_returns_something_else_is_not_explained() -> None:
    assert list(findings_of(mlp(4), lambda raw, y: (raw, y))) == []
