"""Are the targets such as the loss is made for: class indices it has outputs for, numbers in its domain?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.checks import DomainError
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.loss_calls import LossCall, calls_of
from lastlayer.diagnosis.loss_traits import head_of
from lastlayer.diagnosis.output_end import wide
from lastlayer.diagnosis.subject import Subject
from lastlayer.facts import UNIT, Interval

TARGET_OUTSIDE_DOMAIN = Fault(
    name="target_outside_domain",
    title="targets that the loss is not made for",
    severity="error",
    why="A loss is the likelihood of some kind of target. Of any other it is a number without meaning, and often one "
    "that falls without limit: binary cross-entropy rewards ever larger scores for a target of 2, or of -1.",
    fix="Bring the targets into the loss's domain, or take a loss that is made for them.",
    reference="SPEC A1 to A5, B3",
)
CLASS_INDEX_OFF_BY_ONE = Fault(
    name="class_index_off_by_one",
    title="class indices counted from 1",
    severity="error",
    why="K outputs stand for the classes 0 to K-1. Counted from 1, the last class has no output, which is an error, or "
    "the first output has no class, which is a waste.",
    fix="Subtract 1 from the targets.",
    reference="the documentation of torch.nn.CrossEntropyLoss",
)
TOO_FEW_OUTPUTS = Fault(
    name="too_few_outputs",
    title="fewer outputs than classes",
    severity="error",
    why="A class loss picks the output of the true class, so there has to be one for every class. With a single output "
    "the softmax is 1, whatever goes in, and the loss 0.",
    fix="Give the last layer an output per class.",
    reference="the documentation of torch.nn.CrossEntropyLoss",
)

# Numbers that are outside by less than this share of the domain's width, or of 1, have been rounded there.
_ROUNDING = 1e-4
# Interpolated shares, of images say, overshoot by a few hundredths: not to be reported as badly as 255 or -1.
_OVERSHOOT = 0.05
# Class probabilities add up to 1 as in ``output_end``: the rounding of bfloat16.
_SUM = 0.02
# From so many samples per class on, a class 0 that never comes has been left out, not missed.
_SAMPLES_PER_CLASS = 20


def class_indices(subject: Subject) -> Iterator[Finding]:
    """Class indices against the number of outputs."""
    for call in calls_of(subject):
        if not call.traits.of_classes or not call.shapes[0]:
            continue
        classes = call.classes + call.traits.classes_beyond_outputs
        if classes == 1 and call.traits.links == ("softmax",):
            yield _single_output(call)
        elif call.target is not None and _is_index(call):
            counted = call.target[call.target != call.option("ignore_index", call.traits.ignore_index)]
            if counted.numel():
                yield from _indices(call, counted, classes)


def _is_index(call: LossCall) -> bool:
    """Whether the target can be read as indices: whole numbers, one per sample."""
    shape = call.shapes[0]
    return _is_whole(call) and call.shapes[1] == shape[: call.axis] + shape[call.axis + 1 :]


def _is_whole(call: LossCall) -> bool:
    kind = call.dtypes[1]
    return not kind.is_floating_point and not kind.is_complex and kind != torch.bool


def _single_output(call: LossCall) -> Finding:
    present = 0 if call.target is None else len(call.target.unique())
    return TOO_FEW_OUTPUTS.found(
        call.made_by,
        f"It gives one output, and {call.label} takes a softmax over the outputs: of one it is always 1. The targets "
        f"have {present} different value{'' if present == 1 else 's'}.",
        numbers={"outputs": 1, "different_targets": present},
        fix="For one of two classes keep the one output and take binary_cross_entropy_with_logits; for more, give the "
        "last layer an output per class.",
    )


def _indices(call: LossCall, index: Tensor, classes: int) -> Iterator[Finding]:
    least, greatest = int(index.min()), int(index.max())
    numbers = {"least": least, "greatest": greatest, "classes": classes}
    given = f"The targets are class indices from {least} to {greatest}, and there are {call.classes} outputs"
    if least == 1 and greatest == classes:
        yield CLASS_INDEX_OFF_BY_ONE.found(
            "the target",
            f"{given}, which stand for the classes 0 to {classes - 1}.",
            numbers=numbers,
            fix=f"Count the classes from 0: give {call.label} target - 1. (If class 0 is only missing from this batch, "
            f"the network needs {greatest + 1} outputs instead.)",
        )
    elif least < 0:
        values = sorted(set(index.unique().tolist()))
        remedy = f"Give {call.label} ignore_index={least}, if {least} marks what should not count."
        if values == [-1, 1]:
            remedy = f"For two classes give {call.label} (target + 1) // 2, which is 0 and 1."
        yield TARGET_OUTSIDE_DOMAIN.found(
            "the target",
            f"{given}; {float((index < 0).double().mean()):.1%} of the indices are negative and name no class.",
            numbers=numbers,
            fix=remedy,
        )
    elif greatest >= classes:
        beyond = float((index >= classes).double().mean())
        yield TOO_FEW_OUTPUTS.found(
            call.made_by,
            f"{given}: {beyond:.1%} of the targets name a class that has none.",
            numbers={**numbers, "share_without_output": beyond},
            fix=f"Give {call.made_by} {greatest + 1} outputs" + (f", or {call.label} target - 1." if least else "."),
        )
    elif least == 1 and len(index) >= _SAMPLES_PER_CLASS * classes and len(index.unique()) == classes - 1 > 1:
        yield CLASS_INDEX_OFF_BY_ONE.found(
            "the target",
            f"{given}; class 0 never comes among {index.numel()} targets, and every other class does.",
            numbers=numbers,
            fix=f"If the classes were counted from 1, give {call.label} target - 1, and the network one output less.",
            severity="note",
        )


def class_probabilities(subject: Subject) -> Iterator[Finding]:
    """Targets of the prediction's shape against what probabilities are."""
    for call in calls_of(subject):
        target = call.target
        if target is None or not call.traits.of_classes or call.traits.links != ("softmax",) or call.classes < 2:
            continue
        if not target.is_floating_point() or call.shapes[0] != call.shapes[1] or target.dim() < 2 or not target.numel():
            continue
        total = wide(target).sum(call.axis)
        # Rows of zeros are masked.
        wrong = (((total - 1.0).abs() > _SUM) & (total != 0.0)).double().mean()
        negative = (target < 0.0).double().mean()
        if not float(wrong) and not float(negative):
            continue
        labels = bool(((target == 0) | (target == 1)).all())
        yield TARGET_OUTSIDE_DOMAIN.found(
            "the target",
            f"{call.label} takes class probabilities, which add up to 1 over the {call.classes} classes; those of "
            f"{float(wrong):.0%} of the samples do not, but to numbers from {float(total.min()):.3g} to "
            f"{float(total.max()):.3g}, and {float(negative):.0%} of the numbers are negative.",
            numbers={"share_of_samples": float(wrong), "share_negative": float(negative)},
            fix="For several labels at once take binary_cross_entropy_with_logits."
            if labels
            else "Divide the targets by their sum over the classes; to weigh samples, weigh their losses.",
            # It has a minimum all the same, and some weigh samples that way.
            severity="warning",
        )


