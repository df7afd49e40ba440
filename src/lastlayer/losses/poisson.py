"""The Poisson negative log-likelihood of a logarithmic rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate, weighted_mean
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.losses.log_mean import LARGEST_LOG
from lastlayer.losses.loss import Loss

#: The log rate from which the exponential goes on as its tangent: a rate is a mean.
LARGEST_LOG_RATE = LARGEST_LOG


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    log_rate = 1.0 + torch.randn(n, dtype=torch.float64, generator=generator)
    target = torch.poisson(log_rate.exp(), generator=generator)
    raw = log_rate + 0.5 * torch.randn(n, dtype=torch.float64, generator=generator)
    return raw.to(dtype), target.to(dtype)


@dataclass(frozen=True)
class PoissonNLLFormula(Elementwise):
    """``e^s − y s``, and ``log y!`` where the likelihood is wanted in full."""

    full: bool = True
    facts = LossFacts(
        name="poisson_nll",
        title="Poisson negative log-likelihood",
        target=Interval(0.0, low_closed=True),
        raw=REAL,
        link="exp",
        formula="e^s − y s + log y!",
        gradient="e^s − y",
        minimum="y − y log y + log y!, at s = log y",
        optimal_constant="the logarithm of the mean of y",
        convex=True,
        smooth=True,
        likelihood="Poisson",
        use_when="the target counts events, 0, 1, 2, …, at a rate that depends on the input",
        avoid_when="the counts vary more than their mean, as most do: then its intervals are too narrow",
        reference="S. D. Poisson (1837); J. A. Nelder, R. W. M. Wedderburn, J. Royal Statistical Society A 135 (1972)",
        example=_example,
    )

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[0]

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return torch.exp(raw.clamp_max(LARGEST_LOG_RATE)) - target

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one exponential."""
        bounded = raw.clamp_max(LARGEST_LOG_RATE)
        rate = torch.exp(bounded)
        # The factor is 1 up to the largest log rate, and beyond it the tangent.
        value = rate * (1.0 + (raw - bounded)) - target * raw
        return value + torch.lgamma(target + 1.0) if self.full else value, rate - target

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return torch.log(weighted_mean(target, sample_weight))


def poisson_nll(
    raw: Tensor,
    target: Tensor,
    *,
    full: bool = True,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a Poisson distribution from the logarithm of its rate.

    Domain: targets are counts (numbers ≥ 0; they need not be whole); raw outputs are real numbers.

    Link: exp, inside. Give log rates, not rates.

    Formula: ``e^s − y s + log y!``, the last term exactly, as ``lgamma(y + 1)``, and only where ``full``: it depends
    on the target alone, so that neither the gradient nor the minimizer knows of it.

    Gradient: ``e^s − y``.

    Shapes: raw, target and per-sample value share one shape. Units: nats.

    Numerics: from a log rate of 30 on, ten million million events, ``e^s`` goes on as its tangent: value and gradient
    stay finite, convex and continuous. In float16 a gradient beyond ±65504 is held there.

    Special cases: PyTorch's ``poisson_nll_loss`` leaves the constant out by default, and with ``full=True`` takes
    Stirling's approximation of it. Targets of 0 alone have their best constant at −∞.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.

    Example:
        >>> poisson_nll(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 3.0]), reduction="none")
        tensor([1.0000, 2.7918])

    Reference: J. A. Nelder, R. W. M. Wedderburn, Generalized linear models, J. Royal Statistical Society A 135 (1972).
    """
    return evaluate(
        PoissonNLLFormula(full),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class PoissonNLL(Loss):
    """Module form of :func:`poisson_nll`."""

    def __init__(self, *, full: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full

    @property
    def formula(self) -> PoissonNLLFormula:
        """The mathematics, with this module's options."""
        return PoissonNLLFormula(self.full)
