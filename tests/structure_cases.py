"""What the tests of the doctor's questions about structure share: the questions, and what they are asked of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis import (
    always_dropping,
    batch_norm,
    custom_gradients,
    link_in_source,
    mixed_samples,
    not_a_number,
    optimized,
    parameters,
    shape_errors,
    softmax_axis,
    unregistered,
    unused_values,
)
from lastlayer.diagnosis.examination import Check, examine
from lastlayer.diagnosis.finding import Finding, Findings

MODULES = (
    unused_values, shape_errors, softmax_axis, link_in_source, parameters, optimized, batch_norm, custom_gradients,
    not_a_number, unregistered, always_dropping, mixed_samples,
)  # fmt: skip
CHECKS: tuple[Check, ...] = tuple(check for module in MODULES for check in module.CHECKS)


def found(network: nn.Module, loss: Any, x: Any, y: Any, optimizer: torch.optim.Optimizer | None = None) -> Findings:
    """All that the questions about structure find."""
    findings = examine(CHECKS, network, loss, (x, y), optimizer=optimizer)
    assert "check_failed" not in findings.names, str(findings)
    return findings


def only(findings: Findings, name: str, severity: str | None = None) -> Finding:
    """The one finding there is, by its name."""
    assert findings.names == [name], str(findings)
    (finding,) = findings
    assert severity is None or finding.severity == severity, str(finding)
    return finding


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def classes(rows: int, number: int, *more: int) -> Tensor:
    return torch.randint(number, (rows, *more), generator=torch.Generator().manual_seed(1))


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class Forward(nn.Module):
    """A network of some parts and a function of them and the input."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def trained(module: nn.Module) -> nn.Module:
    """The module with weights that are no longer those that PyTorch drew, as if it had learned."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    return module
