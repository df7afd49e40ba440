"""The training loss of every step: kept on the device, read by the host now and then, in memory that does not grow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.checks import KindError
from lastlayer.diagnosis.run_record import LossBlock

#: Values that are kept one by one: a rate that is too high shows itself in the first steps.
FIRST = 64
#: Values read at once, at most: each is a small tensor on the device until then.
PENDING = 256
#: Blocks kept; beyond, neighbors become one, so that a run of any length has half as many to this many.
MOST_BLOCKS = 256


class LossCurve:
    """Values of the loss in the order in which they come.

    Example:
        >>> curve = LossCurve()
        >>> for value in (3.0, 2.0, 1.0):
        ...     curve.add(torch.tensor(value))
        >>> curve.read()
        >>> curve.first, curve.blocks[-1].mean, curve.count
        ([3.0, 2.0, 1.0], 1.0, 3)
    """

    def __init__(self) -> None:
        self.first: list[float] = []
        #: The place of the first value that is not finite, and the last finite one before it.
        self.not_finite: tuple[int, float] | None = None
        self._size = 1
        self._sums = np.zeros((0, 6))
        self._partial: list[float] = []
        # A number, or None for one that is still in its slot on the device.
        self._pending: list[float | None] = []
        self._buffer = torch.zeros(0)
        self._slots: list[Tensor] = []
        self._read = 0
        self._last = math.nan
        self._since = (0, 0.0)

    @property
    def count(self) -> int:
        """How many values there are, those included that the host has not read."""
        return self._read + len(self._pending)

    def add(self, value: Any) -> None:
        """Takes the loss of a step: a number, or a tensor, whose mean counts; the host does not wait for it.

        Raises:
            KindError: for anything else.
        """
        if isinstance(value, Tensor):
            self._put(value.detach() if value.dim() == 0 else value.detach().float().mean())
            self._pending.append(None)
        else:
            try:
                self._pending.append(float(value))
            except (TypeError, ValueError):
                kind = type(value).__name__
                raise KindError(f"the loss to log is {kind}; expected a tensor or a number.") from None
        if len(self._pending) >= PENDING:
            self.read()

    def read(self) -> None:
        """Brings the values that are still on the device to the host."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        numbers = self._buffer[: len(pending)].tolist() if None in pending else [0.0] * len(pending)
        values = [number if known is None else known for known, number in zip(pending, numbers, strict=True)]
        self._note_not_finite(values)
        self.first += values[: FIRST - len(self.first)] if len(self.first) < FIRST else []
        self._read += len(values)
        self._since = (self._since[0] + len(values), self._since[1] + sum(values))
        self._partial += values
        if len(self._partial) >= PENDING:
            self._put_into_blocks()

    def _put_into_blocks(self) -> None:
        full = len(self._partial) // self._size * self._size
        if full:
            blocks = np.array(self._partial[:full]).reshape(-1, self._size)
            self._sums = np.concatenate([self._sums, _sums(blocks)])
            self._partial = self._partial[full:]
        while len(self._sums) > MOST_BLOCKS:
            self._halve()

    def mean_since(self) -> float:
        """The mean of the values since the last call; NaN if there were none, or one is not finite."""
        self.read()
        (count, total), self._since = self._since, (0, 0.0)
        return total / count if count else math.nan

    @property
    def blocks(self) -> tuple[LossBlock, ...]:
        """All that have been read, in neighboring blocks."""
        self._put_into_blocks()
        sums = self._sums
        if self._partial:
            sums = np.concatenate([sums, _sums(np.array([self._partial]))])
        place, result = 0, []
        for count, finite, mean, squares, lowest, highest in sums.tolist():
            known = finite > 0
            result.append(
                LossBlock(
                    first=place,
                    count=int(count),
                    mean=mean if known else math.nan,
                    deviation=math.sqrt(max(squares / finite, 0.0)) if known else math.nan,
                    lowest=lowest if known else math.nan,
                    highest=highest if known else math.nan,
                    not_finite=int(count - finite),
                )
            )
            place += int(count)
        return tuple(result)

    def _put(self, value: Tensor) -> None:
        """Copies a number to its slot.

        The tensor itself is not kept: a small one that outlives its step sits between the large ones of the next and
        keeps their memory from being used again, which on a CPU costs more than everything else here.
        """
        wide = torch.float64 if value.dtype == torch.float64 else torch.float32
        if (
            not self._slots
            or self._buffer.device != value.device
            or (wide != self._buffer.dtype and wide == torch.float64)
        ):
            self.read()
            self._buffer = torch.zeros(PENDING, dtype=wide, device=value.device)
            self._slots = list(self._buffer.unbind())
        self._slots[len(self._pending)].copy_(value)

    def _note_not_finite(self, values: list[float]) -> None:
        if self.not_finite is not None:
            return
        for place, value in enumerate(values):
            if not math.isfinite(value):
                self.not_finite = (self._read + place, self._last)
                return
            self._last = value

    def _halve(self) -> None:
        """Makes neighboring blocks one; a last one without a neighbor stays as it is."""
        paired = len(self._sums) // 2 * 2
        merged = _merged(self._sums[0:paired:2], self._sums[1:paired:2])
        self._sums = np.concatenate([merged, self._sums[paired:]])
        self._size *= 2


def _sums(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row: count, finite ones, their mean, sum of squares around it, lowest and highest."""
    finite = np.isfinite(blocks)
    count = finite.sum(1)
    safe = np.maximum(count, 1)
    # A loss near the largest number overflows in a square, and is then as large as can be.
    with np.errstate(over="ignore"):
        mean = np.where(finite, blocks / safe[:, None], 0.0).sum(1)
        squares = np.where(finite, blocks - mean[:, None], 0.0)
        squares = np.square(squares).sum(1)
    lowest, highest = np.where(finite, blocks, np.inf).min(1), np.where(finite, blocks, -np.inf).max(1)
    return np.stack([np.full(len(blocks), blocks.shape[1]), count, mean, squares, lowest, highest], axis=1)


def _merged(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    count = left[:, 1] + right[:, 1]
    safe = np.maximum(count, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = (left[:, 1] * left[:, 2] + right[:, 1] * right[:, 2]) / safe
        between = left[:, 1] * right[:, 1] / safe * np.square(left[:, 2] - right[:, 2])
        squares = left[:, 3] + right[:, 3] + between
    lowest, highest = np.minimum(left[:, 4], right[:, 4]), np.maximum(left[:, 5], right[:, 5])
    return np.stack([left[:, 0] + right[:, 0], count, mean, squares, lowest, highest], axis=1)
