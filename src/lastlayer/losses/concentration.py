"""The link of a predicted concentration, which the gamma, beta and negative binomial likelihoods share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.losses.location_scale import MINIMUM_SCALE, raw_from_scale, scale_derivative, scale_from_raw

# The best concentration is looked for from here on: a relative scale of e¹⁵ is no prediction.
_LEAST_LOG = -30.0


def concentration_from_raw(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor, Tensor]:
    """Concentration ``a = c⁻²``, its logarithm, and its relative scale ``c = softplus(r) + minimum_scale``.

    The raw output means what it means for a Gaussian, a scale, but one relative to the mean: a gamma distribution has
    standard deviation ``c·mean``. A concentration of a million is then no further away than one of a millionth.

    Example:
        >>> concentration_from_raw(torch.tensor([0.0, -5.0]))[0]
        tensor([2.0754e+00, 1.6799e+04])
    """
    scale = scale_from_raw(raw, minimum_scale)
    return scale**-2, -2.0 * scale.log(), scale


def log_concentration_derivative(raw: Tensor, scale: Tensor) -> Tensor:
    """The derivative of the logarithm of the concentration with respect to its raw output."""
    return -2.0 * scale_derivative(raw) / scale


def raw_from_concentration(concentration: Tensor, minimum_scale: float = MINIMUM_SCALE) -> Tensor:
    """The inverse of the link; −∞ for a concentration of ``minimum_scale**-2`` or more.

    Example:
        >>> raw_from_concentration(torch.tensor([4.0, 1e6]))
        tensor([-0.4353,    -inf])
    """
    return raw_from_scale(concentration.rsqrt(), minimum_scale)


def log_concentration_bounds(like: Tensor, minimum_scale: float) -> tuple[Tensor, Tensor]:
    """Between which the best concentration is looked for: up to the largest that the link reaches."""
    return torch.full_like(like, _LEAST_LOG), torch.full_like(like, -2.0 * math.log(minimum_scale))
