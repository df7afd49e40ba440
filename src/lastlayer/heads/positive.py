"""Positive quantities: prices, durations, amounts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from lastlayer import distributions
from lastlayer.evaluation import Formula
from lastlayer.facts import HeadFacts, Interval
from lastlayer.heads.head import Head
from lastlayer.heads.mean_concentration import MeanConcentrationHead
from lastlayer.losses.gamma_nll import GammaNLLFormula, gamma_parameters
from lastlayer.losses.location_scale import MINIMUM_SCALE
from lastlayer.losses.log_normal_nll import LogNormalNLLFormula, log_normal_parameters

_POSITIVE = Interval(low=0.0)


@dataclass(frozen=True)
class LogNormal(Head):
    """A positive number whose logarithm is Gaussian: errors are ratios.

    Domain: targets are positive; raw outputs are real numbers.

    Link: of ``log y``, identity for the location and ``softplus(r) + minimum_scale`` for the scale.

    Formula: ``z²/2 + log σ + log y + ½ log 2π`` with ``z = (log y − μ)/σ``.

    Shapes: raw ``(..., 2)``, target ``(...)``. ``location`` and ``scale`` are those of the logarithm, without a unit.

    Raises:
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> import torch
        >>> LogNormal().distribution(torch.tensor([[0.0, 0.0]])).median
        tensor([1.])

    Reference: SPEC A6 for the predicted scale; E. L. Crow, K. Shimizu, Lognormal distributions (1988).
    """

    minimum_scale: float = MINIMUM_SCALE
    facts = HeadFacts(
        name="log_normal",
        title="regression to positive values, errors as ratios",
        target="a positive number",
        activation="none, softplus, of the logarithm",
        loss="log_normal_nll",
        likelihood="log-normal",
        reference="SPEC A6",
        example=LogNormalNLLFormula.facts.example,
    )
    support = _POSITIVE
    rescales = True

    def __post_init__(self) -> None:
        self.formula  # noqa: B018 - which checks the options

    @property
    def raw_size(self) -> int:
        return 2

    @cached_property
    def formula(self) -> Formula:
        return LogNormalNLLFormula(self.minimum_scale)

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``location`` and ``scale`` of the logarithm, both of shape (...)."""
        location, scale = self._parameters(raw)
        return {"location": location, "scale": scale}

    def distribution(self, raw: Tensor) -> distributions.LogNormal:
        return distributions.LogNormal(*self._parameters(raw))

    @property
    def _through_softplus(self) -> list[int]:
        return [1]

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return log_normal_parameters(self._computed(raw), self.minimum_scale)


@dataclass(frozen=True)
class Gamma(MeanConcentrationHead):
    """A positive number with a standard deviation in proportion to its mean: the gamma distribution.

    Domain: targets are positive; raw outputs are real numbers.

    Link: exponential for the mean, up to e³⁰; ``(softplus(r) + minimum_scale)⁻²`` for the concentration, whose root is
    one over the relative standard deviation.

    Formula: ``log Γ(a) − a log(a y / m) + a y / m + log y`` with mean m and concentration a.

    Shapes: raw ``(..., 2)``, target ``(...)``. ``mean`` is in units of the target, ``concentration`` has none.

    Raises:
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> import torch
        >>> Gamma().distribution(torch.tensor([[0.0, 0.0]])).mean
        tensor([1.])

    Reference: P. McCullagh, J. A. Nelder, Generalized linear models (1989), chapter 8.
    """

    facts = HeadFacts(
        name="gamma",
        title="regression to positive values",
        target="a positive number",
        activation="exponential, (softplus)⁻²",
        loss="gamma_nll",
        likelihood="gamma",
        reference="McCullagh & Nelder (1989)",
        example=GammaNLLFormula.facts.example,
    )
    support = _POSITIVE
    rescales = True

    @cached_property
    def formula(self) -> Formula:
        return GammaNLLFormula(self.minimum_scale)

    def distribution(self, raw: Tensor) -> distributions.Gamma:
        mean, concentration = self.parameters(raw).values()
        return distributions.Gamma(concentration, concentration / mean)

    def _links(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return gamma_parameters(raw, self.minimum_scale)
