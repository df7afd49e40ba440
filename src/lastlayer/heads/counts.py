"""Counts: Poisson, and with more variance than that, negative binomial."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lastlayer import distributions
from lastlayer.evaluation import Formula
from lastlayer.facts import HeadFacts, Interval
from lastlayer.heads.head import Head
from lastlayer.heads.mean_concentration import MeanConcentrationHead
from lastlayer.losses.negative_binomial_nll import NegativeBinomialNLLFormula, negative_binomial_parameters
from lastlayer.losses.poisson import LARGEST_LOG_RATE, PoissonNLLFormula

_COUNTS = Interval(low=0.0, low_closed=True)


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw, count = PoissonNLLFormula.facts.example(n, dtype=dtype, generator=generator)
    return raw.unsqueeze(-1), count


@dataclass(frozen=True)
class Poisson(Head):
    """A count whose variance is its mean: one log rate, an exponential, Poisson's NLL.

    Domain: targets are whole numbers from 0 up; raw outputs are real numbers.

    Link: exponential, up to a rate of e³⁰; beyond, the loss goes on as its tangent.

    Formula: ``e^s − y s + log y!``.

    Shapes: raw ``(..., 1)``, target ``(...)``.

    Example:
        >>> Poisson().distribution(torch.tensor([[1.0]])).mode
        tensor([2.])

    Reference: P. McCullagh, J. A. Nelder, Generalized linear models (1989), chapter 6.
    """

    facts = HeadFacts(
        name="poisson",
        title="counts",
        target="a whole number from 0 up",
        activation="exponential",
        loss="poisson_nll",
        likelihood="Poisson",
        reference="McCullagh & Nelder (1989)",
        example=_example,
    )
    support = _COUNTS
    whole = True

    @property
    def raw_size(self) -> int:
        return 1

    @cached_property
    def formula(self) -> Formula:
        return PoissonNLLFormula()

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``rate``, shape (...)."""
        return {"rate": self._log_rate(raw).exp()}

    def distribution(self, raw: Tensor) -> distributions.Poisson:
        return distributions.Poisson(self._log_rate(raw))

    def _log_rate(self, raw: Tensor) -> Tensor:
        return self._computed(raw)[..., 0].clamp_max(LARGEST_LOG_RATE)


@dataclass(frozen=True)
class NegativeBinomial(MeanConcentrationHead):
    """A count that varies more than its mean: negative binomial, its mean and its concentration predicted.

    Domain: targets are whole numbers from 0 up; raw outputs are real numbers.

    Link: exponential for the mean, up to e³⁰; ``(softplus(r) + minimum_scale)⁻²`` for the concentration k. The variance
    is ``mean + mean²/k``, so a large k is Poisson.

    Formula: ``log Γ(k) + log y! − log Γ(y + k) + (y + k) log(1 + m/k) − y log(m/k)``.

    Shapes: raw ``(..., 2)``, target ``(...)``.

    Raises:
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> NegativeBinomial().distribution(torch.tensor([[1.0, 0.0]])).mean
        tensor([2.7183])

    Reference: J. M. Hilbe, Negative binomial regression (2011).
    """

    facts = HeadFacts(
        name="negative_binomial",
        title="counts with more variance than Poisson's",
        target="a whole number from 0 up",
        activation="exponential, (softplus)⁻²",
        loss="negative_binomial_nll",
        likelihood="negative binomial",
        reference="Hilbe (2011)",
        example=NegativeBinomialNLLFormula.facts.example,
    )
    support = _COUNTS
    whole = True

    @cached_property
    def formula(self) -> Formula:
        return NegativeBinomialNLLFormula(self.minimum_scale)

    def distribution(self, raw: Tensor) -> distributions.NegativeBinomial:
        mean, concentration = self.parameters(raw).values()
        return distributions.NegativeBinomial(torch.log(mean), concentration)

    def _links(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return negative_binomial_parameters(raw, self.minimum_scale)
