"""The best constants of the likelihoods with named parameters, against fits and searches by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.losses.concentration import concentration_from_raw
from lastlayer.losses.cumulative_logit_nll import cumulative_logit_log_probabilities
from lastlayer.losses.gamma_nll import gamma_parameters
from lastlayer.losses.location_scale import STUDENT_T, StudentTFamily
from lastlayer.losses.log_normal_nll import log_normal_parameters
from lastlayer.losses.quantiles import ordered_quantiles
from lastlayer.losses.student_t_nll import student_t_parameters
from likelihood_cases import CATALOG, NAMES, negative_binomial_by_scipy
from loss_properties import example, random, weights


def test_best_gamma_is_scipys_fit():
    target = torch.as_tensor(np.random.default_rng(0).gamma(3.0, 2.0, size=(500, 2)))
    found = losses.GammaNLL().formula.optimal_constant(target, torch.ones(500, dtype=torch.float64))
    mean, concentration = gamma_parameters(found)
    for column in range(2):
        shape, _, scale = scipy.stats.gamma.fit(target[:, column].numpy(), floc=0)
        assert concentration[column].item() == pytest.approx(shape, rel=1e-6)
        assert mean[column].item() == pytest.approx(shape * scale, rel=1e-6)


def test_best_log_normal_is_scipys_fit():
    target = torch.as_tensor(np.random.default_rng(0).lognormal(1.0, 0.5, size=500))
    found = losses.LogNormalNLL().formula.optimal_constant(target, torch.ones(500, dtype=torch.float64))
    shape, _, scale = scipy.stats.lognorm.fit(target.numpy(), floc=0)
    location, deviation = log_normal_parameters(found)
    assert_close((location.exp().item(), deviation.item()), (float(scale), float(shape)), rtol=1e-6, atol=0)


def test_best_negative_binomial_is_found_by_search():
    target = torch.as_tensor(np.random.default_rng(0).negative_binomial(2.0, 0.3, size=400)).double()
    weight = weights(400)
    found = losses.NegativeBinomialNLL().formula.optimal_constant(target, weight)
    search = scipy.optimize.minimize(
        lambda at: np.average(
            negative_binomial_by_scipy(np.tile(at, (400, 1)), target.numpy()), weights=weight.numpy()
        ),
        x0=[0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-13},
    )
    assert_close(found.numpy(), search.x, rtol=0, atol=1e-5)


def test_counts_that_vary_less_than_their_mean_want_poisson():
    target = torch.tensor([2.0, 3.0, 3.0, 4.0], dtype=torch.float64)
    found = losses.NegativeBinomialNLL().formula.optimal_constant(target, torch.ones(4, dtype=torch.float64))
    assert found[0] == math.log(3.0)
    assert concentration_from_raw(found[1])[0] > 0.999e6
    nothing = losses.NegativeBinomialNLL().formula.optimal_constant(0 * target, torch.ones(4, dtype=torch.float64))
    assert nothing[0] == -torch.inf
    assert not nothing.isnan().any()


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_better_than_most(name):
    """Whether promised as the optimum or as a start: no worse than a hundred raw outputs drawn around it."""
    loss = CATALOG[name]
    _, target = example(loss, 300)
    if name == "beta_nll":
        target = torch.as_tensor(np.random.default_rng(0).beta(2.0, 5.0, size=300))
    if name == "student_t_nll":
        target = torch.as_tensor(np.random.default_rng(0).standard_t(3.0, size=300))
    found = loss.formula.optimal_constant(target, torch.ones(300, dtype=torch.float64))
    start = loss(found.expand(300, -1), target)
    for move in 0.5 * torch.randn(100, len(found), dtype=torch.float64, generator=random(1)):
        assert loss((found + move).expand(300, -1), target) > start - 0.01


def test_student_t_start_finds_heavy_tails_and_gaussians():
    noise = np.random.default_rng(1)
    heavy, none = torch.as_tensor(5 + noise.standard_t(3.0, size=4000)), torch.as_tensor(noise.normal(size=4000))
    even = torch.ones(4000, dtype=torch.float64)
    location, _, freedom = student_t_parameters(losses.StudentTNLL().formula.optimal_constant(heavy, even))
    assert 2.4 < freedom < 4.1
    assert location.item() == pytest.approx(5.0, abs=0.1)
    assert student_t_parameters(losses.StudentTNLL().formula.optimal_constant(none, even))[2] > 19
    both = losses.StudentTNLL().formula.optimal_constant(torch.stack([heavy, none], dim=-1), even)
    assert_close(both[0], losses.StudentTNLL().formula.optimal_constant(heavy, even))


def test_student_t_with_given_degrees_of_freedom_is_the_likeliest():
    target = torch.as_tensor(np.random.default_rng(2).standard_t(4.0, size=500))
    search = scipy.optimize.minimize(
        lambda at: -scipy.stats.t.logpdf(target.numpy(), 4.0, at[0], math.exp(at[1])).mean(),
        x0=[0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-14},
    )
    location, scale = STUDENT_T.fit(target, torch.ones(500, dtype=torch.float64))
    assert_close(np.array([location.item(), scale.log().item()]), search.x, rtol=0, atol=1e-6)
    assert StudentTFamily(2.0).variance == math.inf


def test_best_ordered_classes_have_the_frequencies():
    target = torch.tensor([0, 0, 1, 3, 3, 3, 1, 0])
    even = torch.ones(8, dtype=torch.float64)
    found = losses.CumulativeLogitNLL(classes=5).formula.optimal_constant(target, even)
    assert not found.isnan().any()
    probability = cumulative_logit_log_probabilities(found).exp()
    assert_close(probability, torch.tensor([3, 2, 0, 3, 0], dtype=torch.float64) / 8, rtol=0, atol=1e-12)


def test_best_quantiles_are_the_quantiles():
    target = torch.randn(201, 2, dtype=torch.float64, generator=random(4))
    levels = (0.1, 0.25, 0.6, 0.9)
    found = losses.Quantiles(levels=levels).formula.optimal_constant(target, torch.ones(201, dtype=torch.float64))
    expected = np.quantile(target.numpy(), levels, axis=0, method="inverted_cdf").T
    assert_close(ordered_quantiles(found, levels).numpy(), expected)


@pytest.mark.parametrize("name", ["student_t_nll", "log_normal_nll", "gamma_nll", "beta_nll", "quantiles"])
def test_constant_targets_have_a_start_without_nan(name):
    for n in range(2, 40):
        found = CATALOG[name].formula.optimal_constant(torch.full((n,), 0.1), torch.rand(n, generator=random(n)))
        assert not found.isnan().any()
