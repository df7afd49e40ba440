"""The weighting of a likelihood by its own predicted scale, kept out of the gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.evaluation import evaluate, evaluate_with
from lastlayer.losses.beta_weighted import BetaWeighted
from lastlayer.losses.gaussian_nll import GaussianNLLFormula
from lastlayer.losses.laplace_nll import LaplaceNLLFormula
from lastlayer.losses.log_normal_nll import LogNormalNLLFormula
from lastlayer.losses.student_t_nll import StudentTNLLFormula
from likelihood_cases import scale_by_numpy
from loss_properties import random, weights

SCALED = [
    GaussianNLLFormula(),
    LaplaceNLLFormula(),
    LogNormalNLLFormula(),
    StudentTNLLFormula(),
    StudentTNLLFormula(4.0),
]


def _scaled_input(formula, n=40):
    raw, target = formula.facts.example(n, dtype=torch.float64, generator=random(1))
    return raw[:, : 2 if getattr(formula, "degrees_of_freedom", None) else raw.shape[-1]].contiguous(), target


@pytest.mark.parametrize("inner", SCALED, ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_weighted_is_the_same_every_way(inner, beta):
    formula = BetaWeighted(inner, beta)
    raw, target = _scaled_input(inner)
    weight = scale_by_numpy(raw[:, 1].numpy()) ** (2 * beta)
    expected = torch.as_tensor(weight)
    assert_close(formula.value(raw, target), expected * inner.value(raw, target))
    closed = expected.unsqueeze(-1) * inner.gradient(raw, target)
    assert_close(formula.gradient(raw, target), closed)
    assert_close(formula.value_and_gradient(raw, target)[1], closed)
    scores = raw.clone().requires_grad_()
    (readable,) = torch.autograd.grad(formula.value(scores, target).sum(), scores)
    assert_close(readable, closed, rtol=1e-9, atol=1e-12)
    for path in ("plain", "blockwise"):
        with evaluate_with(path=path):
            value = evaluate(formula, scores, target, sample_weight=weights(40))
            (gradient,) = torch.autograd.grad(value, scores)
        share = weights(40) / weights(40).sum()
        assert_close(gradient, share.unsqueeze(-1) * closed, rtol=1e-9, atol=1e-12)
    transformed = torch.func.grad(lambda scores: evaluate(formula, scores, target))(raw)
    assert_close(transformed, closed / 40, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", ["plain", "blockwise"])
def test_beta_weighted_gives_one_second_derivative(path):
    formula = BetaWeighted(GaussianNLLFormula(), 0.5)
    raw, target = _scaled_input(formula.inner, 6)
    raw.requires_grad_()
    with evaluate_with(path=path):
        (gradient,) = torch.autograd.grad(evaluate(formula, raw, target), raw, create_graph=True)
    (found,) = torch.autograd.grad(gradient[:, 0].sum(), raw)
    # With the weight a constant: 1/σ² of the location, 2z/σ² σ'(r) of the scale, times σ over six.
    scale, error = scale_by_numpy(raw[:, 1].detach().numpy()), (target - raw[:, 0]).detach().numpy()
    expected = np.c_[1 / scale, 2 * error / scale**2 * scipy.special.expit(raw[:, 1].detach().numpy())] / 6
    assert_close(found.numpy(), expected)


def test_beta_weighted_by_one_trains_the_location_as_squared_error_does():
    raw, target = _scaled_input(GaussianNLLFormula())
    gradient = BetaWeighted(GaussianNLLFormula(), 1.0).gradient(raw, target)[:, 0]
    assert_close(gradient, losses.SquaredError(halved=True).gradient(raw[:, 0], target))


def test_beta_weighted_by_zero_is_the_likelihood():
    raw, target = _scaled_input(GaussianNLLFormula())
    assert_close(
        BetaWeighted(GaussianNLLFormula(), 0.0).value_and_gradient(raw, target),
        GaussianNLLFormula().value_and_gradient(raw, target),
    )
    even = torch.ones(40, dtype=torch.float64)
    assert_close(
        BetaWeighted(GaussianNLLFormula()).optimal_constant(target, even),
        GaussianNLLFormula().optimal_constant(target, even),
    )


def test_beta_weighted_is_no_derivative_of_its_value():
    """The reason why it is kept out of the catalog: the weight's own derivative is missing."""
    formula = BetaWeighted(GaussianNLLFormula(), 0.5)
    raw, target = _scaled_input(formula.inner, 6)
    step = torch.tensor([0.0, 1e-5], dtype=torch.float64)
    slope = (formula.value(raw + step, target) - formula.value(raw - step, target)) / 2e-5
    assert ((slope - formula.gradient(raw, target)[:, 1]).abs() > 1e-3).all()
