"""What the discrete distributions have that no other has; what all have is in ``test_distributions.py``."""

from __future__ import annotations

import functools
import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from lastlayer.checks import DomainError, LastLayerError, ShapeError
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.negative_binomial import NegativeBinomial
from lastlayer.distributions.poisson import Poisson


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Bernoulli


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bernoulli_is_finite_at_any_logit(dtype: torch.dtype) -> None:
    logit = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=dtype, requires_grad=True)
    answer = Bernoulli(logit)
    assert_close(answer.log_prob(1.0), torch.tensor([-1e4, -200.0, -math.log(2), 0.0, 0.0], dtype=dtype))
    for asked in (answer.log_prob(0.0), answer.log_prob(1.0), answer.entropy, answer.variance, answer.crps(1.0)):
        assert asked.isfinite().all()
        (gradient,) = torch.autograd.grad(asked.sum(), logit, retain_graph=True)
        assert gradient.isfinite().all()


def test_a_bernoullis_crps_is_the_brier_score_without_cancellation() -> None:
    # Of a sure answer what is left is (1 − p)², here exp(−80).
    assert_close(Bernoulli(tensor(40.0)).crps(1.0), tensor(math.exp(-80.0)), rtol=1e-12, atol=0)
    assert_close(Bernoulli(tensor(40.0)).variance, tensor(math.exp(-40.0)), rtol=1e-12, atol=0)


def test_a_mixture_of_bernoullis_keeps_its_digits() -> None:
    mpmath.mp.dps = 120
    for logits, weight in (((200.0, 150.0), None), ((-200.0, -150.0), (1.0, 3.0)), ((200.0, -200.0), (1.0, 4.0))):
        share = [mpmath.mpf(w) for w in weight or (1, 1)]
        probability = sum(w / (1 + mpmath.exp(-mpmath.mpf(x))) for w, x in zip(share, logits, strict=True)) / sum(share)
        expected = float(mpmath.log(probability / (1 - probability)))
        mixed = Bernoulli(tensor(*logits).unsqueeze(1)).mixed(None if weight is None else tensor(*weight))
        assert isinstance(mixed, Bernoulli)
        assert_close(mixed.logit, tensor(expected), rtol=1e-14, atol=1e-14)
    assert_close(Bernoulli(tensor(2.0, math.nan)).mixed(tensor(1.0, 0.0)).logit, torch.tensor(2.0, dtype=torch.float64))
    with pytest.raises(ShapeError):
        Bernoulli(tensor(1.0, 2.0)).mixed(tensor(1.0))
    with pytest.raises(DomainError):
        Bernoulli(tensor(1.0, 2.0)).mixed(tensor(1.0, -1.0))


# Categorical


def test_indexing_leaves_the_class_axis() -> None:
    logits = torch.arange(24.0).reshape(2, 3, 4)
    every, rows = Categorical(logits), torch.tensor([1, 0])
    mask = torch.tensor([[True, False, True], [False, False, True]])
    indices = [0, -1, (0, 1), (..., -1), (..., 0, slice(None)), (slice(None), -1), (slice(None), slice(1)), None, mask]
    for index in [*indices, rows, (rows, rows), (slice(None), rows), [1, 0], ..., (None, ..., 2)]:
        # NumPy's own answer, class by class.
        key = index.numpy() if isinstance(index, Tensor) else index
        if isinstance(key, tuple):
            key = tuple(part.numpy() if isinstance(part, Tensor) else part for part in key)
        expected = np.stack([logits[..., k].numpy()[key] for k in range(4)], axis=-1)
        assert np.array_equal(every[index].logits.numpy(), expected), f"{index}"
    with pytest.raises(IndexError):
        every[0, 0, 0]
    assert every.map(lambda parameter: parameter.reshape(6)).shape == (6,)


def test_a_mixture_of_categoricals_averages_probabilities() -> None:
    logits = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = tensor(1.0, 2.0, 0.0, 3.0, 4.0)
    mixed = Categorical(logits).mixed(weight)
    assert isinstance(mixed, Categorical)
    assert_close(mixed.probability, (torch.softmax(logits, -1) * weight[:, None, None]).sum(0) / 10.0)
    far = Categorical(tensor(0.0, -900.0).expand(2, 2)).mixed()
    assert_close(far.log_probability, tensor(0.0, -900.0))


