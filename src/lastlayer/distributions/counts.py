"""What distributions of counts share: where values lie, which values are counts, and the search for a quantile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lastlayer.facts import Interval

COUNTS = Interval(low=0.0, low_closed=True)


def whole_count(value: Tensor) -> tuple[Tensor, Tensor]:
    """In float64 the values that are counts, 0 in the place of all others, and which they are."""
    wide = value.double()
    allowed = (wide >= 0) & (wide == wide.floor()) & wide.isfinite()
    return torch.where(allowed, wide, torch.zeros_like(wide)), allowed


def least_count(cdf: Callable[..., Tensor], share: Tensor, guess: Tensor, *parameters: Tensor) -> Tensor:
    """For every element the least number from 0 on with ``cdf(number, *parameters) >= share``; ∞ for a share of 1.

    From the guess in doubled steps until the number is bracketed, then by halving; elements are dropped as they are
    done. Beyond 2⁵³, where float64 skips whole numbers, it is the least float.
    """
    shape = torch.broadcast_shapes(share.shape, *(parameter.shape for parameter in parameters))
    with torch.no_grad():
        flat = [argument.expand(shape).reshape(-1) for argument in (share, guess, *parameters)]
        result = torch.where(flat[0] >= 1.0, torch.inf, 0.0).to(flat[0].dtype)
        rows = ((flat[0] > 0) & (flat[0] < 1)).nonzero().squeeze(-1)
        share, probe, *rest = (argument[rows] for argument in flat)
        probe = probe.nan_to_num(0.0).clamp_min(0.0).floor()
        # 0 first: it is often the answer, and a cdf need not be right at the guesses of a distribution of nearly all 0.
        left = cdf(torch.zeros_like(probe), *rest) < share
        rows = rows[left]
        share, probe, *rest = (part[left] for part in (share, probe, *rest))
        probe = probe.clamp_min(1.0)
        # Nothing else is known to be too small, and nothing to be enough but ∞.
        low, high = torch.zeros_like(probe), torch.full_like(probe, torch.inf)
        step = torch.ones_like(probe)
        while len(rows):
            enough = cdf(probe, *rest) >= share
            low, high = torch.where(enough, low, probe), torch.where(enough, probe, high)
            middle = torch.floor(0.5 * low + 0.5 * high)
            down = torch.where(low == 0, torch.maximum(high - step, middle), middle)
            probe = torch.where(high.isinf(), torch.maximum(low + step, low.nextafter(high)).ceil(), down)
            step = 2.0 * step
            done = (high <= low + 1.0) | (probe <= low) | (probe >= high)
            result[rows[done]] = high[done]
            rows = rows[~done]
            share, probe, low, high, step, *rest = (part[~done] for part in (share, probe, low, high, step, *rest))
        return result.reshape(shape)
