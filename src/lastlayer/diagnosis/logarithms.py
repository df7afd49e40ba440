"""Are the logarithms that a loss takes, or is given, those of probabilities?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.loss_calls import LossCall, calls_of, ends_of, from_the_network
from lastlayer.diagnosis.loss_traits import own_traits
from lastlayer.diagnosis.operation import Operation, names
from lastlayer.diagnosis.output_end import LOGARITHMS, End, first_parent, wide
from lastlayer.diagnosis.scale import divides_by
from lastlayer.diagnosis.spans import UNIT
from lastlayer.diagnosis.subject import Subject

LOG_SOFTMAX_MISSING = Fault(
    name="log_softmax_missing",
    title="a loss of log-probabilities that is given something else",
    severity="error",
    why="The negative log-likelihood picks the true class's number and turns its sign. Of log-probabilities that is "
    "the loss; raw scores grow without limit instead, and probabilities are no logarithms: the loss has a floor of -1 "
    "and hardly any gradient where the network is wrong.",
    fix="End the network in nn.LogSoftmax(dim=1), or give the raw scores to nn.CrossEntropyLoss.",
    reference="SPEC B4; the documentation of torch.nn.NLLLoss",
)
LOG_OF_NO_PROBABILITY = Fault(
    name="log_of_no_probability",
    title="a logarithm of something that is no probability",
    severity="error",
    why="The logarithm of a number below 0 is not a number, that of 0 is infinite, and a raw score can be either; "
    "above 1 the loss is negative and goes on falling as the score grows.",
    fix="Put a sigmoid (two classes, labels) or a softmax (several classes) before the logarithm, or better, give the "
    "raw scores to a loss that takes them.",
    reference="SPEC A1, A2, G1",
)

# A log-probability above this is none: rounding leaves a thousandth of it.
_ABOVE_0 = 0.02
# A clamp that guards probabilities against rounding cuts none of them, or the few that are next to 0 or 1. Of scores
# around 0, one that leaves 0 to 1 cuts half and more; a tenth lies far from both.
_GUARDED = 0.1
_CLAMPS = names("clamp clip clamp_min clamp_max hardtanh")


def logarithms(subject: Subject) -> Iterator[Finding]:
    """Every question of this file, each layer named once."""
    questions = (
        _losses_of_log_probabilities,
        _losses_of_probabilities,
        _logarithms_of_raw_scores,
        _logarithms_of_clamped_scores,
        _probabilities_that_a_distribution_refused,
    )
    found: set[tuple[str, str]] = set()
    for finding in (finding for question in questions for finding in question(subject)):
        if (finding.name, finding.where) not in found:
            found.add((finding.name, finding.where))
            yield finding


def _losses_of_log_probabilities(subject: Subject) -> Iterator[Finding]:
    """Of every loss that takes log-probabilities: whether it is given some."""
    for call in calls_of(subject):
        if call.raw is None or not bool(call.raw.isfinite().any()) or call.traits.given != "log probabilities":
            continue
        if call.label == "kl_div":
            yield from _divergence(call, call.raw)
        else:
            yield from _negative_log_likelihood(call, call.raw)


def _negative_log_likelihood(call: LossCall, raw: Tensor) -> Iterator[Finding]:
    if "probabilities" in (call.end.normalized, call.normalized):
        yield _of_probabilities(call)
        return
    if call.normalized == "logarithms" or call.end.normalized is not None:
        return  # Logarithms; over which axis, ``class_axis`` looks at.
    logarithm = next((link for link, _ in call.end.links if link.name in LOGARITHMS), None)
    if logarithm is not None or call.classes < 2 or (call.end.span is None and not bool(raw.isfinite().all())):
        return  # The logarithm's argument is looked at by itself; of what is no number, nothing can be told.
    total = torch.logsumexp(wide(raw), dim=call.axis).exp().nan_to_num()
    typical, least, greatest = float(total.median()), *_ends(raw)
    yield LOG_SOFTMAX_MISSING.found(
        call.made_by,
        f"{call.label} takes log-probabilities, and gets numbers from {least:.3g} to {greatest:.3g}: the probabilities "
        f"that they would stand for add up to {typical:.3g} in the median row, not to 1. The loss falls without limit "
        f"as the scores grow.",
        numbers={"median_sum": typical, "least": least, "greatest": greatest},
        severity="error" if call.end.span is not None else "warning",
    )


def _ends(values: Tensor) -> tuple[float, float]:
    """The least and the greatest of those that are finite."""
    known = wide(values)[values.isfinite()]
    return float(known.min()), float(known.max())


def _of_probabilities(call: LossCall) -> Finding:
    return LOG_SOFTMAX_MISSING.found(
        call.made_by,
        f"{call.label} takes log-probabilities, and gets probabilities: its {call.classes} inputs of every row add up "
        f"to 1. Its value is minus the true class's probability, which cannot fall below -1.",
        numbers={"classes": call.classes},
        fix=f"Replace {call.made_by} by a log-softmax, or give the raw scores to cross_entropy.",
    )


def _divergence(call: LossCall, raw: Tensor) -> Iterator[Finding]:
    above = float((raw > _ABOVE_0).double().mean())
    probabilities = call.end.normalized == "probabilities" or call.normalized == "probabilities"
    if above == 0.0 or (call.end.span is None and not probabilities):
        return
    what = "probabilities, which add up to 1" if probabilities else f"numbers up to {_ends(raw)[1]:.3g}"
    yield LOG_SOFTMAX_MISSING.found(
        call.made_by,
        f"{call.label} takes log-probabilities of the prediction, and gets {what}: {above:.0%} of them lie above 0.",
        numbers={"share_above_0": above},
        fix="Give it the log-softmax of the raw scores first, and the target's probabilities second.",
    )


def _losses_of_probabilities(subject: Subject) -> Iterator[Finding]:
    """Of every loss that takes probabilities or rates: whether it is given some."""
    for call in calls_of(subject):
        if call.traits.given not in ("probabilities", "rates") or call.raw is None:
            continue
        if not bool(call.raw.isfinite().any()):
            continue
        if call.traits.of_classes and call.normalized is not None:
            continue
        high = 1.0 if call.traits.given == "probabilities" else math.inf
        raw, span = call.raw, call.end.span
        outside = float(((raw < 0.0) | (raw > high)).double().mean())
        reachable = span is not None and (span.low < 0.0 or span.high > high) and not call.end.altered
        if outside == 0.0 and not reachable:
            continue
        least, greatest = _ends(raw)
        what = "probabilities" if high == 1.0 else "rates, which are positive"
        remedy = "a sigmoid" if high == 1.0 else "an exponential or a softplus"
        logits = "binary_cross_entropy_with_logits" if high == 1.0 else "poisson_nll_loss with log_input=True"
        yield LOG_OF_NO_PROBABILITY.found(
            call.made_by,
            f"{call.label} takes {what}, and gets what can be {span or 'anything'}: of {raw.numel()} numbers, which go "
            f"from {least:.3g} to {greatest:.3g}, {outside:.0%} are none.",
            numbers={"share_outside": outside, "least": least, "greatest": greatest},
            fix=f"Give the raw scores to {logits}, or put {remedy} behind {call.made_by}.",
        )


def _logarithms_of_raw_scores(subject: Subject) -> Iterator[Finding]:
    """Every logarithm on the way to the loss: whether its argument can be 0 or less."""
    ends, found = ends_of(subject), set()
    operations = [link for call in calls_of(subject) for link, _ in call.end.links]
    if own_traits(subject.loss) is None:
        operations += subject.training_pass.of_loss
    for operation in operations:
        if operation.name not in LOGARITHMS or operation.input is None or not operation.input.is_floating_point():
            continue
        end = ends.of(first_parent(operation), operation.input)
        if end.span is None or end.span.low >= 0.0 or end.source is None or divides_by(subject, end):
            continue
        place = end.source.index
        # Of what arithmetic has made, a span says more than can happen: 1 - p of a few probabilities added up.
        if place not in found and not (end.altered and bool((operation.input > 0.0).all())):
            found.add(place)
            yield _of_raw_scores(operation, operation.input, end)


def _logarithms_of_clamped_scores(subject: Subject) -> Iterator[Finding]:
    """Every logarithm of raw scores that a clamp has cut to between 0 and 1, as if that made them probabilities."""
    ends = ends_of(subject)
    given = [(call.label, call.end) for call in calls_of(subject) if call.traits.given == "probabilities"]
    operations = [link for call in calls_of(subject) for link, _ in call.end.links]
    if own_traits(subject.loss) is None:
        operations += subject.training_pass.of_loss
    for operation in operations:
        if operation.name in LOGARITHMS and operation.input is not None:
            given.append((operation.label, ends.of(first_parent(operation), operation.input)))
    for label, end in given:
        yield from _clamped(label, end)


def _clamped(label: str, end: End) -> Iterator[Finding]:
    links = list(end.links)
    # The innermost clamps, one after the other: a lower and an upper end may be cut by two.
    clamps = []
    for link, before in reversed(links):
        if link.name not in _CLAMPS:
            break
        clamps.append((link, before))
    if not clamps or end.span is None or not end.span.within(UNIT) or not from_the_network(clamps[0][0]):
        return
    (first, before), source = clamps[0], clamps[0][1].source
    raw = first.input
    if before.span is None or before.span.within(UNIT) or raw is None or raw.numel() == 0 or source is None:
        return
    outside = float(((raw < 0.0) | (raw > 1.0)).double().mean())
    cut = sum(
        float((clamp.output != clamp.input).double().mean())
        for clamp, _ in clamps
        if clamp.output is not None and clamp.input is not None and clamp.output.shape == clamp.input.shape
    )
    if outside == 0.0 or cut <= _GUARDED or not bool(raw.isfinite().any()):
        return
    least, greatest = _ends(raw)
    yield LOG_OF_NO_PROBABILITY.found(
        source.label,
        f"{label} is taken of its output as if that were a probability: it can be {before.span}, and {first.label} "
        f"cuts {cut:.0%} of the {raw.numel()} numbers, which go from {least:.3g} to {greatest:.3g}. Those that are cut "
        f"have no gradient.",
        numbers={"share_cut": cut, "share_outside": outside, "least": least, "greatest": greatest},
        fix=f"Put a sigmoid or a softmax behind {source.label}, in place of {first.label}, or give the raw scores to "
        f"a loss that takes them.",
    )


def _of_raw_scores(operation: Operation, given: Tensor, end: End) -> Finding:
    negative = float((given <= 0.0).double().mean()) if given.numel() else 0.0
    cause = end.link or end.source
    where = operation.label if cause is None else cause.label
    return LOG_OF_NO_PROBABILITY.found(
        where,
        f"{operation.label} is taken of its output, which can be {end.span}: {negative:.0%} of the {given.numel()} "
        f"numbers are 0 or less, and have no logarithm"
        + (f"; {float((given > 1.0).double().mean()):.0%} are above 1." if given.numel() else "."),
        numbers={"share_without_logarithm": negative},
        # Until a number falls below 0 there is a value, of something that is no likelihood.
        severity="error" if negative > 0.0 else "warning",
    )


def _probabilities_that_a_distribution_refused(subject: Subject) -> Iterator[Finding]:
    """What ``torch.distributions`` says when it is given raw scores for probabilities."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage == "forward":
        return
    refused = re.search(r"Expected parameter (probs) .* of distribution (\w+)\(", str(failure.error))
    if refused is not None:
        yield LOG_OF_NO_PROBABILITY.found(
            f"{refused[2]}(probs=…) in the loss",
            f"{refused[2]} takes probabilities, and refused what it was given: {str(failure.error).splitlines()[0]}",
            fix=f"Give it the raw scores as {refused[2]}(logits=…).",
        )


FAULTS: tuple[Fault, ...] = (LOG_SOFTMAX_MISSING, LOG_OF_NO_PROBABILITY)
CHECKS: tuple[Check, ...] = (logarithms,)
