"""A rising, piecewise linear map of [0, 1] onto itself: what PIT recalibration learns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lastlayer.checks import DomainError


@dataclass(frozen=True)
class LevelMap:
    """``R(u)`` through given corners, straight between them, with ``R(0) = 0`` and ``R(1) = 1``.

    Attributes:
        claimed: the corners' arguments, strictly ascending from 0 to 1: shares that predictions claim.
        observed: the values there, strictly ascending from 0 to 1: the shares that held-out rows showed.

    Raises:
        DomainError: if the corners do not ascend from 0 to 1.
    """

    claimed: tuple[float, ...]
    observed: tuple[float, ...]

    def __post_init__(self) -> None:
        for label, corners in (("claimed", self.claimed), ("observed", self.observed)):
            if (
                len(corners) < 2
                or corners[0] != 0.0
                or corners[-1] != 1.0
                or not all(a < b for a, b in pairwise(corners))
            ):
                raise DomainError(f"the {label} levels are {corners!r}; expected numbers that ascend from 0 to 1.")
        if len(self.claimed) != len(self.observed):
            raise DomainError(
                f"{len(self.claimed)} claimed levels, {len(self.observed)} observed ones; expected one each."
            )

    def __call__(self, claimed: Tensor) -> Tensor:
        """``R(u)``, in the argument's dtype; differentiable."""
        return _through(claimed, self.claimed, self.observed)

    def inverse(self, observed: Tensor) -> Tensor:
        """The u with ``R(u)`` equal to this."""
        return _through(observed, self.observed, self.claimed)

    def log_slope(self, claimed: Tensor) -> Tensor:
        """``log R′(u)``; at a corner that of the piece before it."""
        x, y = (torch.tensor(c, dtype=torch.float64, device=claimed.device) for c in (self.claimed, self.observed))
        slopes = ((y[1:] - y[:-1]) / (x[1:] - x[:-1])).log()
        return slopes[self.piece(claimed)].to(claimed.dtype)

    def piece(self, claimed: Tensor) -> Tensor:
        """Which piece it lies on, from 0."""
        inner = torch.tensor(self.claimed[1:-1], dtype=torch.float64, device=claimed.device)
        return torch.searchsorted(inner, claimed.detach().double().contiguous())


def _through(argument: Tensor, start: tuple[float, ...], end: tuple[float, ...]) -> Tensor:
    x, y = (torch.tensor(corners, dtype=torch.float64, device=argument.device) for corners in (start, end))
    wide = argument.double()
    place = torch.searchsorted(x[1:-1], wide.detach().contiguous())
    slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    value = (y[place] + (wide - x[place]) * slope[place]).to(argument.dtype)
    # Rounding must not reach an end from inside: there a quantile may be infinite.
    kind = torch.finfo(argument.dtype)
    held = value.clamp(kind.tiny, 1.0 - 0.5 * kind.eps)
    return torch.where((argument > 0) & (argument < 1), held, value)
