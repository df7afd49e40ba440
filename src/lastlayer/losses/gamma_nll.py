"""The gamma negative log-likelihood with mean and concentration from the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import Formula, evaluate, weighted_mean
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.log_gamma import HALF_LOG_2PI, log1p_gap, stirling_error, stirling_log_slope
from lastlayer.losses.concentration import (
    concentration_from_raw,
    log_concentration_bounds,
    log_concentration_derivative,
    raw_from_concentration,
)
from lastlayer.losses.location_scale import MINIMUM_SCALE, check_event, log_target
from lastlayer.losses.log_mean import LARGEST_LOG, mean_from_raw
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import root_of_increasing
from lastlayer.losses.options import POSITIVE, check_option


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Relative scales around an eighth, and a log ratio of target and mean a few times as large.
    raw = torch.randn(n, 2, dtype=dtype, generator=generator) * torch.tensor([1.0, 0.5], dtype=dtype)
    raw = raw - torch.tensor([0.0, 2.0], dtype=dtype)
    return raw, (raw[:, 0] + 0.5 * torch.randn(n, dtype=dtype, generator=generator)).exp()


def gamma_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor]:
    """Mean and concentration (the shape parameter) from a raw output ``(..., 2)``.

    Example:
        >>> gamma_parameters(torch.tensor([0.0, 0.0]))
        (tensor(1.), tensor(2.0754))
    """
    return mean_from_raw(raw[..., 0]), concentration_from_raw(raw[..., 1], minimum_scale)[0]


@dataclass(frozen=True)
class GammaNLLFormula(Formula):
    """``a (e^d − 1 − d) + log Γ(a) − a log a + a + log y`` with ``d = log y − s`` and a the concentration."""

    minimum_scale: float = MINIMUM_SCALE
    event_dims = 1
    facts = LossFacts(
        name="gamma_nll",
        title="gamma negative log-likelihood with predicted mean and concentration",
        target=Interval(0.0),
        raw=REAL,
        link="exp, (softplus)⁻²",
        formula="a (e^d − 1 − d) + log Γ(a) − a log a + a + log y, d = log y − s, a = (softplus(r) + ε)⁻²",
        gradient="−a (e^d − 1) in s, −2a (e^d − 1 − d + ψ(a) − log a)/(softplus(r) + ε) · σ(r) in r",
        minimum="log ε + ½ log 2π + log y, about, at s = log y and the largest concentration",
        optimal_constant="the logarithm of the mean of y, and the raw output of the concentration with "
        "log a − ψ(a) = log mean y − mean log y",
        convex=False,
        smooth=True,
        likelihood="gamma",
        use_when="the target is positive, its mean is wanted, and its error grows with it: waiting times, claims, rain",
        avoid_when="a few targets are larger than the rest by orders of magnitude: log_normal_nll minds them less",
        reference="P. McCullagh, J. A. Nelder, Generalized linear models, chapter 8 (1989)",
        example=_example,
    )

    def __post_init__(self) -> None:
        check_option(self.minimum_scale, POSITIVE, what="gamma_nll: minimum_scale")

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        check_event(raw, target, ("log mean", "raw relative scale"), loss="gamma_nll")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        logarithm = log_target(target)
        a, log_a, _ = concentration_from_raw(raw[..., 1], self.minimum_scale)
        return a * self._gap(logarithm - raw[..., 0])[0] + self._constant(a, log_a) + logarithm

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the log ratio of target and mean, and the concentration."""
        logarithm = log_target(target)
        a, log_a, scale = concentration_from_raw(raw[..., 1], self.minimum_scale)
        gap, slope = self._gap(logarithm - raw[..., 0])
        of_log = a * gap - 0.5 + stirling_log_slope(a, log_a)
        gradient = torch.stack([-a * slope, of_log * log_concentration_derivative(raw[..., 1], scale)], dim=-1)
        return a * gap + self._constant(a, log_a) + logarithm, gradient

    @staticmethod
    def _gap(d: Tensor) -> tuple[Tensor, Tensor]:
        """``e^d − 1 − d`` and its derivative, the exponential as its tangent from ``LARGEST_LOG`` on."""
        slope = torch.expm1(d.clamp_max(LARGEST_LOG))
        return log1p_gap(slope + (slope + 1.0) * (d - LARGEST_LOG).clamp_min(0.0), d), slope

    @staticmethod
    def _constant(a: Tensor, log_a: Tensor) -> Tensor:
        """``log Γ(a) − a log a + a``."""
        return HALF_LOG_2PI - 0.5 * log_a + stirling_error(a, log_a)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        log_mean = weighted_mean(target, sample_weight).log()
        excess = log_mean - weighted_mean(log_target(target), sample_weight)

        def slope(log_a: Tensor) -> Tensor:
            a = log_a.exp()
            return (stirling_log_slope(a, log_a) - 0.5) / a + excess

        log_a = root_of_increasing(slope, *log_concentration_bounds(log_mean, self.minimum_scale))
        return torch.stack([log_mean, raw_from_concentration(log_a.exp(), self.minimum_scale)], dim=-1)


def gamma_nll(
    raw: Tensor,
    target: Tensor,
    *,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a gamma distribution whose mean and concentration the network predicts.

    Domain: targets are positive; raw outputs are real numbers.

    Link: raw output (s, r): mean ``e^s``, relative scale ``c = softplus(r) + ε`` with ε the ``minimum_scale``, and
    concentration (shape parameter) ``a = c⁻²``. The standard deviation is ``c`` times the mean.

    Formula: ``a (e^d − 1 − d) + log Γ(a) − a log a + a + log y`` with ``d = log y − s``: the density
    ``y^(a−1) e^(−y/θ) / (Γ(a) θ^a)`` with ``θ = e^s/a``.

    Gradient: ``−a (e^d − 1)`` in s and ``−2a (e^d − 1 − d + ψ(a) − log a)/c · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats, for a density in units of the target.
    ``minimum_scale`` is a relative error: 0.001 is a tenth of a percent, a concentration of a million.

    Numerics: Stirling's formula is split off, so that nothing cancels at large concentrations. From ``d = 30`` on, a
    target of ten million million means, ``e^d`` goes on as its tangent: value and gradient stay finite and continuous.
    In float16 a gradient beyond ±65504 is held there.

    Special cases: with a = 1 the exponential distribution. 0 lies outside the domain and is taken as the least normal
    number of its dtype, so that a masked sample never gives NaN; a negative target gives NaN. Where every target is
    the same, the best constant has raw scale −∞.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> gamma_nll(torch.tensor([[0.0, 0.0], [0.0, 5.0]]), torch.tensor([1.0, 2.0]), reduction="none")
        tensor([0.5937, 4.0740])

    Reference: P. McCullagh, J. A. Nelder, Generalized linear models, 2nd edition, chapter 8 (1989).
    """
    return evaluate(
        GammaNLLFormula(minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class GammaNLL(Loss):
    """Module form of :func:`gamma_nll`."""

    def __init__(self, *, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.minimum_scale = GammaNLLFormula(minimum_scale).minimum_scale

    @property
    def formula(self) -> GammaNLLFormula:
        """The mathematics, with this module's options."""
        return GammaNLLFormula(self.minimum_scale)
