"""Do the target's shape and dtype belong to those of the prediction? What broadcasts silently, and what raises."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.checks import KindError, ShapeError
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.loss_calls import LossCall, calls_of, from_the_network, same_numbers
from lastlayer.diagnosis.operation import Operation, names
from lastlayer.diagnosis.output_end import tensor_arguments
from lastlayer.diagnosis.subject import Subject

ONE_HOT_INTO_INDEX_LOSS = Fault(
    name="one_hot_into_index_loss",
    title="a target in another form than the loss takes",
    severity="error",
    why="A class target is an index, a whole number per sample, or a row of probabilities; a loss takes one or both. "
    "A loss that compares number by number takes floating-point numbers of the prediction's shape.",
    fix="Convert the target: argmax(1) makes indices of one-hot rows, one_hot(...).float() rows of indices.",
    reference="SPEC A2; the documentation of torch.nn.CrossEntropyLoss",
)
SHAPE_MISMATCH = Fault(
    name="shape_mismatch",
    title="shapes of prediction and target that do not belong together",
    severity="error",
    why="(n, 1) against (n,) broadcasts to (n, n): every prediction is compared with every target, the loss is least "
    "where all predictions are the targets' mean, and PyTorch warns at most.",
    fix="Give both one shape: target.unsqueeze(1), or prediction.squeeze(1).",
    reference="the documentation of torch.broadcast_tensors",
)

Shape = tuple[int, ...]
_COMPARES = names("sub subtract rsub add mul multiply div truediv true_divide divide maximum minimum")


def target_forms(subject: Subject) -> Iterator[Finding]:
    """Shapes and dtypes of prediction and target: the first question that has something to say."""
    for question in (_known_losses, _own_comparisons, _what_our_own_losses_refused):
        told: set[str] = set()
        for finding in question(subject):
            if finding.name not in told:
                told.add(finding.name)
                yield finding
        if told:
            return


def _known_losses(subject: Subject) -> Iterator[Finding]:
    """Of every loss whose target is known: its shape and dtype."""
    failed = subject.training_pass.failure is not None
    for call in calls_of(subject):
        if not call.shapes[0]:
            continue
        if call.traits.of_classes:
            if failed:
                yield from _class_target(call)
        elif call.traits.elementwise:
            yield from _numbers(call, failed=failed)


def _class_target(call: LossCall) -> Iterator[Finding]:
    """A class loss that raised: what its target is, and what it should be."""
    raw, target = call.shapes
    index_shape = raw[: call.axis] + raw[call.axis + 1 :]
    kind = call.dtypes[1]
    column = target == (*index_shape, 1) and target != raw
    if target == raw and not _takes_rows(call):
        what = "whole numbers" if not kind.is_floating_point else "numbers"
        yield _form(
            call,
            f"it is {what} of the prediction's shape, one-hot rows it seems, and {call.label} takes "
            + ("class indices" if kind.is_floating_point else "indices, or probabilities as floating-point numbers"),
            f"Give {call.label} target.argmax({call.axis})"
            + ("." if kind.is_floating_point else " or target.float()."),
        )
    elif kind.is_floating_point and (target == index_shape or column):
        squeezed = f".squeeze({len(target) - 1})" if column else ""
        if call.target is None or bool((call.target == call.target.round()).all()):
            yield _form(
                call,
                f"it is floating point, and {call.label} takes class indices as whole numbers",
                f"Give {call.label} target{squeezed}.long().",
            )
        else:
            yield _form(
                call,
                f"it is real numbers, and {call.label} takes class indices",
                "For real-valued targets take mse_loss, and a network with one output per number.",
            )
    elif target == index_shape and kind not in (torch.int64, torch.uint8):
        yield _form(call, f"it is {kind}, and {call.label} takes torch.int64", f"Give {call.label} target.long().")
    elif column:
        yield _shape(call, index_shape, f"Give {call.label} target.squeeze({len(target) - 1}).")
    elif target not in (raw, index_shape):
        yield _shape(call, index_shape, _class_remedy(call, index_shape))


def _takes_rows(call: LossCall) -> bool:
    return call.dtypes[1].is_floating_point and call.traits.links == ("softmax",)


def _class_remedy(call: LossCall, index_shape: Shape) -> str:
    raw, target = call.shapes
    for axis in range(1, len(raw)):
        if axis != call.axis and raw[:axis] + raw[axis + 1 :] == target:
            return f"The classes are on axis {axis}, it seems: give {call.label} raw.movedim({axis}, {call.axis})."
    if target[:1] != raw[:1]:
        return _as_many(raw, target)
    return f"Give {call.label} a target of shape {index_shape}."


def _numbers(call: LossCall, *, failed: bool) -> Iterator[Finding]:
    """A loss that compares number by number."""
    raw, target = call.shapes
    kind = call.dtypes[1]
    whole = not kind.is_floating_point
    if raw == target:
        if failed and kind != call.dtypes[0]:
            yield _form(
                call,
                f"it is {kind}, and {call.label} takes what the prediction is, {call.dtypes[0]}",
                f"Give {call.label} target.to({call.dtypes[0]}).",
            )
        variance = call.places.get("var") or call.places.get(2)
        if failed and call.label == "gaussian_nll_loss" and variance is not None and variance[0].shape != raw:
            yield SHAPE_MISMATCH.found(
                "the variance",
                f"{call.label} got a prediction of shape {raw} and a variance of shape {tuple(variance[0].shape)}.",
                fix="Give the variance the prediction's shape.",
            )
        return
    together = _broadcast(raw, target)
    if not failed and together is not None and _count(together) == _count(raw) >= _count(target):
        return  # One number, or one row, for all.
    if whole and target == raw[:-1] and raw[-1] > 1:
        yield _form(
            call,
            f"it is one index per sample, and {call.label} compares each of the {raw[-1]} outputs with a number",
            f"For classes take cross_entropy, or give {call.label} one_hot(target, {raw[-1]}).float().",
        )
        return
    yield _shape(call, raw, _remedy(raw, target), together=None if failed else together)


def _remedy(raw: Shape, target: Shape) -> str:
    if raw == (*target, 1):
        return f"Give the loss target.unsqueeze({len(target)}), or the prediction as raw.squeeze({len(target)})."
    if target == (*raw, 1):
        return f"Give the loss target.squeeze({len(raw)}), or the prediction as raw.unsqueeze({len(raw)})."
    if raw[:1] != target[:1]:
        return _as_many(raw, target)
    return f"Give the last layer outputs of the target's shape, {target[1:]} per sample."


def _as_many(raw: Shape, target: Shape) -> str:
    samples = target[0] if target else 0
    return f"Prediction and target have {raw[0]} and {samples} samples: give the loss as many of both."


def _form(call: LossCall, found: str, fix: str) -> Finding:
    raw, target = call.shapes
    return ONE_HOT_INTO_INDEX_LOSS.found(
        "the target", f"The target has shape {target}, the prediction {raw}: {found}.", fix=fix
    )


def _shape(call: LossCall, expected: Shape, fix: str, *, together: Shape | None = None) -> Finding:
    raw, target = call.shapes
    evidence = f"{call.label} got a prediction of shape {raw} and a target of shape {target}; it takes {expected}"
    if together is not None:
        evidence += f". They broadcast to {together}, and {_pairs(raw, target, together)}"
    return SHAPE_MISMATCH.found("the target", f"{evidence}.", fix=fix, numbers={"compared": _count(together or ())})


def _pairs(raw: Shape, target: Shape, together: Shape) -> str:
    if _count(together) > max(_count(raw), _count(target)):
        return f"all {_count(raw)} predictions are compared with all {_count(target)} targets"
    return f"each of {_count(raw)} predictions is compared with several targets"


def _own_comparisons(subject: Subject) -> Iterator[Finding]:
    """The same in a loss of the user's own: a difference of prediction and target that has more numbers than both."""
    target = subject.target
    if target is None or target.numel() < 2:
        return
    for operation in subject.training_pass.of_loss:
        if operation.name in _COMPARES and operation.output is not None:
            shapes = _compared(operation, target)
            if shapes is not None and operation.output.numel() > target.numel():
                raw, other = shapes
                yield SHAPE_MISMATCH.found(
                    "the target",
                    f"{operation.label} takes a prediction of shape {raw} and a target of shape {other}: they "
                    f"broadcast to {tuple(operation.output.shape)}, and every prediction meets every target.",
                    numbers={"compared": operation.output.numel()},
                    fix=_remedy(raw, other),
                )
                return


