"""What every network of an estimator is."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from lastlayer.networks.linear import Linear


class Network(nn.Module):
    """A body and a last layer, made from a few plain values that a model folder keeps.

    Attributes:
        kind: what it is called in a model folder.
        over_images: whether it takes features ``(n, channels, height, width)``, and not ``(n, width)``.
        spec: what :meth:`from_spec` makes a network of this shape from, as plain JSON.
        members: how many networks side by side; ``None`` for a single one.
        body: features to hidden units.
        last: hidden units to raw output.
    """

    kind: ClassVar[str]
    over_images: ClassVar[bool] = False
    spec: dict[str, Any]
    members: int | None = None
    body: nn.Sequential
    last: Linear

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """A network of this shape, its weights still to be loaded."""
        return cls(**spec)

    def forward(self, features: Tensor) -> Tensor:
        """Raw output."""
        raw: Tensor = self.last(self.body(features))
        return raw
