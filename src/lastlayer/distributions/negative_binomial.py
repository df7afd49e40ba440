"""The negative binomial distribution: counts that spread more than Poisson's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy import special
from torch import Tensor

from lastlayer.distributions.counts import COUNTS, least_count, whole_count
from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters
from lastlayer.distributions.once import once
from lastlayer.distributions.special_functions import gamma_quantile
from lastlayer.distributions.support import outside_support
from lastlayer.log_gamma import stirling_error, stirling_slope

# From here on, of mean and concentration both, the entropy is Gaussian with a skewness and an excess kurtosis.
_NEARLY_GAUSSIAN = 3e3
# What a second derivative's error says of it.
_CDF_OR_CRPS = "a negative binomial's cdf or crps"


@dataclass(frozen=True, eq=False)
class NegativeBinomial(Distribution):
    """Negative binomial distributions by mean and concentration: Poisson's, whose rate is itself gamma distributed.

    Domain: values are whole numbers from 0 on; ``log_mean`` is any real number, ``concentration`` is positive.

    Link: ``mean = exp(log_mean)``.

    Formula: with m the mean, r the concentration, ``q = m/(m + r)`` and ``p = r/(m + r)``:
    ``log p(k) = log Γ(k + r) − log Γ(r) − log k! + r log p + k log q``. The variance is ``m + m²/r``. CRPS, for every
    real y, ``(y − m)(2F(y) − 1) + 2m (1 + ⌊y⌋/r) p(⌊y⌋) − ½ E|Y − Y′|`` with
    ``½ E|Y − Y′| = m (1 + m/r) ₂F₁(r + 1, ½; 2; −4 m (m + r)/r²)``.

    Gradient: first order in both parameters of everything but quantiles and samples. Those of the cdf and the CRPS
    can be differentiated once; a second derivative of theirs is an error, never a zero.

    Shapes: ``log_mean`` and ``concentration`` of one shape.

    Numerics: computed in float64 whatever the dtype. Probabilities come from deviances, in which log Γ has cancelled on
    paper: they pass into Poisson's as r grows, without losing digits. The cdf is SciPy's; its derivative in r, like the
    hypergeometric function, is an integral, taken numerically to about 1e-11 of its value (1e-6 for r of 1e-8). The
    entropy is an integral too, that holds however heavy the tail; its absolute error stays below 1e-10. The quantile is
    the least count whose cdf, rounded to the dtype, reaches the share: then ``quantile(cdf(k))`` is k wherever
    ``cdf(k − 1) < cdf(k) < 1``. The quantile of 1 is infinite.

    Special cases: r = 1 is the geometric distribution. Where two neighbors are equally likely the mode is, up to a
    rounding, the greater.

    Raises:
        LastLayerError: on a second derivative of cdf or CRPS.

    Example:
        >>> sales = NegativeBinomial(torch.tensor([2.0]), torch.tensor([1.5]))
        >>> sales.mean, sales.variance, sales.quantile(0.9)
        (tensor([7.3891]), tensor([43.7878]), tensor([16.]))

    Reference: C. Loader, Fast and accurate computation of binomial probabilities (2000) for the deviances; W. Wei,
    L. Held, Calibration tests for count data, TEST 23 (2014) for the CRPS.
    """

    log_mean: Tensor
    concentration: Tensor
    support = COUNTS
    discrete = True

    def __post_init__(self) -> None:
        check_parameters(self, log_mean=self.log_mean, concentration=self.concentration)

    @property
    def shape(self) -> torch.Size:
        return self.log_mean.shape

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1.0 + self.mean / self.concentration)

    @property
    def mode(self) -> Tensor:
        return (self.mean * (1.0 - self.concentration.reciprocal())).clamp_min(0.0).floor()

    @property
    def entropy(self) -> Tensor:
        log_mean, r = self._parameters
        return _entropy(log_mean, r).to(self.log_mean.dtype)

    @property
    def _parameters(self) -> tuple[Tensor, Tensor]:
        return self.log_mean.double(), self.concentration.double()

    def _log_prob(self, value: Tensor) -> Tensor:
        count, allowed = whole_count(value)
        log_mass = _log_mass(count, *self._parameters).to(value.dtype)
        return torch.where(allowed, log_mass, outside_support(value))

    def _cdf(self, value: Tensor) -> Tensor:
        return _cdf(value.double(), *self._parameters).to(value.dtype)

    def _quantile(self, share: Tensor) -> Tensor:
        dtype = self.log_mean.dtype
        log_mean, r = (parameter.detach() for parameter in self._parameters)
        mean, z = log_mean.exp(), torch.special.ndtri(share.double())
        skewed = (z**2 - 1.0) * (1.0 + 2.0 * mean / r) / 6.0
        nearly = mean + (mean * (1.0 + mean / r)).sqrt() * z + skewed
        # Far from a Gaussian it is the gamma distribution of the rate that decides.
        guess = torch.where(r < 10.0, gamma_quantile(share.double(), r) * (mean / r), nearly)
        found = least_count(lambda k, *part: _cdf(k, *part).to(dtype).double(), share.double(), guess, log_mean, r)
        return found.to(dtype)

    def _crps(self, value: Tensor) -> Tensor:
        y, log_mean, r = torch.broadcast_tensors(value.double(), *self._parameters)
        mean, (count, _) = log_mean.exp(), whole_count(y.floor())
        mass = _log_mass(count, log_mean, r).exp() * (y >= 0)
        distance = (y - mean) * (2.0 * _cdf(y, log_mean, r) - 1.0) + 2.0 * mean * (1.0 + count / r) * mass
        spread = _Spread.apply(*self._parameters)
        return (distance - spread).to(value.dtype)


def _log_shares(log_mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log q``."""
    log_odds = r.log() - log_mean
    return F.logsigmoid(log_odds), F.logsigmoid(-log_odds)


