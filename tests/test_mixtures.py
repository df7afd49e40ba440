"""Mixtures of any distributions against SciPy's, in every question; searches against hand-built cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from distribution_cases import Case
from lastlayer.checks import DomainError, KindError, ShapeError
from lastlayer.distributions import mixture_crps, quadrature
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.mixture import Mixture
from lastlayer.distributions.mixture_crps import gaussian_distance, laplace_distance
from lastlayer.distributions.negative_binomial import NegativeBinomial
from lastlayer.distributions.poisson import Poisson
from lastlayer.distributions.quantile_knots import QuantileKnots
from lastlayer.distributions.student_t import StudentT
from mixture_cases import CASES, ROUGH_CASES, SHARES, MixtureOracle, tensor

KINDS: list[Callable[[torch.Tensor, torch.Tensor], Distribution]] = [
    Gaussian,
    Laplace,
    lambda location, scale: StudentT(location, scale, torch.full_like(scale, 4.0)),
]


@pytest.fixture(params=(*CASES, *ROUGH_CASES), ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def random_mixture(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Locations, scales and logits."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(3, count, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return [2.0 * draw[0], 0.3 + 0.4 * draw[1].abs(), draw[2]]


def close(ours: torch.Tensor, expected: list[Any], *, rtol: float, atol: float = 0.0) -> None:
    torch.testing.assert_close(ours, tensor(expected), rtol=rtol, atol=atol)


# -- against SciPy ----------------------------------------------------------------------------------------------------


def test_moments(case: Case) -> None:
    close(case.distribution.mean, [oracle.mean() for oracle in case.oracles], rtol=1e-12)
    close(case.distribution.variance, [oracle.var() for oracle in case.oracles], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_density_cdf_and_quantile(case: Case) -> None:
    quantiles = case.distribution.quantile(SHARES)
    expected = [[oracle.ppf(q) for oracle in case.oracles] for q in SHARES]
    close(quantiles, expected, rtol=1e-9, atol=1e-12)
    pairs = [list(zip(row, case.oracles, strict=True)) for row in quantiles.tolist()]
    close(case.distribution.cdf(quantiles), [[o.cdf(x) for x, o in row] for row in pairs], rtol=1e-10)
    close(case.distribution.log_prob(quantiles), [[float(o.logpdf(x)) for x, o in row] for row in pairs], rtol=1e-9)
    close(case.distribution.cdf(quantiles), [[q] * len(case.oracles) for q in SHARES], rtol=1e-9)


def test_mode(case: Case) -> None:
    close(case.distribution.mode, list(case.modes), rtol=1e-7, atol=1e-9)
    close(case.distribution.modes[0], list(case.modes), rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:The occurrence of roundoff")
def test_entropy(case: Case) -> None:
    close(case.distribution.entropy, [oracle.entropy() for oracle in case.oracles], rtol=0.0, atol=2e-7)


@pytest.mark.filterwarnings("ignore:The occurrence of roundoff")
@pytest.mark.parametrize("share", [0.02, 0.6, 0.999])
def test_crps(case: Case, share: float) -> None:
    value = case.distribution.quantile(share)
    expected = [oracle.crps(y) for oracle, y in zip(case.oracles, value.tolist(), strict=True)]
    close(case.distribution.crps(value), expected, rtol=1e-7)


def test_samples_have_the_mixtures_distribution(case: Case) -> None:
    drawn = case.distribution.sample(4000, generator=torch.Generator().manual_seed(5))
    assert drawn.shape == (4000, *case.distribution.shape)
    for column, oracle in zip(drawn.T.numpy(), case.oracles, strict=True):
        assert stats.kstest(column, oracle.cdf).pvalue > 1e-4
    again = case.distribution.sample(4000, generator=torch.Generator().manual_seed(5))
    assert torch.equal(drawn, again)


# -- distances of two, against integrals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apart", "first", "second"), [(0.0, 1.0, 1.0), (0.7, 2.0, 0.5), (-3.0, 0.2, 1.5), (9.0, 1, 1)]
)
@pytest.mark.parametrize(("distance", "kind"), [(gaussian_distance, stats.norm), (laplace_distance, stats.laplace)])
def test_mean_distance_is_the_integral(distance: Any, kind: Any, apart: float, first: float, second: float) -> None:
    one, other = kind(apart, first), kind(0.0, second)

    def integrand(x: float) -> float:
        return float(one.cdf(x) * other.sf(x) + one.sf(x) * other.cdf(x))

    places = sorted({-80.0, apart, 0.0, 80.0})
    expected = sum(integrate.quad(integrand, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairwise(places))
    assert distance(tensor(apart), tensor(first), tensor(second)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("ratio", [0.0, 1e-15, 1e-9, 1e-4, 0.02, 0.0999, 0.1001])
def test_laplace_distance_of_nearly_equal_scales(ratio: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    apart, first = 1.3, 0.8
    second = first * (1.0 + ratio)
    with mpmath.workdps(60):
        d, b, c = mpmath.mpf(apart), mpmath.mpf(first), mpmath.mpf(second)
        if b == c:
            expected = d + mpmath.exp(-d / b) * (3 * b + d) / 2
        else:
            expected = d + (b**3 * mpmath.exp(-d / b) - c**3 * mpmath.exp(-d / c)) / (b**2 - c**2)
    ours = laplace_distance(tensor(apart), tensor(first), tensor(second)).item()
    assert ours == pytest.approx(float(expected), rel=4e-16)


# -- gradients --------------------------------------------------------------------------------------------------------


def parameters() -> list[torch.Tensor]:
    return [parameter.requires_grad_() for parameter in random_mixture(3, 2)]


@pytest.mark.parametrize("kind", KINDS, ids=["gaussian", "laplace", "student_t"])
def test_gradient_of_the_quantile_is_that_of_the_implicit_function(kind: Any) -> None:
    share = tensor([0.1, 0.6]).requires_grad_()

    def quantile(location: torch.Tensor, scale: torch.Tensor, logits: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return Mixture(kind(location, scale), logits.log_softmax(0)).quantile(q)

    assert torch.autograd.gradcheck(quantile, (*parameters(), share))
    assert torch.autograd.gradgradcheck(quantile, (*parameters(), share))


@pytest.mark.parametrize(
    "name", ["mean", "variance", "within_variance", "between_variance", "mode", "entropy", "median"]
)
@pytest.mark.parametrize("kind", KINDS, ids=["gaussian", "laplace", "student_t"])
def test_gradient_of_properties(kind: Any, name: str) -> None:
    def asked(location: torch.Tensor, scale: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return getattr(Mixture(kind(location, scale), logits.log_softmax(0)), name)

    # Of the entropy of kinked densities the nodes, held where they are, are not at the kinks of the moved ones.
    assert torch.autograd.gradcheck(asked, parameters(), atol=2e-4 if name == "entropy" else 1e-5)


@pytest.mark.parametrize("name", ["log_prob", "cdf", "crps"])
@pytest.mark.parametrize("kind", KINDS, ids=["gaussian", "laplace", "student_t"])
def test_gradient_of_questions_about_a_value(kind: Any, name: str) -> None:
    value = tensor([0.3, 5.0]).requires_grad_()

    def asked(*given: torch.Tensor) -> torch.Tensor:
        location, scale, logits, y = given
        return getattr(Mixture(kind(location, scale), logits.log_softmax(0)), name)(y)

    assert torch.autograd.gradcheck(asked, (*parameters(), value))


def test_gradient_of_a_gamma_mixtures_quantile_reaches_the_concentration() -> None:
    concentration, rate = tensor([[2.0], [6.0]]).requires_grad_(), tensor([[1.0], [0.5]]).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: Gamma(a, b).mixed().quantile([0.2, 0.7]), (concentration, rate))


@pytest.mark.parametrize("absurd", [math.inf, math.nan, 1e308])
def test_an_empty_component_leaves_no_trace(absurd: float) -> None:
    location, scale = tensor([[0.0], [absurd], [2.0]]), tensor([[1.0], [absurd], [0.5]])
    with_it = [location.requires_grad_(), scale.requires_grad_(), tensor([[0.3], [0.0], [0.7]]).requires_grad_()]
    without = [location.detach()[[0, 2]], scale.detach()[[0, 2]], tensor([[0.3], [0.7]])]
    empty, sound = (Mixture.of(Gaussian(a, b), w) for a, b, w in (with_it, without))
    value = tensor([0.4])
    for ask in (
        lambda m: m.mean, lambda m: m.variance, lambda m: m.entropy, lambda m: m.mode, lambda m: m.crps(value),
        lambda m: m.quantile([0.0, 0.1, 0.9, 1.0]), lambda m: m.log_prob(value), lambda m: m.cdf(value),
    ):  # fmt: skip
        answer = ask(Mixture.of(Gaussian(*with_it[:2]), with_it[2]))
        torch.testing.assert_close(answer, ask(sound), rtol=1e-9, atol=1e-9)
        for gradient in torch.autograd.grad(answer[torch.isfinite(answer)].sum(), with_it, materialize_grads=True):
            assert torch.isfinite(gradient).all()
            assert (gradient[1] == 0).all()
    torch.testing.assert_close(empty.modes, sound.modes)
    assert torch.isfinite(empty.sample(500)).all()


# -- searches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_of_random_mixtures_to_the_last_digits(dtype: torch.dtype) -> None:
    location, scale, logits = random_mixture(5, 200, dtype=dtype)
    # Scales that differ by 1e6 and more.
    scale = scale * 10.0 ** (torch.arange(5).unsqueeze(-1) * 2.0 - 5.0).to(dtype)
    mixture = Mixture(Gaussian(location, scale), logits.log_softmax(0))
    share = torch.tensor([1e-5, 0.1, 0.5, 0.9, 0.99999], dtype=dtype)
    found = mixture.quantile(share)
    exact = mixture.double()
    step = 4.0 * torch.finfo(dtype).eps * (found.double().abs() + scale.double().amin(0))
    wanted = share.double().unsqueeze(-1)
    assert (exact.cdf(found.double() - step) < wanted + 1e-15).all()
    assert (exact.cdf(found.double() + step) > wanted - 1e-15).all()


def test_quantile_within_a_gap_and_beside_it() -> None:
    mixture = Mixture.of(Gaussian(tensor([-1e6, 1e6]), tensor([1.0, 1e-6])), tensor([0.25, 0.75]))
    below, inside, above = mixture.quantile([0.2499, 0.25, 0.2501]).tolist()
    assert below == pytest.approx(-1e6 + stats.norm.ppf(0.2499 / 0.25), rel=1e-15)
    assert -1e6 < inside < 1e6
    assert above == pytest.approx(1e6 + 1e-6 * stats.norm.ppf(0.0001 / 0.75), rel=1e-15)


def test_quantile_at_the_ends() -> None:
    endless = Gaussian(tensor([[0.0], [5.0]]), tensor([[1.0], [1.0]])).mixed()
    assert endless.quantile([0.0, 1.0]).tolist() == [[-math.inf], [math.inf]]
    positive = Gamma(tensor([[0.5], [5.0]]), tensor([[1.0], [1.0]])).mixed()
    assert positive.quantile([0.0, 1.0]).tolist() == [[0.0], [math.inf]]
    assert (
        torch.autograd.functional.jacobian(
            lambda scale: Gaussian(tensor([[0.0], [5.0]]), scale).mixed().quantile([0.0, 1.0]), tensor([[1.0], [1.0]])
        )
        .eq(0)
        .all()
    )


def test_quantile_of_heavy_tails_far_out() -> None:
    mixture = StudentT(tensor([[0.0], [3.0]]), tensor([[1.0], [1e-3]]), tensor([[0.5], [0.3]])).mixed()
    oracle = MixtureOracle([stats.t(0.5, 0, 1), stats.t(0.3, 3.0, 1e-3)], [0.5, 0.5])
    share = [1e-9, 1e-4, 0.3, 0.7]
    close(mixture.quantile(share).squeeze(-1), [oracle.ppf(q) for q in share], rtol=1e-9)


def test_mode_between_two_near_components() -> None:
    mixture = Mixture.of(Gaussian(tensor([[-0.9], [0.9]]), tensor([[1.0], [1.0]])))
    assert mixture.mode.item() == pytest.approx(0.0, abs=1e-12)
    assert mixture.modes.shape == (1, 1)


@pytest.mark.parametrize(("half", "expected"), [(0.999, 1), (1.0, 1), (1.01, 2), (1.2, 2), (30.0, 2)])
def test_two_equal_gaussians_have_two_modes_from_a_distance_of_two_scales_on(half: float, expected: int) -> None:
    # J. Behboodian, Technometrics 12 (1970): one mode if and only if |μ − ν| ≤ 2σ.
    modes = Mixture.of(Gaussian(tensor([[-half], [half]]), tensor([[1.0], [1.0]]))).modes
    assert modes.shape == (expected, 1)
    for mode in modes.flatten().tolist():
        # The slope is 0 where y = half · tanh(half · y).
        assert mode == pytest.approx(half * math.tanh(half * mode), abs=1e-5 if half <= 1 else 1e-11)


def test_modes_are_sorted_by_density_and_padded() -> None:
    location, scale = tensor([[0.0, 0.0], [10.0, 0.1], [20.0, -0.1]]), tensor([[1.0, 1.0], [0.1, 1.0], [5.0, 1.0]])
    mixture = Mixture.of(Gaussian(location, scale), tensor([0.6, 0.2, 0.2]))
    modes = mixture.modes
    assert modes.shape == (3, 2)
    torch.testing.assert_close(modes[:, 0], tensor([10.0, 0.0, 20.0]), rtol=1e-3, atol=1e-3)
    assert modes[1:, 1].isnan().all()
    density = mixture.log_prob(modes)[:, 0]
    assert (density[:-1] > density[1:]).all()
    assert torch.equal(mixture.mode, modes[0])


def test_merged_components_are_one() -> None:
    mixture = Gaussian(torch.full((7, 3), 2.0), torch.full((7, 3), 0.5)).mixed()
    alone = Gaussian(torch.full((3,), 2.0), torch.full((3,), 0.5))
    assert mixture.modes.tolist() == [[2.0, 2.0, 2.0]]
    assert torch.equal(mixture.mean, alone.mean)
    assert (mixture.between_variance == 0).all()
    torch.testing.assert_close(mixture.quantile([0.1, 0.5]), alone.quantile([0.1, 0.5]))
    torch.testing.assert_close(mixture.crps(1.0), alone.crps(1.0))
    torch.testing.assert_close(mixture.entropy, alone.entropy)


def test_modes_of_random_mixtures_are_all_that_a_fine_grid_shows() -> None:
    location, scale, logits = random_mixture(4, 60, seed=3)
    mixture = Mixture(Gaussian(location, 0.7 * scale), logits.log_softmax(0))
    grid = torch.linspace(-8.0, 8.0, 8001, dtype=torch.float64)
    density = mixture.log_prob(grid.unsqueeze(-1).expand(-1, 60))
    tops = ((density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:])).T
    for element in range(60):
        found = mixture.modes[:, element]
        shown = grid[1:-1][tops[element]]
        torch.testing.assert_close(found[~found.isnan()].sort().values, shown, rtol=0.0, atol=2e-3)


def test_whole_numbers_are_exact() -> None:
    rates, weight = [[0.2, 40.0], [3.0, 400.0], [9.0, 0.5]], [0.2, 0.5, 0.3]
    mixture = Mixture.of(Poisson(tensor(rates).log()), tensor(weight))
    oracles = [MixtureOracle([stats.poisson(row[i]) for row in rates], weight) for i in range(2)]
    # None is a sum of weights: between far rates that would be anyone's guess.
    for q in (1e-4, 0.15, 0.25, 0.45, 0.95):
        assert mixture.quantile(q).tolist() == [oracle.ppf(q) for oracle in oracles]
    assert mixture.quantile([0.0, 1.0]).tolist() == [[0.0, 0.0], [math.inf, math.inf]]
    assert mixture.mode.tolist() == [max(range(600), key=oracle.logpmf) for oracle in oracles]
    numbers = range(800)
    entropy = [-sum(p * math.log(p) for p in map(math.exp, map(o.logpmf, numbers)) if p > 0) for o in oracles]
    close(mixture.entropy, entropy, rtol=1e-9)
    crps = [sum((o.cdf(x) - (x >= 4)) ** 2 for x in numbers) for o in oracles]
    close(mixture.crps(4.0), crps, rtol=1e-9)
    with pytest.raises(DomainError, match="whole numbers"):
        _ = mixture.modes


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_an_ensemble_of_mixtures_is_one_mixture_of_all() -> None:
    location, scale, logits = random_mixture(3, 5, 7)
    inner = Mixture(Gaussian(location, scale), logits.log_softmax(0))
    member_weight = tensor([1.0, 2.0, 0.0, 4.0, 1.0])
    joint = inner.mixed(member_weight)
    assert isinstance(joint.components, Gaussian)
    assert joint.shape == (7,)
    value = torch.linspace(-3, 3, 7, dtype=torch.float64)
    weights = (member_weight / 8.0).unsqueeze(-1)
    expected = (weights * inner.log_prob(value.expand(5, 7)).exp()).sum(0)
    torch.testing.assert_close(joint.log_prob(value).exp(), expected)
    torch.testing.assert_close(joint.mean, (weights * inner.mean).sum(0))


def test_law_of_total_variance_without_cancellation() -> None:
    # float32: the squares of the means are 1e12, the variance 5e-3.
    mixture = Gaussian(torch.tensor([[1e6], [1e6 + 0.125]]), torch.tensor([[0.03], [0.04]])).mixed()
    assert mixture.between_variance.item() == pytest.approx(0.0625**2, rel=1e-6)
    assert mixture.variance.item() == pytest.approx(0.0625**2 + 0.00125, rel=1e-6)
    assert mixture.mean.item() == pytest.approx(1e6 + 0.0625)


def test_gradient_of_the_crps_of_many_members_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    location, scale, _ = random_mixture(6, 20)
    gradients = []
    for chunk in (mixture_crps.CHUNK, 36 * 3):
        monkeypatch.setattr(mixture_crps, "CHUNK", chunk)
        location = location.detach().requires_grad_()
        gradients += torch.autograd.grad(Gaussian(location, scale).mixed().crps(0.5).sum(), location)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_crps_of_many_members_is_that_of_a_few_repeated() -> None:
    location, scale, _ = random_mixture(4, 30)
    value = torch.zeros(30, dtype=torch.float64)
    few, many = Gaussian(location, scale).mixed(), Gaussian(location.repeat(25, 1), scale.repeat(25, 1)).mixed()
    torch.testing.assert_close(few.crps(value), many.crps(value), rtol=1e-12, atol=0)


def test_quadrature_and_closed_form_of_the_gain_agree() -> None:
    location, scale, logits = random_mixture(4, 20)
    for kind in (Gaussian, Laplace):
        mixture = Mixture(kind(location, scale), logits.log_softmax(0))
        own = (mixture.weight * mixture.components.crps(torch.zeros(20, dtype=torch.float64).expand(4, 20))).sum(0)
        torch.testing.assert_close(own - quadrature.mixing_gain(mixture), mixture.crps(0.0), rtol=1e-7, atol=1e-9)


def test_expectation_of_a_square_is_the_second_moment() -> None:
    for distribution in (Gaussian(tensor([3.0]), tensor([2.0])), Gamma(tensor([0.3]), tensor([2.0]))):
        second = quadrature.expectation(distribution, lambda _, points: points**2)
        torch.testing.assert_close(second, distribution.variance + distribution.mean**2, rtol=1e-7, atol=0)


def test_shapes_map_and_units() -> None:
    location, scale, logits = random_mixture(3, 2, 5)
    mixture = Mixture(Gaussian(location, scale), logits.log_softmax(0))
    assert mixture.shape == (2, 5)
    assert mixture[1, 2:4].shape == (2,)
    assert mixture[..., 0].shape == (2,)
    torch.testing.assert_close(mixture.map(lambda p: p.reshape(-1)).mean, mixture.mean.reshape(-1))
    assert mixture.quantile([0.1, 0.5, 0.9]).shape == (3, 2, 5)
    assert mixture.log_prob(torch.zeros(4, 6, 2, 5)).shape == (4, 6, 2, 5)
    assert mixture.crps(torch.zeros(4, 6, 2, 5)).shape == (4, 6, 2, 5)
    assert mixture.sample(9).shape == (9, 2, 5)
    moved = mixture.affine(3.0, 10.0)
    torch.testing.assert_close(moved.quantile(0.3), 3.0 + 10.0 * mixture.quantile(0.3))
    torch.testing.assert_close(moved.crps(3.0), 10.0 * mixture.crps(0.0))
    torch.testing.assert_close(moved.modes, 3.0 + 10.0 * mixture.modes, equal_nan=True)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_one_number_or_none(shape: tuple[int, ...]) -> None:
    mixture = Gaussian(torch.zeros(2, *shape), torch.ones(2, *shape)).mixed()
    for answer in (
        mixture.mean,
        mixture.mode,
        mixture.entropy,
        mixture.quantile([0.5])[0],
        mixture.crps(0.0),
        mixture.variance,
    ):
        assert answer.shape == shape
        assert answer.dtype == torch.float32
    assert mixture.sample(3).shape == (3, *shape)
    assert mixture.modes.shape == (1, *shape)


def test_nothing_is_mutated_and_nan_stays_where_it_is() -> None:
    location = torch.tensor([[0.0, math.nan], [1.0, 2.0]])
    kept = location.clone()
    mixture = Gaussian(location, torch.ones(2, 2)).mixed()
    for answer in (mixture.mean, mixture.log_prob(0.5), mixture.cdf(0.5), mixture.median, mixture.crps(0.5)):
        assert torch.isfinite(answer[0])
        assert torch.isnan(answer[1])
    assert torch.isfinite(mixture.mode[0])
    assert torch.equal(location.nan_to_num(7.0), kept.nan_to_num(7.0))
    assert mixture.log_prob(torch.tensor([math.nan, 0.0])).isnan().all()


def test_outside_every_support() -> None:
    value = tensor([-1.0]).requires_grad_()
    mixture = Gamma(tensor([[2.0], [3.0]]), tensor([[1.0], [1.0]])).mixed()
    log_density = mixture.log_prob(value)
    assert log_density.item() == -math.inf
    assert torch.autograd.grad(log_density, value)[0].item() == 0.0
    assert mixture.cdf(-1.0).item() == 0.0


def test_wrong_input() -> None:
    one = Gaussian(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ShapeError, match="weights have shape"):
        one.mixed(torch.ones(3))
    for weight in ([1.0, -1.0], [0.0, 0.0], [1.0, math.inf], [1.0, math.nan]):
        with pytest.raises(DomainError, match="not negative"):
            one.mixed(torch.tensor(weight))
    with pytest.raises(DomainError, match=r"expected 1\. Pass"):
        Mixture(one, torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="one weight for each component"):
        Mixture(one, torch.zeros(2))
    with pytest.raises(ShapeError, match="at least"):
        Mixture.of(Gaussian(torch.tensor(0.0), torch.tensor(1.0)))
    with pytest.raises(KindError, match="expected a Distribution"):
        Mixture.of(torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(DomainError, match="floating"):
        Mixture(one, torch.zeros(2, 3, dtype=torch.int64))


def test_negative_binomials_are_summed_to_their_far_tail() -> None:
    means, concentration, weight = [2.0, 300.0], [0.5, 4.0], [0.6, 0.4]
    mixture = Mixture.of(
        NegativeBinomial(tensor(means).log().unsqueeze(-1), tensor(concentration).unsqueeze(-1)), tensor(weight)
    )
    parts = [stats.nbinom(r, r / (r + mean)) for mean, r in zip(means, concentration, strict=True)]
    oracle = MixtureOracle(parts, weight)
    numbers = np.arange(6000)
    masses = np.exp(oracle.logpmf(numbers))
    close(mixture.entropy, [-float((masses * oracle.logpmf(numbers)).sum())], rtol=1e-9)
    close(mixture.crps(30.0), [float(((oracle.cdf(numbers) - (numbers >= 30)) ** 2).sum())], rtol=1e-9)
    assert mixture.quantile([0.1, 0.65, 0.99]).flatten().tolist() == [oracle.ppf(q) for q in (0.1, 0.65, 0.99)]


def test_quantile_knots_keep_their_axis() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64).sort(-1).values
    members = QuantileKnots(values, (0.1, 0.3, 0.5, 0.7, 0.9))
    mixture = members.mixed(tensor([1.0, 0.0, 3.0]))
    expected = 0.25 * members[0].cdf(0.3) + 0.75 * members[2].cdf(0.3)
    torch.testing.assert_close(mixture.cdf(0.3), expected)
    torch.testing.assert_close(mixture.cdf(mixture.quantile([0.05, 0.4])), tensor([[0.05] * 4, [0.4] * 4]))
    grid = torch.linspace(-20.0, 20.0, 40001, dtype=torch.float64).unsqueeze(-1).expand(-1, 4)
    # An edge of a step, where two of them add up, is not looked for: nearly as dense is what is promised.
    torch.testing.assert_close(mixture.log_prob(mixture.mode), mixture.log_prob(grid).amax(0), rtol=0.0, atol=1e-3)
    step = (mixture.cdf(grid) - (grid >= 0.3).double()) ** 2
    torch.testing.assert_close(mixture.crps(0.3), torch.trapezoid(step, grid, dim=0), rtol=1e-3, atol=0)
    assert mixture.sample(6).shape == (6, 4)
