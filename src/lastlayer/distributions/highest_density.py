"""The smallest set that holds a share of the probability: several intervals where the density has several maxima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import DomainError
from lastlayer.distributions.affine import Affine
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.mixture import Mixture
from lastlayer.distributions.mode_search import local_maxima, log_density, slope
from lastlayer.distributions.quadrature import as_mixture
from lastlayer.distributions.quantile_search import CHUNK, bracketed_root

# Nothing further out than these quantiles of a component is looked at.
FAR = 1e-15
# Of the logarithm of the level.
LEVEL_ROUNDING = 1e-11
# Where a density is infinite at an end, the level is searched for below this.
HIGHEST_LEVEL = 1e4


@torch.no_grad()
def highest_density(distribution: Distribution, p: float, *, most_intervals: int = 8) -> Tensor:
    """The smallest set that holds a share ``p`` of the probability: where the density is at least some level.

    Of a density with one maximum it is one interval, shorter than the central one of ``distribution.interval(p)``; of a
    density with several it may be several, which leave out what lies between. Every end has the density of that level,
    but where it is an end of the support.

    Domain: continuous distributions of any kind; ``p`` in [0, 1].

    Shapes: ``(*shape, most_intervals, 2)``: lower and upper ends, ascending, NaN behind the last interval.

    Numerics: in float64, for the level at which the share inside is p to 1e-9. A density that is flat at that level (a
    step) may hold more or less than p by the step's share. Not differentiable.

    Special cases: for ``p = 0`` the mode, for ``p = 1`` from the least to the greatest of the support, infinite
    where it has no end.

    Raises:
        DomainError: if ``p`` does not lie in [0, 1], if values are whole numbers, or if there are more than
            ``most_intervals`` intervals.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> two = Gaussian(torch.tensor([-3.0, 3.0]), torch.ones(2)).mixed()
        >>> highest_density(two, 0.5, most_intervals=2)
        tensor([[-3.6745, -2.3255],
                [ 2.3255,  3.6745]])

    Reference: R. J. Hyndman, The American Statistician 50 (1996).
    """
    if not 0.0 <= p <= 1.0:
        raise DomainError(f"highest_density: p is {p!r}; expected a share in [0, 1].")
    if most_intervals < 1:
        raise DomainError(f"highest_density: most_intervals is {most_intervals}; expected a whole number from 1 on.")
    if distribution.discrete:
        raise DomainError(
            f"highest_density: {type(distribution).__name__} has whole numbers as values; expected a density. "
            f"distribution.interval(p) gives the central interval, log_prob at each value what to choose from."
        )
    if isinstance(distribution, Affine):
        inner = highest_density(distribution.base, p, most_intervals=most_intervals)
        return distribution.shift + distribution.scale * inner
    mixture = as_mixture(distribution)
    flat, dtype, shape = mixture.flat(), mixture.log_weight.dtype, mixture.shape
    if p == 0.0 or p == 1.0:
        zero = distribution.mean.new_zeros(shape)
        ends = [distribution.mode] * 2 if p == 0.0 else [distribution._quantile(zero), distribution._quantile(zero + 1)]
        first = torch.stack(ends, dim=-1).unsqueeze(-2)
        return torch.cat([first, first.new_full((*shape, most_intervals - 1, 2), torch.nan)], dim=-2)
    if not shape.numel():
        return distribution.mean.new_empty(*shape, most_intervals, 2)
    size = max(1, CHUNK // (8 * flat.components.shape[0]))
    elements = torch.arange(flat.shape[0], device=flat.log_weight.device).split(size)
    found = [_intervals(flat[index], p, most_intervals) for index in elements]
    return torch.cat(found).reshape(*shape, most_intervals, 2).to(dtype)


@dataclass(frozen=True)
class Shape:
    """Where a density turns: M tops and the M + 1 borders around them, each with its log density.

    Attributes:
        flat: mixtures of shape (elements,).
        tops, at_tops: shape (M, elements), NaN where an element has fewer.
        borders, at_borders: shape (M + 1, elements): the far end below, the valleys between, the far end above.
    """

    flat: Mixture
    tops: Tensor
    at_tops: Tensor
    borders: Tensor
    at_borders: Tensor

    @classmethod
    def of(cls, flat: Mixture) -> Shape:
        tops, at_tops = local_maxima(flat)
        components = flat.components
        far = torch.full(components.shape, FAR, dtype=tops.dtype, device=tops.device)
        low, high = components._quantile(far).amin(0), components._quantile(1.0 - far).amax(0)
        low, high = torch.minimum(low, tops[0]), torch.maximum(high, tops.nan_to_num(nan=-torch.inf).amax(0))
        last = high.expand_as(tops[1:])
        valleys = torch.where(torch.isnan(tops[1:]), last, _valleys(flat, tops))
        borders = torch.cat([low.unsqueeze(0), valleys, high.unsqueeze(0)])
        return cls(flat, tops, at_tops, borders, log_density(flat, borders))

    def __getitem__(self, rows: Tensor) -> Shape:
        turns = [part[:, rows] for part in (self.tops, self.at_tops, self.borders, self.at_borders)]
        return Shape(self.flat[rows], *turns)

    def above(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends of what lies above the level around each top, NaN where nothing does."""
        inside = self.at_tops > level
        left = self._crossing(level, self.borders[:-1], self.at_borders[:-1], inside, rising=True)
        right = self._crossing(level, self.borders[1:], self.at_borders[1:], inside, rising=False)
        return left, right

    def mass(self, level: Tensor) -> Tensor:
        """The probability of what lies above the level."""
        left, right = self.above(level)
        # Where there is nothing: the mass between a place and itself.
        left, right = (
            torch.where(left.isnan(), self.borders[:1], left),
            torch.where(right.isnan(), self.borders[:1], right),
        )
        return (self.flat._cdf(right) - self.flat._cdf(left)).sum(0)

    def _crossing(self, level: Tensor, border: Tensor, at_border: Tensor, inside: Tensor, *, rising: bool) -> Tensor:
        ends = torch.where(inside, border, torch.full_like(border, torch.nan))
        turn, element = (inside & (at_border < level)).nonzero().unbind(1)
        top, outer = self.tops[turn, element], border[turn, element]
        sign = 1.0 if rising else -1.0

        def problem(rows: Tensor) -> Callable[[Tensor], Tensor]:
            part, height = self.flat[element[rows]], level[element[rows]]
            return lambda x: sign * (log_density(part, x) - height)

        low, high = (outer, top) if rising else (top, outer)
        low, high = bracketed_root(problem, low, high, torch.zeros_like(low))
        ends[turn, element] = high if rising else low
        return ends


