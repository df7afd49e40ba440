"""The negative binomial negative log-likelihood with mean and concentration from the network."""

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
from lastlayer.losses.location_scale import MINIMUM_SCALE, check_event
from lastlayer.losses.log_mean import mean_from_raw
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import root_of_increasing
from lastlayer.losses.options import POSITIVE, check_option

# Up to here e^s is taken: float32 holds it, and its ratio to the least concentration. Beyond, it is so far above any
# concentration that log(e^s + k) is s.
_LARGEST_LOG_MEAN = 60.0
# Below this count log y! as it is; above, by Stirling's formula, most of which y log y cancels.
_LARGE_COUNT = 8.0


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Rates about 3, relative scales around an eighth.
    raw = torch.randn(n, 2, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 0.5], dtype=torch.float64)
    raw = raw + torch.tensor([1.0, -2.0], dtype=torch.float64)
    rate = (raw[:, 0] + 0.8 * torch.randn(n, dtype=torch.float64, generator=generator)).exp()
    return raw.to(dtype), torch.poisson(rate, generator=generator).to(dtype)


def negative_binomial_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor]:
    """Mean and concentration from a raw output ``(..., 2)``; the variance is ``mean + mean²/concentration``.

    Example:
        >>> negative_binomial_parameters(torch.tensor([0.0, 0.0]))
        (tensor(1.), tensor(2.0754))
    """
    return mean_from_raw(raw[..., 0]), concentration_from_raw(raw[..., 1], minimum_scale)[0]


@dataclass(frozen=True)
class NegativeBinomialNLLFormula(Formula):
    """``log Γ(k) + log y! − log Γ(y + k) + (y + k) log(1 + μ/k) − y log(μ/k)``."""

    minimum_scale: float = MINIMUM_SCALE
    event_dims = 1
    facts = LossFacts(
        name="negative_binomial_nll",
        title="negative binomial negative log-likelihood with predicted mean and concentration",
        target=Interval(0.0, low_closed=True),
        raw=REAL,
        link="exp, (softplus)⁻²; of counts",
        formula="log Γ(k) + log y! − log Γ(y + k) + (y + k) log(1 + μ/k) − y log(μ/k), μ = e^s, "
        "k = (softplus(r) + ε)⁻²",
        gradient="k (μ − y)/(μ + k) in s; −2k (ψ(k) − ψ(y + k) + log(1 + μ/k) + (y − μ)/(μ + k))/(softplus(r) + ε) · "
        "σ(r) in r",
        minimum="y − y log y + log y!, about, at s = log y and the largest concentration",
        optimal_constant="the logarithm of the mean of y, and the raw output of the likeliest concentration",
        convex=False,
        smooth=True,
        likelihood="negative binomial",
        use_when="the target counts events, and the counts vary more than their mean",
        avoid_when="the rate is all that is unknown: poisson_nll has one number less to learn",
        reference="J. F. Lawless, Canadian Journal of Statistics 15 (1987)",
        example=_example,
    )

    def __post_init__(self) -> None:
        check_option(self.minimum_scale, POSITIVE, what="negative_binomial_nll: minimum_scale")

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        check_event(raw, target, ("log mean", "raw relative scale"), loss="negative_binomial_nll")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        k, log_k, _ = concentration_from_raw(raw[..., 1], self.minimum_scale)
        _, ratio = self._mean_and_ratio(raw[..., 0], target, k)
        return self._value(raw[..., 0], target, k, log_k, ratio)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from ``log((μ + k)/(y + k))`` and the remainders of two log Γ."""
        k, log_k, scale = concentration_from_raw(raw[..., 1], self.minimum_scale)
        mean, ratio = self._mean_and_ratio(raw[..., 0], target, k)
        total, relative = target + k, (target - mean) / (mean + k)
        of_log = (
            k * log1p_gap(relative, -ratio)
            - 0.5 * (target / total)
            + stirling_log_slope(k, log_k)
            - k / total * stirling_log_slope(total, total.log())
        )
        gradient = torch.stack([-k * relative, of_log * log_concentration_derivative(raw[..., 1], scale)], dim=-1)
        return self._value(raw[..., 0], target, k, log_k, ratio), gradient

    @staticmethod
    def _mean_and_ratio(log_mean: Tensor, target: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, and ``log((μ + k)/(y + k))``."""
        mean = log_mean.clamp_max(_LARGEST_LOG_MEAN).exp()
        total = target + k
        relative = (mean - target) / total
        near = torch.log1p(relative.clamp_min(-0.5))
        # Far below 0 the sum μ + k has digits that 1 + relative has not.
        ratio = torch.where(relative < -0.5, ((mean + k) / total).log(), near)
        return mean, ratio + (log_mean - _LARGEST_LOG_MEAN).clamp_min(0.0)

    @staticmethod
    def _value(log_mean: Tensor, target: Tensor, k: Tensor, log_k: Tensor, ratio: Tensor) -> Tensor:
        total = target + k
        large = target.clamp_min(_LARGE_COUNT)
        log_large = large.log()
        # log y! − y s + y, of large counts as y (log y − s) and a remainder.
        of_count = torch.where(
            target < _LARGE_COUNT,
            torch.lgamma(target + 1.0) + target - target * log_mean,
            large * (log_large - log_mean) + 0.5 * log_large + HALF_LOG_2PI + stirling_error(large, log_large),
        )
        remainders = stirling_error(k, log_k) - stirling_error(total, total.log())
        return of_count + total * ratio + 0.5 * torch.log1p(target / k) + remainders

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        mean = weighted_mean(target, sample_weight)

        def slope(log_k: Tensor) -> Tensor:
            k = log_k.exp()
            total, relative = target + k, (target - mean) / (mean + k)
            each = k * log1p_gap(relative, torch.log1p(relative)) - 0.5 * (target / total)
            each = each - k / total * stirling_log_slope(total, total.log())
            return weighted_mean(each, sample_weight) + stirling_log_slope(k, log_k)

        log_k = root_of_increasing(slope, *log_concentration_bounds(mean, self.minimum_scale))
        return torch.stack([mean.log(), raw_from_concentration(log_k.exp(), self.minimum_scale)], dim=-1)


