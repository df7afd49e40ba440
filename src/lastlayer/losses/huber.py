"""Quadratic near the target and linear far away: Huber's loss and its rescaled form, the smooth L1 loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import best_between_targets
from lastlayer.losses.options import POSITIVE, check_option


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    target = torch.randn(n, dtype=dtype, generator=generator)
    # Half the errors in the quadratic part, half in the linear one, none near 1, where the curvature jumps.
    size = 2 * torch.rand(n, dtype=dtype, generator=generator)
    size = torch.where(size < 1.0, 0.9 * size, 0.1 + size)
    return target + size * torch.sign(torch.randn(n, dtype=dtype, generator=generator)), target


@dataclass(frozen=True)
class HuberFormula(Elementwise):
    """With the error cut to ``c = clamp(s − y, −δ, δ)``: ``c·(s − y − c/2)``, whose derivative is c itself."""

    delta: float = 1.0
    facts = LossFacts(
        name="huber",
        title="Huber loss",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="(s − y)²/2 where |s − y| ≤ δ, δ (|s − y| − δ/2) beyond",
        gradient="clamp(s − y, −δ, δ)",
        minimum="0, at s = y",
        optimal_constant="Huber's M-estimate of location: the root of the weighted sum of clamp(s − y, −δ, δ)",
        convex=True,
        smooth=True,
        likelihood="Gaussian in the middle with the tails of a Laplace",
        use_when="most errors are small and noisy, and the few beyond δ are outliers that should not rule the fit",
        avoid_when="the scale of the errors is not known: δ is in units of the target",
        reference="P. J. Huber, Annals of Mathematical Statistics 35 (1964)",
        example=_example,
    )

    def __post_init__(self) -> None:
        check_option(self.delta, POSITIVE, what="huber: delta")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[0]

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw - target).clamp(-self.delta, self.delta)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the error cut to [−δ, δ]."""
        error = raw - target
        cut = error.clamp(-self.delta, self.delta)
        return cut * (error - 0.5 * cut), cut

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return F.huber_loss(raw, target, delta=self.delta)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return best_between_targets(self, target, sample_weight)


@dataclass(frozen=True)
class SmoothL1Formula(Elementwise):
    """With the error in units of β cut to ``c = clamp((s − y)/β, −1, 1)``: ``c·(s − y − β c/2)``."""

    beta: float = 1.0
    facts = LossFacts(
        name="smooth_l1",
        title="smooth L1 loss (Huber loss over δ)",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="(s − y)²/(2β) where |s − y| ≤ β, |s − y| − β/2 beyond",
        gradient="clamp((s − y)/β, −1, 1)",
        minimum="0, at s = y",
        optimal_constant="Huber's M-estimate of location: the root of the weighted sum of clamp((s − y)/β, −1, 1)",
        convex=True,
        smooth=True,
        likelihood="Gaussian in the middle with the tails of a Laplace",
        use_when="absolute error is wanted without its kink: for small β it is that, and its gradient stays within ±1",
        avoid_when="the scale of the errors is not known: β is in units of the target",
        reference="R. Girshick, Fast R-CNN, ICCV (2015)",
        example=_example,
    )

    def __post_init__(self) -> None:
        check_option(self.beta, POSITIVE, what="smooth_l1: beta")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[0]

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return ((raw - target) / self.beta).clamp(-1.0, 1.0)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the error cut to one β."""
        error = raw - target
        cut = (error / self.beta).clamp(-1.0, 1.0)
        return cut * (error - 0.5 * self.beta * cut), cut

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return F.smooth_l1_loss(raw, target, beta=self.beta)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return best_between_targets(self, target, sample_weight)


def huber(
    raw: Tensor,
    target: Tensor,
    *,
    delta: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Huber loss: half the squared error up to δ, and from there on a straight line of slope δ.

    Domain: targets and raw outputs are real numbers.

    Link: identity.

    Formula: ``(s − y)²/2`` where ``|s − y| ≤ δ``, ``δ (|s − y| − δ/2)`` beyond.

    Gradient: ``clamp(s − y, −δ, δ)``.

    Shapes: raw, target and per-sample value share one shape; ``delta`` is in units of the target.

    Special cases: as δ grows half the squared error; divided by δ it is :func:`smooth_l1` with β = δ. The second
    derivative jumps from 1 to 0 at ``|s − y| = δ``.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.
        DomainError: if ``delta`` is not a positive number.

    Example:
        >>> huber(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]), reduction="none")
        tensor([0.1250, 2.5000])

    Reference: P. J. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964).
    """
    return evaluate(
        HuberFormula(delta),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def smooth_l1(
    raw: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Smooth L1 loss: the absolute error with its kink rounded off within β of the target.

    Domain: targets and raw outputs are real numbers.

    Link: identity.

    Formula: ``(s − y)²/(2β)`` where ``|s − y| ≤ β``, ``|s − y| − β/2`` beyond.

    Gradient: ``clamp((s − y)/β, −1, 1)``.

    Shapes: raw, target and per-sample value share one shape; ``beta`` is in units of the target.

    Special cases: :func:`huber` with δ = β, divided by β. For β = 0, which PyTorch takes for the absolute error, use
    :func:`absolute_error`.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.
        DomainError: if ``beta`` is not a positive number.

    Example:
        >>> smooth_l1(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]), beta=2.0, reduction="none")
        tensor([0.0625, 2.0000])

    Reference: R. Girshick, Fast R-CNN, ICCV (2015).
    """
    return evaluate(
        SmoothL1Formula(beta),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Huber(Loss):
    """Module form of :func:`huber`."""

    def __init__(self, *, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = HuberFormula(delta).delta

    @property
    def formula(self) -> HuberFormula:
        """The mathematics, with this module's options."""
        return HuberFormula(self.delta)


class SmoothL1(Loss):
    """Module form of :func:`smooth_l1`."""

    def __init__(self, *, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.beta = SmoothL1Formula(beta).beta

    @property
    def formula(self) -> SmoothL1Formula:
        """The mathematics, with this module's options."""
        return SmoothL1Formula(self.beta)
