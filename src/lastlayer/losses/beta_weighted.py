"""The β-weighting of a likelihood with a predicted scale, against locations that stop learning where it is large."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lastlayer.checks import InputError
from lastlayer.evaluation import Formula
from lastlayer.facts import Interval, LossFacts
from lastlayer.losses.location_scale import LocationScaleFormula
from lastlayer.losses.options import check_option


@dataclass(frozen=True)
class BetaWeighted(Formula):
    """``σ^(2β) · loss`` with σ the predicted scale, taken for a constant where it weighs.

    The gradient of a Gaussian's location is ``−(y − μ)/σ²``: where the scale is large, often because the location has
    not been learned yet, it is not learned any more. The weight gives back ``σ^(2β)`` of it: β = 0 is the likelihood
    itself, β = 1 trains the location as squared error does, ½ lies between.

    Domain, link, shapes: those of the loss inside, a likelihood with a location and a predicted scale.

    Gradient: ``σ^(2β)`` times that of the loss inside. It is the derivative of no function, since the weight's own
    derivative is left out: a numerical check of the gradient fails, as it should. Value and gradient are the same every
    way the library evaluates, and so are second derivatives: the readable value detaches the weight.

    Special cases: at a constant scale the best location is that of the loss inside, so the best constant is too.

    Raises:
        DomainError: if ``beta`` lies outside [0, 1].
        InputError: if the loss inside predicts no scale.

    Example:
        >>> import torch
        >>> from lastlayer.losses.gaussian_nll import GaussianNLLFormula
        >>> formula = BetaWeighted(GaussianNLLFormula(), beta=1.0)
        >>> formula.gradient(torch.tensor([[1.0, 2.0], [1.0, 5.0]]), torch.tensor([4.0, 4.0]))[:, 0]
        tensor([-3., -3.])

    Reference: M. Seitzer, A. Tavakoli, D. Antic, G. Martius, On the pitfalls of heteroscedastic uncertainty estimation
    with probabilistic neural networks, ICLR (2022).
    """

    inner: LocationScaleFormula
    beta: float = 0.5
    event_dims = 1

    def __post_init__(self) -> None:
        if not isinstance(self.inner, LocationScaleFormula):
            raise InputError(
                f"BetaWeighted: the loss inside is {type(self.inner).__name__}; expected one with a location and a "
                f"predicted scale, such as GaussianNLLFormula()."
            )
        check_option(self.beta, Interval(0.0, 1.0, low_closed=True, high_closed=True), what="BetaWeighted: beta")

    @property
    def facts(self) -> LossFacts:  # type: ignore[override]
        """The facts of the loss inside."""
        return self.inner.facts

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.inner.tensors

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.inner.conform(raw, target)

    def weight(self, raw: Tensor) -> Tensor:
        """``σ^(2β)``, without a gradient."""
        weight: Tensor = self.inner.scale(raw.detach()) ** (2.0 * self.beta)
        return weight

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.weight(raw) * self.inner.value(raw, target)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.weight(raw).unsqueeze(-1) * self.inner.gradient(raw, target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.inner.value_and_gradient(raw, target)
        weight = self.weight(raw)
        return weight * value, weight.unsqueeze(-1) * gradient

    def normalizing_weight(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return self.inner.normalizing_weight(raw, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return self.inner.optimal_constant(target, sample_weight)
