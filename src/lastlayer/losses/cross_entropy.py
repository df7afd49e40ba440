"""Cross-entropy of a softmax, with class weights and label smoothing, and the lecture's class weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import DomainError, KindError, ShapeError, shape_text
from lastlayer.evaluation import Formula, evaluate, weighted_mean
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.loss import Loss


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    return (
        3 * torch.randn(n, 5, dtype=dtype, generator=generator),
        torch.randint(5, (n,), generator=generator),
    )


@dataclass(frozen=True, eq=False)
class CrossEntropyFormula(Formula):
    """``−Σ_c a_c log softmax(s)_c`` with a_c the (weighted, smoothed) target probability of class c.

    One form covers every option: an index is ``a = w_y·onehot(y)``, smoothing mixes in ``ε/C·w``, class probabilities
    are ``a = w·y``. The gradient is then always ``(Σ a)·softmax(s) − a``.
    """

    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = -100
    event_dims = 1
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
        example=_example,
    )

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        if raw.dim() == 0 or raw.shape[-1] == 0:
            raise ShapeError(f"cross_entropy: raw has shape {shape_text(raw)}; expected (..., classes).")
        if self.weight is not None and self.weight.shape != raw.shape[-1:]:
            raise ShapeError(
                f"cross_entropy: weight has shape {shape_text(self.weight)}; expected one per class, "
                f"({raw.shape[-1]},)."
            )
        if target.is_floating_point():
            if target.shape != raw.shape:
                raise ShapeError(
                    f"cross_entropy: class probabilities have shape {shape_text(target)}, raw {shape_text(raw)}; "
                    f"expected one shape. Fix: pass class indices as integers, target.long(), or a one-hot target."
                )
            return target.to(raw.dtype)
        if target.dtype == torch.bool:
            raise KindError(
                "cross_entropy: target is bool. Fix: target.long() for indices, target.float() for one-hot."
            )
        if target.shape == raw.shape:
            raise ShapeError(
                f"cross_entropy: an integer target holds class indices and has the shape of raw, {shape_text(target)}; "
                f"expected {tuple(raw.shape[:-1])}. Fix: target.argmax(-1) for one-hot rows, or target.float()."
            )
        if target.shape != raw.shape[:-1]:
            raise ShapeError(
                f"cross_entropy: class indices have shape {shape_text(target)}, raw {shape_text(raw)}; expected "
                f"{tuple(raw.shape[:-1])}: raw without its last axis. Fix: classes last, or pass dim=."
            )
        return target.long()

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._value(_log_softmax(raw), target)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self._gradient(_log_softmax(raw).exp(), target)

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one log-softmax."""
        log_probability = _log_softmax(raw)
        return self._value(log_probability, target), self._gradient(log_probability.exp(), target)

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

    def _gradient(self, probability: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            wanted = self._wanted(target)
            return wanted.sum(-1, keepdim=True) * probability - wanted
        index = self._index(target).unsqueeze(-1)
        if self.weight is None and not self.label_smoothing:
            # Not scatter(reduce="add"): it has no derivative of its own.
            hit = probability.scatter_add(-1, index, probability.new_full(index.shape, -1.0))
            return self._uncounted_to_zero(hit, target)
        hard = torch.full_like(probability[..., :1], 1.0 - self.label_smoothing)
        if self.weight is not None:
            hard = self.weight.to(hard.dtype)[index] * hard
        gradient = hard * probability
        if self.label_smoothing:
            smoothing = self._smoothing(probability)
            gradient = (hard + smoothing.sum()) * probability - smoothing
        return self._uncounted_to_zero(gradient.scatter_add(-1, index, -hard), target)

    def normalizing_weight(self, raw: Tensor, target: Tensor) -> Tensor | None:
        """An index counts its class's weight, an ignored one nothing; class probabilities count one."""
        if target.is_floating_point() or (self.weight is None and self.ignore_index is None):
            return None
        counts = torch.ones_like(target, dtype=raw.dtype)
        if self.weight is not None:
            counts = self.weight.to(raw.dtype)[self._index(target)]
        return self._uncounted_to_zero(counts, target)

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        if not target.is_floating_point():
            raise KindError("cross_entropy: the optimal constant needs class probabilities; pass a one-hot target.")
        wanted = weighted_mean(self._wanted(target), sample_weight)
        return torch.log(wanted / wanted.sum())

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


def _log_softmax(raw: Tensor) -> Tensor:
    """Over the last axis. PyTorch's kernel for a short last axis goes through the numbers one by one.

    With 10 classes it takes five times as long as the kernel for a leading axis, which takes many samples at once;
    from 16 classes on it is the other way round.
    """
    if raw.shape[-1] < 16:
        return torch.log_softmax(raw.transpose(0, -1), dim=0).transpose(0, -1)
    return torch.log_softmax(raw, dim=-1)


def cross_entropy(
    raw: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = -100,
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
    the term of its class; label smoothing ε replaces y by ``(1 − ε) y + ε/C``.

    Gradient: ``(Σ_c a_c) softmax(s) − a`` with a the weighted, smoothed target; plainly ``softmax(s) − onehot(y)``.

    Shapes: raw ``(..., C)``, or the classes on axis ``dim``; target ``(...)`` as indices, or the shape of raw as
    probabilities; per-sample value ``(...)``. Units: nats.

    Special cases: an index equal to ``ignore_index`` counts nothing, and a batch of nothing else has loss 0. The mean
    divides by the sum of the class weights of the indices, as PyTorch does; class probabilities count one each. The
    lecture's weights ``C_n = M / m_n`` come from :func:`class_weights`.

    Raises:
        ShapeError: if the shapes do not belong together, with the fix.
        DomainError: if ``label_smoothing`` lies outside [0, 1).

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, -1.0, -1.0], [3.0, 3.0, 1.0, 0.0]])
        >>> cross_entropy(scores, torch.tensor([0, 1]), reduction="none")
        tensor([0.1587, 0.7817])

    Reference: SPEC B4, B6, G1.
    """
    return evaluate(
        CrossEntropyFormula(weight, _checked_smoothing(label_smoothing), ignore_index),
        raw if dim in (-1, raw.dim() - 1) else raw.movedim(dim, -1),
        target.movedim(dim, -1) if target.is_floating_point() and dim not in (-1, target.dim() - 1) else target,
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
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.ignore_index = ignore_index

    @property
    def formula(self) -> CrossEntropyFormula:
        """The mathematics, with this module's options."""
        return CrossEntropyFormula(self.weight, self.label_smoothing, self.ignore_index)


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


def _checked_smoothing(label_smoothing: float) -> float:
    if not 0.0 <= label_smoothing < 1.0:
        raise DomainError(f"cross_entropy: label_smoothing is {label_smoothing}; expected a number in [0, 1).")
    return label_smoothing