def numbers_outside_the_domain(subject: Subject) -> Iterator[Finding]:
    """Numbers against where the loss's target may lie."""
    if head_of(subject.loss) is not None:
        yield from _as_the_head_says(subject)
        return
    for call in calls_of(subject):
        if call.target is None or call.traits.of_classes or call.target.numel() == 0:
            continue
        if call.shapes[0] != call.shapes[1] and call.shapes[1] == call.shapes[0][:-1] and _is_whole(call):
            continue  # Indices where numbers are wanted: ``target_form`` says so.
        counted = call.counted_target
        if call.traits.target == "signs":
            yield from _signs(call, wide(call.target))
        elif call.traits.domain is not None and counted is not None:
            yield from _outside(call, counted[counted.isfinite()], call.traits.domain)


def _signs(call: LossCall, target: Tensor) -> Iterator[Finding]:
    zeros = float((target == 0).double().mean()) if target.numel() else 0.0
    if zeros == 0.0 or bool((target == -1).any()):
        return
    yield TARGET_OUTSIDE_DOMAIN.found(
        "the target",
        f"{call.label} takes targets 1 and -1, and {zeros:.0%} of these are 0: their loss does not depend on the "
        f"prediction as it should.",
        numbers={"share_of_zeros": zeros},
        fix=f"Give {call.label} 2 * target - 1, which is 1 and -1.",
    )


