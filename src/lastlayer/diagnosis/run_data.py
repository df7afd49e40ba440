"""Rows of a run: features of any kind and their target, cut and moved together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError
from lastlayer.diagnosis.examination import read_batch
from lastlayer.diagnosis.subject import Features


@dataclass(frozen=True)
class RunData:
    """Features and target of the same rows.

    Attributes:
        features: what the network takes; every tensor has the rows as its first axis.
        target: what the loss takes.
    """

    features: Features
    target: Tensor

    @classmethod
    def read(cls, given: Any, *, what: str) -> RunData | None:
        """A pair as users have it; ``None`` for none.

        Raises:
            InputError: for something else, or features and a target that differ in their number of rows.
        """
        if given is None:
            return None
        features, target = read_batch(given)
        if target is None:
            raise InputError(f"{what} holds features alone; expected (features, target).")
        lengths = {len(tensor) for tensor in (*tensors_of(features), target) if tensor.dim()}
        if len(lengths) != 1:
            raise InputError(f"{what} has features and target of {sorted(lengths)} rows; expected as many of each.")
        return cls(features, target)

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: Tensor | slice) -> RunData:
        """These rows."""
        return RunData(_each(self.features, lambda column: column[index]), self.target[index])

    def to(self, device: torch.device) -> RunData:
        """The same rows on a device."""
        return RunData(_each(self.features, lambda column: column.to(device)), self.target.to(device))

    def some(self, most: int) -> RunData:
        """No more than so many rows, evenly spread; the same ones at every call."""
        if len(self) <= most:
            return self
        return self.take(torch.linspace(0, len(self) - 1, most).round().long().to(self.target.device))

    def batches(self, size: int, *, generator: torch.Generator) -> Iterator[RunData]:
        """Batches without end, every epoch a new partition of the rows."""
        while True:
            order = torch.randperm(len(self), generator=generator).to(self.target.device)
            # A last batch of few rows is a noisy step, and one of a single row none for batch normalization.
            yield from (self.take(rows) for rows in order.split(size) if len(rows) == min(size, len(self)))


def tensors_of(features: Features) -> Iterator[Tensor]:
    """The tensors among what a network takes."""
    values: Any = features if isinstance(features, tuple) else [features]
    if isinstance(features, dict):
        values = features.values()
    yield from (value for value in values if isinstance(value, Tensor))


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next((own.device for own in network.parameters()), torch.device("cpu"))


def _each(features: Features, change: Callable[[Tensor], Tensor]) -> Features:
    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, Tensor) and value.dim() else value

    if isinstance(features, tuple):
        return tuple(map(changed, features))
    if isinstance(features, dict):
        return {name: changed(value) for name, value in features.items()}
    return changed(features)
