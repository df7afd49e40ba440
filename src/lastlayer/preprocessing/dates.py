"""A moment as numbers: how far along, and where in the year, the week and the day."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DATE_PARTS = ("days", "year", "year sine", "year cosine", "week sine", "week cosine")
TIME_PARTS = ("day sine", "day cosine")

_ONE_DAY = np.timedelta64(1, "D")


def parts_of(moments: NDArray[np.datetime64]) -> tuple[str, ...]:
    """Which parts describe these moments: the time of day only where one is not midnight."""
    timed = moments != moments.astype("datetime64[D]")
    return DATE_PARTS + TIME_PARTS if np.any(timed & ~np.isnat(moments)) else DATE_PARTS


def date_parts(moments: NDArray[np.datetime64], parts: tuple[str, ...]) -> NDArray[np.float64]:
    """Moments ``(n,)`` as float64 ``(n, len(parts))``, NaN for NaT.

    ``days`` since 1970 let a model see a trend, ``year`` a level; a sine and a cosine put the end of a year, week
    or day next to its beginning.
    """
    day = moments.astype("datetime64[D]")
    year = moments.astype("datetime64[Y]")
    year_length = (year + 1).astype("datetime64[D]") - year.astype("datetime64[D]")
    elapsed = (day - np.datetime64("1970-01-01")) / _ONE_DAY
    turns = {
        "year": (moments - year.astype("datetime64[us]")) / year_length,
        "week": (elapsed + 3) % 7 / 7,  # 1970-01-01 was a Thursday, three days after a Monday
        "day": (moments - day.astype("datetime64[us]")) / _ONE_DAY,
    }
    values = {"days": elapsed, "year": (year - np.datetime64("1970", "Y")) / np.timedelta64(1, "Y") + 1970}
    for cycle, turn in turns.items():
        values[f"{cycle} sine"] = np.sin(2 * np.pi * turn)
        values[f"{cycle} cosine"] = np.cos(2 * np.pi * turn)
    return np.column_stack([values[part] for part in parts])
