"""A softmax that is not told over which axis it is taken."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.forward_source import Call, forward_source, forward_sources
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import Subject

SOFTMAX_WITHOUT_DIMENSION = Fault(
    name="softmax_without_dimension",
    title="a softmax without its axis",
    severity="warning",
    why="Without dim, PyTorch guesses: axis 0, the samples, of a tensor with 1 or 3 axes, and axis 1 of others. What "
    "adds up to 1 then depends on the shape that arrives.",
    fix="Name the axis of the classes: dim=-1, or dim=1 for images as (n, classes, height, width).",
    reference="torch.nn.functional.softmax, whose implicit dim is deprecated; SPEC D9",
)

_FUNCTIONS = ("softmax", "log_softmax", "softmin")
_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Softmin)


def softmax_without_dimension(subject: Subject) -> Iterator[Finding]:
    """Softmaxes that ran without dim; where the forward pass broke off, also those that are written so."""
    ran = subject.training_pass
    modules = dict(subject.network.named_modules())
    told: set[str] = set()
    for operation in ran.operations:
        if operation.name not in _FUNCTIONS or operation.keywords.get("dim", 0) is not None or operation.label in told:
            continue
        told.add(operation.label)
        yield _of_operation(operation, None if operation.within_loss else modules.get(operation.module))
    if ran.failure is None or ran.failure.stage != "forward":
        return
    for name, module in modules.items():
        where = f"layer '{name}' ({type(module).__name__})"
        if isinstance(module, _MODULES) and module.dim is None and where not in told:
            yield SOFTMAX_WITHOUT_DIMENSION.found(where, "It is made without dim, and PyTorch guesses the axis.")
    for name, source in forward_sources(subject.network):
        inside = f"layer '{name}' ({source.name})" if name else f"{source.name}'s forward"
        for call in source.calls:
            if _lacks_dim(call) and f"{call.name} in {inside}" not in told:
                evidence = f"{call.written} in {source.place(call.line)} names no axis, and PyTorch guesses one."
                yield SOFTMAX_WITHOUT_DIMENSION.found(f"{call.name} in {inside}", evidence)


def _of_operation(operation: Operation, module: nn.Module | None) -> Finding:
    axes = 0 if operation.input is None else operation.input.dim()
    shape = "" if operation.input is None else f" {tuple(operation.input.shape)}"
    # As PyTorch guesses.
    guessed = 0 if axes in (0, 1, 3) else 1
    wanted = 1 if axes >= 4 else -1
    source = None if module is None else forward_source(module)
    calls = (
        [] if source is None else [call for call in source.calls if _lacks_dim(call) and call.name == operation.name]
    )
    place = f" ({source.place(calls[0].line)})" if source is not None and calls else ""
    over = f"axis {guessed}{', over the samples' if guessed == 0 and axes > 1 else ''}"
    evidence = f"No dim is given{place}; of the{shape} tensor that arrives PyTorch guesses {over}."
    same = guessed % max(axes, 1) == wanted % max(axes, 1)
    return SOFTMAX_WITHOUT_DIMENSION.found(
        operation.label,
        evidence,
        numbers={"axes": axes, "guessed": guessed},
        fix=f"Name the axis of the classes: {operation.name}(..., dim={wanted}).",
        # Another axis than that of the classes: what adds up to 1 is something else.
        severity="warning" if same else "error",
    )


def _lacks_dim(call: Call) -> bool:
    named = any(keyword.arg in ("dim", None) for keyword in call.keywords)
    return call.name in _FUNCTIONS and call.functional and not named and len(call.arguments) == 1


FAULTS: tuple[Fault, ...] = (SOFTMAX_WITHOUT_DIMENSION,)
CHECKS: tuple[Check, ...] = (softmax_without_dimension,)
