"""The asymmetric loss for many labels of which few hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate, weighted_mean
from lastlayer.facts import REAL, UNIT, Interval, LossFacts
from lastlayer.losses.focal import hard_and_soft_example, power_of_probability
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import root_of_increasing
from lastlayer.losses.options import NOT_NEGATIVE, check_option


@dataclass(frozen=True)
class AsymmetricFormula(Elementwise):
    """``−y (1 − p)^γ₊ log p − (1 − y) pₘ^γ₋ log(1 − pₘ)`` with p = σ(s) and ``pₘ = max(p − m, 0)``."""

    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    margin: float = 0.05
    facts = LossFacts(
        name="asymmetric",
        title="asymmetric loss for multi-label classification (ASL)",
        target=UNIT,
        raw=REAL,
        link="sigmoid",
        formula="−y (1 − p)^γ₊ log p − (1 − y) pₘ^γ₋ log(1 − pₘ), p = σ(s), pₘ = max(p − m, 0)",
        gradient="y (1 − p)^γ₊ (γ₊ p log p − (1 − p)) + (1 − y) p (1 − p) pₘ^γ₋ (1/(1 − pₘ) − γ₋ log(1 − pₘ)/pₘ)",
        minimum="0 for a hard target: at infinity for 1, wherever p ≤ m for 0",
        optimal_constant="the root of the mean gradient; ∞ where hardly a target is 0",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="each row has many labels, few of them hold, and some that do are marked as absent by mistake",
        avoid_when="σ(s) is read as a probability: negatives are forgiven, and predictions lie far too high",
        reference="E. Ben-Baruch, T. Ridnik et al., Asymmetric loss for multi-label classification, ICCV (2021)",
        example=hard_and_soft_example,
        proper=False,
    )

    def __post_init__(self) -> None:
        check_option(self.gamma_positive, NOT_NEGATIVE, what="asymmetric: gamma_positive")
        check_option(self.gamma_negative, NOT_NEGATIVE, what="asymmetric: gamma_negative")
        check_option(self.margin, Interval(0.0, 1.0, low_closed=True), what="asymmetric: margin")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        log_p, log_q = F.logsigmoid(raw), F.logsigmoid(-raw)
        return target * self._positive(log_p, log_q) + (1.0 - target) * self._negative(raw, log_p, log_q)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from log p, log(1 − p) and the shifted probability."""
        log_p, log_q = F.logsigmoid(raw), F.logsigmoid(-raw)
        p, q = torch.sigmoid(raw), torch.sigmoid(-raw)
        absent = 1.0 - target
        easing = power_of_probability(q, log_q, self.gamma_positive)
        falling = easing * (q - self.gamma_positive * p * log_p)
        if self.margin == 0.0:
            focus = power_of_probability(p, log_p, self.gamma_negative)
            missed, rising = -focus * log_q, focus * (p - self.gamma_negative * q * log_q)
        else:
            easy, shifted, log_rest = self._shift(p, q)
            focus = torch.where(easy, 0.0, shifted**self.gamma_negative)
            missed = -focus * log_rest
            rising = p * q * focus * (1.0 / (q + self.margin) - self.gamma_negative * log_rest / shifted)
        return absent * missed - target * easing * log_p, absent * rising - target * falling

    def _positive(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return -torch.exp(self.gamma_positive * log_q) * log_p

    def _negative(self, raw: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
        if self.margin == 0.0:
            return -torch.exp(self.gamma_negative * log_p) * log_q
        easy, shifted, log_rest = self._shift(torch.sigmoid(raw), torch.sigmoid(-raw))
        return torch.where(easy, 0.0, -(shifted**self.gamma_negative) * log_rest)

    def _shift(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where p ≤ m; pₘ and log(1 − pₘ) elsewhere, and harmless numbers there: no derivative at 0 is ever taken."""
        easy = p <= self.margin
        shifted = torch.where(easy, 0.5, p - self.margin)
        small = torch.log1p(-shifted.clamp_max(0.5))
        # 1 − pₘ = (1 − p) + m, of which p itself has lost the first part where it is near 1.
        return easy, shifted, torch.where(shifted < 0.5, small, torch.log(q + self.margin))

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # Both means, not 1 − mean: see binary cross-entropy.
        positive, negative = weighted_mean(target, sample_weight), weighted_mean(1.0 - target, sample_weight)
        share = positive / (positive + negative)
        # With a margin the cost of a false alarm is bounded, and the root may lie anywhere up to infinity.
        end = torch.full_like(share, 30.0 if self.margin else 100.0)
        root = root_of_increasing(lambda logit: self.gradient(logit, share), -end, end)
        root = torch.where(self.gradient(end, share) < 0, torch.inf, root)
        return torch.where(negative <= 0, torch.inf, torch.where(positive <= 0, -torch.inf, root))


def asymmetric(
    raw: Tensor,
    target: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Asymmetric loss of logits: a focal loss that forgives easy negatives more than easy positives, or altogether.

    Domain: targets in [0, 1]; raw outputs (logits) are real numbers. Every label is a problem of its own.

    Link: sigmoid, inside: p = σ(s), and for negatives the shifted ``pₘ = max(p − m, 0)`` with m the ``margin``.

    Formula: ``−y (1 − p)^γ₊ log p − (1 − y) pₘ^γ₋ log(1 − pₘ)``.

    Gradient: ``y (1 − p)^γ₊ (γ₊ p log p − (1 − p)) + (1 − y) p (1 − p) pₘ^γ₋ (1/(1 − pₘ) − γ₋ log(1 − pₘ)/pₘ)``, the
    second term 0 where p ≤ m. It is the derivative of the value, its focusing factors included; some implementations
    detach those.

    Shapes: raw, target and per-sample value share one shape.

    Numerics: log σ on both sides, and ``1 − pₘ`` as ``σ(−s) + m``.

    Special cases: with margin 0 and γ₊ = γ₋ :func:`focal` without α. With a margin a negative costs at most
    ``−log m``, so that the best constant is infinite where hardly a target is 0. The defaults are the paper's, γ₊ = 0,
    γ₋ = 4, m = 0.05; the code that its authors published takes γ₊ = 1.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.
        DomainError: if a gamma is negative or ``margin`` lies outside [0, 1).

    Example:
        >>> asymmetric(torch.tensor([2.0, 2.0, -3.0]), torch.tensor([1.0, 0.0, 0.0]), reduction="none")
        tensor([0.1269, 0.8464, 0.0000])

    Reference: E. Ben-Baruch, T. Ridnik, N. Zamir, A. Noy, I. Friedman, M. Protter, L. Zelnik-Manor, Asymmetric loss
    for multi-label classification, ICCV (2021), arXiv:2009.14119.
    """
    return evaluate(
        AsymmetricFormula(gamma_positive, gamma_negative, margin),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Asymmetric(Loss):
    """Module form of :func:`asymmetric`."""

    def __init__(
        self,
        *,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        margin: float = 0.05,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        checked = AsymmetricFormula(gamma_positive, gamma_negative, margin)
        self.gamma_positive, self.gamma_negative = checked.gamma_positive, checked.gamma_negative
        self.margin = checked.margin

    @property
    def formula(self) -> AsymmetricFormula:
        """The mathematics, with this module's options."""
        return AsymmetricFormula(self.gamma_positive, self.gamma_negative, self.margin)
