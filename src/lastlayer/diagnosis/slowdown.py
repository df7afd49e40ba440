"""How much of the gradient a squared error loses behind a sigmoid or a softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.loss_calls import LossCall, calls_of
from lastlayer.diagnosis.loss_traits import own_traits
from lastlayer.diagnosis.output_end import SOFTMAX, End, wide
from lastlayer.diagnosis.output_range import unreachable_share
from lastlayer.diagnosis.spans import UNIT
from lastlayer.diagnosis.subject import Subject, loss_of
from lastlayer.diagnosis.trial import train_a_copy
from lastlayer.diagnosis.without_operation import with_few_rows, without

SQUARED_ERROR_BEHIND_SIGMOID = Fault(
    name="squared_error_behind_sigmoid",
    title="a squared error behind a sigmoid or a softmax: learning slows down",
    severity="warning",
    why="The gradient of the squared error carries the slope of the sigmoid, p(1 - p), which is next to 0 where the "
    "network is sure and wrong: the samples that have most to teach teach least. In the cross-entropy the slope "
    "cancels, and the gradient is the error p - y itself.",
    fix="Train on the cross-entropy of the raw scores.",
    reference="SPEC F, G7; M. Nielsen, Neural Networks and Deep Learning (2015), chapter 3",
)

# Fewer numbers may be 0 and 1 by chance, as of a proportion that was only ever all or nothing.
_ENOUGH = 8
#: The share of the samples that are called the most wrong.
WORST = 0.1
_STEPS = 40


@dataclass(frozen=True)
class Loss:
    """Of the gradient that a cross-entropy passes to the raw scores, what a squared error passes.

    Attributes:
        share: over all samples.
        worst_share: over the tenth that is most wrong, and one at least.
        worst: how many those are.
    """

    share: float
    worst_share: float
    worst: int


def squared_errors_of_probabilities(subject: Subject) -> Iterator[Finding]:
    """Every squared error whose prediction is a probability."""
    for call in calls_of(subject):
        link = _link(call)
        if link is None or call.raw is None or call.target is None or call.raw.numel() == 0:
            continue
        if not bool(call.raw.isfinite().all()):
            continue
        probability = _probability(wide(call.raw), call, link)
        target = _target(call, probability)
        if target is None or unreachable_share(UNIT, target) > 0.0:
            continue
        axis = call.axis if link == "softmax" else None
        measured = gradient_left(probability, target, axis)
        yes_or_no = bool(((target == 0.0) | (target == 1.0)).all()) and target.numel() >= _ENOUGH
        chosen = own_traits(subject.loss) is not None and call.traits.links != ("identity",)
        severe = yes_or_no and not chosen
        other = "cross_entropy" if axis is not None else "binary_cross_entropy_with_logits"
        yield SQUARED_ERROR_BEHIND_SIGMOID.found(
            call.made_by,
            f"The squared error behind its {link} passes on {measured.share:.0%} of the gradient that the "
            f"cross-entropy would, and {measured.worst_share:.1%} for the {measured.worst} most wrong"
            + (". The targets are 0 and 1." if yes_or_no else "; of targets between 0 and 1 that is a choice."),
            numbers={"gradient_share": measured.share, "gradient_share_of_worst": measured.worst_share},
            fix=f"Give the raw scores to {other}, and apply the {link} to predictions only.",
            severity="warning" if severe else "note",
            tried=_tried(subject, call, link) if severe else None,
        )


def gradient_left(probability: Tensor, target: Tensor, axis: int | None = None) -> Loss:
    """What the squared error ``Σ (p − y)²`` passes to the raw scores, over what the cross-entropy passes.

    Formula: behind a sigmoid ``2 |p − y| p (1 − p)`` against ``|p − y|``; behind a softmax over ``axis``
    ``p ∘ (2(p − y) − Σ 2(p − y) p)`` against ``p − y``. Sums of absolute values.

    Example:
        >>> gradient_left(torch.tensor([0.5]), torch.tensor([1.0])).share
        0.5
    """
    wrong = probability - target
    if axis is None:
        squared = 2.0 * wrong * probability * (1.0 - probability)
        squared, wrong = squared.reshape(-1, 1), wrong.reshape(-1, 1)
    else:
        slope = 2.0 * wrong
        squared = probability * (slope - (slope * probability).sum(axis, keepdim=True))
        squared, wrong = (one.movedim(axis, -1).flatten(0, -2) for one in (squared, wrong))
    squared_rows, cross_rows = squared.abs().sum(-1), wrong.abs().sum(-1)
    worst = max(1, math.ceil(WORST * len(cross_rows)))
    order = cross_rows.argsort(descending=True)[:worst]
    return Loss(
        _ratio(squared_rows.sum(), cross_rows.sum()), _ratio(squared_rows[order].sum(), cross_rows[order].sum()), worst
    )


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if float(whole) > 0 else 1.0


def _link(call: LossCall) -> str | None:
    """Through which link the prediction became a probability, in the network or in the loss."""
    if not call.traits.squared:
        return None
    if call.traits.links in (("sigmoid",), ("softmax",)):
        return call.traits.links[0] if call.end.span is None or not call.end.limited else None
    if call.normalized == "probabilities":
        return "softmax"
    return "sigmoid" if _is_sigmoid(call.end) else None


def _is_sigmoid(end: End) -> bool:
    """Whether its numbers approach 0 and 1 without getting there, as those of a clamp do."""
    if end.span != UNIT or end.link is None or end.link.output is None:
        return False
    return end.link.name not in (
        *SOFTMAX,
        "clamp",
        "clip",
        "clamp_min",
        "clamp_max",
        "hardtanh",
        "hardsigmoid",
        "relu6",
    )


def _probability(raw: Tensor, call: LossCall, link: str) -> Tensor:
    if call.traits.links == ("identity",):
        return raw
    return raw.sigmoid() if link == "sigmoid" else raw.softmax(call.axis)


def _target(call: LossCall, probability: Tensor) -> Tensor | None:
    """The target in the prediction's shape; class indices as one-hot."""
    target = call.target
    if target is None or call.shapes[0] == call.shapes[1]:
        return None if target is None else wide(target)
    if target.numel() == probability.numel():
        return wide(target.reshape(probability.shape))
    if call.traits.of_classes and not target.is_floating_point() and call.axis == probability.dim() - 1:
        return F.one_hot(target.long().clamp(0, call.classes - 1), call.classes).to(probability.dtype)
    return None


