"""Scales that are fitted to predictions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from head_cases import (
    LAPLACE,
    NORMAL,
    WITH_SCALE,
    Case,
    every,
    every_scale,
    real,
    scipy_density,
)
from lastlayer import heads
from lastlayer.checks import ShapeError


def _fitting(case: Case) -> Case:
    """The same head, but with a scale that is to be fitted."""
    return dataclasses.replace(case, head=dataclasses.replace(case.head, scale="constant"))


@every_scale
def test_refit_finds_the_maximum_likelihood_scale(case):
    case = _fitting(case)
    raw, target = case.raw(200), case.targets(200)
    fitted = case.head.refit(raw, target, torch.ones(200))
    assert type(fitted) is type(case.head)
    assert fitted.scale == "constant"
    location = next(iter(fitted.parameters(raw).values()))
    oracle = LAPLACE if isinstance(case.head, heads.Laplace) else NORMAL
    _, scale = oracle.fit((target - location).numpy(), floc=0)
    assert fitted.fitted_scale == pytest.approx(scale)
    assert_close(fitted.parameters(raw)["scale"], torch.full((200,), scale, dtype=torch.float64))
    best = fitted.negative_log_likelihood(raw, target).mean()
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = dataclasses.replace(fitted, fitted_scale=fitted.fitted_scale * factor)
        assert other.negative_log_likelihood(raw, target).mean() > best
    assert fitted.refit(raw, target, torch.ones(200)) == fitted


@every_scale
def test_a_given_scale_stays(case):
    if case.head.scale == "constant":
        return
    fitted = case.head.refit(case.raw(30), case.targets(30), torch.ones(30))
    assert fitted == case.head
    assert (fitted.parameters(case.raw(3))["scale"] == case.head.scale).all()


@every_scale
def test_refit_takes_weights(case):
    case = _fitting(case)
    raw, target = case.raw(30), case.targets(30)
    times = torch.arange(30) % 3
    rows = torch.repeat_interleave(torch.arange(30), times)
    repeated = case.head.refit(raw[rows], target[rows], torch.ones(len(rows)))
    for weight in (times, times.float(), times.double()):
        assert case.head.refit(raw, target, weight).fitted_scale == pytest.approx(repeated.fitted_scale)


@every_scale
def test_refit_never_broadcasts_and_passes_over_masked_rows(case):
    case = _fitting(case)
    raw, target = case.raw(6, 4), case.targets(6, 4)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
    spread = weight.unsqueeze(-1).expand(6, 4)
    expected = case.head.refit(raw.flatten(0, 1), target.flatten(), spread.flatten()).fitted_scale
    assert case.head.refit(raw, target, spread).fitted_scale == pytest.approx(expected)
    target[weight == 0] = torch.nan
    assert case.head.refit(raw, target, weight).fitted_scale == pytest.approx(expected)
    with pytest.raises(ShapeError, match=r"raw has shape \(6, 4\), target \(6, 4, 1\)"):
        case.head.refit(raw, target.unsqueeze(-1), weight)
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(4,\)"):
        case.head.refit(raw, target, torch.ones(4))


@every_scale
def test_refit_of_perfect_predictions_keeps_a_positive_scale(case):
    case = _fitting(case)
    raw = case.raw(30)
    location = next(iter(case.head.parameters(raw).values()))
    assert 0 < case.head.refit(raw, location, torch.ones(30)).fitted_scale < 1e-5


@every_scale
def test_refit_of_nothing_changes_nothing(case):
    case = _fitting(case)
    assert case.head.refit(case.raw(0), case.targets(0), torch.ones(0)) == case.head
    assert case.head.refit(case.raw(5), torch.full((5,), torch.nan), torch.zeros(5)) == case.head


@every(lambda case: case not in WITH_SCALE.values())
def test_refit_of_a_head_without_constants_is_itself(case):
    assert case.head.refit(case.raw(5), case.targets(5), torch.ones(5)) is case.head


# Wrong twins: what a test of this file must be able to see.


class _HalfScale(heads.Gaussian):
    """A refit that divides by the scale twice."""

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return heads.Gaussian._spread(residual, weight) / 2


class _MovedNumber(heads.Gaussian):
    """Fits a scale that was given."""

    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> heads.Gaussian:
        return dataclasses.replace(self, scale=2.0)


@pytest.mark.parametrize(
    ("head", "check"),
    [
        (_HalfScale(), test_refit_finds_the_maximum_likelihood_scale),
        (_MovedNumber(scale=1.0), test_a_given_scale_stays),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_head_is_caught(head, check):
    twin = Case(head, real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL))
    with pytest.raises(AssertionError):
        check(twin)