def _compared(operation: Operation, target: Tensor) -> tuple[Shape, Shape] | None:
    """The shapes of a prediction and the target, if these are what the operation is given, one number per sample."""
    given = [(tensor, parent) for _, tensor, parent in tensor_arguments(operation)]
    if len(given) != 2 or any(tensor.numel() != target.numel() for tensor, _ in given):
        return None
    ours = [from_the_network(parent) for _, parent in given]
    if ours == [True, False]:
        (raw, _), (other, _) = given
    elif ours == [False, True]:
        (other, _), (raw, _) = given
    else:
        return None
    return (tuple(raw.shape), tuple(other.shape)) if same_numbers(other, target) else None


def _what_our_own_losses_refused(subject: Subject) -> Iterator[Finding]:
    """An error of this library's about shapes or kinds: it names what was given, and the fix."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage != "loss" or not isinstance(failure.error, ShapeError | KindError):
        return
    said, _, fix = str(failure.error).partition("Fix: ")
    if not fix:
        return
    of_form = isinstance(failure.error, KindError) or "one-hot" in fix
    fault = ONE_HOT_INTO_INDEX_LOSS if of_form else SHAPE_MISMATCH
    yield fault.found("the target", said.strip(), fix=f"As the loss says: {fix}")


def _broadcast(first: Shape, second: Shape) -> Shape | None:
    try:
        return tuple(torch.broadcast_shapes(first, second))
    except RuntimeError:
        return None


def _count(shape: Shape) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


FAULTS: tuple[Fault, ...] = (ONE_HOT_INTO_INDEX_LOSS, SHAPE_MISMATCH)
CHECKS: tuple[Check, ...] = (target_forms,)
