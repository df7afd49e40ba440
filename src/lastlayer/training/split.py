"""Which rows are held out to judge by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Fewer rows than this cannot spare any.
FEWEST_ROWS_TO_SPLIT = 10

# 15 % of the rows, but no more than 15 % of 50 000: so many tell models apart, and the others teach more.
_USUAL, _MOST = 0.15, 7500


def usual_fraction(rows: int) -> float:
    """The share of so many rows that is held out where nobody says otherwise.

    >>> usual_fraction(1000), usual_fraction(60_000)
    (0.15, 0.125)
    """
    return min(_USUAL, _MOST / max(rows, 1))


def hold_out(
    rows: int, fraction: float, random: np.random.RandomState, *, classes: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to hold out, in random order.

    With ``classes`` every class gives its share, and keeps at least one row to train on. Fewer than 10 rows, or a
    fraction of 0, hold nothing out.
    """
    order = random.permutation(rows)
    if rows < FEWEST_ROWS_TO_SPLIT or fraction == 0:
        return order, order[:0]
    if classes is None:
        held_out = max(1, round(fraction * rows))
        return order[held_out:], order[:held_out]
    chosen = np.zeros(rows, dtype=bool)
    for index in np.unique(classes):
        members = order[classes[order] == index]
        chosen[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    if not chosen.any():
        # Every class is too small for a share of its own.
        return order, order[:0]
    return order[~chosen[order]], order[chosen[order]]
