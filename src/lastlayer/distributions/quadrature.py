"""Expectations, entropies and scores that no formula gives: quadratures whose nodes follow every component.

Between the components' quantiles at shares from 1e-15 to 1 − 1e-15, in a coordinate in which tails are straight (asinh
on the real line, the logarithm of the distance from an end, the logit between two ends), Gauss's rule is used on every
stretch. Features of any component, however narrow and far from the others, are seen; a kink at a component's median is
an end of a stretch.

Error, absolute in nats and relative in scores: about 1e-9 for smooth densities and Laplaces of like scales, for tails
as heavy as those of Student's t with one degree of freedom, for densities that are infinite at 0; 1e-7 where scales of
components differ by 1e4; 2e-6 where a density is infinite at another end, near which numbers are few; 1e-3 for a Gamma
of concentration 0.02, part of whose probability lies where there are no numbers, and for densities with steps. Whole
numbers are summed one by one between the shares' quantiles; more than 2²⁰ of them for one element are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lastlayer.checks import DomainError
from lastlayer.facts import Interval

if TYPE_CHECKING:
    from lastlayer.distributions.distribution import Distribution
    from lastlayer.distributions.mixture import Mixture

TAIL = (1e-15, 1e-13, 1e-11, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2)
FEWER_TAIL = (1e-13, 1e-10, 1e-7, 1e-4, 0.01, 0.12)
MANY_COMPONENTS = 16
NODES = 8
# Densities of components that are looked at in one go, and whole numbers that are summed for one element.
CHUNK = 2**18
MOST_NUMBERS = 2**20
TINY = 1e-300
# Of a stretch's half, in that coordinate.
SHORT = 0.05

#: What is integrated, or summed: of a mixture of shape (elements,) at points of shape (points, elements).
Integrand = Callable[["Mixture", Tensor], Tensor]


def entropy(distribution: Distribution) -> Tensor:
    """``E[−log p(Y)]`` in nats.

    Gradient: that of the quadrature, the nodes held where they are.
    """
    return expectation(distribution, lambda part, points: -part._log_prob(points))


def expectation(distribution: Distribution, function: Integrand) -> Tensor:
    """``E[f(Y)]`` for every element.

    Args:
        distribution: of any shape and kind.
        function: gets a mixture of shape (elements,), some of the distribution's, in float64, and points of shape
            (points, elements) within its support, where the density may be 0 to all digits; gives values there.
    """

    def weighted(part: Mixture, points: Tensor) -> Tensor:
        density = part._log_prob(points).exp()
        # Where there is no density the function may be infinite, which adds nothing.
        return density * torch.where(density > 0, function(part, points), 0.0)

    mixture = as_mixture(distribution)
    return integral(mixture.double(), weighted).to(mixture.log_weight.dtype)


def mixing_gain(mixture: Mixture) -> Tensor:
    """``∫ Σ_k w_k (F_k(x) − F(x))² dx``: what a mixture's CRPS is below its components' own.

    It is not negative, and 0 for components that are alike. For whole numbers the integral is a sum.
    """

    def spread(part: Mixture, points: Tensor) -> Tensor:
        each = part.components._cdf(part._for_each(points))
        together = (part.weight * each).sum(1, keepdim=True)
        return (part.weight * (each - together) ** 2).sum(1)

    return integral(mixture.double(), spread)


def integral(mixture: Mixture, integrand: Integrand) -> Tensor:
    """The integral over the support, or the sum over its whole numbers, for every element of a float64 mixture."""
    shape, elements = mixture.shape, mixture.shape.numel()
    flat = mixture.map(lambda parameter: parameter.reshape(elements))
    if not elements:
        return flat.mean.reshape(shape)
    chunks = torch.arange(elements, device=mixture.log_weight.device).split(_most_elements(flat))

    def total(index: Tensor) -> Tensor:
        part = flat if len(chunks) == 1 else flat[index]
        return _sum(part, integrand) if mixture.discrete else _stretches(part, integrand)

    if len(chunks) > 1 and torch.is_grad_enabled():
        # Only one chunk's nodes are in memory at a time: the backward computes them again.
        return torch.cat([checkpoint(total, index, use_reentrant=False) for index in chunks]).reshape(shape)
    return torch.cat([total(index) for index in chunks]).reshape(shape)


def as_mixture(distribution: Distribution) -> Mixture:
    """A mixture as it is, in other units too; any other distribution as the mixture of it alone."""
    from lastlayer.distributions.affine import Affine
    from lastlayer.distributions.mixture import Mixture

    if isinstance(distribution, Affine):
        base = as_mixture(distribution.base)
        return Mixture(base.components.affine(distribution.shift, distribution.scale), base.log_weight)

    if isinstance(distribution, Mixture):
        return distribution
    mean = distribution.mean
    return Mixture(distribution.map(lambda parameter: parameter.unsqueeze(0)), torch.zeros_like(mean).unsqueeze(0))


def _shares(flat: Mixture) -> Tensor:
    tail = TAIL if flat.components.shape[0] <= MANY_COMPONENTS else FEWER_TAIL
    shares = [*tail, 0.5, *(1.0 - share for share in reversed(tail))]
    return torch.tensor(shares, dtype=torch.float64, device=flat.log_weight.device)


def _ends(flat: Mixture) -> tuple[Tensor, Tensor]:
    """The components' quantiles at the least and the greatest of the shares: the least and the greatest of them."""
    with torch.no_grad():
        shares = _shares(flat)
        low = flat.components._quantile(shares[0].expand(flat.components.shape)).amin(0)
        high = flat.components._quantile(shares[-1].expand(flat.components.shape)).amax(0)
    return low, high


