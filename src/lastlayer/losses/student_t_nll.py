"""The negative log-likelihood of Student's t with location, scale and degrees of freedom from the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import evaluate, weighted_mean
from lastlayer.facts import REAL, LossFacts
from lastlayer.log_gamma import HALF_LOG_2PI, log1p_gap, log_gamma_half_step, log_gamma_half_step_slope
from lastlayer.losses.location_scale import (
    MINIMUM_SCALE,
    LocationScaleFormula,
    StudentTFamily,
    check_event,
    location_scale_example,
    raw_from_scale,
    scale_derivative,
    scale_from_raw,
)
from lastlayer.losses.loss import Loss
from lastlayer.losses.options import POSITIVE, check_option

#: Predicted degrees of freedom stay above 2, where the variance ``σ² ν/(ν − 2)`` exists, by a hundredth: at the least
#: the variance is two hundred times σ², and float32 still knows ν − 2 to five digits.
LEAST_DEGREES_OF_FREEDOM = 2.01

# What the start tries, from the heaviest tails to almost none.
_CANDIDATES = (2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw, target = location_scale_example(n, dtype=dtype, generator=generator)
    raw_freedom = 3 * torch.randn(n, 1, dtype=dtype, generator=generator)
    return torch.cat([raw, raw_freedom], dim=-1), target


def student_t_parameters(
    raw: Tensor, *, degrees_of_freedom: float | None = None, minimum_scale: float = MINIMUM_SCALE
) -> tuple[Tensor, Tensor, Tensor]:
    """Location, scale and degrees of freedom from a raw output ``(..., 3)``, or ``(..., 2)`` where the last are given.

    Example:
        >>> student_t_parameters(torch.tensor([3.0, 2.0, 0.0]))
        (tensor(3.), tensor(2.1279), tensor(2.7031))
    """
    scale = scale_from_raw(raw[..., 1], minimum_scale)
    if degrees_of_freedom is None:
        return raw[..., 0], scale, scale_from_raw(raw[..., 2], LEAST_DEGREES_OF_FREEDOM)
    return raw[..., 0], scale, torch.full_like(scale, degrees_of_freedom)


@dataclass(frozen=True)
class StudentTNLLFormula(LocationScaleFormula):
    """``(ν + 1)/2 log(1 + z²/ν) + log B(ν/2, ½) + ½ log ν + log σ`` with ``z = (y − μ)/σ``."""

    degrees_of_freedom: float | None = None
    minimum_scale: float = MINIMUM_SCALE
    facts = LossFacts(
        name="student_t_nll",
        title="negative log-likelihood of Student's t with predicted scale and tails",
        target=REAL,
        raw=REAL,
        link="identity, softplus, 2.01 + softplus",
        formula="(ν + 1)/2 log(1 + z²/ν) + log B(ν/2, ½) + ½ log ν + log σ, z = (y − μ)/σ, μ = s, σ = softplus(r) + ε, "
        "ν = 2.01 + softplus(t)",
        gradient="with q = z²/ν: −(1 + 1/ν) z/(1 + q)/σ in s, (1 − (ν + 1) q/(1 + q))/σ · σ(r) in r, "
        "(½ log(1 + q) − ½ (1 + 1/ν) q/(1 + q) + ½ (ψ(ν/2) − ψ((ν + 1)/2) + 1/ν)) σ(t) in t",
        minimum="log ε + ½ log 2π, at s = y, the least scale and ν = ∞",
        optimal_constant="no closed form; the likeliest of some degrees of freedom, each with its fitted location "
        "and scale",
        convex=False,
        smooth=True,
        likelihood="Student's t",
        use_when="the noise differs from input to input and some targets are far off: they then widen the tails, "
        "not the scale",
        avoid_when="the noise is Gaussian: gaussian_nll has one number less to learn",
        reference="K. L. Lange, R. J. A. Little, J. M. G. Taylor, J. American Statistical Association 84 (1989)",
        example=_example,
        exact_constant=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degrees_of_freedom is not None:
            check_option(self.degrees_of_freedom, POSITIVE, what="student_t_nll: degrees_of_freedom")

    @property
    def family(self) -> StudentTFamily:
        """The density where the degrees of freedom are given."""
        return StudentTFamily(math.inf if self.degrees_of_freedom is None else self.degrees_of_freedom)

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        if self.degrees_of_freedom is not None:
            return super().conform(raw, target)
        check_event(raw, target, ("location", "raw scale", "raw degrees of freedom"), loss="student_t_nll")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        if self.degrees_of_freedom is not None:
            return super().value(raw, target)
        location, scale, v = student_t_parameters(raw, minimum_scale=self.minimum_scale)
        return _negative_log_density((target - location) / scale, v) + scale.log()

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the standardized error and its share ``q/(1 + q)``, ``q = z²/ν``."""
        if self.degrees_of_freedom is not None:
            return super().value_and_gradient(raw, target)
        location, scale, v = student_t_parameters(raw, minimum_scale=self.minimum_scale)
        z = (target - location) / scale
        q = z**2 / v
        share, logarithm = q / (1.0 + q), torch.log1p(q)
        value = 0.5 * (v + 1.0) * logarithm + (HALF_LOG_2PI - log_gamma_half_step(0.5 * v)) + scale.log()
        of_location = -(1.0 + 1.0 / v) * z / (1.0 + q) / scale
        of_scale = (1.0 - (v + 1.0) * share) / scale
        of_freedom = 0.5 * (log1p_gap(-share, -logarithm) - share / v - log_gamma_half_step_slope(0.5 * v))
        return value, torch.stack(
            [of_location, of_scale * scale_derivative(raw[..., 1]), of_freedom * scale_derivative(raw[..., 2])], dim=-1
        )

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """A start close to the optimum; of degrees of freedom that are given, the optimum itself to a few digits."""
        if self.degrees_of_freedom is not None:
            return super().optimal_constant(target, sample_weight)
        best, least = torch.empty(0), torch.empty(0)
        for v in _CANDIDATES:
            family = StudentTFamily(v)
            location, scale = family.fit(target, sample_weight)
            bounded = scale.clamp_min(self.minimum_scale)
            cost = weighted_mean(family.negative_log_density((target - location) / bounded), sample_weight)
            cost = cost + bounded.log()
            raw_freedom = torch.full_like(location, float(raw_from_scale(torch.tensor(v), LEAST_DEGREES_OF_FREEDOM)))
            found = torch.stack([location, raw_from_scale(scale, self.minimum_scale), raw_freedom], dim=-1)
            better = cost < least if least.numel() else torch.ones_like(cost, dtype=torch.bool)
            best = torch.where(better.unsqueeze(-1), found, best) if best.numel() else found
            least = torch.where(better, cost, least) if least.numel() else cost
        return best


