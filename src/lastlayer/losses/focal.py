"""The focal loss of a logit: binary cross-entropy with the confident and right turned down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import Elementwise, evaluate, weighted_mean
from lastlayer.facts import REAL, UNIT, LossFacts
from lastlayer.losses.loss import Loss
from lastlayer.losses.optimal_constants import root_of_increasing
from lastlayer.losses.options import NOT_NEGATIVE, check_option


def hard_and_soft_example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Logits, and targets of which every second is 0 or 1, every other one between."""
    raw = 3 * torch.randn(n, dtype=dtype, generator=generator)
    share = torch.rand(n, dtype=dtype, generator=generator)
    return raw, torch.where(torch.arange(n) % 2 == 0, share.round(), share)


@dataclass(frozen=True)
class FocalFormula(Elementwise):
    """``−α y (1 − p)^γ log p − (1 − α) (1 − y) p^γ log(1 − p)`` with p = σ(s), in the logarithms of p and 1 − p."""

    gamma: float = 2.0
    alpha: float | None = None
    facts = LossFacts(
        name="focal",
        title="focal loss",
        target=UNIT,
        raw=REAL,
        link="sigmoid",
        formula="−y (1 − p)^γ log p − (1 − y) p^γ log(1 − p), p = σ(s)",
        gradient="y (1 − p)^γ (γ p log p − (1 − p)) + (1 − y) p^γ (p − γ (1 − p) log(1 − p))",
        minimum="0 for a hard target, reached at infinity",
        optimal_constant="the root of the mean gradient: nearer to 0 than the logit of the mean of y",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="the easy negatives far outnumber the rest and would drown it: detection, rare labels",
        avoid_when="σ(s) is read as a probability: the loss is no proper score, and its predictions shrink towards ½",
        reference="T.-Y. Lin et al., Focal loss for dense object detection, ICCV (2017)",
        example=hard_and_soft_example,
        proper=False,
    )

    def __post_init__(self) -> None:
        check_option(self.gamma, NOT_NEGATIVE, what="focal: gamma")
        if self.alpha is not None:
            check_option(self.alpha, UNIT, what="focal: alpha")

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        log_p, log_q = F.logsigmoid(raw), F.logsigmoid(-raw)
        positive, negative = self._shares(target, 1.0 - target)
        return -(positive * torch.exp(self.gamma * log_q) * log_p + negative * torch.exp(self.gamma * log_p) * log_q)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from p and log p, and from 1 − p and its logarithm."""
        log_p, log_q = F.logsigmoid(raw), F.logsigmoid(-raw)
        p, q = torch.sigmoid(raw), torch.sigmoid(-raw)
        positive, negative = self._shares(target, 1.0 - target)
        falling = positive * power_of_probability(q, log_q, self.gamma)
        rising = negative * power_of_probability(p, log_p, self.gamma)
        value = -(falling * log_p + rising * log_q)
        return value, rising * (p - self.gamma * q * log_q) - falling * (q - self.gamma * p * log_p)

    def _shares(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        if self.alpha is None:
            return positive, negative
        return self.alpha * positive, (1.0 - self.alpha) * negative

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # Both means, not 1 − mean: see binary cross-entropy.
        positive, negative = weighted_mean(target, sample_weight), weighted_mean(1.0 - target, sample_weight)
        weighted_positive, weighted_negative = self._shares(positive, negative)
        log_odds = torch.log(weighted_positive) - torch.log(weighted_negative)
        # Beyond |log odds| + log(1 + γ) the slope has the sign of the more frequent outcome; ±∞ stays what it is.
        bound = log_odds.abs().clamp_max(1e3) + 1.0 + self.gamma
        share = positive / (positive + negative)
        root = root_of_increasing(lambda logit: self.gradient(logit, share), -bound, bound)
        return torch.where(log_odds.isinf(), log_odds, root)


def power_of_probability(probability: Tensor, logarithm: Tensor, exponent: float) -> Tensor | float:
    """p to an exponent ≥ 0: by multiplication where that is exact and quick, else through log p."""
    if exponent == 0.0:
        return 1.0
    return probability**exponent if exponent in (1.0, 2.0, 3.0, 4.0) else torch.exp(exponent * logarithm)


def focal(
    raw: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Focal loss of logits: binary cross-entropy, each term times the γ-th power of how wrong the prediction is.

    Domain: targets in [0, 1]; raw outputs (logits) are real numbers. Every label is a problem of its own.

    Link: sigmoid, inside: p = σ(s).

    Formula: ``−y (1 − p)^γ log p − (1 − y) p^γ log(1 − p)``; with ``alpha`` the first term times α and the second
    times 1 − α. A soft target mixes the two terms.

    Gradient: ``y (1 − p)^γ (γ p log p − (1 − p)) + (1 − y) p^γ (p − γ (1 − p) log(1 − p))``, terms weighted likewise.

    Shapes: raw, target and per-sample value share one shape.

    Numerics: powers as exponentials of ``γ log σ(±s)``, so that neither 1 − p nor its power rounds to a wrong 0.

    Special cases: with γ = 0 and no α binary cross-entropy, with γ = 0 and α = ½ half of it. Not convex, and no proper
    score: the best constant lies nearer to 0 than the logit of the mean target. The paper uses γ = 2 with α = ¼.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.
        DomainError: if ``gamma`` is negative or ``alpha`` lies outside [0, 1].

    Example:
        >>> focal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), reduction="none")
        tensor([0.1733, 0.0018])

    Reference: T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, Focal loss for dense object detection, ICCV (2017).
    """
    return evaluate(
        FocalFormula(gamma, alpha),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class Focal(Loss):
    """Module form of :func:`focal`."""

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        checked = FocalFormula(gamma, alpha)
        self.gamma, self.alpha = checked.gamma, checked.alpha

    @property
    def formula(self) -> FocalFormula:
        """The mathematics, with this module's options."""
        return FocalFormula(self.gamma, self.alpha)
