"""What is known of an activation, a loss or a head, as data that tests, docs and commands read."""

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


# An activation is called saturated where its derivative is smaller than this.
SATURATED = 1e-4


@dataclass(frozen=True)
class ActivationFacts:
    """Facts of one activation, at its default options.

    What one number says of a function over several inputs (maxout, softmax) is said of its profile: the first output
    over the first input while the others are 0.

    Attributes:
        name: the function's name, the key in ``activations.catalog()``, the spelling that networks take.
        title: what people call it.
        formula, derivative: in the input x; at a kink the derivative is the one that PyTorch's backward takes.
        range: where values lie.
        monotonic: whether the value never falls as x grows.
        derivative_monotonic: whether the derivative never turns.
        saturates_below, saturates_above: beyond this x, on that side, the derivative is smaller than ``SATURATED``;
            ``None`` where it never stays so.
        zero_centered: whether f(−x) = −f(x), so that inputs around 0 give outputs around 0.
        smooth: whether the derivative is continuous.
        elementwise: whether every output depends on one input.
        parameters: what is learned; ``None`` for nothing.
        use_when, avoid_when: a sentence each.
        reference: where it is defined.
        example: ``example(n, dtype=..., generator=...) -> x``, valid and varied.
        profile: what the profile shows of a function over several inputs; ``None`` where it is the function itself.
    """

    name: str
    title: str
    formula: str
    derivative: str
    range: Interval
    monotonic: bool
    derivative_monotonic: bool
    saturates_below: float | None
    saturates_above: float | None
    zero_centered: bool
    smooth: bool
    elementwise: bool
    parameters: str | None
    use_when: str
    avoid_when: str
    reference: str
    example: Callable[..., Tensor]
    profile: str | None = None


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
        convex, smooth: in the raw output, for every target; smooth: the gradient is continuous.
        likelihood: the distribution whose negative log-likelihood it is, constants dropped.
        use_when, avoid_when: a sentence each.
        reference: where it is defined.
        example: ``example(n, dtype=..., generator=...) -> (raw, target)``, valid and varied.
        proper: whether it is least where the link gives the target, soft targets included.
        exact_constant: whether the formula's ``optimal_constant`` is the optimum itself, or only a good start.
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
    proper: bool = True
    exact_constant: bool = True


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
        example: ``example(n, dtype=..., generator=...) -> (raw, target)``, valid and varied, for the head's
            ``default()``.
        spelling: how options are written behind the name, as in ``"mixture:5:laplace"``; ``None`` where there are none.
    """

    name: str
    title: str
    target: str
    activation: str
    loss: str
    likelihood: str
    reference: str
    example: Callable[..., tuple[Tensor, Tensor]]
    spelling: str | None = None
