"""Can the network's output reach what the loss wants of it? An activation at the end may keep it from doing so."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.loss_calls import LossCall, calls_of
from lastlayer.diagnosis.output_columns import end_of_columns
from lastlayer.diagnosis.output_end import End
from lastlayer.diagnosis.spans import Span
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.without_operation import tried_without

RELU_BEFORE_SIGNED_TARGET = Fault(
    name="relu_before_signed_target",
    title="an output activation that cannot reach the targets",
    severity="error",
    why="A regression target may be any number, and the activation behind the last layer gives some of them only: a "
    "ReLU nothing below 0, a sigmoid nothing above 1. What lies outside is never predicted, and where a ReLU gives 0 "
    "nothing is learned either.",
    fix="End the network in its last linear layer, without an activation.",
    reference="SPEC A4",
)

# The share of the target's variance that no weights can explain, because it lies out of reach. A twentieth is more
# than the noise that makes a positive quantity dip below 0 in measurement; a two-hundredth is an outlier or two.
_SHARE_OF_AN_ERROR = 0.05
_SHARE_OF_A_WARNING = 0.005
# What float32 and bfloat16 leave of targets that lie on the end of a range.
_ROUNDING = 1e-5


def outputs_that_cannot_reach_the_target(subject: Subject) -> Iterator[Finding]:
    """Of every loss that compares outputs with real numbers: how much of the target lies out of the output's reach."""
    for call in calls_of(subject):
        target = call.counted_target
        if target is None or call.traits.target != "numbers" or call.traits.given != "raw":
            continue
        if call.traits.links == ("identity",) and call.end.limited:
            yield from _out_of_reach(subject, call, call.end, target)
        elif len(call.traits.links) > 1 and call.traits.links[0] == "identity":
            end = end_of_columns(subject, 0, call.shapes[0][-1] // len(call.traits.links))
            if end.limited:
                yield from _out_of_reach(subject, call, end, target)


def _out_of_reach(subject: Subject, call: LossCall, end: End, target: Tensor) -> Iterator[Finding]:
    span, operation = end.span, end.link or end.source
    if span is None or operation is None:
        return
    share = unreachable_share(span, target)
    if share < _ROUNDING:
        return
    known = target[target.isfinite()]
    outside = (known < span.low) | (known > span.high)
    numbers = {
        "share_of_targets": float(outside.double().mean()),
        "share_of_variance": share,
        "least_target": float(known.min()),
        "greatest_target": float(known.max()),
    }
    columns = target[0].numel() if target.dim() > 1 else 1
    whose = "their" if columns == 1 else f"the worst of {columns} columns'"
    tried = None
    if share > _SHARE_OF_A_WARNING and not end.altered:
        tried = tried_without(subject, [operation], fix=f"Without {operation.label}")
    yield RELU_BEFORE_SIGNED_TARGET.found(
        operation.label,
        f"Its output is {span}, and {numbers['share_of_targets']:.0%} of the targets, which go from "
        f"{numbers['least_target']:.3g} to {numbers['greatest_target']:.3g}, lie outside: {share:.0%} of {whose} "
        f"variance cannot be learned{_flat(operation.output, span)}.",
        numbers=numbers,
        fix=f"Remove {operation.label}, so that {call.label} gets any number"
        + (", or scale the targets into its range." if span.width < float("inf") else "."),
        severity=_severity(share),
        tried=tried,
    )


def unreachable_share(span: Span, target: Tensor) -> float:
    """The squared distance of the targets from what can be reached, over their variance; of the worst column, if
    there are several.

    Special cases: of targets that are all the same it is 1 if they are out of reach, and 0 if they are not. What is
    not finite does not count.

    Example:
        >>> unreachable_share(Span(low=0.0), torch.tensor([-1.0, 1.0]))
        0.5
    """
    columns = target.reshape(len(target), -1) if target.dim() > 1 else target.reshape(-1, 1)
    known = columns.isfinite()
    count = known.sum(0).clamp_min(1)
    values = columns.where(known, 0.0)
    distance = span.distance(columns).where(known, 0.0)
    # In units in which no square overflows or vanishes.
    if not float(distance.sum()):
        return 0.0
    unit = torch.maximum(values.abs(), distance).amax()
    values, distance = values / unit, distance / unit
    lost = distance.square().sum(0)
    variation = (values - values.sum(0) / count).where(known, 0.0).square().sum(0)
    # A column that hardly varies counts by what the others vary, as it does in the loss.
    return float((lost / variation.clamp_min(variation.mean())).clamp_max(1.0).max())


def _severity(share: float) -> Severity:
    if share > _SHARE_OF_AN_ERROR:
        return "error"
    return "warning" if share > _SHARE_OF_A_WARNING else "note"


def _flat(output: Tensor | None, span: Span) -> str:
    """How many outputs lie at the end of the range, where a ReLU lets no gradient pass."""
    if output is None or not output.numel():
        return ""
    share = float(((output == span.low) | (output == span.high)).double().mean())
    return f"; {share:.0%} of the outputs lie at an end of the range, where nothing is learned" if share > 0 else ""


FAULTS: tuple[Fault, ...] = (RELU_BEFORE_SIGNED_TARGET,)
CHECKS: tuple[Check, ...] = (outputs_that_cannot_reach_the_target,)
