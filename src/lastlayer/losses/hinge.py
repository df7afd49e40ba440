"""Hinge losses of class scores, one against the rest: hinge, squared hinge and cubed hinge."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import ClassFormula, class_example, class_frequencies, classes_last
from lastlayer.losses.loss import Loss
from lastlayer.losses.options import NOT_NEGATIVE, check_option

_PAPER = "K. Janocha and W. M. Czarnecki, Schedae Informaticae 25 (2016)"


@dataclass(frozen=True)
class _HingePowerFormula(ClassFormula):
    """A power of ``max(0, margin − ŷ_j s_j)``, summed over the classes, with ``ŷ = 2y − 1``."""

    margin: float = 0.5

    def __post_init__(self) -> None:
        check_option(self.margin, NOT_NEGATIVE, what=f"{self.facts.name}: margin")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._cost(torch.relu(_against(raw, target) + self.margin)).sum(-1)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from what is missing to the margin."""
        missing = torch.relu(_against(raw, target) + self.margin)
        # A score counts against the margin with the sign of −ŷ, and so does its derivative.
        return self._cost(missing).sum(-1), _against(self._slope(missing), target)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """The same in place."""
        missing = _against_into(raw, target, gradient).add_(self.margin).relu_()
        value = self._cost(missing).sum(-1)
        self._turn_into_slope(missing)
        _against_into(missing, target, missing)
        return value

    @abstractmethod
    def _cost(self, missing: Tensor) -> Tensor:
        """The power of what is missing."""

    @abstractmethod
    def _slope(self, missing: Tensor) -> Tensor:
        """Its derivative, 0 where nothing is missing."""

    @abstractmethod
    def _turn_into_slope(self, missing: Tensor) -> None:
        """The same in place."""


def _against(raw: Tensor, target: Tensor) -> Tensor:
    """``−ŷ s``: the scores, for class indices with the true class's sign turned."""
    if target.is_floating_point():
        return (1.0 - 2.0 * target) * raw
    index = target.unsqueeze(-1)
    return raw.scatter(-1, index, -raw.gather(-1, index))


def _against_into(raw: Tensor, target: Tensor, place: Tensor) -> Tensor:
    """The same into a place, which may be ``raw`` itself."""
    if target.is_floating_point():
        return torch.addcmul(raw, raw, target, value=-2.0, out=place)
    index = target.unsqueeze(-1)
    turned = -raw.gather(-1, index)
    return place.copy_(raw).scatter_(-1, index, turned)


class HingeFormula(_HingePowerFormula):
    """``Σ_j max(0, margin − ŷ_j s_j)`` with ``ŷ = 2y − 1``."""

    facts = LossFacts(
        name="hinge",
        title="hinge loss (margin loss, one class against the rest)",
        target=None,
        raw=REAL,
        link="sign",
        formula="Σ_j max(0, ½ − ŷ_j s_j), ŷ = 2y − 1",
        gradient="−ŷ_j where ŷ_j s_j < ½, else 0",
        minimum="0, for a class index wherever ŷ_j s_j ≥ ½ for every class j",
        optimal_constant="for one-hot targets ½ for a class of more than half the samples, else −½",
        convex=True,
        smooth=False,
        likelihood=None,
        use_when="only the decision counts: samples beyond the margin are left alone",
        avoid_when="probabilities are wanted: the best scores tell which class is ahead, not by how much",
        reference=f"SPEC B9; C. Cortes and V. Vapnik, Machine Learning 20 (1995); {_PAPER}",
        example=class_example,
        proper=False,
    )

    def _cost(self, missing: Tensor) -> Tensor:
        return missing

    def _slope(self, missing: Tensor) -> Tensor:
        return torch.sign(missing)

    def _turn_into_slope(self, missing: Tensor) -> None:
        missing.sign_()

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.margin * torch.sign(class_frequencies(target, sample_weight, loss="hinge") - 0.5)


class SquaredHingeFormula(_HingePowerFormula):
    """``Σ_j max(0, margin − ŷ_j s_j)²`` with ``ŷ = 2y − 1``."""

    facts = LossFacts(
        name="squared_hinge",
        title="squared hinge loss",
        target=None,
        raw=REAL,
        link="sign",
        formula="Σ_j max(0, ½ − ŷ_j s_j)², ŷ = 2y − 1",
        gradient="−2 ŷ_j max(0, ½ − ŷ_j s_j)",
        minimum="0, for a class index wherever ŷ_j s_j ≥ ½ for every class j",
        optimal_constant="for one-hot targets ½ (2f − 1) with f the class frequencies",
        convex=True,
        smooth=True,
        likelihood=None,
        use_when="the decision counts and a gradient without jumps is wanted",
        avoid_when="some labels are far off: their cost grows with the square of the score",
        reference=f"SPEC B9; {_PAPER}",
        example=class_example,
        proper=False,
    )

    def _cost(self, missing: Tensor) -> Tensor:
        return missing**2

    def _slope(self, missing: Tensor) -> Tensor:
        return 2.0 * missing

    def _turn_into_slope(self, missing: Tensor) -> None:
        missing.mul_(2.0)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.margin * (2.0 * class_frequencies(target, sample_weight, loss="squared_hinge") - 1.0)


