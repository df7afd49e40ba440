"""Dropout that draws a byte per unit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lastlayer.checks import InputError

# SplitMix64: the step from state to state, shift and factor of both rounds, and the shift at the end.
_WORD = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
# Units drawn in this process, and how many repay a compilation: half a second of them.
_drawn = 0
_REPAYS_COMPILING = 1 << 30


class Dropout(nn.Module):
    """Sets a share of the units to zero while training and scales the others up, so that the mean stays.

    ``torch.nn.Dropout`` draws a full random number per unit, which on a CPU took a quarter of a training step of the
    default network. A 64-bit draw holds eight bytes, and a byte is enough: the share is rounded to 1/256, and the scale
    is that of the rounded share. Five times as fast there, and the same random state gives the same mask.

    Shapes: any, kept.

    Special cases: nothing is dropped in evaluation mode; a share under 1/512 drops nothing.

    Raises:
        InputError: if ``p`` does not lie in [0, 1).

    Example:
        >>> Dropout(0.5)(torch.ones(1000)).unique()
        tensor([0., 2.])

    Reference: N. Srivastava et al., J. Machine Learning Research 15 (2014).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"p is {p!r}; expected a share in [0, 1).")
        self.p = p
        # Of 256 values of a byte, those below are dropped; at least one is kept.
        self.dropped = min(round(256 * p), 255)

    @property
    def scale(self) -> float:
        """What the units kept are multiplied by."""
        return 256 / (256 - self.dropped)

    def forward(self, units: Tensor) -> Tensor:
        return self.record(units)[0]

    def record(self, units: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output, and the factor of every unit, 0 for those dropped; ``None`` where nothing is dropped."""
        if not self.training or self.dropped == 0:
            return units, None
        draws = torch.empty(-(-units.numel() // 8), dtype=torch.int64, device=units.device)
        # Over all 64 bits; without bounds the sign bit would stay 0, and with it one bit of every eighth byte.
        draws.random_(torch.iinfo(torch.int64).min, None)
        # Compared in place, bytes stay bytes; PyTorch makes numbers of bytes six times as fast as of truth values.
        kept = draws.view(torch.uint8)[: units.numel()].ge_(self.dropped)
        factor = kept.view(units.shape).to(units.dtype).mul_(self.scale)
        return units * factor, factor

    def backpropagate(self, factor: Tensor | None, gradient: Tensor, *, further: bool) -> Tensor | None:
        """The gradient of the input, where it is to go ``further``."""
        if not further:
            return None
        return gradient if factor is None else gradient * factor

    def extra_repr(self) -> str:
        return f"p={self.p}"


class SeededDropout:
    """Drops units by random bytes that a seed alone determines, at inference and without autograd.

    A byte for each unit, as :class:`Dropout` takes it, from SplitMix64: the n-th word is a function of n, so that many
    are computed at once. NumPy does it in ten passes over memory. A loop by Numba does it in one, rectifier and bias of
    the layer before included, and the same to the last bit; it takes a second to compile, and is compiled, where Numba
    is installed, once so much has been drawn that it pays.

    Reference: G. L. Steele, D. Lea, C. H. Flood, Fast splittable pseudorandom number generators (OOPSLA 2014).
    """

    def __init__(self, seed: int) -> None:
        self.state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._steps = self._words = self._shifted = np.empty(0, dtype=np.uint64)

    def into(self, out: Tensor, dropped: int, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """A function that fills ``out``, and gives it, with the units it is called with: those dropped 0, none scaled.

        Shapes: out ``(draws, rows, width)``, units ``(rows, width)``, both contiguous, on the CPU; bias ``(width,)``.

        Args:
            dropped: of 256 values of a byte, how many mean that its unit is dropped.
            bias: if given, it is ``relu(units + bias)`` that is dropped from, and units may be written over.
        """
        draws, size = out.shape[0], out[0].numel()
        words = -(-size // 8)
        by_draw = out.view(draws, size)
        compiles = out.dtype in (torch.float32, torch.float64) and _numba()
        if compiles:
            # What the loop takes, made once: for a small block it would cost as much as the loop.
            to, limit = by_draw.numpy(), np.uint8(dropped)
            added = (out.new_zeros(out.shape[2]) if bias is None else bias).detach().numpy()
            least = to.dtype.type(-np.inf if bias is None else 0.0)

        def drop(units: Tensor) -> Tensor:
            global _drawn
            assert units.numel() == size, "the compiled loop checks no bounds"
            start, self.state = self.state, (self.state + draws * words * _STEP) & _WORD
            if compiles and _drawn > _REPAYS_COMPILING:
                _compiled()(units.view(size).numpy(), added, to, least, np.uint64(start), limit)
                return out
            _drawn += draws * size
            if bias is not None:
                units.add_(bias).relu_()
            kept = torch.from_numpy(self._random(start, draws * words).view(np.uint8)).ge_(dropped)
            by_draw.copy_(kept.view(draws, -1)[:, :size])
            return out.mul_(units)

        return drop

    def _random(self, start: int, count: int) -> NDArray[np.uint64]:
        """The next words, in memory that is used again."""
        if len(self._words) < count:
            self._steps = np.arange(count, dtype=np.uint64) * np.uint64(_STEP)
            self._words, self._shifted = np.empty_like(self._steps), np.empty_like(self._steps)
        words, shifted = self._words[:count], self._shifted[:count]
        np.add(self._steps[:count], np.uint64(start), out=words)
        for shift, factor in _ROUNDS:
            np.right_shift(words, np.uint64(shift), out=shifted)
            np.bitwise_xor(words, shifted, out=words)
            np.multiply(words, np.uint64(factor), out=words)
        np.right_shift(words, np.uint64(_LAST_SHIFT), out=shifted)
        return np.bitwise_xor(words, shifted, out=words)


@cache
def _numba() -> bool:
    return importlib.util.find_spec("numba") is not None


@cache
def _compiled() -> Callable[..., None]:
    """The loop over units: ``max(units + bias, least)`` where the unit's byte is at least ``dropped``, else 0."""
    from numba import njit

    step, (first, second), last = np.uint64(_STEP), _ROUNDS, np.uint64(_LAST_SHIFT)
    first_shift, first_factor = np.uint64(first[0]), np.uint64(first[1])
    second_shift, second_factor = np.uint64(second[0]), np.uint64(second[1])

    def drop(units: Any, bias: Any, out: Any, least: Any, start: Any, dropped: Any) -> None:
        draws, size = out.shape
        # Whole rows, and whole words: by eights; few enough that what is done with them stays in the nearest cache.
        most = 8 * max(256 // len(bias), 1) * len(bias)
        words = np.empty(most // 8, dtype=np.uint64)
        random, added = words.view(np.uint8), np.empty(most, dtype=bias.dtype)
        for i in range(most):
            added[i] = bias[i % len(bias)]
        for draw in range(draws):
            for begin in range(0, size, most):
                piece, result = units[begin : begin + most], out[draw, begin : begin + most]
                count = (len(piece) + 7) // 8
                for i in range(count):
                    word = start + np.uint64(i) * step
                    word = (word ^ (word >> first_shift)) * first_factor
                    word = (word ^ (word >> second_shift)) * second_factor
                    words[i] = word ^ (word >> last)
                start += np.uint64(count) * step
                for i in range(len(piece)):
                    unit = piece[i] + added[i]
                    unit = least if unit < least else unit
                    result[i] = unit * (random[i] >= dropped)

    compiled: Callable[..., None] = njit(nogil=True, error_model="numpy")(drop)
    return compiled
