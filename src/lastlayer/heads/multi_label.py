"""Several labels, each there or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.evaluation import Formula, Summed
from lastlayer.facts import UNIT, HeadFacts
from lastlayer.heads.head import LARGEST_LOGIT, Head
from lastlayer.heads.options import check_count
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw = 2 * torch.randn(n, 3, dtype=dtype, generator=generator)
    return raw, (torch.rand(n, 3, dtype=dtype, generator=generator) < 0.4).to(dtype)


@dataclass(frozen=True)
class MultiLabel(Head):
    """Several labels, each there or not: a sigmoid and a binary cross-entropy per label.

    Domain: targets 0 and 1 per label; raw outputs are real numbers.

    Link: sigmoid per label. The labels are independent given the input.

    Shapes: raw and target ``(..., labels)``. A row's loss is the sum over its labels, its negative log-likelihood. The
    distribution has shape ``(..., labels)``: one Bernoulli per label, so ``log_prob`` is that of each label.

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
        example=_example,
    )
    support = UNIT
    over_classes = True
    statistic = "mode"

    def __post_init__(self) -> None:
        check_count(self.labels, 1, "labels", self)

    @classmethod
    def default(cls) -> Self:
        """Of three labels."""
        return cls(labels=3)

    @property
    def raw_size(self) -> int:
        return self.labels

    @cached_property
    def formula(self) -> Formula:
        return Summed(BinaryCrossEntropyFormula())

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of every label, shape (..., labels)."""
        return {"probability": torch.sigmoid(self._computed(raw))}

    def distribution(self, raw: Tensor) -> distributions.Bernoulli:
        return distributions.Bernoulli(self._computed(raw))

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)

    def _has_axis(self, target: Tensor) -> bool:
        return True
