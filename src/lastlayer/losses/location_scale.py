"""What the likelihoods with a predicted location and scale share: the link of the scale, and their one shape.

A family is a density g of the standardized error ``z = (y − μ)/σ``; the negative log-likelihood is then
``h(z) + log σ`` with ``h = −log g``, whatever the family.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import ShapeError, shape_text
from lastlayer.evaluation import Formula, weighted_mean
from lastlayer.log_gamma import HALF_LOG_2PI, log_gamma_half_step
from lastlayer.losses.optimal_constants import weighted_quantile
from lastlayer.losses.options import POSITIVE, check_option

#: The least scale, in units of the target. For a target of unit spread a thousandth of it: finer claims cost more in
#: surprises than they earn. The square is PyTorch's floor of a predicted variance.
MINIMUM_SCALE = 1e-3


def scale_from_raw(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> Tensor:
    """The positive link: ``softplus(r) + minimum_scale``, which never stops having a gradient.

    Example:
        >>> scale_from_raw(torch.tensor([0.0, 2.0]))
        tensor([0.6941, 2.1279])
    """
    # Not F.softplus: from 20 on that is the identity, in float64 a jump.
    return minimum_scale - F.logsigmoid(-raw)


def scale_derivative(raw: Tensor) -> Tensor:
    """The derivative of the scale with respect to its raw output: ``σ(r)``."""
    return torch.sigmoid(raw)


def raw_from_scale(scale: Tensor, minimum_scale: float = MINIMUM_SCALE) -> Tensor:
    """The inverse of the link; −∞ for a scale of ``minimum_scale`` or less.

    Example:
        >>> raw_from_scale(torch.tensor([0.5, 2.0, 0.001]))
        tensor([-0.4353,  1.8534,    -inf])
    """
    excess = (scale - minimum_scale).clamp_min(0.0)
    return excess + torch.log(-torch.expm1(-excess))


def location_scale_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor]:
    """Location and scale from a raw output ``(..., 2)``: the links of every likelihood in this file.

    Example:
        >>> location_scale_parameters(torch.tensor([3.0, 2.0]))
        (tensor(3.), tensor(2.1279))
    """
    return raw[..., 0], scale_from_raw(raw[..., 1], minimum_scale)


def log_target(target: Tensor) -> Tensor:
    """The logarithm of a positive target; that of 0 is taken of the least normal number.

    Every masked target is 0 by the time that a formula sees it: an infinite logarithm, times its weight of zero,
    would be NaN.
    """
    return torch.where(target == 0.0, torch.finfo(target.dtype).tiny, target).log()


class Family(ABC):
    """A standardized density, as a function of ``z = (y − μ)/σ``."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the option ``family`` spells it."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Of z; infinite where there is none."""

    @abstractmethod
    def negative_log_density(self, z: Tensor) -> Tensor:
        """``h(z)``, constants included."""

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """``h′(z)``."""

    @abstractmethod
    def fit(self, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        """The maximum-likelihood location and scale of a whole target, over its first axis, or a start near them."""

    @abstractmethod
    def quantile(self, share: Tensor) -> Tensor:
        """The z below which that share of the density lies."""


class GaussianFamily(Family):
    """``h(z) = z²/2 + ½ log 2π``."""

    name = "gaussian"
    variance = 1.0

    def negative_log_density(self, z: Tensor) -> Tensor:
        return 0.5 * z**2 + HALF_LOG_2PI

    def derivative(self, z: Tensor) -> Tensor:
        return z

    def fit(self, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        mean = weighted_mean(target, sample_weight)
        return mean, weighted_mean((target - mean) ** 2, sample_weight).sqrt()

    def quantile(self, share: Tensor) -> Tensor:
        return torch.special.ndtri(share)


class LaplaceFamily(Family):
    """``h(z) = |z| + log 2``."""

    name = "laplace"
    variance = 2.0

    def negative_log_density(self, z: Tensor) -> Tensor:
        return z.abs() + math.log(2.0)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.sign(z)

    def fit(self, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        median = weighted_quantile(target, sample_weight, 0.5)
        return median, weighted_mean((target - median).abs(), sample_weight)

    def quantile(self, share: Tensor) -> Tensor:
        return torch.sign(share - 0.5) * -torch.log1p(-2.0 * (share - 0.5).abs())


class LogisticFamily(Family):
    """``h(z) = −log σ(z) − log σ(−z)``, with σ the sigmoid."""

    name = "logistic"
    variance = math.pi**2 / 3.0

    def negative_log_density(self, z: Tensor) -> Tensor:
        return -F.logsigmoid(z) - F.logsigmoid(-z)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.tanh(0.5 * z)

    def fit(self, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        """By moments: the mean, and the scale that gives the variance."""
        mean, deviation = GAUSSIAN.fit(target, sample_weight)
        return mean, deviation / math.sqrt(self.variance)

    def quantile(self, share: Tensor) -> Tensor:
        return torch.logit(share)


@dataclass(frozen=True)
class StudentTFamily(Family):
    """``h(z) = (ν + 1)/2 log(1 + z²/ν) + log B(ν/2, ½) + ½ log ν``, with ν the degrees of freedom."""

    degrees_of_freedom: float = 4.0
    name = "student_t"

    @property
    def variance(self) -> float:
        v = self.degrees_of_freedom
        return v / (v - 2.0) if v > 2.0 else math.inf

    def negative_log_density(self, z: Tensor) -> Tensor:
        v = self.degrees_of_freedom
        constant = HALF_LOG_2PI - log_gamma_half_step(0.5 * v)
        return 0.5 * (v + 1.0) * torch.log1p(z**2 / v) + constant

    def derivative(self, z: Tensor) -> Tensor:
        v = self.degrees_of_freedom
        return (1.0 + 1.0 / v) * z / (1.0 + z**2 / v)

    def fit(self, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, Tensor]:
        """By expectation–maximization from the median, whose every step weighs outliers down."""
        v = self.degrees_of_freedom
        location = weighted_quantile(target, sample_weight, 0.5)
        scale = weighted_quantile((target - location).abs(), sample_weight, 0.5)
        least = torch.finfo(target.dtype).tiny
        for _ in range(_STEPS):
            z = (target - location) / scale.clamp_min(least)
            trust = (v + 1.0) / (v + z**2)
            location = weighted_mean(trust * target, sample_weight) / weighted_mean(trust, sample_weight)
            scale = weighted_mean(trust * (target - location) ** 2, sample_weight).sqrt()
        return location, scale

    def quantile(self, share: Tensor) -> Tensor:
        found = scipy.special.stdtrit(self.degrees_of_freedom, share.double().cpu().numpy())
        return torch.as_tensor(found).to(share)


GAUSSIAN, LAPLACE, LOGISTIC, STUDENT_T = GaussianFamily(), LaplaceFamily(), LogisticFamily(), StudentTFamily()
# Of expectation–maximization: at ν = 2 each step leaves about half of the error.
_STEPS = 40


def location_scale_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Locations at least 1/2 off their target, where a Laplace has its kink, and scales about one."""
    target = 2 * torch.randn(n, dtype=dtype, generator=generator)
    distance = 0.5 + torch.rand(n, dtype=dtype, generator=generator)
    location = target + distance * torch.sign(torch.randn(n, dtype=dtype, generator=generator))
    return torch.stack([location, torch.randn(n, dtype=dtype, generator=generator)], dim=-1), target


