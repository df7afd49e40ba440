"""Every distribution against SciPy's and against numerical integration; its samples; whether these tests can fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

import test_distribution_contract
from distribution_cases import SHARES, Case, in_dtype, parameters, with_parameters
from distribution_registry import CASES, GRID, MIDDLE, apart, every, random
from lastlayer.distributions.gaussian import Gaussian

# Against the oracle


@every
def test_log_prob_is_the_oracles(case: Case) -> None:
    points = case.points()
    expected = case.asked(case.log_density, points)
    inside = case.distribution.support.contains(points)
    actual = case.distribution.log_prob(points)
    assert_close(actual[inside], expected[inside], rtol=case.tolerance, atol=case.tolerance)


@every
def test_cdf_is_the_oracles_also_far_out(case: Case) -> None:
    points = case.points()
    expected, actual = case.asked("cdf", points), case.distribution.cdf(points)
    assert_close(actual, expected, rtol=0, atol=1e-12)
    # Where an error of 1e-12 is everything: the share itself, relatively.
    far = expected > 1e-290
    assert_close(actual[far].log(), expected[far].log(), rtol=1e-12, atol=case.tolerance)


@every
def test_quantile_is_the_oracles(case: Case) -> None:
    expected = case.points()
    error = (case.distribution.quantile(case.shares) - expected).abs()
    # Near a share of 1 its last digit is already a distance: over the density there.
    digit = 0.0 if case.distribution.discrete else 4e-16 * (-case.asked(case.log_density, expected)).exp()
    assert (error <= case.tolerance * expected.abs() + 1e-300 + digit).all()


@every
def test_quantile_and_cdf_are_inverse(case: Case) -> None:
    distribution, share = case.distribution, torch.tensor(SHARES, dtype=torch.float64)[:, None]
    value = distribution.quantile(SHARES)
    # Between neighboring numbers a share may lie; to whole numbers that makes no difference.
    width = torch.as_tensor(4 * np.spacing(value.abs().numpy()))
    reached = distribution.cdf(value if distribution.discrete else value + width)
    assert (reached >= share * (1 - 1e-9)).all(), "a quantile's share is at least the one asked for"
    before = distribution.cdf(value - (1.0 if distribution.discrete else width))
    assert (before <= share * (1 + 1e-9)).all(), "and it is the least such value"


@every
def test_ends_of_the_quantile(case: Case) -> None:
    low, high = case.distribution.quantile([0.0, 1.0])
    support = case.distribution.support
    if case.distribution.discrete:
        assert (low >= support.low - 1e-12).all()
    else:
        assert_close(low, torch.full_like(low, support.low))
        assert_close(high, torch.full_like(high, support.high))


@every
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("mean", "mean"), ("variance", "var"), ("standard_deviation", "std"), ("median", "median")],
)
def test_moments(case: Case, ours: str, theirs: str) -> None:
    expected = case.asked(theirs)
    actual = getattr(case.distribution, ours)
    assert_close(actual, expected, rtol=case.tolerance, atol=1e-300, equal_nan=True)


@every
def test_entropy(case: Case) -> None:
    assert_close(case.distribution.entropy, case.asked("entropy"), rtol=case.tolerance, atol=case.tolerance)


@every
def test_mode(case: Case) -> None:
    expected = torch.tensor(case.modes, dtype=torch.float64)
    assert_close(case.distribution.mode, expected, rtol=1e-12, atol=1e-12)
    # Nowhere is the density greater; 0 lies outside an open support that begins there.
    inside = case.distribution.support.contains(expected)
    others = case.distribution.log_prob(case.points(*MIDDLE))
    assert (others <= case.distribution.log_prob(expected) + 1e-9)[:, inside].all()


# Against integration


def crps_by_integration(case: Case, element: int, value: float) -> float:
    """``∫ (F(x) − 1{value ≤ x})² dx`` of an oracle's F, panel by panel between its quantiles."""
    oracle = case.oracles[element]
    shares = [0.0, *np.logspace(-20, -3, 69), *GRID.tolist(), *(1 - np.logspace(-3, -15, 49))]
    edges = sorted({float(x) for x in (value, *oracle.ppf(shares)) if math.isfinite(x)})
    if case.distribution.discrete:
        start, end = math.floor(edges[0]), math.ceil(edges[-1]) + 1
        steps = np.unique([value, *range(start, end + 1)])
        return float(((oracle.cdf(steps[:-1]) - (value <= steps[:-1])) ** 2 * np.diff(steps)).sum())
    left, right = np.array(edges[:-1])[:, None], np.array(edges[1:])[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(20)
    x = 0.5 * (left + right) + 0.5 * (right - left) * nodes
    return float((0.5 * (right - left) * weights * (oracle.cdf(x) - (value <= left)) ** 2).sum())


@every
def test_crps_is_its_integral(case: Case) -> None:
    points = case.points(1e-6, 0.02, 0.3, 0.6, 0.97, 1 - 1e-6)
    # Beyond the ends as well.
    points = torch.cat([points[:1] - torch.ceil(apart(case.distribution)), points, points[-1:] + 3.0])
    actual = case.distribution.crps(points)
    expected = torch.tensor(
        [[crps_by_integration(case, i, float(v)) for i, v in enumerate(row)] for row in points], dtype=torch.float64
    )
    assert_close(actual, expected, rtol=2e-7, atol=1e-12)


@every
def test_all_probability_is_one(case: Case) -> None:
    """The density integrates to the differences of the distribution function: oracle-free."""
    distribution = case.distribution
    low, high = distribution.quantile([1e-3, 1 - 1e-3])
    if distribution.discrete:
        count = int((high - low).max()) + 1
        steps = low + torch.arange(min(count, 20_000), dtype=torch.float64)[:, None]
        total = torch.where(steps <= high, distribution.log_prob(steps).exp(), 0.0).sum(0)
        expected = distribution.cdf(high) - distribution.cdf(low - 1.0)
        reached = (high - low) < 20_000
        assert_close(total[reached], expected[reached], rtol=1e-8, atol=1e-8)
        return
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(20))
    edges = distribution.quantile(GRID).unsqueeze(-1)
    left, right = edges[:-1], edges[1:]
    x = 0.5 * (left + right) + 0.5 * (right - left) * nodes
    density = distribution.log_prob(x.movedim(-1, 0)).exp().movedim(0, -1)
    total = (0.5 * (right - left) * weights * density).sum((0, -1))
    assert_close(total, torch.full_like(total, math.tanh(3.45)), rtol=1e-7, atol=0)


