"""Several quantiles at once that never cross: the sum of their pinball losses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, shape_text
from lastlayer.evaluation import Formula, evaluate
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.losses.location_scale import check_event_target, raw_from_scale
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import weighted_quantile
from lastlayer.losses.options import check_option

#: The median, and the intervals that hold a half and nine tenths.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Wide increments, and every target halfway between two quantiles or beyond them all: at a quantile is a kink.
    raw = 0.5 + torch.rand(n, len(LEVELS), dtype=dtype, generator=generator)
    raw[:, 2] = torch.randn(n, dtype=dtype, generator=generator)
    value = ordered_quantiles(raw, LEVELS)
    ends = torch.cat([value[:, :1] - 2.0, value, value[:, -1:] + 2.0], dim=-1)
    place = torch.randint(len(LEVELS) + 1, (n, 1), generator=generator)
    return raw, (0.5 * (ends.gather(-1, place) + ends.gather(-1, place + 1))).squeeze(-1)


def check_levels(levels: tuple[float, ...]) -> None:
    """The levels rise, inside (0, 1).

    Raises:
        InputError: if there are none, or they do not rise.
        DomainError: for a level outside (0, 1).
    """
    for level in levels:
        check_option(level, Interval(0.0, 1.0), what="quantiles: a level")
    if not levels or any(one >= other for one, other in pairwise(levels)):
        raise InputError(f"quantiles: levels are {levels!r}; expected rising numbers, such as (0.1, 0.5, 0.9).")


def anchor_of(levels: tuple[float, ...]) -> int:
    """Which of the raw outputs is a quantile itself: that of the level nearest to ½, of two the lower."""
    return min(range(len(levels)), key=lambda index: (round(abs(levels[index] - 0.5), 12), index))


def ordered_quantiles(raw: Tensor, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """Values that never fall from level to level, from a raw output of as many numbers.

    The raw output of the level nearest to ½ is its quantile. Every other one is, before softplus, the distance to its
    neighbor on the side of that level.

    Example:
        >>> ordered_quantiles(torch.tensor([0.0, 5.0, 1.0]), (0.1, 0.5, 0.9))
        tensor([4.3069, 5.0000, 6.3133])
    """
    anchor = anchor_of(levels)
    middle, distance = raw[..., anchor : anchor + 1], -F.logsigmoid(-raw)
    down = distance[..., :anchor].flip(-1).cumsum(-1).flip(-1)
    up = distance[..., anchor + 1 :].cumsum(-1)
    return torch.cat([middle - down, middle, middle + up], dim=-1)


@dataclass(frozen=True)
class QuantilesFormula(Formula):
    """``Σ_k max(τ_k (y − q_k), (τ_k − 1) (y − q_k))`` over quantiles q in order."""

    levels: tuple[float, ...] = LEVELS
    event_dims = 1
    facts = LossFacts(
        name="quantiles",
        title="pinball loss of several quantiles that never cross",
        target=REAL,
        raw=REAL,
        link="identity and distances by softplus",
        formula="Σ_k max(τ_k (y − q_k), (τ_k − 1) (y − q_k)), q_a = s_a, q_k = q_{k∓1} ± softplus(s_k) away from a",
        gradient="g_k = −τ_k below the target (q_k < y), 1 − τ_k above it, 0 at q_k = y; Σ g in s_a, ±σ(s_k) times the "
        "sum of g from k outwards in s_k",
        minimum="0, with every quantile at y",
        optimal_constant="the quantiles of y, as the middle one and raw distances",
        convex=False,
        smooth=False,
        likelihood=None,
        use_when="intervals are wanted that hold given shares of the targets, whatever their distribution",
        avoid_when="the targets are few and the levels extreme, or a density is wanted",
        reference="R. Koenker, G. Bassett, Econometrica 46 (1978); Y. Park et al., AISTATS (2022)",
        example=_example,
    )

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        if raw.dim() == 0 or raw.shape[-1] != len(self.levels):
            raise ShapeError(
                f"quantiles: raw has shape {shape_text(raw)}, target {shape_text(target)}; expected raw of shape "
                f"(..., {len(self.levels)}), a number per level, and target (...)."
            )
        check_event_target(raw, target, loss="quantiles")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        error = ordered_quantiles(raw, self.levels) - target.unsqueeze(-1)
        return (self._slope(error) * error).sum(-1)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the slopes; a distance moves every quantile from its own outwards."""
        anchor = anchor_of(self.levels)
        error = ordered_quantiles(raw, self.levels) - target.unsqueeze(-1)
        slope = self._slope(error)
        outwards = torch.cat(
            [
                -slope[..., :anchor].cumsum(-1),
                slope.sum(-1, keepdim=True),
                slope[..., anchor + 1 :].flip(-1).cumsum(-1).flip(-1),
            ],
            dim=-1,
        )
        distance = torch.arange(raw.shape[-1], device=raw.device) != anchor
        return (slope * error).sum(-1), torch.where(distance, torch.sigmoid(raw) * outwards, outwards)

    def _slope(self, error: Tensor) -> Tensor:
        # By the sign, which is 0 at the kink: autograd then finds the same subgradient there.
        side = torch.sign(error)
        below = torch.stack([torch.full_like(error[..., 0], level) for level in self.levels], dim=-1)
        return torch.where(side < 0, below * side, (1.0 - below) * side)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        anchor = anchor_of(self.levels)
        value = torch.stack([weighted_quantile(target, sample_weight, level) for level in self.levels], dim=-1)
        distance = raw_from_scale(value.diff(dim=-1), 0.0)
        return torch.cat([distance[..., :anchor], value[..., anchor : anchor + 1], distance[..., anchor:]], dim=-1)


