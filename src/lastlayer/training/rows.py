"""Rows of a table as tensors already on the device, and the mini-batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Features, targets and weights of the same rows.

    Attributes:
        features: shape (n, width).
        target: shape (n,) or (n, labels).
        weight: shape (n,), or ``None`` where every row counts the same.
    """

    features: Tensor
    target: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: Tensor | slice) -> Rows:
        """These rows, in this order."""
        return Rows(self.features[index], self.target[index], None if self.weight is None else self.weight[index])

    def to(self, device: str | torch.device) -> Rows:
        """The same rows on a device."""
        return Rows(
            self.features.to(device), self.target.to(device), None if self.weight is None else self.weight.to(device)
        )

    def batches(self, batch_size: int, *, generator: torch.Generator, shuffle: bool = True) -> Iterator[Rows]:
        """One epoch: a fresh random partition of the rows, or their fixed order.

        ``batch_size`` is n for batch gradient descent, 1 for stochastic (or, in fixed order, point-wise) descent,
        anything between for mini-batches (SPEC D1). The rows are copied once in shuffled order and then sliced, which
        is cheaper than gathering every batch.
        """
        rows = self
        if shuffle and batch_size < len(self):
            rows = self.take(torch.randperm(len(self), generator=generator).to(self.features.device))
        for start in range(0, len(rows), batch_size):
            yield rows.take(slice(start, start + batch_size))

    def ones_or_weight(self) -> Tensor:
        """The weight of every row, ones where none was given."""
        return self.features.new_ones(len(self)) if self.weight is None else self.weight
