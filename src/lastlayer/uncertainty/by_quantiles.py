"""Moments, entropy and CRPS of a distribution that knows its quantiles and its density, by quadrature."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.distributions.distribution import Distribution

# Shares are run through as q = sigmoid(t). In t quantile functions are smooth, and tails end where float64 does.
_LOWEST, _HIGHEST = -700.0, 36.0
# Shares so close to 0 or 1 that a term of theirs may be left out.
_OUTERMOST = 1e-6
# Lengths in t, counted from where a piece has most of its weight: it falls as exp(−|t|).
_STEPS = (0.0, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0, 26.0, 36.0, 60.0, 120.0, 300.0, 740.0)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


class ByQuantiles(Distribution):
    """A continuous distribution made of another, ``base``, whose quantiles, cdf and density alone are formulas.

    Formula: with the quantile function Q, ``E g(Y) = ∫ g(Q(q)) dq`` and
    ``crps(y) = 2 ∫₀^{F(y)} q (y − Q(q)) dq + 2 ∫_{F(y)}¹ (1 − q)(Q(q) − y) dq``.

    Numerics: Gauss-Legendre quadrature over ``logit(q)``, piece by piece between the shares of ``breaks``, in float64
    whatever the dtype; the upper tail beyond ``q = 1 − 2·10⁻¹⁶`` is left out.

    Gradient: of quadratures none; cdf, density and quantiles have that of their formulas.
    """

    base: Distribution

    @property
    @abstractmethod
    def breaks(self) -> tuple[float, ...]:
        """The shares, inside (0, 1) and ascending, at which the quantile function may have a kink."""

    @abstractmethod
    def of(self, base: Distribution) -> Self:
        """The same, made of another base."""

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def mean(self) -> Tensor:
        return self._narrowed(lambda wide: wide.center + wide.expectation(lambda y: y - wide.center))

    @property
    def variance(self) -> Tensor:
        def wide_variance(wide: Self) -> Tensor:
            mean = wide.mean
            return wide.expectation(lambda y: (y - mean).square())

        return self._narrowed(wide_variance)

    @property
    def entropy(self) -> Tensor:
        return self._narrowed(lambda wide: wide.surprise_parts(wide._log_prob).sum(dim=0))

    @property
    def center(self) -> Tensor:
        """The median: what distances are counted from, so that a large location takes no digits from them."""
        return self._quantile(self._like.new_full((), 0.5))

    def expectation(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """``E change(Y)``."""
        return self.expectation_parts(change).sum(dim=0)

    def expectation_parts(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """``∫ change(Q(q)) dq`` between one of the ``edges`` and the next, shape (pieces, *shape)."""
        return self._parts(lambda q, y: change(y))

    def surprise_parts(self, log_density: Callable[[Tensor], Tensor]) -> Tensor:
        """``−∫ log_density(Q(q)) dq`` between one of the ``edges`` and the next."""

        def surprise(q: Tensor, y: Tensor) -> Tensor:
            values = -log_density(y)
            # Next to an end where the density is infinite or 0 a quantile may be rounded to the end itself.
            outermost = (q < _OUTERMOST) | (q > 1.0 - _OUTERMOST)
            return torch.where(values.isfinite() | ~outermost, values, 0.0)

        return self._parts(surprise)

    @property
    def edges(self) -> tuple[float, ...]:
        """The breaks, and 1/2, so that every piece lies on one side of the middle."""
        return tuple(sorted({*self.breaks, 0.5}))

    def _crps(self, value: Tensor) -> Tensor:
        return self._narrowed(lambda wide: wide._wide_crps(value.double()))

    @torch.no_grad()
    def _wide_crps(self, value: Tensor) -> Tensor:
        center = self.center
        pieces = [self._parts(lambda q, y: q * (y - center)), self._parts(lambda q, y: (1.0 - q) * (y - center))]
        none = torch.zeros_like(pieces[0][:1])
        below = torch.cat([none, pieces[0].cumsum(0)])
        above = torch.cat([pieces[1].flip(0).cumsum(0).flip(0), none])
        # Below a value lie the whole pieces before its own, and a part of its own.
        reached = self._cdf(value)
        edges = value.new_tensor(self.edges)
        place = torch.searchsorted(edges, reached.contiguous())
        low = torch.cat([value.new_tensor([_LOWEST]), torch.logit(edges)])[place]
        here, beyond = self._part(low, torch.logit(reached).clamp(_LOWEST, _HIGHEST), center)
        below, above = _chosen(below, place) + here, _chosen(above, place) - beyond
        distance = value - center
        return (reached.square() - (1.0 - reached).square()) * distance - 2.0 * below + 2.0 * above

    def _part(self, low: Tensor, high: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
        """``∫ q (Q − center) dq`` and ``∫ (1 − q)(Q − center) dq`` between t's that differ from element to element."""
        length = (high - low).clamp_min(0.0)
        # The weight is greatest at the end nearer to t = 0.
        start, sign = torch.where(high > 0, low, high), torch.where(high > 0, 1.0, -1.0)
        first, second = torch.zeros_like(low), torch.zeros_like(low)
        axes = (-1, *(1 for _ in low.shape))
        fraction, share = low.new_tensor(0.5 + 0.5 * _NODES).reshape(axes), low.new_tensor(0.5 * _WEIGHTS).reshape(axes)
        for near, far in pairwise(_STEPS):
            begin, end = length.clamp_max(near), length.clamp_max(far)
            if not bool((end > begin).any()):
                break
            t = start + sign * (begin + fraction * (end - begin))
            q, rest = torch.sigmoid(t), torch.sigmoid(-t)
            term = share * (end - begin) * q * rest * (self._quantile(q) - center)
            first, second = first + (q * term).sum(dim=0), second + (rest * term).sum(dim=0)
        return first, second

    @torch.no_grad()
    def _parts(self, integrand: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``∫ integrand(q, Q(q)) dq`` over each piece."""
        template = self.center
        sums = []
        for panels in _panels(self.edges):
            total = torch.zeros_like(template)
            for low, high in panels:
                t = template.new_tensor(0.5 * (low + high) + 0.5 * (high - low) * _NODES)
                t = t.reshape(-1, *(1 for _ in self.shape))
                weight = template.new_tensor(0.5 * (high - low) * _WEIGHTS).reshape(t.shape)
                weight = weight * torch.sigmoid(t) * torch.sigmoid(-t)
                q = torch.sigmoid(t)
                total = total + (weight * integrand(q, self._quantile(q))).sum(dim=0)
            sums.append(total)
        return torch.stack(sums)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return self.of(self.base.map(change))

    def _narrowed(self, ask: Callable[[Self], Tensor]) -> Tensor:
        """The answer in float64, in the dtype that was asked in."""
        with torch.no_grad():
            return ask(self.map(Tensor.double)).to(self._like.dtype)


def _panels(edges: tuple[float, ...]) -> list[list[tuple[float, float]]]:
    """The pieces between the edges in t, each cut into panels that grow with the distance from 0."""
    ends = [_LOWEST, *(math.log(q) - math.log1p(-q) for q in edges), _HIGHEST]
    pieces = []
    for low, high in pairwise(ends):
        start, sign, length = (low, 1.0, high - low) if high > 0 else (high, -1.0, high - low)
        cuts = [start + sign * step for step in _STEPS if step < length] + [start + sign * length]
        pieces.append([(min(pair), max(pair)) for pair in pairwise(cuts)])
    return pieces


def _chosen(sums: Tensor, place: Tensor) -> Tensor:
    """Of each element's sums the one at its place; places may have axes before the elements'."""
    rows = place.reshape(-1, *sums.shape[1:])
    return sums.gather(0, rows).reshape(place.shape)
