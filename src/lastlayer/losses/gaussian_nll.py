"""The Gaussian negative log-likelihood with location and scale from the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.location_scale import GAUSSIAN, MINIMUM_SCALE, LocationScaleFormula, location_scale_example
from lastlayer.losses.loss import Loss


@dataclass(frozen=True)
class GaussianNLLFormula(LocationScaleFormula):
    """``z²/2 + log σ + ½ log 2π`` with ``z = (y − μ)/σ``."""

    minimum_scale: float = MINIMUM_SCALE
    family = GAUSSIAN
    facts = LossFacts(
        name="gaussian_nll",
        title="Gaussian negative log-likelihood with predicted scale",
        target=REAL,
        raw=REAL,
        link="identity, softplus",
        formula="z²/2 + log σ + ½ log 2π, z = (y − μ)/σ, μ = s, σ = softplus(r) + ε",
        gradient="−z/σ in s, (1 − z²)/σ · σ(r) in r",
        minimum="log ε + ½ log 2π, at s = y and the least scale",
        optimal_constant="the mean of y, and the raw output of its standard deviation",
        convex=False,
        smooth=True,
        likelihood="Gaussian",
        use_when="the noise differs from input to input, and predictions should say how far off they may be",
        avoid_when="the target has outliers: the scale swallows them, and the location no longer learns there",
        reference="SPEC A6, B14; D. A. Nix, A. S. Weigend, ICNN (1994)",
        example=location_scale_example,
    )


def gaussian_nll(
    raw: Tensor,
    target: Tensor,
    *,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a Gaussian whose mean and standard deviation the network predicts.

    Domain: targets and raw outputs are real numbers.

    Link: raw output (s, r): mean ``μ = s``, standard deviation ``σ = softplus(r) + ε`` with ε the ``minimum_scale``.

    Formula: ``z²/2 + log σ + ½ log 2π`` with ``z = (y − μ)/σ``.

    Gradient: ``−z/σ`` in s and ``(1 − z²)/σ · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats, for a density in units of the target.
    ``minimum_scale`` is in units of the target as well: its default of 0.001 is meant for a target of unit spread.

    Numerics: the floor is added, not clamped, so that the scale never loses its gradient. In float16 a gradient beyond
    ±65504 is held there.

    Special cases: at a fixed scale the minimizer is that of the squared error. Where every target is the same, the
    best constant has raw scale −∞.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> import torch
        >>> gaussian_nll(torch.tensor([[1.0, 0.0], [1.0, 5.0]]), torch.tensor([1.0, 2.0]), reduction="none")
        tensor([0.5539, 2.5499])

    Reference: SPEC A6, B14; D. A. Nix, A. S. Weigend, Estimating the mean and variance of the target probability
    distribution, ICNN (1994).
    """
    return evaluate(
        GaussianNLLFormula(minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class GaussianNLL(Loss):
    """Module form of :func:`gaussian_nll`."""

    def __init__(self, *, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.minimum_scale = GaussianNLLFormula(minimum_scale).minimum_scale

    @property
    def formula(self) -> GaussianNLLFormula:
        """The mathematics, with this module's options."""
        return GaussianNLLFormula(self.minimum_scale)