def _tried(subject: Subject, call: LossCall, link: str) -> str | None:
    """The subject's own loss over a few steps on the cross-entropy, beside the same steps on itself."""
    operation = call.end.link
    inside = operation is None or operation.within_loss
    if not inside and (operation is None or operation.inferred or operation.name not in ("sigmoid", "softmax")):
        return None
    as_probability: Callable[[Tensor], Tensor] = (
        torch.sigmoid if link == "sigmoid" else (lambda raw: torch.softmax(raw, call.axis))
    )
    own, own_values = loss_of(subject.loss), []

    def cross_entropy(raw: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            own_values.append(float(own(raw if inside else as_probability(raw), target)))
        if target.numel() != raw.numel() and not target.is_floating_point():
            target = F.one_hot(target.long(), raw.shape[call.axis]).movedim(-1, call.axis)
        wanted = target.reshape(raw.shape).to(raw.dtype)
        if link == "softmax":
            return -(wanted * torch.log_softmax(raw, call.axis)).sum(call.axis).mean()
        return F.binary_cross_entropy_with_logits(raw, wanted)

    network: nn.Module = subject.network if inside or operation is None else without(subject, [operation])[0]
    few, on = with_few_rows(subject)
    try:
        before = train_a_copy(few, steps=_STEPS)
        train_a_copy(few, network=network, loss=cross_entropy, steps=_STEPS)
    except Exception:
        return None
    if not all(map(math.isfinite, (*before.losses, *own_values))) or len(own_values) <= _STEPS:
        return None
    return (
        f"On the cross-entropy{on}, {_STEPS} steps of Adam on a copy took this batch's own loss from "
        f"{own_values[0]:.3g} to {own_values[-1]:.3g}; as it is, to {before.last:.3g}."
    )


FAULTS: tuple[Fault, ...] = (SQUARED_ERROR_BEHIND_SIGMOID,)
CHECKS: tuple[Check, ...] = (squared_errors_of_probabilities,)