def _log_mass(count: Tensor, log_mean: Tensor, r: Tensor) -> Tensor:
    """``log p(count)`` in float64, for counts from 0 on."""
    log_p, log_q = _log_shares(log_mean, r)
    k = count.clamp_min(1.0)
    # Logarithms of expected over found, of both parts of k + r.
    of_k, of_r = log_q + torch.log1p(r / k), log_p + torch.log1p(k / r)
    deviance = k * _less_linear(of_k) + r * _less_linear(of_r)
    rest = stirling_error(k + r) - stirling_error(k) - stirling_error(r)
    log_mass = rest - deviance - 0.5 * (torch.log1p(k / r) + k.log() + LOG_2PI)
    return torch.where(count > 0, log_mass, r * log_p)


def _less_linear(x: Tensor) -> Tensor:
    """``exp(x) − 1 − x``."""
    return torch.expm1(x) - x


def _cdf(value: Tensor, log_mean: Tensor, r: Tensor) -> Tensor:
    value, log_mean, r = torch.broadcast_tensors(value, log_mean, r)
    inside = (value >= 0) & value.isfinite()
    count = torch.where(inside, value, torch.zeros_like(value)).floor()
    return torch.where(inside, _Cdf.apply(count, log_mean, r), torch.where(value.isnan(), value, (value > 0).double()))


class _Cdf(torch.autograd.Function):
    """``F(count)`` by SciPy, with its derivatives in both parameters."""

    @staticmethod
    def forward(count: Tensor, log_mean: Tensor, r: Tensor) -> Tensor:
        # Of the smaller of p and q, so that neither is a rounded difference from 1.
        log_p, log_q = _log_shares(log_mean, r)
        k, r_, p, q = (x.detach().cpu().numpy() for x in (count, r, log_p.exp(), log_q.exp()))
        share = torch.as_tensor(special.betainc(r_, k + 1.0, p), dtype=torch.float64)
        other = torch.as_tensor(special.betaincc(k + 1.0, r_, q), dtype=torch.float64)
        return torch.where(log_p < log_q, share.to(count.device), other.to(count.device))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        _, in_mean, in_r = ctx.needs_input_grad
        slopes = once(_cdf_slopes, *ctx.saved_tensors, of=_CDF_OR_CRPS) if in_mean or in_r else (None, None)
        return None, *(gradient * slope if slope is not None else None for slope in slopes)


