"""One of several classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.checks import DomainError
from lastlayer.evaluation import Formula
from lastlayer.evaluation.reduction import expand_weight
from lastlayer.facts import HeadFacts
from lastlayer.heads.head import LARGEST_LOGIT, Head
from lastlayer.heads.options import check_count
from lastlayer.losses.class_target import class_example
from lastlayer.losses.cross_entropy import CrossEntropyFormula

# Class probabilities add up to 1, give or take the rounding of float16.
_ROUNDING = 1e-2


@dataclass(frozen=True)
class Categorical(Head):
    """One of several classes: C logits, a softmax, cross-entropy.

    Domain: targets are class indices 0 … C−1, or class probabilities; raw outputs are real numbers.

    Link: softmax.

    Shapes: raw ``(..., classes)``, target ``(...)`` as indices or ``(..., classes)`` as probabilities.

    Special cases: mean, quantiles and CRPS of the distribution are those of the class index, which means something
    where the classes have an order only; :class:`Ordinal` is made for those.

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
        example=class_example,
    )
    over_classes = True
    statistic = "mode"

    def __post_init__(self) -> None:
        check_count(self.classes, 2, "classes", self)

    @classmethod
    def default(cls) -> Self:
        """Of five classes."""
        return cls(classes=5)

    @property
    def raw_size(self) -> int:
        return self.classes

    @cached_property
    def formula(self) -> Formula:
        return CrossEntropyFormula(ignore_index=None)

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of every class, shape (..., classes)."""
        return {"probability": torch.softmax(self._computed(raw), dim=-1)}

    def distribution(self, raw: Tensor) -> distributions.Categorical:
        return distributions.Categorical(self._computed(raw))

    def check_target(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Indices lie in 0 … C−1; probabilities are not negative and add up to 1.

        Raises:
            DomainError: naming the first value that does not belong, and where it stands.
        """
        probabilities = target.is_floating_point()
        samples = target.shape[:-1] if probabilities else target.shape
        counted = torch.ones(samples, dtype=torch.bool, device=target.device)
        if sample_weight is not None:
            counted = expand_weight(sample_weight, sample_weight, samples) != 0
        limit = torch.inf if probabilities else self.classes
        outside = ((target < 0) | (target >= limit) | (target != target)) & (
            counted.unsqueeze(-1) if probabilities else counted
        )
        if bool(outside.any()):
            where = outside.nonzero()[0].tolist()
            raise DomainError(
                f"Categorical: target {target[tuple(where)].item():g} at index {where}; expected class indices "
                f"0 … {self.classes - 1}, or class probabilities. Fix: count classes from 0, or raise classes."
            )
        if probabilities and target.shape[-1:] == (self.classes,):
            total = target.sum(-1)
            wrong = ((total - 1.0).abs() > _ROUNDING) & counted
            if bool(wrong.any()):
                where = wrong.nonzero()[0].tolist()
                raise DomainError(
                    f"Categorical: class probabilities at index {where} add up to {total[tuple(where)].item():g}; "
                    f"expected 1 in every row. Fix: target / target.sum(-1, keepdim=True), or sample_weight for rows "
                    f"that count more."
                )

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        if not target.is_floating_point():
            # A masked index may name no class.
            masked = expand_weight(sample_weight, sample_weight, target.shape) == 0
            index = target.long().masked_fill(masked, 0)
            target = torch.nn.functional.one_hot(index, self.classes).to(torch.get_default_dtype())
        return super().initial_bias(target, sample_weight).clamp(min=-LARGEST_LOGIT)

    def _has_axis(self, target: Tensor) -> bool:
        return target.is_floating_point()
