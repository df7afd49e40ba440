"""Dropout at inference whose draws a seed alone determines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# SplitMix64: the step from state to state, shift and factor of both rounds, and the shift at the end.
_WORD = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
# Units drawn in this process, and how many repay a compilation: half a second of them.
_drawn = 0
_REPAYS_COMPILING = 1 << 30


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