class CubedHingeFormula(_HingePowerFormula):
    """``Σ_j max(0, margin − ŷ_j s_j)³`` with ``ŷ = 2y − 1``."""

    facts = LossFacts(
        name="cubed_hinge",
        title="cubed hinge loss",
        target=None,
        raw=REAL,
        link="sign",
        formula="Σ_j max(0, ½ − ŷ_j s_j)³, ŷ = 2y − 1",
        gradient="−3 ŷ_j max(0, ½ − ŷ_j s_j)²",
        minimum="0, for a class index wherever ŷ_j s_j ≥ ½ for every class j",
        optimal_constant="for one-hot targets ½ (√f − √(1 − f)) / (√f + √(1 − f)) with f the class frequencies",
        convex=True,
        smooth=True,
        likelihood=None,
        use_when="the samples that are most wrong should be put right first",
        avoid_when="labels may be wrong or training is in half precision: cost and gradient grow steeply",
        reference=f"SPEC B9; {_PAPER}",
        example=class_example,
        proper=False,
    )

    def _cost(self, missing: Tensor) -> Tensor:
        return missing**3

    def _slope(self, missing: Tensor) -> Tensor:
        return 3.0 * missing * missing

    def _turn_into_slope(self, missing: Tensor) -> None:
        missing.square_().mul_(3.0)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # Both means, not 1 − mean: a rounded mean may exceed 1, and its complement would have no root.
        present = class_frequencies(target, sample_weight, loss="cubed_hinge").sqrt()
        absent = class_frequencies(1.0 - target, sample_weight, loss="cubed_hinge").sqrt()
        return self.margin * (present - absent) / (present + absent)


def hinge(
    raw: Tensor,
    target: Tensor,
    *,
    margin: float = 0.5,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Hinge loss of class scores: how much every score lacks to the margin on its side.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: none; the sign of a score says whether its class holds, the largest score which class.

    Formula: ``Σ_j max(0, margin − ŷ_j s_j)`` with ``ŷ = 2y − 1``: 1 for the true class, −1 for the others. The default
    margin ½ is the paper's; ``margin=1`` is the usual one.

    Gradient: ``−ŷ_j`` where ``ŷ_j s_j < margin``, else 0, a subgradient at the kink.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, summed over the classes; ``margin`` is in units of the scores.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        DomainError: if ``margin`` is negative.

    Example:
        >>> hinge(torch.tensor([[0.25, -2.0, 1.0]]), torch.tensor([0]))
        tensor(1.7500)

    Reference: SPEC B9.
    """
    return evaluate(
        HingeFormula(margin),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def squared_hinge(
    raw: Tensor,
    target: Tensor,
    *,
    margin: float = 0.5,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Squared hinge loss of class scores: the squares of what every score lacks to the margin.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: none; the sign of a score says whether its class holds, the largest score which class.

    Formula: ``Σ_j max(0, margin − ŷ_j s_j)²`` with ``ŷ = 2y − 1``. The default margin ½ is the paper's; ``margin=1`` is
    the usual one.

    Gradient: ``−2 ŷ_j max(0, margin − ŷ_j s_j)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, summed over the classes; ``margin`` is in units of the scores.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        DomainError: if ``margin`` is negative.

    Example:
        >>> squared_hinge(torch.tensor([[0.25, -2.0, 1.0]]), torch.tensor([0]))
        tensor(2.3125)

    Reference: SPEC B9.
    """
    return evaluate(
        SquaredHingeFormula(margin),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def cubed_hinge(
    raw: Tensor,
    target: Tensor,
    *,
    margin: float = 0.5,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Cubed hinge loss of class scores: the cubes of what every score lacks to the margin.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs are real numbers.

    Link: none; the sign of a score says whether its class holds, the largest score which class.

    Formula: ``Σ_j max(0, margin − ŷ_j s_j)³`` with ``ŷ = 2y − 1``. The default margin ½ is the paper's; ``margin=1`` is
    the usual one.

    Gradient: ``−3 ŷ_j max(0, margin − ŷ_j s_j)²``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``, summed over the classes; ``margin`` is in units of the scores.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        DomainError: if ``margin`` is negative.

    Example:
        >>> cubed_hinge(torch.tensor([[0.5, -2.0, 0.5]]), torch.tensor([0]))
        tensor(1.)

    Reference: SPEC B9.
    """
    return evaluate(
        CubedHingeFormula(margin),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Hinge(Loss):
    """Module form of :func:`hinge`, classes on the last axis."""

    def __init__(self, *, margin: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = HingeFormula(margin).margin

    @property
    def formula(self) -> HingeFormula:
        """The mathematics, with this module's options."""
        return HingeFormula(self.margin)


class SquaredHinge(Loss):
    """Module form of :func:`squared_hinge`, classes on the last axis."""

    def __init__(self, *, margin: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = SquaredHingeFormula(margin).margin

    @property
    def formula(self) -> SquaredHingeFormula:
        """The mathematics, with this module's options."""
        return SquaredHingeFormula(self.margin)


class CubedHinge(Loss):
    """Module form of :func:`cubed_hinge`, classes on the last axis."""

    def __init__(self, *, margin: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = CubedHingeFormula(margin).margin

    @property
    def formula(self) -> CubedHingeFormula:
        """The mathematics, with this module's options."""
        return CubedHingeFormula(self.margin)
