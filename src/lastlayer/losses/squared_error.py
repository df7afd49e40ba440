"""Squared error: of the raw output itself, and of its sigmoid for targets in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate, weighted_mean
from lastlayer.facts import REAL, UNIT, LossFacts
from lastlayer.losses.loss import Loss


def _real_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    target = torch.randn(n, dtype=dtype, generator=generator)
    return target + torch.randn(n, dtype=dtype, generator=generator), target


def _unit_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(n, dtype=dtype, generator=generator), torch.rand(n, dtype=dtype, generator=generator)


@dataclass(frozen=True)
class SquaredErrorFormula(Elementwise):
    """``(s − y)²``, or half of it."""

    halved: bool = False
    facts = LossFacts(
        name="squared_error",
        title="squared error (L2, MSE)",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="(s − y)²",
        gradient="2 (s − y)",
        minimum="0, at s = y",
        optimal_constant="the mean of y",
        convex=True,
        smooth=True,
        likelihood="Gaussian with fixed scale",
        use_when="the mean is wanted and large errors should count more than in proportion",
        avoid_when="the target has outliers or heavy tails: one row can outweigh a thousand",
        reference="SPEC B1; C. F. Gauss, Theoria motus (1809)",
        example=_real_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (0.5 if self.halved else 1.0) * (raw - target) ** 2

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return (1.0 if self.halved else 2.0) * (raw - target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        error = raw - target
        square = error * error
        return (0.5 * square, error) if self.halved else (square, error + error)

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return None if self.halved else F.mse_loss(raw, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return weighted_mean(target, sample_weight)


@dataclass(frozen=True)
class SigmoidSquaredErrorFormula(Elementwise):
    """``(σ(s) − y)²``."""

    facts = LossFacts(
        name="sigmoid_squared_error",
        title="squared error behind a sigmoid (quadratic cost, Brier score)",
        target=UNIT,
        raw=REAL,
        link="sigmoid",
        formula="(σ(s) − y)²",
        gradient="2 (σ(s) − y) σ(s) σ(−s)",
        minimum="0, at σ(s) = y",
        optimal_constant="the logit of the mean of y",
        convex=False,
        smooth=True,
        likelihood="Gaussian with fixed scale around a mean in (0, 1)",
        use_when="a target in [0, 1] is a quantity whose squared error matters",
        avoid_when="the network may start far off: the gradient vanishes where the sigmoid is most wrong (SPEC G7)",
        reference="SPEC A5; G. W. Brier, Monthly Weather Review 78 (1950)",
        example=_unit_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (torch.sigmoid(raw) - target) ** 2

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        probability = torch.sigmoid(raw)
        return 2.0 * (probability - target) * probability * torch.sigmoid(-raw)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # Not the logit of the mean, which may be rounded past 1.
        positive, negative = weighted_mean(target, sample_weight), weighted_mean(1.0 - target, sample_weight)
        return torch.log(positive) - torch.log(negative)


def squared_error(
    raw: Tensor,
    target: Tensor,
    *,
    halved: bool = False,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Squared error, also known as L2 loss or, reduced, mean squared error.

    Domain: targets and raw outputs are real numbers.

    Link: identity.

    Formula: ``(s − y)²``; with ``halved=True`` the quadratic cost ``(s − y)² / 2``, its mean ``1/(2n) Σ (s − y)²``.

    Gradient: ``2 (s − y)``; with ``halved=True`` ``s − y``.

    Shapes: raw, target and per-sample value share one shape; units are those of the target, squared.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.

    Example:
        >>> squared_error(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 2.0]))
        tensor(2.5000)

    Reference: SPEC B1.
    """
    return evaluate(
        SquaredErrorFormula(halved),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def sigmoid_squared_error(
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Squared error between a target in [0, 1] and the sigmoid of the raw output.

    Domain: targets in [0, 1]; raw outputs are real numbers.

    Link: sigmoid.

    Formula: ``(σ(s) − y)²``.

    Gradient: ``2 (σ(s) − y) σ(s) σ(−s)``.

    Shapes: raw, target and per-sample value share one shape.

    Special cases: not convex in s, and flat where s is large with the wrong sign; binary cross-entropy is not.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> sigmoid_squared_error(torch.tensor([0.0]), torch.tensor([1.0]))
        tensor(0.2500)

    Reference: SPEC A5, G7.
    """
    return evaluate(
        SigmoidSquaredErrorFormula(),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class SquaredError(Loss):
    """Module form of :func:`squared_error`."""

    def __init__(self, *, halved: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.halved = halved

    @property
    def formula(self) -> SquaredErrorFormula:
        """The mathematics, with this module's options."""
        return SquaredErrorFormula(self.halved)


class SigmoidSquaredError(Loss):
    """Module form of :func:`sigmoid_squared_error`."""

    @property
    def formula(self) -> SigmoidSquaredErrorFormula:
        """The mathematics."""
        return SigmoidSquaredErrorFormula()
