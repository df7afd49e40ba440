"""Robust losses, focal losses and likelihoods against somebody else's code, and what each of them is for."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_pinball_loss
from torch.testing import assert_close

import loss_properties as properties
from lastlayer import losses
from lastlayer.checks import DomainError, InputError, ShapeError
from lastlayer.losses.location_scale import MINIMUM_SCALE, raw_from_scale, scale_derivative, scale_from_raw
from lastlayer.losses.optimal_constants import root_of_increasing, weighted_quantile
from lastlayer.losses.poisson import LARGEST_LOG_RATE
from loss_properties import example, random, weights

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

# Options beside the defaults, which test_losses.py covers.
VARIANTS = [
    losses.Huber(delta=0.3),
    losses.Huber(delta=20.0),
    losses.SmoothL1(beta=0.3),
    losses.Quantile(level=0.9),
    losses.Quantile(level=0.01),
    losses.Focal(gamma=0.0),
    losses.Focal(gamma=0.5, alpha=0.25),
    losses.Focal(gamma=5.0, alpha=0.9),
    losses.Asymmetric(gamma_positive=1.0),
    losses.Asymmetric(gamma_positive=2.0, gamma_negative=3.0, margin=0.0),
    losses.Asymmetric(gamma_positive=0.5, gamma_negative=0.0, margin=0.2),
    losses.Asymmetric(gamma_negative=0.5, margin=1e-3),
    losses.PoissonNLL(full=False),
    losses.GaussianNLL(minimum_scale=0.1),
    losses.LaplaceNLL(minimum_scale=0.5),
    losses.MixtureNLL(components=3, minimum_scale=0.1),
    losses.MixtureNLL(family="laplace"),
]
DEFAULTS = [
    losses.Huber(),
    losses.SmoothL1(),
    losses.LogCosh(),
    losses.Quantile(),
    losses.Focal(),
    losses.Asymmetric(),
    losses.PoissonNLL(),
    losses.GaussianNLL(),
    losses.LaplaceNLL(),
    losses.MixtureNLL(),
]


def _name(loss: losses.Loss) -> str:
    options = {key: value for key, value in vars(loss).items() if not key.startswith("_") and key != "training"}
    options.pop("reduction")
    return f"{loss.facts.name} {options or ''}".strip()


def _pair(n: int = 200, *, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    raw, target = torch.randn(2, n, dtype=torch.float64, generator=random(7))
    return spread * raw, target


def _shares(n: int = 200, *, spread: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets in [0, 1], the ends included."""
    raw = spread * torch.randn(n, dtype=torch.float64, generator=random(8))
    target = torch.rand(n, dtype=torch.float64, generator=random(9))
    target[: n // 2] = target[: n // 2].round()
    return raw, target


@pytest.mark.parametrize("loss", [*DEFAULTS, *VARIANTS], ids=_name)
def test_closed_form_is_the_derivative_of_the_readable_value(loss):
    """Asked of the formula itself, so that no evaluation stands between."""
    formula = loss.formula
    raw, target = example(loss, 300)
    raw.requires_grad_()
    value = formula.value(raw, target)
    (expected,) = torch.autograd.grad(value.sum(), raw)
    raw = raw.detach()
    assert_close(formula.gradient(raw, target), expected, rtol=1e-9, atol=1e-12)
    assert_close(formula.value_and_gradient(raw, target), (value.detach(), expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", VARIANTS, ids=_name)
@pytest.mark.parametrize(
    "holds",
    [
        properties.gradient_is_symmetric_difference,
        properties.first_order_is_right,
        properties.second_order_is_right,
        properties.optimal_constant_is_optimal,
        properties.perfect_prediction_is_best,
        properties.zero_weight_removes_the_row,
    ],
    ids=lambda check: check.__name__,
)
def test_property_with_other_options(loss, holds):
    holds(loss)


@pytest.mark.parametrize("loss", VARIANTS, ids=_name)
@pytest.mark.parametrize("dtype", properties.DTYPES, ids=str)
def test_finite_at_extremes_with_other_options(loss, dtype):
    properties.finite_at_extremes(loss, dtype)


@pytest.mark.parametrize("size", [0.3, 1.0, 2.5])
def test_huber_and_smooth_l1_are_those_of_pytorch(size):
    raw, target = _pair()
    error = (raw - target).abs()
    assert ((error < size).any() and (error > size).any()).item()
    assert_close(
        losses.huber(raw, target, delta=size, reduction="none"),
        F.huber_loss(raw, target, delta=size, reduction="none"),
        rtol=1e-14,
        atol=1e-15,
    )
    assert_close(
        losses.smooth_l1(raw, target, beta=size, reduction="none"),
        F.smooth_l1_loss(raw, target, beta=size, reduction="none"),
        rtol=1e-14,
        atol=1e-15,
    )
    assert_close(losses.huber(raw, target, delta=size), size * losses.smooth_l1(raw, target, beta=size))


def test_huber_lies_between_its_two_limits():
    raw, target = _pair()
    assert_close(losses.huber(raw, target, delta=1e6), losses.squared_error(raw, target, halved=True))
    assert_close(losses.smooth_l1(raw, target, beta=1e-9), losses.absolute_error(raw, target))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_log_cosh_is_accurate_for_every_size_of_error(dtype):
    """Against mpmath, in units of the last place; the form that is good far away is off by all of it at 1e-9."""
    size = torch.cat([torch.logspace(-15, 3, 181, dtype=dtype), torch.linspace(0.9, 1.1, 41, dtype=dtype)])
    zero = torch.zeros_like(size)
    with mpmath.workdps(60):
        exact = [mpmath.log(mpmath.cosh(mpmath.mpf(float(error)))) for error in size]
        for side in (1.0, -1.0):
            value = losses.log_cosh(side * size, zero, reduction="none")
            off = [abs(mpmath.mpf(float(v)) - e) / e for v, e in zip(value, exact, strict=True)]
            assert max(off) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_quantile_loss_is_scikit_learns_pinball_loss(level):
    raw, target = _pair()
    weight = weights(len(raw))
    for sample_weight in (None, weight):
        expected = mean_pinball_loss(target, raw, alpha=level, sample_weight=sample_weight)
        assert losses.quantile(raw, target, level=level, sample_weight=sample_weight).item() == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5, 0.9, 0.999])
def test_the_best_constant_of_the_quantile_loss_is_the_quantile(level):
    target = torch.randn(201, 3, dtype=torch.float64, generator=random(4))
    even = torch.ones(201, dtype=torch.float64)
    found = losses.Quantile(level=level).formula.optimal_constant(target, even)
    assert_close(found.numpy(), np.quantile(target.numpy(), level, axis=0, method="inverted_cdf"))
    # The gradient says the same: as many targets pull up as down, in the ratio of the level.
    gradient = losses.Quantile(level=level).gradient(found.expand_as(target), target)
    assert (gradient.sum(0).abs() <= 1).all()


def test_weighted_quantile_counts_weight_and_skips_nothing_else():
    target = torch.tensor([5.0, 1.0, 3.0, -9.0])
    weight = torch.tensor([1.0, 2.0, 3.0, 0.0])
    for level, expected in ((1e-6, 1.0), (0.33, 1.0), (0.34, 3.0), (0.83, 3.0), (0.84, 5.0), (1 - 1e-7, 5.0)):
        assert weighted_quantile(target, weight, level) == expected
    # However the sums round, the last row is reached.
    for n in range(1, 300):
        weight = torch.rand(n, generator=random(n))
        assert weighted_quantile(torch.arange(float(n)), weight, 1 - 1e-9) == n - 1


def test_bisection_finds_every_root_of_a_batch():
    wanted = torch.tensor([-3.0, 0.0, 1e-3, 12.0], dtype=torch.float64)
    found = root_of_increasing(
        lambda x: torch.sinh(x - wanted), torch.full_like(wanted, -20), torch.full_like(wanted, 90)
    )
    assert_close(found, wanted, rtol=0, atol=1e-14)


def test_subgradient_at_the_kink_is_zero_both_ways():
    target = torch.randn(5, dtype=torch.float64, generator=random(3))
    for loss in (losses.Quantile(level=0.9), losses.LaplaceNLL()):
        raw = target if loss.formula.event_dims == 0 else torch.stack([target, 0 * target], dim=-1)
        raw = raw.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss.formula.value(raw, target).sum(), raw)
        closed = loss.formula.gradient(raw.detach(), target)
        location = (lambda g: g) if loss.formula.event_dims == 0 else (lambda g: g[..., 0])
        assert (location(slope) == 0).all()
        assert (location(closed) == 0).all()


