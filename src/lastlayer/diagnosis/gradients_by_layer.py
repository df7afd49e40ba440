"""Does the gradient reach the first layers, in a size that suits their weights?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.fresh_start import tried_fresh_start
from lastlayer.diagnosis.layers import LayerRecord, shared_layers
from lastlayer.diagnosis.order import (
    FEW_ROWS,
    a_layer,
    counted,
    depths,
    first_weights,
    has_weights,
    last_weights,
    matrices,
    taken,
)
from lastlayer.diagnosis.subject import Subject

VANISHING_GRADIENTS = Fault(
    name="vanishing_gradients",
    title="a gradient that dies out on its way back",
    severity="warning",
    why="The gradient is multiplied by the weights and the slopes of every layer that it passes. Where these are small "
    "the first layers hardly move while the last ones learn from what untrained layers hand them.",
    fix="Take an activation that does not flatten (ReLU or GELU in place of the sigmoid), draw the weights with "
    "lastlayer.initialize(network), or add residual connections or normalization.",
    reference="SPEC F; S. Hochreiter, diploma thesis (1991); X. Glorot, Y. Bengio, AISTATS (2010)",
)
EXPLODING_GRADIENTS = Fault(
    name="exploding_gradients",
    title="a gradient that grows on its way back",
    severity="warning",
    why="The gradient is multiplied by the weights of every layer that it passes. Where these are large a small change "
    "of the first ones throws the output far off, and no learning rate suits all layers.",
    fix="Draw the weights with lastlayer.initialize(network), add normalization, or clip the gradient's norm "
    "(torch.nn.utils.clip_grad_norm_).",
    reference="SPEC F; R. Pascanu, T. Mikolov, Y. Bengio, ICML (2013)",
)

#: Leverage of the first layer over the largest of a later one. At every start at which plain gradient descent learned
#: within 400 steps it was 4e-3 or more (three sigmoid layers); where it did not begin to, 2e-3 or less. Networks that
#: keep their variance have 0.1 to 1, whatever their widths.
VANISHED = 1e-3
#: Of a change in the first layer the output shows the last digit of a float32.
VANISHED_WHOLLY = 1e-6
#: Leverage. Random networks that keep their variance, or lose a little of it, have 0.0001 to 1.6 in every layer
#: (perceptrons to width 2048 and depth 50, convolutions with and without normalization, residual networks,
#: transformers, recurrent ones), and trained ones have no more: it is about √2 at most where each layer keeps the size
#: of signal and gradient. Learning was already several times slower from 10 on.
EXPLODED = 30.0
#: A thousand times what the best do.
EXPLODED_FAR = 1e3


def vanishing_and_exploding_gradients(subject: Subject) -> Iterator[Finding]:
    """How the gradient arrives, with what another start of the weights does on a copy."""
    failure = subject.training_pass.failure
    if failure is not None:
        return
    for finding in judge_gradients(shared_layers(subject), rows=subject.rows):
        yield tried_fresh_start(subject, finding)


def leverages(layers: Sequence[LayerRecord], *, rows: int) -> dict[int, float]:
    """How far the weights of a layer move the output, by its place among the records.

    Formula: ``‖∂L/∂W‖ · rms(W) / √(Σ ‖∂Lᵢ/∂raw‖² / n)``: the gradient times the size of the weights, over the gradient
    at the output layer, root mean square over the n rows. It is a pure number: neither the loss's scale nor its
    reduction, nor that of the weights before a normalization or of a small last layer is in it. Inputs of a size other
    than 1 are a fault of their own: what of it a layer still takes is divided out.
    """
    at_output = math.sqrt(
        sum(
            layer.gradient.rms**2 * math.prod(layer.shape)
            for layer in last_weights(layers)
            if layer.gradient is not None
        )
    )
    at_input = max((taken(layer).rms for layer in first_weights(layers)), default=1.0)
    found: dict[int, float] = {}
    for place, (layer, depth) in enumerate(zip(layers, depths(layers), strict=True)):
        learning = [parameter for parameter in matrices(layer) if parameter.gradient_norm is not None]
        if not has_weights(layer) or not learning or not at_output > 0:
            continue
        gradient = math.hypot(*(parameter.gradient_norm or 0.0 for parameter in learning))
        elements = sum(math.prod(parameter.shape) for parameter in learning)
        size = math.hypot(*(parameter.norm for parameter in learning)) / math.sqrt(elements)
        unit = taken(layer).rms if depth == 1 else max(1.0, min(at_input, taken(layer).rms))
        if unit > 0:
            found[place] = gradient * size / (at_output * math.sqrt(max(rows, 1)) * unit)
    return found


def judge_gradients(layers: Sequence[LayerRecord], *, rows: int) -> list[Finding]:
    """Whether the gradient that reaches the first layers suits their weights, beside that of the later ones."""
    found = {place: value for place, value in leverages(layers, rows=rows).items() if math.isfinite(value)}
    if rows < FEW_ROWS or len(found) < 2:
        return []
    depth = depths(layers)
    return [*_vanishing(layers, found, depth, rows), *_exploding(layers, found, rows)]


def _vanishing(
    layers: Sequence[LayerRecord], found: dict[int, float], depth: list[int], rows: int
) -> Iterator[Finding]:
    first = min(depth[place] for place in found)
    earliest = {place: value for place, value in found.items() if depth[place] == first}
    later = {place: value for place, value in found.items() if depth[place] > first}
    if not later:
        return
    near, far = max(earliest, key=lambda place: earliest[place]), max(later, key=lambda place: later[place])
    # A gradient of exactly 0 has another cause: zero weights or dead units behind.
    if not 0 < earliest[near] < VANISHED * later[far]:
        return
    share = earliest[near] / later[far]
    between = depth[far] - depth[near]
    few = sum(value < VANISHED * later[far] for value in found.values())
    yield VANISHING_GRADIENTS.found(
        layers[near].label,
        f"The gradient of {layers[near].label}, times the size of its weights, is {share:.1g} of that of "
        f"{layers[far].label}, {counted(between, 'layer')} later{a_layer(share, between)}. Below {VANISHED:g} "
        f"{'is' if few == 1 else 'are'} {few} of {len(found)} layers ({rows} rows).",
        numbers={"share": share, "layers": len(found), "below": few, "between": between},
        severity="error" if share < VANISHED_WHOLLY else "warning",
    )


def _exploding(layers: Sequence[LayerRecord], found: dict[int, float], rows: int) -> Iterator[Finding]:
    largest = max(found, key=lambda place: found[place])
    if not found[largest] > EXPLODED:
        return
    many = sum(value > EXPLODED for value in found.values())
    yield EXPLODING_GRADIENTS.found(
        layers[largest].label,
        f"The gradient of {layers[largest].label}, times the size of its weights, is {found[largest]:.3g} times the "
        f"gradient at the output; layers that keep the size of the signal have about 1. Beyond {EXPLODED:g} "
        f"{'is' if many == 1 else 'are'} {many} of {len(found)} layers ({rows} rows).",
        numbers={"leverage": found[largest], "layers": len(found), "beyond": many},
        severity="error" if found[largest] > EXPLODED_FAR else "warning",
    )


FAULTS: tuple[Fault, ...] = (VANISHING_GRADIENTS, EXPLODING_GRADIENTS)
CHECKS: tuple[Check, ...] = (vanishing_and_exploding_gradients,)
