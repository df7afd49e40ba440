"""The values of the likelihoods with named parameters are SciPy's, and those of each other at their limits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.losses.cumulative_logit_nll import cumulative_logit_log_probabilities
from lastlayer.losses.mixture_nll import FAMILIES
from lastlayer.losses.quantiles import ordered_quantiles
from likelihood_cases import CATALOG, NAMES, grid, negative_binomial_by_scipy, scale_by_numpy
from loss_properties import example


def _student_t(raw, y):
    return -scipy.stats.t.logpdf(y, 2.01 + np.logaddexp(0, raw[:, 2]), raw[:, 0], scale_by_numpy(raw[:, 1]))


def _log_normal(raw, y):
    return -scipy.stats.lognorm.logpdf(y, scale_by_numpy(raw[:, 1]), scale=np.exp(raw[:, 0]))


def _gamma(raw, y):
    a = scale_by_numpy(raw[:, 1]) ** -2
    return -scipy.stats.gamma.logpdf(y, a, scale=np.exp(raw[:, 0]) / a)


def _beta(raw, y):
    concentration, mean = scale_by_numpy(raw[:, 1]) ** -2, scipy.special.expit(raw[:, 0])
    return -scipy.stats.beta.logpdf(y, concentration * mean, concentration * scipy.special.expit(-raw[:, 0]))


@pytest.mark.parametrize(
    ("name", "oracle", "ranges", "targets"),
    [
        ("student_t_nll", _student_t, [(-5, 5), (-6, 6), (-20, 50)], (-20, 20)),
        ("log_normal_nll", _log_normal, [(-5, 5), (-6, 6)], (1e-3, 20)),
        ("gamma_nll", _gamma, [(-3, 3), (-4, 6)], (1e-3, 20)),
        ("beta_nll", _beta, [(-4, 4), (-4, 6)], (0.001, 0.999)),
        ("negative_binomial_nll", negative_binomial_by_scipy, [(-3, 5), (-4, 6)], (0, 60)),
    ],
    ids=NAMES[:5],
)
def test_value_is_scipys(name, oracle, ranges, targets):
    raw, target = grid(*ranges), grid(targets, seed=1)[:, 0]
    if name == "negative_binomial_nll":
        target = target.floor()
    expected = torch.as_tensor(oracle(raw.numpy(), target.numpy()))
    assert_close(CATALOG[name].value(raw, target), expected, rtol=1e-9, atol=1e-9)


def test_ordered_classes_by_their_definition():
    raw = grid((-4, 4), (-5, 3), (-5, 3))
    threshold = np.cumsum(np.c_[raw[:, :1].numpy(), np.logaddexp(0, raw[:, 1:].numpy())], axis=1)
    cumulative = np.c_[np.zeros(len(raw)), scipy.special.expit(threshold), np.ones(len(raw))]
    probability = np.diff(cumulative, axis=1)
    assert_close(cumulative_logit_log_probabilities(raw).exp().numpy(), probability, rtol=1e-9, atol=1e-13)
    for index in range(4):
        found = losses.cumulative_logit_nll(raw, torch.full((len(raw),), index), reduction="none")
        assert_close(found.numpy(), -np.log(probability[:, index]), rtol=1e-9, atol=1e-9)


def test_two_ordered_classes_are_binary_cross_entropy():
    raw, target = grid((-50, 50)), torch.arange(400) % 2
    expected = losses.binary_cross_entropy(-raw[:, 0], target.double(), reduction="none")
    assert_close(losses.cumulative_logit_nll(raw, target, reduction="none"), expected)


@pytest.mark.parametrize("levels", [(0.5,), (0.1, 0.5, 0.9), (0.9, 0.95), (0.05, 0.1, 0.4)])
def test_quantiles_are_the_sum_of_pinball_losses(levels):
    raw = grid(*[(-3, 3)] * len(levels))
    target = grid((-6, 6), seed=2)[:, 0]
    value = ordered_quantiles(raw, levels)
    assert (value.diff(dim=-1) > 0).all()
    each = sum(losses.quantile(value[:, k], target, level=level, reduction="none") for k, level in enumerate(levels))
    assert_close(losses.quantiles(raw, target, levels=levels, reduction="none"), each)


@pytest.mark.parametrize(
    ("options", "density"),
    [
        ({"family": "student_t"}, lambda y, m, s: scipy.stats.t.logpdf(y, 4.0, m, s)),
        ({"family": "student_t", "degrees_of_freedom": 1.5}, lambda y, m, s: scipy.stats.t.logpdf(y, 1.5, m, s)),
        ({"family": "logistic"}, scipy.stats.logistic.logpdf),
    ],
    ids=["student_t", "student_t of 1.5", "logistic"],
)
def test_new_families_of_mixtures_are_scipys(options, density):
    raw, target = example(CATALOG["mixture_nll"], 300)
    logits, location, raw_scale = (part.numpy() for part in raw.chunk(3, -1))
    log_share = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    joint = log_share + density(target.numpy()[:, None], location, scale_by_numpy(raw_scale))
    found = losses.mixture_nll(raw, target, **options, reduction="none")
    assert_close(found.numpy(), -scipy.special.logsumexp(joint, axis=-1))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_quantiles_and_variances_of_the_families(family):
    own = {
        "gaussian": scipy.stats.norm(),
        "laplace": scipy.stats.laplace(),
        "student_t": scipy.stats.t(4.0),
        "logistic": scipy.stats.logistic(),
    }[family.name]
    share = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    assert_close(family.quantile(share).numpy(), own.ppf(share.numpy()), rtol=1e-9, atol=1e-9)
    assert family.quantile(share.float()).dtype == torch.float32
    assert family.variance == pytest.approx(own.var())
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    assert_close(family.negative_log_density(z).numpy(), -own.logpdf(z.numpy()))


def test_student_t_with_given_degrees_of_freedom_is_scipys():
    raw, target = grid((-5, 5), (-6, 6)), grid((-20, 20), seed=1)[:, 0]
    for v in (0.5, 1.0, 4.0, 100.0):
        expected = -scipy.stats.t.logpdf(target.numpy(), v, raw[:, 0].numpy(), scale_by_numpy(raw[:, 1].numpy()))
        found = losses.student_t_nll(raw, target, degrees_of_freedom=v, reduction="none")
        assert_close(found.numpy(), expected, rtol=1e-10, atol=1e-10)