def _focal_by_definition(raw, target, gamma, alpha):
    p = scipy.special.expit(raw)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return -positive * target * (1 - p) ** gamma * np.log(p) - negative * (1 - target) * p**gamma * np.log(1 - p)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_by_its_definition(gamma, alpha):
    raw, target = _shares()
    found = losses.focal(raw, target, gamma=gamma, alpha=alpha, reduction="none")
    assert_close(found.numpy(), _focal_by_definition(raw.numpy(), target.numpy(), gamma, alpha), rtol=1e-9, atol=0)


def test_focal_without_focus_is_binary_cross_entropy():
    raw, target = _shares()
    assert_close(losses.focal(raw, target, gamma=0.0), losses.binary_cross_entropy(raw, target))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_focal_keeps_its_accuracy_where_the_sigmoid_rounds_to_one(gamma, outcome):
    """In float32 1 − σ(20) rounds to 0, and so would the loss of a confident right answer."""

    def exact(score: mpmath.mpf) -> mpmath.mpf:
        p = 1 / (1 + mpmath.exp(-score if outcome else score))
        return -((1 - p) ** gamma) * mpmath.log(p)

    raw = torch.tensor([-40.0, -20.0, -5.0, 0.1, 5.0, 20.0, 40.0])
    target = torch.full_like(raw, outcome)
    value = losses.focal(raw, target, gamma=gamma, reduction="none").tolist()
    slope = losses.Focal(gamma=gamma).gradient(raw, target).tolist()
    with mpmath.workdps(50):
        for place, score in enumerate(map(mpmath.mpf, raw.tolist())):
            assert value[place] == pytest.approx(float(exact(score)), rel=1e-5, abs=1e-38)
            assert slope[place] == pytest.approx(float(mpmath.diff(exact, score)), rel=1e-5, abs=1e-38)


