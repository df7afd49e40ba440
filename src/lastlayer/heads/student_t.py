"""A real number with heavy-tailed noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from typing_extensions import Self

from lastlayer import distributions
from lastlayer.evaluation import Formula
from lastlayer.facts import REAL, HeadFacts
from lastlayer.heads.head import Head
from lastlayer.heads.options import at_most, number
from lastlayer.heads.scale import widened
from lastlayer.losses.location_scale import MINIMUM_SCALE
from lastlayer.losses.student_t_nll import StudentTNLLFormula, student_t_parameters


@dataclass(frozen=True)
class StudentT(Head):
    """A real number with Student's t noise: the location, the scale and how heavy the tails are, all predicted.

    Domain: targets and raw outputs are real numbers.

    Link: identity for the location, ``softplus(r) + minimum_scale`` for the scale, ``softplus(t) + 2.01`` for the
    degrees of freedom, so that the variance exists; or degrees of freedom that are given.

    Formula: ``−log t_ν((y − μ)/σ) + log σ``.

    Shapes: raw ``(..., 3)``, or ``(..., 2)`` where the degrees of freedom are given; target ``(...)``. ``scale`` is in
    units of the target; it is not the standard deviation, which is ``scale √(ν/(ν − 2))``.

    Raises:
        DomainError: if ``degrees_of_freedom`` or ``minimum_scale`` is not a positive number.

    Example:
        >>> import torch
        >>> head = StudentT(degrees_of_freedom=4.0)
        >>> head.distribution(torch.tensor([[1.0, 0.0]])).standard_deviation
        tensor([0.9817])

    Reference: SPEC A6; K. L. Lange, R. J. A. Little, J. M. G. Taylor, J. American Statistical Association 84 (1989).
    """

    degrees_of_freedom: float | None = None
    minimum_scale: float = MINIMUM_SCALE
    facts = HeadFacts(
        name="student_t",
        title="regression to arbitrary values with outliers",
        target="a real number",
        activation="none, softplus, softplus",
        loss="student_t_nll",
        likelihood="Student's t",
        reference="SPEC A6",
        example=StudentTNLLFormula.facts.example,
        spelling="DEGREES_OF_FREEDOM",
    )
    support = REAL
    standardizes = True

    def __post_init__(self) -> None:
        self.formula  # noqa: B018 - which checks the options

    @classmethod
    def from_options(cls, *options: str) -> Self:
        given = at_most(options, 1, cls.facts)
        return cls(degrees_of_freedom=number(given[0], head=cls.facts.name) if given else None)

    @property
    def raw_size(self) -> int:
        return 3 if self.degrees_of_freedom is None else 2

    @cached_property
    def formula(self) -> Formula:
        return StudentTNLLFormula(degrees_of_freedom=self.degrees_of_freedom, minimum_scale=self.minimum_scale)

    def with_grid(self, step: float) -> Self:
        return dataclasses.replace(self, minimum_scale=widened(self.minimum_scale, step))

    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """``location``, ``scale`` and ``degrees_of_freedom``, all of shape (...)."""
        location, scale, freedom = self._parameters(raw)
        return {"location": location, "scale": scale, "degrees_of_freedom": freedom}

    def distribution(self, raw: Tensor) -> distributions.StudentT:
        return distributions.StudentT(*self._parameters(raw))

    @property
    def _through_softplus(self) -> list[int]:
        return [*range(1, self.raw_size)]

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return student_t_parameters(
            self._computed(raw), degrees_of_freedom=self.degrees_of_freedom, minimum_scale=self.minimum_scale
        )