def quantiles(
    raw: Tensor,
    target: Tensor,
    *,
    levels: tuple[float, ...] = LEVELS,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Sum of the pinball losses of several quantiles, which never cross whatever the network puts out.

    Domain: targets and raw outputs are real numbers.

    Link: the raw output of the level nearest to ½ is its quantile, ``q_a = s_a``. The others are distances:
    ``q_k = q_{k−1} + softplus(s_k)`` above it, ``q_k = q_{k+1} − softplus(s_k)`` below it. :func:`ordered_quantiles`
    gives the values.

    Formula: ``Σ_k max(τ_k (y − q_k), (τ_k − 1) (y − q_k))`` with τ the ``levels``.

    Gradient: with ``g_k = −τ_k`` where ``q_k < y``, ``1 − τ_k`` where ``q_k > y``, and 0 at ``q_k = y``, a subgradient:
    ``Σ_k g_k`` in s_a, ``sigmoid(s_k) Σ_{j≥k} g_j`` in an s_k above it, ``−sigmoid(s_k) Σ_{j≤k} g_j`` in one below it.

    Shapes: raw ``(..., Q)`` for Q levels, in their order; target and per-sample value ``(...)``. Units are those of the
    target.

    Numerics: distances have no floor: at raw outputs far below 0 two quantiles are one number.

    Special cases: with one level :func:`quantile`. Twice the mean over evenly spaced levels approaches the continuous
    ranked probability score.

    Raises:
        ShapeError: if raw does not end in one number per level, or the target is not raw's shape without that axis.
        InputError: if there is no level, or the levels do not rise.
        DomainError: for a level outside (0, 1).

    Example:
        >>> quantiles(torch.tensor([[0.0, 5.0, 1.0]]), torch.tensor([5.0]), levels=(0.1, 0.5, 0.9))
        tensor(0.2006)

    Reference: R. Koenker, G. Bassett, Regression quantiles, Econometrica 46 (1978); for the distances Y. Park,
    D. Maddix, F.-X. Aubet, K. Kan, J. Gasthaus, Y. Wang, Learning quantile functions without quantile crossing for
    distribution-free time series forecasting, AISTATS (2022).
    """
    return evaluate(
        QuantilesFormula(levels),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Quantiles(Loss):
    """Module form of :func:`quantiles`."""

    def __init__(self, *, levels: tuple[float, ...] = LEVELS, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.levels = QuantilesFormula(tuple(levels)).levels

    @property
    def formula(self) -> QuantilesFormula:
        """The mathematics, with this module's options."""
        return QuantilesFormula(self.levels)
