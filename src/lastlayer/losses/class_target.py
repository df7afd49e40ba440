"""What the losses of class scores share: their target, and a softmax in which no 1 − p is a difference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import KindError, ShapeError, shape_text
from lastlayer.evaluation import Formula, OfIndex, weighted_mean

#: From how many classes on PyTorch's softmax over the last axis is the quicker one.
LONG_AXIS = 16
#: Below this a float32 probability is about to lose digits to underflow.
_SMALLEST_PRECISE = 1e-30


def class_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of five classes, and class indices."""
    return (
        3 * torch.randn(n, 5, dtype=dtype, generator=generator),
        torch.randint(5, (n,), generator=generator),
    )


def class_target(raw: Tensor, target: Tensor, *, loss: str) -> Tensor:
    """Class indices as int64, class probabilities in the dtype of raw; indices are never expanded to one-hot.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        KindError: for a bool target, which could mean either.
    """
    if raw.dim() == 0 or raw.shape[-1] == 0:
        raise ShapeError(f"{loss}: raw has shape {shape_text(raw)}; expected (..., classes).")
    if target.is_floating_point():
        if target.shape != raw.shape:
            raise ShapeError(
                f"{loss}: class probabilities have shape {shape_text(target)}, raw {shape_text(raw)}; "
                f"expected one shape. Fix: pass class indices as integers, target.long(), or a one-hot target."
            )
        return target.to(raw.dtype)
    if target.dtype == torch.bool:
        raise KindError(f"{loss}: target is bool. Fix: target.long() for indices, target.float() for one-hot.")
    if target.shape == raw.shape:
        raise ShapeError(
            f"{loss}: an integer target holds class indices and has the shape of raw, {shape_text(target)}; "
            f"expected {tuple(raw.shape[:-1])}. Fix: target.argmax(-1) for one-hot rows, or target.float()."
        )
    if target.shape != raw.shape[:-1]:
        raise ShapeError(
            f"{loss}: class indices have shape {shape_text(target)}, raw {shape_text(raw)}; expected "
            f"{tuple(raw.shape[:-1])}: raw without its last axis. Fix: classes last, or pass dim=."
        )
    return target.long()


