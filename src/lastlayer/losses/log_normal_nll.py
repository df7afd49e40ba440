"""The log-normal negative log-likelihood with location and scale from the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.losses.location_scale import (
    GAUSSIAN,
    MINIMUM_SCALE,
    LocationScaleFormula,
    location_scale_example,
    location_scale_parameters,
    log_target,
)
from lastlayer.losses.loss import Loss


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw, logarithm = location_scale_example(n, dtype=dtype, generator=generator)
    return raw * torch.tensor([0.5, 1.0], dtype=dtype), (0.5 * logarithm).exp()


def log_normal_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor]:
    """Location and scale of log y from a raw output ``(..., 2)``; the median of y is ``exp(location)``.

    Example:
        >>> log_normal_parameters(torch.tensor([3.0, 2.0]))
        (tensor(3.), tensor(2.1279))
    """
    return location_scale_parameters(raw, minimum_scale)


@dataclass(frozen=True)
class LogNormalNLLFormula(LocationScaleFormula):
    """``z²/2 + log σ + ½ log 2π + log y`` with ``z = (log y − μ)/σ``."""

    minimum_scale: float = MINIMUM_SCALE
    family = GAUSSIAN
    facts = LossFacts(
        name="log_normal_nll",
        title="log-normal negative log-likelihood with predicted scale",
        target=Interval(0.0),
        raw=REAL,
        link="identity, softplus; of log y",
        formula="z²/2 + log σ + ½ log 2π + log y, z = (log y − μ)/σ, μ = s, σ = softplus(r) + ε",
        gradient="−z/σ in s, (1 − z²)/σ · σ(r) in r",
        minimum="log ε + ½ log 2π + log y, at s = log y and the least scale",
        optimal_constant="the mean of log y, and the raw output of its standard deviation",
        convex=False,
        smooth=True,
        likelihood="log-normal",
        use_when="the target is positive and its errors are factors: prices, durations, concentrations",
        avoid_when="the mean is what counts, which large targets rule, or targets of 0 occur",
        reference="J. Aitchison, J. A. C. Brown, The lognormal distribution (1957)",
        example=_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        logarithm = log_target(target)
        return super().value(raw, logarithm) + logarithm

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Those of a Gaussian of log y; the density of y has one term more, in which raw does not occur."""
        logarithm = log_target(target)
        value, gradient = super().value_and_gradient(raw, logarithm)
        return value + logarithm, gradient

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().optimal_constant(log_target(target), sample_weight)


def log_normal_nll(
    raw: Tensor,
    target: Tensor,
    *,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a log-normal: of a target whose logarithm is Gaussian.

    Domain: targets are positive; raw outputs are real numbers.

    Link: raw output (s, r): mean of log y ``μ = s``, standard deviation of log y ``σ = softplus(r) + ε`` with ε the
    ``minimum_scale``. The median of y is then ``e^μ``, its mean ``e^(μ + σ²/2)``.

    Formula: ``z²/2 + log σ + ½ log 2π + log y`` with ``z = (log y − μ)/σ``: gaussian_nll of log y, plus log y.

    Gradient: ``−z/σ`` in s and ``(1 − z²)/σ · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats, for a density in units of the target.
    ``minimum_scale`` is a relative error: 0.001 is a tenth of a percent, whatever the target's unit.

    Numerics: the floor is added, not clamped, so that the scale never loses its gradient. In float16 a gradient beyond
    ±65504 is held there.

    Special cases: 0 lies outside the domain and is taken as the least normal number of its dtype, so that a masked
    sample never gives NaN; a negative target gives NaN. Where every target is the same, the best constant has raw
    scale −∞.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> log_normal_nll(torch.tensor([[0.0, 0.0], [0.0, 5.0]]), torch.tensor([1.0, 2.0]), reduction="none")
        tensor([0.5539, 3.2326])

    Reference: J. Aitchison, J. A. C. Brown, The lognormal distribution (1957).
    """
    return evaluate(
        LogNormalNLLFormula(minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class LogNormalNLL(Loss):
    """Module form of :func:`log_normal_nll`."""

    def __init__(self, *, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.minimum_scale = LogNormalNLLFormula(minimum_scale).minimum_scale

    @property
    def formula(self) -> LogNormalNLLFormula:
        """The mathematics, with this module's options."""
        return LogNormalNLLFormula(self.minimum_scale)
