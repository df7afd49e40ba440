"""A distribution with its spread around the median multiplied: what scale recalibration applies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError
from lastlayer.distributions.distribution import Distribution
from lastlayer.facts import Interval
from lastlayer.uncertainty.by_quantiles import ByQuantiles


@dataclass(frozen=True, eq=False)
class Rescaled(ByQuantiles):
    """The distribution of ``m + c (Y − m)``, m the median of Y: wider for c > 1, narrower below.

    Where values have an end the same happens to their logarithm or logit, so that the end stays: with ``a`` the lower
    end of a half-line ``a + (m − a) ((Y − a)/(m − a))^c``, and between two ends with the logit of the place between
    them.

    Domain: continuous distributions; ``factor`` is positive.

    Shapes: those of ``base``. Units: ``factor`` has none.

    Numerics: on the whole line everything but CRPS's and density's argument is the base's own, moved and scaled; else
    mean, variance, entropy and CRPS are quadratures over quantiles, without a gradient, and the mode is searched for.

    Raises:
        DomainError: if the factor is not a positive number, or the values are whole numbers.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> Rescaled(Gaussian(torch.tensor([1.0]), torch.tensor([2.0])), 1.5).standard_deviation
        tensor([3.])
    """

    base: Distribution
    factor: float

    def __post_init__(self) -> None:
        if self.base.discrete:
            raise DomainError(
                "Rescaled: the values are whole numbers, whose spread cannot be multiplied. Fix: PIT recalibration."
            )
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise DomainError(f"Rescaled: the factor is {self.factor!r}; expected a positive number.")

    @property
    def support(self) -> Interval:  # type: ignore[override]
        return self.base.support

    @property
    def breaks(self) -> tuple[float, ...]:
        return ()

    def of(self, base: Distribution) -> Self:
        return type(self)(base, self.factor)

    @cached_property
    def _median(self) -> Tensor:
        return self.base.quantile(0.5)

    @property
    def _whole_line(self) -> bool:
        return math.isinf(self.support.low) and math.isinf(self.support.high)

    @property
    def mean(self) -> Tensor:
        return self._changed(self.base.mean, self.factor) if self._whole_line else super().mean

    @property
    def variance(self) -> Tensor:
        return self.factor**2 * self.base.variance if self._whole_line else super().variance

    @property
    def entropy(self) -> Tensor:
        return self.base.entropy + math.log(self.factor) if self._whole_line else super().entropy

    @property
    def mode(self) -> Tensor:
        return self._changed(self.base.mode, self.factor) if self._whole_line else self._narrowed(_searched_mode)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self._moved(self.base.sample(n, generator=generator))

    def _log_prob(self, value: Tensor) -> Tensor:
        inside = self._inside(value)
        safe = torch.where(inside, value, self._median)
        before = self._changed(safe, 1.0 / self.factor)
        stretch = self._log_slope(before) - self._log_slope(safe) - math.log(self.factor)
        return torch.where(inside, self.base.log_prob(before) + stretch, self.base.log_prob(value))

    def _cdf(self, value: Tensor) -> Tensor:
        inside = self._inside(value)
        before = self._changed(torch.where(inside, value, self._median), 1.0 / self.factor)
        return self.base.cdf(torch.where(inside, before, value))

    def _quantile(self, share: Tensor) -> Tensor:
        return self._moved(self.base._quantile(share))

    def _moved(self, value: Tensor) -> Tensor:
        # An end stays where it is.
        inside = self._inside(value)
        return torch.where(inside, self._changed(torch.where(inside, value, self._median), self.factor), value)

    def _crps(self, value: Tensor) -> Tensor:
        if not self._whole_line:
            return super()._crps(value)
        return self.factor * self.base.crps(self._changed(value, 1.0 / self.factor))

    def _inside(self, value: Tensor) -> Tensor:
        # NaN counts as inside: so it stays NaN.
        return ~((value <= self.support.low) | (value >= self.support.high))

    def _changed(self, value: Tensor, factor: float) -> Tensor:
        """The value with its distance from the median multiplied, on the scale that has no ends."""
        low, high, median = self.support.low, self.support.high, self._median
        if self._whole_line:
            return median + factor * (value - median)
        if math.isinf(high):
            return low + (median - low) * ((value - low) / (median - low)) ** factor
        if math.isinf(low):
            return high - (high - median) * ((high - value) / (high - median)) ** factor
        center = _logit(median, low, high)
        return low + (high - low) * torch.sigmoid(center + factor * (_logit(value, low, high) - center))

    def _log_slope(self, value: Tensor) -> Tensor:
        """Logarithm of the derivative of the value in what its distance is taken on."""
        low, high = self.support.low, self.support.high
        if self._whole_line:
            return torch.zeros_like(value)
        if math.isinf(high):
            return (value - low).log()
        if math.isinf(low):
            return (high - value).log()
        logit = _logit(value, low, high)
        return F.logsigmoid(logit) + F.logsigmoid(-logit)


def _logit(value: Tensor, low: float, high: float) -> Tensor:
    return (value - low).log() - (high - value).log()


def _searched_mode(distribution: Rescaled) -> Tensor:
    """Where the density is greatest among quantiles of ever closer shares."""
    template = distribution._median
    # In t, the share's logit; ±30 is as far out as it makes a difference.
    center, reach = torch.zeros_like(template), 30.0
    for _ in range(12):
        step = template.new_tensor([k / 20.0 for k in range(-20, 21)]).reshape(-1, *(1 for _ in template.shape))
        t = center + reach * step
        values = distribution._quantile(torch.sigmoid(t))
        best = distribution._log_prob(values).argmax(dim=0, keepdim=True)
        center = t.gather(0, best).squeeze(0)
        reach = reach * 0.1
    return distribution._quantile(torch.sigmoid(center))
