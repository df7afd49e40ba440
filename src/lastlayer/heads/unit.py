"""Quantities in [0, 1]: the lecture's sigmoid head, and the beta distribution."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.checks import InputError, check_choice
from lastlayer.evaluation import Formula, Scaled
from lastlayer.facts import UNIT, HeadFacts
from lastlayer.heads.gaussian import Gaussian
from lastlayer.heads.head import LARGEST_LOGIT, Head
from lastlayer.heads.mean_concentration import MeanConcentrationHead
from lastlayer.heads.options import at_most
from lastlayer.heads.scale import check_scale
from lastlayer.losses.beta_nll import MARGIN, BetaNLLFormula, beta_parameters
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.squared_error import SigmoidSquaredErrorFormula


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw = torch.randn(n, 1, dtype=dtype, generator=generator)
    return raw, torch.rand(n, dtype=dtype, generator=generator)


@dataclass(frozen=True)
class UnitInterval(Head):
    """A quantity in [0, 1]: a sigmoid, then binary cross-entropy or squared error.

    Domain: targets in [0, 1]; raw outputs are real numbers.

    Link: sigmoid. Both criteria are least at the mean; binary cross-entropy keeps its gradient where the sigmoid is
    flat, the squared error does not.

    Formula: to train, ``−y log σ(s) − (1 − y) log σ(−s)``, or ``(σ(s) − y)²`` with the constants of a Gaussian; to
    judge, for both, the Gaussian around σ(s) with one scale for all. Binary cross-entropy of a proportion is no
    normalized density, so it is no likelihood to compare by. Being Gaussian, an interval may reach beyond [0, 1];
    :class:`Beta` never does.

    Shapes: raw ``(..., 1)``, target ``(...)``.

    Attributes:
        scale: a number that stays, or ``"constant"`` for one that :meth:`refit` fits.
        fitted_scale: the constant one, as far as it is known.

    Raises:
        InputError: if the criterion is not one of the two, or the scale is neither positive nor ``"constant"``.

    Example:
        >>> head = UnitInterval(criterion="squared_error")
        >>> head.parameters(torch.tensor([[0.0]]))["mean"]
        tensor([0.5000])

    Reference: SPEC A5.
    """

    scale: str | float = "constant"
    criterion: str = "binary_cross_entropy"
    fitted_scale: float = 1.0
    facts = HeadFacts(
        name="unit_interval",
        title="regression to values between 0 and 1",
        target="a number in [0, 1]",
        activation="sigmoid",
        loss="binary_cross_entropy",
        likelihood="Gaussian with one scale around a mean in (0, 1)",
        reference="SPEC A5",
        example=_example,
        spelling="binary_cross_entropy | squared_error",
    )
    support = UNIT

    def __post_init__(self) -> None:
        check_choice(self.criterion, ("binary_cross_entropy", "squared_error"), what="criterion")
        if self.scale == "predicted":
            raise InputError("UnitInterval: scale is 'predicted'; for one per sample take Beta().")
        check_scale(self.scale, self.fitted_scale, head=type(self).__name__, spellings=("constant",))

    @classmethod
    def from_options(cls, *options: str) -> Self:
        given = at_most(options, 1, cls.facts)
        return cls(criterion=given[0]) if given else cls()

    @property
    def raw_size(self) -> int:
        return 1

    @cached_property
    def formula(self) -> Formula:
        return BinaryCrossEntropyFormula() if self.criterion == "binary_cross_entropy" else self.likelihood

    @cached_property
    def likelihood(self) -> Formula:
        scale = self._noise.one_scale
        return Scaled(
            SigmoidSquaredErrorFormula(),
            slope=0.5 * scale**-2,
            offset=math.log(scale) + 0.5 * math.log(2 * math.pi),
        )

    @property
    def one_scale(self) -> float:
        """The scale that all samples share."""
        return self._noise.one_scale

    @cached_property
    def _noise(self) -> Gaussian:
        """The Gaussian around the mean."""
        return Gaussian(scale=self.scale, fitted_scale=self.fitted_scale)

    def location(self, raw: Tensor) -> Tensor:
        """The mean, shape (...)."""
        return torch.sigmoid(self._computed(raw)[..., 0])

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``mean`` in (0, 1) and ``scale`` (the standard deviation), both of shape (...)."""
        return self._noise.parameters(self.location(raw).unsqueeze(-1))

    def distribution(self, raw: Tensor) -> distributions.Gaussian:
        return self._noise.distribution(self.location(raw).unsqueeze(-1))

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return super().initial_bias(target, sample_weight).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)

    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> Self:
        """The head with the maximum-likelihood scale of these residuals, where one scale is to be found."""
        fitted = self._noise.refit(self.location(raw).unsqueeze(-1), target, sample_weight)
        return dataclasses.replace(self, fitted_scale=fitted.fitted_scale)


@dataclass(frozen=True)
class Beta(MeanConcentrationHead):
    """A quantity in [0, 1] with a beta distribution: a mean, and how much the values gather around it.

    Domain: targets in [0, 1], those closer to an end than ``margin`` taken as that far from it: the density is 0 or
    infinite at the ends. Raw outputs are real numbers.

    Link: sigmoid for the mean, ``(softplus(r) + minimum_scale)⁻²`` for the concentration.

    Formula: ``log B(α, β) − (α − 1) log y − (β − 1) log(1 − y)`` with ``α = concentration · mean`` and ``β`` the rest.

    Shapes: raw ``(..., 2)``, target ``(...)``.

    Raises:
        DomainError: if ``margin`` or ``minimum_scale`` is no such number.

    Example:
        >>> Beta().distribution(torch.tensor([[0.0, 0.0]])).mean
        tensor([0.5000])

    Reference: S. Ferrari, F. Cribari-Neto, Beta regression for modelling rates and proportions (2004).
    """

    margin: float = MARGIN
    facts = HeadFacts(
        name="beta",
        title="regression to values between 0 and 1, spread predicted",
        target="a number in [0, 1]",
        activation="sigmoid, (softplus)⁻²",
        loss="beta_nll",
        likelihood="beta",
        reference="Ferrari & Cribari-Neto (2004)",
        example=BetaNLLFormula.facts.example,
    )
    support = UNIT

    @cached_property
    def formula(self) -> Formula:
        return BetaNLLFormula(self.margin, self.minimum_scale)

    def judged(self, target: Tensor) -> Tensor:
        """Targets at an end, moved inside by the margin."""
        return target.clamp(self.margin, 1.0 - self.margin)

    def distribution(self, raw: Tensor) -> distributions.Beta:
        mean, concentration = self.parameters(raw).values()
        return distributions.Beta(concentration * mean, concentration * (1.0 - mean))

    def _links(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return beta_parameters(raw, self.minimum_scale)
