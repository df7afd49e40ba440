"""No digit of a likelihood is lost: mpmath and the plain formula beside it, and what it turns into at its limits."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.losses.location_scale import MINIMUM_SCALE
from likelihood_cases import CATALOG, grid
from loss_properties import example, random


def _exact_student_t(s, r, t, y):
    scale, v = mpmath.log(1 + mpmath.exp(r)) + mpmath.mpf(MINIMUM_SCALE), mpmath.log(1 + mpmath.exp(t)) + 2.01
    z = (y - s) / scale
    constant = mpmath.loggamma(v / 2) - mpmath.loggamma((v + 1) / 2) + mpmath.log(v * mpmath.pi) / 2
    return (v + 1) / 2 * mpmath.log(1 + z**2 / v) + constant + mpmath.log(scale)


def _concentration(r):
    return (mpmath.log(1 + mpmath.exp(r)) + mpmath.mpf(MINIMUM_SCALE)) ** -2


def _exact_gamma(s, r, y):
    a = _concentration(r)
    return mpmath.loggamma(a) - a * mpmath.log(a) + a * s - (a - 1) * mpmath.log(y) + a * y * mpmath.exp(-s)


def _exact_beta(s, r, y):
    concentration, mean = _concentration(r), 1 / (1 + mpmath.exp(-s))
    a, b = concentration * mean, concentration * (1 - mean)
    whole = mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(concentration)
    return whole - (a - 1) * mpmath.log(y) - (b - 1) * mpmath.log(1 - y)


def _exact_negative_binomial(s, r, y):
    k, mean = _concentration(r), mpmath.exp(s)
    whole = mpmath.loggamma(k) + mpmath.loggamma(y + 1) - mpmath.loggamma(y + k)
    return whole + (y + k) * mpmath.log(1 + mean / k) - y * (s - mpmath.log(k))


def _plain_gamma(raw, y):
    a = (torch.nn.functional.softplus(raw[:, 1]) + MINIMUM_SCALE) ** -2
    rate = a / raw[:, 0].exp()
    return torch.lgamma(a) - a * rate.log() - (a - 1) * y.log() + rate * y


def _plain_beta(raw, y):
    concentration = (torch.nn.functional.softplus(raw[:, 1]) + MINIMUM_SCALE) ** -2
    a, b = concentration * torch.sigmoid(raw[:, 0]), concentration * torch.sigmoid(-raw[:, 0])
    whole = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(concentration)
    return whole - (a - 1) * y.log() - (b - 1) * torch.log1p(-y)


def _plain_negative_binomial(raw, y):
    k = (torch.nn.functional.softplus(raw[:, 1]) + MINIMUM_SCALE) ** -2
    mean = raw[:, 0].exp()
    whole = torch.lgamma(k) + torch.lgamma(y + 1) - torch.lgamma(y + k)
    return whole - k * (k / (k + mean)).log() - y * (mean / (k + mean)).log()


def _plain_student_t(raw, y):
    scale = torch.nn.functional.softplus(raw[:, 1]) + MINIMUM_SCALE
    return -torch.distributions.StudentT(2.01 + torch.nn.functional.softplus(raw[:, 2]), raw[:, 0], scale).log_prob(y)


@pytest.mark.parametrize(
    ("name", "exact", "plain", "ranges"),
    [
        ("student_t_nll", _exact_student_t, _plain_student_t, [(-2, 2), (-3, 3), (-5, 2000)]),
        ("gamma_nll", _exact_gamma, _plain_gamma, [(-2, 2), (-8, 3)]),
        ("beta_nll", _exact_beta, _plain_beta, [(-2, 2), (-8, 3)]),
        ("negative_binomial_nll", _exact_negative_binomial, _plain_negative_binomial, [(-2, 8), (-8, 3)]),
    ],
    ids=["student_t", "gamma", "beta", "negative binomial"],
)
def test_no_more_than_twice_the_error_of_the_plain_formula_in_float32(name, exact, plain, ranges):
    """And a tenth of it where concentrations are large: there the plain formula has lost its digits."""
    raw = grid(*ranges, n=80, seed=3).float()
    spread = torch.randn(80, generator=random(4)) * (torch.nn.functional.softplus(raw[:, 1]) + MINIMUM_SCALE)
    target = {
        "student_t_nll": raw[:, 0] + spread,
        "gamma_nll": (raw[:, 0] + spread.clamp(-3, 3)).exp(),
        "beta_nll": torch.sigmoid(raw[:, 0] + spread.clamp(-3, 3)),
        "negative_binomial_nll": torch.poisson((raw[:, 0] + spread.clamp(-3, 2)).exp(), generator=random(5)),
    }[name]
    scores = raw.clone().requires_grad_()
    plain_value = plain(scores, target)
    (plain_gradient,) = torch.autograd.grad(plain_value.sum(), scores)
    value, gradient = CATALOG[name].formula.value_and_gradient(raw, target)
    value_error, gradient_error, plain_error, plain_gradient_error = [], [], [], []
    with mpmath.workdps(40):
        for row in range(len(raw)):
            at = [mpmath.mpf(x) for x in raw[row].tolist()]
            y = mpmath.mpf(target[row].item())
            true = exact(*at, y)
            value_error.append(float(abs(value[row].item() - true) / (1 + abs(true))))
            plain_error.append(float(abs(plain_value[row].item() - true) / (1 + abs(true))))
            for place in range(len(at)):
                order = tuple(int(place == each) for each in range(len(at)))
                slope = mpmath.diff(lambda *x: exact(*x, y), tuple(at), order)  # noqa: B023
                gradient_error.append(float(abs(gradient[row, place].item() - slope) / (1 + abs(slope))))
                plain_gradient_error.append(float(abs(plain_gradient[row, place].item() - slope) / (1 + abs(slope))))
    unit = torch.finfo(torch.float32).eps
    assert max(value_error) <= 2 * max(plain_error) + 4 * unit
    assert max(gradient_error) <= 2 * max(plain_gradient_error) + 4 * unit
    if name != "student_t_nll":
        assert max(value_error) <= 0.1 * max(plain_error)


def test_student_t_becomes_the_gaussian_without_cancellation():
    raw, target = example(losses.GaussianNLL(), 200, dtype=torch.float32)
    gaussian = losses.GaussianNLL().formula.value_and_gradient(raw, target)
    almost = losses.StudentTNLL(degrees_of_freedom=1e7).formula.value_and_gradient(raw, target)
    assert_close(almost, gaussian, rtol=1e-4, atol=1e-5)
    # The difference from the Gaussian is (1 + 2z² − z⁴)/(4ν) to first order, also where ν comes from the network.
    v = 1e6
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    scale = math.log(2) + MINIMUM_SCALE
    wide = torch.stack([0 * z, 0 * z, torch.full_like(z, v)], dim=-1)
    found = losses.student_t_nll(wide, z * scale, reduction="none")
    limit = losses.gaussian_nll(wide[:, :2], z * scale, reduction="none")
    assert_close((found - limit) * 4 * v, 1 + 2 * z**2 - z**4, rtol=0, atol=3e-3)
    of_freedom = losses.StudentTNLL().gradient(wide, z * scale)[:, 2]
    assert_close(-of_freedom * 4 * v**2, 1 + 2 * z**2 - z**4, rtol=0, atol=3e-3)


def test_negative_binomial_becomes_poisson():
    loss = losses.NegativeBinomialNLL(minimum_scale=1e-6)
    log_rate, target = grid((-2, 6))[:, 0], grid((0, 200), seed=1)[:, 0].floor()
    raw = torch.stack([log_rate, torch.full_like(log_rate, -100.0)], dim=-1)
    assert_close(loss.value(raw, target), losses.PoissonNLL().value(log_rate, target), rtol=1e-8, atol=1e-7)
    slope = loss.gradient(raw, target)[:, 0]
    assert_close(slope, losses.PoissonNLL().gradient(log_rate, target), rtol=1e-8, atol=1e-7)


def test_gamma_goes_on_as_its_tangent():
    target = torch.full((4,), math.exp(40.0), dtype=torch.float64)
    raw = torch.zeros(4, 2, dtype=torch.float64)
    raw[:, 0] = torch.tensor([10.0 + 1e-9, 10.0, 10.0 - 1e-9, 5.0])
    value, slope = losses.GammaNLL().formula.value_and_gradient(raw, target)
    assert_close(value[0], value[2], rtol=1e-8, atol=0)
    assert_close(slope[3, 0], slope[1, 0], rtol=1e-12, atol=0)
    assert_close(value[3], value[1] - 5.0 * slope[1, 0], rtol=1e-9, atol=0)


def test_close_thresholds_keep_their_digits():
    """The difference of two sigmoids rounds to 0 in float32; its logarithm does not."""
    raw = torch.tensor([[0.5, -30.0, 1.0], [20.0, -60.0, 0.0], [-1e4, -1e4, 1e4]])
    found = losses.cumulative_logit_nll(raw, torch.tensor([1, 1, 1]), reduction="none")
    with mpmath.workdps(60):
        for row in (0, 1):
            below, gap = mpmath.mpf(raw[row, 0].item()), mpmath.log(1 + mpmath.exp(raw[row, 1].item()))
            probability = 1 / (1 + mpmath.exp(-below - gap)) - 1 / (1 + mpmath.exp(-below))
            assert found[row].item() == pytest.approx(float(-mpmath.log(probability)), rel=1e-6)
    assert found[2] == 2e4
