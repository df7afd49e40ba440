"""The continuous ranked probability score of mixtures, in closed form where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lastlayer.distributions import quadrature
from lastlayer.distributions.distribution import LOG_2PI
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.quantile_search import CHUNK

if TYPE_CHECKING:
    from lastlayer.distributions.mixture import Mixture

#: ``E|X − X′|`` of two independent components: of locations this far apart, of these scales.
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def mixture_crps(mixture: Mixture, value: Tensor) -> Tensor:
    """``Σ_k w_k crps_k(y) − ∫ Σ_k w_k (F_k(x) − F(x))² dx``: the components' own scores, less what mixing them gains.

    The gain does not depend on the value. It is ``½ Σ_kl w_k w_l E|X_k − X_l| − ½ Σ_k w_k E|X_k − X_k′|``: for
    Gaussians and Laplaces a sum over pairs, K² terms an element of which a few at a time are in memory; for all others
    a quadrature.

    Numerics: in float64, since both parts may be large beside their difference.

    Reference: E. P. Grimit et al., Quarterly J. Royal Meteorological Society 132 (2006) for Gaussians.
    """
    double = mixture.double()
    own = double.components._crps(double._for_each(value.double()))
    expected = (double.weight * own).sum(value.dim() - len(mixture.shape))
    components = double.components
    if isinstance(components, Gaussian):
        gain = _gain_of_pairs(double, components.location, components.scale, gaussian_distance)
    elif isinstance(components, Laplace):
        gain = _gain_of_pairs(double, components.location, components.scale, laplace_distance)
    else:
        gain = quadrature.mixing_gain(double)
    return (expected - gain).to(mixture.log_weight.dtype)


def gaussian_distance(apart: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``E|X − X′|``: with s² the sum of the variances and z = distance/s, ``s (z (2Φ(z) − 1) + 2φ(z))``."""
    scale = torch.hypot(first, second)
    z = apart / scale
    return scale * (z * torch.erf(z / math.sqrt(2.0)) + 2.0 * torch.exp(-0.5 * z**2 - 0.5 * LOG_2PI))


def laplace_distance(apart: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``E|X − X′|`` of Laplaces whose locations differ by δ.

    Their difference has density ``(b e^{−|z−δ|/b} − c e^{−|z−δ|/c}) / (2 (b² − c²))`` with b ≥ c, which integrates to
    ``δ + (b³ e^{−δ/b} − c³ e^{−δ/c}) / (b² − c²)``. With ``t = δ (b − c)/(b c)`` the fraction is
    ``e^{−δ/b} (b² + b c + c² + c² (δ/b) (1 − e^{−t})/t) / (b + c)``: a sum of positive terms, equal scales included.
    """
    distance = torch.where(apart < 0, -apart, apart)
    greater, lesser = torch.maximum(first, second), torch.minimum(first, second)
    t = distance / lesser * ((greater - lesser) / greater)
    # Squares are taken of ratios: those of the scales could leave the range of the dtype.
    ratio = lesser / greater
    inner = 1.0 + ratio + ratio**2 + ratio**2 * (distance / greater) * _mean_decay(t)
    return distance + torch.exp(-distance / greater) * greater * inner / (1.0 + ratio)


def _mean_decay(t: Tensor) -> Tensor:
    """``(1 − e^{−t})/t`` for t ≥ 0, by its series near 0, where its derivatives would cancel."""
    near = t < 0.1
    small = torch.where(near, t, torch.zeros_like(t))
    series = torch.ones_like(t)
    for n in range(10, 1, -1):
        series = 1.0 - small / n * series
    far = torch.where(near, torch.ones_like(t), t)
    return torch.where(near, series, -torch.expm1(-far) / far)


def _gain_of_pairs(mixture: Mixture, location: Tensor, scale: Tensor, distance: Distance) -> Tensor:
    """``½ Σ_kl w_k w_l D_kl − ½ Σ_k w_k D_kk`` as ``Σ_{k<l} w_k w_l (D_kl − ½ D_kk − ½ D_ll)``, none negative."""
    count, shape = mixture.components.shape[0], mixture.shape
    parts = [tensor.reshape(count, -1) for tensor in (mixture.weight, location, scale)]
    # What the backward needs of all pairs is computed again there, a chunk at a time.
    tracked = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    size = max(1, 2 * CHUNK // count**2 if tracked else CHUNK // count)
    chunks = list(zip(*(part.split(size, dim=1) for part in parts), strict=True))

    def gain(weight: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        alone = 0.5 * distance(torch.zeros_like(scale), scale, scale)
        total = torch.zeros_like(weight[0])
        for first in range(count - 1):
            rest = slice(first + 1, None)
            apart = distance(location[rest] - location[first], scale[rest], scale[first].expand_as(scale[rest]))
            pairs = weight[rest] * (apart - alone[rest] - alone[first])
            total = total + weight[first] * pairs.sum(0)
        return total

    if tracked and len(chunks) > 1:
        sums = [checkpoint(gain, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        sums = [gain(*chunk) for chunk in chunks]
    return torch.cat(sums).reshape(shape)
