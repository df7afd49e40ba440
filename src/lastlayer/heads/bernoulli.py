"""Two classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lastlayer import distributions
from lastlayer.evaluation import Formula
from lastlayer.facts import UNIT, HeadFacts
from lastlayer.heads.head import LARGEST_LOGIT, Head
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula


def example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Logits, and outcomes 0 and 1."""
    raw = 2 * torch.randn(n, 1, dtype=dtype, generator=generator)
    return raw, (torch.rand(n, dtype=dtype, generator=generator) < 0.4).to(dtype)


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
        example=example,
    )
    support = UNIT
    over_classes = True
    statistic = "mode"

    @property
    def raw_size(self) -> int:
        return 1

    @cached_property
    def formula(self) -> Formula:
        return BinaryCrossEntropyFormula()

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of class 1, shape (...)."""
        return {"probability": torch.sigmoid(self._computed(raw)[..., 0])}

    def distribution(self, raw: Tensor) -> distributions.Bernoulli:
        return distributions.Bernoulli(self._computed(raw)[..., 0])

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
