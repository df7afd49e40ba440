"""Several values at once: a mixture density network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.checks import check_choice
from lastlayer.distributions import Distribution
from lastlayer.evaluation import Formula
from lastlayer.facts import REAL, HeadFacts
from lastlayer.heads.head import Head
from lastlayer.heads.options import at_most, check_count, whole
from lastlayer.heads.scale import widened
from lastlayer.losses.location_scale import MINIMUM_SCALE
from lastlayer.losses.mixture_nll import MixtureNLLFormula, mixture_parameters

# Of Student's t components: heavy tails, and a variance.
_DEGREES_OF_FREEDOM = 4.0


def _student_t(location: Tensor, scale: Tensor) -> Distribution:
    return distributions.StudentT(location, scale, torch.full_like(scale, _DEGREES_OF_FREEDOM))


_COMPONENTS: dict[str, Callable[[Tensor, Tensor], Distribution]] = {
    "gaussian": distributions.Gaussian,
    "laplace": distributions.Laplace,
    "logistic": distributions.Logistic,
    "student_t": _student_t,
}


@dataclass(frozen=True)
class Mixture(Head):
    """A real number that may be one of several values: the shares, locations and scales of M components.

    Domain: targets and raw outputs are real numbers.

    Link: softmax for the shares, identity for the locations, ``softplus(r) + minimum_scale`` for the scales.

    Formula: ``−log Σ_k π_k g((y − μ_k)/σ_k)/σ_k`` with g the standard density of the ``family``: ``"gaussian"``,
    ``"laplace"``, ``"logistic"`` or ``"student_t"`` (four degrees of freedom).

    Shapes: raw ``(..., 3M)``, target ``(...)``. Locations and scales are in units of the target.

    Numerics: in logarithms throughout.

    Raises:
        InputError: for fewer than one component, or another family.
        DomainError: if ``minimum_scale`` is not a positive number.

    Example:
        >>> two = Mixture(components=2).distribution(torch.tensor([[0.0, 0.0, -3.0, 3.0, -1.0, -1.0]]))
        >>> two.mean
        tensor([0.])
        >>> two.modes.squeeze(-1).sort().values
        tensor([-3.,  3.])

    Reference: SPEC A7; C. M. Bishop, Mixture density networks (1994).
    """

    components: int = 5
    family: str = "gaussian"
    minimum_scale: float = MINIMUM_SCALE
    facts = HeadFacts(
        name="mixture",
        title="regression to one of several values",
        target="a real number",
        activation="softmax, none, softplus",
        loss="mixture_nll",
        likelihood="mixture of Gaussians, Laplaces, logistics or Student's t",
        reference="SPEC A7",
        example=MixtureNLLFormula.facts.example,
        spelling="COMPONENTS:FAMILY",
    )
    support = REAL
    standardizes = True

    def __post_init__(self) -> None:
        check_count(self.components, 1, "components", self)
        check_choice(self.family, tuple(_COMPONENTS), what="Mixture: family")
        self.formula  # noqa: B018 - which checks the scale

    @classmethod
    def default(cls) -> Self:
        """Of as many components as the example has."""
        return cls(components=3)

    @classmethod
    def from_options(cls, *options: str) -> Self:
        given = at_most(options, 2, cls.facts)
        if not given:
            return cls()
        components = whole(given[0], head=cls.facts.name)
        return cls(components, given[1]) if len(given) > 1 else cls(components)

    @property
    def raw_size(self) -> int:
        return 3 * self.components

    @cached_property
    def formula(self) -> Formula:
        return MixtureNLLFormula(self.components, self.family, self.minimum_scale)

    def with_grid(self, step: float) -> Self:
        return dataclasses.replace(self, minimum_scale=widened(self.minimum_scale, step))

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``weight``, ``location`` and ``scale`` of every component, each of shape (..., components)."""
        weight, location, scale = mixture_parameters(self._computed(raw), self.minimum_scale)
        return {"weight": weight, "location": location, "scale": scale}

    def distribution(self, raw: Tensor) -> distributions.Mixture:
        raw = self._computed(raw)
        _, location, scale = mixture_parameters(raw, self.minimum_scale)
        component = _COMPONENTS[self.family](location.movedim(-1, 0), scale.movedim(-1, 0))
        log_weight = torch.log_softmax(raw[..., : self.components], dim=-1)
        return distributions.Mixture(component, log_weight.movedim(-1, 0))

    @property
    def _through_softplus(self) -> list[int]:
        return [*range(2 * self.components, 3 * self.components)]
