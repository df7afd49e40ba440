"""Squared log loss."""

from __future__ import annotations

from torch import Tensor

from lastlayer.evaluation import OfIndex, TrueClass, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import (
    Softmax,
    SoftmaxFormula,
    class_example,
    classes_last,
)
from lastlayer.losses.loss import Loss


class SquaredLogFormula(SoftmaxFormula):
    """``Σ_j (y_j log p_j)²`` with p the softmax; for a class index ``(log p_y)²``."""

    facts = LossFacts(
        name="squared_log",
        title="squared log loss (square of the cross-entropy)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="Σ_j (y_j log softmax(s)_j)²; for a class index (log p_y)²",
        gradient="u − p Σ_k u_k with p = softmax(s), u = 2 y² log p; for a class index −2 log p_y (p − onehot(y))",
        minimum="0 for a class index, reached at infinity; not at softmax(s) = y for class probabilities",
        optimal_constant="none in closed form: the probabilities solve −log p_j / p_j ∝ 1/f_j for class frequencies f; "
        "the logarithm of the class frequencies is where to start",
        convex=True,
        smooth=True,
        likelihood=None,
        use_when="the samples that are most wrong should count more than cross-entropy has them count",
        avoid_when="labels may be wrong, or probabilities are wanted: it is no proper score, and doubt costs it little",
        reference="SPEC B10; K. Janocha and W. M. Czarnecki, Schedae Informaticae 25 (2016)",
        example=class_example,
        proper=False,
        exact_constant=False,
    )

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        log = true.log_one
        slope = -2.0 * log
        return OfIndex(log * log, -slope * true.rest, slope)

    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        return ((target * softmax.log()) ** 2).sum(-1)

    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        return 2.0 * target * target * softmax.log()


def squared_log(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Squared log loss: for a class index the square of the cross-entropy.

    The log loss itself, ``−Σ_j y_j log p_j``, is :func:`lastlayer.losses.cross_entropy`.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``Σ_j (y_j log p_j)²`` with p the softmax; for a class index ``(log p_y)²``. The paper's table prints a
    minus sign before the sum, which would be unbounded below.

    Gradient: ``u − p Σ_k u_k`` with ``u = 2 y² log p``; for a class index ``−2 log p_y (p − onehot(y))``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``. Units: nats, squared.

    Numerics: where p_y is close to 1 its logarithm comes from the sum of the other probabilities.

    Special cases: for class probabilities the least value is not at ``p = y``.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> import torch
        >>> squared_log(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.4805)

    Reference: SPEC B10.
    """
    return evaluate(
        SquaredLogFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class SquaredLog(Loss):
    """Module form of :func:`squared_log`, classes on the last axis."""

    @property
    def formula(self) -> SquaredLogFormula:
        """The mathematics."""
        return SquaredLogFormula()
