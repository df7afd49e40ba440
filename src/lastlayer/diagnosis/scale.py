"""Is a predicted scale or variance positive, whatever the network puts out?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.loss_calls import calls_of, ends_of
from lastlayer.diagnosis.operation import Operation, names
from lastlayer.diagnosis.output_end import LOGARITHMS, End, first_parent, tensor_arguments
from lastlayer.diagnosis.subject import Subject

SCALE_WITHOUT_POSITIVE_LINK = Fault(
    name="scale_without_positive_link",
    title="a scale that can be 0 or negative",
    severity="error",
    why="A standard deviation, a variance or a rate is positive. The last layer gives any number: below 0 the "
    "likelihood is not a number, at 0 it is infinite, and a clamp there has no gradient to come back with.",
    fix="Pass the raw scale through softplus and add a small number, or let the network give its logarithm.",
    reference="SPEC A6",
)

#: What a division divides by, by position and name.
_DIVISIONS = names("div truediv true_divide divide")
_POWERS = names("pow square sqrt")
_LATER_LOGARITHMS = LOGARITHMS | names("log1p logsumexp")
# Parameters of torch.distributions that are positive.
_POSITIVE = "scale|rate|concentration|concentration0|concentration1|df|df1|df2|var|covariance_matrix|total_count"


def scales_given_to_a_loss(subject: Subject) -> Iterator[Finding]:
    """The variances that PyTorch's Gaussian likelihood is given."""
    for call in calls_of(subject):
        if call.label != "gaussian_nll_loss":
            continue
        given = call.places.get("var") or call.places.get(2)
        if given is not None:
            yield from _judged(*given, taken_by="gaussian_nll_loss as the variance")


def scales_in_an_own_likelihood(subject: Subject) -> Iterator[Finding]:
    """A number of the network's whose logarithm is taken, and by which is divided: that is a scale."""
    ends, found = ends_of(subject), set[int]()
    yield from _scales_of_densities(subject, found)
    for operation in subject.training_pass.of_loss:
        if operation.name not in LOGARITHMS or operation.input is None:
            continue
        end = ends.of(first_parent(operation), operation.input)
        if end.source is None or end.source.index in found or not divides_by(subject, end):
            continue
        found.add(end.source.index)
        yield from _judged(operation.input, end, taken_by="the loss, which divides by it and takes its logarithm,")


def _scales_of_densities(subject: Subject, found: set[int]) -> Iterator[Finding]:
    """A number of the network's by which an exponent is divided, and its exponential too, before a logarithm.

    That is the scale of a density, ``exp(−((y − m) / s)² / 2) / s``. Where it is negative so is the density, which a
    mixture's sum may hide. What was told of goes into ``found``.
    """
    ends, divisions = ends_of(subject), []
    for operation in subject.training_pass.of_loss:
        divisor = _divisor_of(operation)
        if divisor is not None and divisor[1] is not None:
            later = _names_after(operation)
            if later & _LATER_LOGARITHMS:
                divisions.append((divisor[0], ends.of(divisor[1], divisor[0]), "exp" in later))
    exponents = {origin for _, end, before_exp in divisions if before_exp for origin in _origins(end)}
    norms = {origin for _, end, before_exp in divisions if not before_exp for origin in _origins(end)}
    for given, end, _ in divisions:
        source = end.source
        if source is None or source.index in found or not given.is_floating_point() or bool((given > 0.0).all()):
            continue
        if exponents & norms & _origins(end) and bool((given <= 0.0).any()):
            found.add(source.index)
            yield from _judged(given, end, taken_by="the loss as the scale of a density")


def _origins(end: End) -> set[tuple[int, int | None]]:
    """Where its numbers come from and what limits them, and of squares and roots those that they were taken of."""
    steps = [end]
    for link, before in end.links:
        if link.name not in _POWERS:
            break
        steps.append(before)
    return {(one.source.index, one.link.index if one.link else None) for one in steps if one.source}


