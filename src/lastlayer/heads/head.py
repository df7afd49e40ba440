"""What a head is: raw output → named parameters → likelihood, loss, gradient, distribution."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError, InputError, ShapeError, shape_text
from lastlayer.distributions import Distribution
from lastlayer.evaluation import Formula, evaluate, mean_and_gradient
from lastlayer.evaluation.reduction import computed_dtype, expand_weight
from lastlayer.facts import HeadFacts, Interval

#: The best logit of a class that never occurs is minus infinity, and so is the best raw scale of values that are all
#: the same: nothing is learned from there. Beyond about 10 a sigmoid is saturated (SPEC F), and a bias stops here.
LARGEST_LOGIT = 10.0


class Head(ABC):
    """A task as a likelihood.

    A head is an immutable value: its options are plain numbers, ``to_dict`` writes them and ``from_dict`` of this
    package reads them back. It holds no tensors and follows the device and dtype of what it is given; of half precision
    the loss, the parameters and the distribution are computed in float32.

    Shapes: the raw output always ends in an axis of ``raw_size``, also where that is 1, so that
    ``nn.Linear(width, head.raw_size)`` is the last layer of any network; the target is ``(...)``, or ``(..., K)`` for
    a head over K labels. Dense outputs ``(N, H, W, raw_size)`` and sequences ``(N, T, raw_size)`` need nothing else;
    for an image network's ``(N, raw_size, H, W)`` give ``raw.movedim(1, -1)``, which copies nothing.
    """

    facts: ClassVar[HeadFacts]
    support: ClassVar[Interval | None] = None
    #: Whether a target may be shifted and scaled: true of real numbers, never of classes or shares.
    standardizes: ClassVar[bool] = False
    #: Whether a target may be scaled and not shifted: true of positive quantities.
    rescales: ClassVar[bool] = False
    #: Whether the target is classes or labels, and not a quantity.
    over_classes: ClassVar[bool] = False
    #: What a point prediction is, unless another statistic is asked for: what the training loss is least at.
    statistic: ClassVar[str] = "mean"
    #: Whether a target must be a whole number.
    whole: ClassVar[bool] = False

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

    @property
    def validation_formula(self) -> Formula:
        """The loss that says, on rows held out, which weights are the best: the training loss, for most heads."""
        return self.formula

    @abstractmethod
    def parameters(self, raw: Tensor) -> dict[str, Tensor]:
        """Raw output to the named, valid parameters of the likelihood."""

    @abstractmethod
    def distribution(self, raw: Tensor) -> Distribution:
        """The predicted distribution of every target, to be asked for its mean, quantiles, samples and the rest."""

    @classmethod
    def default(cls) -> Self:
        """An instance with every option at its default, as examples and tests use it."""
        return cls()

    @classmethod
    def from_options(cls, *options: str) -> Self:
        """The head from its options as text, in the order of ``facts.spelling``.

        Raises:
            InputError: for options that it does not take.
        """
        if options:
            raise InputError(f"head {cls.facts.name!r} takes no options, and {':'.join(options)!r} was given.")
        return cls()

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
        formula = self.formula
        return evaluate(
            formula,
            self._event(raw, formula),
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

    @torch.no_grad()
    def validation_loss(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The mean of the ``validation_formula`` over rows held out."""
        formula = self.validation_formula
        return evaluate(formula, self._event(raw, formula), target, sample_weight=sample_weight)

    def check_target(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Reads every target that counts once; what lies outside the support is an error.

        Args:
            sample_weight: a target of weight 0 is masked, and may hold anything.

        Raises:
            DomainError: naming the first offending value and where it stands.
        """
        if self.support is None:
            return
        outside = ~self.support.contains(target)
        if self.whole:
            outside |= target != target.floor()
        if sample_weight is not None:
            outside &= expand_weight(sample_weight, sample_weight, target.shape) != 0
        if bool(outside.any()):
            where = outside.nonzero()[0].tolist()
            whole = "the whole numbers of " if self.whole else ""
            raise DomainError(
                f"{type(self).__name__}: target {target[tuple(where)].item():g} at index {where} lies outside "
                f"{whole}{self.support}, {self.facts.target}."
            )

    def judged(self, target: Tensor) -> Tensor:
        """The target as the likelihood judges it: itself, unless the density has no value there."""
        return target

    def with_grid(self, step: float) -> Self:
        """The head for a target that comes in steps of this size, in the units in which it is trained.

        A density gains likelihood without limit by spiking on values that repeat; a head with a predicted scale keeps
        it from falling below what rounding alone leaves, ``step/√12``. One without returns itself.
        """
        return self

    @torch.no_grad()
    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """The last layer's bias at which the network starts as the best constant predictor, shape (raw_size,).

        Where the optimum is at infinity (a scale of values that are all the same, a rate of zeros alone), or so far out
        on a softplus that nothing would be learned from there, the bias stops at ±10. Of no target at all it is 0.

        Args:
            target: of any leading shape; those of weight 0 are passed over, whatever they hold.
            sample_weight: of the samples' shape, or of its leading axes.
        """
        formula = self.formula
        samples = target.shape[:-1] if self._has_axis(target) else target.shape
        dtype = sample_weight.dtype if sample_weight.is_floating_point() else torch.get_default_dtype()
        weight = expand_weight(sample_weight, sample_weight, samples, dtype=dtype).reshape(-1)
        rows = target.reshape(weight.numel(), *target.shape[len(samples) :])
        counted = weight > 0
        if not bool(counted.all()):
            rows, weight = rows[counted], weight[counted]
        example = rows.new_zeros((len(rows), self.raw_size), dtype=dtype)
        conformed = formula.conform(self._event(example, formula), rows)
        if not len(rows):
            return example.new_zeros(self.raw_size)
        bias = formula.optimal_constant(conformed, weight).reshape(self.raw_size)
        bias = bias.nan_to_num(nan=torch.nan, neginf=-LARGEST_LOGIT, posinf=LARGEST_LOGIT)
        flat = torch.zeros(self.raw_size, dtype=torch.bool, device=bias.device)
        flat[self._through_softplus] = True
        return torch.where(flat, bias.clamp_min(-LARGEST_LOGIT), bias)

    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> Self:
        """The head with its constants (a scale for all, say) at their optimum for these predictions.

        Meant for rows that the network was not trained on, so that the scale is not flattered. A head without such
        constants returns itself.
        """
        return self

    def to_dict(self) -> dict[str, Any]:
        """The head as plain JSON: its name and its options."""
        options: dict[str, Any] = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
        return {"name": self.facts.name, **options}

    @property
    def _through_softplus(self) -> list[int]:
        """Which of the raw outputs pass through a softplus, which is flat far below 0."""
        return []

    def _has_axis(self, target: Tensor) -> bool:
        """Whether the target's last axis belongs to one sample."""
        return False

    def _event(self, raw: Tensor, formula: Formula) -> Tensor:
        """Raw output as the formula takes it: an elementwise loss has no axis of its own."""
        self._check_raw(raw)
        return raw if formula.event_dims else raw.squeeze(-1)

    def _computed(self, raw: Tensor) -> Tensor:
        """Raw output as parameters are computed from it: checked, half precision in float32."""
        self._check_raw(raw)
        return raw.to(computed_dtype(raw))

    def _check_raw(self, raw: Tensor) -> None:
        if raw.dim() == 0 or raw.shape[-1] != self.raw_size:
            fix = "raw.unsqueeze(-1)" if self.raw_size == 1 else f"end the network in nn.Linear(width, {self.raw_size})"
            raise ShapeError(
                f"{type(self).__name__}: raw has shape {shape_text(raw)}; expected (..., {self.raw_size}). Fix: {fix}."
            )
