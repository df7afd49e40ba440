"""Where heads start: the last layer's bias at the best constant prediction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from head_cases import (
    NORMAL,
    Case,
    every,
    every_case,
    real,
    scipy_density,
)
from lastlayer import heads
from lastlayer.checks import ShapeError
from loss_properties import random


def _mean_at(case: Case, constant: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return case.head.loss(constant.expand(*weight.shape, -1), target, sample_weight=weight)


def _exact(case: Case) -> bool:
    return case.head.formula.facts.exact_constant and not case.weighted


@every(_exact)
def test_initial_bias_is_the_best_constant(case):
    target = case.targets(301)
    weight = torch.rand(301, dtype=torch.float64, generator=random(3))
    bias = case.head.initial_bias(target, weight)
    assert bias.shape == (case.head.raw_size,)
    assert bias.dtype == torch.float64
    best = _mean_at(case, bias, target, weight)
    for size in (1e-3, 0.1, 1.0, 5.0):
        for seed in range(5):
            step = size * torch.randn(bias.shape, dtype=torch.float64, generator=random(seed))
            assert _mean_at(case, bias + step, target, weight) >= best - 1e-12
            assert _mean_at(case, bias - step, target, weight) >= best - 1e-12


@every(lambda case: not _exact(case))
def test_initial_bias_without_a_closed_form_is_a_good_start(case):
    """Better than zeros, and than the same at another location or scale; and it learns from there."""
    target = case.targets(301)
    weight = torch.rand(301, dtype=torch.float64, generator=random(3))
    bias = case.head.initial_bias(target, weight)
    assert bias.shape == (case.head.raw_size,)
    assert bias.isfinite().all()
    if case.weighted:
        # The location of the likelihood inside, at its scale: there the weighted gradient is 0 as well.
        raw = bias.expand(301, -1)
        _, gradient = case.head.loss_and_gradient(raw, target, sample_weight=weight)
        median = isinstance(case.head, heads.Laplace)
        assert gradient.sum(0).abs().max() < (1e-2 if median else 1e-12)
        return
    best = _mean_at(case, bias, target, weight)
    assert best < _mean_at(case, torch.zeros_like(bias), target, weight)
    for size in (1.0, 5.0):
        for seed in range(5):
            step = size * torch.randn(bias.shape, dtype=torch.float64, generator=random(seed)).abs()
            assert _mean_at(case, bias - step, target, weight) > best - 0.02


@every_case
def test_initial_bias_passes_over_what_is_masked(case):
    """Dense targets, one weight a sample or one a row of them, nonsense under weights of zero."""
    target = case.targets(6, 4, 3)
    weight = torch.rand(6, 4, 3, dtype=torch.float64, generator=random(3))
    weight[torch.rand(6, 4, 3, generator=random(4)) < 0.3] = 0.0
    kept = weight > 0
    expected = case.head.initial_bias(target[kept], weight[kept])
    broken = target.clone()
    broken[~kept] = torch.nan if target.is_floating_point() else -100
    before = broken.clone()
    assert_close(case.head.initial_bias(broken, weight), expected)
    assert_close(broken, before, equal_nan=True)
    by_sample = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    spread = by_sample.reshape(6, 1, 1).expand(6, 4, 3)
    target[by_sample == 0] = torch.nan if target.is_floating_point() else 99
    assert_close(case.head.initial_bias(target, by_sample), case.head.initial_bias(target, spread))
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(4,\)"):
        case.head.initial_bias(target, torch.ones(4))


@every_case
def test_initial_bias_takes_any_dtype_of_weight_and_target(case):
    target = case.targets(40)
    expected = case.head.initial_bias(target, torch.ones(40, dtype=torch.float64))
    for weight in (torch.ones(40), torch.ones(40, dtype=torch.int64), torch.ones(40, dtype=torch.bool)):
        for cast in (target, target.float() if target.is_floating_point() else target.int()):
            bias = case.head.initial_bias(cast, weight)
            assert bias.dtype == torch.float32
            assert_close(bias.double(), expected, rtol=1e-3, atol=1e-3)


@every_case
def test_initial_bias_of_no_target_is_zero(case):
    nothing = torch.zeros(case.head.raw_size)
    assert_close(case.head.initial_bias(case.targets(0), torch.ones(0)), nothing)
    assert_close(case.head.initial_bias(case.targets(4), torch.zeros(4)), nothing)


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_initial_bias_of_a_single_outcome_is_finite_and_learns(case, dtype):
    """Nothing starts at infinity, from where no step leads away."""
    for row in range(3):
        target = case.targets(6)[row : row + 1].repeat(5, *[1] * len(case.labels))
        bias = case.head.initial_bias(target, torch.ones(5, dtype=dtype))
        assert bias.isfinite().all()
        assert bias.dtype == dtype
        raw = bias.expand(5, -1)
        loss, gradient = case.head.loss_and_gradient(raw, target)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        # Of targets unlike it, every raw output that is a scale or a step still hears.
        other = case.targets(40)
        _, gradient = case.head.loss_and_gradient(bias.expand(40, -1), other)
        flat = case.head._through_softplus
        assert (gradient.abs().amax(0)[flat] > 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize(
    "head",
    [
        heads.Bernoulli(),
        heads.MultiLabel(labels=3),
        heads.UnitInterval(),
        heads.UnitInterval(criterion="squared_error"),
    ],
    ids=repr,
)
def test_initial_bias_of_a_single_outcome_is_confident(head, level, dtype):
    for n in range(1, 120):
        target = torch.full((n, 3) if isinstance(head, heads.MultiLabel) else (n,), level, dtype=dtype)
        bias = head.initial_bias(target, 0.1 + torch.rand(n, dtype=dtype, generator=random(n)))
        assert_close(bias, torch.full_like(bias, 10.0 if level else -10.0))


def test_initial_bias_of_a_class_that_never_occurs_is_finite():
    bias = heads.Categorical(classes=3).initial_bias(torch.tensor([0, 0, 2, 2]), torch.ones(4))
    assert_close(bias, torch.tensor([math.log(0.5), -10.0, math.log(0.5)]))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_initial_bias_of_ordered_classes_of_which_one_occurs(classes):
    """The only class is likely: its two thresholds are 20 apart, not one step of 10."""
    head = heads.Ordinal(classes=classes)
    for only in range(classes):
        bias = head.initial_bias(torch.full((9,), only), torch.ones(9))
        assert head.parameters(bias)["probability"][only] > 1 - 1e-3
        assert bias.isfinite().all()


def test_initial_bias_of_rare_ends_of_an_order():
    """Thresholds at the log-odds of the shares, as far out as ±10 allows."""
    target = torch.tensor([0] * 2 + [1] * 9996 + [2] * 2)
    bias = heads.Ordinal(classes=3).initial_bias(target, torch.ones(10000, dtype=torch.float64))
    shares = heads.Ordinal(classes=3).parameters(bias)["probability"]
    assert_close(shares, torch.tensor([2e-4, 0.9996, 2e-4], dtype=torch.float64), rtol=1e-9, atol=0)


# Wrong twins: what a test of this file must be able to see.


class _MedianBias(heads.Gaussian):
    """Starts at the median, which is not where the squared error is least."""

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return target.median().reshape(1)


class _InfiniteStart(heads.Gaussian):
    """Starts where the optimum is, at minus infinity if need be."""

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.formula.optimal_constant(target.to(sample_weight.dtype), sample_weight).reshape(self.raw_size)


@pytest.mark.parametrize(
    ("head", "check"),
    [
        (_MedianBias(), test_initial_bias_is_the_best_constant),
        (
            _InfiniteStart(scale="predicted"),
            lambda case: test_initial_bias_of_a_single_outcome_is_finite_and_learns(case, torch.float64),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_head_is_caught(head, check):
    twin = Case(head, real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL))
    with pytest.raises(AssertionError):
        check(twin)
