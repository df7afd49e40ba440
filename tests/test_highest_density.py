"""The smallest set with a share of the probability: its mass, its ends' densities, and that none is smaller."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import optimize, stats

from lastlayer.checks import DomainError
from lastlayer.distributions.beta import Beta
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.highest_density import highest_density
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.log_normal import LogNormal
from lastlayer.distributions.mixture import Mixture
from lastlayer.distributions.poisson import Poisson
from lastlayer.distributions.student_t import StudentT
from mixture_cases import CASES, ROUGH_CASES, tensor


def random_gaussians() -> Mixture:
    generator = torch.Generator().manual_seed(1)
    location, scale, logits = torch.randn(3, 5, 20, generator=generator, dtype=torch.float64)
    return Mixture(Gaussian(4.0 * location, 0.05 + scale.abs()), logits.log_softmax(0))


DISTRIBUTIONS: dict[str, Distribution] = {
    **{case.name: case.distribution for case in (*CASES, *ROUGH_CASES)},
    "random": random_gaussians(),
    "gaussian": Gaussian(tensor([0.0, 5.0]), tensor([1.0, 0.1])),
    "laplace": Laplace(tensor([0.0]), tensor([2.0])),
    "student_t": StudentT(tensor([1.0]), tensor([2.0]), tensor([1.5])),
    "log_normal": LogNormal(tensor([0.0, 1.0]), tensor([1.0, 0.2])),
    "gamma": Gamma(tensor([0.5, 1.0, 7.0]), tensor([1.0, 2.0, 3.0])),
    "beta": Beta(tensor([2.0, 3.0, 1.0]), tensor([5.0, 3.0, 4.0])),
    "affine": random_gaussians().affine(10.0, 1e-3),
    "affine_beta": Beta(tensor([2.0, 0.5]), tensor([5.0, 3.0])).affine(-3.0, 4.0),
}


@pytest.mark.parametrize("p", [0.1, 0.95])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mass_inside_and_density_at_the_ends(name: str, p: float) -> None:
    distribution = DISTRIBUTIONS[name]
    intervals = highest_density(distribution, p)
    assert intervals.shape == (*distribution.shape, 8, 2)
    ends = intervals.flatten(-2).movedim(-1, 0)
    present = ~ends.isnan()
    filled = torch.where(present, ends, distribution.median)
    share = distribution.cdf(filled)
    mass = (share[1::2] - share[::2]).sum(0)
    torch.testing.assert_close(mass, torch.full_like(mass, p), rtol=0.0, atol=1e-8)
    # In order, NaN behind.
    assert (present[1:] <= present[:-1]).all()
    assert (ends[1:] > ends[:-1])[present[1:]].all()
    at_ends = distribution.log_prob(filled)
    inside = present & (filled > distribution.support.low) & (filled < distribution.support.high)
    level = torch.where(inside, at_ends, torch.inf).amin(0)
    torch.testing.assert_close(at_ends[inside], level.expand_as(at_ends)[inside], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_one_maximum_gives_the_shortest_interval(p: float) -> None:
    gamma = stats.gamma(7.0, scale=1 / 3.0)
    best = optimize.minimize_scalar(
        lambda tail: gamma.ppf(tail + p) - gamma.ppf(tail), bounds=(0.0, 1.0 - p), method="bounded",
        options={"xatol": 1e-12},
    )  # fmt: skip
    low, high = highest_density(Gamma(tensor([7.0]), tensor([3.0])), p)[0, 0].tolist()
    assert low == pytest.approx(gamma.ppf(best.x), abs=1e-5)
    assert high == pytest.approx(gamma.ppf(best.x + p), abs=1e-5)
    assert high - low < gamma.ppf(0.5 + p / 2) - gamma.ppf(0.5 - p / 2)


def test_several_intervals_where_the_density_has_several_maxima() -> None:
    two = Mixture.of(Gaussian(tensor([-10.0, 10.0]), tensor([1.0, 1.0])), tensor([0.5, 0.5]))
    z = stats.norm.ppf(0.95)
    expected = tensor([[-10.0 - z, -10.0 + z], [10.0 - z, 10.0 + z]])
    torch.testing.assert_close(highest_density(two, 0.9, most_intervals=2), expected, rtol=0.0, atol=1e-7)
    # Near ones: one interval for a large share, two for a small one.
    near = Mixture.of(Gaussian(tensor([-1.3, 1.3]), tensor([1.0, 1.0])))
    assert (~highest_density(near, 0.9).isnan()).sum() == 2
    assert (~highest_density(near, 0.2).isnan()).sum() == 4
    # A component of less than what is left out is left out.
    rare = Mixture.of(Gaussian(tensor([0.0, 50.0]), tensor([1.0, 30.0])), tensor([0.97, 0.03]))
    assert (~highest_density(rare, 0.9).isnan()).sum() == 2


def test_ends_of_the_support() -> None:
    falling = Gamma(tensor([1.0]), tensor([2.0]))
    assert highest_density(falling, 0.9)[0, 0].tolist() == pytest.approx([0.0, -math.log(0.1) / 2.0])
    both = highest_density(Beta(tensor([0.5]), tensor([0.5])), 0.5)[0, :2]
    quarter = float(stats.beta(0.5, 0.5).ppf(0.25))
    torch.testing.assert_close(both, tensor([[0.0, quarter], [1.0 - quarter, 1.0]]), rtol=0.0, atol=1e-7)


def test_all_and_nothing() -> None:
    gaussian = Gaussian(torch.tensor([1.0]), torch.tensor([2.0]))
    assert highest_density(gaussian, 0.0, most_intervals=1).tolist() == [[[1.0, 1.0]]]
    assert highest_density(gaussian, 1.0, most_intervals=1).tolist() == [[[-math.inf, math.inf]]]


def test_float32_shapes_and_scalars() -> None:
    several = highest_density(Gaussian(torch.zeros(2, 3), torch.ones(2, 3)), 0.5, most_intervals=3)
    assert several.shape == (2, 3, 3, 2)
    assert several.dtype == torch.float32
    assert highest_density(Gaussian(torch.tensor(0.0), torch.tensor(1.0)), 0.5).shape == (8, 2)
    assert highest_density(Gaussian(torch.zeros(0), torch.ones(0)), 0.5).shape == (0, 8, 2)


def test_wrong_input() -> None:
    gaussian = Gaussian(tensor([0.0]), tensor([1.0]))
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(DomainError, match="share"):
            highest_density(gaussian, p)
    with pytest.raises(DomainError, match="most_intervals is 0"):
        highest_density(gaussian, 0.5, most_intervals=0)
    with pytest.raises(DomainError, match="whole numbers"):
        highest_density(Poisson(tensor([0.0])), 0.5)
    two = Mixture.of(Gaussian(tensor([-10.0, 10.0]), tensor([1.0, 1.0])))
    with pytest.raises(DomainError, match="most_intervals=2"):
        highest_density(two, 0.5, most_intervals=1)
