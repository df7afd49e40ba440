"""PIT recalibration: what share of held-out targets really lay below each predicted quantile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.checks import DomainError, InputError
from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.level_map import LevelMap
from lastlayer.uncertainty.recalibrated import Recalibrated
from lastlayer.uncertainty.recalibrated_counts import RecalibratedCounts
from lastlayer.uncertainty.scores import randomized_pit
from lastlayer.uncertainty.state import State
from lastlayer.uncertainty.weighting import checked_weight

# Between the observed PITs and evenly spread ones: keeps the map's slope below a million where PITs are equal.
_EVENLY = 1e-6
# The outermost pieces are halved for as long as this many rows lie in them.
_ROWS_IN_TAIL = 10


@dataclass(frozen=True)
class PitRecalibration(State):
    """Predictions with the shares that they claim mapped to the shares that held-out rows showed.

    Attributes:
        claimed, observed: the corners of the map, as in :class:`LevelMap`.

    Raises:
        DomainError: if the corners do not ascend from 0 to 1.
    """

    claimed: tuple[float, ...]
    observed: tuple[float, ...]
    name: ClassVar[str] = "pit_recalibration"

    def __post_init__(self) -> None:
        _ = self.levels

    @property
    def levels(self) -> LevelMap:
        """The map."""
        return LevelMap(self.claimed, self.observed)

    def __call__(self, distribution: Distribution) -> Distribution:
        """The predictions to use instead, of the same shape."""
        if distribution.discrete:
            return RecalibratedCounts(distribution, self.levels)
        return Recalibrated(distribution, self.levels)


def fit_pit_recalibration(
    distribution: Distribution,
    target: Tensor,
    *,
    pieces: int | None = None,
    sample_weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> PitRecalibration:
    """The map from claimed to observed shares, from the probability integral transforms of held-out targets.

    Domain: quantities and counts; of counts the transforms are randomized (pass a generator for the same ones again).

    Formula: with the sorted transforms u₍₁₎ … u₍ₙ₎, R goes through ``(u₍ᵢ₎, i/(n + 1))``, (0, 0) and (1, 1), thinned
    out to ``pieces`` steps of equal observed share, of which the outermost are halved while 10 rows lie in them. As an
    empirical cdf rises anyway it is the isotonic regression that Kuleshov et al. fit, with a density everywhere.

    Shapes: ``target`` of the distribution's shape, ``sample_weight`` of that shape or of its leading axes; one map for
    all elements.

    Numerics: the density's logarithm varies by chance with about the root of pieces over rows: so ``pieces`` is
    ``2 n^(1/3)`` where left out (Rice's rule), at most n/2, n the effective number of rows. To the transforms 10⁻⁶ of
    evenly spread ones is added: where many are equal, the map is steep and not broken.

    Special cases: one row, or ``pieces`` of 1, gives the identity. Where predictions are many times too narrow,
    transforms pile up at 0 and 1, and no map of levels widens tails enough: recalibrate the scale before. The map does
    not depend on the inputs: it can make all predictions together calibrated, and each of them worse.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, ``pieces`` is not positive, or all weights are zero.
        DomainError: if a target is NaN, or a weight is negative, infinite or NaN.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> y = torch.linspace(-3, 3, 1001, dtype=torch.float64)[1:-1]
        >>> narrow = Gaussian(torch.zeros_like(y), torch.full_like(y, 0.5))
        >>> fit_pit_recalibration(narrow, y)(narrow)[:1].interval(0.5)
        (tensor([-1.5000], dtype=torch.float64), tensor([1.5000], dtype=torch.float64))

    Reference: V. Kuleshov, N. Fenner, S. Ermon, ICML (2018).
    """
    weight = checked_weight(sample_weight, target, what="fit_pit_recalibration")
    with torch.no_grad():
        wide = distribution.map(lambda parameter: parameter.detach().double())
        pit = randomized_pit(wide, target.detach().double(), generator=generator)
    counted = weight > 0
    if bool(pit[counted].isnan().any()):
        raise DomainError("fit_pit_recalibration: a target, or its prediction, is NaN.")
    u, w = pit[counted].cpu().numpy(), weight[counted].cpu().numpy()
    rows = float(w.sum() ** 2 / (w**2).sum())
    if pieces is None:
        pieces = max(1, int(min(round(2.0 * rows ** (1.0 / 3.0)), rows // 2)))
    elif pieces < 1:
        raise InputError(f"fit_pit_recalibration: pieces is {pieces}; expected a whole number, 1 or more.")
    observed = _shares(pieces, rows)
    claimed = (1.0 - _EVENLY) * _pit_at(observed, u, w) + _EVENLY * observed
    claimed[0], claimed[-1] = 0.0, 1.0
    # Next to 1 float64 may not tell two corners from each other.
    kept = np.concatenate([[True], (np.diff(claimed[:-1]) > 1e-15) & (claimed[1:-1] < 1.0 - 1e-15), [True]])
    return PitRecalibration(tuple(map(float, claimed[kept])), tuple(map(float, observed[kept])))


def _shares(pieces: int, rows: float) -> NDArray[np.float64]:
    """Equal steps from 0 to 1, the outermost halved again and again."""
    tails = []
    share = 0.5 / pieces
    while pieces > 1 and share * rows >= _ROWS_IN_TAIL:
        tails.append(share)
        share *= 0.5
    inner = np.arange(1, pieces) / pieces
    return np.concatenate([[0.0], tails[::-1], inner, [1.0 - tail for tail in tails], [1.0]])


def _pit_at(share: NDArray[np.float64], pit: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transforms' quantiles: straight lines through ``(i/(n + 1), u₍ᵢ₎)`` and, of weights, their like."""
    order = np.argsort(pit, kind="stable")
    pit, weight = pit[order], weight[order] / weight.mean()
    # Of weights that are all 1: i − 1/2, and half of the weight that is left for below the least and above the largest.
    position = (np.cumsum(weight) - 0.5 * weight + 0.5) / (weight.sum() + 1.0)
    quantiles: NDArray[np.float64] = np.interp(share, np.r_[0.0, position, 1.0], np.r_[0.0, pit, 1.0])
    return quantiles
