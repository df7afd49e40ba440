"""The Poisson distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy import special
from torch import Tensor

from lastlayer.distributions.counts import COUNTS, least_count, whole_count
from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters
from lastlayer.distributions.support import outside_support
from lastlayer.log_gamma import stirling_error

# From this rate on the series of the entropy is right to 1e-14, and up to it all mass lies below the last count: the
# probability beyond is less than exp(−76).
_SERIES_FROM, _LAST_COUNT = 30.0, 120


def _entropy_series(terms: int) -> tuple[float, ...]:
    """What ``½ log(2πeλ)`` exceeds the entropy by, as coefficients of 1/λ, 1/λ², ...: 1/12, 1/24, 19/360, ...

    ``E log(Y + 1) = −∫₀¹ (1 − exp(−λu)) / log(1 − u) du`` is the derivative of ``E log Y!``. Watson's lemma expands it
    by Gregory's coefficients, those of ``−u / log(1 − u) = 1 − Σ g_n uⁿ``; the entropy's are ``g_{n+1} (n − 1)!``.
    """
    gregory: list[float] = []
    for n in range(1, terms + 2):
        gregory.append(1.0 / (n + 1) - sum(value / (n - j) for j, value in enumerate(gregory)))
    return tuple(value * math.factorial(n) for n, value in enumerate(gregory[1:]))


_ENTROPY_SERIES = _entropy_series(20)


@dataclass(frozen=True, eq=False)
class Poisson(Distribution):
    """Poisson distributions: counts of events that know nothing of each other.

    Domain: values are whole numbers from 0 on; ``log_rate`` is any real number.

    Link: ``rate = exp(log_rate)``, the mean and the variance.

    Formula: ``log p(k) = k log rate − rate − log k!``. CRPS
    ``(y − λ)(2F(y) − 1) + 2λ p(⌊y⌋) − λ (I₀(2λ) + I₁(2λ)) exp(−2λ)`` with modified Bessel functions, for every real y.

    Gradient: in ``log_rate`` of everything but quantiles and samples; of the cdf it is ``−λ p(⌊y⌋)``.

    Shapes: ``log_rate`` of the distribution's shape.

    Numerics: computed in float64 whatever the dtype. The logarithm of a probability comes from the deviance, in which
    k log k and k log λ have cancelled on paper: its error is a few roundings times ``1 + √λ`` near the mean. The
    entropy is a sum over all counts that weigh anything, from a rate of 30 on an asymptotic series; both are right to
    1e-14. The cdf is SciPy's. The quantile is the least count whose cdf, rounded to the dtype, reaches the share: then
    ``quantile(cdf(k))`` is k wherever ``cdf(k − 1) < cdf(k) < 1``. The quantile of 1 is infinite.

    Special cases: where the rate is a whole number it and the one below it are equally likely; the mode is the rate,
    or, by a rounding of its exponential, the one below.

    Example:
        >>> visits = Poisson(torch.tensor([0.0, 3.0]))
        >>> visits.mean, visits.quantile(0.9), visits.crps(torch.tensor([1, 18]))
        (tensor([ 1.0000, 20.0855]), tensor([ 2., 26.]), tensor([0.2120, 1.3647]))

    Reference: C. Loader, Fast and accurate computation of binomial probabilities (2000) for the deviance; W. Wei,
    L. Held, Calibration tests for count data, TEST 23 (2014) for the CRPS.
    """

    log_rate: Tensor
    support = COUNTS
    discrete = True

    def __post_init__(self) -> None:
        check_parameters(self, log_rate=self.log_rate)

    @property
    def shape(self) -> torch.Size:
        return self.log_rate.shape

    @property
    def rate(self) -> Tensor:
        """The expected count."""
        return self.log_rate.exp()

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def entropy(self) -> Tensor:
        log_rate = self.log_rate.double()
        below = log_rate.exp() < _SERIES_FROM
        threshold = torch.full_like(log_rate, _SERIES_FROM).log()
        small = torch.where(below, log_rate, threshold)
        rate = small.exp()
        mass = torch.exp(-rate)
        total = mass * rate
        for k in range(1, _LAST_COUNT + 1):
            mass = mass * rate / k
            total = total - mass * (k * small - rate - math.lgamma(k + 1))
        inverse = torch.exp(-torch.where(below, threshold, log_rate))
        series = torch.zeros_like(inverse)
        for coefficient in reversed(_ENTROPY_SERIES):
            series = (series + coefficient) * inverse
        return torch.where(below, total, 0.5 * (LOG_2PI + 1.0 + log_rate) - series).to(self.log_rate.dtype)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, shape (n, *shape), by PyTorch's own generator; detached from the parameters."""
        with torch.no_grad():
            rate = self.log_rate.double().exp().expand(n, *self.shape)
            return torch.poisson(rate, generator=generator).to(self.log_rate.dtype)

    def _log_prob(self, value: Tensor) -> Tensor:
        count, allowed = whole_count(value)
        log_mass = _log_mass(count, self.log_rate.double()).to(value.dtype)
        return torch.where(allowed, log_mass, outside_support(value))

    def _cdf(self, value: Tensor) -> Tensor:
        return _cdf(value.double(), self.log_rate.double()).to(value.dtype)

    def _quantile(self, share: Tensor) -> Tensor:
        dtype = self.log_rate.dtype
        log_rate, shares = self.log_rate.detach().double(), share.double()
        rate, z = log_rate.exp(), torch.special.ndtri(shares)
        guess = rate + rate.sqrt() * z + (z**2 - 1.0) / 6.0
        return least_count(lambda k, part: _cdf(k, part).to(dtype).double(), shares, guess, log_rate).to(dtype)

    def _crps(self, value: Tensor) -> Tensor:
        y, log_rate = torch.broadcast_tensors(value.double(), self.log_rate.double())
        crps: Tensor = _Crps.apply(y, log_rate)
        return crps.to(value.dtype)


