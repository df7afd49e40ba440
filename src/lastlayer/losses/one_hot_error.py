"""Distances between raw scores and the one-hot target: L1 and L2 loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import ClassFormula, class_example, class_frequencies, classes_last
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import weighted_quantile

_PAPER = "K. Janocha and W. M. Czarnecki, Schedae Informaticae 25 (2016)"


def _error(raw: Tensor, target: Tensor) -> Tensor:
    """``s − y``: for class indices 1 less in one place."""
    if target.is_floating_point():
        return raw - target
    index = target.unsqueeze(-1)
    return raw.scatter_add(-1, index, raw.new_full(index.shape, -1.0))


def _error_into(raw: Tensor, target: Tensor, place: Tensor) -> Tensor:
    """The same into a place, which may be ``raw`` itself."""
    if target.is_floating_point():
        return torch.sub(raw, target, out=place)
    index = target.unsqueeze(-1)
    return place.copy_(raw).scatter_add_(-1, index, raw.new_full(index.shape, -1.0))


class L1Formula(ClassFormula):
    """``Σ_j |s_j − y_j|``."""

    facts = LossFacts(
        name="l1",
        title="L1 loss on one-hot targets",
        target=None,
        raw=REAL,
        link="identity",
        formula="Σ_j |s_j − y_j|",
        gradient="sign(s − y), 0 where both are equal",
        minimum="0, at s = y",
        optimal_constant="the median of each class's y: 1 for a class of more than half the samples, else 0",
        convex=True,
        smooth=False,
        likelihood="Laplace with fixed scale around each score",
        use_when="scores are compared with one-hot rows and outliers should not rule the fit",
        avoid_when="classes are many: the score 0 for every class is then hard to leave",
        reference=f"SPEC B7; {_PAPER}",
        example=class_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return _error(raw, target).abs().sum(-1)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the error."""
        error = _error(raw, target)
        return error.abs().sum(-1), torch.sign(error)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """The same in place."""
        error = _error_into(raw, target, gradient)
        value = error.abs().sum(-1)
        error.sign_()
        return value

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        class_frequencies(target, sample_weight, loss="l1")
        return weighted_quantile(target, sample_weight, 0.5)


class L2Formula(ClassFormula):
    """``Σ_j (s_j − y_j)²``."""

    facts = LossFacts(
        name="l2",
        title="L2 loss on one-hot targets (squared distance)",
        target=None,
        raw=REAL,
        link="identity",
        formula="Σ_j (s_j − y_j)²",
        gradient="2 (s − y)",
        minimum="0, at s = y",
        optimal_constant="the class frequencies: the mean of y",
        convex=True,
        smooth=True,
        likelihood="Gaussian with fixed scale around each score",
        use_when="scores should estimate class probabilities by least squares, and convexity matters",
        avoid_when="samples far on the right side should cost nothing: a score of 3 for the true class costs 4",
        reference=f"SPEC B7; {_PAPER}",
        example=class_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (_error(raw, target) ** 2).sum(-1)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the error."""
        error = _error(raw, target)
        return (error * error).sum(-1), 2.0 * error

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """The same in place."""
        error = _error_into(raw, target, gradient)
        value = (error * error).sum(-1)
        error.mul_(2.0)
        return value

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return class_frequencies(target, sample_weight, loss="l2")


def l1(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """L1 loss of class scores: the sum of absolute differences from the one-hot target.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: identity.

    Formula: ``‖s − y‖₁ = Σ_j |s_j − y_j|``, summed over the classes. For quantities see
    :func:`lastlayer.losses.absolute_error`.

    Gradient: ``sign(s − y)``, and 0 where both are equal, a subgradient.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> l1(torch.tensor([[0.5, 0.25, -1.0]]), torch.tensor([0]))
        tensor(1.7500)

    Reference: SPEC B7.
    """
    return evaluate(
        L1Formula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def l2(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """L2 loss of class scores: the sum of squared differences from the one-hot target.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: identity.

    Formula: ``‖s − y‖₂² = Σ_j (s_j − y_j)²``: the squared norm, as the paper has it, with neither root nor ½, summed
    over the classes. For quantities see :func:`lastlayer.losses.squared_error`.

    Gradient: ``2 (s − y)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> l2(torch.tensor([[0.5, 0.0, -1.0]]), torch.tensor([0]))
        tensor(1.2500)

    Reference: SPEC B7.
    """
    return evaluate(
        L2Formula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class L1(Loss):
    """Module form of :func:`l1`, classes on the last axis."""

    @property
    def formula(self) -> L1Formula:
        """The mathematics."""
        return L1Formula()


class L2(Loss):
    """Module form of :func:`l2`, classes on the last axis."""

    @property
    def formula(self) -> L2Formula:
        """The mathematics."""
        return L2Formula()
