"""The layers of a network in module order, and where the input of each comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from torch import nn

from lastlayer.activations import Activation
from lastlayer.checks import InputError
from lastlayer.initialization.gains import IDENTITY, AnyActivation, Gain, gain_of
from lastlayer.initialization.layers import KEEPS_ITS_OWN, Layer, layer_of

# By name, so that people's own LayerNorm2d is one as well.
_NORMALIZATION = re.compile(r"norm(\dd)?$", re.IGNORECASE)
# Parameters of a layer that are started; a subclass may have more, which are not.
_STARTED = ("weight", "bias", "input_scale", "output_scale")


@dataclass(frozen=True)
class Place:
    """A layer, and what it reads.

    Attributes:
        layer: the layer.
        reads: in words: "the input", the class of an activation or a normalization, or a layer's name.
        gain: that of what it reads.
        after_activation: whether an activation lies between the layer before it and this one.
    """

    layer: Layer
    reads: str
    gain: Gain
    after_activation: bool = False


def places(network: nn.Module, *, any_weight: bool = False) -> list[Place]:
    """Every layer in the order in which modules were registered, each once, with what it reads.

    That is the nearest thing before it which sets the scale: an activation, a normalization, another layer, or the
    network's input. What keeps the scale, or nearly so, is passed over: dropout, pooling, reshaping, and any module
    that is not known and not elementwise.
    """
    found: list[Place] = []
    seen: set[int] = set()
    reads, gain, after_activation = "the input", IDENTITY, False
    # Not each module once: an activation may be used at several places.
    for name, module in network.named_modules(remove_duplicate=False):
        if _inside_a_parametrization(name):
            continue
        layer = None if is_normalization(module) else layer_of(name, module, any_weight=any_weight)
        if layer is not None and id(module) not in seen:
            seen.add(id(module))
            found.append(Place(layer, reads, gain, after_activation))
        after_activation = after_activation and layer is None
        own = _activation_gain(module)
        if own is not None:
            reads, gain, after_activation = type(module).__name__, own, True
        elif is_normalization(module):
            reads, gain = type(module).__name__, IDENTITY
        elif layer is not None or isinstance(module, KEEPS_ITS_OWN) or (_is_leaf(module) and _has_matrix(module)):
            reads, gain = repr(name), IDENTITY
    return found


def with_activation(found: list[Place], activation: AnyActivation) -> list[Place]:
    """The same layers, each but the first reading this activation; a single layer is taken from the middle."""
    shown = activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)
    gain = gain_of(activation)
    reading = [replace(place, reads=shown, gain=gain, after_activation=True) for place in found]
    return reading if len(found) == 1 else [*found[:1], *reading[1:]]


def shows_activations(found: list[Place]) -> bool:
    """Whether modules show an activation between layers, or in front of a single one."""
    return any(place.after_activation for place in found[1:] or found)


def matrices_left(network: nn.Module, found: list[Place]) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Parameters of two axes or more that belong to no layer found and learn: name and shape of those that nobody
    knows, and the names of PyTorch's modules that start by rules of their own.
    """
    known = {
        id(parameter)
        for place in found
        for name, parameter in place.layer.module.named_parameters(recurse=False)
        if name in _STARTED
    }
    unknown: dict[str, tuple[int, ...]] = {}
    own_rules: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, KEEPS_ITS_OWN):
            own_rules.append(name)
        elif not is_normalization(module) and not _inside_a_parametrization(name):
            for leaf, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1 and parameter.requires_grad and id(parameter) not in known:
                    unknown[f"{name}.{leaf}" if name else leaf] = tuple(parameter.shape)
    return unknown, own_rules


def is_normalization(module: nn.Module) -> bool:
    """Whether the module normalizes, by the name of its class or of one that it is built on."""
    return any(_NORMALIZATION.search(kind.__name__) for kind in type(module).__mro__)


def _activation_gain(module: nn.Module) -> Gain | None:
    """The gain of a module that is an activation; ``None`` of any other, and of one that changes nothing."""
    if not _may_be_an_activation(module):
        return None
    try:
        gain = gain_of(module)
    except InputError:
        # A softmax, or somebody's own module that is not elementwise.
        return None
    return None if gain is IDENTITY else gain


def _may_be_an_activation(module: nn.Module) -> bool:
    where = type(module).__module__
    if isinstance(module, (Activation, nn.GLU)) or where == "torch.nn.modules.activation":
        return not isinstance(module, KEEPS_ITS_OWN)
    # Somebody's own: a copy of it is evaluated, and shows whether it is elementwise.
    own = not where.startswith(("torch.nn.", "lastlayer.")) and not is_normalization(module)
    return own and _is_leaf(module) and not _has_matrix(module)


def _inside_a_parametrization(name: str) -> bool:
    return "parametrizations" in name.split(".")


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
