"""Classes with an order: grades, ratings, stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.evaluation import Formula
from lastlayer.facts import HeadFacts, Interval
from lastlayer.heads.head import LARGEST_LOGIT, Head
from lastlayer.heads.options import check_count
from lastlayer.losses.cumulative_logit_nll import (
    CumulativeLogitNLLFormula,
    cumulative_logit_log_probabilities,
    ordered_thresholds,
)
from lastlayer.losses.location_scale import raw_from_scale


@dataclass(frozen=True)
class Ordinal(Head):
    """One of several classes with an order: cumulative logits, so that one class too far is better than two.

    Domain: targets are class indices 0 … C−1 in their order; raw outputs are real numbers.

    Link: thresholds that rise, ``c_0 = s_0``, ``c_k = c_{k−1} + softplus(s_k)``, and a sigmoid:
    ``P(y ≤ k) = σ(c_k)``.

    Formula: ``−log(σ(c_y) − σ(c_{y−1}))``.

    Shapes: raw ``(..., classes − 1)``, target ``(...)``. Mean, quantiles and CRPS are those of the class index.

    Raises:
        InputError: for fewer than two classes.

    Example:
        >>> head = Ordinal(classes=3)
        >>> head.distribution(torch.tensor([[-1.0, 2.0]])).probability
        tensor([[0.2689, 0.4863, 0.2447]])

    Reference: P. McCullagh, J. Royal Statistical Society B 42 (1980).
    """

    classes: int
    facts = HeadFacts(
        name="ordinal",
        title="ordered classes",
        target="one of several classes with an order",
        activation="sigmoid of ordered thresholds",
        loss="cumulative_logit_nll",
        likelihood="ordered classes with a logistic latent variable",
        reference="McCullagh (1980)",
        example=CumulativeLogitNLLFormula.facts.example,
    )
    over_classes = True
    statistic = "median"
    whole = True

    def __post_init__(self) -> None:
        check_count(self.classes, 2, "classes", self)

    @classmethod
    def default(cls) -> Self:
        """Of as many classes as the example has."""
        raw, _ = cls.facts.example(1)
        return cls(classes=raw.shape[-1] + 1)

    @property
    def raw_size(self) -> int:
        return self.classes - 1

    @property
    def support(self) -> Interval:  # type: ignore[override]
        """From the first class to the last."""
        return Interval(0.0, float(self.classes - 1), low_closed=True, high_closed=True)

    @cached_property
    def formula(self) -> Formula:
        return CumulativeLogitNLLFormula(self.classes)

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``probability`` of every class, shape (..., classes), and the ``threshold`` between them, one less."""
        raw = self._computed(raw)
        return {
            "probability": cumulative_logit_log_probabilities(raw).exp(),
            "threshold": ordered_thresholds(raw),
        }

    def distribution(self, raw: Tensor) -> distributions.Categorical:
        return distributions.Categorical(cumulative_logit_log_probabilities(self._computed(raw)))

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # The thresholds stop at ±10, not the steps between them: a class that all targets have takes a step of 20.
        threshold = ordered_thresholds(super().initial_bias(target, sample_weight))
        threshold = threshold.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        step = raw_from_scale(threshold.diff(), 0.0).clamp_min(-LARGEST_LOGIT)
        return torch.cat([threshold[:1], step])

    @property
    def _through_softplus(self) -> list[int]:
        return [*range(1, self.raw_size)]
