"""The continuous distributions where they are hard: far tails, many digits, edges; mpmath and limits as the oracles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from distribution_cases import in_dtype
from lastlayer.checks import DomainError, LastLayerError
from lastlayer.distributions import Affine, Beta, Gamma, Gaussian, Laplace, LogNormal, StudentT
from lastlayer.distributions.special_functions import (
    beta_cdf,
    beta_quantile,
    gamma_cdf,
    gamma_quantile,
    student_t_cdf,
    student_t_quantile,
)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact_t(z: float, degrees: float) -> mpmath.mpf:
    z, degrees = mpmath.mpf(z), mpmath.mpf(degrees)
    tail = mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + z * z), regularized=True) / 2
    return tail if z < 0 else 1 - tail


def exact_gamma(u: float, a: float) -> mpmath.mpf:
    return mpmath.gammainc(a, 0, u, regularized=True)


def exact_beta(y: float, a: float, b: float) -> mpmath.mpf:
    return mpmath.betainc(a, b, 0, y, regularized=True)


CDF = [
    *[(student_t_cdf, exact_t, (z, df)) for df in (0.3, 1.0, 4.0, 60.0) for z in (-1e6, -9.0, -0.7, 0.4, 6.0)],
    *[(gamma_cdf, exact_gamma, (r * a, a)) for a in (0.02, 0.7, 3.0, 80.0) for r in (1e-3, 0.4, 0.98, 1.5, 4.0)],
    *[
        (beta_cdf, exact_beta, (y, a, b))
        for a, b in ((0.2, 0.3), (1.0, 4.0), (30.0, 2.5), (60.0, 90.0))
        for y in (1e-6, 0.05, 0.38, 0.7, 0.99)
    ],
]


@pytest.mark.parametrize(("ours", "exact", "arguments"), CDF)
def test_distribution_functions_and_their_derivatives(
    ours: Callable[..., Tensor], exact: Callable[..., mpmath.mpf], arguments: tuple[float, ...]
) -> None:
    """Also far out, relatively: mpmath's, and its derivatives in every argument."""
    with mpmath.workdps(200):
        expected = float(exact(*arguments))
        slopes = [
            float(
                mpmath.diff(
                    lambda x, i=i: exact(*arguments[:i], x, *arguments[i + 1 :]),
                    arguments[i],
                    h=mpmath.mpf(10) ** -20 * arguments[i],
                )
            )
            for i in range(len(arguments))
        ]
    tensors = [real(x).requires_grad_() for x in arguments]
    actual = ours(*tensors)
    assert_close(actual, real(expected), rtol=1e-12, atol=1e-300)
    gradients = torch.autograd.grad(actual.sum(), tensors)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert_close(gradient, real(slope), rtol=2e-7, atol=1e-300)


QUANTILES = [
    (student_t_quantile, student_t_cdf, (0.4,)),
    (student_t_quantile, student_t_cdf, (3.0,)),
    (student_t_quantile, student_t_cdf, (500.0,)),
    (gamma_quantile, gamma_cdf, (0.7,)),
    (gamma_quantile, gamma_cdf, (40.0,)),
    (beta_quantile, beta_cdf, (0.4, 3.0)),
    (beta_quantile, beta_cdf, (2.0, 5.5)),
    (beta_quantile, beta_cdf, (300.0, 20.0)),
]


@pytest.mark.parametrize(("quantile", "cdf", "shapes"), QUANTILES)
def test_quantiles_and_their_derivatives(
    quantile: Callable[..., Tensor], cdf: Callable[..., Tensor], shapes: tuple[float, ...]
) -> None:
    """Shares down to 1e-280, where SciPy's inverses give up; the derivatives are those of an inverse function."""
    share = real(1e-280, 1e-200, 1e-120, 1e-40, 1e-9, 0.02, 0.4, 0.5, 0.77, 0.999, 1 - 1e-9)
    inside = [real(*[x] * len(share)).requires_grad_() for x in shapes]
    value = quantile(share, *inside)
    # Some are beyond all numbers: 1e-280 is reached by 40 % of a degree of freedom at 1e700.
    number = value.isfinite() & (value != 0.0)
    assert number.sum() >= 8
    assert_close(cdf(value, *inside)[number], share[number], rtol=1e-9, atol=0)
    in_shapes = torch.autograd.grad(value.sum(), inside)
    at = value.detach().requires_grad_()
    density, *slopes = torch.autograd.grad(cdf(at, *inside).sum(), [at, *inside])
    for actual, slope in zip(in_shapes, slopes, strict=True):
        assert_close(actual[number], (-slope / density)[number], rtol=1e-9, atol=1e-300)
        assert (actual[~number] == 0).all()
    assert torch.autograd.gradcheck(quantile, [real(0.02, 0.4, 0.9).requires_grad_(), *(x[:3] for x in inside)])


