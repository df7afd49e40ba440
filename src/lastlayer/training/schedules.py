"""How the learning rate falls (SPEC D2)."""

from __future__ import annotations

import math
from collections.abc import Callable

# Each takes the epochs done (a fraction within an epoch) and the most there will be, and gives a factor in (0, 1].
SCHEDULES: dict[str, Callable[[float, int], float]] = {
    "constant": lambda epoch, total: 1.0,
    "inverse": lambda epoch, total: 1.0 / (1.0 + epoch),
    "inverse_sqrt": lambda epoch, total: 1.0 / math.sqrt(1.0 + epoch),
    "step": lambda epoch, total: 0.1 ** math.floor(3.0 * epoch / total),
    "cosine": lambda epoch, total: 0.5 * (1.0 + math.cos(math.pi * min(1.0, epoch / total))),
}
