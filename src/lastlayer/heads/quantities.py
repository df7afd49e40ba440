"""Heads over quantities: real numbers with a Gaussian or Laplace of constant scale, and values in [0, 1]."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import InputError, check_choice
from lastlayer.evaluation import Formula, Scaled
from lastlayer.evaluation.reduction import expand_weight, hide_masked
from lastlayer.facts import REAL, UNIT, HeadFacts
from lastlayer.heads.head import Head
from lastlayer.losses.absolute_error import AbsoluteErrorFormula
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.squared_error import SigmoidSquaredErrorFormula, SquaredErrorFormula

# A scale below this share of the target's own spread claims more than float32 predictions can hold.
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class ConstantScaleHead(Head):
    """One location per sample, one scale for all: the location is learned, the scale fitted afterwards.

    Attributes:
        scale: in units of the target.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"{type(self).__name__}: scale is {self.scale!r}; expected a positive number.")

    @property
    def raw_size(self) -> int:
        return 1

    @torch.no_grad()
    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> Self:
        """The head with the maximum-likelihood scale of these residuals."""
        location = self.location(raw).double()
        target = self.formula.conform(location, target)
        weight = expand_weight(sample_weight, location, location.shape)
        spread = self._spread(hide_masked(target, weight) - location, weight)
        return dataclasses.replace(self, scale=max(float(spread), _SMALLEST_SCALE))

    def location(self, raw: Tensor) -> Tensor:
        """The centre of the predicted distribution, shape (...)."""
        return self._event(raw, self.formula)

    @staticmethod
    @abstractmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        """The maximum-likelihood scale."""


@dataclass(frozen=True)
class Gaussian(ConstantScaleHead):
    """A real number with Gaussian noise of constant scale: no activation, squared error.

    Domain: targets and raw outputs are real numbers.

    Link: identity. The network's output is the mean.

    Formula: ``(s − y)² / (2 scale²) + log scale + ½ log 2π``: squared error, scaled and shifted, so its minimizer
    is that of squared error whatever the scale.

    Shapes: raw ``(..., 1)``, target ``(...)``. ``scale`` is in units of the target.

    Raises:
        InputError: if the scale is not a positive number.

    Example:
        >>> head = Gaussian()
        >>> head.loss(torch.tensor([[1.0]]), torch.tensor([0.0]))
        tensor(1.4189)

    Reference: SPEC A4, A8.
    """

    facts = HeadFacts(
        name="gaussian",
        title="regression to arbitrary values, squared error",
        target="a real number",
        activation="none (identity)",
        loss="squared_error",
        likelihood="Gaussian with constant scale",
        reference="SPEC A4",
    )
    support = REAL
    standardizes = True

    @property
    def formula(self) -> Formula:
        return Scaled(
            SquaredErrorFormula(halved=True),
            slope=self.scale**-2,
            offset=math.log(self.scale) + 0.5 * math.log(2 * math.pi),
        )

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``scale`` (the standard deviation), both of shape (...)."""
        mean = self.location(raw)
        return {"mean": mean, "scale": torch.full_like(mean, self.scale)}

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return ((weight * residual**2).sum() / weight.sum()).sqrt()


@dataclass(frozen=True)
class Laplace(ConstantScaleHead):
    """A real number with Laplace noise of constant scale: no activation, absolute error.

    Domain: targets and raw outputs are real numbers.

    Link: identity. The network's output is the median.

    Formula: ``|s − y| / scale + log(2 scale)``.

    Shapes: raw ``(..., 1)``, target ``(...)``. ``scale`` (the mean absolute deviation) is in units of the target.

    Raises:
        InputError: if the scale is not a positive number.

    Example:
        >>> head = Laplace()
        >>> head.loss(torch.tensor([[1.0]]), torch.tensor([0.0]))
        tensor(1.6931)

    Reference: SPEC A4, A8.
    """

    facts = HeadFacts(
        name="laplace",
        title="regression to arbitrary values, absolute error",
        target="a real number",
        activation="none (identity)",
        loss="absolute_error",
        likelihood="Laplace with constant scale",
        reference="SPEC A4",
    )
    support = REAL
    standardizes = True

    @property
    def formula(self) -> Formula:
        return Scaled(AbsoluteErrorFormula(), slope=1 / self.scale, offset=math.log(2 * self.scale))

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``median`` and ``scale`` (the mean absolute deviation), both of shape (...)."""
        median = self.location(raw)
        return {"median": median, "scale": torch.full_like(median, self.scale)}

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return (weight * residual.abs()).sum() / weight.sum()


@dataclass(frozen=True)
class UnitInterval(ConstantScaleHead):
    """A quantity in [0, 1]: a sigmoid, then binary cross-entropy or squared error.

    Domain: targets in [0, 1]; raw outputs are real numbers.

    Link: sigmoid. Both criteria are least at the mean; binary cross-entropy keeps its gradient where the sigmoid is
    flat, the squared error does not.

    Formula: to train, ``−y log σ(s) − (1 − y) log σ(−s)``, or ``(σ(s) − y)²`` with the constants of a Gaussian; to
    judge, for both, the Gaussian around σ(s) with the constant ``scale``. Binary cross-entropy of a proportion is no
    normalized density, so it is no likelihood to compare by.

    Shapes: raw ``(..., 1)``, target ``(...)``.

    Raises:
        InputError: if the criterion is not one of the two, or the scale is not a positive number.

    Example:
        >>> head = UnitInterval(criterion="squared_error")
        >>> head.parameters(torch.tensor([[0.0]]))["mean"]
        tensor([0.5000])

    Reference: SPEC A5.
    """

    criterion: str = "binary_cross_entropy"
    facts = HeadFacts(
        name="unit_interval",
        title="regression to values between 0 and 1",
        target="a number in [0, 1]",
        activation="sigmoid",
        loss="binary_cross_entropy",
        likelihood="Gaussian with constant scale around a mean in (0, 1)",
        reference="SPEC A5",
    )
    support = UNIT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.criterion, ("binary_cross_entropy", "squared_error"), what="criterion")

    @property
    def formula(self) -> Formula:
        return BinaryCrossEntropyFormula() if self.criterion == "binary_cross_entropy" else self.likelihood

    @property
    def likelihood(self) -> Formula:
        return Scaled(
            SigmoidSquaredErrorFormula(),
            slope=0.5 * self.scale**-2,
            offset=math.log(self.scale) + 0.5 * math.log(2 * math.pi),
        )

    def location(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(self._event(raw, self.formula))

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``mean`` in (0, 1) and ``scale`` (the standard deviation), both of shape (...)."""
        mean = self.location(raw)
        return {"mean": mean, "scale": torch.full_like(mean, self.scale)}

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-10.0, 10.0)

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return Gaussian._spread(residual, weight)
