"""Where numbers can lie: intervals, what arithmetic makes of them, and what a function of one element does to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# A function that reaches this far on numbers that are finite is taken to go on for ever. The logarithm of the largest
# number used below is 691; a hardtanh that cuts at 255 is still told from one that does not.
_FAR = 500.0
# The sides of the line: where activations end, beyond what any of them still does something at.
_ENDS = (-1e300, -1e6, -1e3, 1e3, 1e6, 1e300)


@dataclass(frozen=True)
class Span:
    """All numbers from ``low`` to ``high``; the ends may be approached only.

    Example:
        >>> Span(1.0, 3.0).times(-2.0)
        Span(low=-6.0, high=-2.0)
    """

    low: float = -math.inf
    high: float = math.inf

    @property
    def limited(self) -> bool:
        """Whether there are numbers outside."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low

    def within(self, other: Span) -> bool:
        """Whether all of it lies in another."""
        return self.low >= other.low and self.high <= other.high

    def with_all_of(self, other: Span) -> Span:
        """The smallest that holds both."""
        return Span(min(self.low, other.low), max(self.high, other.high))

    def cut(self, low: float | None, high: float | None) -> Span:
        """What a clamp leaves."""
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        return Span(min(max(self.low, low), high), max(min(self.high, high), low))

    def plus(self, other: Span) -> Span:
        """Of sums."""
        return Span(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Span:
        """Of multiples; all of it is 0 if the factor is."""
        if factor == 0.0:
            return Span(0.0, 0.0)
        ends = (self.low * factor, self.high * factor)
        return Span(min(ends), max(ends))

    def under(self, numerator: float) -> Span:
        """Of ``numerator / x``; everything if x can change its sign."""
        if self.low < 0 < self.high or numerator == 0.0:
            return Span()
        ends = [_quotient(numerator, end, self.low >= 0) for end in (self.low, self.high)]
        return Span(min(ends), max(ends))

    def through(self, function: Callable[[Tensor], Tensor]) -> Span | None:
        """Of the values of a function of one element; ``None`` where it cannot be asked.

        Numerics: the function is computed on 5000 points between −12 and 12, at the ends, and far out.

        Example:
            >>> Span().through(torch.sigmoid)
            Span(low=0.0, high=1.0)
        """
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        points = torch.cat(
            [torch.arange(-2400, 2401).double() / 200, torch.tensor([*_ENDS, *ends], dtype=torch.float64)]
        )
        points = points[(points >= self.low) & (points <= self.high)]
        try:
            with torch.no_grad():
                values = function(points.clone()).double()
        except Exception:
            return None
        if values.shape != points.shape or bool(values.isnan().all()):
            return None
        known = values[~values.isnan()]
        low, high = float(known.min()), float(known.max())
        return Span(-math.inf if low <= -_FAR else low, math.inf if high >= _FAR else high)

    def distance(self, values: Tensor) -> Tensor:
        """How far every value lies outside."""
        return (self.low - values).clamp_min(0.0) + (values - self.high).clamp_min(0.0)

    def __str__(self) -> str:
        if not self.limited:
            return "any number"
        if math.isinf(self.high):
            return f"{self.low:.3g} or more"
        if math.isinf(self.low):
            return f"{self.high:.3g} or less"
        return f"between {self.low:.3g} and {self.high:.3g}"


REAL = Span()
UNIT = Span(0.0, 1.0)


def _quotient(numerator: float, end: float, positive: bool) -> float:
    if end == 0.0:
        return math.copysign(math.inf, numerator if positive else -numerator)
    return numerator / end
