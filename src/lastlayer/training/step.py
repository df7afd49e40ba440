"""One training step: forward, head, loss, backward, step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from lastlayer.heads import Head
from lastlayer.training.rows import Rows


def step(network: nn.Module, head: Head, optimizer: Optimizer, batch: Rows) -> Tensor:
    """Moves the parameters once and returns the batch's mean loss, still on its device.

    The loss is not a node of the autograd graph: the head gives its gradient with respect to the raw output in closed
    form, and backward starts from there. Any module that maps features to ``(n, head.raw_size)`` trains.
    """
    raw = network(batch.features)
    loss, gradient = head.loss_and_gradient(raw, batch.target, sample_weight=batch.weight)
    for group in optimizer.param_groups:
        # As optimizer.zero_grad does, but for its profiler hook, which costs as much as the loss.
        for parameter in group["params"]:
            parameter.grad = None
    raw.backward(gradient)
    optimizer.step()
    return loss
