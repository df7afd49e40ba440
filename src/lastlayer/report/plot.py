"""Curves as text: braille dots, or letters where the output knows ASCII only."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

# A braille character has two columns of four dots, each a bit.
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
# A curve draws one dot of so many of its path.
_EVERY = (1, 3)
STROKES = ("solid", "dotted")
LETTERS = "*o"


def plot(
    x: Sequence[float], curves: Sequence[Sequence[float]], *, width: int, height: int = 11, ascii_only: bool = False
) -> list[str]:
    """One or two curves over x with both axes, as ``height + 2`` lines of at most ``width`` characters.

    The first curve is solid, the second dotted; in ASCII they are drawn as ``*`` and ``o``.

    Args:
        x: where the curves are known, ascending, at least two numbers.
        curves: what is not finite leaves a gap.
        width: the numbers of the vertical axis included; 24 at least.
        height: lines between the axes' ends; 4 at least.
        ascii_only: letters instead of braille dots.

    Example:
        >>> print("\\n".join(plot([0, 1, 2], [[0, 1, 4]], width=24, height=5, ascii_only=True)))
         4+                   **
         3+                ***
         2+            ****
         1+      ******
         0+******
          ++---------+---------+
           0         1         2
    """
    low, high, ticks = _scale([value for curve in curves for value in curve if math.isfinite(value)])
    margin = max(map(len, ticks.values())) + 1
    columns = width - margin - 1
    across, down = (1, 1) if ascii_only else (2, 4)

    canvas = [[" "] * columns for _ in range(height)]
    for number, curve in enumerate(curves):
        for dot, (column, row) in enumerate(_path(x, curve, columns * across, height * down, low, high)):
            line, place = canvas[row // down], column // across
            if ascii_only:
                # Where curves meet, the first stays on top.
                line[place] = LETTERS[number] if line[place] == " " else line[place]
            elif dot % _EVERY[number] == 0:
                lit = 0 if line[place] == " " else ord(line[place]) - _BRAILLE
                line[place] = chr(_BRAILLE | lit | _DOTS[column % across][row % down])

    rule, mark, corner, dash, below = "|++-+" if ascii_only else "│┤└─┴"
    labels = {round((high - tick) / (high - low) * (height - 1)): label for tick, label in ticks.items()}
    places = {0: x[0], columns // 2: (x[0] + x[-1]) / 2, columns - 1: x[-1]}
    lines = [
        labels.get(row, "").rjust(margin) + (mark if row in labels else rule) + "".join(line)
        for row, line in enumerate(canvas)
    ]
    lines.append(" " * margin + corner + "".join(below if place in places else dash for place in range(columns)))
    lines.append(" " * (margin + 1) + _written(places, columns))
    return [line.rstrip() for line in lines]


def _scale(values: list[float]) -> tuple[float, float, dict[float, str]]:
    """The ends of the vertical axis, and its ticks: multiples of 1, 2 or 5 times a power of ten, as they are written.

    An end moves out to the next tick where that is near; where it is not, the space is better used.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4.5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
    near = 0.15 * (high - low)
    below, above = math.floor(low / step) * step, math.ceil(high / step) * step
    low, high = below if low - below <= near else low, above if above - high <= near else high
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return low, high, {index * step: f"{index * step:.{decimals}f}" for index in range(first, last + 1)}


def _written(places: dict[int, float], columns: int) -> str:
    """The numbers below the horizontal axis, each centered on its place."""
    cells = [" "] * columns
    for place, value in places.items():
        text = f"{value:g}"
        start = min(max(place - len(text) // 2, 0), columns - len(text))
        cells[start : start + len(text)] = text
    return "".join(cells)


def _path(
    x: Sequence[float], curve: Sequence[float], columns: int, rows: int, low: float, high: float
) -> Iterator[tuple[int, int]]:
    """The dots of a curve from left to right, steep stretches filled in."""
    before: int | None = None
    for column in range(columns):
        value = _between(x, curve, x[0] + (x[-1] - x[0]) * column / (columns - 1))
        if not math.isfinite(value):
            before = None
            continue
        row = round((high - value) / (high - low) * (rows - 1))
        if before is not None and abs(row - before) > 1:
            down = 1 if row > before else -1
            for filled in range(before + down, row, down):
                yield column, filled
        yield column, row
        before = row


def _between(x: Sequence[float], curve: Sequence[float], at: float) -> float:
    """The curve's value there, on the line between its neighbors."""
    right = min(max(bisect_right(x, at), 1), len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return curve[right - 1] + share * (curve[right] - curve[right - 1])