class _Spread(torch.autograd.Function):
    """``½ E|Y − Y′|``, with its derivatives in both parameters."""

    @staticmethod
    def forward(log_mean: Tensor, r: Tensor) -> Tensor:
        return _spread(log_mean, r)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        slopes = once(lambda *parameters: _spread(*parameters)[1:], *ctx.saved_tensors, of=_CDF_OR_CRPS)
        return tuple(gradient * slope for slope in slopes)


def _cdf_slopes(count: Tensor, log_mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of ``F(count)`` in ``log m`` and in r.

    ``F(k) = ∫ f(u) du`` over u below ``−log m``, where ``f(u) ∝ σ(s)^r σ(−s)^(k+1)`` with ``s = u + log r``: the first
    is −f at the end, and for the second only f depends on r, its logarithm by ``χ(r + k + 1) − χ(r) − (exp ℓ − 1 − ℓ)``
    with ``χ = ψ − log`` and ``exp ℓ`` the ratio of σ(s) to its mean. The integral goes over the end's own tail, in
    which f falls: by the double exponential rule, in units of the distance over which f falls to 1/e.
    """
    k1 = count + 1.0
    end, log_r, log_p = -log_mean, r.log(), _log_shares(log_mean, r)[0]
    log_end = F.logsigmoid(-end - log_r)
    density = torch.exp(_log_mass(count, log_mean, r) + log_end) * (r + count)
    side = torch.where(end < -k1.log(), -1.0, 1.0)
    difference = stirling_slope(r + k1) - stirling_slope(r) + 0.5 * k1 / (r * (r + k1))

    def at(distance: Tensor) -> tuple[Tensor, Tensor]:
        """How far the logarithm of f has fallen, and its derivative in r."""
        s = end + side * distance + log_r
        fallen = r * (log_p - F.logsigmoid(s)) + k1 * (log_end - F.logsigmoid(-s))
        return fallen, difference - _less_linear(torch.log1p(k1 / r) + F.logsigmoid(s))

    low, high = torch.full_like(r, -46.0), torch.full_like(r, 46.0)
    for _ in range(12):
        middle = 0.5 * (low + high)
        short = at(middle.exp())[0] < 1.0
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    total, step = torch.zeros_like(r), 0.025
    for node in torch.arange(-3.7, 4.1, step, dtype=torch.float64).tolist():
        x = torch.tensor(node, dtype=torch.float64, device=r.device)
        distance = high.exp() * torch.exp(x - torch.exp(-x))
        fallen, slope = at(distance)
        total = total + step * distance * (1.0 + torch.exp(-x)) * torch.exp(-fallen) * slope
    return -density, -side * density * total


def _spread(log_mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``½ E|Y − Y′|`` and its derivatives in ``log m`` and in r.

    From the characteristic function φ, since ``π|n| = ∫₀^π (1 − cos nt)/(1 − cos t) dt``: with
    ``|φ(t)|² = (1 + c sin²(t/2))^(−r)``, ``c = 4m(m + r)/r²`` and x the tangent of t/2 it is by parts
    ``(r c/π) ∫₀^∞ (1 + x²)⁻² exp(−(r + 1) ℓ) dx`` with ``ℓ = log(1 + c x²/(1 + x²))``, in which nothing
    cancels. The integrand is even in x: with ``x = w sinh t`` the trapezoidal rule converges exponentially. The
    derivative in r is taken at constant x or, where r is small, at constant ``x √(1 + c)``: of either the terms do not
    cancel there.
    """
    mean = log_mean.exp()
    c, per_log_mean = 4.0 * mean * (mean / r + 1.0) / r, (r + 2.0 * mean) / (r + mean)
    width = torch.rsqrt(1.0 + c * (1.0 + r))
    # Of the logarithms of r c and of the integrand, at constant x and at constant x √(1 + c).
    of_front = torch.where(r < 1.0, mean / (r + 2.0 * mean), -mean / r) / (r + mean)
    of_share = (r * mean + r + 2.0 * mean) / (r * (r + mean))
    of_square = 4.0 * mean * (r - 1.0) / (r * (r + 2.0 * mean))
    integral, in_mean, in_r, step = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r), 0.15
    for t in torch.arange(0.0, 32.0, step, dtype=torch.float64).tolist():
        square = (width * math.sinh(t)) ** 2
        excess = c * (square / (1.0 + square))
        log_ratio = torch.log1p(excess)
        weight = width * (math.cosh(t) * (step if t > 0 else 0.5 * step))
        part = weight * torch.exp(-(r + 1.0) * log_ratio - 2.0 * torch.log1p(square))
        share = excess / (1.0 + excess)
        at_constant_x = share * of_share - _less_linear(-log_ratio)
        elsewhere = of_square * square / (1.0 + square) - log_ratio
        integral = integral + part
        in_mean = in_mean - part * (r + 1.0) * share * per_log_mean
        in_r = in_r + part * torch.where(r < 1.0, elsewhere, at_constant_x)
    front = 4.0 * mean * (1.0 + mean / r) / math.pi
    return front * integral, front * (per_log_mean * integral + in_mean), front * (of_front * integral + in_r)


