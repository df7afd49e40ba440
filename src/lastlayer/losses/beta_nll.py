"""The beta negative log-likelihood with mean and concentration from the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Formula, evaluate, weighted_mean
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.log_gamma import HALF_LOG_2PI, gap_series, stirling_error, stirling_log_slope
from lastlayer.losses.concentration import concentration_from_raw, log_concentration_derivative, raw_from_concentration
from lastlayer.losses.location_scale import MINIMUM_SCALE, check_event
from lastlayer.losses.loss import Loss
from lastlayer.losses.options import POSITIVE, check_option

#: How close to 0 and 1 a target is taken at its word. At the ends themselves the density is 0 or infinite.
MARGIN = 1e-4


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Concentrations below 1, whose densities rise towards both ends.
    raw = torch.randn(n, 2, dtype=dtype, generator=generator) * torch.tensor([1.0, 0.5], dtype=dtype)
    raw = raw + torch.tensor([0.0, 2.0], dtype=dtype)
    return raw, 0.02 + 0.96 * torch.rand(n, dtype=dtype, generator=generator)


def beta_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor]:
    """Mean in (0, 1) and concentration from a raw output ``(..., 2)``; ``α = mean·concentration``, ``β`` the rest.

    Where the sigmoid rounds to 0 or 1 the mean stays inside by the last place of its dtype.

    Example:
        >>> beta_parameters(torch.tensor([0.0, 0.0]))
        (tensor(0.5000), tensor(2.0754))
    """
    last = torch.finfo(raw.dtype).eps
    mean = last + (1.0 - 2.0 * last) * torch.sigmoid(raw[..., 0])
    return mean, concentration_from_raw(raw[..., 1], minimum_scale)[0]


@dataclass(frozen=True)
class BetaNLLFormula(Formula):
    """``log B(α, β) − (α − 1) log y − (β − 1) log(1 − y)`` with ``α = φm``, ``β = φ(1 − m)``."""

    margin: float = MARGIN
    minimum_scale: float = MINIMUM_SCALE
    event_dims = 1
    facts = LossFacts(
        name="beta_nll",
        title="beta negative log-likelihood with predicted mean and concentration",
        target=Interval(0.0, 1.0),
        raw=REAL,
        link="sigmoid, (softplus)⁻²",
        formula="log B(α, β) − (α − 1) log y − (β − 1) log(1 − y), α = φm, β = φ(1 − m), m = σ(s), "
        "φ = (softplus(r) + ε)⁻²",
        gradient="φ m (1 − m) (ψ(α) − ψ(β) − logit y) in s; −2φ (m (ψ(α) − log y) + (1 − m) (ψ(β) − log(1 − y)) − "
        "ψ(φ))/(softplus(r) + ε) · σ(r) in r",
        minimum="log ε + ½ log 2π + ½ log y (1 − y), about, at the largest concentration and σ(s) close to y",
        optimal_constant="no closed form; a start from mean and variance of y",
        convex=False,
        smooth=True,
        likelihood="beta",
        use_when="the target is a share strictly between 0 and 1, and its spread differs from input to input",
        avoid_when="shares of exactly 0 or 1 are common, or each is a count out of a known total",
        reference="S. Ferrari, F. Cribari-Neto, J. Applied Statistics 31 (2004)",
        example=_example,
        exact_constant=False,
    )

    def __post_init__(self) -> None:
        check_option(self.margin, Interval(0.0, 0.5), what="beta_nll: margin")
        check_option(self.minimum_scale, POSITIVE, what="beta_nll: minimum_scale")

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        check_event(raw, target, ("logit of the mean", "raw relative scale"), loss="beta_nll")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._parts(raw, target)[0]

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the divergence of target and mean, and the remainders of three log Γ."""
        value, divergence, (a, log_a), (b, log_b) = self._parts(raw, target)
        concentration, log_concentration, scale = concentration_from_raw(raw[..., 1], self.minimum_scale)
        one, other = torch.sigmoid(raw[..., 0]), torch.sigmoid(-raw[..., 0])
        first, second = stirling_log_slope(a, log_a), stirling_log_slope(b, log_b)
        apart = raw[..., 0] - torch.logit(self._inside(target))
        of_logit = concentration * one * other * apart + (first - 0.5) * other - (second - 0.5) * one
        whole = stirling_log_slope(concentration, log_concentration)
        of_log = concentration * divergence - 0.5 + (first + second - whole)
        return value, torch.stack([of_logit, of_log * log_concentration_derivative(raw[..., 1], scale)], dim=-1)

    def _inside(self, target: Tensor) -> Tensor:
        return target.clamp(self.margin, 1.0 - self.margin)

    def _parts(
        self, raw: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The value, the divergence between Bernoullis of mean and target, α and β with their logarithms."""
        inside = self._inside(target)
        log_y, log_rest = inside.log(), torch.log1p(-inside)
        logit = raw[..., 0]
        one, other = torch.sigmoid(logit), torch.sigmoid(-logit)
        log_one, log_other = F.logsigmoid(logit), F.logsigmoid(-logit)
        concentration, log_concentration, _ = concentration_from_raw(raw[..., 1], self.minimum_scale)
        divergence = _share_of_divergence(one, inside, log_one - log_y) + _share_of_divergence(
            other, 1.0 - inside, log_other - log_rest
        )
        # With both logarithms: α underflows to 0 long before its logarithm is anything special.
        a, log_a = concentration * one, log_concentration + log_one
        b, log_b = concentration * other, log_concentration + log_other
        value = (
            concentration * divergence
            + (log_y + log_rest)
            + (HALF_LOG_2PI - 0.5 * (log_one + log_b))
            + (stirling_error(a, log_a) + stirling_error(b, log_b))
            - stirling_error(concentration, log_concentration)
        )
        return value, divergence, (a, log_a), (b, log_b)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """A start, not the optimum: the beta distribution of this mean and variance."""
        inside = self._inside(target)
        mean = weighted_mean(inside, sample_weight)
        variance = weighted_mean((inside - mean) ** 2, sample_weight)
        # Of a distribution on [0, 1] the variance is at most m (1 − m), to which rounding may add.
        concentration = (mean * (1.0 - mean) / variance - 1.0).clamp_min(torch.finfo(mean.dtype).eps)
        return torch.stack([torch.logit(mean), raw_from_concentration(concentration, self.minimum_scale)], dim=-1)


def _share_of_divergence(mean: Tensor, target: Tensor, log_ratio: Tensor) -> Tensor:
    """``m log(m/y) + y − m``, which is never negative: near 0 without cancellation."""
    difference = target - mean
    near = difference.abs() < 0.2 * mean
    relative = torch.where(near, difference, 0.0) / torch.where(near, mean, 1.0)
    return torch.where(near, mean * gap_series(relative), difference + mean * log_ratio)


def beta_nll(
    raw: Tensor,
    target: Tensor,
    *,
    margin: float = MARGIN,
    minimum_scale: float = MINIMUM_SCALE,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a beta distribution whose mean and concentration the network predicts.

    Not the weighted Gaussian loss that others call β-NLL: that is ``BetaWeighted`` of :func:`gaussian_nll`.

    Domain: targets lie strictly between 0 and 1; raw outputs are real numbers.

    Link: raw output (s, r): mean ``m = sigmoid(s)``, relative scale ``c = softplus(r) + ε`` with ε the
    ``minimum_scale``, and concentration ``φ = c⁻²``; then ``α = φm`` and ``β = φ(1 − m)``. The variance is
    ``m (1 − m)/(1 + φ)``.

    Formula: ``log B(α, β) − (α − 1) log y − (β − 1) log(1 − y)``.

    Gradient: ``φ m (1 − m) (ψ(α) − ψ(β) − logit y)`` in s and
    ``−2φ (m (ψ(α) − log y) + (1 − m) (ψ(β) − log(1 − y)) − ψ(φ))/c · sigmoid(r)`` in r.

    Shapes: raw ``(..., 2)``, target and per-sample value ``(...)``. Units: nats, for a density over [0, 1].

    Numerics: Stirling's formula is split off, so that nothing cancels at large concentrations, and α and β may
    underflow. In float16 a gradient beyond ±65504 is held there.

    Special cases: a target closer to 0 or 1 than ``margin`` is moved there, since at the ends themselves the density is
    0 or infinite; the default is a hundredth of a percent. With m = ½ and φ = 2 the uniform distribution. No best
    constant in closed form: the formula gives a start.

    Raises:
        ShapeError: if raw does not end in 2, or the target is not raw's shape without that axis.
        DomainError: if ``margin`` is not in (0, ½) or ``minimum_scale`` not a positive number.

    Example:
        >>> beta_nll(torch.tensor([[0.0, 0.0], [0.0, -3.0]]), torch.tensor([0.5, 0.6]), reduction="none")
        tensor([-0.0226,  5.4824])

    Reference: S. Ferrari, F. Cribari-Neto, Beta regression for modelling rates and proportions, J. Applied Statistics
    31 (2004).
    """
    return evaluate(
        BetaNLLFormula(margin, minimum_scale),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class BetaNLL(Loss):
    """Module form of :func:`beta_nll`."""

    def __init__(
        self, *, margin: float = MARGIN, minimum_scale: float = MINIMUM_SCALE, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        checked = BetaNLLFormula(margin, minimum_scale)
        self.margin, self.minimum_scale = checked.margin, checked.minimum_scale

    @property
    def formula(self) -> BetaNLLFormula:
        """The mathematics, with this module's options."""
        return BetaNLLFormula(self.margin, self.minimum_scale)
