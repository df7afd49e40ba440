"""Absolute error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import weighted_quantile


def example_off_the_kink(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Errors of at least 1/2, away from the kink at s = y, where no derivative exists."""
    target = torch.randn(n, dtype=dtype, generator=generator)
    distance = 0.5 + torch.rand(n, dtype=dtype, generator=generator)
    return target + distance * torch.sign(torch.randn(n, dtype=dtype, generator=generator)), target


@dataclass(frozen=True)
class AbsoluteErrorFormula(Elementwise):
    """``|s − y|``."""

    facts = LossFacts(
        name="absolute_error",
        title="absolute error (L1, MAE)",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="|s − y|",
        gradient="sign(s − y), 0 at s = y",
        minimum="0, at s = y",
        optimal_constant="the median of y",
        convex=True,
        smooth=False,
        likelihood="Laplace with fixed scale",
        use_when="the median is wanted, or outliers should not rule the fit",
        avoid_when="small errors should matter less and less: the gradient has one size everywhere",
        reference="SPEC B2; P. S. Laplace, Mémoire sur la probabilité des causes (1774)",
        example=example_off_the_kink,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw - target).abs()

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return torch.sign(raw - target)

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return F.l1_loss(raw, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return weighted_quantile(target, sample_weight, 0.5)


def absolute_error(
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Absolute error, also known as L1 loss or, reduced, mean absolute error.

    Domain: targets and raw outputs are real numbers.

    Link: identity.

    Formula: ``|s − y|``.

    Gradient: ``sign(s − y)``, and 0 at ``s = y``, a subgradient.

    Shapes: raw, target and per-sample value share one shape; units are those of the target.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.

    Example:
        >>> absolute_error(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 2.0]))
        tensor(1.5000)

    Reference: SPEC B2.
    """
    return evaluate(
        AbsoluteErrorFormula(),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class AbsoluteError(Loss):
    """Module form of :func:`absolute_error`."""

    @property
    def formula(self) -> AbsoluteErrorFormula:
        """The mathematics."""
        return AbsoluteErrorFormula()
