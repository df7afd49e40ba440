"""The exponential link of a predicted log mean: that of counts and of positive targets, held within what is finite."""

from __future__ import annotations

from torch import Tensor

#: From this log mean on, e³⁰ ≈ 10¹³, the exponential goes on as its tangent, and below its negative as the inverse of
#: that; from this log ratio of target and mean on the losses do the same. Nobody fits such a number, and at raw outputs
#: of 10⁴ the tangent, unlike the exponential, is finite in float32.
LARGEST_LOG = 30.0


def mean_from_raw(raw: Tensor) -> Tensor:
    """The mean ``e^s``: positive, finite and with a gradient at any raw output.

    Beyond s = 30 the exponential goes on as its tangent, and below −30 as the inverse of that.

    Example:
        >>> import torch
        >>> mean_from_raw(torch.tensor([0.0, 2.0, 1e4, -1e4]))
        tensor([1.0000e+00, 7.3891e+00, 1.0655e+17, 9.3848e-18])
    """
    beyond, below = (raw - LARGEST_LOG).clamp_min(0.0), (-LARGEST_LOG - raw).clamp_min(0.0)
    return raw.clamp(-LARGEST_LOG, LARGEST_LOG).exp() * ((1.0 + beyond) / (1.0 + below))
