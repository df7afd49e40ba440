"""A chain of layers run forward and back without autograd.

Autograd is right for any module, and costs a node, an allocation and a call per operation; where a network is a chain
of layers that each know their own derivative, it is these few lines. For a small network that is half of a training
step, and for many small networks side by side as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.activations import Activation
from lastlayer.networks.dropout import Dropout
from lastlayer.networks.linear import Linear
from lastlayer.networks.shared_linear import SharedLinear

Tape = list[Any]


def can_be_written_out(layer: nn.Module) -> bool:
    """Whether the layer has ``record`` and ``backpropagate`` that say what autograd would at this moment."""
    if isinstance(layer, Activation):
        # One that learns something, or whose forward is more than its value (a random slope), is autograd's.
        facts = layer.facts
        known = facts.elementwise and facts.parameters is None and type(layer).forward is Activation.forward
    else:
        known = isinstance(layer, (Linear, SharedLinear, Dropout))
    return known and not is_watched(layer)


def is_watched(layer: nn.Module) -> bool:
    """Whether somebody hooked into the layer, or froze or hooked a parameter: only autograd does right by them."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or any(not own.requires_grad or own._backward_hooks for own in layer._parameters.values() if own is not None)
    )


@torch.no_grad()
def record(layers: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, Tape]:
    """The chain's output, and the tape that :func:`backpropagate` reads."""
    tape: Tape = []
    owned = False
    for layer in layers:
        if isinstance(layer, Activation):
            x, saved = layer.record(x, in_place=owned)
        else:
            x, saved = layer.record(x)  # type: ignore[operator]
        # A linear layer's output is nobody else's; an activation's is on the tape.
        owned = isinstance(layer, (Linear, SharedLinear))
        tape.append(saved)
    return x, tape


@torch.no_grad()
def backpropagate(layers: Sequence[nn.Module], tape: Tape, gradient: Tensor) -> None:
    """Sets every parameter's ``grad``, given the gradient of the chain's output."""
    for number in reversed(range(len(layers))):
        gradient = layers[number].backpropagate(tape[number], gradient, further=number > 0)  # type: ignore[operator]
