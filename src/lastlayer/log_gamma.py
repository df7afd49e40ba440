"""What is left of log Γ once Stirling's formula is taken out: densities and likelihoods without a loss of digits.

``log Γ(x)`` grows like ``x log x``. Of a million it is 13 million, of which a density keeps a few units: a difference
of two of them has few digits left. With ``log Γ(x) = (x − ½) log x − x + ½ log 2π + δ(x)`` the large parts cancel on
paper. What remains is δ, small and smooth, and the distance of x from ``log(1 + x)``.

Every function is elementwise, in the dtype of its argument, and can be differentiated as often as wanted. Errors are
stated in units of ε, the spacing of that dtype's numbers at 1, and hold for every x whose reciprocal is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

# δ(x) = c₀/(x + c₁/(x + c₂/(x + …))), Stieltjes' continued fraction: all terms are positive, nothing cancels. From here
# on these coefficients give it, and its derivative, with errors below 4e-16.
_FRACTION_FROM = 4.0
_FRACTION = (
    1 / 12, 1 / 30, 53 / 210, 195 / 371, 22999 / 22737, 29944523 / 19733142, 2.26948897420495996, 3.00991738325939817,
    4.02688719234390123, 5.00276808075403005, 6.28391137081578218, 7.49591912238403393, 9.0406602343677267,
    10.4893036545094823, 12.2971936103862059, 13.9828769539924302,
)  # fmt: skip

# Of log Γ(x + ½) − log Γ(x) − ½ log x, in odd powers of 1/x; and how far x is moved up, by Γ(x + 1) = x Γ(x), to where
# these are enough for the last place of float64.
_HALF_STEP_SERIES = (
    -1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984, 929569 / 15728640,
)  # fmt: skip
_HALF_STEP_SHIFT = 8

# x − log(1 + x) from its series below this: beyond, the difference itself has all but a digit.
_GAP_SERIES_UP_TO = 0.2


def stirling_error(x: Tensor, log_x: Tensor | None = None) -> Tensor:
    """``δ(x) = log Γ(x) − ((x − ½) log x − x + ½ log 2π)`` for x > 0, which falls to 0 like ``1/(12x)``.

    Args:
        x: positive; 0 where it underflows and its logarithm is given.
        log_x: its logarithm, where that is known better than x itself tells.

    Numerics: the error is at most 8 ε of the value from x = 4 on, and 8 ε (1 + δ) below.

    Example:
        >>> stirling_error(torch.tensor([1.0, 1e6]))
        tensor([8.1061e-02, 8.3333e-08])

    Reference: NIST Digital Library of Mathematical Functions, 5.10.1 and 5.11.1.
    """
    small = x < _FRACTION_FROM
    near, far = torch.where(small, x, 1.0), torch.where(small, _FRACTION_FROM, x)
    log_near = near.log() if log_x is None else torch.where(small, log_x, 0.0)
    direct = torch.lgamma(1.0 + near) - (0.5 + near) * log_near + near - HALF_LOG_2PI
    fraction = torch.zeros_like(far)
    for coefficient in reversed(_FRACTION):
        fraction = coefficient / (far + fraction)
    return torch.where(small, direct, fraction)


def stirling_slope(x: Tensor) -> Tensor:
    """``δ′(x) = ψ(x) − log x + 1/(2x)`` for x > 0, which rises to 0 like ``−1/(12x²)``.

    Numerics: the error is at most 8 ε of the value from x = 8 on, and 8 ε (1 + 1/x) below.

    Example:
        >>> stirling_slope(torch.tensor([1.0, 1e3]))
        tensor([-7.7216e-02, -8.3333e-08])

    Reference: NIST Digital Library of Mathematical Functions, 5.11.2.
    """
    small = x < _FRACTION_FROM
    near, far = torch.where(small, x, 1.0), torch.where(small, _FRACTION_FROM, x)
    direct = torch.digamma(1.0 + near) - near.log() - 0.5 / near
    return torch.where(small, direct, _fraction_slope(far))


def stirling_log_slope(x: Tensor, log_x: Tensor) -> Tensor:
    """``x δ′(x)``, the derivative of δ with respect to log x, from −½ at 0 to 0; also where x underflows.

    Numerics: the error is at most 8 ε of the value from x = 8 on, and 16 ε below.

    Example:
        >>> stirling_log_slope(torch.tensor([0.0, 1.0]), torch.tensor([-200.0, 0.0]))
        tensor([-0.5000, -0.0772])
    """
    small = x < _FRACTION_FROM
    near, far = torch.where(small, x, 1.0), torch.where(small, _FRACTION_FROM, x)
    direct = near * (torch.digamma(1.0 + near) - torch.where(small, log_x, 0.0)) - 0.5
    return torch.where(small, direct, far * _fraction_slope(far))


def _fraction_slope(x: Tensor) -> Tensor:
    """The derivative of the continued fraction, from the innermost part outwards."""
    fraction, slope = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in reversed(_FRACTION):
        below = x + fraction
        fraction = coefficient / below
        slope = -fraction * (1.0 + slope) / below
    return slope


def log_gamma_half_step(x: Number) -> Number:
    """``log Γ(x + ½) − log Γ(x) − ½ log x`` for x > 0, which rises to 0 like ``−1/(8x)``.

    With ν/2 for x it is what the constant of a Student-t differs by from that of a Gaussian.

    Numerics: the error is at most 64 ε of the value, and never more than 8 ε (1 + |value|).

    Example:
        >>> f"{log_gamma_half_step(5e5):.9e}"
        '-2.500000000e-07'

    Reference: F. G. Tricomi, A. Erdélyi, Pacific J. Mathematics 1 (1951) for the series.
    """
    log1p: Callable[[Any], Any] = torch.log1p if isinstance(x, Tensor) else math.log1p
    inverse = 1.0 / (x + _HALF_STEP_SHIFT)
    square, series = inverse * inverse, 0.0 * inverse
    for coefficient in reversed(_HALF_STEP_SERIES):
        series = coefficient + square * series
    steps = 0.0 * inverse
    for j in range(_HALF_STEP_SHIFT):
        steps = steps + log1p(0.5 / (x + j))
    step: Number = inverse * series + (0.5 * log1p(_HALF_STEP_SHIFT / x) - steps)
    return step


def log_gamma_half_step_slope(x: Tensor) -> Tensor:
    """Of :func:`log_gamma_half_step`: ``ψ(x + ½) − ψ(x) − 1/(2x)`` for x > 0, which falls to 0 like ``1/(8x²)``.

    Numerics: the error is at most 128 ε of the value. The difference of two digamma functions is taken term by term.

    Example:
        >>> log_gamma_half_step_slope(torch.tensor([0.5, 1e3]))
        tensor([3.8629e-01, 1.2500e-07])
    """
    inverse = 1.0 / (x + _HALF_STEP_SHIFT)
    square, series = inverse * inverse, torch.zeros_like(x)
    for k in reversed(range(len(_HALF_STEP_SERIES))):
        series = -(2 * k + 1) * _HALF_STEP_SERIES[k] + square * series
    steps = torch.zeros_like(x)
    for j in range(_HALF_STEP_SHIFT):
        steps = steps + 0.5 / ((x + j) * (x + (j + 0.5)))
    return square * series + (steps - 0.5 * _HALF_STEP_SHIFT * inverse / x)


def digamma_half_step(x: Tensor) -> Tensor:
    """``ψ(x + ½) − ψ(x)`` for x > 0, which falls to 0 like ``1/(2x)``.

    Numerics: the error is at most 8 ε of the value.

    Example:
        >>> digamma_half_step(torch.tensor([0.5, 1.0]))
        tensor([1.3863, 0.6137])
    """
    return 0.5 / x + log_gamma_half_step_slope(x)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """``log B(a, b)`` of the beta function, for positive a and b.

    Numerics: the error is at most 16 ε (1 + |value|).

    Example:
        >>> log_beta(torch.tensor([2.0, 1e6]), torch.tensor([3.0, 1e6])).exp()
        tensor([0.0833, 0.0000])
    """
    total = a + b
    large = -a * torch.log1p(b / a) - b * torch.log1p(a / b)
    rest = stirling_error(a) + stirling_error(b) - stirling_error(total)
    return large - 0.5 * (a.log() + b.log() - total.log()) + HALF_LOG_2PI + rest


def log1p_gap(x: Tensor, log1p_x: Tensor) -> Tensor:
    """``x − log(1 + x)`` for x > −1, given the logarithm; about x²/2 near 0, without cancellation.

    Numerics: the error is at most 16 ε of the value, where the logarithm is right to the last place.

    Example:
        >>> x = torch.tensor([1e-4, 1.0])
        >>> log1p_gap(x, torch.log1p(x))
        tensor([4.9997e-09, 3.0685e-01])
    """
    near = x.abs() < _GAP_SERIES_UP_TO
    return torch.where(near, gap_series(torch.where(near, x, 0.0)), x - log1p_x)


def gap_series(x: Tensor) -> Tensor:
    """``x − log(1 + x)`` for x within ±0.2, by the series of ``log((1 + t)/(1 − t))`` with ``t = x/(2 + x)``.

    Numerics: the error is at most 8 ε of the value.

    Example:
        >>> gap_series(torch.tensor([1e-4, 0.1]))
        tensor([4.9997e-09, 4.6898e-03])
    """
    t = x / (2.0 + x)
    square, series = t * t, torch.zeros_like(x)
    for k in reversed(range(9)):
        series = 1.0 / (2 * k + 3) + square * series
    return x * t - 2.0 * t * square * series
