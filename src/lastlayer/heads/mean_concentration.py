"""What the heads share that predict a mean, and how closely the values gather around it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lastlayer.heads.head import Head
from lastlayer.losses.location_scale import MINIMUM_SCALE


@dataclass(frozen=True)
class MeanConcentrationHead(Head):
    """A mean and a concentration, two raw outputs; the standard deviation falls as the concentration's root rises.

    Attributes:
        minimum_scale: the least of ``concentration^−½``, a spread without a unit.
    """

    minimum_scale: float = MINIMUM_SCALE

    def __post_init__(self) -> None:
        self.formula  # noqa: B018 - which checks the options

    @property
    def raw_size(self) -> int:
        return 2

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``concentration``, both of shape (...)."""
        mean, concentration = self._links(self._computed(raw))
        return {"mean": mean, "concentration": concentration}

    @property
    def _through_softplus(self) -> list[int]:
        return [1]

    @abstractmethod
    def _links(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and concentration."""