def _most_elements(flat: Mixture) -> int:
    count = flat.components.shape[0]
    if flat.discrete:
        low, high = _ends(flat)
        points = int((high - low).max()) + 1
        if points > MOST_NUMBERS:
            raise DomainError(
                f"{type(flat.components).__name__}: {points} whole numbers are likely enough to count for one element; "
                f"up to {MOST_NUMBERS} are summed. Estimate from sample(n), or predict in greater units."
            )
    else:
        points = NODES * len(_shares(flat)) * count
    return max(1, CHUNK // (count * points))


def _sum(flat: Mixture, term: Integrand) -> Tensor:
    low, high = _ends(flat)
    number = torch.arange(int((high - low).max()) + 1, dtype=low.dtype, device=low.device).unsqueeze(-1) + low
    return torch.where(number <= high, term(flat, torch.minimum(number, high)), 0.0).sum(0)


def _stretches(flat: Mixture, integrand: Integrand) -> Tensor:
    with torch.no_grad():
        shares = _shares(flat)
        quantiles = flat.components._quantile(shares[:, None, None].expand(-1, *flat.components.shape)).flatten(0, 1)
        places = quantiles.sort(0).values
        to_straight, from_straight = _coordinate(flat)
        ends = torch.nan_to_num(to_straight(places)).sort(0).values
        abscissa, gauss = (rule[:, None, None] for rule in _gauss(flat.log_weight.device))
        half, middle = 0.5 * (ends[1:] - ends[:-1]), 0.5 * (ends[1:] + ends[:-1])
        bent, derivative = from_straight(middle + half * abscissa)
        # On a short stretch the coordinate is as good as straight, and would only cost digits far from its center.
        half_width, center = 0.5 * (places[1:] - places[:-1]), 0.5 * (places[1:] + places[:-1])
        short = half < SHORT
        points = torch.where(short, center + half_width * abscissa, bent).flatten(0, 1)
        weight = torch.where(short, half_width * gauss, half * gauss * derivative).flatten(0, 1)
        points = _within(points, flat.support)
    # A stretch without length adds nothing, whatever happens at its place.
    present = weight > 0
    return (weight * torch.where(present, integrand(flat, points), 0.0)).sum(0)


def _within(points: Tensor, support: Interval) -> Tensor:
    """Not at an end of the support, to which a point may have been rounded, and where a density may be infinite."""
    if math.isfinite(support.low):
        points = points.clamp_min(math.nextafter(support.low, math.inf) if support.low else TINY)
    if math.isfinite(support.high):
        points = points.clamp_max(math.nextafter(support.high, -math.inf) if support.high else -TINY)
    return points


def _gauss(device: torch.device) -> tuple[Tensor, Tensor]:
    points, weights = _gauss_rule(NODES)
    rule = torch.tensor([points, weights], dtype=torch.float64, device=device)
    return rule[0], rule[1]


@lru_cache
def _gauss_rule(nodes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(points.tolist()), tuple(weights.tolist())


def _coordinate(flat: Mixture) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """A coordinate in which tails are straight; the way back, with its derivative."""
    low, high = flat.support.low, flat.support.high
    if math.isfinite(low) and math.isfinite(high):
        length = high - low

        def from_logit(t: Tensor) -> tuple[Tensor, Tensor]:
            return low + length * torch.sigmoid(t), length * torch.sigmoid(t) * torch.sigmoid(-t)

        return lambda x: ((x - low).clamp_min(TINY) / (high - x).clamp_min(TINY)).log(), from_logit
    if math.isfinite(low):
        return lambda x: (x - low).clamp_min(TINY).log(), lambda t: (low + t.exp(), t.exp())
    if math.isfinite(high):
        return lambda x: -(high - x).clamp_min(TINY).log(), lambda t: (high - (-t).exp(), (-t).exp())
    heaviest = flat.log_weight.argmax(0, keepdim=True)
    quarters = [flat.components._quantile(torch.full_like(flat.log_weight, share)) for share in (0.25, 0.5, 0.75)]
    lower, center, upper = (quarter.gather(0, heaviest)[0] for quarter in quarters)
    scale = (upper - lower).clamp_min(TINY)
    return (
        lambda x: torch.asinh((x - center) / scale),
        lambda t: (center + scale * torch.sinh(t), scale * torch.cosh(t)),
    )
