"""Scale recalibration: one factor on the spread of every prediction, learned on held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lastlayer.checks import DomainError
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.uncertainty.rescaled import Rescaled
from lastlayer.uncertainty.state import State
from lastlayer.uncertainty.weighting import weighted_average

# Of the factor's logarithm, to both sides of 0: a thousandfold.
_REACH = math.log(1000.0)


@dataclass(frozen=True)
class ScaleRecalibration(State):
    """Predictions with their spread around the median multiplied by one factor.

    Attributes:
        factor: above 1 where predictions were too sure of themselves.

    Raises:
        DomainError: if the factor is not a positive number.
    """

    factor: float
    name: ClassVar[str] = "scale_recalibration"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise DomainError(f"ScaleRecalibration: the factor is {self.factor!r}; expected a positive number.")

    def __call__(self, distribution: Distribution) -> Distribution:
        """The predictions to use instead: Gaussians stay Gaussians, others become :class:`Rescaled`.

        Raises:
            DomainError: if the values are whole numbers.
        """
        if isinstance(distribution, Gaussian):
            return Gaussian(distribution.location, self.factor * distribution.scale)
        return Rescaled(distribution, self.factor)


def fit_scale(distribution: Distribution, target: Tensor, *, sample_weight: Tensor | None = None) -> ScaleRecalibration:
    """The factor on the spread that makes held-out targets likeliest.

    Domain: continuous distributions.

    Formula: least mean of ``−log p_c(y)`` over c, p_c the density of :class:`Rescaled`; of Gaussians
    ``c² = Σ w z² / Σ w`` with ``z = (y − μ)/σ``. Else searched over log c: on a grid, then by Brent's method within.

    Shapes: ``target`` of the distribution's shape, ``sample_weight`` of that shape or of its leading axes; one factor
    for all elements.

    Special cases: the factor stays between 1/1000 and 1000; where every target is its own median it is 1/1000.

    Raises:
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, or all weights are zero.
        DomainError: if the values are whole numbers, a weight is negative, infinite or NaN, or the targets are
            impossible whatever the factor.

    Example:
        >>> fit_scale(Gaussian(torch.zeros(2), torch.ones(2)), torch.tensor([3.0, -3.0])).factor
        3.0

    Reference: D. Levi, L. Gispan, N. Giladi, E. Fetaya, Evaluating and calibrating uncertainty prediction in
    regression tasks, Sensors 22 (2022).
    """
    distribution = distribution.map(lambda parameter: parameter.detach().double())
    target = target.detach().double()
    least, largest = math.exp(-_REACH), math.exp(_REACH)
    if isinstance(distribution, Gaussian):
        z = distribution._values(target).sub(distribution.location) / distribution.scale
        square = float(weighted_average(z.square(), sample_weight, what="fit_scale"))
        if not math.isfinite(square):
            raise DomainError("fit_scale: a target is NaN or infinitely far from its prediction.")
        return ScaleRecalibration(min(max(math.sqrt(square), least), largest))

    with torch.no_grad():

        def loss(log_factor: float) -> float:
            nll = -Rescaled(distribution, math.exp(log_factor)).log_prob(target)
            mean = float(weighted_average(nll, sample_weight, what="fit_scale"))
            return mean if math.isfinite(mean) else math.inf

        grid = np.linspace(-_REACH, _REACH, 41)
        values = [loss(float(point)) for point in grid]
        best = int(np.argmin(values))
        if math.isinf(values[best]):
            raise DomainError("fit_scale: a target is impossible under its prediction whatever the factor, or NaN.")
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
        found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    point = float(found.x) if found.fun <= values[best] else float(grid[best])
    return ScaleRecalibration(math.exp(point))
