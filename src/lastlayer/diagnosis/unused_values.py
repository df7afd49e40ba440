"""Values that are computed and then used by nothing: the activation whose result is dropped."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from torch import nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.forward_source import Call, Discarded, ForwardSource, forward_sources, method_sources
from lastlayer.diagnosis.operation import ACTIVATION, DROPOUT, LINK, NORMALIZATION, Operation
from lastlayer.diagnosis.subject import Subject

VALUE_NEVER_USED = Fault(
    name="value_never_used",
    title="a value that nothing uses",
    severity="error",
    why="A result that is neither used nor returned changes nothing: without its ReLU, a stack of layers is one linear "
    "map, and without its dropout or normalization it trains as if there were none.",
    fix="Pass the result on where its input is passed on now, or delete the call.",
    reference="SPEC D9",
)

# Calls that are made for their value alone. Others may be made for a shape, a check, a side effect.
_DELIBERATE = ("activation", "normalization", "dropout", "link", "weight")
_FUNCTIONS = ACTIVATION | NORMALIZATION | DROPOUT | LINK


def value_never_used(subject: Subject) -> Iterator[Finding]:
    """Operations whose output nothing took; where the forward pass broke off, calls whose result nothing reads."""
    ran = subject.training_pass
    if ran.failure is not None and ran.failure.stage == "forward":
        for name, source in forward_sources(subject.network):
            for discarded in source.discarded:
                if _is_for_its_value(discarded.call):
                    yield _of_source(name, source, discarded)
        return
    custom = any(operation.inferred for operation in ran.of_network)
    for operation in ran.of_network:
        if _is_watched(subject.network, operation):
            continue
        if is_lost(operation) and operation.requires_grad and operation.role not in _DELIBERATE:
            # Any other call may be made for a check or a shape; if its line drops the result, it is for nothing.
            written, lost = _written(subject.network, operation)
            if written is not None and lost is not None:
                yield _of_line(operation, written, lost, "warning")
            continue
        if not is_never_used(operation):
            continue
        if custom and not operation.requires_grad:
            continue  # It may have run inside of a custom function, and wait for its backward.
        if not _is_used_in_evaluation(subject, operation):
            yield _of_operation(subject.network, operation, ran.of_network)


def is_lost(operation: Operation) -> bool:
    """Whether nothing took the output, read it, returned it, or holds it."""
    taken = operation.children or operation.returned or operation.kept or operation.looked_at or operation.in_place
    return not taken and not operation.within_loss and _is_real(operation)


def is_never_used(operation: Operation) -> bool:
    """Whether it is lost, and its call was made for its value alone."""
    return is_lost(operation) and operation.role in _DELIBERATE


def leads_nowhere(operation: Operation) -> bool:
    """Whether all that comes of it ends in values that are never used."""
    waiting, seen = [operation], {operation.index}
    while waiting:
        here = waiting.pop()
        if here.returned or here.kept or here.looked_at or here.within_loss:
            return False
        if not here.children and not is_never_used(here):
            return False
        waiting += [child for child in here.children if child.index not in seen]
        seen.update(child.index for child in here.children)
    return True


def _is_real(operation: Operation) -> bool:
    return operation.output is not None and operation.output.is_floating_point() and not operation.inferred


def _is_watched(network: nn.Module, operation: Operation) -> bool:
    """Whether a hook of the user's, which the copy has not, may be what the call is for."""
    modules = dict(network.named_modules())
    path = operation.module.split(".") if operation.module else []
    around = [modules.get(".".join(path[:depth])) for depth in range(len(path) + 1)]
    return any(module is not None and bool(module._forward_hooks) for module in around)


def _is_used_in_evaluation(subject: Subject, operation: Operation) -> bool:
    """Whether the same call's result is used in evaluation mode: probabilities that are returned only then."""
    if operation.role == "dropout":
        return False  # In evaluation it returns the very tensor that it takes.

    def alike(operations: Sequence[Operation]) -> list[Operation]:
        return [one for one in operations if (one.name, one.module) == (operation.name, operation.module)]

    training, evaluation = alike(subject.training_pass.of_network), alike(subject.evaluation_pass.of_network)
    if len(training) != len(evaluation):
        return any(not is_never_used(one) for one in evaluation)
    return not is_never_used(evaluation[training.index(operation)])


