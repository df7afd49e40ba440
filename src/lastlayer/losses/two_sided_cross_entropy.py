"""The lecture's two-sided cross-entropy over a probability vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import ShapeError, shape_text
from lastlayer.evaluation import evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import ClassFormula, class_example, classes_last
from lastlayer.losses.loss import Loss


class _AgainstTop(NamedTuple):
    """A softmax a as its largest entry against all the others, so that neither a nor 1 − a is ever a difference.

    The score of the largest class lies ``gap`` above the log-sum-exp of the others: ``a_top = σ(gap)``, and the
    others divide ``σ(−gap)`` by ``share``, which sums to 1 and is 0 at the top. No other entry exceeds ½.
    """

    top: Tensor
    gap: Tensor
    share: Tensor
    below: Tensor

    @property
    def at_top(self) -> Tensor:
        return torch.sigmoid(self.gap)

    @property
    def not_at_top(self) -> Tensor:
        return torch.sigmoid(-self.gap)

    @property
    def log_at_top(self) -> Tensor:
        return F.logsigmoid(self.gap)

    @property
    def log_not_at_top(self) -> Tensor:
        return F.logsigmoid(-self.gap)


def _against_top(raw: Tensor) -> _AgainstTop:
    top = raw.argmax(-1, keepdim=True)
    largest = raw.gather(-1, top)
    others = raw.scatter(-1, top, -torch.inf)
    # A constant: whatever is taken off inside is added outside again.
    level = others.detach().amax(-1, keepdim=True)
    exponential = (others - level).exp()
    total = exponential.sum(-1, keepdim=True)
    return _AgainstTop(top, (largest - level) - total.log(), exponential / total, raw - largest)


class TwoSidedCrossEntropyFormula(ClassFormula):
    """``−Σ_k y_k log a_k + (1 − y_k) log(1 − a_k)`` with a the softmax."""

    facts = LossFacts(
        name="two_sided_cross_entropy",
        title="two-sided cross-entropy over a softmax",
        target=None,
        raw=REAL,
        link="softmax",
        formula="−Σ_k [y_k log a_k + (1 − y_k) log(1 − a_k)] with a = softmax(s)",
        gradient="u − a Σ_k u_k with a = softmax(s), u = (1 − y) a/(1 − a) − y",
        minimum="0 for a class index, reached at infinity; the sum of the binary entropies of y for probabilities",
        optimal_constant="the logarithm of the class frequencies",
        convex=False,
        smooth=True,
        likelihood=None,
        use_when="wrong probability heaped on one class should cost more than the same spread over many",
        avoid_when="a likelihood is wanted: classes that exclude each other are not independent; use cross_entropy",
        reference="SPEC B5",
        example=class_example,
    )

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        target = super().conform(raw, target)
        if raw.shape[-1] < 2:
            raise ShapeError(
                f"two_sided_cross_entropy: raw has shape {shape_text(raw)}; expected at least two classes on its last "
                f"axis. Fix: for a single score use binary_cross_entropy."
            )
        return target

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._value(_against_top(raw), target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one softmax."""
        softmax = _against_top(raw)
        gradient = _gradient_of_probabilities if target.is_floating_point() else _gradient_of_index
        return self._value(softmax, target), gradient(softmax, target)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        """Class indices with one array beside the gradient; class probabilities as the readable formula has them."""
        if target.is_floating_point():
            return super().value_into(raw, target, gradient)
        index, top = target.unsqueeze(-1), raw.argmax(-1, keepdim=True)
        largest = raw.gather(-1, top)
        below = raw.gather(-1, index) - largest
        share = gradient.copy_(raw).scatter_(-1, top, -torch.inf)
        level = share.amax(-1, keepdim=True)
        total = share.sub_(level).exp_().sum(-1, keepdim=True)
        softmax = _AgainstTop(top, (largest - level) - total.log(), share.div_(total), below)
        log_not = (share * -softmax.not_at_top).log1p_()
        value = _value_of_index(softmax, index, below, log_not)
        odds = log_not.neg_().expm1_()
        factor, at_top, at_true = _index_factors(softmax, index, odds)
        share.mul_(factor).add_(odds).scatter_(-1, top, at_top).scatter_(-1, index, at_true)
        return value.squeeze(-1)

    def _value(self, softmax: _AgainstTop, target: Tensor) -> Tensor:
        log_not = torch.log1p(-softmax.share * softmax.not_at_top)
        if target.is_floating_point():
            log_not = log_not.scatter(-1, softmax.top, softmax.log_not_at_top)
            return -(target * (softmax.below + softmax.log_at_top) + (1.0 - target) * log_not).sum(-1)
        index = target.unsqueeze(-1)
        return _value_of_index(softmax, index, softmax.below.gather(-1, index), log_not).squeeze(-1)


