"""Tanimoto loss."""

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


class TanimotoFormula(SoftmaxFormula):
    """``−p·y / (|p|² + |y|² − p·y)`` with p the softmax; its denominator is ``|p − y|² + p·y``."""

    facts = LossFacts(
        name="tanimoto",
        title="Tanimoto loss (negative Jaccard index of probabilities)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="−p·y / (|p|² + |y|² − p·y) with p = softmax(s); for a class index −p_y / (|p|² + 1 − p_y)",
        gradient="p_j (v_j − Σ_k p_k v_k) with v = (2 (p·y) (p − y) − |p − y|² y) / (|p − y|² + p·y)²",
        minimum="−1, at softmax(s) = y, for a class index reached at infinity",
        optimal_constant="none in closed form; the logarithm of the class frequencies is where to start",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="the overlap of prediction and target is what counts, and labels may be wrong",
        avoid_when="the network starts far off or probabilities are wanted: the gradient vanishes where p_y is near 0",
        reference="SPEC B11; K. Janocha and W. M. Czarnecki, Schedae Informaticae 25 (2016)",
        example=class_example,
        exact_constant=False,
    )

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        # |p|² + 1 − p_y is 1 − p_y (1 − p_y) + Σ_{j≠y} p_j²: never below 3/4.
        squares = true.squares
        union = 1.0 - true.one * true.rest + squares
        scale = true.one / (union * union)
        pull = true.rest * (1.0 + true.one) + squares
        return OfIndex(
            value=-true.one / union,
            at_true=-scale * (pull * true.rest + 2.0 * true.one * squares),
            linear=scale * (pull - 2.0 * squares),
            quadratic=2.0 * scale,
        )

    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        overlap, distance = _overlap_and_distance(softmax, target)
        return -(overlap / (distance + overlap)).squeeze(-1)

    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        overlap, distance = _overlap_and_distance(softmax, target)
        pull = 2.0 * overlap * softmax.minus(target) - distance * target
        return softmax.probability * pull / (distance + overlap) ** 2


def _overlap_and_distance(softmax: Softmax, target: Tensor) -> tuple[Tensor, Tensor]:
    """``p·y`` and ``|p − y|²``, shape (..., 1)."""
    overlap = (softmax.probability * target).sum(-1, keepdim=True)
    return overlap, (softmax.minus(target) ** 2).sum(-1, keepdim=True)


def tanimoto(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Tanimoto loss: minus the overlap of the softmax and the target over their union.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``−p·y / (|p|² + |y|² − p·y)`` with p the softmax; for a class index ``−p_y / (|p|² + 1 − p_y)``.

    Gradient: ``p_j (v_j − Σ_k p_k v_k)`` with ``v = (2 (p·y) (p − y) − |p − y|² y) / (|p − y|² + p·y)²``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, from −1 (best) to 0.

    Numerics: the denominator as ``|p − y|² + p·y``, in which nothing cancels.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> import torch
        >>> tanimoto(torch.zeros(1, 2), torch.tensor([0]))
        tensor(-0.5000)

    Reference: SPEC B11.
    """
    return evaluate(
        TanimotoFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Tanimoto(Loss):
    """Module form of :func:`tanimoto`, classes on the last axis."""

    @property
    def formula(self) -> TanimotoFormula:
        """The mathematics."""
        return TanimotoFormula()
