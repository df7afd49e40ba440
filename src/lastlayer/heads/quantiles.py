"""Quantiles of a real number, without a distribution's shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.checks import InputError
from lastlayer.evaluation import Formula
from lastlayer.facts import REAL, HeadFacts
from lastlayer.heads.head import Head
from lastlayer.heads.options import number
from lastlayer.losses.quantiles import LEVELS, QuantilesFormula, anchor_of, ordered_quantiles


@dataclass(frozen=True)
class Quantiles(Head):
    """Several quantiles of a real number, never crossing: pinball loss at each level.

    Domain: targets and raw outputs are real numbers.

    Link: the raw output of the level nearest to ½ is its quantile; every other one is a softplus away from its
    neighbor.

    Formula: ``Σ_k max(τ_k (y − q_k), (τ_k − 1)(y − q_k))``. To judge, the density that is even between two quantiles,
    with exponential tails beyond the outer ones.

    Shapes: raw ``(..., levels)``, target ``(...)``; the quantiles are in units of the target.

    Raises:
        InputError: if the levels do not rise, or are fewer than two.
        DomainError: if a level does not lie in (0, 1).

    Example:
        >>> Quantiles(levels=(0.1, 0.5, 0.9)).parameters(torch.zeros(1, 3))["quantiles"]
        tensor([[-0.6931,  0.0000,  0.6931]])

    Reference: R. Koenker, G. Bassett, Econometrica 46 (1978).
    """

    levels: tuple[float, ...] = LEVELS
    facts = HeadFacts(
        name="quantiles",
        title="quantiles of a real number",
        target="a real number",
        activation="none, softplus steps",
        loss="quantiles",
        likelihood="even between the quantiles, exponential tails",
        reference="Koenker & Bassett (1978)",
        example=QuantilesFormula.facts.example,
        spelling="LEVEL,LEVEL,…",
    )
    support = REAL
    standardizes = True
    statistic = "median"

    def __post_init__(self) -> None:
        try:
            levels = tuple(float(level) for level in self.levels)
        except (TypeError, ValueError):
            raise InputError(f"Quantiles: levels are {self.levels!r}; expected numbers, such as (0.1, 0.9).") from None
        object.__setattr__(self, "levels", levels)
        self.formula  # noqa: B018 - which checks the levels
        if len(self.levels) < 2:
            raise InputError(f"Quantiles: levels are {self.levels}; expected at least two, such as (0.1, 0.9).")

    @classmethod
    def from_options(cls, *options: str) -> Self:
        if len(options) != 1:
            return super().from_options(*options)
        return cls(levels=tuple(number(text, head=cls.facts.name) for text in options[0].split(",")))

    @property
    def raw_size(self) -> int:
        return len(self.levels)

    @cached_property
    def formula(self) -> Formula:
        return QuantilesFormula(self.levels)

    @torch.no_grad()
    def negative_log_likelihood(self, raw: Tensor, target: Tensor) -> Tensor:
        # Which says so where the shapes do not belong together; a distribution takes several values per element.
        target = self.formula.conform(self._computed(raw), target)
        return -self.distribution(raw).log_prob(target)

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``quantiles`` in the order of the levels, shape (..., levels)."""
        return {"quantiles": ordered_quantiles(self._computed(raw), self.levels)}

    def distribution(self, raw: Tensor) -> distributions.QuantileKnots:
        return distributions.QuantileKnots(self.parameters(raw)["quantiles"], self.levels)

    @property
    def _through_softplus(self) -> list[int]:
        return [index for index in range(self.raw_size) if index != anchor_of(self.levels)]
