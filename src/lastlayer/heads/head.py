"""What a head is: raw output → named parameters → likelihood, loss and gradient."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError, ShapeError, shape_text
from lastlayer.evaluation import Formula, evaluate, mean_and_gradient
from lastlayer.facts import HeadFacts, Interval


class Head(ABC):
    """A task as a likelihood.

    A head is an immutable value: its options are plain numbers, ``to_dict`` writes them and ``from_dict`` of this
    package reads them back. It holds no tensors and follows the device and dtype of what it is given.

    Shapes: the raw output always ends in an axis of ``raw_size``, also where that is 1, so that
    ``nn.Linear(width, head.raw_size)`` is the last layer of any network; the target is ``(...)``, or ``(..., K)`` for
    a head over K labels. Dense outputs ``(N, H, W, raw_size)`` and sequences ``(N, T, raw_size)`` need nothing else.
    """

    facts: ClassVar[HeadFacts]
    support: ClassVar[Interval | None] = None
    #: Whether a target may be shifted and scaled: true of real numbers, never of classes or shares.
    standardizes: ClassVar[bool] = False
    #: Whether the target is classes or labels, and not a quantity.
    over_classes: ClassVar[bool] = False

    @property
    @abstractmethod
    def raw_size(self) -> int:
        """How many numbers per sample the network must put out."""

    @property
    @abstractmethod
    def formula(self) -> Formula:
        """The loss that trains it."""

    @property
    def likelihood(self) -> Formula:
        """The negative log-likelihood that judges it; the training loss itself, for most heads."""
        return self.formula

    @abstractmethod
    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """Raw output to the named, valid parameters of the likelihood."""

    def loss(
        self,
        raw: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """The training loss, constants included, differentiable to any order.

        Raises:
            ShapeError: if raw does not end in ``raw_size``, or the target does not belong to it.
        """
        return evaluate(
            self.formula,
            self._event(raw, self.formula),
            target,
            sample_weight=sample_weight,
            reduction=reduction,
            normalizer=normalizer,
        )

    def loss_and_gradient(
        self,
        raw: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        factor: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """The mean loss, and its closed-form gradient with respect to ``raw`` times a factor.

        ``raw.backward(gradient)`` goes on from there.
        """
        formula = self.formula
        loss, gradient = mean_and_gradient(
            formula,
            self._event(raw, formula).detach(),
            target,
            sample_weight=sample_weight,
            normalizer=normalizer,
            factor=factor,
        )
        return loss, gradient if formula.event_dims else gradient.unsqueeze(-1)

    @torch.no_grad()
    def negative_log_likelihood(self, raw: Tensor, target: Tensor) -> Tensor:
        """Per sample, in nats, constants included; in the units in which the head was trained."""
        return evaluate(self.likelihood, self._event(raw, self.likelihood), target, reduction="none")

    def check_target(self, target: Tensor) -> None:
        """Reads every target once; what lies outside the support is an error.

        Raises:
            DomainError: naming the first offending value and where it stands.
        """
        if self.support is None:
            return
        outside = ~self.support.contains(target)
        if bool(outside.any()):
            where = outside.nonzero()[0].tolist()
            raise DomainError(
                f"{type(self).__name__}: target {target[tuple(where)].item():g} at index {where} lies outside "
                f"{self.support}, {self.facts.target}."
            )

    @torch.no_grad()
    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """The last layer's bias at which the network starts as the best constant predictor, shape (raw_size,)."""
        formula = self.formula
        example = target.new_zeros((*target.shape[:1], self.raw_size), dtype=sample_weight.dtype)
        conformed = formula.conform(self._event(example, formula), target)
        return formula.optimal_constant(conformed, sample_weight).reshape(self.raw_size)

    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> Self:
        """The head with its constants (a fixed scale, say) at their optimum for these predictions.

        Meant for rows that the network was not trained on, so that the scale is not flattered. A head without such
        constants returns itself.
        """
        return self

    def to_dict(self) -> dict[str, Any]:
        """The head as plain JSON: its name and its options."""
        options: dict[str, Any] = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        return {"name": self.facts.name, **options}

    def _event(self, raw: Tensor, formula: Formula) -> Tensor:
        """Raw output as the formula takes it: an elementwise loss has no axis of its own."""
        if raw.dim() == 0 or raw.shape[-1] != self.raw_size:
            fix = "raw.unsqueeze(-1)" if self.raw_size == 1 else f"end the network in nn.Linear(width, {self.raw_size})"
            raise ShapeError(
                f"{type(self).__name__}: raw has shape {shape_text(raw)}; expected (..., {self.raw_size}). Fix: {fix}."
            )
        return raw if formula.event_dims else raw.squeeze(-1)