@pytest.mark.parametrize(("share", "gamma", "alpha"), [(0.5, 2.0, None), (0.1, 2.0, None), (0.1, 2.0, 0.25)])
def test_focal_is_no_proper_score(share, gamma, alpha):
    """Its best constant is found on a fine grid of the definition, and is not the logit of the share."""
    target, weight = torch.full((7,), share, dtype=torch.float64), torch.ones(7, dtype=torch.float64)
    grid = np.linspace(-8, 8, 160_001)
    best = grid[_focal_by_definition(grid, share, gamma, alpha).argmin()]
    found = losses.Focal(gamma=gamma, alpha=alpha).formula.optimal_constant(target, weight).item()
    assert found == pytest.approx(best, abs=1e-4)
    if share == 0.1:
        assert abs(found) < math.log(9) - 0.5


@pytest.mark.parametrize("loss", [losses.Focal(), losses.Focal(alpha=0.25), losses.Asymmetric()], ids=_name)
def test_one_outcome_alone_has_its_best_constant_at_infinity(loss):
    for n in range(3, 60):
        weight = torch.rand(n, generator=random(n))
        assert loss.formula.optimal_constant(torch.ones(n), weight) == torch.inf
        assert loss.formula.optimal_constant(torch.zeros(n), weight) == -torch.inf


@pytest.mark.parametrize("options", [(0.0, 4.0, 0.05), (1.0, 4.0, 0.05), (0.0, 0.0, 0.3), (2.0, 3.0, 0.0)])
def test_asymmetric_by_its_definition(options):
    raw, target = _shares()
    gamma_positive, gamma_negative, margin = options
    p = scipy.special.expit(raw.numpy())
    shifted = np.maximum(p - margin, 0)
    positive = -((1 - p) ** gamma_positive) * np.log(p)
    negative = -(shifted**gamma_negative) * np.log(1 - shifted)
    expected = target.numpy() * positive + (1 - target.numpy()) * negative
    found = losses.asymmetric(
        raw, target, gamma_positive=gamma_positive, gamma_negative=gamma_negative, margin=margin, reduction="none"
    )
    assert_close(found.numpy(), expected, rtol=1e-9, atol=1e-15)


