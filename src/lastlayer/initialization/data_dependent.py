"""Layer-sequential unit variance: weights scaled by what a batch of data makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, KindError
from lastlayer.initialization.layers import Layer
from lastlayer.initialization.rules import Orthogonal

#: What a network is called with: its input; several as a tuple, or by name.
Batch = Tensor | Sequence[Any] | Mapping[str, Any]

# Outputs whose spread is this small a part of their size differ by rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class LSUV(Orthogonal):
    """An orthogonal start, then each layer in the order of the forward pass divided by the standard deviation of its
    output on a batch, until that is 1.

    Made for what no gain is known of: odd activations, branches that are added, inputs of any scale.

    Args:
        tolerance: how far the variance may be from 1.
        iterations: how often at most a layer is scaled. Once is enough unless its output is not proportional to its
            weight.

    Raises:
        InputError: for a tolerance that is not positive, or no iteration.

    Reference: D. Mishkin, J. Matas, All you need is a good init (ICLR 2016).
    """

    name = "lsuv"
    uses_gain = False
    tolerance: float = 0.01
    iterations: int = 10

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.iterations < 1:
            raise InputError(
                f"LSUV: tolerance is {self.tolerance}, iterations {self.iterations}; expected a positive number, and "
                f"1 or more."
            )


@dataclass
class Scaling:
    """What became of the layers.

    Attributes:
        output_std: of every layer that was scaled, by name, the standard deviation of its output in the end.
        factor: what its weight was multiplied by.
        constant: layers whose output is the same everywhere, or not finite, on this batch; left unscaled.
        stuck: layers whose output does not follow the scale of their weight; left unscaled.
        unreached: layers that the forward pass did not call.
    """

    output_std: dict[str, float] = field(default_factory=dict)
    factor: dict[str, float] = field(default_factory=dict)
    constant: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)


def scale_to_unit_variance(network: nn.Module, layers: Sequence[Layer], batch: Batch, rule: LSUV) -> Scaling:
    """Scales the layers in one forward pass: each is scaled when it is reached, and what it gives then goes on.

    The network is in evaluation mode meanwhile; modes and random state are afterwards as they were.
    """
    result, waiting = Scaling(), {layer.name: layer for layer in layers}

    def scale(layer: Layer, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if waiting.pop(layer.name, None) is None or not isinstance(output, Tensor):
            return None
        return _scaled(layer, lambda: module.forward(*args, **kwargs), output, rule, result)

    hooks = [
        # Ahead of hooks of the user's own, which then see what the layer gives when it is scaled.
        layer.module.register_forward_hook(
            lambda *call, layer=layer: scale(layer, *call),
            prepend=True,
            with_kwargs=True,
        )
        for layer in layers
    ]
    try:
        with undisturbed(network):
            call(network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    result.unreached = list(waiting)
    return result


def _scaled(layer: Layer, again: Any, output: Tensor, rule: LSUV, result: Scaling) -> Tensor:
    """The output of the layer when it is scaled."""
    start = layer.weight.detach().clone()
    first, factor = output, 1.0
    std, least = _spread(output)
    error = abs(std * std - 1)
    for _ in range(rule.iterations):
        if not least < std < float("inf"):
            result.constant.append(layer.name)
            break
        if abs(std * std - 1) <= rule.tolerance:
            break
        factor /= std
        layer.write(start * factor)
        output = again()
        std, least = _spread(output)
    else:
        # What is left is rounding of a coarse dtype, or the scale does not go through.
        if abs(std * std - 1) >= min(error, 0.5):
            result.stuck.append(layer.name)
    if layer.name in (*result.constant, *result.stuck):
        layer.write(start)
        return first
    result.output_std[layer.name], result.factor[layer.name] = std, factor
    return output


def _spread(output: Tensor) -> tuple[float, float]:
    """The standard deviation over all elements, and below what it is rounding."""
    if not output.numel():
        return 0.0, 0.0
    values = output.double()
    return float(values.std(correction=0)), _ROUNDING * float(values.abs().max())


def check_batch(network: nn.Module, batch: Batch) -> None:
    """The network takes the batch; known before anything is written.

    Raises:
        KindError: for something that holds no tensor.
        InputError: for a batch that is empty or not finite, or that the network does not take.
    """
    held = list(batch.values()) if isinstance(batch, Mapping) else [batch] if isinstance(batch, Tensor) else batch
    tensors = [each for each in held if isinstance(each, Tensor)] if isinstance(held, Sequence) else []
    if not tensors:
        raise KindError(
            f"the batch is {type(batch).__name__}; expected the network's input, a tensor, or several as a "
            f"tuple or by name."
        )
    for tensor in tensors:
        if not tensor.numel():
            raise InputError(f"the batch has shape {tuple(tensor.shape)}; expected some rows to measure variances on.")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError("the batch holds numbers that are not finite. Fix: impute or drop those rows.")
    try:
        with undisturbed(network):
            call(network, batch)
    except Exception as error:
        raise InputError(
            f"the network could not be called with the batch ({type(error).__name__}: {error}). Give its input alone, "
            f"without targets; a tuple is taken as several inputs."
        ) from error


def call(network: nn.Module, batch: Batch) -> Any:
    """The network's output."""
    if isinstance(batch, Tensor):
        return network(batch)
    return network(**batch) if isinstance(batch, Mapping) else network(*batch)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without autograd; every module's mode and the random state are afterwards as they were."""
    modes = [(module, module.training) for module in network.modules()]
    devices = {parameter.device for parameter in network.parameters() if parameter.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            for module, _ in modes:
                module.training = False
            yield
    finally:
        for module, training in modes:
            module.training = training
