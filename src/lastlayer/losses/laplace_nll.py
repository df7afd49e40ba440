"""The Laplace negative log-likelihood with location and scale from the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.location_scale import LAPLACE, MINIMUM_SCALE, LocationScaleFormula, location_scale_example
from lastlayer.losses.loss import Loss


@dataclass(frozen=True)
class LaplaceNLLFormula(LocationScaleFormula):
    """``|z| + log σ + log 2`` with ``z = (y − μ)/σ``."""

    minimum_scale: float = MINIMUM_SCALE
    family = LAPLACE
    facts = LossFacts(
        name="laplace_nll",
        title="Laplace negative log-likelihood with predicted scale",
        target=REAL,
        raw=REAL,
        link="identity, softplus",
        formula="|z| + log 2σ, z = (y − μ)/σ, μ = s, σ = softplus(r) + ε",
        gradient="−sign(z)/σ in s, (1 − |z|)/σ · σ(r) in r",
        minimum="log 2ε, at s = y and the least scale",
        optimal_constant="the median of y, and the raw output of the mean absolute deviation from it",
        convex=False,
        smooth=False,
        likelihood="Laplace",
        use_when="the noise differs from input to input and has heavy tails, or the median is wanted with its spread",
        avoid_when="the mean is wanted, or the noise is known to be Gaussian",
        reference="SPEC A6, B14; P. S. Laplace, Mémoire sur la probabilité des causes (1774)",
        example=location_scale_example,
    )


def laplace_nll(
    raw: Tensor,
    target: Tensor,
    *,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a Laplace distribution whose median and scale the network predicts.

    Domain: targets and raw outputs are real numbers.

    Link: raw output (s, r): median ``μ = s``, mean absolute deviation ``σ = softplus(r) + ε`` with ε the
    ``minimum_scale``.

    Formula: ``|z| + log 2σ`` with ``z = (y − μ)/σ``.

    Gradient: ``−sign(z)/σ`` in s, 0 at ``s = y``, and ``(1 − |z|)/σ · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats, for a density in units of the target.
    ``minimum_scale`` is in units of the target as well: its default of 0.001 is meant for a target of unit spread.

    Numerics: the floor is added, not clamped, so that the scale never loses its gradient. In float16 a gradient beyond
    ±65504 is held there.

    Special cases: at a fixed scale the minimizer is that of the absolute error. Where every target is the same, the
    best constant has raw scale −∞.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> import torch
        >>> laplace_nll(torch.tensor([[1.0, 0.0], [1.0, 5.0]]), torch.tensor([1.0, 2.0]), reduction="none")
        tensor([0.3281, 2.5038])

    Reference: SPEC A6, B14.
    """
    return evaluate(
        LaplaceNLLFormula(minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class LaplaceNLL(Loss):
    """Module form of :func:`laplace_nll`."""

    def __init__(self, *, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.minimum_scale = LaplaceNLLFormula(minimum_scale).minimum_scale

    @property
    def formula(self) -> LaplaceNLLFormula:
        """The mathematics, with this module's options."""
        return LaplaceNLLFormula(self.minimum_scale)
