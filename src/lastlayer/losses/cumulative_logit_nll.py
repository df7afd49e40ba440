"""The negative log-likelihood of ordered classes by cumulative logits (proportional odds, ordinal regression)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import InputError, KindError, ShapeError, check_index, shape_text
from lastlayer.evaluation import Formula, evaluate, weighted_mean
from lastlayer.evaluation.paths import transforming
from lastlayer.facts import REAL, Interval, LossFacts
from lastlayer.losses.location_scale import check_event_target, raw_from_scale
from lastlayer.losses.loss import Loss

# The best constant puts the threshold beside a class that never occurs at most this far out.
_LARGEST_LOGIT = 30.0


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Five classes: the first threshold around −1, then three increments.
    raw = torch.randn(n, 4, dtype=dtype, generator=generator)
    return raw - torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=dtype), torch.randint(5, (n,), generator=generator)


def ordered_thresholds(raw: Tensor) -> Tensor:
    """Thresholds ``c_0 ≤ c_1 ≤ …`` from a raw output of K − 1 numbers: the first, then increments before softplus.

    Example:
        >>> ordered_thresholds(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([-1.0000, -0.3069,  1.8201])
    """
    return torch.cat([raw[..., :1], -F.logsigmoid(-raw[..., 1:])], dim=-1).cumsum(-1)


def cumulative_logit_log_probabilities(raw: Tensor) -> Tensor:
    """Logarithms of the probabilities of all K classes from a raw output ``(..., K − 1)``; finite at any raw output.

    Example:
        >>> cumulative_logit_log_probabilities(torch.tensor([-1.0, 0.0, 2.0])).exp()
        tensor([0.2689, 0.1549, 0.4367, 0.1394])
    """
    below = ordered_thresholds(raw)
    nothing = torch.zeros_like(raw[..., :1])
    within = torch.cat([nothing, F.logsigmoid(raw[..., 1:]), nothing], dim=-1)
    return torch.cat([F.logsigmoid(below), nothing], dim=-1) + torch.cat([nothing, F.logsigmoid(-below)], -1) + within


@dataclass(frozen=True)
class CumulativeLogitNLLFormula(Formula):
    """``−log(σ(c_y) − σ(c_{y−1}))``, which is ``−log σ(c_y) − log σ(−c_{y−1}) − log σ(r_y)``."""

    classes: int | None = None
    event_dims = 1
    facts = LossFacts(
        name="cumulative_logit_nll",
        title="negative log-likelihood of ordered classes (cumulative logits, proportional odds)",
        target=Interval(0.0, low_closed=True),
        raw=REAL,
        link="sigmoid of ordered thresholds",
        formula="−log(σ(c_y) − σ(c_{y−1})), c_0 = s_0, c_k = c_{k−1} + softplus(s_k), c_{−1} = −∞, c_{K−1} = ∞",
        gradient="in c: −σ(−c_y) at y, σ(c_{y−1}) at y − 1; in s_k its sum from k on times σ(s_k), and −σ(−s_y) at y",
        minimum="0, reached where the thresholds on either side of the class are at infinity",
        optimal_constant="the log-odds of the cumulative class frequencies, as a first one and increments",
        convex=False,
        smooth=True,
        likelihood="ordered classes with a logistic latent variable",
        use_when="the classes have an order, as grades and ratings do: one too far is better than two",
        avoid_when="the classes have no order, or their distances are known: then it is a number",
        reference="P. McCullagh, J. Royal Statistical Society B 42 (1980)",
        example=_example,
    )

    def __post_init__(self) -> None:
        if self.classes is not None and self.classes < 2:
            raise InputError(f"cumulative_logit_nll: classes is {self.classes}; expected a whole number from 2 on.")

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        last = raw.shape[-1] if raw.dim() else 0
        if last == 0 or (self.classes is not None and last != self.classes - 1):
            expected = "classes − 1" if self.classes is None else f"{self.classes - 1}"
            raise ShapeError(
                f"cumulative_logit_nll: raw has shape {shape_text(raw)}, target {shape_text(target)}; expected raw of "
                f"shape (..., {expected}), the first threshold, then raw increments, and target (...)."
            )
        check_event_target(raw, target, loss="cumulative_logit_nll")
        if target.is_floating_point() or target.dtype == torch.bool:
            raise KindError(
                f"cumulative_logit_nll: target is {target.dtype}; expected class indices. Fix: target.long()."
            )
        return target.long()

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._value(raw, ordered_thresholds(raw), target, *self._places(raw, target))

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the thresholds above and below the class."""
        threshold = ordered_thresholds(raw)
        above, below = self._places(raw, target)
        up = torch.where(above, -torch.sigmoid(-threshold), 0.0).sum(-1, keepdim=True)
        down = torch.where(below, torch.sigmoid(threshold), 0.0).sum(-1, keepdim=True)
        # An increment moves every threshold from its own on: up to and with the class that above it, below it both.
        index, place = target.unsqueeze(-1), torch.arange(raw.shape[-1], device=raw.device)
        moved = torch.where(place <= index, up, 0.0) + torch.where(place < index, down, 0.0)
        within = torch.where(above, torch.sigmoid(-raw), 0.0)
        gradient = torch.where(place == 0, moved, torch.sigmoid(raw) * moved - within)
        return self._value(raw, threshold, target, above, below), gradient

    def _places(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Where the threshold above the class stands, and the one below it.

        Raises:
            ClassIndexError: for an index that names no class, on a CPU, where it costs nothing to look.
        """
        if target.device.type == "cpu" and not (torch.compiler.is_compiling() or transforming()):
            check_index(target, raw.shape[-1] + 1)
        place, index = torch.arange(raw.shape[-1], device=raw.device), target.unsqueeze(-1)
        return place == index, place == index - 1

    @staticmethod
    def _value(raw: Tensor, threshold: Tensor, target: Tensor, above: Tensor, below: Tensor) -> Tensor:
        # 1 − e^{−softplus(r)} is σ(r): no difference of neighboring sigmoids is ever taken.
        inner = above & (torch.arange(raw.shape[-1], device=raw.device) > 0)
        terms = torch.where(above, F.logsigmoid(threshold), 0.0) + torch.where(below, F.logsigmoid(-threshold), 0.0)
        value = -(terms + torch.where(inner, F.logsigmoid(raw), 0.0)).sum(-1)
        # Where nobody looked, an index without a class must not pass for a perfect prediction.
        return torch.where((target < 0) | (target > raw.shape[-1]), torch.nan, value)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """From class indices; without ``classes`` there are as many as the largest index says."""
        classes = self.classes or max(2, int(target.max()) + 1)
        check_index(target, classes)
        share = weighted_mean(F.one_hot(target, classes).to(sample_weight.dtype), sample_weight)
        below, above = share.cumsum(-1)[..., :-1], share.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        logit = (below.log() - above.log()).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        return torch.cat([logit[..., :1], raw_from_scale(logit.diff(dim=-1), 0.0)], dim=-1)


def cumulative_logit_nll(
    raw: Tensor,
    target: Tensor,
    *,
    classes: int | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of ordered classes, by the logits of being at most each of them.

    Domain: targets are class indices 0 … K−1 (integers) in their order; raw outputs are real numbers.

    Link: thresholds ``c_0 = s_0`` and ``c_k = c_{k−1} + softplus(s_k)``, and ``P(y ≤ k) = sigmoid(c_k)``; the last
    class takes the rest. Thresholds never cross.

    Formula: ``−log(sigmoid(c_y) − sigmoid(c_{y−1}))``, with ``c_{−1} = −∞`` and ``c_{K−1} = ∞``.

    Gradient: with ``g_y = −sigmoid(−c_y)`` and ``g_{y−1} = sigmoid(c_{y−1})``, the others 0: ``Σ_j g_j`` in s_0,
    ``sigmoid(s_k) Σ_{j≥k} g_j`` in s_k, and ``−sigmoid(−s_y)`` besides in s_y where ``0 < y < K − 1``.

    Shapes: raw ``(..., K − 1)``, K of its last axis unless ``classes`` says so too; target and per-sample value
    ``(...)``. Units: nats.

    Numerics: the difference of sigmoids is the product ``sigmoid(c_y) sigmoid(−c_{y−1}) sigmoid(s_y)``, so that it is
    exact however close the thresholds, and its logarithm finite at any raw output: the increments need no floor.

    Special cases: for two classes binary cross-entropy of ``−s_0``. In the best constant the threshold beside a class
    that never occurs is held at ±30.

    Raises:
        ShapeError: if raw does not end in K − 1, or the target is not raw's shape without that axis.
        KindError: if the target is not of integers.
        ClassIndexError: for an index that names no class, on a CPU. On a GPU, and under transforms of PyTorch, the
            value is NaN instead.

    Example:
        >>> raw = torch.tensor([[-1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]])
        >>> cumulative_logit_nll(raw, torch.tensor([0, 2]), reduction="none")
        tensor([1.3133, 0.8285])

    Reference: P. McCullagh, Regression models for ordinal data, J. Royal Statistical Society B 42 (1980).
    """
    return evaluate(
        CumulativeLogitNLLFormula(classes),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class CumulativeLogitNLL(Loss):
    """Module form of :func:`cumulative_logit_nll`."""

    def __init__(self, *, classes: int | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.classes = CumulativeLogitNLLFormula(classes).classes

    @property
    def formula(self) -> CumulativeLogitNLLFormula:
        """The mathematics, with this module's options."""
        return CumulativeLogitNLLFormula(self.classes)