def test_ends_of_the_shares() -> None:
    ends = real(0.0, 1.0)
    three = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    for quantile, expected, shapes in (
        (student_t_quantile, (-math.inf, math.inf), (three,)),
        (gamma_quantile, (0.0, math.inf), (three,)),
        (beta_quantile, (0.0, 1.0), (three, three)),
    ):
        value = quantile(ends, *shapes)
        assert_close(value, real(*expected))
        assert torch.autograd.grad(value.sum(), three)[0] == 0
        assert quantile(real(math.nan), *shapes).isnan().all()


def test_a_second_derivative_in_a_shape_is_an_error_and_in_the_value_is_right() -> None:
    value, shape = real(0.3, 0.8).requires_grad_(), real(2.5, 0.7).requires_grad_()
    (first,) = torch.autograd.grad(gamma_cdf(value, shape).sum(), shape, create_graph=True)
    assert first.requires_grad
    with pytest.raises(LastLayerError, match="only the first is there"):
        torch.autograd.grad(first.sum(), shape)
    for function, shapes in (
        (student_t_cdf, (shape,)),
        (student_t_quantile, (shape,)),
        (gamma_cdf, (shape,)),
        (gamma_quantile, (shape,)),
        (beta_cdf, (shape, shape + 1)),
        (beta_quantile, (shape, shape + 1)),
    ):
        fixed = [x.detach() for x in shapes]
        assert torch.autograd.gradgradcheck(lambda v, f=function, s=fixed: f(v, *s), [value])


def test_function_transforms() -> None:
    value, shape = real(0.3, 0.8, 2.0), real(2.5, 0.7)
    mapped = torch.func.vmap(lambda v: gamma_cdf(v, shape))(value)
    assert_close(mapped, gamma_cdf(value[:, None], shape))
    slopes = torch.func.vmap(torch.func.grad(lambda a, v: student_t_cdf(v, a)), in_dims=(None, 0))(shape[0], value)
    a = shape[0].clone().requires_grad_()
    expected = torch.stack([torch.autograd.grad(student_t_cdf(v, a), a)[0] for v in value])
    assert_close(slopes, expected)


