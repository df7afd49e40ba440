"""The logarithm of the hyperbolic cosine of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import best_between_targets


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    target = torch.randn(n, dtype=dtype, generator=generator)
    return target + 2 * torch.randn(n, dtype=dtype, generator=generator), target


@dataclass(frozen=True)
class LogCoshFormula(Elementwise):
    """``log cosh(s − y)``."""

    facts = LossFacts(
        name="log_cosh",
        title="log-cosh loss",
        target=REAL,
        raw=REAL,
        link="identity",
        formula="log cosh(s − y)",
        gradient="tanh(s − y)",
        minimum="0, at s = y",
        optimal_constant="the root of the weighted sum of tanh(s − y)",
        convex=True,
        smooth=True,
        likelihood="hyperbolic secant with fixed scale",
        use_when="a robust fit is wanted and the curvature is used: it is smooth to every order, Huber's loss is not",
        avoid_when="the target is not scaled to errors of about 1: the loss has no parameter to say where it turns",
        reference="P. J. Green, IEEE Transactions on Medical Imaging 9 (1990)",
        example=_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        error = raw - target
        # Near zero |d| + log1p(e^−2|d|) cancels against log 2; cosh d = 1 + 2 sinh²(d/2) does not, and overflows far
        # off. Each is computed only where it is good, so that the other's derivative cannot spoil the chosen one.
        near = torch.log1p(2.0 * torch.sinh(0.5 * error.clamp(-1.0, 1.0)) ** 2)
        size = error.abs()
        far = size + torch.log1p(torch.exp(-2.0 * size)) - math.log(2.0)
        return torch.where(size < 1.0, near, far)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return torch.tanh(raw - target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one e^(−2|d|) − 1: near zero ``log cosh d = −½ log(1 − tanh² d)``."""
        error = raw - target
        size = error.abs()
        decay = torch.expm1(-2.0 * size)
        slope = -decay / (2.0 + decay)
        near = size < 1.0
        logarithm = torch.log1p(torch.where(near, -slope * slope, 1.0 + decay))
        value = torch.where(near, -0.5 * logarithm, size + logarithm - math.log(2.0))
        return value, torch.copysign(slope, error)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return best_between_targets(self, target, sample_weight)


def log_cosh(
    raw: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Log-cosh loss: about half the squared error near the target, the absolute error less log 2 far away.

    Domain: targets and raw outputs are real numbers.

    Link: identity.

    Formula: ``log cosh(s − y)``.

    Gradient: ``tanh(s − y)``.

    Shapes: raw, target and per-sample value share one shape. The turn from quadratic to linear lies at errors of
    about 1 in the units of the target: scale the target first.

    Numerics: ``log1p(2 sinh²(d/2))`` for errors d below 1, ``|d| + log1p(e^(−2|d|)) − log 2`` from there on: exact to
    a few units in the last place for tiny errors, and never an overflow for large ones.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.

    Example:
        >>> log_cosh(torch.tensor([0.1, 100.0]), torch.tensor([0.0, 0.0]), reduction="none")
        tensor([4.9917e-03, 9.9307e+01])

    Reference: P. J. Green, Bayesian reconstructions from emission tomography data, IEEE Transactions on Medical
    Imaging 9 (1990).
    """
    return evaluate(
        LogCoshFormula(),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class LogCosh(Loss):
    """Module form of :func:`log_cosh`."""

    @property
    def formula(self) -> LogCoshFormula:
        """The mathematics."""
        return LogCoshFormula()
