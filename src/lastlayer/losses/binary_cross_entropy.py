"""Binary cross-entropy from a logit: binary, multilabel and [0, 1]-valued targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import ShapeError, shape_text
from lastlayer.evaluation import Elementwise, evaluate, weighted_mean
from lastlayer.facts import REAL, UNIT, LossFacts
from lastlayer.losses.loss import Loss


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    raw = 3 * torch.randn(n, dtype=dtype, generator=generator)
    probability = torch.rand(n, dtype=dtype, generator=generator)
    # Every second target hard (0 or 1), every other one soft.
    return raw, torch.where(torch.arange(n) % 2 == 0, probability.round(), probability)


@dataclass(frozen=True, eq=False)
class BinaryCrossEntropyFormula(Elementwise):
    """``−p·y·log σ(s) − (1 − y)·log σ(−s)``, times a weight per element."""

    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    facts = LossFacts(
        name="binary_cross_entropy",
        title="binary cross-entropy (log loss of a logit)",
        target=UNIT,
        raw=REAL,
        link="sigmoid",
        formula="−y log σ(s) − (1 − y) log σ(−s)",
        gradient="σ(s) − y",
        minimum="the entropy of y: 0 for a hard target",
        optimal_constant="the logit of the mean of y",
        convex=True,
        smooth=True,
        likelihood="Bernoulli",
        use_when="the target is yes or no, one of many independent labels, or a proportion",
        avoid_when="exactly one of several classes holds: cross_entropy knows that they exclude each other",
        reference="SPEC B3; D. R. Cox, J. Royal Statistical Society B 20 (1958)",
        example=_example,
    )

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.weight, self.pos_weight

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        target = super().conform(raw, target)
        for name, option in (("weight", self.weight), ("pos_weight", self.pos_weight)):
            if option is not None and not _fits(option, raw):
                raise ShapeError(
                    f"binary_cross_entropy: {name} has shape {shape_text(option)}, raw {shape_text(raw)}; "
                    f"expected one {name} per label, i.e. the last axes of raw."
                )
        return target

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        # log σ is exact on both sides; log(1 − σ(s)) would round to log 0.
        positive = target if self.pos_weight is None else self.pos_weight * target
        value = -(positive * F.logsigmoid(raw) + (1.0 - target) * F.logsigmoid(-raw))
        return value if self.weight is None else self.weight * value

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        if self.pos_weight is None:
            gradient = torch.sigmoid(raw) - target
        else:
            gradient = (1.0 - target) * torch.sigmoid(raw) - self.pos_weight * target * torch.sigmoid(-raw)
        return gradient if self.weight is None else self.weight * gradient

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The value between the two logarithms: lerp takes 1 − y where y is nearer to 1, so neither end cancels."""
        if self.pos_weight is not None or self.weight is not None:
            return self.value(raw, target), self.gradient(raw, target)
        return -torch.lerp(F.logsigmoid(-raw), F.logsigmoid(raw), target), torch.sigmoid(raw) - target

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        if self.pos_weight is not None or self.weight is not None:
            return super().value_into(raw, target, gradient)
        # s (1 − y) above zero and −s y below it, and log(1 + e^−|s|). torch.where would take as long as all this.
        value = (1.0 - target).mul_(raw.clamp_min(0.0)).sub_(raw.clamp_max(0.0).mul_(target))
        value.add_(raw.abs().neg_().exp_().log1p_())
        torch.sigmoid(raw, out=gradient).sub_(target)
        return value

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        return F.binary_cross_entropy_with_logits(raw, target, self.weight, pos_weight=self.pos_weight)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        # Both means, not 1 − mean: a rounded mean may exceed 1, and its complement would have no logarithm.
        positive, negative = weighted_mean(target, sample_weight), weighted_mean(1.0 - target, sample_weight)
        if self.pos_weight is not None:
            positive = self.pos_weight * positive
        return torch.log(positive) - torch.log(negative)


def _fits(option: Tensor, raw: Tensor) -> bool:
    """Whether the option has the last axes of raw, or 1 in their place."""
    last = raw.shape[raw.dim() - option.dim() :] if option.dim() <= raw.dim() else ()
    return len(last) == option.dim() and all(size in (1, whole) for size, whole in zip(option.shape, last, strict=True))


def binary_cross_entropy(
    raw: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Binary cross-entropy of logits: the Bernoulli negative log-likelihood.

    Domain: targets in [0, 1]; raw outputs (logits) are real numbers. With K labels per row, raw and target are
    ``(..., K)`` and every label is a problem of its own.

    Link: sigmoid, inside. Give logits, not probabilities.

    Formula: ``−y log σ(s) − (1 − y) log σ(−s)``; ``pos_weight`` multiplies the first term, ``weight`` both.

    Gradient: ``σ(s) − y``; with ``pos_weight`` p: ``(1 − y) σ(s) − p y σ(−s)``.

    Shapes: raw, target and per-sample value share one shape. ``weight`` and ``pos_weight`` broadcast against the last
    axes, as in ``torch.nn.functional.binary_cross_entropy_with_logits``, and do not enter the mean's denominator;
    ``sample_weight`` (per element, or for the leading axes) does. Units: nats.

    Numerics: log σ on both sides, exact for large logits of either sign.

    Special cases: a hard target gives 0 at the matching infinity; a soft one never less than its entropy.

    Raises:
        ShapeError: if the shapes differ, ``(n,)`` against ``(n, 1)`` included.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), reduction="none")
        tensor([0.6931, 0.1269])

    Reference: SPEC B3.
    """
    return evaluate(
        BinaryCrossEntropyFormula(weight, pos_weight),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class BinaryCrossEntropy(Loss):
    """Module form of :func:`binary_cross_entropy`."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, *, pos_weight: Tensor | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    @property
    def formula(self) -> BinaryCrossEntropyFormula:
        """The mathematics, with this module's options."""
        return BinaryCrossEntropyFormula(self.weight, self.pos_weight)
