"""NaN and infinity: what came in with them, or else the first operation that made them, forward or backward."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.first_not_finite import Culprit, finite, first_not_finite, has_nan
from lastlayer.diagnosis.subject import Pass, Subject
from lastlayer.diagnosis.tensors import tensors_in

__all__ = ["CHECKS", "FAULTS", "NOT_A_NUMBER", "Culprit", "first_not_finite", "not_a_number"]

NOT_A_NUMBER = Fault(
    name="not_a_number",
    title="NaN or infinity",
    severity="error",
    why="One NaN in the loss or in a gradient makes every parameter NaN at the next step, and nothing is learned then.",
    fix="Mend what makes it: clean the inputs, or keep the operation inside its domain.",
    reference="torch.autograd.detect_anomaly, which finds what makes NaN in the backward pass",
)


def not_a_number(subject: Subject) -> Iterator[Finding]:
    """Inputs, target and parameters; then what the passes made of them."""
    ran = subject.training_pass
    outside = [*_of_network(subject), *_of_batch(subject, ran)]
    yield from outside
    if outside or _healthy(ran):
        return
    culprit = first_not_finite(ran.operations)
    bad = [name for name, parameter in ran.network.named_parameters() if not finite(parameter.grad)]
    if culprit is not None:
        numbers = {"count": culprit.count, "total": culprit.total}
        yield NOT_A_NUMBER.found(culprit.operation.label, culprit.evidence, numbers=numbers, fix=culprit.fix)
    elif ran.value is not None and not finite(ran.value):
        yield NOT_A_NUMBER.found("the loss", f"It is {float(ran.value):g} on this batch, and no operation shows why.")
    elif bad:
        evidence = f"It is not finite on this batch, nor are {len(bad) - 1} others, and no operation shows why."
        yield NOT_A_NUMBER.found(f"the gradient of parameter '{bad[0]}'", evidence)


def hidden_infinity(subject: Subject) -> Iterator[Finding]:
    """An infinite gradient that a rectifier or a mask in front of it throws away: no harm is done, by luck."""
    ran = subject.training_pass
    if not _healthy(ran) or all(finite(operation.gradient) for operation in ran.operations):
        return
    culprit = first_not_finite(ran.operations)
    if culprit is not None and culprit.stage == "backward":
        numbers = {"count": culprit.count, "total": culprit.total}
        evidence = f"{culprit.evidence} What comes before it throws these away, and no parameter's gradient is touched."
        yield NOT_A_NUMBER.found(culprit.operation.label, evidence, numbers=numbers, fix=culprit.fix, severity="note")


def _of_network(subject: Subject) -> Iterator[Finding]:
    for name, parameter in subject.network.named_parameters():
        if not isinstance(parameter, UninitializedParameter) and not finite(parameter):
            yield _given(f"parameter '{name}'", parameter, "Initialize it anew, or load an earlier checkpoint.")
    for name, buffer in subject.network.named_buffers():
        # Other buffers may hold infinity for a reason: an attention mask.
        if name.rpartition(".")[2] in ("running_mean", "running_var") and not finite(buffer):
            yield _given(
                f"buffer '{name}'", buffer, "Reset it (reset_running_stats()), and clean the batches that it saw."
            )


def _of_batch(subject: Subject, ran: Pass) -> Iterator[Finding]:
    """Inputs and target that are not finite, where the loss is neither.

    A network may fill the gaps of its inputs, and a loss may mask those of its target: then nothing comes of them.
    """
    failed = ran.failure is not None
    if _healthy(ran) and not failed:
        return
    for place, tensor in enumerate(tensors_in(subject.features)):
        if not finite(tensor):
            yield _given(
                "the inputs" if place == 0 else f"input {place}",
                tensor,
                "Fill or drop missing cells before training, and fill them alike when predicting; "
                "lastlayer.preprocessing does both.",
                certain=not failed,
            )
    for tensor in tensors_in(subject.target):
        if not finite(tensor):
            fix = "Drop the rows without a target, or mask them in the loss."
            yield _given("the target", tensor, fix, certain=not failed)


def _given(where: str, tensor: Tensor, fix: str, *, certain: bool = True) -> Finding:
    bad = ~tensor.detach().isfinite()
    count, total = int(bad.sum()), bad.numel()
    what = "NaN" if has_nan(tensor) else "infinite"
    among = ""
    if bad.dim() == 2 and bad.shape[1] > 1:
        columns = bad.any(0).nonzero().flatten().tolist()
        rows = int(bad.any(1).sum())
        shown = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        among = f", in {rows} of {len(bad)} rows and column{'s' if len(columns) > 1 else ''} {shown}"
    evidence = f"{count} of {total} numbers {'is' if count == 1 else 'are'} {what}{among}."
    numbers = {"count": count, "total": total}
    # What a pass that broke off would have made of it is not known.
    return NOT_A_NUMBER.found(where, evidence, numbers=numbers, fix=fix, severity="error" if certain else "warning")


def _healthy(ran: Pass) -> bool:
    """Whether loss (without one, the result) and gradients are finite, as far as the pass came."""
    result = ran.raw if ran.value is None else ran.value
    if result is not None and not finite(result) and (ran.value is not None or has_nan(result)):
        return False
    return all(parameter.grad is None or finite(parameter.grad) for parameter in ran.network.parameters())


FAULTS: tuple[Fault, ...] = (NOT_A_NUMBER,)
CHECKS: tuple[Check, ...] = (not_a_number, hidden_infinity)