def test_cumulative_logits_lose_nothing_in_either_tail() -> None:
    mpmath.mp.dps = 60
    for low, high in ((-50.0, -49.0), (49.0, 50.0), (-1e-9, 1e-9), (-700.0, 700.0), (30.0, 30.0 + 1e-10)):
        a, b = mpmath.mpf(low), mpmath.mpf(high)
        expected = [
            mpmath.log(1 / (1 + mpmath.exp(-a))),
            mpmath.log(1 / (1 + mpmath.exp(-b)) - 1 / (1 + mpmath.exp(-a))),
            mpmath.log(1 / (1 + mpmath.exp(b))),
        ]
        found = Categorical.from_cumulative_logits(tensor(low, high)).log_probability
        assert_close(found, tensor(*map(float, expected)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cumulative_logits_stay_finite(dtype: torch.dtype) -> None:
    cumulative = torch.tensor([[-1e4, -9999.0, 0.0, 1e4], [1e4, 1e4, 1e4, 1e4]], dtype=dtype, requires_grad=True)
    grade = Categorical.from_cumulative_logits(cumulative)
    for asked in (grade.logits, grade.log_probability, grade.entropy, grade.crps(1.0)):
        assert asked.isfinite().all()
        (gradient,) = torch.autograd.grad(asked.sum(), cumulative, retain_graph=True)
        assert gradient.isfinite().all()
    with pytest.raises(DomainError, match="fall along"):
        Categorical.from_cumulative_logits(tensor(1.0, 0.0))
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., K − 1\)"):
        Categorical.from_cumulative_logits(torch.zeros(3, 0))


def test_a_class_that_is_ruled_out() -> None:
    logits = torch.tensor([0.0, -math.inf, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Categorical(logits).entropy, logits)
    assert gradient.isfinite().all()
    ruled = Categorical(logits.detach())
    assert_close(ruled.entropy.item(), float(stats.entropy([1.0, math.e])))
    assert ruled.log_prob(1) == -math.inf
    # Never drawn, even by a share that meets the cdf.
    ruled = Categorical(logits.detach().unsqueeze(0))
    shares = [0.0, float(ruled.cdf(0)), float(ruled.cdf(1)) + 1e-12]
    assert torch.equal(ruled.quantile(shares).squeeze(-1), tensor(0.0, 0.0, 2.0))


def test_real_values_have_the_integral_for_a_crps() -> None:
    distributions: list[Distribution] = [Bernoulli(tensor(0.4)), Categorical(tensor(0.3, -1.0, 0.5, 0.0).unsqueeze(0))]
    distributions += [Poisson(tensor(0.5)), NegativeBinomial(tensor(0.5), tensor(1.7))]
    for distribution in distributions:
        for value in (-1.25, 0.0, 0.3, 1.0, 2.6, 7.75):
            edges = sorted({value, *np.arange(-3.0, 120.0).tolist()})
            expected = sum(
                (float(distribution.cdf(left)) - (value <= left)) ** 2 * (right - left)
                for left, right in itertools.pairwise(edges)
            )
            assert_close(float(distribution.crps(value)), expected, rtol=1e-10, atol=1e-12)


# Counts


def log_mass_of(count: float, mean: float, r: float | None) -> float:
    """In 60 digits; Poisson's where there is no concentration."""
    mpmath.mp.dps = 60
    k, m = mpmath.mpf(count), mpmath.mpf(mean)
    if r is None:
        return float(k * mpmath.log(m) - m - mpmath.loggamma(k + 1))
    a = mpmath.mpf(r)
    gammas = mpmath.loggamma(k + a) - mpmath.loggamma(a) - mpmath.loggamma(k + 1)
    return float(gammas + a * mpmath.log(a / (a + m)) + k * mpmath.log(m / (a + m)))


@pytest.mark.parametrize("r", [None, 1e-8, 1e-2, 1.0, 50.0, 1e4, 1e8])
def test_probabilities_of_counts_in_all_their_range(r: float | None) -> None:
    for log_mean, z in itertools.product((-12.0, -1.0, 3.0, 8.0, 14.0), (-2.0, 0.0, 0.5, 3.0)):
        mean = math.exp(log_mean)
        spread = math.sqrt(mean + (0.0 if r is None else min(mean**2 / r, 1e10)))
        count = float(max(0, round(mean + z * spread)))
        log_mean_ = tensor(log_mean)
        distribution = Poisson(log_mean_) if r is None else NegativeBinomial(log_mean_, tensor(r))
        expected = log_mass_of(count, mpmath.exp(mpmath.mpf(log_mean)), r)
        assert_close(distribution.log_prob(count).item(), expected, rtol=1e-12, atol=1e-12)


def test_a_large_concentration_is_a_poisson() -> None:
    log_mean = tensor(-2.0, 1.0, 4.0)
    limit, near = Poisson(log_mean), NegativeBinomial(log_mean, torch.full_like(log_mean, 1e12))
    for question in (lambda d: d.log_prob(7.0), lambda d: d.cdf(3.0), lambda d: d.crps(2.0), lambda d: d.entropy):
        assert_close(question(near), question(limit), rtol=1e-8, atol=1e-9)


def test_entropy_of_a_poisson_is_its_sum() -> None:
    mpmath.mp.dps = 30
    # On both sides of the change to the series, and far from it.
    for rate in (1e-6, 0.3, 5.0, 29.999, 30.001, 200.0):
        log_rate = math.log(rate)
        exact = mpmath.exp(mpmath.mpf(log_rate))
        logs = [k * mpmath.mpf(log_rate) - exact - mpmath.loggamma(k + 1) for k in range(500)]
        expected = float(-mpmath.fsum(mpmath.exp(x) * x for x in logs))
        assert_close(Poisson(tensor(log_rate)).entropy.item(), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("mean", "r", "most"), [(0.3, 0.01, 4000), (5.0, 0.2, 4000), (40.0, 1.0, 4000), (30.0, 1e8, 200)]
)
def test_entropy_of_a_negative_binomial_is_its_sum(mean: float, r: float, most: int) -> None:
    mpmath.mp.dps = 30
    log_mean = math.log(mean)
    m, a = mpmath.exp(mpmath.mpf(log_mean)), mpmath.mpf(r)
    term, ratio, expected = a * mpmath.log(a / (a + m)), mpmath.log(m / (a + m)), mpmath.mpf(0)
    for k in range(most):
        expected -= mpmath.exp(term) * term
        term += mpmath.log((k + a) / (k + 1)) + ratio
    assert_close(NegativeBinomial(tensor(log_mean), tensor(r)).entropy.item(), float(expected), rtol=0, atol=1e-11)


def test_entropy_of_nearly_gaussian_counts_joins_the_integral() -> None:
    below, above = (NegativeBinomial(tensor(math.log(3e3 * x)), tensor(4e3)).entropy for x in (1 - 1e-9, 1 + 1e-9))
    assert_close(below, above, rtol=0, atol=2e-9)
    # By SciPy over all that weighs anything.
    m, r = 5e3, 2e4
    k = np.arange(3000, 8000)
    log_mass = stats.nbinom(r, r / (r + m)).logpmf(k)
    expected = -float((np.exp(log_mass) * log_mass).sum())
    assert_close(NegativeBinomial(tensor(math.log(m)), tensor(r)).entropy.item(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("mean", "r"), [(1e-3, 1e-8), (0.3, 0.01), (4.0, 0.5), (20.0, 3.7), (900.0, 60.0), (5.0, 1e6)])
def test_crps_and_its_gradient_of_a_negative_binomial(mean: float, r: float) -> None:
    """Wei and Held's closed form in 50 digits, and what differences of it are."""
    mpmath.mp.dps = 50

    @functools.cache
    def spread(m: mpmath.mpf, a: mpmath.mpf) -> mpmath.mpf:
        return m * (1 + m / a) * mpmath.hyp2f1(a + 1, mpmath.mpf(1) / 2, 2, -4 * m * (m + a) / a**2)

    def exact(log_mean: mpmath.mpf, a: mpmath.mpf, y: int) -> mpmath.mpf:
        m = mpmath.exp(log_mean)
        ratio, mass = m / (a + m), (a / (a + m)) ** a
        masses = [mass := mass if k == 0 else mass * (a + k - 1) / k * ratio for k in range(y + 1)]
        return (y - m) * (2 * mpmath.fsum(masses) - 1) + 2 * m * (1 + y / a) * masses[-1] - spread(m, a)

    log_mean, concentration = tensor(math.log(mean)).requires_grad_(), tensor(r).requires_grad_()
    at, step = (mpmath.mpf(log_mean.item()), mpmath.mpf(r)), mpmath.mpf(10) ** -20
    for y in (0, 3, int(mean), int(2 * mean) + 40):
        crps = NegativeBinomial(log_mean, concentration).crps(float(y))
        assert_close(crps.item(), float(exact(*at, y)), rtol=1e-11, atol=1e-13)
        for found, i in zip(torch.autograd.grad(crps.sum(), (log_mean, concentration)), (0, 1), strict=True):
            moved = [tuple(x * (1 + sign * step) if i == j else x for j, x in enumerate(at)) for sign in (1, -1)]
            expected = (exact(*moved[0], y) - exact(*moved[1], y)) / (2 * step * at[i])
            assert_close(found.item(), float(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rate", [1e-3, 2.0, 1e3, 1e6])
def test_crps_and_its_gradient_of_a_poisson(rate: float) -> None:
    """Wei and Held's closed form in 60 digits."""
    mpmath.mp.dps = 60
    log_rate = tensor(math.log(rate)).requires_grad_()
    lam = mpmath.exp(mpmath.mpf(log_rate.item()))
    bessel = [mpmath.besseli(n, 2 * lam) * mpmath.exp(-2 * lam) for n in (0, 1)]
    for y in sorted({0, int(rate), int(rate + math.sqrt(rate)), int(rate + 9 * math.sqrt(rate)) + 9}):
        mass = mpmath.exp(y * mpmath.log(lam) - lam - mpmath.loggamma(y + 1))
        # At a rate of 1e6 only SciPy's is quick.
        quick = rate > 1e4
        cdf = mpmath.mpf(stats.poisson.cdf(y, float(lam))) if quick else mpmath.gammainc(y + 1, lam, regularized=True)
        expected = (y - lam) * (2 * cdf - 1) + 2 * lam * mass - lam * (bessel[0] + bessel[1])
        slope = lam * (1 - 2 * (cdf - mass) - bessel[0])
        crps = Poisson(log_rate).crps(float(y))
        assert_close(crps.item(), float(expected), rtol=1e-12, atol=1e-12 + 1e-15 * rate)
        assert_close(torch.autograd.grad(crps.sum(), log_rate)[0].item(), float(slope), rtol=1e-12, atol=1e-13 * rate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quantile_of_a_counts_own_cdf_is_the_count(dtype: torch.dtype) -> None:
    log_mean = torch.tensor([-3.0, 0.0, 2.0, 5.0, 9.0, 13.8], dtype=dtype)
    r = torch.tensor([0.05, 0.5, 3.0, 1e3, 1e6, 1e8], dtype=dtype)
    for distribution in (Poisson(log_mean), NegativeBinomial(log_mean, r)):
        for q in (0.01, 0.3, 0.5, 0.9, 0.999):
            count = distribution.quantile(q)
            share, before = distribution.cdf(count), distribution.cdf(count - 1)
            for i in range(len(log_mean)):
                if before[i] < share[i] < 1:
                    assert distribution[i : i + 1].quantile(float(share[i])) == count[i]
        assert (distribution.quantile(1.0) == math.inf).all()
        assert (distribution.quantile(0.0) == 0.0).all()


def test_the_cdf_says_what_it_cannot_do() -> None:
    log_mean, r = tensor(1.0).requires_grad_(), tensor(2.0).requires_grad_()
    for asked in (lambda d: d.cdf(2.0), lambda d: d.crps(2.0)):
        (slope,) = torch.autograd.grad(asked(NegativeBinomial(log_mean, r)).sum(), r, create_graph=True)
        with pytest.raises(LastLayerError, match="second derivative of a negative binomial"):
            slope.sum().backward()
    # Poisson's can be differentiated again.
    assert torch.autograd.gradgradcheck(lambda x: Poisson(x).cdf(2.0), (log_mean,))
    assert torch.autograd.gradgradcheck(lambda x: Poisson(x).crps(2.0), (log_mean,))
    assert torch.autograd.gradgradcheck(lambda *x: NegativeBinomial(*x).log_prob(2.0), (log_mean, r))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_stay_finite(dtype: torch.dtype) -> None:
    rows = [(-80.0, 1e-8), (-80.0, 1e8), (13.8, 1e-8), (13.8, 1e8), (13.8, 1.0), (0.0, 1e-3)]
    log_mean, r = (torch.tensor(column, dtype=dtype, requires_grad=True) for column in zip(*rows, strict=True))
    for distribution in (Poisson(log_mean), NegativeBinomial(log_mean, r)):
        answers = [getattr(distribution, question)(y) for question in ("log_prob", "crps") for y in (0.0, 5.0, 1e6)]
        for answer in (*answers, distribution.entropy):
            assert answer.isfinite().all()
            for gradient in torch.autograd.grad(
                answer.sum(), (log_mean, r), retain_graph=True, materialize_grads=True, allow_unused=True
            ):
                assert gradient.isfinite().all()
