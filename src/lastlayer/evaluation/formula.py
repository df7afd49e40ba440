"""What a formula is: a per-sample value and its gradient, written beside each other.

A formula knows one loss's mathematics and nothing of how it is reduced, blocked or fused; that is decided by its
neighbours in this folder, once for all formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lastlayer.checks import KindError, check_same_shape
from lastlayer.evaluation.true_class import OfIndex, TrueClass
from lastlayer.facts import LossFacts


class Formula(ABC):
    """The mathematics of one loss.

    Shapes: with ``event_dims = 0`` the loss is elementwise: ``raw``, ``target`` and the value share a shape. With
    ``event_dims = 1`` the last axis of ``raw`` belongs to one sample and the value has shape ``raw.shape[:-1]``.

    ``value`` is plain differentiable PyTorch: autograd, ``torch.func`` and higher orders go through it. ``gradient``
    is the closed form of d value / d raw, of the shape of ``raw``.
    """

    facts: ClassVar[LossFacts]
    event_dims: ClassVar[int] = 0
    #: Whether ``value_into`` works in the place it is given, so that larger blocks still fit into cache.
    works_in_place: ClassVar[bool] = False

    @property
    def sees_true_class(self) -> bool:
        """Whether, for class indices, ``of_index`` gives value and gradient from a few numbers of the true class."""
        return False

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        """Value and gradient for class indices, where ``sees_true_class``; ``target`` as it was given.

        Raises:
            KindError: where it does not.
        """
        raise KindError(f"{type(self).__name__} does not see the true class alone; ask sees_true_class first.")

    def harmless_index(self, target: Tensor) -> Tensor:
        """Class indices, each naming a class also where the sample counts nothing."""
        return target

    def specialized(self, target: Tensor) -> Formula:
        """This formula without what this target does not need. May look at the target where that is cheap."""
        return self

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The options that are tensors: one that needs a gradient is differentiated through the readable value."""
        return tuple(option for option in vars(self).values() if isinstance(option, Tensor))

    @abstractmethod
    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        """The target as the formula computes with it; an error if shapes or dtypes do not belong together.

        Looks at shapes and dtypes only: reading values would make the host wait for the device.
        """

    @abstractmethod
    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        """The loss of every sample."""

    @abstractmethod
    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        """The derivative of every sample's loss with respect to its raw output."""

    @abstractmethod
    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """The raw output (of one sample) that minimizes the weighted mean loss over ``target``."""

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once; a formula overrides it where they share work."""
        return self.value(raw, target), self.gradient(raw, target)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """The value; the gradient is written into the place given, which may be ``raw`` itself.

        Runs without autograd on blocks that fit into cache, where every pass over the numbers costs: a formula
        overrides it where writing in place saves some.
        """
        value, result = self.value_and_gradient(raw, target)
        gradient.copy_(result)
        return value

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        """The mean as PyTorch's own function of this very loss has it, if it has one that is as accurate.

        For problems so small that only the number of calls counts; on larger ones it takes many times as long.
        """
        return None

    def normalizing_weight(self, raw: Tensor, target: Tensor) -> Tensor | None:
        """What a sample counts in the mean's denominator; ``None``: one each."""
        return None


class Elementwise(Formula):
    """A loss of every element by itself: raw output, target and value share one shape, and nothing broadcasts."""

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        check_same_shape(raw, target, loss=self.facts.name)
        return target if target.dtype == raw.dtype else target.to(raw.dtype)


@dataclass(frozen=True)
class Scaled(Formula):
    """``slope · loss + offset``: how a likelihood contains a named loss.

    The negative log-likelihood of a Gaussian with fixed scale b is ``1/(2b²) · squared_error + log b + ½ log 2π``.
    """

    inner: Formula
    slope: float
    offset: float = 0.0

    @property
    def facts(self) -> LossFacts:  # type: ignore[override]
        """The facts of the loss inside."""
        return self.inner.facts

    @property
    def event_dims(self) -> int:  # type: ignore[override]
        """As the loss inside."""
        return self.inner.event_dims

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.inner.tensors

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.inner.conform(raw, target)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.slope * self.inner.value(raw, target) + self.offset

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.slope * self.inner.gradient(raw, target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.inner.value_and_gradient(raw, target)
        return self.slope * value + self.offset, self.slope * gradient

    def normalizing_weight(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return self.inner.normalizing_weight(raw, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.inner.optimal_constant(target, sample_weight)


@dataclass(frozen=True)
class Summed(Formula):
    """An elementwise loss summed over the last axis: the negative log-likelihood of independent labels."""

    inner: Formula
    event_dims = 1

    @property
    def facts(self) -> LossFacts:  # type: ignore[override]
        """The facts of the loss inside."""
        return self.inner.facts

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.inner.tensors

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.inner.conform(raw, target)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.inner.value(raw, target).sum(-1)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.inner.gradient(raw, target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.inner.value_and_gradient(raw, target)
        return value.sum(-1), gradient

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        return self.inner.value_into(raw, target, gradient).sum(-1)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.inner.optimal_constant(target, sample_weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the first axis with one weight per row."""
    return torch.tensordot(weight, values, dims=([0], [0])) / weight.sum()
