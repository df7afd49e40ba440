"""Layers and weights in a plain list or dictionary, which a module does not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.optimized import PARAMETER_NOT_OPTIMIZED
from lastlayer.diagnosis.parameters import listed
from lastlayer.diagnosis.subject import Subject


def unregistered_parameters(subject: Subject) -> Iterator[Finding]:
    """Parameters that the network holds, and that ``parameters()`` does not give."""
    known = {id(parameter) for parameter in subject.network.parameters()}
    groups = [] if subject.optimizer is None else subject.optimizer.param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    for path, module in subject.network.named_modules():
        for attribute, container in vars(module).items():
            if attribute.startswith("_") or not isinstance(container, list | tuple | dict):
                continue
            hidden = {
                name: parameter
                for name, parameter in _parameters_in(attribute, container)
                if id(parameter) not in known and id(parameter) not in held and parameter.requires_grad
            }
            if hidden:
                yield _finding(path, module, attribute, container, list(hidden))


def _parameters_in(name: str, container: Any) -> Iterator[tuple[str, nn.Parameter]]:
    entries = container.items() if isinstance(container, Mapping) else enumerate(container)
    for key, entry in entries:
        if isinstance(entry, nn.Parameter):
            yield f"{name}[{key!r}]", entry
        elif isinstance(entry, nn.Module):
            for own, parameter in entry.named_parameters():
                yield f"{name}[{key!r}].{own}", parameter


def _finding(path: str, module: nn.Module, attribute: str, container: Any, names: list[str]) -> Finding:
    kind = type(container).__name__
    of_modules = any(
        isinstance(entry, nn.Module) for entry in (container.values() if isinstance(container, dict) else container)
    )
    mend = ("nn.Module" if of_modules else "nn.Parameter") + ("Dict" if isinstance(container, dict) else "List")
    where = f"layer '{path}' ({type(module).__name__})" if path else type(module).__name__
    return PARAMETER_NOT_OPTIMIZED.found(
        f"self.{attribute} of {where}",
        f"It is a plain {kind}, so that network.parameters() does not give {listed(names)}: no optimizer made from it "
        f"moves them, .to(device) leaves them behind, and they are not saved.",
        numbers={"missing": len(names)},
        fix=f"Write self.{attribute} = {mend}(...).",
        severity="error",
    )


FAULTS: tuple[Fault, ...] = ()
CHECKS: tuple[Check, ...] = (unregistered_parameters,)