def _log_mass(count: Tensor, log_rate: Tensor) -> Tensor:
    """``log p(count)`` in float64, for counts from 0 on."""
    positive = count.clamp_min(1.0)
    log_ratio = log_rate - positive.log()
    deviance = positive * (torch.expm1(log_ratio) - log_ratio)
    log_mass = -deviance - 0.5 * (positive.log() + LOG_2PI) - stirling_error(positive)
    return torch.where(count > 0, log_mass, -log_rate.exp())


def _cdf(value: Tensor, log_rate: Tensor) -> Tensor:
    value, log_rate = torch.broadcast_tensors(value, log_rate)
    inside = (value >= 0) & value.isfinite()
    count = torch.where(inside, value, torch.zeros_like(value)).floor()
    return torch.where(inside, _Cdf.apply(count, log_rate), torch.where(value.isnan(), value, (value > 0).double()))


class _Cdf(torch.autograd.Function):
    """``F(count; exp(log_rate))`` by SciPy; its derivative ``−rate · p(count)`` can be differentiated again."""

    @staticmethod
    def forward(count: Tensor, log_rate: Tensor) -> Tensor:
        share = special.pdtr(count.detach().cpu().numpy(), log_rate.detach().exp().cpu().numpy())
        return torch.as_tensor(share, dtype=torch.float64).to(count.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        count, log_rate = ctx.saved_tensors
        return None, -gradient * torch.exp(log_rate + _log_mass(count, log_rate))


class _Crps(torch.autograd.Function):
    """The CRPS in float64. Its derivatives are written out, and with that nothing in them cancels.

    ``2F(y) − 1`` in y and ``λ (1 − 2F(y − 1) − I₀(2λ) exp(−2λ))`` in ``log λ``; both can be differentiated again.
    """

    @staticmethod
    def forward(value: Tensor, log_rate: Tensor) -> Tensor:
        rate = log_rate.exp()
        count, inside = value.clamp_min(0.0).floor(), value >= 0
        mass = torch.where(inside, _log_mass(count, log_rate).exp(), torch.zeros_like(rate))
        distance = (value - rate) * (2.0 * _cdf(value, log_rate) - 1.0) + 2.0 * rate * mass
        return distance - rate * (torch.special.i0e(2.0 * rate) + torch.special.i1e(2.0 * rate))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        value, log_rate = ctx.saved_tensors
        rate = log_rate.exp()
        in_rate = 1.0 - 2.0 * _cdf(value - 1.0, log_rate) - torch.special.i0e(2.0 * rate)
        return gradient * (2.0 * _cdf(value, log_rate) - 1.0), gradient * rate * in_rate