def test_asymmetric_without_asymmetry_is_focal():
    raw, target = _shares(spread=20.0)
    even = losses.asymmetric(raw, target, gamma_positive=2.0, gamma_negative=2.0, margin=0.0, reduction="none")
    assert_close(even, losses.focal(raw, target, reduction="none"))


def test_asymmetric_forgives_easy_negatives_altogether():
    easy = torch.logit(torch.tensor([1e-6, 0.01, 0.049], dtype=torch.float64))
    absent = torch.zeros_like(easy)
    assert (losses.asymmetric(easy, absent, reduction="none") == 0).all()
    assert (losses.Asymmetric().gradient(easy, absent) == 0).all()
    assert (losses.focal(easy, absent, reduction="none") > 0).all()


def test_asymmetric_best_constant_is_infinite_where_hardly_a_target_is_zero():
    """The cost of a false alarm is bounded by −log m, times a power of 1 − m."""
    formula, even = losses.Asymmetric().formula, torch.ones(1000, dtype=torch.float64)
    target = torch.ones(1000, dtype=torch.float64)
    target[:30] = 0.0
    assert formula.optimal_constant(target, even) == torch.inf
    target[:50] = 0.0
    assert formula.optimal_constant(target, even).isfinite()


def test_poisson_is_scipys_and_pytorchs():
    raw, target = example(losses.PoissonNLL(), 300)
    expected = -scipy.stats.poisson.logpmf(target.numpy(), raw.exp().numpy())
    assert_close(losses.poisson_nll(raw, target, reduction="none").numpy(), expected, rtol=1e-12, atol=1e-13)
    assert_close(
        losses.poisson_nll(raw, target, full=False, reduction="none"),
        F.poisson_nll_loss(raw, target, log_input=True, full=False, reduction="none"),
    )


def test_poisson_goes_on_as_its_tangent():
    end = LARGEST_LOG_RATE
    raw = torch.tensor([end - 1e-9, end, end + 1e-9, end + 5.0], dtype=torch.float64)
    target = torch.full_like(raw, 4.0)
    value, slope = losses.PoissonNLL().formula.value_and_gradient(raw, target)
    assert_close(value[0], value[2], rtol=1e-8, atol=0)
    assert_close(slope, torch.full_like(slope, math.exp(end) - 4.0), rtol=1e-8, atol=0)
    assert_close(value[3], value[1] + 5.0 * slope[1], rtol=1e-12, atol=0)


def test_poisson_best_constant_gives_the_mean_count():
    target, weight = torch.tensor([0.0, 3.0, 1.0], dtype=torch.float64), torch.tensor([2.0, 1.0, 1.0]).double()
    assert_close(losses.PoissonNLL().formula.optimal_constant(target, weight).exp(), torch.tensor(1.0).double())
    assert losses.PoissonNLL().formula.optimal_constant(0 * target, weight) == -torch.inf


