"""Draws of standard distributions, shape (n, *shape): what the continuous distributions' samples are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def standard_normal(like: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """``n`` draws of a standard Gaussian for every element of a tensor, of its dtype and device."""
    return torch.randn(n, *like.shape, dtype=like.dtype, device=like.device, generator=generator)


def log_standard_gamma(concentration: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Logarithms of ``n`` draws of gamma distributions of rate 1; the draws themselves may be too small for a number.

    A draw of concentration a + 1 times ``U^(1/a)`` has concentration a, U uniform: ``−log U`` is a waiting time.

    Reference: G. Marsaglia, W. W. Tsang, ACM Transactions on Mathematical Software 26 (2000), section 6.
    """
    repeated = concentration.expand(n, *concentration.shape)
    waiting = torch.empty_like(repeated, memory_format=torch.contiguous_format).exponential_(generator=generator)
    return torch._standard_gamma(repeated + 1.0, generator=generator).log() - waiting / repeated
