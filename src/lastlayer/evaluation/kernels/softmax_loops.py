"""Two loops over rows of class scores: one for what a loss needs to know of them, one that writes its gradient.

The exponentials are taken twice, once in each loop: on a CPU that is cheaper than writing them to memory and reading
them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from lastlayer.evaluation.kernels import scalar_math
from lastlayer.evaluation.kernels.loops import PIECE, strict

_ZERO = np.float32(0.0)


_free_order = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nnan", "nsz", "contract"})


@strict
def _largest(values: Any, work: Any) -> Any:
    """By halves: a running maximum does not vectorize. A NaN may be lost, and makes the sum of exponentials NaN."""
    length = values.shape[0]
    half = (length + 1) // 2
    for i in range(half):
        work[i] = values[i]
    upper = values[half:]
    for i in range(upper.shape[0]):
        work[i] = upper[i] if upper[i] > work[i] else work[i]
    while half > 1:
        length, half = half, (half + 1) // 2
        upper = work[half:length]
        for i in range(upper.shape[0]):
            work[i] = upper[i] if upper[i] > work[i] else work[i]
    return work[0]


@_free_order
def _sum(values: Any) -> Any:
    total = _ZERO
    for i in range(values.shape[0]):
        total += values[i]
    return total


@_free_order
def _sum_of_squares(values: Any) -> Any:
    total = _ZERO
    for i in range(values.shape[0]):
        total += values[i] * values[i]
    return total


def statistics_loop(load: Callable[..., Any]) -> Callable[..., Any]:
    """``loop(raw, index, found)``: per row largest score, Σ exp and Σ exp² of the others, score of the true class.

    In one pass: where a piece has a larger score than all before it, what was added up so far is scaled down. Scores
    are below the largest by what stands in the exponent.
    """
    exp = scalar_math.exp_below_zero

    @strict
    def loop(raw: Any, index: Any, found: Any) -> Any:
        scores, powers = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
        for row in range(raw.shape[0]):
            true = index[row]
            largest = load(raw[row, 0])
            total, squares = 0.0, 0.0
            for start in range(0, raw.shape[1], PIECE):
                r = raw[row, start : start + PIECE]
                length = r.shape[0]
                for i in range(length):
                    scores[i] = load(r[i])
                above = _largest(scores[:length], powers)
                if above > largest:
                    shrink = float(np.exp(np.float64(largest) - np.float64(above)))
                    total, squares, largest = total * shrink, squares * shrink * shrink, above
                for i in range(length):
                    powers[i] = exp(scores[i] - largest)
                if start <= true < start + length:
                    powers[true - start] = _ZERO
                total += _sum(powers[:length])
                squares += _sum_of_squares(powers[:length])
            found[row, 0] = largest
            found[row, 1] = total
            found[row, 2] = squares
            found[row, 3] = load(raw[row, true]) - largest
        return 0.0

    return loop


def gradient_loop(load: Callable[..., Any], store: Callable[..., Any]) -> Callable[..., Any]:
    """``loop(raw, index, factors, gradient)``: ``e (linear + quadratic e)`` with e = exp(s − largest), and at_true.

    ``factors`` has largest, linear, quadratic and at_true per row. The gradient may lie over the raw output.
    """
    exp = scalar_math.exp_below_zero

    @strict
    def loop(raw: Any, index: Any, factors: Any, gradient: Any) -> Any:
        slopes = np.empty(PIECE, np.float32)
        for row in range(raw.shape[0]):
            largest, linear, quadratic = factors[row, 0], factors[row, 1], factors[row, 2]
            for start in range(0, raw.shape[1], PIECE):
                r, g = raw[row, start : start + PIECE], gradient[row, start : start + PIECE]
                if quadratic == _ZERO:
                    for i in range(r.shape[0]):
                        slopes[i] = exp(load(r[i]) - largest) * linear
                else:
                    for i in range(r.shape[0]):
                        e = exp(load(r[i]) - largest)
                        slopes[i] = e * (linear + quadratic * e)
                for i in range(r.shape[0]):
                    g[i] = store(slopes[i])
            gradient[row, index[row]] = store(factors[row, 3])
        return 0.0

    return loop