def _location_and_scale(raw: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """By NumPy: log(1 + e^r) plus the floor."""
    location, raw_scale = raw[..., 0].numpy(), raw[..., 1].numpy()
    return location, np.logaddexp(0, raw_scale) + MINIMUM_SCALE


def test_gaussian_is_scipys_and_pytorchs():
    raw, target = example(losses.GaussianNLL(), 300)
    location, scale = _location_and_scale(raw)
    found = losses.gaussian_nll(raw, target, reduction="none")
    assert_close(found.numpy(), -scipy.stats.norm.logpdf(target.numpy(), location, scale))
    variance = torch.as_tensor(scale) ** 2
    assert_close(found, F.gaussian_nll_loss(raw[..., 0], target, variance, full=True, eps=0.0, reduction="none"))


def test_laplace_is_scipys():
    raw, target = example(losses.LaplaceNLL(), 300)
    expected = -scipy.stats.laplace.logpdf(target.numpy(), *_location_and_scale(raw))
    assert_close(losses.laplace_nll(raw, target, reduction="none").numpy(), expected)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_mixture_is_the_sum_of_scipys_densities(family):
    raw, target = example(losses.MixtureNLL(), 300)
    distribution = scipy.stats.norm if family == "gaussian" else scipy.stats.laplace
    logits, location, raw_scale = (part.numpy() for part in raw.chunk(3, -1))
    scale = np.logaddexp(0, raw_scale) + MINIMUM_SCALE
    log_share = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    joint = log_share + distribution.logpdf(target.numpy()[:, None], location, scale)
    found = losses.mixture_nll(raw, target, family=family, reduction="none")
    assert_close(found.numpy(), -scipy.special.logsumexp(joint, axis=-1))


@pytest.mark.parametrize(
    ("family", "single"), [("gaussian", losses.GaussianNLL()), ("laplace", losses.LaplaceNLL())], ids=str
)
def test_mixture_of_one_component_is_its_component(family, single):
    raw, target = example(single, 50)
    mixture = losses.MixtureNLL(family=family, components=1)
    padded = torch.cat([torch.randn(50, 1, dtype=torch.float64, generator=random(6)), raw], dim=-1)
    assert_close(mixture.value(padded, target), single.value(raw, target))
    assert_close(mixture.gradient(padded, target)[..., 1:], single.gradient(raw, target))
    weight = weights(50)
    start = mixture.formula.optimal_constant(target, weight)
    assert_close(start[1:], single.formula.optimal_constant(target, weight))


def test_components_may_change_places():
    raw, target = example(losses.MixtureNLL(), 20)
    order = torch.tensor([2, 0, 1])
    moved = torch.cat([part[:, order] for part in raw.chunk(3, -1)], dim=-1)
    assert_close(losses.mixture_nll(moved, target), losses.mixture_nll(raw, target))


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
@pytest.mark.parametrize("components", [2, 5, 20])
def test_mixture_starts_near_the_marginal_fit_with_its_components_apart(family, components):
    loss = losses.MixtureNLL(components=components, family=family)
    noise = np.random.default_rng(0)
    draw = noise.normal if family == "gaussian" else noise.laplace
    target = torch.as_tensor(3 + 2 * draw(size=4000))
    even = torch.ones(len(target), dtype=torch.float64)
    logits, location, raw_scale = loss.formula.optimal_constant(target, even).chunk(3)
    scale = scale_from_raw(raw_scale)
    assert (location.diff() > 0.05).all()
    assert (logits == 0).all()
    # Equal shares: the variance is that between the components and that within them.
    within = scale**2 * (1 if family == "gaussian" else 2)
    single = (losses.GaussianNLL() if family == "gaussian" else losses.LaplaceNLL()).formula
    fit = single.optimal_constant(target, even)
    marginal = scale_from_raw(fit[1]) ** 2 * (1 if family == "gaussian" else 2)
    assert_close(location.var(correction=0) + within.mean(), marginal)
    start = loss(torch.cat([logits, location, raw_scale]).expand(len(target), -1), target)
    assert start < single.value(fit.expand(len(target), 2), target).mean() + 0.1


def test_mixture_start_needs_the_number_of_components():
    target = torch.randn(9)
    with pytest.raises(InputError, match="how many components"):
        losses.MixtureNLL().formula.optimal_constant(target, torch.ones(9))


def test_mixture_learns_two_values_where_a_gaussian_predicts_their_mean():
    target = torch.cat([torch.full((50,), -2.0), torch.full((50,), 2.0)]).double()
    target = target + 0.1 * torch.randn(100, dtype=torch.float64, generator=random(1))
    loss = losses.MixtureNLL(components=2)
    even = torch.ones(100, dtype=torch.float64)
    raw = loss.formula.optimal_constant(target, even).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        loss(raw.expand(100, -1), target).backward()
        optimizer.step()
    logits, location, raw_scale = raw.detach().chunk(3)
    assert_close(location, torch.tensor([-2.0, 2.0]).double(), rtol=0, atol=0.05)
    assert_close(torch.softmax(logits, -1), torch.tensor([0.5, 0.5]).double(), rtol=0, atol=0.02)
    assert (scale_from_raw(raw_scale) < 0.15).all()
    fit = losses.GaussianNLL().formula.optimal_constant(target, even)
    assert_close(fit[0], target.mean())


@pytest.mark.parametrize(
    ("likelihood", "named"),
    [(losses.gaussian_nll, losses.squared_error), (losses.laplace_nll, losses.absolute_error)],
    ids=["gaussian and squared error", "laplace and absolute error"],
)
@pytest.mark.parametrize("raw_scale", [-2.0, 0.0, 3.0])
def test_a8_likelihood_and_named_loss_have_one_minimizer(likelihood, named, raw_scale):
    """SPEC A8 with the scale from the network: whatever it is, the location's minimizer is that of the named loss."""
    target = 3 + 2 * torch.randn(51, dtype=torch.float64, generator=random(2))
    grid = torch.linspace(-2, 8, 2001, dtype=torch.float64)
    raw = torch.stack([grid, torch.full_like(grid, raw_scale)], dim=-1)
    likely = torch.stack([likelihood(constant.expand(51, 2), target) for constant in raw])
    wanted = torch.stack([named(constant.expand(51), target) for constant in grid])
    assert likely.argmin() == wanted.argmin()


def test_best_constants_of_the_likelihoods_are_the_marginal_fit():
    target, even = torch.randn(101, 2, dtype=torch.float64, generator=random(5)), torch.ones(101, dtype=torch.float64)
    gaussian = losses.GaussianNLL().formula.optimal_constant(target, even)
    for column in range(2):
        mean, deviation = scipy.stats.norm.fit(target[:, column].numpy())
        assert_close(gaussian[column, 0].item(), mean)
        assert_close(scale_from_raw(gaussian[column, 1]).item(), deviation)
        median, scale = scipy.stats.laplace.fit(target[:, column].numpy())
        laplace = losses.LaplaceNLL().formula.optimal_constant(target[:, column], even)
        assert_close(laplace[0].item(), median)
        assert_close(scale_from_raw(laplace[1]).item(), scale)


def test_constant_targets_want_the_least_scale():
    """Whatever the rounding of the mean, the raw scale is −∞ and never NaN."""
    for loss in (losses.GaussianNLL(), losses.LaplaceNLL(), losses.MixtureNLL(components=3)):
        for n in range(2, 50):
            constant = loss.formula.optimal_constant(torch.full((n,), 0.1), torch.rand(n, generator=random(n)))
            assert not constant.isnan().any()
            assert constant[-1] == -torch.inf


@pytest.mark.parametrize("loss", [losses.GaussianNLL(), losses.LaplaceNLL(), losses.MixtureNLL()], ids=_name)
@pytest.mark.parametrize("raw_scale", [-1e4, -10.0, 0.0, 1e4])
def test_a_target_a_million_scales_away_is_finite_in_float32(loss, raw_scale):
    target = 1e6 * torch.tensor([1.0, -1.0]) * scale_from_raw(torch.tensor(max(raw_scale, 0.0)))
    size = 2 if loss.facts.name != "mixture_nll" else 6
    raw = torch.zeros(2, size)
    raw[..., -size // 2 if size == 2 else -2 :] = raw_scale
    value, gradient = loss.formula.value_and_gradient(raw, target)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    # It still says in which direction to go.
    location = gradient[..., 0] if size == 2 else gradient[..., 2:4].sum(-1)
    assert (torch.sign(location) == -torch.sign(target)).all()


def test_responsibilities_are_shares_however_far_the_target():
    """The gradient of the locations adds up to that of one component: one answers, and none twice."""
    raw = torch.tensor([[0.0, 0.0, 0.0, -5.0, -5.0, -5.0, -1e4, -1e4, -1e4]])
    target = torch.tensor([1e4])
    mixture = losses.MixtureNLL().gradient(raw, target)
    single = losses.GaussianNLL().gradient(raw[:, 5:7], target)
    assert_close(mixture[:, 3:6].sum(), single[0, 0])
    assert_close(mixture[:, :3], torch.zeros(1, 3), rtol=0, atol=1e-6)


def test_scale_link_and_its_inverse():
    raw = torch.linspace(-30, 50, 161, dtype=torch.float64)
    scale = scale_from_raw(raw, 0.01)
    assert (scale > 0.01).all()
    assert_close(scale.numpy(), np.logaddexp(0, raw.numpy()) + 0.01, rtol=1e-15, atol=0)
    assert_close(raw_from_scale(scale, 0.01)[60:], raw[60:], rtol=1e-12, atol=1e-12)
    raw.requires_grad_()
    (slope,) = torch.autograd.grad(scale_from_raw(raw).sum(), raw)
    assert_close(slope, scale_derivative(raw.detach()))
    assert (slope > 0).all()
    assert raw_from_scale(torch.tensor([0.01, 0.001]), 0.01).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.Huber(delta=0.0), r"huber: delta is 0\.0; expected a number in \(0, ∞\)"),
        (lambda: losses.SmoothL1(beta=-1.0), r"smooth_l1: beta is -1\.0; expected a number in \(0, ∞\)"),
        (lambda: losses.Huber(delta=math.inf), r"huber: delta is inf"),
        (lambda: losses.Quantile(level=1.0), r"quantile: level is 1\.0; expected a number in \(0, 1\)"),
        (lambda: losses.Quantile(level=math.nan), r"quantile: level is nan"),
        (lambda: losses.Focal(gamma=-0.1), r"focal: gamma is -0\.1; expected a number in \[0, ∞\)"),
        (lambda: losses.Focal(alpha=1.1), r"focal: alpha is 1\.1; expected a number in \[0, 1\]"),
        (lambda: losses.Asymmetric(gamma_positive=-1), r"asymmetric: gamma_positive is -1"),
        (lambda: losses.Asymmetric(gamma_negative=-1), r"asymmetric: gamma_negative is -1"),
        (lambda: losses.Asymmetric(margin=1.0), r"asymmetric: margin is 1\.0; expected a number in \[0, 1\)"),
        (lambda: losses.GaussianNLL(minimum_scale=0.0), r"gaussian_nll: minimum_scale is 0\.0"),
        (lambda: losses.LaplaceNLL(minimum_scale=-1.0), r"laplace_nll: minimum_scale is -1\.0"),
        (lambda: losses.MixtureNLL(minimum_scale=0.0), r"mixture_nll: minimum_scale is 0\.0"),
    ],
)
def test_options_outside_their_domain_are_named(call, message):
    with pytest.raises(DomainError, match=message):
        call()