def _names_after(operation: Operation) -> set[str]:
    """Of all operations that depend on it."""
    seen: dict[int, str] = {}
    waiting = list(operation.children)
    while waiting:
        child = waiting.pop()
        if child.index not in seen:
            seen[child.index] = child.name
            waiting.extend(child.children)
    return set(seen.values())


def divides_by(subject: Subject, end: End) -> bool:
    """Whether the loss divides by numbers of this origin that are limited in the same way, or by their powers."""
    ends = ends_of(subject)
    if "divisors" not in subject.shared:
        divisors = [_divisor(operation) for operation in subject.training_pass.of_loss]
        known = [ends.of(divisor) for divisor in divisors if divisor is not None]
        links = [(one.source, one.link) for one in known]
        # Of a square, what was squared.
        links += [(before.source, before.link) for one in known for _, before in one.links]
        subject.shared["divisors"] = {(source.index, link and link.index) for source, link in links if source}
    return end.source is not None and (end.source.index, end.link and end.link.index) in subject.shared["divisors"]


def _divisor(operation: Operation) -> Operation | None:
    divisor = _divisor_of(operation)
    return None if divisor is None else divisor[1]


def _divisor_of(operation: Operation) -> tuple[Tensor, Operation | None] | None:
    """What it divides by, and what made that."""
    if operation.name not in (*_DIVISIONS, "reciprocal"):
        return None
    given = list(tensor_arguments(operation))
    # ``1 / x`` has one tensor, and so has ``x / 2``.
    divided = "rdiv" in str(getattr(operation.function, "__name__", "")) or operation.name == "reciprocal"
    if len(given) == 1:
        return given[0][1:] if divided else None
    return given[1][1:] if len(given) > 1 else None


def _judged(given: Tensor, end: End, *, taken_by: str) -> Iterator[Finding]:
    wrong = float((given <= 0.0).double().mean()) if given.numel() else 0.0
    zeros = float((given == 0.0).double().mean()) if given.numel() else 0.0
    cause, known = end.link or end.source, given[given.isfinite()]
    if cause is None or known.numel() == 0:
        return
    severity: Severity = "error"
    if end.span is None or end.span.low >= 0.0 or end.altered:
        if wrong == 0.0:
            return
        # A ReLU or a clamp: infinite at 0, or held at a floor without a gradient.
        severity = "error" if wrong > zeros else "warning"
    what = "can be any number" if end.span is None or not end.span.limited else f"is {end.span}"
    yield SCALE_WITHOUT_POSITIVE_LINK.found(
        cause.label,
        f"Its output goes to {taken_by} and {what}: {wrong:.0%} of the {given.numel()} scales are 0 or less, the least "
        f"is {float(known.min()):.3g}.",
        numbers={"share_not_positive": wrong, "least": float(known.min())},
        fix=f"Put softplus(…) + 1e-3 between {cause.label} and the loss, or let the network give the logarithm of the "
        f"scale.",
        severity=severity,
    )


def scales_that_a_distribution_refused(subject: Subject) -> Iterator[Finding]:
    """What ``torch.distributions`` says of a parameter that is not positive."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage == "forward":
        return
    refused = re.search(rf"Expected parameter ({_POSITIVE}) .* of distribution (\w+)\(", str(failure.error))
    if refused is not None and ("Greater" in str(failure.error) or "Positive" in str(failure.error)):
        yield SCALE_WITHOUT_POSITIVE_LINK.found(
            f"{refused[2]}({refused[1]}=…) in the loss",
            f"{refused[2]} takes a positive {refused[1]}, and refused what it was given: "
            f"{str(failure.error).splitlines()[0]}",
            fix=f"Give it softplus({refused[1]}) + 1e-3.",
        )


FAULTS: tuple[Fault, ...] = (SCALE_WITHOUT_POSITIVE_LINK,)
CHECKS: tuple[Check, ...] = (
    scales_given_to_a_loss,
    scales_in_an_own_likelihood,
    scales_that_a_distribution_refused,
)
