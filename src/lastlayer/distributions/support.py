"""Values outside the support of a distribution: there a density is 0, and its formula may be undefined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.facts import Interval


def moved_inside(value: Tensor, support: Interval, stand_in: float) -> tuple[Tensor, Tensor]:
    """Values with ``stand_in`` for those outside the support, and which those are; NaN stays where it is.

    A formula that is undefined outside would send NaN backward from there, whatever is put in the place of its value.
    """
    outside = ~(support.contains(value) | value.isnan())
    return torch.where(outside, torch.full_like(value, stand_in), value), outside


def outside_support(value: Tensor) -> Tensor:
    """The logarithm of no probability at all, −∞; NaN where the value is NaN."""
    return torch.where(value.isnan(), value, torch.full_like(value, -math.inf))