def test_functions_check_the_same_options():
    zero = torch.zeros(3)
    with pytest.raises(ValueError, match="quantile: level is 2"):
        losses.quantile(zero, zero, level=2)
    with pytest.raises(InputError, match=r"family is 'cauchy'; expected one of 'gaussian', 'laplace'"):
        losses.mixture_nll(torch.zeros(3, 6), zero, family="cauchy")
    with pytest.raises(InputError, match="components is 0"):
        losses.MixtureNLL(components=0)


@pytest.mark.parametrize("name", ["gaussian_nll", "laplace_nll", "mixture_nll"])
def test_likelihood_shapes_name_the_fix(name):
    function, size = getattr(losses, name), 6 if name == "mixture_nll" else 2
    with pytest.raises(ShapeError, match=r"target \(4, 1\).*Fix: drop the last axis of target: target\.squeeze\(-1\)"):
        function(torch.zeros(4, size), torch.zeros(4, 1))
    with pytest.raises(ShapeError, match=r"raw has shape \(4, 4\), target \(4,\); expected raw of shape \(\.\.\., "):
        function(torch.zeros(4, 4), torch.zeros(4))
    with pytest.raises(ShapeError, match=r"raw has shape \(\), target \(\)"):
        function(torch.zeros(()), torch.zeros(()))


def test_mixture_counts_its_components():
    raw, target = torch.zeros(4, 6), torch.zeros(4)
    assert_close(losses.mixture_nll(raw, target, components=2), losses.mixture_nll(raw, target))
    with pytest.raises(ShapeError, match=r"expected raw of shape \(\.\.\., 9\)"):
        losses.mixture_nll(raw, target, components=3)


def test_missing_numbers_are_not_hidden():
    """NaN in, NaN out: no comparison may turn it into a harmless loss. (PyTorch's sign of NaN is 0.)"""
    for loss in (*DEFAULTS, *VARIANTS):
        raw, target = example(loss, 4)
        raw[1] = torch.nan
        assert loss.formula.value(raw, target)[1].isnan(), _name(loss)
        if loss.facts.smooth:
            assert loss.formula.gradient(raw, target)[1].isnan().all(), _name(loss)
