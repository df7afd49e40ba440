"""Does the loss apply a link that has been applied already? A softmax or a sigmoid is wanted once, not twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Findings, Severity
from lastlayer.diagnosis.loss_calls import LossCall, calls_of, ends_of, returned_end
from lastlayer.diagnosis.loss_traits import Link, own_traits
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.output_columns import end_of_columns
from lastlayer.diagnosis.output_end import LOGARITHMS, End, first_parent
from lastlayer.diagnosis.output_range import RELU_BEFORE_SIGNED_TARGET
from lastlayer.diagnosis.spans import UNIT, Span
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.without_operation import tried_without

SOFTMAX_BEFORE_CROSS_ENTROPY = Fault(
    name="softmax_before_cross_entropy",
    title="a softmax before a loss that applies its own",
    severity="error",
    why="Cross-entropy takes raw scores and applies a softmax itself. Given probabilities, whose differences are 1 at "
    "most, it can never be sure of a class: the loss stops far from 0 and its gradient is small throughout.",
    fix="Remove the softmax and give the loss the raw scores; apply it to predictions only.",
    reference="SPEC A2, D9; the documentation of torch.nn.CrossEntropyLoss",
)
SIGMOID_BEFORE_LOGIT_LOSS = Fault(
    name="sigmoid_before_logit_loss",
    title="a sigmoid before a loss that applies its own",
    severity="error",
    why="A loss of logits applies a sigmoid itself. Given probabilities, it sees only logits between 0 and 1, which "
    "stand for probabilities between 0.5 and 0.73: no sample can ever be called a clear case of either class.",
    fix="Remove the sigmoid and give the loss the raw scores, or keep it and take the loss of probabilities.",
    reference="SPEC A1, A3; the documentation of torch.nn.BCEWithLogitsLoss",
)
LINK_APPLIED_TWICE = Fault(
    name="link_applied_twice",
    title="an output function before another one that wants raw scores",
    severity="error",
    why="A sigmoid, a softmax, an exponential or a softplus makes a valid parameter of any number. Of a number that "
    "has been through one already it can make a few only, and what lies outside is never predicted.",
    fix="Apply one of the two.",
    reference="SPEC A1, A2, A6",
)

# How far above 0 the least loss that can be reached may lie, as a share of that of knowing nothing (log K, or log 2).
# At half of it most of what could be learned cannot; below a hundredth the limit is one of bounded logits, on purpose.
_SHARE_OF_AN_ERROR = 0.5
_SHARE_OF_A_WARNING = 0.01
_SOFTMAX = ("softmax", "log_softmax", "logsumexp")
_SIGMOID = ("sigmoid", "log_sigmoid")


@dataclass(frozen=True)
class _Applied:
    """A link, and what it is applied to.

    Attributes:
        link: which.
        end: what is known of the numbers it is given.
        by: what applies it, as a sentence names it.
        by_loss: whether the loss does.
        probabilities: whether what it is given is probabilities that add up to 1.
        classes: over how many it adds up.
        target: the loss's, where there is one.
        logarithm: whether a logarithm follows.
        explicit: whether a loss of the user's own calls it, as a function of its own, and goes on with probabilities.
    """

    link: Link
    end: End
    by: str
    by_loss: bool
    probabilities: bool
    classes: int
    target: Tensor | None = None
    logarithm: bool = True
    explicit: bool = False

    @property
    def first(self) -> str:
        """What came before it, as a finding names it."""
        operation = self.end.link or self.end.source
        return "the network's output" if operation is None else operation.label

    @property
    def remedy(self) -> str:
        """How it gets what it wants."""
        if self.end.link is not None and not self.end.altered:
            return f"Remove {self.first}: {self.by} takes raw scores"
        source = self.end.source
        as_it_is = "the last layer" if source is None or source is self.end.link else source.label
        return f"Give {self.by} the output of {as_it_is} as it is"


def links_applied_twice(subject: Subject) -> Iterator[Finding]:
    """Every link that is applied to what cannot be any number; of each layer the worst that it does."""
    told: set[str] = set()
    for finding in Findings(finding for applied in _applied(subject) for finding in _judged(subject, applied)):
        if finding.where not in told:
            told.add(finding.where)
            yield finding


def _applied(subject: Subject) -> Iterator[_Applied]:
    for call in calls_of(subject):
        if call.traits.given == "raw" and len(call.traits.links) == 1 and call.traits.links[0] != "identity":
            yield _by_call(call, call.traits.links[0], call.end)
        elif len(call.traits.links) > 1:
            size = call.shapes[0][-1] // len(call.traits.links)
            for place, link in enumerate(call.traits.links):
                if link != "identity" and size:
                    yield _by_call(call, link, end_of_columns(subject, place * size, (place + 1) * size))
    ends = ends_of(subject)
    of_output = [returned_end(subject), *(call.end for call in calls_of(subject))]
    operations = [operation for end in of_output for operation, _ in end.links]
    if own_traits(subject.loss) is None:
        operations += subject.training_pass.of_loss
    for operation in operations:
        if operation.name in (*_SOFTMAX, *_SIGMOID):
            end = ends.of(first_parent(operation), operation.input)
            if _is_an_output_function(operation, end):
                yield _by_operation(operation, end)


def _is_an_output_function(operation: Operation, end: End) -> bool:
    """Whether it makes probabilities of the network's output; in a loss the same functions have other uses.

    A logsumexp of probabilities is the rest of a cross-entropy. A sigmoid of a distance, which is never negative, is
    the loss's own idea, and one of a ReLU at the network's end is not.
    """
    if operation.name == "logsumexp":
        return end.normalized == "probabilities"
    if not operation.within_loss or (end.span is not None and end.span.within(UNIT)):
        return True
    return end.link is not None and not end.link.within_loss and not end.altered


def _by_call(call: LossCall, link: Link, end: End) -> _Applied:
    probabilities = end.normalized == "probabilities" or call.normalized == "probabilities"
    return _Applied(link, end, call.label, True, probabilities, call.classes, call.target)


def _by_operation(operation: Operation, end: End) -> _Applied:
    softmax = operation.name in _SOFTMAX
    axis = operation.options.get("dim", operation.options.get("1"))
    given = operation.input
    classes = given.shape[axis if isinstance(axis, int) else -1] if given is not None and given.dim() else 1
    logarithm = operation.name in ("log_softmax", "logsumexp") or _has_logarithm(operation)
    return _Applied(
        "softmax" if softmax else "sigmoid",
        end,
        "the loss" if operation.within_loss else operation.label,
        operation.within_loss,
        end.normalized == "probabilities",
        classes,
        logarithm=logarithm,
        explicit=operation.within_loss and operation.name in ("sigmoid", "softmax"),
    )


def _has_logarithm(operation: Operation, depth: int = 4) -> bool:
    """Whether a logarithm is taken of its output a few operations on: a guard, a view, the choice of a class."""
    return depth > 0 and any(
        child.name in LOGARITHMS or _has_logarithm(child, depth - 1) for child in operation.children
    )


def _judged(subject: Subject, applied: _Applied) -> Iterator[Finding]:
    end = applied.end
    if not (end.limited or applied.probabilities):
        return
    if applied.link == "softmax":
        yield from _softmax(subject, applied)
    elif applied.link == "sigmoid" and end.span is not None:
        yield from _sigmoid(subject, applied, end.span)
    elif end.span is not None and end.link is not None and end.span.low >= 0.0:
        yield from _positive(subject, applied, end.span)


def _softmax(subject: Subject, applied: _Applied) -> Iterator[Finding]:
    end, classes = applied.end, applied.classes
    if end.normalized == "logarithms":
        yield LINK_APPLIED_TWICE.found(
            applied.first,
            f"{applied.by} applies a log-softmax to what is one already. It changes nothing; it costs a pass over the "
            f"outputs.",
            fix=f"Remove {applied.first}, or take the loss of log-probabilities, nll_loss.",
            severity="note",
        )
        return
    span = UNIT if applied.probabilities else end.span
    if span is None or classes < 2:
        return
    if math.isinf(span.width):
        yield from _rectified_scores(applied, span)
        return
    # Of scores that differ by the span's width at most, if the right one is the greatest and all others the least.
    least = math.log1p((classes - 1) * math.exp(-span.width))
    greatest, ignorance = math.exp(-least), math.log(classes)
    severity = _severity(least / ignorance, certain=span.within(UNIT))
    if severity is None:
        return
    before_loss = applied.probabilities and applied.by_loss and applied.logarithm and not applied.explicit
    fault = SOFTMAX_BEFORE_CROSS_ENTROPY if before_loss else LINK_APPLIED_TWICE
    yield fault.found(
        applied.first,
        f"Its outputs are {span}, and {applied.by} applies a softmax to them: of {classes} classes none can get a "
        f"probability above {greatest:.3g}, and a cross-entropy cannot fall below {least:.3g}, where knowing nothing "
        f"has {ignorance:.3g}.",
        numbers={"classes": classes, "greatest_probability": greatest, "least_loss": least},
        fix=f"{applied.remedy}. Apply a softmax to predictions only.",
        severity=severity,
        tried=_tried(subject, end),
    )


def _rectified_scores(applied: _Applied, span: Span) -> Iterator[Finding]:
    """Scores that are cut at one side: every class can still be predicted, as long as its score is not cut off."""
    operation = applied.end.link
    output = operation.output if operation is not None else None
    if operation is None or output is None or math.isinf(span.low):
        return
    cut = float((output == span.low).double().mean())
    if operation.name == "exp":
        fault = LINK_APPLIED_TWICE
        evidence = f"Its outputs are exponentials, and {applied.by} takes the exponential of them once more."
    elif cut > 0:
        fault = RELU_BEFORE_SIGNED_TARGET
        evidence = (
            f"{cut:.0%} of its outputs, the scores for {applied.by}, are {span.low:.3g}: no gradient passes there."
        )
    else:
        return
    yield fault.found(
        operation.label,
        evidence,
        numbers={"share_cut": cut},
        fix=f"Remove {operation.label}: {applied.by} takes any score.",
        severity="warning",
    )


def _sigmoid(subject: Subject, applied: _Applied, span: Span) -> Iterator[Finding]:
    operation, target = applied.end.link, applied.target
    low, high = _sigmoid_of(span.low), _sigmoid_of(span.high)
    least_of_0 = abs(math.log1p(-low)) if low < 1 else math.inf
    least_of_1 = abs(math.log(high)) if high > 0 else math.inf
    # Where only one of the two is among the targets, the other end does not matter.
    zeros = target is None or not target.numel() or bool((target < 0.5).any())
    ones = target is None or not target.numel() or bool((target > 0.5).any())
    least = max(least_of_0 if zeros else 0.0, least_of_1 if ones else 0.0)
    unit = span.within(UNIT)
    severity = _severity(least / math.log(2.0), certain=unit)
    if severity is None:
        return
    once_more = unit and applied.by_loss and not applied.probabilities and not applied.explicit
    fault = SIGMOID_BEFORE_LOGIT_LOSS if once_more else LINK_APPLIED_TWICE
    if (
        operation is not None
        and operation.name not in ("exp", "softplus", "tanh")
        and not unit
        and math.isinf(span.high)
    ):
        fault = RELU_BEFORE_SIGNED_TARGET
    yield fault.found(
        applied.first,
        f"Its outputs are {span}, and {applied.by} applies a sigmoid to them: every probability lies between "
        f"{low:.3g} and {high:.3g}, and the cross-entropy of a 1 cannot fall below {least_of_1:.3g}, that of a 0 below "
        f"{least_of_0:.3g}, where knowing nothing has {math.log(2.0):.3g}.",
        numbers={"least_probability": low, "greatest_probability": high, "least_loss": least},
        fix=f"{applied.remedy}. Apply a sigmoid to predictions only.",
        severity=severity,
        tried=_tried(subject, applied.end),
    )


def _positive(subject: Subject, applied: _Applied, span: Span) -> Iterator[Finding]:
    """An exponential or a softplus of what is positive already."""
    operation, target = applied.end.link, applied.target
    if operation is None:
        return
    if applied.link == "exp":
        low, what, function = math.exp(span.low), "rate", "exponential"
        beyond = target is not None and target.numel() > 0 and float(target.double().mean()) < low
        severity: Severity = "error" if beyond or operation.name == "exp" or span.within(UNIT) else "warning"
    else:
        low, what, function, severity = math.log1p(math.exp(span.low)), "scale", "softplus", "error"
    yield LINK_APPLIED_TWICE.found(
        operation.label,
        f"Its outputs are {span}, and {applied.by} takes the {function} of them: no {what} below {low:.3g} can be "
        f"predicted.",
        numbers={f"least_{what}": low},
        fix=f"{applied.remedy}, and makes them positive itself.",
        severity=severity,
        tried=_tried(subject, applied.end),
    )


def _severity(share: float, *, certain: bool) -> Severity | None:
    if certain or share > _SHARE_OF_AN_ERROR:
        return "error"
    return "warning" if share > _SHARE_OF_A_WARNING else None


def _sigmoid_of(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-score)) if score > -700.0 else 0.0


def _tried(subject: Subject, end: End) -> str | None:
    if end.link is None or end.altered or subject.target is None:
        return None
    return tried_without(subject, [end.link], fix=f"Without {end.link.label}")


FAULTS: tuple[Fault, ...] = (SOFTMAX_BEFORE_CROSS_ENTROPY, SIGMOID_BEFORE_LOGIT_LOSS, LINK_APPLIED_TWICE)
CHECKS: tuple[Check, ...] = (links_applied_twice,)
