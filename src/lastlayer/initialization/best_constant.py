"""The last layer at the best constant prediction of its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, KindError, ShapeError, shape_text
from lastlayer.heads import Head
from lastlayer.initialization.layers import Layer
from lastlayer.initialization.order import Place
from lastlayer.networks import Linear


@torch.no_grad()
def start_as_constant(last: nn.Linear | Linear, head: Head, target: Tensor, sample_weight: Tensor) -> None:
    """Sets the last layer so that the network starts as the best constant predictor of its head.

    Its weights become zero and its bias the head's marginal optimum: the mean, the log-odds, the log class
    frequencies, for every member alike. The first steps are then not spent on finding the level of the target.
    """
    nn.init.zeros_(last.weight)
    last.bias.copy_(head.initial_bias(target, sample_weight))


@torch.no_grad()
def start_last(
    found: list[Place],
    head: Head | None,
    target: Tensor | Sequence[Any] | None,
    sample_weight: Tensor | Sequence[float] | None,
) -> Layer | None:
    """The last of the layers, started as the best constant of the head; ``None`` without a head.

    Raises:
        InputError, ShapeError, KindError: if head, target and layer do not belong together. Nothing is changed then.
    """
    if (head is None) != (target is None) or (head is None and sample_weight is not None):
        raise InputError("initialize: head and target belong together, and a sample_weight to them. Fix: give both.")
    if head is None:
        return None
    if not isinstance(head, Head):
        raise KindError(f"initialize: head is {head!r}; expected a head such as lastlayer.heads.Gaussian().")
    last = _last_of(found, head)
    try:
        values = torch.as_tensor(target)
        weight = torch.ones(len(values)) if sample_weight is None else torch.as_tensor(sample_weight)
    except (TypeError, ValueError) as error:
        raise InputError(f"initialize: target and sample_weight must be numbers ({error}).") from error
    if not values.numel():
        raise ShapeError(f"initialize: the target has shape {shape_text(values)}; expected at least one row.")
    head.check_target(values, None if sample_weight is None else weight)
    bias = head.initial_bias(values, weight)
    layer_bias = last.bias
    assert layer_bias is not None
    last.write(torch.zeros_like(last.weight))
    layer_bias.copy_(bias)
    return last


def _last_of(found: list[Place], head: Head) -> Layer:
    """The last of the layers, if it can be the head's."""
    needed = f"{type(head).__name__} needs a layer with {head.raw_size} outputs and a bias, both to be learned"
    if not found:
        raise InputError(f"initialize: no layer is of a known class; {needed}.")
    last = found[-1].layer
    bias = last.bias
    if last.left_because is not None or bias is None:
        why = last.left_because or "without a bias that learns"
        raise InputError(f"initialize: the last layer, {last.name!r}, is {why}; {needed}.")
    if bias.shape[-1] != head.raw_size:
        raise ShapeError(f"initialize: the last layer, {last.name!r}, has a bias of {shape_text(bias)}; {needed}.")
    tied = [place.layer.name for place in found[:-1] if place.layer.identity == last.identity]
    if tied:
        raise InputError(f"initialize: the weight of the last layer, which would start at 0, is tied to {tied[0]!r}.")
    return last
