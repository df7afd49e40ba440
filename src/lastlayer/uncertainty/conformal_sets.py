"""Split conformal sets of classes, and for each of several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lastlayer.checks import ShapeError, check_choice
from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.class_probabilities import class_index, class_probabilities
from lastlayer.uncertainty.conformal import check_level, conformal_quantile, finite_bound
from lastlayer.uncertainty.conformal_intervals import as_row, check_rows
from lastlayer.uncertainty.state import State, nested

METHODS = ("least_ambiguous", "adaptive")


@dataclass(frozen=True)
class ConformalSets(State):
    """Sets of classes that hold the true one with a given probability, at least, on average.

    Attributes:
        level: that probability.
        threshold: the largest score that a class of the set has; one number for each element of a row (label).
        method: ``"least_ambiguous"`` or ``"adaptive"``, as :func:`fit_class_sets` says.
        randomized: whether the score of a class is drawn.
    """

    level: float
    threshold: Any
    method: str
    randomized: bool
    name: ClassVar[str] = "conformal_sets"

    def __post_init__(self) -> None:
        check_level(self.level)
        check_choice(self.method, METHODS, what="method")

    def sets(
        self, distribution: Distribution, *, allow_empty: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Whether each class belongs to the set: boolean ``(*shape, classes)``; of labels the last axis is 0, then 1.

        Args:
            distribution: of classes or labels, rows shaped as those fitted on.
            allow_empty: leave sets empty where no class keeps the threshold; else they get the likeliest class.
            generator: for randomized scores.

        Raises:
            ShapeError: if the distribution's rows are not shaped as those that the threshold was fitted on.
            KindError: if the distribution is not over classes.
        """
        probability = class_probabilities(distribution)
        scores = _scores(probability, self.method, self.randomized, generator)
        inside = scores <= as_row(self.threshold, distribution).unsqueeze(-1)
        if allow_empty:
            return inside
        likeliest = torch.nn.functional.one_hot(probability.argmax(dim=-1), probability.shape[-1]).bool()
        return inside | (likeliest & ~inside.any(dim=-1, keepdim=True))


def fit_class_sets(
    distribution: Distribution,
    target: Tensor,
    level: float,
    *,
    method: str = "least_ambiguous",
    randomized: bool = False,
    sample_weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> ConformalSets:
    """Conformal sets of classes, from held-out rows; of several labels a set for each.

    Domain: distributions over classes or labels; targets are their classes.

    Formula: a class belongs to the set if its score is at most the :func:`conformal_quantile` of the true classes'
    scores. The score is ``1 − p_k`` for the ``"least_ambiguous"`` sets, which are the smallest on average; for the
    ``"adaptive"`` sets, larger where the prediction is unsure, it is what the likelier classes and itself add up to,
    ``Σ_{p_j > p_k} p_j + p_k``; ``randomized`` draws u uniform on [0, 1) and takes u p_k for the last term, which
    gives smaller sets, and the level exactly.

    Shapes: the distribution's first axis is that of the rows; each element of a row (label) gets a threshold of its
    own. ``sample_weight`` ``(n,)``; what weights are worth says :func:`conformal_quantile`.

    Special cases: of equally likely classes the first counts as the likelier one. The guarantee is an average over
    classes, not one for each.

    Raises:
        KindError: if the distribution is not over classes.
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there are too few rows for the level, the method is no choice, ``randomized`` is asked of the
            least ambiguous sets, or all weights are zero.
        DomainError: if the level is not between 0 and 1, a target names no class, or a weight is negative, infinite
            or NaN.

    Reference: M. Sadinle, J. Lei, L. Wasserman, Least ambiguous set-valued classifiers with bounded error levels,
    J. American Statistical Association 114 (2019); Y. Romano, M. Sesia, E. J. Candès, Classification with valid and
    adaptive coverage, NeurIPS (2020).
    """
    check_level(level)
    check_choice(method, METHODS, what="method")
    if randomized:
        check_choice(method, ("adaptive",), what="the method of randomized sets")
    check_rows(distribution, target)
    index = class_index(distribution, target).unsqueeze(-1)
    scores = _scores(class_probabilities(distribution), method, randomized, generator).gather(-1, index).squeeze(-1)
    bound = finite_bound(conformal_quantile(scores, level, sample_weight=sample_weight), level, len(scores))
    return ConformalSets(level, nested(bound), method, randomized)


def _scores(probability: Tensor, method: str, randomized: bool, generator: torch.Generator | None) -> Tensor:
    """Of every class, shape (*shape, classes)."""
    if method == "least_ambiguous":
        return 1.0 - probability
    ordered, order = probability.sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(dim=-1)
    if randomized:
        # One draw a row: a class is in or out together with the others.
        draw = torch.rand(
            probability.shape[:-1], dtype=probability.dtype, device=probability.device, generator=generator
        )
        reached = reached - (1.0 - draw.unsqueeze(-1)) * ordered
    return torch.empty_like(reached).scatter(-1, order, reached)


def set_sizes(sets: Tensor) -> Tensor:
    """How many classes each set holds: what conformal sets are compared by.

    Raises:
        ShapeError: if there is no axis of classes.

    Example:
        >>> set_sizes(torch.tensor([[True, False, True]]))
        tensor([2])
    """
    if not sets.dim():
        raise ShapeError("the sets have shape (); expected (..., classes).")
    return sets.sum(dim=-1)