def _of_operation(network: nn.Module, operation: Operation, operations: list[Operation]) -> Finding:
    source, discarded = _written(network, operation)
    # A layer that is used elsewhere: the last round of a loop, a branch that is not taken this time.
    sometimes = bool(operation.module) and any(
        other.module == operation.module and other.name == operation.name and not is_never_used(other)
        for other in operations
    )
    # Where the source does something with the result, there is a case in which it is used.
    sometimes = sometimes or (source is not None and discarded is None)
    severity: Severity = "note" if sometimes else "warning" if operation.role == "weight" else "error"
    if source is not None and discarded is not None:
        return _of_line(operation, source, discarded, severity)
    effect = "" if operation.role == "weight" else f" The network computes as if there were no {operation.name}."
    evidence = f"Nothing takes what it computes, and the network does not return it.{effect}"
    return VALUE_NEVER_USED.found(operation.label, evidence, severity=severity)


def _of_line(operation: Operation, source: ForwardSource, discarded: Discarded, severity: Severity) -> Finding:
    return VALUE_NEVER_USED.found(
        operation.label, _sentence(source, discarded), fix=_fix(source, discarded), severity=severity
    )


def _of_source(name: str, source: ForwardSource, discarded: Discarded) -> Finding:
    where = f"{discarded.call.name} in " + (f"layer '{name}' ({source.name})" if name else f"{source.name}'s forward")
    weighs = discarded.call.module is not None and _role_of(discarded.call.module) == "weight"
    return VALUE_NEVER_USED.found(
        where,
        _sentence(source, discarded),
        fix=_fix(source, discarded),
        severity="warning" if weighs else "error",
    )


def _sentence(source: ForwardSource, discarded: Discarded) -> str:
    place = source.place(discarded.call.line)
    result = f"the result of {discarded.call.written}"
    if discarded.variable is None:
        return f"In {place} {result} is assigned to nothing, and it does not work in place."
    return f"In {place} {result} is assigned to {discarded.variable}, which is read nowhere and not returned."


def _fix(source: ForwardSource, discarded: Discarded) -> str:
    result = discarded.variable or "its result"
    if discarded.instead is None:
        return f"Use {result}, or delete line {discarded.call.line}."
    written, line = discarded.instead
    return f"Use {result} in line {line} ({written}), or delete line {discarded.call.line}."


def _written(network: nn.Module, operation: Operation) -> tuple[ForwardSource | None, Discarded | None]:
    """Where an operation is written down, if its call is one whose result is read nowhere.

    Returns:
        The source of that method, and the call; a source alone, where it has the call and does something with it.
    """
    modules = dict(network.named_modules())
    read: ForwardSource | None = None
    # The call stands in a method of the module it ran in, or, of a layer of PyTorch's, of one that holds it.
    path = operation.module
    while True:
        for source in method_sources(modules[path]) if path in modules else ():
            calls = [
                call
                for call in source.calls
                if (call.module is not None and call.module is modules.get(operation.module))
                or (call.module is None and path == operation.module and call.name.rstrip("_") == operation.name)
            ]
            read = read or (source if calls else None)
            for discarded in source.discarded:
                operator = not isinstance(discarded.call.node, ast.Call) and path == operation.module
                if any(discarded.call.node is call.node for call in calls) or (
                    operator and discarded.call.name == operation.name
                ):
                    return source, discarded
        if not path:
            return read, None
        path = path.rpartition(".")[0]


def _is_for_its_value(call: Call) -> bool:
    if not isinstance(call.node, ast.Call):
        return False
    if call.module is not None:
        return _role_of(call.module) is not None and not getattr(call.module, "inplace", False)
    in_place = any(keyword.arg == "inplace" for keyword in call.keywords) or call.name.endswith("_")
    return call.name in _FUNCTIONS and not in_place and (call.functional or call.owner == "torch" or not call.arguments)


def _role_of(module: nn.Module) -> str | None:
    """What a layer of PyTorch's is for; ``None`` of any other module, whose call may have effects beside its value."""
    home = type(module).__module__
    if home.startswith("torch.nn.modules.") or home == "lastlayer.networks.linear":
        for part in ("activation", "batchnorm", "normalization", "instancenorm", "dropout"):
            if home.endswith(part):
                return part
        if home.endswith(("linear", "conv", "rnn", "sparse")) and not isinstance(module, nn.Identity):
            return "weight"
    return "activation" if home.startswith("lastlayer.activations") else None


FAULTS: tuple[Fault, ...] = (VALUE_NEVER_USED,)
CHECKS: tuple[Check, ...] = (value_never_used,)