def _negative_log_density(z: Tensor, v: Tensor) -> Tensor:
    return 0.5 * (v + 1.0) * torch.log1p(z**2 / v) + (HALF_LOG_2PI - log_gamma_half_step(0.5 * v))


def student_t_nll(
    raw: Tensor,
    target: Tensor,
    *,
    degrees_of_freedom: float | None = None,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of Student's t whose location, scale and degrees of freedom the network predicts.

    Domain: targets and raw outputs are real numbers.

    Link: raw output (s, r, t): location ``μ = s``, scale ``σ = softplus(r) + ε`` with ε the ``minimum_scale``, degrees
    of freedom ``ν = 2.01 + softplus(t)``, so that the variance ``σ² ν/(ν − 2)`` exists. With ``degrees_of_freedom``
    given, any positive number, 1 (Cauchy) included, raw output is (s, r).

    Formula: ``(ν + 1)/2 log(1 + z²/ν) + log B(ν/2, ½) + ½ log ν + log σ`` with ``z = (y − μ)/σ``.

    Gradient: with ``q = z²/ν``: ``−(1 + 1/ν) z/(1 + q)/σ`` in s, ``(1 − (ν + 1) q/(1 + q))/σ · sigmoid(r)`` in r; in t
    ``½ (log(1 + q) − (1 + 1/ν) q/(1 + q) + ψ(ν/2) − ψ((ν + 1)/2) + 1/ν) · sigmoid(t)``.

    Shapes: raw ``(..., 3)``, or ``(..., 2)`` with ``degrees_of_freedom`` given; target and per-sample value ``(...)``.
    Units: nats, for a density in units of the target. ``minimum_scale`` is in units of the target as well: its default
    of 0.001 is meant for a target of unit spread.

    Numerics: the difference of two log Γ is taken from a series, so that nothing cancels as ν grows and the Gaussian is
    reached smoothly. The floors are added, not clamped. In float16 a gradient beyond ±65504 is held there.

    Special cases: as ν grows, gaussian_nll. The influence of a target on s falls again beyond ``|z| = √ν``. No best
    constant in closed form: the formula gives a start.

    Raises:
        ShapeError: if raw does not end in 3 (or 2), or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` or ``degrees_of_freedom`` is not a positive number.

    Example:
        >>> raw = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
        >>> student_t_nll(raw, torch.tensor([1.0, 9.0]), reduction="none")
        tensor([0.6281, 8.6537])

    Reference: K. L. Lange, R. J. A. Little, J. M. G. Taylor, Robust statistical modeling using the t distribution,
    J. American Statistical Association 84 (1989).
    """
    return evaluate(
        StudentTNLLFormula(degrees_of_freedom, minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class StudentTNLL(Loss):
    """Module form of :func:`student_t_nll`."""

    def __init__(
        self,
        *,
        degrees_of_freedom: float | None = None,
        minimum_scale: float = MINIMUM_SCALE,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        checked = StudentTNLLFormula(degrees_of_freedom, minimum_scale)
        self.degrees_of_freedom, self.minimum_scale = checked.degrees_of_freedom, checked.minimum_scale

    @property
    def formula(self) -> StudentTNLLFormula:
        """The mathematics, with this module's options."""
        return StudentTNLLFormula(self.degrees_of_freedom, self.minimum_scale)
