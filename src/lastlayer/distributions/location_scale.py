"""What symmetric distributions share that are one density, moved and stretched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.distributions.distribution import Distribution, check_parameters
from lastlayer.facts import REAL


@dataclass(frozen=True, eq=False)
class LocationScale(Distribution):
    """A density symmetric around ``location``, where it is greatest, and as wide as ``scale`` says."""

    location: Tensor
    scale: Tensor
    support = REAL

    def __post_init__(self) -> None:
        check_parameters(self, location=self.location, scale=self.scale)

    @property
    def shape(self) -> torch.Size:
        return self.location.shape

    @property
    def mean(self) -> Tensor:
        return self.location

    @property
    def mode(self) -> Tensor:
        return self.location

    def affine(self, shift: float, scale: float) -> Self:
        return type(self)(shift + scale * self.location, scale * self.scale)