def _outside(call: LossCall, target: Tensor, domain: Interval) -> Iterator[Finding]:
    width = domain.high - domain.low if math.isfinite(domain.high - domain.low) else 1.0
    distance = (domain.low - target).clamp_min(0.0) + (target - domain.high).clamp_min(0.0)
    at_open_end = ~domain.contains(target) & (distance == 0.0)
    outside = (distance > _ROUNDING * width) | at_open_end
    if not bool(outside.any()):
        return
    least, greatest, share = float(target.min()), float(target.max()), float(outside.double().mean())
    slight = float(distance.max()) <= _OVERSHOOT * width and not bool(at_open_end.any())
    yield TARGET_OUTSIDE_DOMAIN.found(
        "the target",
        f"{call.label} takes targets in {domain}; {share:.1%} of the {target.numel()} targets, which go from "
        f"{least:.3g} to {greatest:.3g}, lie outside.",
        numbers={"share_outside": share, "least": least, "greatest": greatest},
        fix=_remedy(target, domain, call.label),
        severity="warning" if slight else "error",
    )


def _remedy(target: Tensor, domain: Interval, label: str) -> str:
    """How these numbers usually came to be, and the way back."""
    least, greatest = float(target.min()), float(target.max())
    if label == "kl_div":
        logarithms = "its target is log-probabilities already: pass log_target=True"
        return f"Give kl_div the softmax of the teacher's scores; if {logarithms}."
    if domain != UNIT:
        return f"Give {label} targets in {domain}, or take a loss of real numbers."
    values = set(target.unique()[:3].tolist())
    if values == {-1.0, 1.0}:
        return f"Give {label} (target + 1) / 2, which is 0 and 1."
    if values == {1.0, 2.0}:
        return f"Give {label} target - 1, which is 0 and 1."
    if least >= 0.0 and bool((target == target.round()).all()) and 2.0 <= greatest <= 20.0:
        return (
            f"These look like classes 0 to {greatest:.0f}: give the network an output for each, and take cross_entropy."
        )
    if least >= 0.0:
        scale = next(
            (scale for scale in (100.0, 255.0, 65535.0) if greatest <= scale and greatest > scale / 4), greatest
        )
        return f"Divide the targets by {scale:g}."
    return f"Give {label} targets between 0 and 1; for any real number take a squared error."


def _as_the_head_says(subject: Subject) -> Iterator[Finding]:
    head, target = head_of(subject.loss), subject.target
    of_classes = any(call.traits.of_classes for call in calls_of(subject))
    if head is None or target is None or of_classes:
        return  # Classes are looked at above.
    known = target[target.isfinite()] if target.is_floating_point() else target
    try:
        head.check_target(known)
    except DomainError as error:
        interval = head.support
        fraction = interval is not None and bool(interval.contains(known.double()).all())
        remedy = _remedy(known.double(), interval, f"heads.{type(head).__name__}") if interval is not None else None
        yield TARGET_OUTSIDE_DOMAIN.found(
            "the target",
            str(error),
            numbers={"least": float(known.min()), "greatest": float(known.max())},
            fix=f"Round the targets, or take a head of positive numbers, {head.facts.target} is wanted here."
            if fraction
            else remedy,
            # Of a rate that is no whole number the likelihood still has its minimum in the right place.
            severity="warning" if fraction else "error",
        )


def values_that_a_distribution_refused(subject: Subject) -> Iterator[Finding]:
    """What ``torch.distributions`` says of a target outside its support."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage == "forward":
        return
    text = str(failure.error)
    refused = re.search(
        r"Expected value argument .* to be within the support \((.*?)\) of the distribution (\w+)", text
    )
    if refused is not None:
        yield TARGET_OUTSIDE_DOMAIN.found(
            "the target",
            f"{refused[2]} has the support {refused[1]}, and refused the target: {text.splitlines()[0]}",
            fix=f"Give {refused[2]} targets in its support, or take a distribution that is made for them.",
        )


FAULTS: tuple[Fault, ...] = (TARGET_OUTSIDE_DOMAIN, CLASS_INDEX_OFF_BY_ONE, TOO_FEW_OUTPUTS)
CHECKS: tuple[Check, ...] = (
    class_indices,
    class_probabilities,
    numbers_outside_the_domain,
    values_that_a_distribution_refused,
)
