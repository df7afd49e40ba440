"""Rows of a table as tensors already on the device, and the mini-batches of an epoch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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

    def take(self, index: Tensor) -> Rows:
        """These rows, in this order."""
        return self._each(lambda column: column.index_select(0, index))

    def to(self, device: str | torch.device) -> Rows:
        """The same rows on a device."""
        return self._each(lambda column: column.to(device))

    def batches(self, batch_size: int, *, generator: torch.Generator, shuffle: bool = True) -> Iterator[Rows]:
        """One epoch: a fresh random partition of the rows, or, without ``shuffle``, their fixed order.

        ``batch_size`` is n for batch gradient descent, 1 for stochastic (or, in fixed order, point-wise) descent,
        anything between for mini-batches (SPEC D1). The batches are as many as that takes and of one size, give or
        take a row: a small remainder would be a noisy step. The rows are copied once in shuffled order and then
        sliced, which is cheaper than gathering every batch.
        """
        count = -(-len(self) // batch_size)
        rows = self
        if shuffle and count > 1:
            rows = self.take(torch.randperm(len(self), generator=generator).to(self.features.device))
        edges = [len(self) * number // count for number in range(count + 1)]
        for start, end in itertools.pairwise(edges):
            weight = None if rows.weight is None else rows.weight[start:end]
            yield Rows(rows.features[start:end], rows.target[start:end], weight)

    def ones_or_weight(self) -> Tensor:
        """The weight of every row, ones where none was given."""
        return self.features.new_ones(len(self)) if self.weight is None else self.weight

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        weight = None if self.weight is None else change(self.weight)
        return Rows(change(self.features), change(self.target), weight)
