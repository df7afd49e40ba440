"""What is known of a loss or a head, as data that tests, docs and commands read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A part of the real line: where a target or a raw output may lie."""

    low: float = -math.inf
    high: float = math.inf
    low_closed: bool = False
    high_closed: bool = False

    def contains(self, values: Tensor) -> Tensor:
        """Elementwise: does the value lie inside? NaN never does."""
        above = values >= self.low if self.low_closed else values > self.low
        below = values <= self.high if self.high_closed else values < self.high
        return above & below

    def __str__(self) -> str:
        left = "[" if self.low_closed else "("
        right = "]" if self.high_closed else ")"
        return f"{left}{_number(self.low)}, {_number(self.high)}{right}"


def _number(value: float) -> str:
    return f"{'-' if value < 0 else ''}∞" if math.isinf(value) else f"{value:g}"


REAL = Interval()
UNIT = Interval(0.0, 1.0, low_closed=True, high_closed=True)


@dataclass(frozen=True)
class LossFacts:
    """Facts of one loss.

    Attributes:
        name: the function's name and the key in ``losses.catalog()``.
        title: what people call it.
        target: where targets lie; ``None`` where they are class indices or class probabilities.
        raw: where raw outputs lie.
        link: from raw output to prediction.
        formula, gradient: per sample, in the raw output s and the target y.
        minimum: the least value over raw outputs, with what it depends on.
        optimal_constant: the raw output that is best when the inputs say nothing.
        convex, smooth: in the raw output.
        likelihood: the distribution whose negative log-likelihood it is, constants dropped.
        use_when, avoid_when: a sentence each.
        reference: where it is defined.
        example: ``example(n, dtype=..., generator=...) -> (raw, target)``, valid and varied.
    """

    name: str
    title: str
    target: Interval | None
    raw: Interval
    link: str
    formula: str
    gradient: str
    minimum: str
    optimal_constant: str
    convex: bool
    smooth: bool
    likelihood: str | None
    use_when: str
    avoid_when: str
    reference: str
    example: Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeadFacts:
    """Facts of one head.

    Attributes:
        name: the spelling that estimators and the command take.
        title: what people call the task.
        target: what a target looks like, in words.
        activation: the last layer's activation, i.e. the link from raw output to parameters.
        loss: the name of its loss.
        likelihood: the distribution of the target given the input.
        reference: where the pairing is stated.
    """

    name: str
    title: str
    target: str
    activation: str
    loss: str
    likelihood: str
    reference: str
