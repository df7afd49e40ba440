"""The loop around a scalar function: over memory in one sweep, in short pieces that stay in the nearest cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from lastlayer.evaluation.kernels import scalar_math
from lastlayer.evaluation.kernels.translation import Source

#: Elements worked on at a time: their values and gradients lie in the first cache until they are added and stored.
PIECE = 2048

strict = njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def add_up(values: Any) -> Any:
    """The sum, in whatever order is fastest: of 2048 numbers the rounding is that of a tree."""
    total = np.float32(0.0)
    for i in range(values.shape[0]):
        total += values[i]
    return total


def scalar_function(source: Source) -> Callable[..., Any]:
    """The translated formula, ready to be called from a loop."""
    names: dict[str, Any] = {name: getattr(scalar_math, name) for name in vars(scalar_math) if name[0] != "_"}
    names.update({name: np.float32(number) for name, number in source.constants})
    exec(compile(source.code, "<formula>", "exec"), names)  # our own translation of our own formula
    return scalar_math.inline(names["element"])


def flat_loop(
    element: Callable[..., Any],
    load_raw: Callable[..., Any],
    load_target: Callable[..., Any],
    store: Callable[..., Any],
    *,
    weighted: bool,
    with_gradient: bool,
) -> Callable[..., Any]:
    """``loop(raw, target, weight, gradient, scale) -> Σ weight · value`` over flat arrays.

    The gradient may lie over the raw output: a piece is read whole before it is written.
    """

    @strict
    def loop(raw: Any, target: Any, weight: Any, gradient: Any, scale: Any) -> Any:
        total = 0.0
        values, slopes = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
        for start in range(0, raw.shape[0], PIECE):
            r, t = raw[start : start + PIECE], target[start : start + PIECE]
            w, g = weight[start : start + PIECE], gradient[start : start + PIECE]
            for i in range(r.shape[0]):
                value, slope = element(load_raw(r[i]), load_target(t[i]))
                if weighted:
                    # Not times zero: what is masked may be NaN.
                    share = np.float32(w[i])
                    counts = share != np.float32(0.0)
                    values[i] = value * share if counts else np.float32(0.0)
                    slopes[i] = slope * (share * scale) if counts else np.float32(0.0)
                else:
                    values[i] = value
                    slopes[i] = slope * scale
            if with_gradient:
                for i in range(g.shape[0]):
                    g[i] = store(slopes[i])
            total += add_up(values[: r.shape[0]])
        return total

    return loop


def row_loop(flat: Callable[..., Any], *, with_gradient: bool) -> Callable[..., Any]:
    """The same over rows with one weight each, from the unweighted loop."""

    @strict
    def loop(raw: Any, target: Any, weight: Any, gradient: Any, scale: Any) -> Any:
        total = 0.0
        for row in range(raw.shape[0]):
            if weight[row] == np.float32(0.0):
                if with_gradient:
                    gradient[row, :] = 0
            else:
                total += weight[row] * flat(raw[row], target[row], weight, gradient[row], weight[row] * scale)
        return total

    return loop