class LocationScaleFormula(Formula):
    """``h((y − μ)/σ) + log σ`` from a raw output of two numbers: the location μ = s, and r with σ = softplus(r) + ε."""

    minimum_scale: float
    event_dims = 1

    @property
    @abstractmethod
    def family(self) -> Family:
        """The density of the standardized error."""

    def __post_init__(self) -> None:
        check_option(self.minimum_scale, POSITIVE, what=f"{self.facts.name}: minimum_scale")

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        check_event(raw, target, ("location", "raw scale"), loss=self.facts.name)
        return target.to(raw.dtype)

    def scale(self, raw: Tensor) -> Tensor:
        """The predicted scale, of the shape of the target."""
        return scale_from_raw(raw[..., 1], self.minimum_scale)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        scale = self.scale(raw)
        # Divided before it is squared: a square of the error alone could overflow where z² does not.
        return self.family.negative_log_density((target - raw[..., 0]) / scale) + scale.log()

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the scale and the standardized error."""
        scale = self.scale(raw)
        z = (target - raw[..., 0]) / scale
        slope = self.family.derivative(z)
        gradient = torch.stack([-slope, (1.0 - z * slope) * scale_derivative(raw[..., 1])], dim=-1)
        return self.family.negative_log_density(z) + scale.log(), gradient / scale.unsqueeze(-1)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        location, scale = self.family.fit(target, sample_weight)
        return torch.stack([location, raw_from_scale(scale, self.minimum_scale)], dim=-1)


def check_event(raw: Tensor, target: Tensor, numbers: tuple[str, ...], *, loss: str) -> None:
    """Raw ends in an axis of these numbers, and the target has its shape without that axis.

    Raises:
        ShapeError: naming both shapes and the fix.
    """
    if raw.dim() == 0 or raw.shape[-1] != len(numbers):
        named = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
        raise ShapeError(
            f"{loss}: raw has shape {shape_text(raw)}, target {shape_text(target)}; expected raw of shape "
            f"(..., {len(numbers)}), {named}, and target (...)."
        )
    check_event_target(raw, target, loss=loss)


def check_event_target(raw: Tensor, target: Tensor, *, loss: str) -> None:
    """The target has the shape of raw without its last axis.

    Raises:
        ShapeError: naming both shapes and the fix.
    """
    if target.shape == raw.shape[:-1]:
        return
    fix = "give one number per row of raw"
    if target.shape == (*raw.shape[:-1], 1):
        fix = "drop the last axis of target: target.squeeze(-1)"
    raise ShapeError(
        f"{loss}: raw has shape {shape_text(raw)}, target {shape_text(target)}; expected a target of shape "
        f"{tuple(raw.shape[:-1])}: raw without its last axis. Fix: {fix}."
    )
