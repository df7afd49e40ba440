"""Student's t distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.distributions.distribution import LOG_2PI, Distribution, check_parameters
from lastlayer.distributions.sampling import log_standard_gamma, standard_normal
from lastlayer.distributions.special_functions import log1p_square, log_student_t, student_t_cdf, student_t_quantile
from lastlayer.facts import REAL
from lastlayer.log_gamma import digamma_half_step, log_gamma_half_step


@dataclass(frozen=True, eq=False)
class StudentT(Distribution):
    """Student's t distributions: like a Gaussian in the middle, with tails that fall off like ``|y|^−(ν+1)``.

    Domain: values are real numbers; ``scale`` and the degrees of freedom ν are positive. The scale is not the standard
    deviation, which is ``scale √(ν/(ν − 2))``.

    Formula: density ``Γ((ν+1)/2) / (Γ(ν/2) √(νπ) scale) · (1 + z²/ν)^(−(ν+1)/2)`` with ``z = (y − location)/scale``.
    With f and F the density and distribution function of z, and B the beta function, CRPS
    ``scale (z (2F(z) − 1) + (2 f(z)(ν + z²) − 2 √ν B(½, ν−½)/B(½, ν/2)²)/(ν − 1))``.

    Shapes: the parameters of one shape; ``location`` and ``scale`` in units of the target.

    Numerics: ``cdf`` and ``quantile`` are SciPy's (see :mod:`lastlayer.distributions.special_functions` for their
    gradient in ν). Nothing else loses digits however many the degrees of freedom: the gamma functions' large parts
    cancel on paper.

    Special cases: the mean is NaN for ν ≤ 1; the variance is infinite for 1 < ν ≤ 2 and NaN for ν ≤ 1. SciPy agrees on
    the variance and is of two minds about the mean, NaN for its Cauchy distribution and ∞ for the same t. The CRPS as
    an integral is finite for ν > ½, where the mean need not be: the formula continues to there, through its limit at
    ν = 1, and for ν ≤ ½ the CRPS is infinite.

    Example:
        >>> StudentT(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])).interval(0.95)
        (tensor([-4.5529]), tensor([6.5529]))

    Reference: A. Jordan, F. Krüger, S. Lerch, J. Statistical Software 90 (2019), appendix A, for the CRPS.
    """

    location: Tensor
    scale: Tensor
    degrees_of_freedom: Tensor
    support = REAL

    def __post_init__(self) -> None:
        check_parameters(self, location=self.location, scale=self.scale, degrees_of_freedom=self.degrees_of_freedom)

    @property
    def shape(self) -> torch.Size:
        return self.location.shape

    @property
    def mean(self) -> Tensor:
        return torch.where(self.degrees_of_freedom > 1, self.location, torch.nan)

    @property
    def variance(self) -> Tensor:
        degrees = self.degrees_of_freedom
        ratio = degrees / torch.where(degrees > 2, degrees - 2.0, torch.ones_like(degrees))
        finite = self.scale**2 * torch.where(degrees > 2, ratio, torch.ones_like(degrees))
        return torch.where(degrees > 2, finite, torch.where(degrees > 1, torch.inf, torch.nan))

    @property
    def median(self) -> Tensor:
        return self.location

    @property
    def mode(self) -> Tensor:
        return self.location

    @property
    def entropy(self) -> Tensor:
        half = 0.5 * self.degrees_of_freedom
        tail = (half + 0.5) * digamma_half_step(half)
        return tail - log_gamma_half_step(half) + 0.5 * LOG_2PI + self.scale.log()

    def affine(self, shift: float, scale: float) -> StudentT:
        return StudentT(shift + scale * self.location, scale * self.scale, self.degrees_of_freedom)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        half = 0.5 * self.degrees_of_freedom.double()
        # Over the root of a chi-square over its degrees of freedom: in logarithms, for that of few is often 0.
        stretch = torch.exp(0.5 * (half.log() - log_standard_gamma(half, n, generator)))
        draw = standard_normal(half, n, generator) * stretch
        return self.location + self.scale * draw.to(self.location.dtype)

    def _log_prob(self, value: Tensor) -> Tensor:
        return log_student_t((value - self.location) / self.scale, self.degrees_of_freedom) - self.scale.log()

    def _cdf(self, value: Tensor) -> Tensor:
        return student_t_cdf((value - self.location) / self.scale, self.degrees_of_freedom)

    def _quantile(self, share: Tensor) -> Tensor:
        return self.location + self.scale * student_t_quantile(share, self.degrees_of_freedom)

    def _crps(self, value: Tensor) -> Tensor:
        finite = self.degrees_of_freedom > 0.5
        degrees = torch.where(finite, self.degrees_of_freedom, torch.ones_like(self.degrees_of_freedom))
        z = (value - self.location) / self.scale
        score = z * (2.0 * student_t_cdf(z, degrees) - 1.0) + _spread(z, degrees)
        return torch.where(finite | value.isnan(), self.scale * score, torch.inf)


def _spread(z: Tensor, degrees: Tensor) -> Tensor:
    """``(2 f(z)(ν + z²) − c)/(ν − 1)`` with ``c = 2 √ν B(½, ν−½)/B(½, ν/2)²``, also at and around ν = 1.

    The two terms are equal at ν = 1. With d the difference of their logarithms it is ``c expm1(d)/(ν − 1)``.
    """
    excess = degrees - 1.0
    constant = degrees.sqrt() * degrees / (math.pi * (degrees - 0.5)).sqrt()
    constant = constant * (2.0 * log_gamma_half_step(0.5 * degrees) - log_gamma_half_step(degrees - 0.5)).exp()
    rate = _log_ratio_over_excess(degrees) - 0.5 * log1p_square(z / degrees.sqrt())
    difference = excess * rate
    # expm1(d)/d, times the rate d/(ν − 1); near d = 0 by its series, which has a derivative there.
    small = difference.abs() < torch.finfo(degrees.dtype).eps ** 0.2
    d = torch.where(small, difference, torch.zeros_like(difference))
    series = 1.0 + d / 2.0 * (1.0 + d / 3.0 * (1.0 + d / 4.0 * (1.0 + d / 5.0)))
    far = torch.where(small, torch.ones_like(difference), difference)
    return constant * rate * torch.where(small, series, torch.expm1(far) / far)


def _log_ratio_over_excess(degrees: Tensor) -> Tensor:
    """``(g(ν − ½) − g(ν/2))/(ν − 1)`` with ``g(x) = log Γ(x + ½) − log Γ(x)``; at ν = 1 it is ``g′(½)/2``."""
    excess = degrees - 1.0
    near = excess.abs() < torch.finfo(degrees.dtype).eps ** 0.2
    far = torch.where(near, torch.full_like(degrees, 2.0), degrees)
    steps = log_gamma_half_step(far - 0.5) - log_gamma_half_step(0.5 * far)
    direct = (steps + 0.5 * torch.log((far - 0.5) / (0.5 * far))) / (far - 1.0)
    # By the first two terms of its Taylor series around the middle of ν − ½ and ν/2, which lie (ν − 1)/2 apart.
    middle = torch.where(near, 0.5 + 0.75 * excess, torch.ones_like(degrees))
    bend = torch.polygamma(2, middle + 0.5) - torch.polygamma(2, middle)
    series = 0.5 * (digamma_half_step(middle) + bend * (0.25 * excess) ** 2 / 6.0)
    return torch.where(near, series, direct)
