"""A real number with Laplace noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lastlayer import distributions
from lastlayer.evaluation import Formula, Scaled
from lastlayer.facts import REAL, HeadFacts
from lastlayer.heads.gaussian import real_example
from lastlayer.heads.scale import LocationScaleHead
from lastlayer.losses.absolute_error import AbsoluteErrorFormula
from lastlayer.losses.laplace_nll import LaplaceNLLFormula


@dataclass(frozen=True)
class Laplace(LocationScaleHead):
    """A real number with Laplace noise: no activation, absolute error; or with a predicted scale, the Laplace's NLL.

    Domain: targets and raw outputs are real numbers.

    Link: identity for the median, ``softplus(r) + minimum_scale`` for a predicted scale.

    Formula: ``|s − y| / scale + log(2 scale)``. With one scale for all that is absolute error, scaled and shifted. With
    a predicted one, ``beta`` weights every sample by ``scale^(2 beta)`` while it trains, so that at ½ the median learns
    as by absolute error; it is judged without.

    Shapes: raw ``(..., 1)``, or ``(..., 2)`` for a predicted scale; target ``(...)``. ``scale``, the mean absolute
    deviation, is in units of the target.

    Raises:
        InputError: if the scale is not a positive number, ``"constant"`` or ``"predicted"``.
        DomainError: if ``beta`` lies outside [0, 1], or ``minimum_scale`` is not positive.

    Example:
        >>> import torch
        >>> Laplace().loss(torch.tensor([[1.0]]), torch.tensor([0.0]))
        tensor(1.6931)

    Reference: SPEC A4, A6, A8.
    """

    facts = HeadFacts(
        name="laplace",
        title="regression to arbitrary values, absolute error",
        target="a real number",
        activation="none (identity)",
        loss="absolute_error",
        likelihood="Laplace; scale given, constant or predicted",
        reference="SPEC A4, A6",
        example=real_example,
        spelling="constant | predicted | SCALE",
    )
    support = REAL
    standardizes = True
    statistic = "median"

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``median`` and ``scale`` (the mean absolute deviation), both of shape (...)."""
        return {"median": self.location(raw), "scale": self.scale_of(raw)}

    def distribution(self, raw: Tensor) -> distributions.Laplace:
        return distributions.Laplace(self.location(raw), self.scale_of(raw))

    def _of_one_scale(self) -> Formula:
        return Scaled(AbsoluteErrorFormula(), slope=1 / self.one_scale, offset=math.log(2 * self.one_scale))

    def _of_both(self) -> LaplaceNLLFormula:
        return LaplaceNLLFormula(self.minimum_scale)

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return (weight * residual.abs()).sum() / weight.sum()
