"""Quantiles that no formula gives: a bracketed search for all elements and shares at once, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lastlayer.distributions.mixture import Mixture

EPSILON = torch.finfo(torch.float64).eps
# As many numbers at once as stay well below a hundred megabytes with what is computed from them.
CHUNK = 2**20
# Interpolation has long converged by then; from there on the bracket is halved, every second time in floats.
INTERPOLATED = 50
MOST_STEPS = INTERPOLATED + 2 * 64 + 4

#: For the elements at these indices, a function of one point each.
Problem = Callable[[Tensor], Callable[[Tensor], Tensor]]


def mixture_quantile(mixture: Mixture, share: Tensor) -> Tensor:
    """The least value at which the mixture's cdf reaches a share; with its gradient.

    The mixture's quantile lies between the least and the greatest of its components' quantiles at that share: below
    all of them every component's cdf is smaller than the share, above all of them none is. A share of 0 or 1 gives the
    least or the greatest itself, infinite where the support has no end.

    Gradient: that of the implicit function ``F(q, θ) = share``: ``−∂F/∂θ / f(q)`` with respect to parameters and
    weights, ``1/f(q)`` with respect to the share; second derivatives are right too. It is 0 where the quantile is an
    end of the support or infinite, and everywhere if values are whole numbers. Where the density is 0 to all digits
    (a share within a gap between far modes), its reciprocal is held at the greatest number of the dtype.

    Numerics: in float64, until the bracket is as narrow as a rounding of the value or of the narrowest component's
    spread. Where the cdf is flat to all digits, that is the flat stretch's lower end.
    """
    shape = torch.broadcast_shapes(share.shape, mixture.shape)
    with torch.no_grad():
        flat = mixture.flat()
        elements = torch.arange(mixture.shape.numel(), device=share.device).reshape(mixture.shape).expand(shape)
        shares = share.detach().double().expand(shape)
        pairs = zip(
            elements.reshape(-1).split(max(1, CHUNK // flat.components.shape[0])),
            shares.reshape(-1).split(max(1, CHUNK // flat.components.shape[0])),
            strict=True,
        )
        search = _whole_quantile if mixture.discrete else _real_quantile
        found = [search(flat[element], part) for element, part in pairs]
        value = torch.cat(found).reshape(shape) if found else shares.clone()
    if mixture.discrete or not torch.is_grad_enabled():
        return value.to(mixture.log_weight.dtype)
    return _with_gradient(mixture, share, value).to(mixture.log_weight.dtype)


def bracketed_root(problem: Problem, low: Tensor, high: Tensor, resolution: Tensor) -> tuple[Tensor, Tensor]:
    """For every element the two ends of a bracket of a sign change from below 0 to 0 or above, shrunk to a rounding.

    Of the two ends the function was found (or, at the outset, is taken) to be negative at the first and not negative at
    the second. Inverse quadratic interpolation where the last three points say that it is safe, halving elsewhere:
    after T. R. Chandrupatla, Advances in Engineering Software 28 (1997). Elements are dropped as they are done.

    Args:
        problem: gives the function of the elements at the indices it is handed.
        low, high, resolution: shape (elements,), float64; the bracket may be no narrower than ``resolution``.
    """
    low, high = low.clone(), high.clone()
    rows = (high - low > _rounding(low, high, resolution)).nonzero().squeeze(-1)
    if not len(rows):
        return low, high
    function = problem(rows)
    a, b = low[rows], high[rows]
    at_a, at_b = _negative(function(a)), _not_negative(function(b))
    c, at_c = a, at_a
    newest, older, at_newest, at_older = a, b, at_a, at_b
    for step in range(MOST_STEPS):
        room = _rounding(a, b, resolution[rows])
        x = _next_point(step, (newest, older, c), (at_newest, at_older, at_c), (a, b), room)
        at_x = torch.nan_to_num(function(x))
        upper = at_x >= 0
        same_side = upper == (at_newest >= 0)
        c, at_c = torch.where(same_side, newest, older), torch.where(same_side, at_newest, at_older)
        older, at_older = torch.where(same_side, older, newest), torch.where(same_side, at_older, at_newest)
        newest, at_newest = x, at_x
        a, b = torch.where(upper, a, x), torch.where(upper, x, b)
        active = b - a > _rounding(a, b, resolution[rows])
        remaining = int(active.sum())
        if 2 * remaining > len(rows):
            continue
        low[rows], high[rows] = a, b
        if not remaining:
            return low, high
        rows = rows[active]
        function = problem(rows)
        state = (a, b, c, newest, older, at_c, at_newest, at_older)
        a, b, c, newest, older, at_c, at_newest, at_older = (part[active] for part in state)
    low[rows], high[rows] = a, b
    return low, high


def _next_point(
    step: int,
    points: tuple[Tensor, Tensor, Tensor],
    values: tuple[Tensor, Tensor, Tensor],
    bracket: tuple[Tensor, Tensor],
    room: Tensor,
) -> Tensor:
    """Where to look next, strictly inside the bracket."""
    low, high = bracket
    middle = 0.5 * low + 0.5 * high
    if step >= INTERPOLATED:
        return _middle_float(low, high) if step % 2 else middle
    x1, x2, x3 = points
    f1, f2, f3 = values
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
    t = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    guess = x1 + t * (x2 - x1)
    # A step of less than a rounding would leave the far end where it is for ever.
    guess = torch.minimum(torch.maximum(guess, low + 0.7 * room), high - 0.7 * room)
    return torch.where(safe & torch.isfinite(guess), guess, middle)


def _middle_float(low: Tensor, high: Tensor) -> Tensor:
    """The float with as many floats above it in the bracket as below: 64 such steps end any bracket."""
    first, second = _rank(low), _rank(high)
    middle = (first & second) + ((first ^ second) >> 1)
    least = torch.iinfo(torch.int64).min
    return torch.where(middle < 0, -middle | least, middle).view(torch.float64)


def _rank(x: Tensor) -> Tensor:
    bits = x.contiguous().view(torch.int64)
    return torch.where(bits < 0, -(bits & torch.iinfo(torch.int64).max), bits)


def _rounding(low: Tensor, high: Tensor, resolution: Tensor) -> Tensor:
    return torch.maximum(2.0 * EPSILON * torch.maximum(low.abs(), high.abs()), resolution)


def _negative(value: Tensor) -> Tensor:
    return torch.nan_to_num(value, nan=-1.0).clamp_max(-torch.finfo(torch.float64).tiny)


def _not_negative(value: Tensor) -> Tensor:
    return torch.nan_to_num(value, nan=1.0).clamp_min(0.0)


def _real_quantile(mixture: Mixture, share: Tensor) -> Tensor:
    components = mixture.components
    each = components._quantile(share.expand(components.shape))
    low, high = each.amin(0), each.amax(0)
    end = torch.where(share == 0, low, high)
    inside = (share > 0) & (share < 1) & torch.isfinite(low) & torch.isfinite(high)
    at = inside.nonzero().squeeze(-1)
    resolution = _resolution(mixture)

    def problem(rows: Tensor) -> Callable[[Tensor], Tensor]:
        part, wanted = mixture[at[rows]], share[at[rows]]
        return lambda x: part._cdf(x) - wanted

    _, end[at] = bracketed_root(problem, low[at], high[at], resolution[at])
    return end


def _resolution(mixture: Mixture) -> Tensor:
    """A rounding of the narrowest component's spread: within it no cdf changes by more than a rounding.

    Where the support has an end a density may be infinite there: then only a rounding of the value is too little.
    """
    quarter = torch.full_like(mixture.log_weight, 0.25)
    if math.isfinite(mixture.support.low) or math.isfinite(mixture.support.high):
        return torch.zeros_like(quarter[0])
    spread = (mixture.components._quantile(1.0 - quarter) - mixture.components._quantile(quarter)).amin(0)
    return EPSILON * torch.nan_to_num(spread, nan=0.0, posinf=0.0)


def _whole_quantile(mixture: Mixture, share: Tensor) -> Tensor:
    each = mixture.components._quantile(share.expand(mixture.components.shape))
    # One below the least is not yet enough, the greatest is: between them the least whole number is found by halving.
    low, high = each.amin(0) - 1.0, each.amax(0)
    infinite = ~torch.isfinite(high)
    result = high.clone()
    low, high = low.masked_fill(infinite, 0.0), high.masked_fill(infinite, 1.0)
    while bool((high - low > 1).any()):
        middle = torch.floor(0.5 * (low + high))
        enough = (mixture._cdf(middle) >= share) | (high - low <= 1)
        middle = torch.where(high - low <= 1, high, middle)
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    result = torch.where(infinite, result, high)
    return torch.where(share == 0, each.amin(0), torch.where(share == 1, each.amax(0), result))


def _with_gradient(mixture: Mixture, share: Tensor, value: Tensor) -> Tensor:
    """The same value, with the derivatives of the root of ``F(value) = share``.

    Two of Newton's steps that move nothing, since F's own value is taken off: the first carries the first derivatives,
    the second those up to the third, by the doubling of digits that Newton's steps have.
    """
    double = mixture.double()
    finite = torch.isfinite(value)
    inner = finite & (share > 0) & (share < 1)
    # Where the value cannot move, any point will do for what is thrown away; a component's mean may be infinite.
    q = torch.where(inner, value, torch.zeros_like(value)) if bool(inner.all()) else _stand_in(mixture, value, inner)
    least = torch.finfo(mixture.log_weight.dtype).tiny
    for _ in range(2):
        missing = double._cdf(q) - share.double()
        density = double._log_prob(q).exp().clamp_min(least)
        step = (missing - missing.detach()) / density
        q = q - torch.where(inner, step, torch.zeros_like(step))
    return torch.where(inner, q, value)


def _stand_in(mixture: Mixture, value: Tensor, inner: Tensor) -> Tensor:
    """The value where it is inside, else the median, where cdf and density have finite derivatives."""
    with torch.no_grad():
        median = mixture_quantile(mixture, torch.full_like(mixture.log_weight[0], 0.5)).double()
    return torch.where(inner, value, median)