def _valleys(flat: Mixture, tops: Tensor) -> Tensor:
    """Where the density is least between each top and the next."""
    valleys = torch.full_like(tops[1:], torch.nan)
    turn, element = (~torch.isnan(tops[1:])).nonzero().unbind(1)

    def problem(rows: Tensor) -> Callable[[Tensor], Tensor]:
        part = flat[element[rows]]
        return lambda x: slope(part, x)

    low, high = tops[turn, element], tops[turn + 1, element]
    _, valleys[turn, element] = bracketed_root(problem, low, high, torch.zeros_like(low))
    return valleys


def _intervals(flat: Mixture, p: float, most_intervals: int) -> Tensor:
    shape = Shape.of(flat)

    def problem(rows: Tensor) -> Callable[[Tensor], Tensor]:
        part = shape[rows]
        return lambda level: p - part.mass(level)

    highest = shape.at_tops.nan_to_num(nan=-torch.inf).amax(0).clamp_max(HIGHEST_LEVEL)
    lowest = torch.minimum(shape.at_borders.amin(0), highest - 1.0).clamp_min(-HIGHEST_LEVEL)
    level, _ = bracketed_root(problem, lowest, highest, torch.full_like(lowest, LEVEL_ROUNDING))
    return _table(shape, level, most_intervals)


def _table(shape: Shape, level: Tensor, most_intervals: int) -> Tensor:
    """The intervals of every element, those that share a border as one: (elements, most_intervals, 2)."""
    left, right = shape.above(level)
    size = len(level)
    table = left.new_full((size, len(left) + 1, 2), torch.nan)
    every = torch.arange(size, device=level.device)
    number = torch.full_like(every, -1)
    for turn in range(len(left)):
        present = ~torch.isnan(left[turn])
        joined = present & (number >= 0) & (left[turn] == table[every, number.clamp_min(0), 1])
        number = number + (present & ~joined).long()
        begins, goes_on = (present & ~joined).nonzero().squeeze(-1), present.nonzero().squeeze(-1)
        table[begins, number[begins], 0] = left[turn, begins]
        table[goes_on, number[goes_on], 1] = right[turn, goes_on]
    needed = int(number.max()) + 1
    if needed > most_intervals:
        raise DomainError(
            f"highest_density: an element has {needed} intervals, most_intervals is {most_intervals}; pass "
            f"most_intervals={needed}."
        )
    missing = left.new_full((size, max(0, most_intervals - table.shape[1]), 2), torch.nan)
    return torch.cat([table, missing], dim=1)[:, :most_intervals]
