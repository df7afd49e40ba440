"""The scale of a location-scale head: given, one for all samples, or predicted for each."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import InputError
from lastlayer.evaluation import Formula
from lastlayer.evaluation.reduction import expand_weight, hide_masked
from lastlayer.facts import UNIT
from lastlayer.heads.head import Head
from lastlayer.heads.options import at_most
from lastlayer.losses.beta_weighted import BetaWeighted
from lastlayer.losses.location_scale import MINIMUM_SCALE, LocationScaleFormula, scale_from_raw
from lastlayer.losses.options import POSITIVE, check_option

# A scale below this share of the target's own spread claims more than float32 predictions can hold.
_SMALLEST_SCALE = 1e-6
#: How a step of the target bounds the scale: rounding to a step leaves a standard deviation of ``step/√12``.
SHARE_OF_STEP = 1.0 / math.sqrt(12.0)


def widened(minimum_scale: float, step: float) -> float:
    """The least scale for a target that comes in steps of this size."""
    return max(minimum_scale, SHARE_OF_STEP * step)


def spelled_scale(options: tuple[str, ...], *, head: str) -> str | float:
    """The scale as text spells it; ``"constant"`` where nothing is said."""
    text = options[0] if options else "constant"
    if text in ("constant", "predicted"):
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"head {head!r}: {text!r} is neither 'constant' nor 'predicted' nor a number.") from None


def check_scale(scale: object, fitted_scale: object, *, head: str, spellings: tuple[str, ...]) -> None:
    """The scale is one of the spellings or a positive number, the fitted one a positive number.

    Raises:
        InputError: naming what was given.
    """
    if isinstance(scale, str):
        if scale not in spellings:
            known = ", ".join(map(repr, spellings))
            raise InputError(f"{head}: scale is {scale!r}; expected {known} or a positive Python number.")
    elif not _positive(scale):
        raise InputError(f"{head}: scale is {scale!r}; expected a positive Python number.")
    if not _positive(fitted_scale):
        raise InputError(f"{head}: fitted_scale is {fitted_scale!r}; expected a positive Python number.")


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


@dataclass(frozen=True)
class LocationScaleHead(Head):
    """A location per sample, and a scale.

    Attributes:
        scale: a number, in units of the target, that stays; ``"constant"``, one number for all samples, which
            :meth:`refit` fits to rows held out; or ``"predicted"``, a second raw output per sample.
        fitted_scale: the constant one, as far as it is known.
        beta: of a predicted scale: how much of the gradient a large scale takes from the location is given back, 0 for
            the likelihood itself and 1 for all of it, which trains a Gaussian's mean as squared error does; see
            :class:`lastlayer.losses.beta_weighted.BetaWeighted`.
        minimum_scale: of a predicted scale, in units of the target; raised above its default, by :meth:`with_grid` for
            example, of a fitted one too.
    """

    scale: str | float = "constant"
    fitted_scale: float = 1.0
    beta: float = 0.5
    minimum_scale: float = MINIMUM_SCALE

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_scale(self.scale, self.fitted_scale, head=name, spellings=("constant", "predicted"))
        check_option(self.minimum_scale, POSITIVE, what=f"{name}: minimum_scale")
        check_option(self.beta, UNIT, what=f"{name}: beta")

    @classmethod
    def from_options(cls, *options: str) -> Self:
        return cls(scale=spelled_scale(at_most(options, 1, cls.facts), head=cls.facts.name))

    @property
    def raw_size(self) -> int:
        return 2 if self.predicts_scale else 1

    @property
    def predicts_scale(self) -> bool:
        """Whether every sample has a scale of its own."""
        return self.scale == "predicted"

    @property
    def one_scale(self) -> float:
        """The scale that all samples share."""
        return self.fitted_scale if isinstance(self.scale, str) else self.scale

    @cached_property
    def formula(self) -> Formula:
        if not self.predicts_scale:
            return self._of_one_scale()
        of_both = self._of_both()
        return BetaWeighted(of_both, self.beta) if self.beta else of_both

    @cached_property
    def likelihood(self) -> Formula:
        return self._of_both() if self.predicts_scale else self._of_one_scale()

    @property
    def validation_formula(self) -> Formula:
        # Weighted by its own scale, a loss does not say which of two predictions is better.
        return self.likelihood

    def with_grid(self, step: float) -> Self:
        return dataclasses.replace(self, minimum_scale=widened(self.minimum_scale, step))

    @torch.no_grad()
    def refit(self, raw: Tensor, target: Tensor, sample_weight: Tensor) -> Self:
        """The head with the maximum-likelihood scale of these residuals, where one scale is to be found."""
        if self.scale != "constant":
            return self
        location = self.location(raw).double()
        target = self.formula.conform(location, target)
        weight = expand_weight(sample_weight, location, location.shape)
        if not bool((weight > 0).any()):
            return self
        spread = self._spread(hide_masked(target, weight) - location, weight)
        # Left at its default it is made for what networks put out, in units that may be too large for a fitted scale.
        least = self.minimum_scale if self.minimum_scale > MINIMUM_SCALE else _SMALLEST_SCALE
        return dataclasses.replace(self, fitted_scale=max(float(spread), least))

    def location(self, raw: Tensor) -> Tensor:
        """The centre of the predicted distribution, shape (...)."""
        return self._computed(raw)[..., 0]

    def scale_of(self, raw: Tensor) -> Tensor:
        """The scale of every sample, shape (...)."""
        raw = self._computed(raw)
        if self.predicts_scale:
            return scale_from_raw(raw[..., 1], self.minimum_scale)
        return torch.full_like(raw[..., 0], self.one_scale)

    @property
    def _through_softplus(self) -> list[int]:
        return [1] if self.predicts_scale else []

    @abstractmethod
    def _of_one_scale(self) -> Formula:
        """The negative log-likelihood with the scale that all share."""

    @abstractmethod
    def _of_both(self) -> LocationScaleFormula:
        """The negative log-likelihood of location and scale."""

    @staticmethod
    @abstractmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        """The maximum-likelihood scale."""