def _entropy(log_mean: Tensor, r: Tensor) -> Tensor:
    """In float64. Gaussian with corrections where both parameters are large; elsewhere by Malmstén's integral of log Γ.

    ``E[log Γ(Y + r) − log Γ(r) − log Y!] = ∫₀^∞ (exp(−s) − exp(−rs)) (1 − E exp(−sY)) / (s (1 − exp(−s))) ds``, with
    ``s = w exp(x − exp(−x))``, w below every scale of the integrand.
    """
    mean = log_mean.exp()
    gaussian = torch.minimum(mean, r) > _NEARLY_GAUSSIAN
    one = torch.ones_like(mean)
    variance = mean * (1.0 + mean / r)
    skew = (1.0 + 2.0 * mean / r) ** 2 / variance
    excess = 6.0 / r + 1.0 / variance
    correction = skew / 12.0 + excess**2 / 48.0 + 7.0 * skew**2 / 48.0 - skew * excess / 8.0
    large = 0.5 * (LOG_2PI + 1.0 + variance.log()) - correction

    mean, r = torch.where(gaussian, one, mean), torch.where(gaussian, one, r)
    integral = torch.zeros_like(mean)
    for s, weight in _scales(mean.detach(), r.detach()):
        below = -torch.expm1(-s)
        # exp(−s) − exp(−rs), from the greater of the two; at r = 1 too with its derivative.
        kernel = torch.where(
            r < 1.0,
            torch.exp(-r * s) * torch.expm1(-(1.0 - r).clamp_min(0.0) * s),
            torch.exp(-s) * -torch.expm1(-(r - 1.0).clamp_min(0.0) * s),
        )
        integral = integral + weight * kernel * -torch.expm1(-r * torch.log1p(mean / r * below)) / below
    small = r * torch.log1p(mean / r) + mean * torch.log1p(r / mean) - integral
    return torch.where(gaussian, large, small)


def _scales(mean: Tensor, r: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Nodes s and the weights of ds/s."""
    count, start = 320, -3.7
    least = 1.0 / (1.0 + r + mean)
    last = (40.0 * r.reciprocal().clamp_min(1.0) / least).log()
    step = (last - start) / count
    for index in range(count + 1):
        x = start + index * step
        yield least * torch.exp(x - torch.exp(-x)), step * (1.0 + torch.exp(-x))
