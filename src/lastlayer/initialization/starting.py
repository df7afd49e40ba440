"""Layers started one by one: weights drawn, biases set; and what stands between them reset."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lastlayer.activations import PReLU
from lastlayer.heads import Head
from lastlayer.initialization.layers import Layer
from lastlayer.initialization.order import Place, is_normalization
from lastlayer.initialization.record import LayerStart
from lastlayer.initialization.rules import Rule
from lastlayer.networks import SharedLinear


def start_layers(
    found: list[Place],
    rule: Rule,
    bias: float,
    generator: torch.Generator | None,
    *,
    already: Layer | None = None,
    head: Head | None = None,
) -> dict[str, LayerStart]:
    """Draws every layer that learns, a tied weight once, and says how; by name.

    Args:
        already: the last layer, if it starts as the best constant of the ``head``.
    """
    learning = [place for place in found if place.layer.left_because is None]
    owners: dict[tuple[int, ...], Place] = {}
    # The layer that multiplies by a tied weight comes before the one that looks it up.
    for place in sorted(learning, key=lambda place: place.layer.looks_up):
        owners.setdefault(place.layer.identity, place)
    rows: dict[str, LayerStart] = {}
    for place in learning:
        layer, owner = place.layer, owners[place.layer.identity]
        own = rule.for_look_up() if owner.layer.looks_up else rule
        gain = owner.gain.gain if own.uses_gain else 1.0
        std, label, level = own.std(owner.layer.blocks, gain), own.label(owner.gain), None
        if layer is already:
            gain, std, label = 1.0, 0.0, f"best constant of {type(head).__name__}"
        else:
            if owner is place:
                start_weight(layer, own, gain, generator)
                std = float(layer.weight.detach().float().std(correction=0)) if layer.parametrized else std
            else:
                label = f"tied to {owner.layer.name!r}"
            is_output = place is found[-1] and not (len(found) == 1 and place.after_activation)
            level = start_bias(layer, 0.0 if is_output else bias, place.gain.center if own.uses_gain else 0.0)
        fans = layer.blocks.fan_in, layer.blocks.fan_out
        rows[layer.name] = LayerStart(layer.name, layer.kind, place.reads, label, *fans, gain, std, level)
    return rows


@torch.no_grad()
def start_weight(layer: Layer, rule: Rule, gain: float, generator: torch.Generator | None) -> None:
    """Draws the weight; of an embedding the padding row stays 0, of a shared layer the scales start anew."""
    module = layer.module
    drawn = rule.draw(layer.blocks, gain, generator, layer.weight)
    layer.write(layer.blocks.laid_out(drawn, layer.weight.shape))
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
        module.weight[module.padding_idx] = 0.0
    if isinstance(module, SharedLinear):
        nn.init.ones_(module.output_scale)
        nn.init.ones_(module.input_scale)
        if module.diverse:
            device = module.input_scale.device if generator is None else generator.device
            signs = torch.randint(0, 2, module.input_scale.shape, generator=generator, device=device)
            module.input_scale.copy_(2.0 * signs - 1.0)


@torch.no_grad()
def start_bias(layer: Layer, level: float, center: float = 0.0) -> float | None:
    """Sets the bias to a level, less what inputs that swing around a center add to it; ``None`` if none learns."""
    bias = layer.bias
    if bias is None:
        return None
    bias.fill_(level)
    if center:
        module = layer.module
        if isinstance(module, SharedLinear):
            sums = module.input_scale @ module.weight.t() * module.output_scale
        else:
            sums = layer.blocks.sums(layer.weight)
        bias.sub_(center * sums.reshape(bias.shape))
    return level


@torch.no_grad()
def reset_normalizations(network: nn.Module) -> None:
    """Scale 1, shift 0, running statistics as new; those that are frozen are left."""
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if not is_normalization(module) or (own and not any(each.requires_grad for each in own)):
            continue
        reset = getattr(module, "reset_parameters", None)
        if type(module).__module__.startswith("torch.nn.modules.") and reset is not None:
            reset()
        else:
            for name, value in (("weight", 1.0), ("bias", 0.0)):
                if name in module._parameters and isinstance(module._parameters[name], nn.Parameter):
                    module._parameters[name].fill_(value)  # type: ignore[union-attr]


@torch.no_grad()
def reset_slopes_of_prelu(network: nn.Module) -> None:
    """Every slope of a PReLU where it started."""
    for module in network.modules():
        if isinstance(module, (PReLU, nn.PReLU)):
            module.reset_parameters()


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names in a sentence, the first few of many."""
    quoted = [repr(name) for name in names]
    rest = len(quoted) - most
    return ", ".join(quoted[:most]) + (f" and {rest} more" if rest > 0 else "")
