"""One training step: forward, head, loss, backward, step."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lastlayer.heads import Head
from lastlayer.training.optimizers import update
from lastlayer.training.rows import Rows


class WritesBackward(Protocol):
    """A network that can run forward and back by itself, faster than autograd; ``networks.TabularNetwork`` is one."""

    @property
    def writes_backward(self) -> bool: ...
    def record(self, features: Tensor) -> tuple[Tensor, Any]: ...
    def backpropagate(self, tape: Any, gradient: Tensor) -> None: ...


def step(network: nn.Module, head: Head, optimizer: Optimizer, batch: Rows) -> Tensor:
    """Moves the parameters once and returns the batch's mean loss, still on its device.

    The loss is not a node of the autograd graph: the head gives its gradient with respect to the raw output in closed
    form, and backward starts from there. Any module that maps features to ``(n, head.raw_size)`` trains; one with
    ``members`` maps them to ``(members, n, head.raw_size)``, and each of its members takes the step of its own loss.
    """
    if getattr(network, "writes_backward", False) and not torch.is_autocast_enabled():
        written_out = cast(WritesBackward, network)
        raw, tape = written_out.record(batch.features)
        loss, gradient = _loss_and_gradient(network, head, raw, batch)
        written_out.backpropagate(tape, gradient)
    else:
        raw = network(batch.features)
        loss, gradient = _loss_and_gradient(network, head, raw, batch)
        for group in optimizer.param_groups:
            # As optimizer.zero_grad does, but for its profiler hook, which costs as much as the loss.
            for parameter in group["params"]:
                parameter.grad = None
        raw.backward(gradient)
    update(optimizer)
    return loss


def _loss_and_gradient(network: nn.Module, head: Head, raw: Tensor, batch: Rows) -> tuple[Tensor, Tensor]:
    """The mean loss over rows, and over members if there are any; the gradient of the sum over independent ones."""
    members = getattr(network, "members", None)
    if members is None:
        return head.loss_and_gradient(raw, batch.target, sample_weight=batch.weight)
    target = batch.target.expand(members, *batch.target.shape)
    # Members that share weights move them together, each by its part.
    factor = float(members) if getattr(network, "members_are_independent", True) else 1.0
    if batch.weight is None:
        return head.loss_and_gradient(raw, target, factor=factor)
    # Each member's weights add up to 1 whatever the others' are.
    weight = batch.weight.t() if batch.weight.dim() == 2 else batch.weight.expand(members, len(batch))
    share = weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return head.loss_and_gradient(raw, target, sample_weight=share, normalizer=float(members), factor=factor)
