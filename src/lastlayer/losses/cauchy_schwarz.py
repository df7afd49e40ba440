"""Cauchy–Schwarz divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import (
    ClassFormula,
    class_example,
    classes_last,
    log_softmax,
    softmax,
)
from lastlayer.losses.cross_entropy import CrossEntropyFormula
from lastlayer.losses.loss import Loss

_HALF = CrossEntropyFormula(ignore_index=None)


class CauchySchwarzFormula(ClassFormula):
    """``−log( p·y / (|p| |y|) )`` with p the softmax.

    In the logarithm of the normalized prediction, ``log p/|p| = ½ log softmax(2s)``, so for a class index it is half
    the cross-entropy of twice the scores.
    """

    facts = LossFacts(
        name="cauchy_schwarz",
        title="Cauchy–Schwarz divergence (negative log cosine of probabilities)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="−log( p·y / (|p| |y|) ) with p = softmax(s); for a class index −s_y + ½ logsumexp(2s)",
        gradient="softmax(2s) − p∘y / (p·y) with p = softmax(s); for a class index softmax(2s) − onehot(y)",
        minimum="0, at softmax(s) = y, for a class index reached at infinity",
        optimal_constant="half the logarithm of the class frequencies, for class indices and one-hot targets",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="a soft target's direction counts and not its size; for class indices it is ½ cross_entropy(2s, y)",
        avoid_when="softmax(s) is read as probabilities: for class indices softmax(2s) has them",
        reference="SPEC B12; R. Jenssen et al., J. Franklin Institute 343 (2006)",
        example=class_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            return 0.5 * _HALF.value(2.0 * raw, target)
        log_overlap, known = _log_overlap(raw, target)
        log_size = 0.5 * torch.where(known, (target * target).sum(-1, keepdim=True), 1.0).log()
        value = log_size - torch.logsumexp(log_overlap, dim=-1, keepdim=True)
        return torch.where(known, value, 0.0).squeeze(-1)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """For class probabilities the difference of two softmaxes."""
        if not target.is_floating_point():
            value, gradient = _HALF.value_and_gradient(2.0 * raw, target)
            return 0.5 * value, gradient
        log_overlap, known = _log_overlap(raw, target)
        gradient = softmax(2.0 * raw) - softmax(log_overlap)
        return self.value(raw, target), torch.where(known, gradient, 0.0)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """Class indices as cross-entropy has them."""
        if target.is_floating_point():
            return super().value_into(raw, target, gradient)
        torch.mul(raw, 2.0, out=gradient)
        return 0.5 * _HALF.value_into(gradient, target, gradient)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return 0.5 * super().optimal_constant(target, sample_weight)


def _log_overlap(raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """``log( y_j p_j/|p| )``, and whether the target has a direction: all of zeros it has none, and counts nothing."""
    known = (target > 0.0).any(-1, keepdim=True)
    return 0.5 * log_softmax(2.0 * raw) + torch.where(known, target, 1.0).log(), known


def cauchy_schwarz(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Cauchy–Schwarz divergence: minus the logarithm of the cosine between the softmax and the target.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``−log( p·y / (|p| |y|) )`` with p the softmax; for a class index ``−s_y + ½ logsumexp(2s)``.

    Gradient: ``softmax(2s) − p∘y / (p·y)``; for a class index ``softmax(2s) − onehot(y)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``. Units: nats.

    Numerics: in logarithms throughout, so that a prediction that misses the target altogether still has a gradient.

    Special cases: for a class index it is half the cross-entropy of 2s, and convex; for class probabilities it is not.
    A target of zeros only has no direction: value and gradient are 0.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> cauchy_schwarz(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.3466)

    Reference: SPEC B12.
    """
    return evaluate(
        CauchySchwarzFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class CauchySchwarz(Loss):
    """Module form of :func:`cauchy_schwarz`, classes on the last axis."""

    @property
    def formula(self) -> CauchySchwarzFormula:
        """The mathematics."""
        return CauchySchwarzFormula()
