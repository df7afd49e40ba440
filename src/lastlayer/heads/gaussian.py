"""A real number with Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer import distributions
from lastlayer.evaluation import Formula, Scaled
from lastlayer.facts import REAL, HeadFacts
from lastlayer.heads.scale import LocationScaleHead
from lastlayer.losses.gaussian_nll import GaussianNLLFormula
from lastlayer.losses.squared_error import SquaredErrorFormula


def real_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Locations, and real targets around them."""
    target = torch.randn(n, dtype=dtype, generator=generator)
    return (target + torch.randn(n, dtype=dtype, generator=generator)).unsqueeze(-1), target


@dataclass(frozen=True)
class Gaussian(LocationScaleHead):
    """A real number with Gaussian noise: no activation, squared error; or with a predicted scale, the Gaussian's NLL.

    Domain: targets and raw outputs are real numbers.

    Link: identity for the mean, ``softplus(r) + minimum_scale`` for a predicted scale.

    Formula: ``(s − y)² / (2 scale²) + log scale + ½ log 2π``. With one scale for all that is squared error, scaled and
    shifted, so its minimizer is that of squared error whatever the scale. With a predicted one, ``beta`` weights every
    sample by ``scale^(2 beta)`` while it trains; it is judged without.

    Shapes: raw ``(..., 1)``, or ``(..., 2)`` for a predicted scale; target ``(...)``. ``scale``, the standard
    deviation, is in units of the target.

    Raises:
        InputError: if the scale is not a positive number, ``"constant"`` or ``"predicted"``.
        DomainError: if ``beta`` lies outside [0, 1], or ``minimum_scale`` is not positive.

    Example:
        >>> Gaussian().loss(torch.tensor([[1.0]]), torch.tensor([0.0]))
        tensor(1.4189)
        >>> Gaussian(scale="predicted").distribution(torch.tensor([[1.0, 0.0]])).interval(0.9)
        (tensor([-0.1418]), tensor([2.1418]))

    Reference: SPEC A4, A6, A8; for ``beta`` M. Seitzer et al., ICLR (2022).
    """

    facts = HeadFacts(
        name="gaussian",
        title="regression to arbitrary values, squared error",
        target="a real number",
        activation="none (identity)",
        loss="squared_error",
        likelihood="Gaussian; scale given, constant or predicted",
        reference="SPEC A4, A6",
        example=real_example,
        spelling="constant | predicted | SCALE",
    )
    support = REAL
    standardizes = True

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``scale`` (the standard deviation), both of shape (...)."""
        return {"mean": self.location(raw), "scale": self.scale_of(raw)}

    def distribution(self, raw: Tensor) -> distributions.Gaussian:
        return distributions.Gaussian(self.location(raw), self.scale_of(raw))

    def _of_one_scale(self) -> Formula:
        return Scaled(
            SquaredErrorFormula(halved=True),
            slope=self.one_scale**-2,
            offset=math.log(self.one_scale) + 0.5 * math.log(2 * math.pi),
        )

    def _of_both(self) -> GaussianNLLFormula:
        return GaussianNLLFormula(self.minimum_scale)

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return ((weight * residual**2).sum() / weight.sum()).sqrt()
