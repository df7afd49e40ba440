"""A distribution of whole numbers whose claimed shares are mapped to those observed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError
from lastlayer.distributions.distribution import Distribution
from lastlayer.facts import Interval
from lastlayer.uncertainty.level_map import LevelMap

# What is summed lies between the base's quantiles at this share and one minus it.
_TAIL = 1e-13
# Probabilities that are looked at in one go.
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class RecalibratedCounts(Distribution):
    """The distribution of whole numbers with the cdf ``R(F(y))``, R a rising map of [0, 1] onto itself.

    Formula: probability ``R(F(y)) − R(F(y − 1))``, quantiles ``F⁻¹(R⁻¹(q))``, the rest sums over whole numbers.

    Shapes: those of ``base``.

    Numerics: within a piece of R the probability is the base's own times a constant, and loses no digits in the tails.
    Sums run between the base's quantiles at 10⁻¹³ and 1 − 10⁻¹³ in float64, and have no gradient.

    Raises:
        DomainError: if the values are not whole numbers.

    Reference: V. Kuleshov, N. Fenner, S. Ermon, ICML (2018); C. Czado, T. Gneiting, L. Held, Biometrics 65 (2009) for
    the PIT of counts.
    """

    base: Distribution
    levels: LevelMap
    discrete = True

    def __post_init__(self) -> None:
        if not self.base.discrete:
            raise DomainError("RecalibratedCounts: the values are not whole numbers. Fix: use Recalibrated.")

    @property
    def support(self) -> Interval:  # type: ignore[override]
        return self.base.support

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def mean(self) -> Tensor:
        return self._sum(lambda number, probability: number * probability)

    @property
    def variance(self) -> Tensor:
        mean = self._wide().mean
        return self._sum(lambda number, probability: (number - mean).square() * probability)

    @property
    def entropy(self) -> Tensor:
        return self._sum(lambda number, probability: torch.special.entr(probability))

    @property
    def mode(self) -> Tensor:
        with torch.no_grad():
            wide = self._wide()
            low, high = wide._ends()
            best, at_best = low, wide._log_prob(low)
            for number in _numbers(low, high):
                log_prob, place = wide._log_prob(number).max(dim=0, keepdim=True)
                better = log_prob.squeeze(0) > at_best
                best = torch.where(better, number.gather(0, place).squeeze(0), best)
                at_best = torch.where(better, log_prob.squeeze(0), at_best)
            return best.to(self._like.dtype)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(self.base.map(change), self.levels)

    def _log_prob(self, value: Tensor) -> Tensor:
        upper, lower = self.base.cdf(value), self.base.cdf(value - 1.0)
        log_prob = self.base.log_prob(value)
        same = self.levels.piece(upper) == self.levels.piece(lower)
        across = (self.levels(upper) - self.levels(lower)).clamp_min(torch.finfo(upper.dtype).tiny).log()
        recalibrated = torch.where(same, log_prob + self.levels.log_slope(upper), across)
        return torch.where(log_prob > -torch.inf, recalibrated, log_prob)

    def _cdf(self, value: Tensor) -> Tensor:
        return self.levels(self.base.cdf(value))

    def _quantile(self, share: Tensor) -> Tensor:
        value = self.base._quantile(self.levels.inverse(share))
        value = value.expand(torch.broadcast_shapes(value.shape, share.shape))
        # Where a share is a value's own cdf, rounding may have led one number past or short of it.
        finite = value.isfinite()
        safe = torch.where(finite, value, torch.zeros_like(value))
        before = (safe - 1.0).clamp_min(self.support.low)
        settled = torch.where(self._cdf(before) >= share, before, safe)
        settled = torch.where(self._cdf(settled) < share, (settled + 1.0).clamp_max(self.support.high), settled)
        return torch.where(finite, settled, value)

    def _crps(self, value: Tensor) -> Tensor:
        """Between two whole numbers a straight line; at one ``Σ_k (R(F(k)) − 1{y ≤ k})²``."""
        with torch.no_grad():
            wide, exact = self._wide(), value.double()
            low, high = wide._ends()
            inside = torch.minimum(torch.maximum(exact, low), high)
            below, rest = inside.floor(), inside - inside.floor()
            total = torch.zeros_like(exact)
            for number in _numbers(low, high - 1.0, values=max(1, exact.numel() // max(1, low.numel()))):
                number = number.reshape(-1, *(1 for _ in range(exact.dim() - low.dim())), *low.shape)
                cdf = wide._cdf(number)
                # Of the unit from a number on, how much lies below the value.
                passed = torch.where(number < below, 1.0, torch.where(number == below, rest, 0.0))
                term = passed * cdf.square() + (1.0 - passed) * (1.0 - cdf).square()
                total = total + torch.where(number < high, term, 0.0).sum(dim=0)
            return (total + (exact - inside).abs()).to(value.dtype)

    def _wide(self) -> Self:
        return self.map(Tensor.double)

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.base.quantile(_TAIL), self.base.quantile(1.0 - _TAIL)

    @torch.no_grad()
    def _sum(self, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Of ``term(number, probability)`` over all numbers."""
        wide = self._wide()
        low, high = wide._ends()
        total = torch.zeros_like(low)
        for number in _numbers(low, high):
            # Numbers past an element's own end only fill up the block.
            probability = torch.where(number < high, wide._log_prob(number).exp(), 0.0)
            total = total + term(number, probability).sum(dim=0)
        # The last number stands for all from it on.
        rest = 1.0 - torch.where(high > low, wide._cdf(high - 1.0), 0.0)
        total = total + term(high, rest)
        return total.to(self._like.dtype)


def _numbers(low: Tensor, high: Tensor, *, values: int = 1) -> Iterator[Tensor]:
    """Whole numbers from each element's ``low`` until every element's ``high`` is reached, in blocks (size, *shape)."""
    if not low.numel():
        return
    length = int((high - low).max()) + 1
    size = max(1, _CHUNK // max(1, low.numel() * values))
    for start in range(0, length, size):
        offset = torch.arange(start, min(start + size, length), dtype=low.dtype, device=low.device)
        yield low + offset.reshape(-1, *(1 for _ in low.shape))