def _value_of_index(softmax: _AgainstTop, index: Tensor, below: Tensor, log_not: Tensor) -> Tensor:
    """From ``log(1 − a)``, 0 at the top, and how far the true class's score lies below the top."""
    # Every class but the true one, which the sum holds unless it is the top.
    others = log_not.sum(-1, keepdim=True) - log_not.gather(-1, index)
    others = others + torch.where(index == softmax.top, 0.0, softmax.log_not_at_top)
    return -(below + softmax.log_at_top + others)


def _gradient_of_index(softmax: _AgainstTop, target: Tensor) -> Tensor:
    index = target.unsqueeze(-1)
    below_top = softmax.share * softmax.not_at_top
    odds = below_top / (1.0 - below_top)
    factor, at_top, at_true = _index_factors(softmax, index, odds)
    return (odds + softmax.share * factor).scatter(-1, softmax.top, at_top).scatter(-1, index, at_true)


def _index_factors(softmax: _AgainstTop, index: Tensor, odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The factor of ``share`` in the gradient, and the gradient at the top and at the true class.

    ``odds`` are a/(1 − a), 0 at the top: those of a wrong class there may be too large for a number, while what they
    contribute, shared among the others, is not.
    """
    hit = index == softmax.top
    wrong_top = torch.where(hit, 0.0, softmax.at_top)
    rest = odds.sum(-1, keepdim=True) - odds.gather(-1, index)
    share = softmax.share.gather(-1, index)
    true = torch.where(hit, softmax.at_top, share * softmax.not_at_top)
    not_true = torch.where(hit, softmax.not_at_top, 1.0 - true)
    factor = softmax.not_at_top * (1.0 - rest) - wrong_top
    return factor, wrong_top * (2.0 - rest), -not_true - true * rest - share * wrong_top


def _gradient_of_probabilities(softmax: _AgainstTop, target: Tensor) -> Tensor:
    top, share, not_at_top, at_top = softmax.top, softmax.share, softmax.not_at_top, softmax.at_top
    below_top = share * not_at_top
    odds = (1.0 - target) * below_top / (1.0 - below_top)
    rest = odds.sum(-1, keepdim=True)
    wanted_at_top = target.gather(-1, top)
    wanted_below = target.scatter(-1, top, 0.0).sum(-1, keepdim=True)
    unwanted = 1.0 - wanted_at_top
    gradient = odds - target + share * (not_at_top * (wanted_below + wanted_at_top - rest) - at_top * unwanted)
    return gradient.scatter(-1, top, at_top * (wanted_below + unwanted - rest) - wanted_at_top * not_at_top)


def two_sided_cross_entropy(
    raw: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Two-sided cross-entropy: every entry of a softmax as if it were a yes-or-no answer of its own.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs (logits) are real numbers, of at least two classes.

    Link: softmax, inside.

    Formula: ``−Σ_k [y_k log a_k + (1 − y_k) log(1 − a_k)]`` with a the softmax. The lecture prints it without its minus
    sign. The log-likelihood cost beside it there, ``−Σ_k y_k log a_k``, is :func:`lastlayer.losses.cross_entropy`.

    Gradient: ``u − a Σ_k u_k`` with ``u = (1 − y) a/(1 − a) − y``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``. Units: nats.

    Numerics: ``log(1 − a)`` of the largest entry is the logarithm of the others' sum, so that neither it nor its
    gradient is lost where a rounds to 1.

    Special cases: of two classes it is twice the cross-entropy.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix, or there is a single class.

    Example:
        >>> output = torch.tensor([[0.55, 0.02, 0.01, 0.03, 0.01, 0.05, 0.17, 0.01, 0.06, 0.09]])
        >>> two_sided_cross_entropy(output.log(), torch.tensor([0]))
        tensor(1.0725)

    Reference: SPEC B5, G4.
    """
    return evaluate(
        TwoSidedCrossEntropyFormula(),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class TwoSidedCrossEntropy(Loss):
    """Module form of :func:`two_sided_cross_entropy`, classes on the last axis."""

    @property
    def formula(self) -> TwoSidedCrossEntropyFormula:
        """The mathematics."""
        return TwoSidedCrossEntropyFormula()
