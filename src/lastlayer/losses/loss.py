"""The module form of a loss: a formula, its options, and how it is reduced."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lastlayer.checks import check_choice
from lastlayer.evaluation import Formula, evaluate, gradient_of_values
from lastlayer.evaluation.reduction import REDUCTIONS
from lastlayer.facts import LossFacts


class Loss(nn.Module, ABC):
    """A loss as a module: ``criterion(raw, target)``.

    Every loss is also a function of the same name in snake case. Beside the reduced loss it gives the per-sample
    ``value``, the closed-form ``gradient`` with respect to the raw output, and its ``facts``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_choice(reduction, REDUCTIONS, what="reduction")
        self.reduction = reduction

    @property
    @abstractmethod
    def formula(self) -> Formula:
        """The mathematics, with this module's options."""

    @property
    def facts(self) -> LossFacts:
        """What is known of the loss, as data."""
        return self.formula.facts

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        """The loss of every sample, not reduced; of half precision in float32."""
        return evaluate(self.formula, raw, target, reduction="none")

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        """The derivative of every sample's loss with respect to its raw output, in closed form."""
        return gradient_of_values(self.formula, raw, target)

    def forward(
        self,
        raw: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """The reduced loss."""
        return evaluate(
            self.formula,
            raw,
            target,
            sample_weight=sample_weight,
            reduction=self.reduction,
            normalizer=normalizer,
        )

    def extra_repr(self) -> str:
        """The options that are not as they are by default, and the reduction."""
        formula = self.formula
        shown = []
        fields: tuple[dataclasses.Field[Any], ...] = (
            dataclasses.fields(formula) if dataclasses.is_dataclass(formula) else ()
        )
        for field in fields:
            value = getattr(formula, field.name)
            if value is not field.default and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return ", ".join([*shown, f"reduction={self.reduction!r}"])
