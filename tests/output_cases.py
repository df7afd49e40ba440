"""Networks, targets and losses that the tests of the doctor's questions about the last layer share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis import (
    class_axis,
    logarithms,
    output_and_loss,
    output_range,
    scale,
    slowdown,
    target_form,
    targets,
)
from lastlayer.diagnosis.examination import CHECK_FAILED, examine
from lastlayer.diagnosis.finding import Finding, Findings

QUESTIONS = (output_and_loss, output_range, logarithms, scale, class_axis, slowdown, targets, target_form)
CHECKS = tuple(check for question in QUESTIONS for check in question.CHECKS)

ROWS, CLASSES = 48, 4
_generator = torch.Generator().manual_seed(0)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator)


X = _normal(ROWS, 6)
INDEX = torch.arange(ROWS) % CLASSES
ONE_HOT = torch.nn.functional.one_hot(INDEX, CLASSES).float()
BINARY = (torch.arange(ROWS) % 2).float()
REAL = _normal(ROWS)
SHARE = torch.rand(ROWS, generator=_generator)
COUNT = torch.poisson(torch.full((ROWS,), 2.0), generator=_generator)
IMAGES = _normal(6, 3, 5, 5)
PIXELS = torch.arange(150).reshape(6, 5, 5) % CLASSES


class Ends(nn.Module):
    """A network whose own forward ends in a function."""

    def __init__(self, outputs: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.function = mlp(outputs), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


def mlp(outputs: int, *last: nn.Module) -> nn.Sequential:
    """Two linear layers, the same ones every time, and what comes last."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs), *last)


def column(outputs: int, *last: nn.Module) -> nn.Sequential:
    """The same with a flat output: one number per row."""
    return mlp(outputs, *last, nn.Flatten(0))


def softmax_by_hand(raw: Tensor) -> Tensor:
    powers = raw.exp()
    return powers / powers.sum(-1, keepdim=True)


def sigmoid_by_hand(raw: Tensor) -> Tensor:
    return (1 / (1 + torch.exp(-raw))).squeeze(-1)


class OwnSigmoid(torch.autograd.Function):
    """What no trace sees the inside of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        p = torch.sigmoid(x)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (p,) = ctx.saved_tensors
        return gradient * p * (1 - p)


def own_sigmoid(raw: Tensor) -> Tensor:
    result: Tensor = OwnSigmoid.apply(raw)
    return result.squeeze(-1)


class Members(nn.Module):
    """Three networks side by side, on a leading axis."""

    def __init__(self, outputs: int, link: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList([mlp(outputs, link) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members])


def findings_of(network: nn.Module, loss: Any, features: Any = X, target: Tensor | None = INDEX) -> Findings:
    """All that these questions find; none of them may break down."""
    findings = examine(CHECKS, network, loss, (features, target))
    assert CHECK_FAILED.name not in findings.names, str(findings)
    return findings


def loud(findings: Findings) -> list[str]:
    """The names of what is more than a note."""
    return [finding.name for finding in findings if finding.severity != "note"]


def the_one(findings: Findings, name: str) -> Finding:
    """The only finding of that name that is more than a note."""
    found = [finding for finding in findings if finding.name == name and finding.severity != "note"]
    assert len(found) == 1, str(findings)
    return found[0]