def classes_last(raw: Tensor, target: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Raw output and target with the classes moved from axis ``dim`` to the end."""
    if dim in (-1, raw.dim() - 1):
        return raw, target
    has_classes = target.is_floating_point() and target.dim() == raw.dim()
    return raw.movedim(dim, -1), target.movedim(dim, -1) if has_classes else target


def log_class_frequencies(target: Tensor, sample_weight: Tensor, *, loss: str) -> Tensor:
    """The logarithm of how often each class occurs, from class probabilities.

    Raises:
        KindError: for class indices, which do not say how many classes there are.
    """
    frequency = class_frequencies(target, sample_weight, loss=loss)
    return torch.log(frequency / frequency.sum())


def class_frequencies(target: Tensor, sample_weight: Tensor, *, loss: str) -> Tensor:
    """The weighted mean of class probabilities.

    Raises:
        KindError: for class indices, which do not say how many classes there are.
    """
    if not target.is_floating_point():
        raise KindError(f"{loss}: the optimal constant needs class probabilities; pass a one-hot target.")
    return weighted_mean(target, sample_weight)


def log_softmax(raw: Tensor) -> Tensor:
    """Over the last axis. PyTorch's kernel for a short last axis goes through the numbers one by one.

    With 10 classes it takes five times as long as the kernel for a leading axis, which takes many samples at once;
    from 16 classes on it is the other way round.
    """
    if raw.shape[-1] < LONG_AXIS:
        return torch.log_softmax(raw.transpose(0, -1), dim=0).transpose(0, -1)
    return torch.log_softmax(raw, dim=-1)


def softmax(raw: Tensor) -> Tensor:
    """Over the last axis, short or long."""
    if raw.shape[-1] < LONG_AXIS:
        return torch.softmax(raw.transpose(0, -1), dim=0).transpose(0, -1)
    return torch.softmax(raw, dim=-1)


@dataclass(frozen=True)
class OneVersusRest:
    """A softmax p seen from one class y of every sample.

    Attributes:
        index: the class y, shape (..., 1), as everything here but ``others``.
        one: p_y.
        others: p with 0 in the place of class y, shape (..., C).
        rest: 1 − p_y as the sum of the others, accurate where p_y rounds to 1.
        plain_log: gives log p_y as a log-softmax has it: to the last place of 1, not of log p_y.
        sum_of_squares: gives Σ p_j² over the others.
        level: gives logsumexp(s).
    """

    index: Tensor
    one: Tensor
    others: Tensor
    rest: Tensor
    plain_log: Callable[[], Tensor]
    sum_of_squares: Callable[[], Tensor]
    level: Callable[[], Tensor]

    @property
    def log_normalizer(self) -> Tensor:
        """logsumexp(s)."""
        return self.level()

    @property
    def squares(self) -> Tensor:
        """Σ p_j² over the others."""
        return self.sum_of_squares()

    @property
    def log_one(self) -> Tensor:
        """log p_y, accurate also where it is close to 0."""
        likely = self.rest < 0.5
        # The inner where keeps log1p(−1) and its infinite derivative out of the branch that is not taken.
        return torch.where(likely, torch.log1p(-torch.where(likely, self.rest, 0.0)), self.plain_log())


def one_versus_rest(raw: Tensor, index: Tensor, probability: Tensor | None = None) -> OneVersusRest:
    """The softmax of ``raw`` seen from the class ``index``, shape (..., 1); differentiable."""
    probability = softmax(raw) if probability is None else probability
    others = probability.scatter(-1, index, 0.0)
    return OneVersusRest(
        index,
        probability.gather(-1, index),
        others,
        others.sum(-1, keepdim=True),
        lambda: log_softmax(raw).gather(-1, index),
        lambda: (others * others).sum(-1, keepdim=True),
        lambda: torch.logsumexp(raw, dim=-1, keepdim=True),
    )


def one_versus_rest_into(raw: Tensor, index: Tensor, place: Tensor) -> OneVersusRest:
    """The same without autograd, in as few passes as there are.

    ``place`` receives ``others`` and may be ``raw`` itself; :func:`writes_into` says whether it can be used.
    """
    score = raw.gather(-1, index)
    # Where p_y underflows its logarithm comes from the scores, which are gone if the place lies over them.
    kept = raw.device.type == "cpu" and raw.data_ptr() != place.data_ptr()
    largest = None if kept else raw.amax(-1, keepdim=True)
    torch.softmax(raw, dim=-1, out=place)
    log_largest = None if largest is None else place.amax(-1, keepdim=True).log()
    one = place.gather(-1, index)
    place.scatter_(-1, index, 0.0)

    def plain_log() -> Tensor:
        if largest is not None and log_largest is not None:
            return (score - largest) + log_largest
        if one.amin() > _SMALLEST_PRECISE:
            return one.log()
        # Below the largest score, not below logsumexp(s): of scores about 1e4 that would have the last place.
        return (score - raw.amax(-1, keepdim=True)) + torch.maximum(place.amax(-1, keepdim=True), one).log()

    return OneVersusRest(
        index,
        one,
        place,
        place.sum(-1, keepdim=True),
        plain_log,
        # No memory for the squares. Not for autograd: the second derivative of a norm at 0 is NaN.
        lambda: torch.linalg.vector_norm(place, dim=-1, keepdim=True) ** 2,
        lambda: score - plain_log() if largest is None or log_largest is None else largest - log_largest,
    )


def writes_into(raw: Tensor, place: Tensor) -> bool:
    """Whether a softmax in place is worth it: over few classes a leading axis is quicker, in memory of its own."""
    return raw.shape[-1] >= LONG_AXIS and raw.is_contiguous() and place.is_contiguous()


class Softmax:
    """A softmax against class probabilities: what cancels is taken from the largest class's rest."""

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw
        self.probability = softmax(raw)
        self.top = one_versus_rest(raw, raw.argmax(-1, keepdim=True), self.probability)

    def minus(self, target: Tensor) -> Tensor:
        """p − y, accurate where both are close to 1."""
        top = self.top
        wanted = target.gather(-1, top.index)
        difference = torch.where(top.one > 0.5, (1.0 - wanted) - top.rest, top.one - wanted)
        return (self.probability - target).scatter(-1, top.index, difference)

    def log(self) -> Tensor:
        """log p, accurate where p is close to 1."""
        return log_softmax(self.raw).scatter(-1, self.top.index, self.top.log_one)

    def pull_back(self, slope: Tensor) -> Tensor:
        """From the derivative with respect to log p to the one with respect to the raw output: ``u − p Σ u``."""
        top = self.top
        at_top = slope.gather(-1, top.index)
        elsewhere = slope.scatter(-1, top.index, 0.0).sum(-1, keepdim=True)
        gradient = slope - self.probability * (elsewhere + at_top)
        return gradient.scatter(-1, top.index, at_top * top.rest - top.one * elsewhere)


class ClassFormula(Formula):
    """A loss of class scores against class indices or class probabilities."""

    event_dims = 1
    works_in_place = True

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        return class_target(raw, target, loss=self.facts.name)

    @abstractmethod
    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one softmax."""

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return log_class_frequencies(target, sample_weight, loss=self.facts.name)


class SoftmaxFormula(ClassFormula):
    """A loss of softmax probabilities.

    For a class index the true class's probability and sums over the others are enough: no one-hot row is built.
    """

    @property
    def sees_true_class(self) -> bool:
        return True

    @abstractmethod
    def of_probabilities(self, softmax: Softmax, target: Tensor) -> Tensor:
        """The loss for class probabilities."""

    @abstractmethod
    def slope(self, softmax: Softmax, target: Tensor) -> Tensor:
        """Its derivative with respect to log p, ``p_j ∂/∂p_j``, for class probabilities."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            return self.of_probabilities(Softmax(raw), target)
        return self.of_index(one_versus_rest(raw, target.unsqueeze(-1)), target).value.squeeze(-1)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if target.is_floating_point():
            softmax = Softmax(raw)
            return self.of_probabilities(softmax, target), softmax.pull_back(self.slope(softmax, target))
        true = one_versus_rest(raw, target.unsqueeze(-1))
        result = self.of_index(true, target)
        return result.value.squeeze(-1), write_others(true.others, result).scatter_(-1, true.index, result.at_true)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """Class indices in place; class probabilities as the readable formula has them."""
        if target.is_floating_point():
            return super().value_into(raw, target, gradient)
        index = target.unsqueeze(-1)
        in_place = writes_into(raw, gradient)
        true = one_versus_rest_into(raw, index, gradient) if in_place else one_versus_rest(raw, index)
        result = self.of_index(true, target)
        others = write_others(true.others, result).scatter_(-1, index, result.at_true)
        if not in_place:
            gradient.copy_(others)
        return result.value.squeeze(-1)


def write_others(others: Tensor, result: OfIndex) -> Tensor:
    """The gradient of every class but the true one, over its probabilities."""
    if result.quadratic is not None:
        factor = result.quadratic * others
        return others.mul_(factor.add_(1.0 if result.linear is None else result.linear))
    return others if result.linear is None else others.mul_(result.linear)
