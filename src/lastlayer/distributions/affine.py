"""A continuous distribution in other units: shifted and stretched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import DomainError
from lastlayer.distributions.distribution import Distribution
from lastlayer.facts import Interval


@dataclass(frozen=True, eq=False)
class Affine(Distribution):
    """The distributions of ``shift + scale · Y``, Y distributed as ``base``.

    Domain: ``base`` is continuous; ``shift`` is a finite number, ``scale`` a positive finite one.

    Formula: quantiles, mean, median and mode are moved as values are; the density is that of ``(y − shift)/scale`` over
    the scale, and the CRPS ``scale`` times that of ``(y − shift)/scale``.

    Shapes: that of the base. Units: shift and scale in those of the new value, per unit of the base's.

    Numerics: a value at a closed end of the support stays in it, whatever rounding does to ``(y − shift)/scale``.

    Special cases: the mixture of affine distributions is the affine distribution of the mixture of their bases, with
    the same closed forms.

    Raises:
        DomainError: if the base is discrete, the shift not finite or the scale not a positive number.

    Example:
        >>> from lastlayer.distributions.beta import Beta
        >>> Affine(Beta(torch.tensor([3.0]), torch.tensor([2.0])), shift=10.0, scale=5.0).mean
        tensor([13.])
    """

    base: Distribution
    shift: float
    scale: float

    def __post_init__(self) -> None:
        if self.base.discrete:
            raise DomainError(
                f"Affine: {type(self.base).__name__} is a distribution of whole numbers, and shift + scale · Y would "
                f"not be one; expected a continuous distribution."
            )
        if not (math.isfinite(self.shift) and math.isfinite(self.scale) and self.scale > 0):
            raise DomainError(
                f"Affine: shift is {self.shift!r}, scale {self.scale!r}; expected a finite shift and a positive scale."
            )

    @property
    def support(self) -> Interval:  # type: ignore[override]
        """The base's, moved as values are."""
        base = self.base.support
        low, high = self.shift + self.scale * base.low, self.shift + self.scale * base.high
        return Interval(low, high, base.low_closed, base.high_closed)

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def mean(self) -> Tensor:
        return self._moved(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * self.base.variance

    @property
    def standard_deviation(self) -> Tensor:
        return self.scale * self.base.standard_deviation

    @property
    def median(self) -> Tensor:
        return self._moved(self.base.median)

    @property
    def mode(self) -> Tensor:
        return self._moved(self.base.mode)

    @property
    def entropy(self) -> Tensor:
        return self.base.entropy + math.log(self.scale)

    def map(self, change: Callable[[Tensor], Tensor]) -> Affine:
        return Affine(self.base.map(change), self.shift, self.scale)

    def affine(self, shift: float, scale: float) -> Affine:
        return Affine(self.base, shift + scale * self.shift, scale * self.scale)

    def mixed(self, weight: Tensor | None = None) -> Affine:
        return Affine(self.base.mixed(weight), self.shift, self.scale)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self._moved(self.base.sample(n, generator=generator))

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.base._log_prob(self._unmoved(value)) - math.log(self.scale)

    def _cdf(self, value: Tensor) -> Tensor:
        return self.base._cdf(self._unmoved(value))

    def _quantile(self, share: Tensor) -> Tensor:
        return self._moved(self.base._quantile(share))

    def _crps(self, value: Tensor) -> Tensor:
        return self.scale * self.base._crps(self._unmoved(value))

    def _moved(self, value: Tensor) -> Tensor:
        return self.shift + self.scale * value

    def _unmoved(self, value: Tensor) -> Tensor:
        moved = (value - self.shift) / self.scale
        base, support = self.base.support, self.support
        if base.low_closed:
            moved = torch.where((value >= support.low) & (moved < base.low), base.low, moved)
        if base.high_closed:
            moved = torch.where((value <= support.high) & (moved > base.high), base.high, moved)
        return moved
