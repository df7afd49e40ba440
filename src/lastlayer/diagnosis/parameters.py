"""Parameters that do not learn: unused, cut off, frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import kstest
from torch import nn
from torch.nn.parameter import UninitializedParameter

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import Pass, Subject
from lastlayer.diagnosis.unused_values import leads_nowhere

UNUSED_PARAMETER = Fault(
    name="unused_parameter",
    title="a parameter that the loss does not depend on",
    severity="warning",
    why="Its gradient is None: it stays as it was initialized, and a layer that should learn does not.",
    fix="Use it in forward, let its gradient through, or remove it.",
    reference="torch.nn.parallel.DistributedDataParallel, find_unused_parameters",
)
FROZEN_PARAMETER = Fault(
    name="frozen_parameter",
    title="a parameter that is kept from learning",
    severity="warning",
    why="With requires_grad=False it keeps its initial value for good. Of a body trained before that is meant; in the "
    "middle of layers that learn it is usually left over.",
    fix="If it is to learn: requires_grad_(True), before the optimizer is made.",
    reference="torch.nn.Module.requires_grad_",
)

# Where so much of the network is frozen, what learns between is meant: adapters, of a few percent of the weights.
_MOST = 0.9
# So many weights show whether they are uniform, and a test of it that those that are fail once in a thousand times.
_ENOUGH = 64
_LIKELY = 1e-3


def unused_parameter(subject: Subject) -> Iterator[Finding]:
    """Parameters that require a gradient and got none."""
    ran = subject.training_pass
    if ran.failure is not None or ran.value is None:
        return
    learning = _learning(ran.network)
    if not learning:
        return
    unused = {name for name, parameter in learning.items() if parameter.grad is None}
    if len(unused) == len(learning):
        yield UNUSED_PARAMETER.found(
            "the whole network",
            f"The loss depends on none of its {len(learning)} parameters: not one gets a gradient.{_why_none(ran)}",
            numbers={"unused": len(unused), "parameters": len(learning)},
            fix="Compute the loss from the network's own output with differentiable operations alone: no detach(), "
            ".item(), NumPy, no_grad() or argmax on the way.",
            severity="error",
        )
        return
    told: dict[_Reason, list[tuple[str, tuple[str, ...]]]] = {}
    for where, path, names in grouped(ran.network, unused, set(learning)):
        reason = _reason(subject, ran, path, names)
        if reason is not None:
            told.setdefault(reason, []).append((where, names))
    for reason, places in told.items():
        names = tuple(name for _, own in places for name in own)
        yield UNUSED_PARAMETER.found(
            together([where for where, _ in places]),
            reason.evidence.replace("{}", listed(names)),
            numbers={"unused": len(names), "parameters": len(learning)},
            fix=reason.fix,
            severity=reason.severity,
        )


def frozen_parameter(subject: Subject) -> Iterator[Finding]:
    """Parameters that require no gradient: all of them, some at one end, or some in the middle."""
    parameters = dict(subject.network.named_parameters())
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    if not frozen:
        return
    if len(frozen) == len(parameters):
        yield FROZEN_PARAMETER.found(
            "the whole network",
            f"All of its {len(parameters)} parameters have requires_grad=False: nothing can learn.",
            numbers={"frozen": len(frozen), "parameters": len(parameters)},
            severity="error",
        )
        return
    between = _between_learning_ones(subject.training_pass, frozen)
    sizes = {name: _size(parameter) for name, parameter in parameters.items()}
    share = sum(sizes[name] for name in frozen) / max(1, sum(sizes.values()))
    told: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for where, _, names in grouped(subject.network, frozen, set(parameters)):
        among = "between layers that learn" if between & set(names) and share < _MOST else "while others learn"
        if any(is_as_drawn(parameters[name]) for name in names):
            among += ", and as PyTorch drew them: nothing was learned in them before"
        told.setdefault(among, []).append((where, names))
    for among, places in told.items():
        names = tuple(name for _, own in places for name in own)
        held = sum(sizes[name] for name in names) / max(1, sum(sizes.values()))
        yield FROZEN_PARAMETER.found(
            together([where for where, _ in places]),
            f"{listed(names)}, {held:.0%} of all weights, {_have(names)} requires_grad=False, {among}.",
            numbers={"frozen": len(names), "share": held},
            severity="note" if among == "while others learn" else "warning",
        )


def is_as_drawn(parameter: nn.Parameter) -> bool:
    """Whether a weight matrix or a stack of filters is still what PyTorch's layers start from.

    That is uniform between ±1/√(inputs of a unit), which nothing that has learned is.
    """
    if parameter.dim() < 2 or isinstance(parameter, UninitializedParameter) or parameter.numel() < _ENOUGH:
        return False
    bound = parameter[0].numel() ** -0.5
    values = parameter.detach().double().flatten().cpu() / bound
    if bool(values.abs().max() > 1 + 1e-6):
        return False
    return float(kstest(values.numpy(), "uniform", args=(-1.0, 2.0)).pvalue) > _LIKELY


def grouped(network: nn.Module, chosen: set[str], among: set[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Parameters by the largest modules of which all are chosen: how a finding names it, its path, its parameters.

    Args:
        chosen: the names of those that are meant.
        among: the names of those that count.
    """
    left = set(chosen)
    for path, module in network.named_modules():
        own = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
        counted = [name for name in own if name in among]
        if path and counted and set(counted) <= left:
            left -= set(counted)
            yield f"layer '{path}' ({type(module).__name__})", path, tuple(counted)
    for name in sorted(left, key=list(dict(network.named_parameters())).index):
        yield f"parameter '{name}'", name.rpartition(".")[0], (name,)


