"""The conformal quantile: from scores of held-out rows to a bound that the next row's score keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.checks import DomainError, InputError
from lastlayer.uncertainty.weighting import as_rows

# A rank like (n + 1)·level is a whole number up to rounding: 10 · 0.7 is not to become 8.
_ROUNDING = 1e-9


def check_level(level: float) -> None:
    """The level is a share strictly between 0 and 1.

    Raises:
        DomainError: naming the level.
    """
    if not 0.0 < level < 1.0:
        raise DomainError(f"the level is {level!r}; expected a share between 0 and 1, such as 0.9.")


def least_rows(level: float) -> int:
    """How many held-out rows a finite bound needs: the least n with ``⌈(n + 1) level⌉ ≤ n``.

    Raises:
        DomainError: if the level does not lie strictly between 0 and 1.

    Example:
        >>> least_rows(0.9), least_rows(0.95), least_rows(0.99)
        (9, 19, 99)
    """
    check_level(level)
    return math.ceil(level / (1.0 - level) - _ROUNDING)


def conformal_quantile(
    scores: Tensor, level: float, *, sample_weight: Tensor | None = None, test_weight: float | None = None
) -> Tensor:
    """The bound that a further row's score stays within, with probability ``level`` at least.

    Domain: scores are real numbers; +∞ may be among them.

    Formula: the k-th smallest of n scores with ``k = ⌈(n + 1) level⌉``, +∞ for k > n. With weights the least score s
    with ``Σ_{sᵢ ≤ s} wᵢ ≥ level (Σ wᵢ + w_test)``.

    Shapes: scores ``(n, ...)``, a bound ``(...)`` for each column; ``sample_weight`` ``(n,)``.

    Special cases: +∞ where there are fewer rows than :func:`least_rows`: so few say nothing about the level. The
    guarantee holds for exchangeable rows, for the average over held-out sets; weights keep it only if they are the
    likelihood ratios of the new rows' inputs against the held-out ones', and ``test_weight`` the new row's. Left out,
    that is the largest weight.

    Raises:
        ShapeError: if the scores have no axis of rows, or there is not one weight per row.
        InputError: if there is no row, or all weights are zero.
        DomainError: if the level is not between 0 and 1, a score is NaN, or a weight negative, infinite or NaN.

    Example:
        >>> conformal_quantile(torch.arange(1.0, 10.0), 0.9), conformal_quantile(torch.arange(1.0, 9.0), 0.9)
        (tensor(9.), tensor(inf))

    Reference: V. Vovk, A. Gammerman, G. Shafer, Algorithmic learning in a random world, Springer (2005); with weights:
    R. J. Tibshirani et al., Conformal prediction under covariate shift, NeurIPS (2019).
    """
    check_level(level)
    flat, weight = as_rows(scores, sample_weight, what="conformal_quantile")
    counted = weight > 0
    flat, weight = flat[counted], weight[counted]
    if bool(flat.isnan().any()):
        raise DomainError("conformal_quantile: a score is NaN. Fix: leave out rows without target or prediction.")
    further = float(weight.max()) if test_weight is None else test_weight
    if not (math.isfinite(further) and further > 0):
        raise DomainError(f"conformal_quantile: test_weight is {test_weight!r}; expected a positive number.")
    ordered, order = flat.sort(dim=0)
    reached = weight[order].cumsum(dim=0)
    needed = level * (reached[-1] + further)
    place = (reached < needed * (1.0 - _ROUNDING)).sum(dim=0, keepdim=True)
    padded = torch.cat([ordered, torch.full_like(ordered[:1], torch.inf)])
    return padded.gather(0, place).reshape(scores.shape[1:]).to(scores.dtype)


def finite_bound(bound: Tensor, level: float, rows: int) -> Tensor:
    """The bound itself, which no further row's infinite score made.

    Raises:
        InputError: if it is infinite: there were too few rows, and how many are needed.
    """
    if bool(bound.isfinite().all()):
        return bound
    raise InputError(
        f"{rows} held-out rows give no finite bound at the level {level:g}: it takes at least {least_rows(level)} rows "
        f"of equal weight (more if weights differ) and finite scores. Fix: hold out more rows, or lower the level."
    )
