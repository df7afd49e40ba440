"""Which steps are looked at: many at the beginning, then ever fewer, by their number alone."""

from __future__ import annotations

from typing import Any

#: Steps between two looks once training is under way. A look at gradients and updates costs a fraction of a step, and
#: one in 256 is far below a percent of the run whatever the network.
USUAL = 256
#: Steps between two looks at the layers, which take a pass on a copy and as long as some ten steps; and by what factor
#: early ones lie apart: three in the first thousand steps.
USUAL_OF_LAYERS = 4096
BASE_OF_LAYERS = 16
#: Looks kept; beyond, every second one is dropped, and half as many are made from then on.
MOST_LOOKS = 128
#: Of these none is dropped.
FIRST_LOOKS = 16


class Sampling:
    """Says of every step whether it is looked at.

    By default the looks lie at the steps 0, 1, 2, 4, 8, … and from ``period`` on at its multiples. The time that steps
    take has no part in it, so that the same training gives the same record.

    Args:
        every: so many steps between looks, from the first; ``None`` for the default.
        period: of the default.
        base: by what factor early looks lie apart.

    Example:
        >>> sampling = Sampling(period=8)
        >>> [step for step in range(30) if sampling.is_due(step)]
        [0, 1, 2, 4, 8, 16, 24]
    """

    def __init__(self, every: int | None = None, *, period: int = USUAL, base: int = 2) -> None:
        self.every = every
        self.period = period if every is None else every
        self._base = base

    def is_due(self, step: int) -> bool:
        """Whether this step is looked at."""
        if step % self.period == 0:
            return True
        if self.every is not None or step > self.period:
            return False
        while step % self._base == 0:
            step //= self._base
        return step == 1

    def thin(self, looks: list[Any]) -> None:
        """With too many looks, drops every second of all but the first, and makes half as many from now on."""
        if len(looks) > MOST_LOOKS:
            del looks[FIRST_LOOKS::2]
            self.period *= 2