def test_shapes_are_learned_through_quantiles() -> None:
    """A distribution found from its quantiles alone, by gradients through them."""
    truth = Gamma(real(4.0), real(2.0))
    shares = real(*(0.02 * k for k in range(1, 50)))
    targets = truth.quantile(shares).squeeze(-1)
    raw = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = Gamma(raw[:1].exp(), raw[1:].exp()).quantile(shares).squeeze(-1)
        error = (found - targets).square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    assert_close(raw.detach().exp(), real(4.0, 2.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("z", [0.3, 4.0, 8.0, 20.0, 37.0])
def test_gaussian_tails(z: float) -> None:
    with mpmath.workdps(40):
        expected = float(mpmath.ncdf(-z))
    assert_close(Gaussian(real(0.0), real(1.0)).cdf(real(-z)), real(expected), rtol=2e-13, atol=0)
    if z < 10:
        single = Gaussian(torch.zeros(1), torch.ones(1)).cdf(torch.tensor([-z]))
        assert_close(single.double(), real(expected), rtol=1e-5, atol=0)


# Many digits


@pytest.mark.parametrize("a", [1e3, 1e6, 1e10, 1e14])
def test_density_and_entropy_of_a_large_concentration(a: float) -> None:
    value = a + 1.7 * math.sqrt(a)
    with mpmath.workdps(60):
        m, y = mpmath.mpf(a), mpmath.mpf(value)
        density = (m - 1) * mpmath.log(y) - y - mpmath.loggamma(m)
        entropy = m + mpmath.loggamma(m) + (1 - m) * mpmath.digamma(m)
    gamma = Gamma(real(a), real(1.0))
    assert_close(gamma.log_prob(real(value)), real(float(density)), rtol=0, atol=1e-15 * math.sqrt(a) + 1e-13)
    assert_close(gamma.entropy, real(float(entropy)), rtol=1e-13, atol=0)


@pytest.mark.parametrize("degrees", [1e4, 1e8, 1e15])
def test_many_degrees_of_freedom_are_a_gaussian(degrees: float) -> None:
    t, gaussian = StudentT(real(1.0), real(2.0), real(degrees)), Gaussian(real(1.0), real(2.0))
    points = real(-9.0, -1.0, 1.0, 4.0)[:, None]
    for question in ("log_prob", "cdf", "crps"):
        close = {"rtol": 200 / degrees + 1e-13, "atol": 1e-14}
        assert_close(getattr(t, question)(points), getattr(gaussian, question)(points), **close)
    assert_close(t.entropy, gaussian.entropy, rtol=2 / degrees + 1e-14, atol=0)
    single = t.map(in_dtype(torch.float32))
    assert_close(single.log_prob(points.float()).double(), t.log_prob(points), rtol=2e-6, atol=0)
    assert_close(single.crps(points.float()).double(), t.crps(points), rtol=2e-6, atol=1e-6)
    assert_close(single.entropy.double(), t.entropy, rtol=1e-6, atol=0)


@pytest.mark.parametrize("degrees", [0.55, 0.6, 0.9, 1.0 - 1e-5, 1.0, 1.0 + 1e-9, 1.0005, 1.001, 1.2])
@pytest.mark.parametrize("z", [0.0, -0.4, 30.0])
def test_crps_of_a_t_that_hardly_has_a_mean(degrees: float, z: float) -> None:
    """As an integral it is finite down to ½. Far out F falls like a power: there the integral is that of a power."""
    with mpmath.workdps(20):
        edges = sorted({-1e8, -1e4, -100.0, -10.0, -1.0, z, 0.0, 1.0, 10.0, 100.0, 1e4, 1e8})
        tail = lambda x: exact_t(-abs(x), degrees)  # noqa: E731
        total = mpmath.mpf(0)
        for left, right in itertools.pairwise(edges):
            inner = (
                (lambda x: tail(x) if x < 0 else 1 - tail(x))
                if right <= z
                else (lambda x: 1 - tail(x) if x < 0 else tail(x))
            )
            total += mpmath.quad(lambda x, f=inner: f(x) ** 2, [left, right], maxdegree=5)
        total += 2 * tail(-1e8) ** 2 * mpmath.mpf(10) ** 8 / (2 * degrees - 1)
        expected = float(total)
    t = StudentT(real(0.0), real(1.0), real(degrees))
    assert_close(t.crps(real(z)), real(expected), rtol=1e-9, atol=0)
    single = t.map(in_dtype(torch.float32))
    exact = single.map(in_dtype(torch.float64))
    assert_close(single.crps(torch.tensor([z])).double(), exact.crps(real(z)), rtol=1e-4, atol=1e-6)


def test_student_t_without_moments() -> None:
    t = StudentT(real(0.0, 2.0, 2.0, 2.0), real(1.0, 1.0, 1.0, 1.0), real(0.5, 1.0, 2.0, 2.5))
    assert_close(t.mean, real(math.nan, math.nan, 2.0, 2.0), equal_nan=True)
    assert_close(t.variance, real(math.nan, math.nan, math.inf, 5.0), equal_nan=True)
    assert_close(t.median, real(0.0, 2.0, 2.0, 2.0))
    assert t.crps(1.0).isfinite().tolist() == [False, True, True, True]
    assert t.crps(1.0)[0] == math.inf
    degrees = real(0.5, 1.0, 2.0, 2.5).requires_grad_()
    learned = StudentT(t.location, t.scale, degrees)
    kept = torch.where(learned.variance.isfinite(), learned.variance, 0.0).sum() + learned.crps(1.0)[1:].sum()
    assert torch.autograd.grad(kept, degrees)[0].isfinite().all()


def test_log_normal_of_a_large_scale() -> None:
    """The mean overflows; the CRPS, which does not, is found without it."""
    wide = LogNormal(real(0.0), real(40.0))
    assert wide.mean.isinf()
    with mpmath.workdps(60):
        spread = 2 * mpmath.exp(mpmath.mpf(800)) * mpmath.ncdf(-40 / mpmath.sqrt(2))
        expected = float(spread - 2 * mpmath.exp(800) * mpmath.ncdf(-40))
    assert_close(wide.crps(real(1.0)), real(expected), rtol=1e-10, atol=0)
    assert_close(wide.crps(real(0.0)), real(float(spread)), rtol=1e-10, atol=0)


# Edges


def test_density_at_the_ends_of_a_share() -> None:
    beta = Beta(real(0.5, 1.0, 2.0, 1.0), real(2.0, 3.0, 1.0, 1.0))
    assert_close(beta.log_prob(0.0).exp(), real(math.inf, 3.0, 0.0, 1.0))
    assert_close(beta.log_prob(1.0).exp(), real(0.0, 0.0, 2.0, 1.0))
    assert_close(beta.cdf(0.0), real(0.0, 0.0, 0.0, 0.0))
    assert_close(beta.cdf(1.0), real(1.0, 1.0, 1.0, 1.0))
    for end in (0.0, 1.0):
        concentration = beta.concentration1.clone().requires_grad_()
        learned = Beta(concentration, beta.concentration0)
        for answer in (learned.cdf(end), learned.crps(end), learned.quantile(end)):
            assert torch.autograd.grad(answer.sum(), concentration, retain_graph=True)[0].isfinite().all()


@pytest.mark.parametrize(
    "distribution",
    [Gamma(real(0.3, 1.0, 3.0), real(1.0, 1.0, 2.0)), LogNormal(real(0.0, 1.0, 3.0), real(1.0, 1.0, 2.0))],
)
def test_zero_and_below_teach_no_nonsense(distribution: Gamma | LogNormal) -> None:
    for value in (0.0, -2.0):
        tensors = []

        def learned(parameter: Tensor, tensors: list[Tensor] = tensors) -> Tensor:
            tensors.append(parameter.clone().requires_grad_())
            return tensors[-1]

        moved = distribution.map(learned)
        assert (moved.log_prob(value) == -math.inf).all()
        assert (moved.cdf(value) == 0.0).all()
        answer = moved.crps(value) + moved.cdf(value) + moved.log_prob(value).clamp_min(-1.0)
        for gradient in torch.autograd.grad(answer.sum(), tensors):
            assert gradient.isfinite().all()


def test_samples_of_tiny_concentrations() -> None:
    """Where two gamma draws are both too small for a number their share is still 0 or 1, not ½."""
    beta = Beta(torch.full((1,), 1e-3), torch.full((1,), 3e-3))
    draws = beta.sample(4000, generator=torch.Generator().manual_seed(1))
    assert ((draws < 1e-3) | (draws > 1 - 1e-3)).double().mean() > 0.98
    assert abs(float(draws.double().mean()) - 0.25) < 0.03
    gamma = Gamma(torch.full((1,), 1e-3), torch.ones(1)).sample(100, generator=torch.Generator().manual_seed(1))
    assert (gamma > 0).all()


def test_affine_keeps_the_ends_and_collapses() -> None:
    base = Beta(real(2.0, 1.0), real(1.0, 0.5))
    moved = Affine(base, 0.1, 0.6)
    assert str(moved.support) == "[0.1, 0.7]"
    # (0.7 − 0.1)/0.6 is more than 1.
    assert (moved.log_prob(0.7) > -math.inf).all()
    assert (moved.log_prob(0.70001) == -math.inf).all()
    assert str(Affine(Gamma(real(1.0), real(1.0)), 3.0, 2.0).support) == "(3, ∞)"
    twice = moved.affine(1.0, 10.0)
    assert isinstance(twice, Affine)
    assert twice.base is base
    assert (twice.shift, twice.scale) == (2.0, 6.0)
    assert isinstance(Laplace(real(1.0), real(1.0)).affine(1.0, 2.0), Laplace)
    assert isinstance(StudentT(real(1.0), real(1.0), real(3.0)).affine(1.0, 2.0), StudentT)


def test_the_mixture_of_affine_is_affine() -> None:
    members = Gamma(real(1.0, 3.0, 2.0).reshape(3, 1), real(2.0, 1.0, 1.0).reshape(3, 1))
    inside, outside = members.affine(5.0, 2.0).mixed(), members.mixed()
    assert isinstance(inside, Affine)
    assert inside.shape == (1,)
    assert_close(inside.mean, 5.0 + 2.0 * outside.mean)
    assert_close(inside.cdf(9.0), outside.cdf(2.0))


class Whole(Gaussian):
    discrete = True


def test_affine_refuses() -> None:
    gaussian = Gaussian(real(0.0), real(1.0))
    with pytest.raises(DomainError, match="Whole is a distribution of whole numbers"):
        Affine(Whole(real(0.0), real(1.0)), 0.0, 2.0)
    for shift, scale in ((0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf), (0.0, math.nan)):
        with pytest.raises(DomainError, match="expected a finite shift and a positive scale"):
            Affine(gaussian, shift, scale)