@dataclass(frozen=True)
class _Reason:
    """Why parameters get no gradient; the evidence has ``{}`` for their names."""

    evidence: str
    fix: str
    severity: Severity


def _reason(subject: Subject, ran: Pass, path: str, names: tuple[str, ...]) -> _Reason | None:
    used = [operation for operation in ran.operations if set(operation.parameters) & set(names)]
    if any("requires_grad=True. Gradients will be None" in warning for warning in ran.warnings):
        return _Reason(
            "{} took part under a reentrant checkpoint none of whose inputs requires a gradient, and get none.",
            "Use torch.utils.checkpoint.checkpoint(..., use_reentrant=False).",
            "warning",
        )
    if not used:
        # One of several alike, as an expert that no row was sent to; out of sight; or left out by chance in training.
        maybe = _has_used_sibling(ran, path) or _is_inside_unseen(ran.network, path)
        maybe = maybe or any(set(one.parameters) & set(names) for one in subject.evaluation_pass.of_network)
        evidence = "Nothing in this batch's forward pass uses {}."
        return _Reason(evidence, "Use it in forward, or remove it from the network.", "note" if maybe else "warning")
    if all(leads_nowhere(operation) for operation in used):
        return None  # Its value is never used: that is told with the call.
    if any(operation.returned for operation in _descendants(used)) and not _reaches_loss(used):
        evidence = "What comes of {} is returned, and the loss makes no use of it."
        return _Reason(evidence, "Give the loss that output as well, or leave the layer out.", "note")
    kept_out = subject.optimizer is not None and not _held(subject, names)
    return _Reason(
        "{} took part in the forward pass, and no gradient comes back" + _cut(used) + ".",
        "Let the gradient through; if that is meant, set requires_grad_(False) and keep it out of the optimizer.",
        "note" if kept_out else "warning",
    )


def _learning(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def _why_none(ran: Pass) -> str:
    """As an evidence goes on."""
    returned = [operation for operation in ran.of_network if operation.returned]
    if returned and not any(operation.children for operation in returned):
        return " The loss does not use what the network returns."
    read = [operation for operation in ran.of_loss if operation.requires_grad and operation.looked_at]
    if read:
        return f" The value of {read[0].label} is read as a plain number, which leaves the graph."
    cut = _cut([operation for operation in ran.of_network if operation.parameters])
    return f" The gradient has no way back{cut}." if cut else ""


def _descendants(operations: Iterable[Operation]) -> list[Operation]:
    """The operations and all that depend on them."""
    found: dict[int, Operation] = {}
    waiting = list(operations)
    while waiting:
        operation = waiting.pop()
        if operation.index not in found:
            found[operation.index] = operation
            waiting += operation.children
    return [found[index] for index in sorted(found)]


def _reaches_loss(operations: Iterable[Operation]) -> bool:
    return any(operation.within_loss for operation in _descendants(operations))


def _cut(operations: Sequence[Operation]) -> str:
    """Where the gradient ends, as a sentence goes on; ``""`` if that cannot be told."""
    if operations and not any(operation.requires_grad for operation in operations):
        return ": it ran under torch.no_grad()"
    for operation in _descendants(operations):
        followed = any(parent is not None and parent.requires_grad for parent in operation.parents)
        if followed and not operation.requires_grad:
            return f": it ends at {operation.label}"
    return ""


def _has_used_sibling(ran: Pass, path: str) -> bool:
    """Whether a module of the same class in the same list was used."""
    parent, _, _ = path.rpartition(".")
    modules = dict(ran.network.named_modules())
    holder = modules.get(parent)
    if not isinstance(holder, nn.ModuleList | nn.ModuleDict) or path not in modules:
        return False
    alike = {f"{parent}.{name}" for name, child in holder.named_children() if type(child) is type(modules[path])}
    ran_in = {f"{operation.module}." for operation in ran.of_network}
    return any(place.startswith(f"{one}.") for one in alike - {path} for place in ran_in)


def _is_inside_unseen(network: nn.Module, path: str) -> bool:
    """Whether it belongs to a module whose operations are not seen."""
    names = path.split(".")
    modules = dict(network.named_modules())
    above = [modules.get(".".join(names[:depth])) for depth in range(len(names) + 1)]
    return any(hasattr(module, "_c") for module in above)  # A scripted one.


def _held(subject: Subject, names: Sequence[str]) -> bool:
    """Whether the optimizer has one of these parameters."""
    parameters = dict(subject.network.named_parameters())
    groups = subject.optimizer.param_groups if subject.optimizer is not None else []
    held = {id(parameter) for group in groups for parameter in group["params"]}
    return any(id(parameters[name]) in held for name in names if name in parameters)


def _between_learning_ones(ran: Pass, frozen: set[str]) -> set[str]:
    """Frozen weights that are used after one layer that learns and before another."""
    of_weights = [operation for operation in ran.of_network if operation.role == "weight" and operation.parameters]
    learning = [operation.index for operation in of_weights if not frozen & set(operation.parameters)]
    if not learning:
        return set()
    return {
        name
        for operation in of_weights
        if min(learning) < operation.index < max(learning)
        for name in frozen & set(operation.parameters)
        if not name.endswith("bias")
    }


def _size(parameter: nn.Parameter) -> int:
    return 0 if isinstance(parameter, UninitializedParameter) else parameter.numel()


def listed(names: Sequence[str]) -> str:
    """Parameters in a sentence."""
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def together(places: Sequence[str]) -> str:
    """Several places in a finding."""
    return ", ".join(places) if len(places) <= 3 else f"{', '.join(places[:3])} and {len(places) - 3} more"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


FAULTS: tuple[Fault, ...] = (UNUSED_PARAMETER, FROZEN_PARAMETER)
CHECKS: tuple[Check, ...] = (unused_parameter, frozen_parameter)
