"""Split conformal intervals for quantities and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, check_choice, shape_text
from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.conformal import check_level, conformal_quantile, finite_bound
from lastlayer.uncertainty.state import State, nested

SPREADS = ("standard_deviation", "interquartile_range", "constant")


@dataclass(frozen=True)
class ScaledResidual(State):
    """Intervals ``median ± radius · spread``: as wide as the prediction says, times what held-out rows showed.

    Attributes:
        level: the share of new targets that lie inside, at least, on average.
        radius: in spreads; one number for each element of a row.
        spread: one of ``SPREADS``.
    """

    level: float
    radius: Any
    spread: str
    name: ClassVar[str] = "scaled_residual"

    def __post_init__(self) -> None:
        check_level(self.level)
        check_choice(self.spread, SPREADS, what="spread")

    def interval(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """Both ends, each of the distribution's shape; of whole numbers the ends are whole numbers, both inside.

        Raises:
            ShapeError: if the distribution's rows are not shaped as those that the radius was fitted on.
        """
        center, spread = distribution.median, spread_of(distribution, self.spread)
        reach = as_row(self.radius, distribution) * spread
        return within_support(center - reach, center + reach, distribution)


@dataclass(frozen=True)
class ConformalQuantiles(State):
    """Intervals between predicted quantiles, moved out or in by what held-out rows showed.

    Attributes:
        level: the share of new targets that lie inside, at least, on average.
        below, above: how far the lower end moves down and the upper end up, in the target's units; negative inwards;
            one number for each element of a row.
    """

    level: float
    below: Any
    above: Any
    name: ClassVar[str] = "conformal_quantiles"

    def __post_init__(self) -> None:
        check_level(self.level)

    def interval(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """Both ends, each of the distribution's shape; of whole numbers the ends are whole numbers, both inside.

        Raises:
            ShapeError: if the distribution's rows are not shaped as those that the moves were fitted on.
        """
        low, high = distribution.interval(self.level)
        below, above = as_row(self.below, distribution), as_row(self.above, distribution)
        return within_support(low - below, high + above, distribution)


def fit_scaled_residual(
    distribution: Distribution,
    target: Tensor,
    level: float,
    *,
    spread: str = "standard_deviation",
    sample_weight: Tensor | None = None,
) -> ScaledResidual:
    """Conformal intervals from absolute residuals over predicted spreads, of held-out rows.

    Domain: quantities and counts.

    Formula: the radius is the :func:`conformal_quantile` of ``|y − median| / spread``. The spread is the
    ``"standard_deviation"``, the ``"interquartile_range"`` (for tails that have no variance), or ``"constant"``: 1.

    Shapes: the distribution's first axis is that of the rows; each element of a row gets a radius of its own.
    ``sample_weight`` ``(n,)``; what weights are worth says :func:`conformal_quantile`.

    Special cases: the interval of whole numbers, or of values with an end, is cut to what can happen. The guarantee
    is for each element of a row alone, not for all together.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there are too few rows for the level, the spread is no choice, or all weights are zero.
        DomainError: if a spread is not a positive number, the level not between 0 and 1, a target NaN, or a weight
            negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> held_out = Gaussian(torch.zeros(9), torch.ones(9))
        >>> fit = fit_scaled_residual(held_out, torch.arange(-4.0, 5.0), 0.9)
        >>> fit.radius, fit.interval(Gaussian(torch.tensor([1.0]), torch.tensor([2.0])))
        (4.0, (tensor([-7.]), tensor([9.])))

    Reference: J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, Distribution-free predictive inference
    for regression, J. American Statistical Association 113 (2018).
    """
    check_choice(spread, SPREADS, what="spread")
    check_rows(distribution, target)
    scores = scaled_residuals(distribution, target, spread)
    bound = conformal_quantile(scores, level, sample_weight=sample_weight)
    return ScaledResidual(level, nested(finite_bound(bound, level, len(scores))), spread)


def fit_conformal_quantiles(
    distribution: Distribution,
    target: Tensor,
    level: float,
    *,
    symmetric: bool = True,
    sample_weight: Tensor | None = None,
) -> ConformalQuantiles:
    """Conformalized quantile regression, from the quantiles of predicted distributions of held-out rows.

    Domain: quantities and counts.

    Formula: with (l, u) the central interval of the level, both ends move by the :func:`conformal_quantile` of
    ``max(l − y, y − u)``. Not ``symmetric``: each by its own, of ``l − y`` and of ``y − u``, at the level
    ``1 − (1 − level)/2``, so that each side, too, is missed by half of ``1 − level`` at most.

    Shapes: the distribution's first axis is that of the rows; each element of a row gets moves of its own.
    ``sample_weight`` ``(n,)``; what weights are worth says :func:`conformal_quantile`.

    Special cases: ends that would pass each other meet in the middle. The interval of whole numbers, or of values
    with an end, is cut to what can happen. The guarantee is for each element of a row alone.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there are too few rows for the level, or all weights are zero.
        DomainError: if the level is not between 0 and 1, a target is NaN, or a weight negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> held_out = Gaussian(torch.zeros(9), torch.ones(9))
        >>> fit = fit_conformal_quantiles(held_out, torch.arange(-4.0, 5.0), 0.9)
        >>> fit.interval(held_out[:1])
        (tensor([-4.]), tensor([4.]))

    Reference: Y. Romano, E. Patterson, E. J. Candès, Conformalized quantile regression, NeurIPS (2019).
    """
    check_level(level)
    check_rows(distribution, target)
    low, high = distribution.interval(level)
    value = target.to(low.dtype)
    rows = len(value)
    if symmetric:
        scores = torch.maximum(low - value, value - high)
        bound = finite_bound(conformal_quantile(scores, level, sample_weight=sample_weight), level, rows)
        return ConformalQuantiles(level, nested(bound), nested(bound))
    side = 0.5 + 0.5 * level
    below = finite_bound(conformal_quantile(low - value, side, sample_weight=sample_weight), side, rows)
    above = finite_bound(conformal_quantile(value - high, side, sample_weight=sample_weight), side, rows)
    return ConformalQuantiles(level, nested(below), nested(above))


def scaled_residuals(distribution: Distribution, target: Tensor, spread: str) -> Tensor:
    """``|y − median| / spread``."""
    center = distribution.median
    return (target.to(center.dtype) - center).abs() / spread_of(distribution, spread)


def spread_of(distribution: Distribution, spread: str) -> Tensor:
    """The predicted spread, of the distribution's shape.

    Raises:
        DomainError: if one is not a positive number.
    """
    if spread == "constant":
        return torch.ones_like(distribution.median)
    if spread == "standard_deviation":
        width = distribution.standard_deviation
    else:
        low, high = distribution.interval(0.5)
        width = high - low
    if not bool((width.isfinite() & (width > 0)).all()):
        raise DomainError(
            f"a predicted {spread.replace('_', ' ')} is 0, infinite or NaN. Fix: take another of {SPREADS}, or "
            f"fit_conformal_quantiles, which needs none."
        )
    return width


def check_rows(distribution: Distribution, target: Tensor) -> None:
    """One target for each of the distributions, which have an axis of rows.

    Raises:
        ShapeError: naming both shapes.
    """
    if not distribution.shape or target.shape != distribution.shape:
        raise ShapeError(
            f"the target has shape {shape_text(target)}, the distributions {tuple(distribution.shape)}; expected one "
            f"shape (rows, ...) for both."
        )


def as_row(state: Any, distribution: Distribution) -> Tensor:
    """What was fitted for the elements of a row, in the distribution's dtype, to be broadcast over its rows.

    Raises:
        ShapeError: if the distribution's last axes are not those of a row.
    """
    template = distribution.median
    row = torch.tensor(state, dtype=template.dtype, device=template.device)
    if row.shape != template.shape[template.dim() - row.dim() :]:
        raise ShapeError(
            f"the distribution has shape {tuple(template.shape)}; expected rows of shape {tuple(row.shape)}, as fitted."
        )
    return row


def within_support(low: Tensor, high: Tensor, distribution: Distribution) -> tuple[Tensor, Tensor]:
    """An interval cut to what can happen: nothing that could be covered is lost."""
    middle = 0.5 * (low + high)
    low, high = torch.minimum(low, middle), torch.maximum(high, middle)
    if distribution.discrete:
        # Scores are differences of whole numbers: rounding must not lose the number that an end is meant to be.
        slack = 1e-5 * (1.0 + torch.maximum(low.abs(), high.abs()).clamp_max(1e4))
        low, high = torch.ceil(low - slack), torch.floor(high + slack)
        nearest = torch.round(middle)
        empty = low > high
        low, high = torch.where(empty, nearest, low), torch.where(empty, nearest, high)
    ends = distribution.support
    return low.clamp(ends.low, ends.high), high.clamp(ends.low, ends.high)
