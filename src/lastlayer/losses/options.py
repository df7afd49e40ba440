"""How the options of losses are checked."""

from __future__ import annotations

import math

from lastlayer.checks import DomainError
from lastlayer.facts import Interval

POSITIVE = Interval(0.0)
NOT_NEGATIVE = Interval(0.0, low_closed=True)


def check_option(value: float, interval: Interval, *, what: str) -> None:
    """The option is a finite number of the interval.

    Raises:
        DomainError: naming the option, its value and the interval.
    """
    inside = interval.low <= value <= interval.high and math.isfinite(value)
    if (
        not inside
        or (value == interval.low and not interval.low_closed)
        or (value == interval.high and not interval.high_closed)
    ):
        raise DomainError(f"{what} is {value!r}; expected a number in {interval}.")
