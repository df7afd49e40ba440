"""Is the softmax taken over the classes, and not over the samples, or over one output alone?"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.loss_calls import LossCall, calls_of, returned_end
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.output_end import SOFTMAX, End, Normalized, normalized_over
from lastlayer.diagnosis.subject import Subject

SOFTMAX_OVER_WRONG_AXIS = Fault(
    name="softmax_over_wrong_axis",
    title="a softmax that does not go over the classes",
    severity="error",
    why="Over the samples, the rows of a batch share one probability among them: what is predicted of one depends on "
    "which others are in the batch. Over a single output a softmax is 1, whatever goes in, and nothing is learned.",
    fix="Give the softmax the axis of the classes: dim=1 where the output is (samples, classes, ...).",
    reference="SPEC A2; the documentation of torch.softmax",
)


def softmax_over_other_axes(subject: Subject) -> Iterator[Finding]:
    """The softmax nearest to the loss: over which axis its result adds up to 1."""
    calls = calls_of(subject)
    for call in calls:
        if call.raw is None:
            continue
        if call.traits.of_classes and call.raw.dim() == 1 and call.traits.links == ("softmax",):
            yield from _samples_for_classes(subject, call)
        if call.end.normalized is not None:
            severity: Severity = "error"
            yield from _over(call.raw, call.end, call.axis, call.traits.of_classes, call.target, severity)
    raw, end = subject.training_pass.raw, returned_end(subject)
    if raw is not None and not calls and end.normalized is not None:
        yield from _over(raw, end, min(1, raw.dim() - 1), False, subject.target, "warning")
    # A softmax over one output, wherever the loss is.
    for operation, _ in end.links:
        if operation.name in SOFTMAX and operation.output is not None:
            yield from _over_one(operation, operation.output)


def _over(
    raw: Tensor, end: End, axis: int, of_classes: bool, target: Tensor | None, severity: Severity
) -> Iterator[Finding]:
    """Whether what adds up to 1 does so over another axis than that of the classes."""
    link, kind = end.link, end.normalized
    if link is None or kind is None or raw.dim() == 0 or raw.shape[0] < 2:
        return
    if link.output is None or link.output.numel() != raw.numel():
        return  # One class has been picked: what is left adds up to nothing.
    if raw.dim() > 1 and normalized_over(raw, axis, kind):
        return
    others = [place for place in range(raw.dim()) if place != axis or raw.dim() == 1]
    wrong = next((place for place in others if normalized_over(raw, place, kind)), None)
    # Of an image or a sequence, a softmax over places is a map of where something is; only a class loss excludes it.
    if wrong is None or ((wrong != 0 or raw.dim() > 2) and not of_classes) or _is_list(target, raw, kind):
        return
    # Similarities of every sample with every other have samples on both axes.
    if raw.dim() == 2 and raw.shape[0] == raw.shape[1] and (end.source is None or end.source.role != "weight"):
        return
    what = "the samples" if wrong == 0 else f"axis {wrong}"
    yield SOFTMAX_OVER_WRONG_AXIS.found(
        link.label,
        f"Its outputs, of shape {tuple(raw.shape)}, add up to 1 over axis {wrong}, {what}, of length "
        f"{raw.shape[wrong]}" + ("." if raw.dim() == 1 else f", and not over axis {axis}, the classes."),
        numbers={"axis": wrong, "length": raw.shape[wrong]},
        fix=f"Take {link.label} over the classes: dim={axis if raw.dim() > 1 else -1} of (samples, classes).",
        severity=severity,
    )


def _is_list(target: Tensor | None, raw: Tensor, kind: Normalized) -> bool:
    """Whether the target adds up to 1 over the samples as well: a list to be put in order, one sample in truth."""
    if target is None or not target.is_floating_point() or target.shape != raw.shape:
        return False
    return normalized_over(target, 0)


def _over_one(operation: Operation, output: Tensor) -> Iterator[Finding]:
    axis = operation.options.get("dim", operation.options.get("1"))
    if not isinstance(axis, int) or output.dim() == 0 or output.shape[axis] != 1 or output.numel() == 0:
        return
    constant = float(output.flatten()[0])
    yield SOFTMAX_OVER_WRONG_AXIS.found(
        operation.label,
        f"It goes over axis {axis} of {tuple(output.shape)}, which has one element: all {output.numel()} outputs are "
        f"{constant:g}, whatever the input, and no gradient passes.",
        numbers={"axis": axis, "length": 1},
        fix=f"Replace {operation.label} by a sigmoid, for one of two classes, or give the network an output per class.",
    )


def _samples_for_classes(subject: Subject, call: LossCall) -> Iterator[Finding]:
    """A prediction with one axis is one sample's scores; the samples of a flattened column are taken for classes."""
    raw, target = call.raw, call.target
    if raw is None or target is None or target.shape != raw.shape or len(raw) < 2 or len(raw) != subject.rows:
        return
    if target.is_floating_point() and not normalized_over(target, 0):
        yield SOFTMAX_OVER_WRONG_AXIS.found(
            call.made_by,
            f"{call.label} takes a prediction of shape ({len(raw)},) as the scores of one sample for {len(raw)} "
            f"classes, and these are {len(raw)} samples: its softmax goes over the batch.",
            numbers={"axis": 0, "length": len(raw)},
            fix="For one of two classes take binary_cross_entropy_with_logits; for more give (samples, classes).",
        )


FAULTS: tuple[Fault, ...] = (SOFTMAX_OVER_WRONG_AXIS,)
CHECKS: tuple[Check, ...] = (softmax_over_other_axes,)
