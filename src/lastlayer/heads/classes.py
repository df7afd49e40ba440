"""Heads over classes: two, one of several, and several at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import DomainError, InputError
from lastlayer.evaluation import Formula, Summed
from lastlayer.facts import UNIT, HeadFacts
from lastlayer.heads.head import Head
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.cross_entropy import CrossEntropyFormula

# A class that never occurs has its best logit at minus infinity; beyond about 10 a sigmoid is saturated (SPEC F).
_LARGEST_LOGIT = 10.0


@dataclass(frozen=True)
class Bernoulli(Head):
    """Two classes: one logit, a sigmoid, binary cross-entropy.

    Domain: targets 0 and 1, or a probability in between; raw outputs are real numbers.

    Link: sigmoid. Two softmax scores are the same model: ``softmax(s, 0) = (σ(s), 1 − σ(s))``.

    Shapes: raw ``(..., 1)``, target ``(...)``.

    Example:
        >>> head = Bernoulli()
        >>> head.parameters(torch.tensor([[0.0]]))["probability"]
        tensor([0.5000])

    Reference: SPEC A1.
    """

    facts = HeadFacts(
        name="bernoulli",
        title="binary classification",
        target="0 or 1",
        activation="sigmoid",
        loss="binary_cross_entropy",
        likelihood="Bernoulli",
        reference="SPEC A1",
    )
    support = UNIT
    over_classes = True

    @property
    def raw_size(self) -> int:
        return 1

    @property
    def formula(self) -> Formula:
        return BinaryCrossEntropyFormula()

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of class 1, shape (...)."""
        return {"probability": torch.sigmoid(self._event(raw, self.formula))}

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


@dataclass(frozen=True)
class Categorical(Head):
    """One of several classes: C logits, a softmax, cross-entropy.

    Domain: targets are class indices 0 … C−1, or class probabilities; raw outputs are real numbers.

    Link: softmax.

    Shapes: raw ``(..., classes)``, target ``(...)`` as indices or ``(..., classes)`` as probabilities.

    Raises:
        InputError: for fewer than two classes.

    Example:
        >>> head = Categorical(classes=3)
        >>> head.loss(torch.zeros(1, 3), torch.tensor([2]))
        tensor(1.0986)

    Reference: SPEC A2.
    """

    classes: int
    facts = HeadFacts(
        name="categorical",
        title="multiclass, single-label classification",
        target="one of several classes",
        activation="softmax",
        loss="cross_entropy",
        likelihood="Categorical",
        reference="SPEC A2",
    )
    over_classes = True

    def __post_init__(self) -> None:
        _check_count(self.classes, 2, "classes", self)

    @property
    def raw_size(self) -> int:
        return self.classes

    @property
    def formula(self) -> Formula:
        return CrossEntropyFormula(ignore_index=None)

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of every class, shape (..., classes)."""
        return {"probability": torch.softmax(self._event(raw, self.formula), dim=-1)}

    def check_target(self, target: Tensor) -> None:
        """Indices lie in 0 … C−1; probabilities are not negative.

        Raises:
            DomainError: naming the first value that does not belong.
        """
        limit = torch.inf if target.is_floating_point() else self.classes
        outside = (target < 0) | (target >= limit) | (target != target)
        if bool(outside.any()):
            found = target[outside][0].item()
            raise DomainError(
                f"Categorical: target holds {found}; expected class indices 0 … {self.classes - 1}, or class "
                f"probabilities. Fix: count classes from 0, or raise classes."
            )

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        if not target.is_floating_point():
            target = torch.nn.functional.one_hot(target, self.classes).to(sample_weight.dtype)
        return super().initial_bias(target, sample_weight).clamp(min=-_LARGEST_LOGIT)


@dataclass(frozen=True)
class MultiLabel(Head):
    """Several labels, each there or not: a sigmoid and a binary cross-entropy per label.

    Domain: targets 0 and 1 per label; raw outputs are real numbers.

    Link: sigmoid per label. The labels are independent given the input.

    Shapes: raw and target ``(..., labels)``. A row's loss is the sum over its labels, its negative log-likelihood.

    Raises:
        InputError: for fewer than one label.

    Example:
        >>> head = MultiLabel(labels=2)
        >>> head.loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(1.3863)

    Reference: SPEC A3.
    """

    labels: int
    facts = HeadFacts(
        name="multilabel",
        title="multiclass, multilabel classification",
        target="0 or 1 for each of several labels",
        activation="sigmoid per label",
        loss="binary_cross_entropy",
        likelihood="Bernoulli per label",
        reference="SPEC A3",
    )
    support = UNIT
    over_classes = True

    def __post_init__(self) -> None:
        _check_count(self.labels, 1, "labels", self)

    @property
    def raw_size(self) -> int:
        return self.labels

    @property
    def formula(self) -> Formula:
        return Summed(BinaryCrossEntropyFormula())

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of every label, shape (..., labels)."""
        return {"probability": torch.sigmoid(self._event(raw, self.formula))}

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


def _check_count(count: int, least: int, what: str, head: Head) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InputError(f"{type(head).__name__}: {what} is {count!r}; expected a whole number, {least} or more.")
