"""The distribution that a few of its quantiles give: straight between them, exponential beyond."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, shape_text
from lastlayer.distributions.distribution import Distribution, check_parameters
from lastlayer.distributions.last_axis import index_before_last_axis, map_before_last_axis
from lastlayer.facts import REAL


@dataclass(frozen=True, eq=False)
class QuantileKnots(Distribution):
    """Distributions with given quantiles at fixed levels: what quantile regression predicts.

    Domain: values are real numbers. ``levels`` rise strictly within (0, 1), two at least: one quantile has no scale.
    ``values``, the quantiles at these levels, do not fall.

    Formula: between two knots the quantile function is linear and the density constant, ``Δ/w`` for a step Δ of the
    levels and a width w of the values. Beyond the outer knots lies an exponential tail with the mass the levels leave,
    whose density at the knot is that of the outermost segment: of scale ``a w/Δ``, a the mass. The CRPS is the closed
    form of ``∫ (F(x) − 1{y ≤ x})² dx``, segment by segment.

    Gradient: in ``values``, of everything but samples.

    Shapes: ``values`` (*shape, Q), with Q levels. Indexing, :meth:`map` and the axes of a value are those of ``shape``:
    the axis of the knots always stays. Units: those of the target.

    Numerics: for its density a segment is taken to be at least ε times its distribution's greatest ``|value|`` wide, ε
    the spacing of numbers at 1 in the dtype (and ε √tiny where all values are 0): equal neighbors are a narrow block of
    finite density, which reaches that much beyond them. A width held there has no gradient.

    Special cases: the mode is the middle of the densest segment, of the first of several; it has a gradient in the
    segment's ends. Quantiles of 0 and 1 are infinite.

    Raises:
        ShapeError: if there are less than two levels, or the values' last axis is not one for each level.
        DomainError: if the levels do not rise within (0, 1), or the values fall along the last axis.

    Example:
        >>> rain = QuantileKnots(torch.tensor([[1.0, 2.0, 5.0]]), (0.25, 0.5, 0.75))
        >>> rain.mean, rain.quantile([0.5, 0.9]), rain.cdf(3.5)
        (tensor([3.2500]), tensor([[2.0000],
                [7.7489]]), tensor([0.6250]))
    """

    values: Tensor
    levels: tuple[float, ...]
    support = REAL

    def __post_init__(self) -> None:
        check_parameters(self, values=self.values)
        if self.values.dim() == 0 or self.values.shape[-1] != len(self.levels) or len(self.levels) < 2:
            raise ShapeError(
                f"QuantileKnots: values have shape {shape_text(self.values)}, and there are {len(self.levels)} levels; "
                f"expected (..., Q) values for Q levels, at least two."
            )
        ladder = (0.0, *self.levels, 1.0)
        if not all(low < high for low, high in itertools.pairwise(ladder)):
            raise DomainError(f"QuantileKnots: levels are {self.levels}; expected them to rise strictly within (0, 1).")
        if bool((self.values[..., 1:] < self.values[..., :-1]).any()):
            raise DomainError("QuantileKnots: values fall along their last axis; expected them in order. Sort them.")

    @property
    def shape(self) -> torch.Size:
        return self.values.shape[:-1]

    @property
    def mean(self) -> Tensor:
        start, tail_below, tail_above = self.values[..., 0], *self._tail_scales
        below, steps, above = self._masses
        # From the first knot on: the values may be large beside their differences.
        middles = self._starts - start.unsqueeze(-1) + 0.5 * self._widths
        last = self._end - start
        return start + (steps * middles).sum(dim=-1) - below * tail_below + above * (last + tail_above)

    @property
    def variance(self) -> Tensor:
        mean, (tail_below, tail_above) = self.mean, self._tail_scales
        below, steps, above = self._masses
        widths = self._widths
        distances = self._starts + 0.5 * widths - mean.unsqueeze(-1)
        left = tail_below**2 + (self.values[..., 0] - tail_below - mean) ** 2
        right = tail_above**2 + (self._end + tail_above - mean) ** 2
        return (steps * (distances**2 + widths**2 / 12.0)).sum(dim=-1) + below * left + above * right

    @property
    def mode(self) -> Tensor:
        densest = (self._masses[1] / self._widths).argmax(dim=-1, keepdim=True)
        middles = 0.5 * (self.values[..., 1:] + self.values[..., :-1])
        return middles.gather(-1, densest).squeeze(-1)

    @property
    def entropy(self) -> Tensor:
        below, steps, above = self._masses
        log_density = self._log_densities
        inside = -(steps * log_density).sum(dim=-1)
        return inside + below * (1.0 - log_density[..., 0]) + above * (1.0 - log_density[..., -1])

    def affine(self, shift: float, scale: float) -> QuantileKnots:
        if not (scale > 0 and math.isfinite(scale)):
            raise DomainError(f"QuantileKnots: the scale is {scale}; expected a positive number.")
        return QuantileKnots(shift + scale * self.values, self.levels)

    def map(self, change: Callable[[Tensor], Tensor]) -> QuantileKnots:
        return QuantileKnots(map_before_last_axis(self, change, self.values), self.levels)

    def __getitem__(self, index: Any) -> QuantileKnots:
        return QuantileKnots(self.values[index_before_last_axis(index)], self.levels)

    @property
    def _masses(self) -> tuple[float, Tensor, float]:
        """Below the first knot, of every segment, above the last knot."""
        levels = torch.tensor(self.levels, dtype=torch.float64)
        steps = (levels[1:] - levels[:-1]).to(dtype=self.values.dtype, device=self.values.device)
        return self.levels[0], steps, 1.0 - self.levels[-1]

    @property
    def _starts(self) -> Tensor:
        return self.values[..., :-1]

    @property
    def _widths(self) -> Tensor:
        """Of every segment, shape (*shape, Q − 1), positive."""
        return torch.maximum(self.values[..., 1:] - self.values[..., :-1], self._least_width.unsqueeze(-1))

    @property
    def _least_width(self) -> Tensor:
        info = torch.finfo(self.values.dtype)
        return info.eps * self.values.detach().abs().amax(dim=-1).clamp_min(math.sqrt(info.tiny))

    @property
    def _stops(self) -> Tensor:
        """Where segments end: at the next knot, or beyond it where the width is held."""
        return torch.maximum(self.values[..., 1:], self._starts + self._least_width.unsqueeze(-1))

    @property
    def _end(self) -> Tensor:
        """Where the upper tail begins."""
        return self._stops[..., -1]

    @property
    def _tail_scales(self) -> tuple[Tensor, Tensor]:
        below, steps, above = self._masses
        widths = self._widths
        return below / steps[0] * widths[..., 0], above / steps[-1] * widths[..., -1]

    @property
    def _log_densities(self) -> Tensor:
        return self._masses[1].log() - self._widths.log()

    def _distances(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """How far below the first knot and above the last, in units of the tail there; 0 elsewhere."""
        low, high = self._tail_scales
        return ((self.values[..., 0] - value) / low).clamp_min(0.0), ((value - self._end) / high).clamp_min(0.0)

    def _passed(self, value: Tensor) -> Tensor:
        """The part of every segment that lies below the value, shape (*value.shape, Q − 1)."""
        return ((value.unsqueeze(-1) - self._starts) / self._widths).clamp(0.0, 1.0)

    def _log_prob(self, value: Tensor) -> Tensor:
        below, above = self._distances(value)
        log_density, at = self._log_densities, value.unsqueeze(-1)
        # Segments overlap where a width is held. Their density is a sum then.
        inside = (at >= self._starts) & (at < self._stops)
        somewhere = inside.any(dim=-1)
        each = torch.where(inside, log_density, torch.full_like(log_density, -math.inf))
        middle = torch.logsumexp(torch.where(somewhere.unsqueeze(-1), each, torch.zeros_like(each)), dim=-1)
        tail = torch.where(value < self.values[..., 0], log_density[..., 0] - below, log_density[..., -1] - above)
        return torch.where(somewhere, middle, tail)

    def _cdf(self, value: Tensor) -> Tensor:
        below, above = self._distances(value)
        low, steps, high = self._masses
        return low * torch.exp(-below) + (steps * self._passed(value)).sum(dim=-1) - high * torch.expm1(-above)

    def _quantile(self, share: Tensor) -> Tensor:
        levels = torch.tensor(self.levels, dtype=share.dtype, device=share.device)
        low, high = self._tail_scales
        lower, upper = share.clamp_max(levels[0]), (1.0 - share).clamp_max(1.0 - levels[-1])
        below = self.values[..., 0] + low * torch.log(lower / levels[0])
        above = self.values[..., -1] - high * torch.log(upper / (1.0 - levels[-1]))
        shape = torch.broadcast_shapes(share.shape, self.shape)
        # The segment of every share, and where in it the share lies.
        segment = (torch.searchsorted(levels, share.contiguous()) - 1).clamp(0, len(self.levels) - 2)
        part = (share - levels[segment]) / (levels[segment + 1] - levels[segment])
        index = segment.expand(shape).unsqueeze(-1)
        knots = self.values.expand(*shape, -1)
        start, stop = (knots.gather(-1, index + offset).squeeze(-1) for offset in (0, 1))
        middle = start + part.clamp(0.0, 1.0) * (stop - start)
        return torch.where(share < levels[0], below, torch.where(share > levels[-1], above, middle))

    def _crps(self, value: Tensor) -> Tensor:
        below, above = self._distances(value)
        low, high = self._masses[0], self._masses[2]
        tail_below, tail_above = self._tail_scales
        steps, levels = self._masses[1], torch.tensor(self.levels).to(self.values)
        passed = self._passed(value)
        left = passed - 1.0
        # ∫ F² up to the value and ∫ (1 − F)² from it on, over each segment, F a straight line there.
        before = passed * (levels[:-1] ** 2 + passed * steps * (levels[:-1] + passed * steps / 3.0))
        after = -left * ((1.0 - levels[1:]) ** 2 - left * steps * (1.0 - levels[1:] - left * steps / 3.0))
        segments = (self._widths * (before + after)).sum(dim=-1)
        lower = tail_below * (0.5 * low**2 + below + 2.0 * low * torch.expm1(-below))
        upper = tail_above * (0.5 * high**2 + above + 2.0 * high * torch.expm1(-above))
        return segments + lower + upper
