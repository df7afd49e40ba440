"""The quantile (pinball) loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.losses.absolute_error import example_off_the_kink
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import weighted_quantile
from lastlayer.losses.options import check_option


@dataclass(frozen=True)
class QuantileFormula(Elementwise):
    """``max(τ (y − s), (τ − 1) (y − s))`` with τ the level."""

    level: float = 0.5
    facts = LossFacts(
        name="quantile",
        title="quantile loss (pinball loss)",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="max(τ (y − s), (τ − 1) (y − s))",
        gradient="−τ below the target (s < y), 1 − τ above it, 0 at s = y",
        minimum="0, at s = y",
        optimal_constant="the τ-quantile of y",
        convex=True,
        smooth=False,
        likelihood="asymmetric Laplace with fixed scale",
        use_when="a bound is wanted that a share τ of the targets stays below, whatever their distribution",
        avoid_when="the mean is wanted, or τ is so extreme that hardly a target lies beyond it",
        reference="R. Koenker, G. Bassett, Econometrica 46 (1978)",
        example=example_off_the_kink,
    )

    def __post_init__(self) -> None:
        check_option(self.level, Interval(0.0, 1.0), what="quantile: level")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._slope(raw, target) * (raw - target)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._slope(raw, target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the slope of the side that the error lies on."""
        slope = self._slope(raw, target)
        return slope * (raw - target), slope

    def _slope(self, raw: Tensor, target: Tensor) -> Tensor:
        # By the sign, which is 0 at the kink: autograd then finds the same subgradient there.
        side = torch.sign(raw - target)
        return torch.where(side < 0, self.level * side, (1.0 - self.level) * side)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return weighted_quantile(target, sample_weight, self.level)


def quantile(
    raw: Tensor,
    target: Tensor,
    *,
    level: float = 0.5,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Quantile loss, also known as pinball loss: its best constant is the quantile of that level.

    Domain: targets and raw outputs are real numbers.

    Link: identity. The raw output is the quantile.

    Formula: ``max(τ (y − s), (τ − 1) (y − s))`` with τ the ``level``: a prediction that is too low costs τ per unit,
    one that is too high 1 − τ.

    Gradient: ``−τ`` where ``s < y``, ``1 − τ`` where ``s > y``, and 0 at ``s = y``, a subgradient.

    Shapes: raw, target and per-sample value share one shape; units are those of the target.

    Special cases: at level ½ half the absolute error, and the median.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.
        DomainError: if ``level`` lies outside (0, 1).

    Example:
        >>> quantile(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), level=0.9, reduction="none")
        tensor([0.9000, 0.1000])

    Reference: R. Koenker, G. Bassett, Regression quantiles, Econometrica 46 (1978).
    """
    return evaluate(
        QuantileFormula(level),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Quantile(Loss):
    """Module form of :func:`quantile`."""

    def __init__(self, *, level: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.level = QuantileFormula(level).level

    @property
    def formula(self) -> QuantileFormula:
        """The mathematics, with this module's options."""
        return QuantileFormula(self.level)
