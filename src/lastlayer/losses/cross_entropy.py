"""Cross-entropy of a softmax, with what people add to it, and the lecture's class weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, check_index, shape_text
from lastlayer.evaluation import OfIndex, TrueClass, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.class_target import (
    LONG_AXIS,
    ClassFormula,
    class_example,
    classes_last,
    log_class_frequencies,
    log_softmax,
    one_versus_rest_into,
    write_others,
    writes_into,
)
from lastlayer.losses.loss import Loss
from lastlayer.losses.options import NOT_NEGATIVE, POSITIVE, check_option

# An index that no target can hold: PyTorch would pass over -100 unasked.
_NO_INDEX = -(2**31)


@dataclass(frozen=True, eq=False)
class CrossEntropyFormula(ClassFormula):
    """``−Σ_c a_c log softmax(s)_c + z·logsumexp(s)²`` with a_c the (weighted, smoothed) target probability of class c.

    One form covers every option: an index is ``a = w_y·onehot(y)``, smoothing mixes in ``ε/C·w``, class probabilities
    are ``a = w·y``. The gradient is then always ``(Σ a + 2z·logsumexp(s))·softmax(s) − a``. With a soft cap all that is
    said of ``cap·tanh(s/cap)``, and the gradient is multiplied by ``1 − tanh²(s/cap)``.
    """

    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = -100
    z_loss: float = 0.0
    soft_cap: float | None = None
    facts = LossFacts(
        name="cross_entropy",
        title="categorical cross-entropy of a softmax (log loss)",
        target=None,
        raw=REAL,
        link="softmax",
        formula="−s_y + logsumexp(s)",
        gradient="softmax(s) − onehot(y)",
        minimum="0 for a class index, reached at infinity; the entropy of y for class probabilities",
        optimal_constant="the logarithm of the class frequencies",
        convex=True,
        smooth=True,
        likelihood="Categorical",
        use_when="exactly one of several classes holds",
        avoid_when="several labels can hold at once: use binary_cross_entropy per label",
        reference="SPEC B4; J. S. Bridle, Neurocomputing F68 (1990)",
        example=class_example,
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise DomainError(f"cross_entropy: label_smoothing is {self.label_smoothing}; expected a number in [0, 1).")
        check_option(self.z_loss, NOT_NEGATIVE, what="cross_entropy: z_loss")
        if self.soft_cap is not None:
            check_option(self.soft_cap, POSITIVE, what="cross_entropy: soft_cap")

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return (self.weight,)

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        target = super().conform(raw, target)
        if self.weight is not None and self.weight.shape != raw.shape[-1:]:
            raise ShapeError(
                f"cross_entropy: weight has shape {shape_text(self.weight)}; expected one per class, "
                f"({raw.shape[-1]},)."
            )
        return target

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        logits = self._capped(raw)
        return self._with_penalty(self._value(log_softmax(logits), target), logits, target)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._closed_form(raw, target, None)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one softmax."""
        return self._closed_form(raw, target, None)

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        value, result = self._closed_form(raw, target, gradient)
        if result is not gradient:
            gradient.copy_(result)
        return value

    def specialized(self, target: Tensor) -> CrossEntropyFormula:
        """Where nothing is ignored, nothing need be masked. On a CPU it costs nothing to look."""
        if self.ignore_index is None or target.is_floating_point() or target.device.type != "cpu" or not target.numel():
            return self
        present = target.min().item() < 0 if self.ignore_index < 0 else (target == self.ignore_index).any()
        return self if present else type(self)(self.weight, self.label_smoothing, None, self.z_loss, self.soft_cap)

    def twin(self, raw: Tensor, target: Tensor) -> Tensor | None:
        # Over many classes PyTorch's is less accurate than ours, and quicker no more.
        plain = self.weight is None and not (self.label_smoothing or self.z_loss or self.soft_cap)
        if not raw.is_cpu or raw.dim() != 2 or target.is_floating_point() or not plain or raw.shape[-1] >= LONG_AXIS:
            return None
        try:
            loss = F.cross_entropy(
                raw, target, ignore_index=_NO_INDEX if self.ignore_index is None else self.ignore_index
            )
        except IndexError:
            check_index(target, raw.shape[-1])
            raise
        # Where all are ignored it is a mean over nothing.
        return None if math.isnan(loss.item()) else loss

    def _closed_form(self, raw: Tensor, target: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        """Value and gradient, which lies in the place given if it can; without autograd."""
        if self.soft_cap is None:
            return self._of_logits(raw, target, place)
        tanh = (raw / self.soft_cap).tanh_()
        value, gradient = self._of_logits(torch.mul(tanh, self.soft_cap, out=place), target, place)
        return value, gradient.mul_(tanh.square_().neg_().add_(1.0))

    def _of_logits(self, raw: Tensor, target: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        if not target.is_floating_point() and not self.label_smoothing:
            into = torch.empty_like(raw) if place is None else place
            if writes_into(raw, into):
                true = one_versus_rest_into(raw, self._index(target).unsqueeze(-1), into)
                result = self.of_index(true, target)
                return result.value.squeeze(-1), write_others(into, result).scatter_(-1, true.index, result.at_true)
            if self.weight is None and not self.z_loss:
                return self._of_few_classes(raw, target)
        return self._of_mixture(raw, target, place)

    @property
    def sees_true_class(self) -> bool:
        """With class indices, unless smoothing or a cap makes more of the scores count."""
        return not self.label_smoothing and self.soft_cap is None

    def of_index(self, true: TrueClass, target: Tensor) -> OfIndex:
        value, at_true, linear = -true.log_one, -true.rest, None
        if self.weight is not None:
            linear = self.weight.to(value.dtype)[true.index]
            value, at_true = linear * value, linear * at_true
        if self.z_loss:
            pull = 2.0 * self.z_loss * true.log_normalizer
            value, at_true = value + 0.5 * pull * true.log_normalizer, at_true + pull * true.one
            linear = pull + (1.0 if linear is None else linear)
        if self.ignore_index is not None:
            counts = target.unsqueeze(-1) != self.ignore_index
            value, at_true = value * counts, at_true * counts
            linear = counts.to(value.dtype) if linear is None else linear * counts
        return OfIndex(value, at_true, linear)

    def harmless_index(self, target: Tensor) -> Tensor:
        return self._index(target)

    def _of_few_classes(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Plain class indices in the fewest operations: fixed costs are all that counts."""
        index = self._index(target).unsqueeze(-1)
        work = log_softmax(raw)
        log_true = work.gather(-1, index)
        work.exp_().scatter_(-1, index, log_true.expm1())
        if self.ignore_index is not None:
            work.masked_fill_((target == self.ignore_index).unsqueeze(-1), 0.0)
        return self._uncounted_to_zero(log_true.squeeze(-1).neg(), target), work

    def _of_mixture(self, raw: Tensor, target: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        """More than one class is wanted (class probabilities, smoothed indices), or there are few classes."""
        in_place = place is not None and writes_into(raw, place)
        largest = raw.amax(-1, keepdim=True) if self.z_loss else None
        work = torch.log_softmax(raw, dim=-1, out=place) if in_place else log_softmax(raw)
        value, pull = self._value(work, target), None
        if largest is not None:
            log_normalizer = largest - work.amax(-1, keepdim=True)
            penalty = (self.z_loss * log_normalizer**2).squeeze(-1)
            value = value + (penalty if target.is_floating_point() else self._uncounted_to_zero(penalty, target))
            pull = 2.0 * self.z_loss * log_normalizer
        work.exp_()
        if target.is_floating_point():
            wanted = self._wanted(target)
            factor = wanted.sum(-1, keepdim=True)
            work.mul_(factor if pull is None else factor + pull).sub_(wanted)
        else:
            self._turn_into_index_gradient(work, target, pull)
        return value, work

    def _turn_into_index_gradient(self, probability: Tensor, target: Tensor, pull: Tensor | None) -> None:
        index = self._index(target).unsqueeze(-1)
        hard = probability.new_full(index.shape, 1.0 - self.label_smoothing)
        if self.weight is not None:
            hard = self.weight.to(hard.dtype)[index] * hard
        factor = hard if pull is None else hard + pull
        if self.label_smoothing:
            smoothing = self._smoothing(probability)
            probability.mul_(factor + smoothing.sum()).sub_(smoothing)
        elif pull is not None or self.weight is not None:
            probability.mul_(factor)
        probability.scatter_add_(-1, index, hard.neg_())
        if self.ignore_index is not None:
            probability.masked_fill_((target == self.ignore_index).unsqueeze(-1), 0.0)

    def _capped(self, raw: Tensor) -> Tensor:
        return raw if self.soft_cap is None else self.soft_cap * torch.tanh(raw / self.soft_cap)

    def _with_penalty(self, value: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        if not self.z_loss:
            return value
        penalty = self.z_loss * torch.logsumexp(logits, dim=-1) ** 2
        return value + (penalty if target.is_floating_point() else self._uncounted_to_zero(penalty, target))

    def _value(self, log_probability: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            return -(self._wanted(target) * log_probability).sum(-1)
        index = self._index(target)
        value = -log_probability.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        if self.weight is not None:
            value = self.weight.to(value.dtype)[index] * value
        if self.label_smoothing:
            value = (1.0 - self.label_smoothing) * value - (self._smoothing(log_probability) * log_probability).sum(-1)
        return self._uncounted_to_zero(value, target)

    def normalizing_weight(self, raw: Tensor, target: Tensor) -> Tensor | None:
        """An index counts its class's weight, an ignored one nothing; class probabilities count one."""
        if target.is_floating_point() or (self.weight is None and self.ignore_index is None):
            return None
        counts = torch.ones_like(target, dtype=raw.dtype)
        if self.weight is not None:
            counts = self.weight.to(raw.dtype)[self._index(target)]
        return self._uncounted_to_zero(counts, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        if target.is_floating_point():
            target = self._wanted(target)
        logits = log_class_frequencies(target, sample_weight, loss="cross_entropy")
        return logits if self.soft_cap is None else self._below_cap(logits, self.soft_cap)

    def _below_cap(self, logits: Tensor, cap: float) -> Tensor:
        """Raw outputs whose capped logits have the same softmax; ±∞ where the cap cannot hold them.

        The softmax leaves open at which level the logits lie. The z-loss is 0 where they are, and without it the
        level around 0 leaves them the most room.
        """
        if not self.z_loss:
            logits = logits.clamp_min(logits.amax() - 2.0 * cap)
            logits = logits - 0.5 * (logits.amax() + logits.amin())
        return cap * torch.atanh((logits / cap).clamp(-1.0, 1.0))

    def _index(self, target: Tensor) -> Tensor:
        """The class indices, with a harmless 0 where the index says to ignore the sample."""
        return target if self.ignore_index is None else target.masked_fill(target == self.ignore_index, 0)

    def _uncounted_to_zero(self, result: Tensor, target: Tensor) -> Tensor:
        if self.ignore_index is None:
            return result
        ignored = target == self.ignore_index
        return result.masked_fill(ignored.unsqueeze(-1) if result.dim() > target.dim() else ignored, 0.0)

    def _smoothing(self, like: Tensor) -> Tensor:
        """What smoothing adds to the target probability of every class, weighted: ``ε/C·w``, of shape (C,)."""
        share = self.label_smoothing / like.shape[-1]
        if self.weight is None:
            return like.new_full(like.shape[-1:], share)
        return share * self.weight.to(like.dtype)

    def _wanted(self, target: Tensor) -> Tensor:
        if self.label_smoothing:
            target = (1.0 - self.label_smoothing) * target + self.label_smoothing / target.shape[-1]
        return target if self.weight is None else self.weight.to(target.dtype) * target


def _formula(weight: Tensor | None, *options: Any) -> CrossEntropyFormula:
    """Without a weight it is made and checked once: for a small batch that takes as long as an operation on it."""
    if weight is None and not torch.compiler.is_compiling():
        return _unweighted(*options)
    return CrossEntropyFormula(weight, *options)


@lru_cache(maxsize=64)
def _unweighted(*options: Any) -> CrossEntropyFormula:
    return CrossEntropyFormula(None, *options)


def cross_entropy(
    raw: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = -100,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    dim: int = -1,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Categorical cross-entropy of logits: the negative log-likelihood of a softmax.

    Domain: targets are class indices 0 … C−1 (integers), or class probabilities (floats, one-hot included); raw
    outputs (logits) are real numbers.

    Link: softmax, inside. Give logits, not probabilities.

    Formula: ``−s_y + logsumexp(s)``; for probabilities y ``−Σ_c y_c log softmax(s)_c``. A class weight w multiplies
    the term of its class; label smoothing ε replaces y by ``(1 − ε) y + ε/C``. ``z_loss`` adds ``z·logsumexp(s)²`` to
    every sample that counts, whatever the weight of its class: it keeps logits near the level at which their
    exponentials sum to 1. ``soft_cap`` replaces s by ``cap·tanh(s/cap)`` throughout.

    Gradient: ``(Σ_c a_c + 2z·logsumexp(s)) softmax(s) − a`` with a the weighted, smoothed target; plainly
    ``softmax(s) − onehot(y)``. A soft cap multiplies it by ``1 − tanh²(s/cap)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``. Units: nats.

    Special cases: an index equal to ``ignore_index`` counts nothing, and a batch of nothing else has loss 0. The mean
    divides by the sum of the class weights of the indices, as PyTorch does; class probabilities count one each. The
    lecture's weights ``C_n = M / m_n`` come from :func:`class_weights`.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        DomainError: if ``label_smoothing`` lies outside [0, 1), ``z_loss`` is negative or ``soft_cap`` not positive.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, -1.0, -1.0], [3.0, 3.0, 1.0, 0.0]])
        >>> cross_entropy(scores, torch.tensor([0, 1]), reduction="none")
        tensor([0.1587, 0.7817])

    Reference: SPEC B4, B6, G1; for the z-loss A. Chowdhery et al., PaLM, section 5 (2022); for the soft cap Gemma Team,
    Gemma 2, section 2 (2024).
    """
    return evaluate(
        _formula(weight, label_smoothing, ignore_index, z_loss, soft_cap),
        *classes_last(raw, target, dim),
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class CrossEntropy(Loss):
    """Module form of :func:`cross_entropy`, classes on the last axis."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = -100,
        z_loss: float = 0.0,
        soft_cap: float | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.z_loss = z_loss
        self.soft_cap = soft_cap
        # A wrong option is an error here, not at the first batch.
        _ = self.formula

    @property
    def formula(self) -> CrossEntropyFormula:
        """The mathematics, with this module's options."""
        return _formula(self.weight, self.label_smoothing, self.ignore_index, self.z_loss, self.soft_cap)


def class_weights(target: Tensor, classes: int) -> Tensor:
    """The lecture's weights for unbalanced classes: ``C_n = M / m_n``.

    Args:
        target: class indices, any shape; M of them in all, m_n of class n.
        classes: how many classes there are.

    Returns:
        One weight per class, shape (classes,). scikit-learn's ``"balanced"`` is the same divided by ``classes``, a
        factor that the weighted mean cancels.

    Raises:
        DomainError: naming the classes that never occur: their weight would be infinite.

    Example:
        >>> class_weights(torch.tensor([0, 0, 0, 1]), 2)
        tensor([1.3333, 4.0000])

    Reference: SPEC A10.
    """
    counts = torch.bincount(target.reshape(-1), minlength=classes)
    absent = (counts == 0).nonzero().reshape(-1).tolist()
    if absent:
        raise DomainError(f"class_weights: no sample of class {', '.join(map(str, absent))} among {target.numel()}.")
    return target.numel() / counts.to(torch.get_default_dtype())
