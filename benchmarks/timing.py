"""Timing that can be compared on a noisy machine: candidates in turn, in one process, medians and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate, one run of each per round after a round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, floor: str) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of a candidate's time over the floor's, round by round."""
    ratios = sorted(own / least for own, least in zip(seconds[name], seconds[floor], strict=True))
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4)
    return low, statistics.median(ratios), high
