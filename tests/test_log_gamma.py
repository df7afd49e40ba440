"""What is left of log Γ beside Stirling's formula: every error as small as its docstring says, mpmath the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lastlayer.log_gamma import (
    digamma_half_step,
    gap_series,
    log1p_gap,
    log_beta,
    log_gamma_half_step,
    log_gamma_half_step_slope,
    stirling_error,
    stirling_log_slope,
    stirling_slope,
)

Exact = Callable[[mpmath.mpf], mpmath.mpf]
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)

POSITIVE = torch.cat(
    [
        torch.logspace(-30, 15, 120, dtype=torch.float64),
        torch.linspace(0.05, 20, 100, dtype=torch.float64),
        torch.tensor([3.999999, 4.0, 4.000001, 15.99, 16.0], dtype=torch.float64),
    ]
)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact_error(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.loggamma(x) - (x - 0.5) * mpmath.log(x) + x - mpmath.log(2 * mpmath.pi) / 2


def exact_slope(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.psi(0, x) - mpmath.log(x) + 1 / (2 * x)


def exact_half_step(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.loggamma(x + 0.5) - mpmath.loggamma(x) - mpmath.log(x) / 2


def exact_digamma_half_step(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.psi(0, x + 0.5) - mpmath.psi(0, x)


def exact_gap(x: mpmath.mpf) -> mpmath.mpf:
    return x - mpmath.log(1 + x)


def assert_as_good_as_stated(found: Tensor, x: Tensor, exact: Exact, allowed: Callable[[float, float], float]) -> None:
    """``allowed`` of x and the size of the exact value, in units of ε."""
    with mpmath.workdps(60):
        for place, at in enumerate(x.tolist()):
            value = exact(mpmath.mpf(at))
            error = float(abs(mpmath.mpf(found[place].item()) - value)) / torch.finfo(found.dtype).eps
            assert error <= allowed(at, float(abs(value))), f"{error} ε at {at}"


# The function, the exact one, and the error that the docstring allows it.
STATED = [
    (stirling_error, exact_error, lambda x, size: 8 * size if x >= 4 else 8 * (1 + size)),
    (stirling_slope, exact_slope, lambda x, size: 8 * size if x >= 8 else 8 * (1 + 1 / x)),
    (
        lambda x: stirling_log_slope(x, x.log()),
        lambda x: x * exact_slope(x),
        lambda x, size: 8 * size if x >= 8 else 16,
    ),
    (log_gamma_half_step, exact_half_step, lambda x, size: min(64 * size, 8 * (1 + size))),
    (
        log_gamma_half_step_slope,
        lambda x: exact_digamma_half_step(x) - 1 / (2 * x),
        lambda x, size: 128 * size,
    ),
    (digamma_half_step, exact_digamma_half_step, lambda x, size: 8 * size),
]


@every_dtype
@pytest.mark.parametrize(
    ("function", "exact", "allowed"),
    STATED,
    ids=["error", "slope", "log slope", "half step", "half step's slope", "digamma's half step"],
)
def test_the_error_is_as_stated(function, exact, allowed, dtype):
    x = POSITIVE.to(dtype)
    assert_as_good_as_stated(function(x), x, exact, allowed)
    assert function(x).dtype == dtype


@every_dtype
def test_the_gap_is_as_stated(dtype):
    x = torch.logspace(-12, 10, 90, dtype=torch.float64)
    x = torch.cat([x, -x[x < 1], torch.linspace(-0.25, 0.25, 100, dtype=torch.float64), real(0.2, -0.2)]).to(dtype)
    assert_as_good_as_stated(log1p_gap(x, torch.log1p(x)), x, exact_gap, lambda x, size: 16 * size)
    near = x[x.abs() <= 0.2]
    assert_as_good_as_stated(gap_series(near), near, exact_gap, lambda x, size: 8 * size)
    assert gap_series(torch.zeros(1, dtype=dtype)) == 0.0


def test_half_step_of_a_number_is_that_of_a_tensor():
    for v in (0.1, 1.0, 2.01, 4.0, 30.0, 1e3, 1e6, 1e9):
        with mpmath.workdps(50):
            exact = exact_half_step(mpmath.mpf(v) / 2)
            found = log_gamma_half_step(v / 2)
            assert isinstance(found, float)
            assert abs(found - exact) <= 4e-16 * (1 + abs(exact))
        assert_close(log_gamma_half_step(real(v / 2)).item(), found, rtol=1e-13, atol=0)
    assert log_gamma_half_step(math.inf) == 0.0


def test_log_beta():
    for a, b in ((0.1, 0.2), (1e-3, 1e5), (1e6, 2.0), (3e7, 4e8), (25.0, 30.0)):
        with mpmath.workdps(50):
            expected = float(mpmath.log(mpmath.beta(a, b)))
        assert_close(log_beta(real(a), real(b)), real(expected), rtol=1e-13, atol=1e-13)


@every_dtype
def test_log_beta_is_as_stated(dtype):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.exp(30 * torch.rand(2, 150, dtype=torch.float64, generator=generator) - 15).to(dtype)
    found = log_beta(a, b)
    with mpmath.workdps(60):
        for place, (p, q) in enumerate(zip(map(mpmath.mpf, a.tolist()), map(mpmath.mpf, b.tolist()), strict=True)):
            exact = mpmath.loggamma(p) + mpmath.loggamma(q) - mpmath.loggamma(p + q)
            assert abs(found[place].item() - exact) <= 16 * torch.finfo(dtype).eps * (1 + abs(exact))


@pytest.mark.parametrize("x", [1e-8, 0.3, 1.0, 3.99, 4.0, 7.0, 15.99, 16.0, 17.0, 120.0, 1e6, 1e12])
def test_slopes_are_the_derivatives(x):
    """Across the seam too, where one formula takes over from the other."""
    point = real(x).requires_grad_()
    for function, slope, close in (
        (stirling_error, stirling_slope, {"rtol": 1e-9, "atol": 1e-14}),
        (log_gamma_half_step, log_gamma_half_step_slope, {"rtol": 1e-12, "atol": 0.0}),
    ):
        (found,) = torch.autograd.grad(function(point).sum(), point)
        assert_close(found, slope(real(x)), **close)
    assert_close(stirling_log_slope(real(x), real(x).log()), x * stirling_slope(real(x)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "function",
    [
        stirling_error,
        stirling_slope,
        lambda x: stirling_log_slope(x, x.log()),
        log_gamma_half_step,
        log_gamma_half_step_slope,
        lambda x: log_beta(x, 3 * x),
    ],
    ids=["error", "slope", "log slope", "half step", "half step's slope", "log beta"],
)
def test_second_derivatives(function):
    x = real(0.2, 1.0, 3.99, 4.1, 9.0, 30.0).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_a_number_too_small_for_its_dtype_has_a_logarithm():
    nothing, logarithm = torch.zeros(1), torch.tensor([-200.0])
    assert_close(stirling_error(nothing, logarithm), 100.0 - torch.tensor([0.5 * math.log(2 * math.pi)]))
    assert_close(stirling_log_slope(nothing, logarithm), torch.tensor([-0.5]))
    logarithm.requires_grad_()
    (slope,) = torch.autograd.grad(stirling_error(nothing, logarithm).sum(), logarithm)
    assert slope == -0.5


@every_dtype
def test_ends_of_the_range(dtype):
    most, beyond, missing = (torch.tensor([x], dtype=dtype) for x in (torch.finfo(dtype).max, math.inf, math.nan))
    for function in (stirling_error, stirling_slope, log_gamma_half_step, log_gamma_half_step_slope, digamma_half_step):
        most.requires_grad_()
        value = function(most)
        assert value.abs() <= torch.finfo(dtype).tiny
        assert torch.autograd.grad(value, most)[0] == 0.0
        assert function(beyond) == 0.0
        assert function(missing).isnan()
