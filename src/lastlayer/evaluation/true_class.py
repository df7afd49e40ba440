"""Losses of a softmax that see a class index: what they need to know of it, and what they give back.

For an index, a loss of softmax probabilities depends on a few numbers of each row, and so does its gradient: no one-hot
row, and no second array of probabilities, is ever needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class TrueClass(Protocol):
    """A softmax p seen from the true class y of every sample. All have shape (..., 1).

    Attributes:
        index: the class y.
        one: p_y.
        rest: 1 − p_y as the sum of the others, accurate where p_y rounds to 1.
        squares: Σ p_j² over the others.
        log_one: log p_y, accurate also where it is close to 0.
        log_normalizer: logsumexp(s).
    """

    @property
    def index(self) -> Tensor: ...
    @property
    def one(self) -> Tensor: ...
    @property
    def rest(self) -> Tensor: ...
    @property
    def squares(self) -> Tensor: ...
    @property
    def log_one(self) -> Tensor: ...
    @property
    def log_normalizer(self) -> Tensor: ...


class OfIndex(NamedTuple):
    """A loss and its gradient: ``at_true`` for class y, and ``p_j (linear + quadratic p_j)`` for every other class j.

    All have shape (..., 1); ``linear`` may be ``None`` for 1, ``quadratic`` for 0.
    """

    value: Tensor
    at_true: Tensor
    linear: Tensor | None = None
    quadratic: float | Tensor | None = None


@dataclass(frozen=True)
class Statistics:
    """A :class:`TrueClass` of numbers that are there."""

    index: Tensor
    one: Tensor
    rest: Tensor
    squares: Tensor
    log_one: Tensor
    log_normalizer: Tensor
