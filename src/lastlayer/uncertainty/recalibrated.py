"""A distribution whose claimed shares are mapped to those observed: what PIT recalibration applies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError
from lastlayer.distributions.distribution import Distribution
from lastlayer.facts import Interval
from lastlayer.uncertainty.by_quantiles import ByQuantiles
from lastlayer.uncertainty.level_map import LevelMap


@dataclass(frozen=True, eq=False)
class Recalibrated(ByQuantiles):
    """The distribution with the cdf ``R(F(y))``, F the cdf of ``base`` and R a rising map of [0, 1] onto itself.

    Domain: continuous distributions; of whole numbers use :class:`RecalibratedCounts`.

    Formula: density ``f(y) R′(F(y))``, quantiles ``F⁻¹(R⁻¹(q))``.

    Shapes: those of ``base``.

    Numerics: as R is linear by pieces the density jumps at the corners. Mean, variance and entropy are quadratures
    over quantiles, of which the base's own values give the uppermost piece: with the identity for R they are the
    base's own. They are infinite or NaN where the base's are. CRPS is a quadrature. None of these has a gradient.

    Special cases: the mode is right where every density of the base has a single maximum; else it is the best among
    the corners and the base's mode.

    Raises:
        DomainError: if the values are whole numbers.

    Reference: V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression,
    ICML (2018).
    """

    base: Distribution
    levels: LevelMap

    def __post_init__(self) -> None:
        if self.base.discrete:
            raise DomainError("Recalibrated: the values are whole numbers. Fix: use RecalibratedCounts.")

    @property
    def support(self) -> Interval:  # type: ignore[override]
        return self.base.support

    @property
    def breaks(self) -> tuple[float, ...]:
        return self.levels.observed[1:-1]

    def of(self, base: Distribution) -> Self:
        return type(self)(base, self.levels)

    @property
    def mean(self) -> Tensor:
        def wide_mean(wide: Self) -> Tensor:
            center = wide.center
            return center + wide._from_base(wide.expectation_parts(lambda y: y - center), wide.base.mean - center)

        return self._narrowed(wide_mean)

    @property
    def variance(self) -> Tensor:
        def wide_variance(wide: Self) -> Tensor:
            mean, base = wide.mean, wide.base
            of_base = base.variance + (base.mean - mean).square()
            return wide._from_base(wide.expectation_parts(lambda y: (y - mean).square()), of_base)

        return self._narrowed(wide_variance)

    @property
    def entropy(self) -> Tensor:
        def wide_entropy(wide: Self) -> Tensor:
            base = wide.base
            claimed, observed = (
                torch.tensor(c, dtype=torch.float64) for c in (wide.levels.claimed, wide.levels.observed)
            )
            share = observed.diff()
            gain = float((share * (share / claimed.diff()).log()).sum())
            return wide._from_base(wide.surprise_parts(base._log_prob), base.entropy) - gain

        return self._narrowed(wide_entropy)

    @property
    def mode(self) -> Tensor:
        with torch.no_grad():
            mode = self.base.mode
            corners = self.base.quantile(list(self.levels.claimed))
            # On each piece the base is densest at its mode, or at the end that is nearer to it.
            candidates = torch.maximum(torch.minimum(mode, corners[1:]), corners[:-1])
            claimed, observed = (
                torch.tensor(c, dtype=torch.float64) for c in (self.levels.claimed, self.levels.observed)
            )
            slope = (observed.diff() / claimed.diff()).log().to(mode.device, mode.dtype)
            density = self.base.log_prob(candidates) + slope.reshape(-1, *(1 for _ in self.shape))
            # A mode outside the support is an open end at which the density is infinite.
            density = torch.where((candidates == mode) & (density == -torch.inf), torch.inf, density)
            best = density.nan_to_num(nan=-torch.inf).argmax(dim=0, keepdim=True)
            return candidates.gather(0, best).squeeze(0)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value) + self.levels.log_slope(self.base.cdf(value))

    def _cdf(self, value: Tensor) -> Tensor:
        return self.levels(self.base.cdf(value))

    def _quantile(self, share: Tensor) -> Tensor:
        return self.base._quantile(self.levels.inverse(share))

    def _from_base(self, parts: Tensor, of_base: Tensor) -> Tensor:
        """An expectation from its parts on every piece, and the base's own expectation of the same.

        On a piece of R both expectations are the same integral but for R's slope there. So the last piece, the upper
        tail, of which shares next to 1 tell little, is what the others leave of the base's.
        """
        edges = torch.tensor((0.0, *self.edges, 1.0), dtype=torch.float64)
        middle = 0.5 * (edges[1:] + edges[:-1])
        slope = self.levels.log_slope(self.levels.inverse(middle)).exp().to(of_base.device)
        before = parts[:-1] / slope[:-1].reshape(-1, *(1 for _ in self.shape))
        total = parts[:-1].sum(dim=0) + slope[-1] * (of_base - before.sum(dim=0))
        return torch.where(of_base.isfinite(), total, of_base)
