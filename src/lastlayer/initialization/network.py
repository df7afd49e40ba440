"""A whole network started in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lastlayer.checks import InputError, KindError, LastLayerWarning, check_choice
from lastlayer.heads import Head
from lastlayer.initialization.best_constant import start_last
from lastlayer.initialization.data_dependent import LSUV, Batch, check_batch, scale_to_unit_variance
from lastlayer.initialization.gains import AnyActivation
from lastlayer.initialization.layers import Layer
from lastlayer.initialization.order import Place, matrices_left, places, shows_activations, with_activation
from lastlayer.initialization.record import Initialization, LayerStart
from lastlayer.initialization.rules import RULES, Auto, Rule
from lastlayer.initialization.starting import listed, reset_normalizations, reset_slopes_of_prelu, start_layers

_NAMED: dict[str, type[Rule]] = {**RULES, LSUV.name: LSUV}


def initialize(
    network: nn.Module,
    activation: AnyActivation | None = None,
    *,
    rule: str | Rule = "auto",
    bias: float = 0.0,
    head: Head | None = None,
    target: Tensor | Sequence[Any] | None = None,
    sample_weight: Tensor | Sequence[float] | None = None,
    generator: torch.Generator | None = None,
    batch: Batch | None = None,
    reset_slopes: bool = False,
) -> Initialization:
    """Starts every layer of a network so that the signal keeps its variance from layer to layer, in place.

    Formula: weights normal with mean 0 and ``Var(w) = gain² / D_in``; see :func:`lastlayer.initialization.gain`.

    The gain is that of the activation in front of a layer, whose output the layer reads. Given inputs of mean square 1
    the first layer has gain 1, and every pre-activation variance 1, which is what the gains are computed for. That is
    He et al.'s derivation; that the first layer, too, takes the gain of an activation, the one behind it, is their
    simplification and common practice. With ReLU it makes the same network, the factor √2 being at its other end. With
    SiLU, GELU or Mish it does not: there a variance beyond 1 grows from layer to layer, and the common practice starts
    SiLU at 2.8. In the tenth layer of 512 units that is 29, and 1.2 with the gain of the activation in front.

    What is in front of a layer is found in the order in which modules were registered, passing over dropout, pooling
    and reshaping; behind a normalization the gain is 1. A network that branches, or calls activations as functions,
    does not show in its modules what its layers read: name the ``activation``, or use ``rule="lsuv"``, which measures.

    Shapes: any, of linear layers, convolutions and transposed convolutions with groups, embeddings, ``Maxout`` and the
    layers of ``lastlayer.networks``, whose members start independently.

    Special cases: an embedding looks up and adds up nothing; it starts standard normal, its padding row at 0. A tied
    weight is drawn once, for the layer that multiplies by it. Frozen layers are left as they are, and so are
    PyTorch's recurrent and attention weights, which start by rules of their own. Normalizations start at scale 1 and
    shift 0, their running statistics as new. Dropout raises the mean square while training, and is not compensated.
    A ``LastLayerWarning`` names weights of layers of unknown classes, which are left as they are; it says so if no
    activation is seen, and names layers that LSUV could not scale.

    Args:
        network: any module.
        activation: what the layers read, all but the first, which reads the data; a single layer is taken from the
            middle of a network, and reads it. ``None``: what is found in front of each.
        rule: ``"auto"``, which is Xavier behind what is a line around 0 and He behind all else; ``"constant"``,
            ``"normal"``, ``"xavier"``, ``"glorot"``, ``"he"``, ``"orthogonal"``, ``"lsuv"``; or one of
            ``lastlayer.initialization`` with its options, such as ``Normal(0.2)``. A rule that is named is applied to
            modules of unknown classes, too, whose ``weight`` is then taken to be laid out (outputs, inputs, ...).
        bias: where the biases start, but for the last layer's, which is 0; a positive one lets every ReLU begin active.
        head, target, sample_weight: with a head and its target the last layer starts as the best constant prediction.
        generator: draws all numbers, so that they repeat; the global random state is then left alone.
        batch: inputs for ``"lsuv"``, and for it alone: a tensor, a tuple of several, or a dict by name.
        reset_slopes: whether PReLU slopes go back to their initial value, 0.25 unless set; gains are computed for the
            slopes that are there.

    Returns:
        what was done, layer by layer; ``print`` shows it.

    Raises:
        InputError: for an unknown rule or activation, options that do not belong together, a lazy layer that has not
            seen its input, a network without a weight that learns, or a batch that the network does not take. Nothing
            is changed then.
        ShapeError: if the last layer does not fit the head.
        KindError: for an argument of the wrong kind.

    Example:
        >>> network = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 1))
        >>> print(initialize(network))
        layer  kind    reads      rule    fan-in   gain      std  bias
        0      Linear  the input  xavier      64      1    0.125     0
        2      Linear  ReLU       he         512  1.414   0.0625     0
        4      Linear  Tanh       xavier     512      1  0.04419     0

    Reference: SPEC E3, E4, C2; K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015); X. Glorot, Y. Bengio, AISTATS (2010).
    """
    chosen = _checked_rule(rule)
    _check_options(network, bias, generator)
    found = _read(network, activation, chosen)
    unknown, kept = matrices_left(network, found)
    if not unknown and all(place.layer.left_because for place in found):
        frozen = f": {len(found)} are frozen. Fix: network.requires_grad_(True)." if found else "."
        raise InputError(f"initialize: {type(network).__name__} has no weight of two axes that learns{frozen}")
    if isinstance(chosen, LSUV) != (batch is not None):
        raise InputError("rule='lsuv' measures on a batch of inputs, and no other rule does. Fix: give both, or none.")
    if batch is not None:
        check_batch(network, batch)
    last = start_last(found, head, target, sample_weight)
    if reset_slopes:
        reset_slopes_of_prelu(network)
        found = _read(network, activation, chosen)
    reset_normalizations(network)
    rows = start_layers(found, chosen, bias, generator, already=last, head=head)
    notes, doubts = _left(found, unknown, kept, named=not isinstance(chosen, Auto))
    if activation is None and chosen.uses_gain and len(found) > 1 and not shows_activations(found):
        doubts.append(
            f"no activation was found between the {len(found)} layers, and their gain is taken as 1; one that forward "
            f"calls as a function, or that is registered elsewhere, cannot be seen there. Fix: say which it is, as in "
            f"initialize(network, 'relu'), or 'identity' if there is none."
        )
    if isinstance(chosen, LSUV) and batch is not None:
        doubts += _scale(network, rows, [place.layer for place in found if place.layer is not last], batch, chosen)
    for doubt in doubts:
        warnings.warn(f"initialize: {doubt}", LastLayerWarning, stacklevel=2)
    return Initialization(tuple(rows.values()), (*notes, *doubts))


def _checked_rule(rule: str | Rule) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, type):
        raise KindError(f"rule is the class {rule.__name__}; expected a name or an instance. Fix: {rule.__name__}().")
    check_choice(rule, tuple(_NAMED), what="rule")
    return _NAMED[rule]()


def _check_options(network: nn.Module, bias: float, generator: torch.Generator | None) -> None:
    if not isinstance(network, nn.Module):
        raise KindError(f"initialize: the network is {type(network).__name__}; expected a torch.nn.Module.")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise KindError(
            f"initialize: generator is {type(generator).__name__}; expected a torch.Generator. "
            f"Fix: torch.Generator().manual_seed({generator!r})."
        )
    if not isinstance(bias, (int, float)) or not math.isfinite(bias):
        raise InputError(f"initialize: bias is {bias!r}; expected a finite number.")
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            raise InputError(
                f"initialize: {name!r} is lazy, and has no shape before the network has seen an input. "
                f"Fix: call the network once with a batch, then initialize it."
            )


def _read(network: nn.Module, activation: AnyActivation | None, rule: Rule) -> list[Place]:
    """The layers, and what each reads."""
    found = places(network, any_weight=not isinstance(rule, Auto))
    if activation is None and rule.assumes != "identity" and not shows_activations(found):
        activation = rule.assumes
    return found if activation is None else with_activation(found, activation)


def _left(
    found: list[Place], unknown: dict[str, tuple[int, ...]], kept: list[str], named: bool
) -> tuple[list[str], list[str]]:
    """What was left as it was, in sentences: on purpose, and for want of knowing."""
    reasons = {place.layer.name: place.layer.left_because for place in found}
    reasons |= dict.fromkeys(kept, "which starts by rules of its own")
    notes = [
        f"Left as it was, {reason}: {listed(name for name in reasons if reasons[name] == reason)}."
        for reason in dict.fromkeys(reasons.values())
        if reason is not None
    ]
    if not unknown:
        return notes, []
    name, shape = next(iter(unknown.items()))
    by_name = ""
    if not named and any(each.rpartition(".")[2] == "weight" for each in unknown):
        by_name = "; if a `weight` is laid out (outputs, inputs, ...), name the rule, as in rule='he'"
    doubt = (
        f"{listed(unknown)}: left as it was, since nothing says which axis is that of the inputs. Fix: if {name!r} of "
        f"shape {shape} is laid out (inputs, outputs), lastlayer.initialization.He().fill("
        f"network.get_parameter({name!r}), fan_in={shape[0]}){by_name}."
    )
    return notes, [doubt]


def _scale(network: nn.Module, rows: dict[str, LayerStart], layers: list[Layer], batch: Batch, rule: LSUV) -> list[str]:
    """Scales the layers, writes into their rows what came of it, and says which could not be scaled."""
    started = [layer for layer in layers if layer.name in rows]
    # A tied weight is scaled once, where it multiplies; an embedding keeps its variance.
    once = {layer.identity: layer for layer in reversed(started) if not layer.looks_up}
    scaling = scale_to_unit_variance(network, list(reversed(once.values())), batch, rule)
    for layer in started:
        own = once.get(layer.identity)
        if own is not None and own.name in scaling.factor:
            row, output_std = rows[layer.name], scaling.output_std[own.name] if own is layer else None
            rows[layer.name] = replace(row, std=row.std * scaling.factor[own.name], output_std=output_std)
    return [
        f"{listed(names)}: left unscaled, since {why}."
        for names, why in (
            (scaling.unreached, "the network does not call it on this batch"),
            (scaling.constant, "on this batch its output is the same everywhere, or not finite"),
            (scaling.stuck, "its output does not follow the scale of its weight"),
        )
        if names
    ]