# Samples


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_are_from_the_distribution(case: Case, dtype: torch.dtype) -> None:
    draws = case.distribution.map(in_dtype(dtype)).sample(3000, generator=random(5))
    assert draws.shape == (3000, *case.distribution.shape)
    assert draws.dtype == dtype
    draws = draws.double()
    for i, oracle in enumerate(case.oracles):
        if case.distribution.discrete:
            assert _chi_square(draws[:, i].numpy(), oracle) > 1e-3, f"element {i}"
        elif dtype == torch.float64 or _resolved(case, i):
            assert stats.kstest(draws[:, i].numpy(), oracle.cdf).pvalue > 1e-3, f"element {i}"


def _resolved(case: Case, element: int) -> bool:
    """Whether float32 has many numbers within the middle half of an element."""
    low, high = case.oracles[element].ppf([0.25, 0.75])
    return bool(low > 1e-36 or low < 0) and (high - low) > 1e-4 * abs(high)


def _chi_square(draws: np.ndarray, oracle: object) -> float:
    edges = np.unique(oracle.ppf(np.linspace(0.02, 0.98, 25)))
    found = np.bincount(np.searchsorted(edges, draws), minlength=len(edges) + 1)
    expected = len(draws) * np.diff([0.0, *oracle.cdf(edges), 1.0])
    if len(edges) == 1 and expected[-1] < 1e-9:
        return 1.0 if found[-1] == 0 else 0.0
    kept = expected > 1e-9
    assert not found[~kept].any(), "drawn, and not possible"
    statistic = ((found - expected)[kept] ** 2 / expected[kept]).sum()
    return float(stats.chi2.sf(statistic, max(int(kept.sum()) - 1, 1)))


@every
def test_a_generator_is_honored_and_the_global_state_left_alone(case: Case) -> None:
    state = torch.random.get_rng_state()
    first = case.distribution.sample(20, generator=random(7))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, case.distribution.sample(20, generator=random(7)))
    assert not torch.equal(first, case.distribution.sample(20, generator=random(8)))
    torch.manual_seed(7)
    from_global = case.distribution.sample(20)
    torch.manual_seed(7)
    assert torch.equal(from_global, case.distribution.sample(20))


@every
def test_samples_are_detached(case: Case) -> None:
    tensors = [p.clone().requires_grad_(p.is_floating_point()) for p in parameters(case.distribution)]
    assert not with_parameters(case.distribution, tensors).sample(2).requires_grad
    assert case.distribution.sample(0).shape == (0, *case.distribution.shape)


# Whether these tests can fail


class WrongSpread(Gaussian):
    """Whose CRPS forgets half of the mean difference."""

    def _crps(self, value: Tensor) -> Tensor:
        return super()._crps(value) + 1e-3 * self.scale


class WrongTail(Gaussian):
    """Whose distribution function is PyTorch's, without a lower tail."""

    def _cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr((value - self.location) / self.scale)


class DetachedScale(Gaussian):
    """Whose quantiles teach the scale nothing."""

    def _quantile(self, share: Tensor) -> Tensor:
        return self.location + self.scale.detach() * torch.special.ndtri(share)


class NarrowSample(Gaussian):
    """Whose draws are a tenth too close together."""

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.location + 0.9 * (super().sample(n, generator=generator) - self.location)


@pytest.mark.parametrize(
    ("twin", "test"),
    [
        (WrongSpread, test_crps_is_its_integral),
        (WrongTail, test_cdf_is_the_oracles_also_far_out),
        (WrongTail, test_quantile_and_cdf_are_inverse),
        (DetachedScale, lambda case: test_distribution_contract.test_gradients_in_the_parameters(case, "quantile")),
        (NarrowSample, lambda case: test_samples_are_from_the_distribution(case, torch.float64)),
    ],
)
def test_a_wrong_twin_is_caught(twin: type[Gaussian], test: Callable[[Case], None]) -> None:
    right = CASES["gaussian"]
    test(right)
    wrong = dataclasses.replace(right, distribution=twin(*parameters(right.distribution)))
    with pytest.raises((AssertionError, RuntimeError)):
        test(wrong)
