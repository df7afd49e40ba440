"""Distances between class probabilities and the target: expectation, regularized expectation and Chebyshev loss."""

from __future__ import annotations

import torch
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

_PAPER = "K. Janocha and W. M. Czarnecki, Schedae Informaticae 25 (2016)"


class ExpectationFormula(SoftmaxFormula):
    """``Σ_j |p_j − y_j|`` with p the softmax; for a class index ``2 (1 − p_y)``."""

    facts = LossFacts(
        name="expectation",
        title="expectation loss (L1 distance of probabilities)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="Σ_j |softmax(s)_j − y_j|; for a class index 2 (1 − p_y)",
        gradient="p_j (v_j − Σ_k p_k v_k), p = softmax(s), v = sign(p − y); for a class index 2 p_y (p − onehot(y))",
        minimum="0, at softmax(s) = y, for a class index reached at infinity",
        optimal_constant="none: the loss keeps falling as the most frequent class takes all the probability; "
        "the logarithm of the class frequencies is where to start",
        convex=False,
        smooth=False,
        likelihood=None,
        use_when="labels may be wrong: no sample costs more than 2, and a hopeless one pulls on nothing",
        avoid_when="the network starts far off or probabilities are wanted: the gradient vanishes where p_y is near 0",
        reference=f"SPEC B8; {_PAPER}",
        example=class_example,
        exact_constant=False,
    )

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        slope = 2.0 * true.one
        return OfIndex(2.0 * true.rest, -slope * true.rest, slope)

    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        return softmax.minus(target).abs().sum(-1)

    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        return softmax.probability * torch.sign(softmax.minus(target))


class RegularizedExpectationFormula(SoftmaxFormula):
    """``Σ_j (p_j − y_j)²`` with p the softmax; for a class index ``(1 − p_y)² + Σ_{j≠y} p_j²``."""

    facts = LossFacts(
        name="regularized_expectation",
        title="regularized expectation loss (squared distance of probabilities, multiclass Brier score)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="Σ_j (softmax(s)_j − y_j)²",
        gradient="p_j (v_j − Σ_k p_k v_k) with p = softmax(s), v = 2 (p − y)",
        minimum="0, at softmax(s) = y, for a class index reached at infinity",
        optimal_constant="the logarithm of the class frequencies",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="probabilities are wanted and labels may be wrong: a proper score, and never above 2",
        avoid_when="the network starts far off: the gradient vanishes where p_y is near 0",
        reference=f"SPEC B8; G. W. Brier, Monthly Weather Review 78 (1950); {_PAPER}",
        example=class_example,
    )

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        squares = true.squares
        value = squares + true.rest * true.rest
        return OfIndex(value, -2.0 * true.one * value, 2.0 * (true.one * true.rest - squares), 2.0)

    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        return (softmax.minus(target) ** 2).sum(-1)

    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        return 2.0 * softmax.probability * softmax.minus(target)


class ChebyshevFormula(SoftmaxFormula):
    """``max_j |p_j − y_j|`` with p the softmax; for a class index ``1 − p_y``, half the expectation loss."""

    facts = LossFacts(
        name="chebyshev",
        title="Chebyshev loss (largest difference of probabilities)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="max_j |softmax(s)_j − y_j|; for a class index 1 − p_y",
        gradient="sign(p_m − y_m) p_m (onehot(m) − p) with p = softmax(s), m the class of the largest difference",
        minimum="0, at softmax(s) = y, for a class index reached at infinity",
        optimal_constant="none: the loss keeps falling as the most frequent class takes all the probability; "
        "the logarithm of the class frequencies is where to start",
        convex=False,
        smooth=False,
        likelihood=None,
        use_when="the worst class of a soft target counts; for class indices it is half the expectation loss",
        avoid_when="every class of a soft target should learn from every sample, or the network starts far off",
        reference=f"SPEC B8; {_PAPER}",
        example=class_example,
        exact_constant=False,
    )

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        # No other class differs by more than the sum of them all.
        return OfIndex(true.rest, -true.one * true.rest, true.one)

    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        difference = softmax.minus(target)
        return difference.gather(-1, _largest(difference)).abs().squeeze(-1)

    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        difference = softmax.minus(target)
        largest = _largest(difference)
        at_largest = torch.sign(difference.gather(-1, largest)) * softmax.probability.gather(-1, largest)
        return torch.zeros_like(difference).scatter(-1, largest, at_largest)


def _largest(difference: Tensor) -> Tensor:
    return difference.abs().argmax(-1, keepdim=True)


def expectation(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Expectation loss: the L1 distance between the softmax and the target.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``Σ_j |p_j − y_j|`` with p the softmax. For a class index it is ``2 (1 − p_y)``, twice the expected 0-1
    error of a label drawn from p: hence the name.

    Gradient: ``p_j (v_j − Σ_k p_k v_k)`` with ``v = sign(p − y)``, 0 where both are equal; for a class index
    ``2 p_y (p − onehot(y))``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, from 0 to 2.

    Numerics: ``1 − p_y`` is the sum of the others, exact where p_y rounds to 1.

    Special cases: no constant is best. As all the probability goes to the most frequent class the mean falls towards
    twice the share of the others, and never reaches it.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> scores = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> expectation(scores, torch.tensor([0, 0]), reduction="none")
        tensor([1.0000, 0.2384])

    Reference: SPEC B8.
    """
    return evaluate(
        ExpectationFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def regularized_expectation(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Regularized expectation loss: the squared distance between the softmax and the target, the Brier score.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``Σ_j (p_j − y_j)²`` with p the softmax: for a class index the expectation loss plus ``Σ_j p_j² − 1``.

    Gradient: ``p_j (v_j − Σ_k p_k v_k)`` with ``v = 2 (p − y)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, from 0 to 2.

    Numerics: ``1 − p_y`` is the sum of the others, exact where p_y rounds to 1.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> scores = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> regularized_expectation(scores, torch.tensor([0, 0]), reduction="none")
        tensor([0.5000, 0.0284])

    Reference: SPEC B8.
    """
    return evaluate(
        RegularizedExpectationFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def chebyshev(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Chebyshev loss: the largest difference between the softmax and the target.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: softmax, inside.

    Formula: ``max_j |p_j − y_j|`` with p the softmax; for a class index ``1 − p_y``, half the expectation loss.

    Gradient: ``sign(p_m − y_m) p_m (onehot(m) − p)`` with m the class of the largest difference, the first of several.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, from 0 to 1.

    Numerics: ``1 − p_y`` is the sum of the others, exact where p_y rounds to 1.

    Special cases: no constant is best, as for :func:`expectation`.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.

    Example:
        >>> chebyshev(torch.zeros(1, 3), torch.tensor([[0.5, 0.25, 0.25]]))
        tensor(0.1667)

    Reference: SPEC B8.
    """
    return evaluate(
        ChebyshevFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Expectation(Loss):
    """Module form of :func:`expectation`, classes on the last axis."""

    @property
    def formula(self) -> ExpectationFormula:
        """The mathematics."""
        return ExpectationFormula()


class RegularizedExpectation(Loss):
    """Module form of :func:`regularized_expectation`, classes on the last axis."""

    @property
    def formula(self) -> RegularizedExpectationFormula:
        """The mathematics."""
        return RegularizedExpectationFormula()


class Chebyshev(Loss):
    """Module form of :func:`chebyshev`, classes on the last axis."""

    @property
    def formula(self) -> ChebyshevFormula:
        """The mathematics."""
        return ChebyshevFormula()
