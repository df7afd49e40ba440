"""Distribution → negative log-likelihood → named loss, by the numbers (SPEC A2–A5, A8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from head_cases import CASES, real, unit
from lastlayer import heads, losses
from lastlayer.checks import ShapeError
from loss_properties import random


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(
    ("head", "loss", "slope", "offset"),
    [
        (
            heads.Gaussian,
            losses.squared_error,
            lambda b: 1 / (2 * b * b),
            lambda b: math.log(b) + math.log(2 * math.pi) / 2,
        ),
        (heads.Laplace, losses.absolute_error, lambda b: 1 / b, lambda b: math.log(2 * b)),
    ],
    ids=["gaussian and squared error", "laplace and absolute error"],
)
def test_a8_likelihood_and_named_loss_have_one_minimizer(head, loss, slope, offset, scale):
    """SPEC A8, source S4: distribution → negative log-likelihood → named loss, by the numbers."""
    target = real(51)
    grid = torch.linspace(-2, 8, 2001, dtype=torch.float64)
    likelihood = torch.stack(
        [head(scale=scale).negative_log_likelihood(constant.expand(51, 1), target).mean() for constant in grid]
    )
    named = torch.stack([loss(constant.expand(51), target) for constant in grid])
    assert likelihood.argmin() == named.argmin()
    assert_close(likelihood, slope(scale) * named + offset(scale))


def test_a8_bernoulli_and_categorical_are_their_cross_entropies():
    """SPEC A8: no constant between the likelihood and the loss where the target is a class."""
    for name, loss in (("bernoulli", losses.binary_cross_entropy), ("categorical", losses.cross_entropy)):
        case = CASES[name]
        raw, target = case.raw(30), case.targets(30)
        scores = raw.squeeze(-1) if name == "bernoulli" else raw
        assert_close(loss(scores, target, reduction="none"), -case.log_density(raw, target))


def test_a5_both_criteria_are_best_at_the_mean():
    """SPEC A5, source S1: regression in [0, 1] by sigmoid with squared error or binary cross-entropy."""
    target, weight = unit(101), torch.rand(101, dtype=torch.float64, generator=random(3))
    mean = (weight * target).sum() / weight.sum()
    for criterion in ("binary_cross_entropy", "squared_error"):
        bias = heads.UnitInterval(criterion=criterion).initial_bias(target, weight)
        assert_close(torch.sigmoid(bias), mean.reshape(1))


def test_a_row_of_labels_is_the_sum_of_its_labels():
    case = CASES["multilabel"]
    raw, target = case.raw(9), case.targets(9)
    each = losses.binary_cross_entropy(raw, target, reduction="none")
    assert_close(case.head.loss(raw, target, reduction="none"), each.sum(-1))
    assert_close(case.head.loss(raw, target), each.sum(-1).mean())
    assert_close(case.head.negative_log_likelihood(raw, target), each.sum(-1))
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(9, 3\), the per-sample values \(9,\)"):
        case.head.loss(raw, target, sample_weight=torch.ones(9, 3))


def test_only_real_numbers_may_be_standardized():
    assert {name for name, head in heads.catalog().items() if head.standardizes} == {"gaussian", "laplace"}


def test_class_probabilities_as_targets():
    """SPEC A2: class index, one-hot or probabilities."""
    head, raw = heads.Categorical(classes=4), CASES["categorical"].raw(12)
    index = CASES["categorical"].targets(12)
    one_hot = torch.nn.functional.one_hot(index, 4).double()
    assert_close(head.loss(raw, one_hot), head.loss(raw, index))
    assert_close(head.loss_and_gradient(raw, one_hot), head.loss_and_gradient(raw, index))
    assert_close(head.initial_bias(one_hot, torch.ones(12).double()), head.initial_bias(index, torch.ones(12).double()))
    head.check_target(one_hot)


def test_the_best_constants_are_the_mean_and_the_median():
    target, ones = real(99), torch.ones(99, dtype=torch.float64)
    assert heads.Gaussian().initial_bias(target, ones).item() == pytest.approx(np.mean(target.numpy()))
    assert heads.Laplace().initial_bias(target, ones).item() == pytest.approx(np.median(target.numpy()))
    outlier = torch.cat([target, torch.tensor([1e6], dtype=torch.float64)])
    ones = torch.ones(100, dtype=torch.float64)
    assert heads.Gaussian().initial_bias(outlier, ones) > 9000
    assert heads.Laplace().initial_bias(outlier, ones) < 4
