"""Targets that a head refuses, and says where."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from head_cases import (
    NORMAL,
    Case,
    every,
    every_case,
    real,
    scipy_density,
)
from lastlayer import heads
from lastlayer.checks import DomainError


@every_case
def test_check_target(case):
    case.head.check_target(case.targets(50))
    case.head.check_target(case.targets(5, 4))
    case.head.check_target(case.targets(5, 4), torch.ones(5))
    case.head.check_target(case.targets(0))
    case.head.check_target(case.targets(0), torch.ones(0))
    index = [1] * case.outside.dim()
    wrong = case.outside[tuple(index)].item()
    for weight in (None, torch.ones(2), torch.tensor([0.0, 1e-3])):
        with pytest.raises(DomainError) as caught:
            case.head.check_target(case.outside, weight)
        assert f"target {wrong:g} at index {index}" in str(caught.value)
        assert type(case.head).__name__ in str(caught.value)
    case.head.check_target(case.outside, torch.tensor([1.0, 0.0]))


@every(lambda case: case.targets(1).is_floating_point())
def test_check_target_refuses_nan_that_counts(case):
    target = case.targets(6, 4)
    where = [3, 2, *[0] * len(case.labels)]
    target[tuple(where)] = torch.nan
    by_sample = torch.ones(6)
    each = torch.ones(6, 4)
    for weight in (None, by_sample, each):
        with pytest.raises(DomainError, match="nan") as caught:
            case.head.check_target(target, weight)
        assert str(where) in str(caught.value)
    by_sample[3], each[3, 2] = 0.0, 0.0
    case.head.check_target(target, by_sample)
    case.head.check_target(target, each)


def test_check_target_of_masked_class_indices_and_rows():
    head = heads.Categorical(classes=3)
    index = torch.tensor([[0, -100], [2, 7]])
    head.check_target(index, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    with pytest.raises(DomainError, match=r"target 7 at index \[1, 1\]"):
        head.check_target(index, torch.tensor([[1.0, 0.0], [2.0, 1.0]]))
    rows = torch.tensor([[0.2, 0.3, 0.5], [torch.nan, 9.0, -1.0], [0.9, 0.9, 0.9]])
    head.check_target(rows, torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(DomainError, match=r"at index \[2\] add up to 2\.7; expected 1 in every row"):
        head.check_target(rows, torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(DomainError, match=r"target nan at index \[1, 0\]"):
        head.check_target(rows)


def test_check_target_refuses_counts_that_are_not_whole():
    for head in (heads.Poisson(), heads.NegativeBinomial()):
        head.check_target(torch.tensor([0, 3, 7]))
        with pytest.raises(DomainError, match=r"target 2\.5 at index \[1\] lies outside the whole numbers of \[0, ∞\)"):
            head.check_target(torch.tensor([1.0, 2.5]))
        with pytest.raises(DomainError, match=r"target inf at index \[0\]"):
            head.check_target(torch.tensor([math.inf]))


def test_check_target_says_where():
    with pytest.raises(DomainError, match=r"target 1\.5 at index \[1\] lies outside \[0, 1\], 0 or 1"):
        heads.Bernoulli().check_target(torch.tensor([0.0, 1.5]))
    with pytest.raises(DomainError, match=r"target 2 at index \[1, 0\]"):
        heads.MultiLabel(labels=2).check_target(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(DomainError, match=r"target 3 at index \[2\]; .*indices 0 … 2.*count classes from 0"):
        heads.Categorical(classes=3).check_target(torch.tensor([1, 2, 3]))
    with pytest.raises(DomainError, match=r"target -0\.5 at index \[0, 1\]; .*class probabilities"):
        heads.Categorical(classes=2).check_target(torch.tensor([[1.5, -0.5]], dtype=torch.float64))


# Wrong twins: what a test of this file must be able to see.


class _BlindToMasks(heads.Gaussian):
    """Checks masked targets too."""

    def check_target(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        super().check_target(target)


def test_a_head_that_is_blind_to_masks_is_caught():
    twin = Case(_BlindToMasks(), real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL))
    with pytest.raises(DomainError):
        test_check_target_refuses_nan_that_counts(twin)
    with pytest.raises(DomainError):
        test_check_target(twin)
