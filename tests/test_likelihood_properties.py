"""What every loss promises, asked of the likelihoods with other options, at all extremes, and for masked samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

import loss_properties as properties
from lastlayer.evaluation import evaluate_with, mean_and_gradient
from likelihood_cases import CATALOG, NAMES, VARIANTS, sized_example
from loss_properties import example, weights

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.mark.parametrize("loss", [*(CATALOG[name] for name in NAMES), *VARIANTS], ids=str)
def test_closed_form_is_the_derivative_of_the_readable_value(loss):
    """Asked of the formula itself, so that no evaluation stands between."""
    formula = loss.formula
    raw, target = sized_example(loss, 300)
    raw.requires_grad_()
    value = formula.value(raw, target)
    (expected,) = torch.autograd.grad(value.sum(), raw)
    raw = raw.detach()
    assert_close(formula.gradient(raw, target), expected, rtol=1e-9, atol=1e-11)
    assert_close(formula.value_and_gradient(raw, target), (value.detach(), expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", VARIANTS, ids=str)
def test_derivatives_with_other_options(loss):
    raw, target = sized_example(loss, 6)
    raw.requires_grad_()

    def mean(scores):
        return loss(scores, target, sample_weight=weights(6))

    assert torch.autograd.gradcheck(mean, raw, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(mean, raw)


@pytest.mark.parametrize("loss", [*(CATALOG[name] for name in NAMES), *VARIANTS], ids=str)
@pytest.mark.parametrize("dtype", properties.DTYPES, ids=str)
def test_finite_at_every_pair_of_extremes(loss, dtype):
    """Every combination of extremes of the raw outputs, where the catalog's test draws some."""
    size = sized_example(loss, 1)[0].shape[-1]
    sizes = torch.tensor([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], dtype=dtype)
    raw = torch.cartesian_prod(*[sizes] * min(size, 3)).reshape(-1, min(size, 3))
    raw = torch.cat([raw, raw[:, :1].expand(-1, size - raw.shape[-1])], dim=-1)
    _, target = example(loss, len(raw), dtype=dtype)
    value, gradient = loss.value(raw, target), loss.gradient(raw, target)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    with evaluate_with(path="plain"):
        scores = raw.clone().requires_grad_()
        (plain,) = torch.autograd.grad(loss(scores, target), scores)
    assert plain.isfinite().all()


@pytest.mark.parametrize("name", ["student_t_nll", "log_normal_nll", "gamma_nll", "negative_binomial_nll"])
@pytest.mark.parametrize("raw_scale", [-1e4, -10.0, 0.0, 10.0, 1e4])
def test_a_target_far_away_is_finite_in_float32(name, raw_scale):
    target = torch.tensor([1e-30, 1e-6, 1.0, 1e6, 1e12] if name != "negative_binomial_nll" else [0.0, 1.0, 1e6, 1e12])
    raw = torch.zeros(len(target), 3 if name == "student_t_nll" else 2)
    raw[:, 1] = raw_scale
    value, gradient = CATALOG[name].formula.value_and_gradient(raw, target)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    # Where a target lies above, its location or mean is pulled up.
    assert gradient[-1, 0] < 0


@pytest.mark.parametrize("loss", [*(CATALOG[name] for name in NAMES), *VARIANTS], ids=str)
def test_a_masked_sample_is_harmless_whatever_its_target(loss):
    raw, target = sized_example(loss)
    weight, kept = weights(len(raw)), torch.arange(len(raw)) % 3 != 0
    weight[~kept] = 0.0
    expected = mean_and_gradient(loss.formula, raw[kept], target[kept], sample_weight=weight[kept])
    worst = [0.0, -5.0, math.nan, math.inf] if target.is_floating_point() else [-7, 99]
    for absurd in worst:
        masked = target.masked_fill(~kept, absurd)
        for value, gradient in properties.both_ways(loss, raw, masked, sample_weight=weight):
            assert_close(value, expected[0])
            assert_close(gradient[kept], expected[1])
            assert (gradient[~kept] == 0).all()


def test_missing_numbers_are_not_hidden():
    for loss in (*(CATALOG[name] for name in NAMES), *VARIANTS):
        raw, target = sized_example(loss, 4)
        raw[1] = torch.nan
        assert loss.formula.value(raw, target)[1].isnan(), str(loss)
        if loss.facts.smooth:
            assert loss.formula.gradient(raw, target)[1].isnan().any(), str(loss)
        if target.is_floating_point():
            target[2] = torch.nan
            assert loss.formula.value(raw, target)[2].isnan(), str(loss)


@pytest.mark.parametrize("name", ["log_normal_nll", "gamma_nll"])
def test_outside_the_support(name):
    raw = torch.zeros(2, 2)
    value = CATALOG[name].value(raw, torch.tensor([0.0, -1.0]))
    assert value[0].isfinite()
    assert value[1].isnan()
