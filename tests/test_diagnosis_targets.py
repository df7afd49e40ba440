"""Targets that the loss is not made for: indices without an output, numbers outside of its domain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from output_cases import (
    BINARY,
    CLASSES,
    COUNT,
    IMAGES,
    INDEX,
    ONE_HOT,
    PIXELS,
    REAL,
    ROWS,
    SHARE,
    X,
    column,
    findings_of,
    loud,
    mlp,
    the_one,
)

SIGNS = 2 * BINARY - 1


def _poisson(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Poisson(raw.exp()).log_prob(target).mean()


DOMAIN: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "signs": (column(1), nn.BCEWithLogitsLoss(), SIGNS, "(target + 1) / 2"),
    "pixels": (column(1), F.binary_cross_entropy_with_logits, (255 * SHARE).round(), "by 255"),
    "percentages": (column(1, nn.Sigmoid()), nn.BCELoss(), 100 * SHARE, "by 100"),
    "one and two": (column(1), nn.BCEWithLogitsLoss(), BINARY + 1, "target - 1"),
    "classes": (column(1), lambda raw, y: F.binary_cross_entropy_with_logits(raw, y), INDEX.float(), "cross_entropy"),
    "our function": (column(1), losses.binary_cross_entropy, REAL, "between 0 and 1"),
    "ours in a lambda": (column(1), lambda raw, y: losses.binary_cross_entropy(raw, y), SIGNS, "(target + 1) / 2"),
    "head": (mlp(1), heads.Bernoulli(), SIGNS, "(target + 1) / 2"),
    "loss of a head": (mlp(1), heads.Bernoulli().loss, SIGNS, "(target + 1) / 2"),
    "labels": (mlp(4), heads.MultiLabel(4), 2 * ONE_HOT - 1, "(target + 1) / 2"),
    "negative counts": (column(1), nn.PoissonNLLLoss(), COUNT - 3, "[0, ∞)"),
    "negative counts for a head": (mlp(1), heads.Poisson(), COUNT - 3, "[0, ∞)"),
    "zeros for a logarithm": (mlp(2), heads.LogNormal(), COUNT, "(0, ∞)"),
    "negative for a gamma": (mlp(2), losses.GammaNLL(), REAL, "(0, ∞)"),
    "shares of a hundred": (mlp(2), heads.Beta(), 100 * SHARE, "by 100"),
    "minus one": (mlp(4), nn.CrossEntropyLoss(), torch.where(INDEX == 0, -1, INDEX), "ignore_index=-1"),
    "signs as classes": (mlp(2), nn.CrossEntropyLoss(), SIGNS.long(), "(target + 1) // 2"),
    "several labels": (mlp(4), nn.CrossEntropyLoss(), ONE_HOT + ONE_HOT.roll(1, 1), "several labels"),
    "weighted rows": (mlp(4), losses.cross_entropy, 3 * ONE_HOT, "Divide the targets"),
    "zeros for a margin": (column(1), nn.SoftMarginLoss(), BINARY, "2 * target - 1"),
    "zeros for a hinge": (column(1), nn.HingeEmbeddingLoss(), BINARY, "2 * target - 1"),
    "zeros for a ranking": (column(1), lambda raw, y: F.margin_ranking_loss(raw, raw.flip(0), y), BINARY, "2 * target"),
    "zeros for a cosine": (mlp(6), lambda raw, y: F.cosine_embedding_loss(raw, X, y), BINARY, "2 * target - 1"),
    "logarithms for a divergence": (
        mlp(4, nn.LogSoftmax(1)), nn.KLDivLoss(reduction="sum"), torch.log_softmax(X[:, :4], 1), "log_target=True",
    ),
    "scores for a divergence": (mlp(4, nn.LogSoftmax(1)), nn.KLDivLoss(reduction="sum"), X[:, :4], "softmax of"),
    "distribution": (column(1), _poisson, COUNT - 3, "support"),
}  # fmt: skip


@pytest.mark.parametrize("form", DOMAIN)
def test_targets_outside_the_domain(form: str) -> None:
    network, loss, target, remedy = DOMAIN[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["target_outside_domain"]
    found = the_one(findings, "target_outside_domain")
    assert found.where == "the target"
    assert remedy in found.fix


def test_the_figures_are_those_of_the_target() -> None:
    numbers = the_one(findings_of(column(1), nn.BCEWithLogitsLoss(), X, SIGNS), "target_outside_domain").numbers
    assert numbers == {"share_outside": 0.5, "least": -1.0, "greatest": 1.0}


def test_an_overshoot_of_an_interpolation_is_a_warning() -> None:
    target = SHARE.clone()
    target[0] = 1.02
    assert (
        the_one(findings_of(column(1), nn.BCEWithLogitsLoss(), X, target), "target_outside_domain").severity
        == "warning"
    )
    target[0] = 1.2
    assert (
        the_one(findings_of(column(1), nn.BCEWithLogitsLoss(), X, target), "target_outside_domain").severity == "error"
    )
    target[0] = 1 + 1e-6
    assert loud(findings_of(column(1), nn.BCEWithLogitsLoss(), X, target)) == []


def test_a_rate_that_is_no_whole_number_is_a_warning() -> None:
    found = the_one(findings_of(mlp(1), heads.Poisson(), X, COUNT + 0.5), "target_outside_domain")
    assert found.severity == "warning"


def test_what_is_masked_may_hold_anything() -> None:
    missing = torch.where(torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0)) < 0.3, -1.0, ONE_HOT)

    def masked(raw: Tensor, target: Tensor) -> Tensor:
        return (F.binary_cross_entropy_with_logits(raw, target, reduction="none") * (target >= 0)).mean()

    assert loud(findings_of(mlp(4), masked, X, missing)) == []
    # The twin that forgets the mask.
    assert loud(findings_of(mlp(4), nn.BCEWithLogitsLoss(), X, missing)) == ["target_outside_domain"]


OFF_BY_ONE: dict[str, tuple[nn.Module, Any, Tensor, Tensor]] = {
    "module": (mlp(4), nn.CrossEntropyLoss(), X, INDEX + 1),
    "function": (mlp(4), F.cross_entropy, X, INDEX + 1),
    "lambda": (mlp(4), lambda raw, y: F.cross_entropy(raw, y.squeeze(1)), X, INDEX.unsqueeze(1) + 1),
    "likelihood": (mlp(4, nn.LogSoftmax(1)), nn.NLLLoss(), X, INDEX + 1),
    "margin": (mlp(4), nn.MultiMarginLoss(), X, INDEX + 1),
    "our module": (mlp(4), losses.CrossEntropy(), X, INDEX + 1),
    "our function": (mlp(4), losses.cross_entropy, X, INDEX + 1),
    "head": (mlp(4), heads.Categorical(4), X, INDEX + 1),
    "ordinal": (mlp(3), heads.Ordinal(4), X, INDEX + 1),
    "dense": (nn.Sequential(nn.Conv2d(3, 4, 1)), nn.CrossEntropyLoss(), IMAGES, PIXELS + 1),
}


@pytest.mark.parametrize("form", OFF_BY_ONE)
def test_classes_counted_from_one(form: str) -> None:
    network, loss, features, target = OFF_BY_ONE[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["class_index_off_by_one"]
    found = the_one(findings, "class_index_off_by_one")
    assert found.severity == "error"
    assert found.numbers == {"least": 1, "greatest": CLASSES, "classes": CLASSES}
    assert "target - 1" in found.fix


def test_a_class_that_never_comes_is_a_note() -> None:
    rows, target = torch.randn(200, 6), torch.arange(200) % 3 + 1
    findings = findings_of(mlp(4), nn.CrossEntropyLoss(), rows, target)
    assert [(finding.name, finding.severity) for finding in findings] == [("class_index_off_by_one", "note")]
    # On fewer rows, or if others are missing too, chance explains it.
    assert list(findings_of(mlp(4), nn.CrossEntropyLoss(), rows[:30], target[:30])) == []
    assert list(findings_of(mlp(5), nn.CrossEntropyLoss(), rows, target)) == []


FEW: dict[str, tuple[nn.Module, Any, Tensor, Tensor, str]] = {
    "module": (mlp(3), nn.CrossEntropyLoss(), X, INDEX, "layer '2' (Linear)"),
    "likelihood": (mlp(3, nn.LogSoftmax(1)), F.nll_loss, X, INDEX, "layer '3' (LogSoftmax)"),
    "ours": (mlp(3), losses.cross_entropy, X, INDEX, "layer '2' (Linear)"),
    "head": (mlp(3), heads.Categorical(3), X, INDEX, "layer '2' (Linear)"),
    "dense": (nn.Sequential(nn.Conv2d(3, 2, 1)), nn.CrossEntropyLoss(), IMAGES, PIXELS, "layer '0' (Conv2d)"),
    "one for two": (mlp(1), nn.CrossEntropyLoss(), X, BINARY.long(), "layer '2' (Linear)"),
    "one of probabilities": (mlp(1), nn.CrossEntropyLoss(), X, BINARY.unsqueeze(1), "layer '2' (Linear)"),
    "one that never fails": (mlp(1), F.cross_entropy, X, torch.zeros(ROWS, dtype=torch.long), "layer '2' (Linear)"),
}  # fmt: skip


@pytest.mark.parametrize("form", FEW)
def test_too_few_outputs(form: str) -> None:
    network, loss, features, target, where = FEW[form]
    findings = findings_of(network, loss, features, target)
    assert loud(findings) == ["too_few_outputs"]
    found = the_one(findings, "too_few_outputs")
    assert found.severity == "error"
    assert found.where == where


def test_how_many_outputs_are_wanted() -> None:
    found = the_one(findings_of(mlp(3), nn.CrossEntropyLoss(), X, INDEX), "too_few_outputs")
    assert found.fix == "Give layer '2' (Linear) 4 outputs."
    assert found.numbers["share_without_output"] == pytest.approx(float((INDEX == 3).double().mean()))


RIGHT: dict[str, tuple[nn.Module, Any, Tensor, Tensor]] = {
    "ignored by default": (mlp(4), nn.CrossEntropyLoss(), X, torch.where(INDEX == 0, -100, INDEX)),
    "ignored by name": (mlp(4), nn.CrossEntropyLoss(ignore_index=-1), X, torch.where(INDEX == 0, -1, INDEX)),
    "ignored by position": (
        mlp(4), lambda raw, y: F.cross_entropy(raw, y, None, None, 7), X, torch.where(INDEX == 0, 7, INDEX),
    ),
    "ignored of ours": (mlp(4), losses.CrossEntropy(ignore_index=9), X, torch.where(INDEX == 0, 9, INDEX)),
    "all ignored": (mlp(4), nn.CrossEntropyLoss(), X, torch.full((ROWS,), -100)),
    "some classes": (mlp(10), nn.CrossEntropyLoss(), X, INDEX + 1),
    "one class": (mlp(4), nn.CrossEntropyLoss(), X, torch.full((ROWS,), 3)),
    "one row": (mlp(4), nn.CrossEntropyLoss(), X[:1], INDEX[:1]),
    "no rows": (mlp(4), nn.CrossEntropyLoss(), X[:0], INDEX[:0]),
    "probabilities": (mlp(4), nn.CrossEntropyLoss(), X, torch.softmax(X[:, :4], 1)),
    "smoothed": (mlp(4), nn.CrossEntropyLoss(), X, 0.9 * ONE_HOT + 0.025),
    "masked rows of probabilities": (mlp(4), nn.CrossEntropyLoss(), X, ONE_HOT * (INDEX > 0).unsqueeze(1)),
    "dense probabilities": (nn.Sequential(nn.Conv2d(3, 3, 1)), nn.CrossEntropyLoss(), IMAGES, torch.softmax(IMAGES, 1)),
    "bytes": (mlp(4), nn.CrossEntropyLoss(), X, INDEX.to(torch.uint8)),
    "soft labels": (column(1), nn.BCEWithLogitsLoss(), X, 0.9 * BINARY + 0.05),
    "signs for a margin": (column(1), nn.SoftMarginLoss(), X, SIGNS),
    "log-targets": (
        mlp(4, nn.LogSoftmax(1)), nn.KLDivLoss(log_target=True, reduction="sum"), X, torch.log_softmax(X[:, :4], 1),
    ),
    "counts in halves": (column(1), nn.PoissonNLLLoss(), X, COUNT + 0.5),
    "missing numbers": (
        column(1), lambda raw, y: F.mse_loss(raw[~y.isnan()], y[~y.isnan()]), X, torch.where(REAL > 1, torch.nan, REAL),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", RIGHT)
def test_right_targets_are_left_alone(form: str) -> None:
    network, loss, features, target = RIGHT[form]
    assert loud(findings_of(network, loss, features, target)) == []
