"""What the optimizer holds: parameters of this network, all of them, and none whose decay does harm."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.parameters import grouped, listed, together
from lastlayer.diagnosis.subject import Subject

PARAMETER_NOT_OPTIMIZED = Fault(
    name="parameter_not_optimized",
    title="a parameter that no optimizer moves",
    severity="warning",
    why="It gets a gradient and is never changed by it: the optimizer was made from other parameters, or before the "
    "layer was put in.",
    fix="Make the optimizer from network.parameters(), after the network is complete.",
    reference="torch.optim, constructing it",
)
DECAY_ON_SLOPES = Fault(
    name="decay_on_slopes",
    title="weight decay on the slopes of a PReLU",
    severity="warning",
    why="Decay draws a slope toward 0, and a PReLU whose slope is 0 is a ReLU: what was to be learned is undone.",
    fix="Put slopes into a group of their own with weight_decay=0; "
    "lastlayer.regularization.parameters_to_penalize(network) says which parameters are to decay.",
    reference="SPEC C2; K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers (ICCV 2015), section 2.1",
)

_PRELU = re.compile(r"prelu$", re.IGNORECASE)


def parameter_not_optimized(subject: Subject) -> Iterator[Finding]:
    """Parameters that get a gradient, and are in no group of the optimizer."""
    if subject.optimizer is None:
        return
    own = {name: one for name, one in subject.network.named_parameters() if one.requires_grad}
    held = {id(one): one for group in subject.optimizer.param_groups for one in group["params"]}
    missing = {name for name, one in own.items() if id(one) not in held} & _with_gradient(subject, set(own))
    of_loss = {id(one) for one in subject.loss.parameters()} if isinstance(subject.loss, nn.Module) else set()
    everything = {id(one) for one in subject.network.parameters()} | of_loss
    foreign = [one for key, one in held.items() if key not in everything]
    if not missing:
        return
    kind = type(subject.optimizer).__name__
    numbers = {"missing": len(missing), "parameters": len(own), "foreign": len(foreign)}
    if len(missing) == len(own) and not any(id(one) in held for one in own.values()):
        alike = _shapes(foreign) == _shapes(list(own.values()))
        evidence = f"{kind} holds {len(held)} parameters, and none of this network's {len(own)}: no step moves it."
        if alike:
            evidence += " They have the shapes of this network's: it was made from another one, or a copy of this one."
        yield PARAMETER_NOT_OPTIMIZED.found("the optimizer", evidence, numbers=numbers, severity="error")
        return
    # As many strangers as are missing: the layer was put in after the optimizer had been made.
    replaced = bool(foreign) and len(foreign) == len(missing)
    places = [where for where, _, _ in grouped(subject.network, missing, set(own))]
    names = [name for name in own if name in missing]
    evidence = f"{kind} does not hold {listed(names)}, which {'gets' if len(names) == 1 else 'get'} a gradient."
    if replaced:
        evidence += f" It holds {len(foreign)} that are none of this network's: a layer was replaced later."
    yield PARAMETER_NOT_OPTIMIZED.found(
        together(places),
        evidence,
        numbers=numbers,
        fix=None if replaced else "Add them to the optimizer; if they are not to learn, requires_grad_(False) says so.",
        severity="error" if replaced else None,
    )


def decay_on_slopes(subject: Subject) -> Iterator[Finding]:
    """Slopes of PReLUs in a group that decays."""
    if subject.optimizer is None:
        return
    decays = {
        id(one): float(group["weight_decay"])
        for group in subject.optimizer.param_groups
        if float(group.get("weight_decay") or 0.0) > 0
        for one in group["params"]
    }
    places, names, strengths = [], [], []
    for path, module in subject.network.named_modules():
        if not any(_PRELU.search(kind.__name__) for kind in type(module).__mro__):
            continue
        for name, slope in module.named_parameters(recurse=False):
            if id(slope) in decays and slope.requires_grad:
                places.append(f"layer '{path}' ({type(module).__name__})")
                names.append(f"{path}.{name}".removeprefix("."))
                strengths.append(decays[id(slope)])
    if names:
        is_are = "is in a group" if len(names) == 1 else "are in groups"
        yield DECAY_ON_SLOPES.found(
            together(places),
            f"{listed(names)} {is_are} of {type(subject.optimizer).__name__} with weight_decay={max(strengths):g}.",
            numbers={"weight_decay": max(strengths), "slopes": len(names)},
        )


def _with_gradient(subject: Subject, names: set[str]) -> set[str]:
    """Those that a step could move; all of them, where no step can be made yet."""
    ran = subject.training_pass
    if ran.failure is not None or ran.value is None:
        return names
    return {name for name, one in ran.network.named_parameters() if name in names and one.grad is not None}


def _shapes(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return sorted(tuple(tensor.shape) for tensor in tensors)


FAULTS: tuple[Fault, ...] = (PARAMETER_NOT_OPTIMIZED, DECAY_ON_SLOPES)
CHECKS: tuple[Check, ...] = (parameter_not_optimized, decay_on_slopes)
