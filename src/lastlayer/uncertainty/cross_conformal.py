"""CV+: conformal intervals that use every row, once to fit and once to be held out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lastlayer.checks import DomainError, InputError, ShapeError, check_choice, shape_text
from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.conformal import check_level, least_rows
from lastlayer.uncertainty.conformal_intervals import (
    SPREADS,
    check_rows,
    scaled_residuals,
    spread_of,
    within_support,
)
from lastlayer.uncertainty.state import State, nested

_ROUNDING = 1e-9
# How many numbers are sorted in one go.
_CHUNK = 2**23


@dataclass(frozen=True)
class CrossConformal(State):
    """CV+ intervals from the models of K folds.

    Attributes:
        level: the nominal level.
        scores: of every row, by the model that had not seen it.
        fold: of every row: which model that was, from 0.
        spread: what residuals are divided by, one of ``SPREADS``.
    """

    level: float
    scores: tuple[float, ...]
    fold: tuple[int, ...]
    spread: str
    name: ClassVar[str] = "cross_conformal"

    def __post_init__(self) -> None:
        check_level(self.level)
        check_choice(self.spread, SPREADS, what="spread")
        if len(self.scores) != len(self.fold) or not self.scores:
            raise InputError("CrossConformal: expected one score and one fold for each row, at least one.")

    def interval(self, members: Distribution) -> tuple[Tensor, Tensor]:
        """Both ends for new rows, each ``(...)``, from every fold's model: members of shape ``(folds, ...)``.

        Raises:
            ShapeError: if the first axis is not as long as there are folds.
        """
        folds = max(self.fold) + 1
        if not members.shape or members.shape[0] != folds:
            raise ShapeError(f"the members have shape {tuple(members.shape)}; expected ({folds}, ...), one per fold.")
        center, spread = members.median, spread_of(members, self.spread)
        scores = torch.tensor(self.scores, dtype=center.dtype, device=center.device)
        fold = torch.tensor(self.fold, device=center.device)
        low, high = cross_conformal_interval(center, spread, scores, fold, self.level)
        return within_support(low, high, members)


def fit_cross_conformal(
    distribution: Distribution,
    target: Tensor,
    fold: Tensor,
    level: float,
    *,
    spread: str = "standard_deviation",
) -> CrossConformal:
    """CV+ intervals, from the predictions that every row got from the fold's model that had not seen it.

    Domain: quantities and counts.

    Formula: residuals ``R_i = |y_i − median| / spread``, those of row i by the model of its fold. For a new row with
    predictions m_k, σ_k of every model, the interval runs from the ``⌊(n + 1)(1 − level)⌋``-th smallest of all
    ``m_{k(i)} − R_i σ_{k(i)}`` to the ``⌈(n + 1) level⌉``-th smallest of all ``m_{k(i)} + R_i σ_{k(i)}``.

    Shapes: distribution, target and fold ``(n,)``; folds are numbered from 0, and none may be missing.

    Special cases: what is guaranteed is ``2 level − 1`` less a little for large folds (below ``√(2/n)``); what is found
    is about the level. With a fold for each row it is the jackknife+. Rows have no weights here: with them no guarantee
    is known.

    Raises:
        ShapeError: if target or folds do not fit the distribution, or rows have more than one element.
        InputError: if there are too few rows for the level, a fold is missing, or the spread is no choice.
        DomainError: if a spread is not a positive number, a residual is NaN, or the level not between 0 and 1.

    Reference: R. F. Barber, E. J. Candès, A. Ramdas, R. J. Tibshirani, Predictive inference with the jackknife+,
    Annals of Statistics 49 (2021).
    """
    check_level(level)
    check_choice(spread, SPREADS, what="spread")
    check_rows(distribution, target)
    if target.dim() != 1 or fold.shape != target.shape:
        raise ShapeError(
            f"the target has shape {shape_text(target)}, the folds {shape_text(fold)}; expected (rows,) for both."
        )
    if len(target) < least_rows(level):
        raise InputError(
            f"{len(target)} rows give no finite interval at the level {level:g}: it takes at least {least_rows(level)}."
        )
    numbers = fold.unique().tolist()
    if fold.is_floating_point() or numbers != list(range(len(numbers))):
        raise InputError(f"the folds are numbered {numbers}; expected every whole number from 0 up.")
    scores = scaled_residuals(distribution, target, spread)
    if not bool(scores.isfinite().all()):
        raise DomainError("fit_cross_conformal: a residual is NaN or infinite. Fix: leave out rows without target.")
    return CrossConformal(level, nested(scores), tuple(int(k) for k in fold.tolist()), spread)


def cross_conformal_interval(
    center: Tensor, spread: Tensor, scores: Tensor, fold: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """The CV+ interval from every fold's center and spread, ``(folds, ...)``, and the scores and folds of n rows.

    Infinite on both sides where n is below ``least_rows(level)``.
    """
    rows = len(scores)
    rank = math.ceil((rows + 1) * level - _ROUNDING)
    shape = center.shape[1:]
    if rank > rows:
        return center.new_full(shape, -torch.inf), center.new_full(shape, torch.inf)
    flat, widths = center.reshape(len(center), -1), spread.reshape(len(center), -1)
    lows, highs = [], []
    size = max(1, _CHUNK // rows)
    for middle, width in zip(flat.split(size, dim=1), widths.split(size, dim=1), strict=True):
        reach = scores.unsqueeze(-1) * width[fold]
        # The k-th smallest from below is the (n + 1 − k)-th from above: ⌊(n + 1)(1 − level)⌋ = n + 1 − ⌈(n + 1) level⌉.
        lows.append((middle[fold] - reach).kthvalue(rows + 1 - rank, dim=0).values)
        highs.append((middle[fold] + reach).kthvalue(rank, dim=0).values)
    return torch.cat(lows).reshape(shape), torch.cat(highs).reshape(shape)