def negative_binomial_nll(
    raw: Tensor,
    target: Tensor,
    *,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a negative binomial whose mean and concentration the network predicts.

    A Poisson distribution whose rate is itself uncertain: gamma-distributed with this mean and concentration.

    Domain: targets are counts (numbers ≥ 0; they need not be whole); raw outputs are real numbers.

    Link: raw output (s, r): mean ``μ = e^s``, relative scale of the rate ``c = softplus(r) + ε`` with ε the
    ``minimum_scale``, and concentration ``k = c⁻²``. The variance is ``μ + c²μ² = μ + μ²/k``.

    Formula: ``log Γ(k) + log y! − log Γ(y + k) + (y + k) log(1 + μ/k) − y log(μ/k)``.

    Gradient: ``k (μ − y)/(μ + k)`` in s and
    ``−2k (ψ(k) − ψ(y + k) + log(1 + μ/k) + (y − μ)/(μ + k))/c · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats.

    Numerics: Stirling's formula is split off, so that nothing cancels at large concentrations and counts. Finite at any
    log mean, without the tangent that poisson_nll needs: it grows linearly by itself. In float16 a gradient beyond
    ±65504 is held there.

    Special cases: as c falls, poisson_nll. Where the counts vary no more than their mean, the best constant has raw
    scale −∞, and for targets of 0 alone log mean −∞.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> negative_binomial_nll(torch.tensor([[0.0, 0.0], [0.0, 5.0]]), torch.tensor([0.0, 3.0]), reduction="none")
        tensor([0.8162, 4.5091])

    Reference: J. F. Lawless, Negative binomial and mixed Poisson regression, Canadian Journal of Statistics 15 (1987).
    """
    return evaluate(
        NegativeBinomialNLLFormula(minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class NegativeBinomialNLL(Loss):
    """Module form of :func:`negative_binomial_nll`."""

    def __init__(self, *, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.minimum_scale = NegativeBinomialNLLFormula(minimum_scale).minimum_scale

    @property
    def formula(self) -> NegativeBinomialNLLFormula:
        """The mathematics, with this module's options."""
        return NegativeBinomialNLLFormula(self.minimum_scale)
