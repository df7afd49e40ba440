"""Does the signal keep its size on its way through the layers, or die out, or blow up?"""

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
    first_weights,
    has_weights,
    last_weights,
    matrices,
    strongest,
    taken,
    way_back,
)
from lastlayer.diagnosis.subject import Subject

COLLAPSING_ACTIVATIONS = Fault(
    name="collapsing_activations",
    title="a signal that dies out from layer to layer",
    severity="warning",
    why="What tells two rows apart becomes smaller with every layer, until the last one sees the same numbers for all "
    "of them. Steps of gradient descent shrink with the square of it, and learning stands still at the constant.",
    fix="Draw the weights with the variance that keeps the signal's, lastlayer.initialize(network): He's for ReLU, "
    "Xavier's for tanh. Or put a normalization or a residual connection into every block.",
    reference="SPEC E3, E4, F; X. Glorot, Y. Bengio, AISTATS (2010); K. He et al., ICCV (2015)",
)
EXPLODING_ACTIVATIONS = Fault(
    name="exploding_activations",
    title="a signal that grows from layer to layer",
    severity="warning",
    why="Outputs start far beyond the size of any target: a squared error is then hundreds of times that of knowing "
    "nothing, a softmax is certain of a wrong class, and the first thing to be learned is to undo it.",
    fix="Draw the weights with the variance that keeps the signal's, lastlayer.initialize(network): He's for ReLU, "
    "Xavier's for tanh. Or put a normalization into every block.",
    reference="SPEC E3, F; K. He et al., ICCV (2015)",
)

#: Of what tells rows apart at the input, the share that must reach the last layer. Multilayer perceptrons of 2 to 20
#: layers (ReLU, tanh, sigmoid; three rules of initialization; classes and a real target) and stacked LSTMs and GRUs
#: all agree: at 1e-2 plain gradient descent learns, at 2e-3 it is slow to begin, below 1e-3 the loss did not move in
#: 400 steps. PyTorch's own start gets there with 8 hidden ReLU layers.
COLLAPSED = 1e-3
#: Below this Adam, which undoes the size of the gradient, stands still as well: 3e-8 with twelve sigmoid layers, 1e-8
#: with twenty ReLU layers of PyTorch's start. A float32 has seven digits: what is left are the last of them.
LOST = 1e-6
#: How far rows may lie apart at the output or before it, in units of the inputs, if these are larger than 1. Logits of
#: 30 are a certainty of 1 − 1e-13; a squared error starts at 900 times the variance of the target. Networks that keep
#: their variance give 0.05 to 3.
EXPLODED = 30.0
#: Where no trained network was seen: after training on separable classes rows lay 28 apart, at most.
FAR_EXPLODED = 1e3


def collapsing_and_exploding_activations(subject: Subject) -> Iterator[Finding]:
    """How the signal arrives, with what another start of the weights does on a copy."""
    for finding in judge_activations(shared_layers(subject), rows=subject.rows):
        yield tried_fresh_start(subject, finding)


def judge_activations(layers: Sequence[LayerRecord], *, rows: int, trained: bool = False) -> list[Finding]:
    """Whether the part of the signal that varies from row to row reaches the output, and in what size.

    It is compared with the input, or with 1, the size that weights, biases and targets are made for: below it where
    inputs are larger, for a bounded activation brings those down, and above it where they are smaller.

    Args:
        trained: whether steps were taken: outputs grow as a network becomes sure of itself.
    """
    ends = last_weights(layers)
    start = max((taken(layer).variation for layer in first_weights(layers)), default=math.nan)
    # Of several outputs that which most arrives at: a constant may be wanted of the others.
    end = strongest(ends, lambda layer: taken(layer).variation)
    if rows < FEW_ROWS or end is None or not start > 0:
        return []
    way = [layer for layer in reversed(way_back(layers, end)) if has_weights(layer)]
    if len(way) < 2:
        return []
    return [*_collapse(layers, way, start, rows), *_explosion(ends, way, start, rows, trained)]


def _collapse(layers: Sequence[LayerRecord], way: list[LayerRecord], start: float, rows: int) -> Iterator[Finding]:
    end, hidden = way[-1], len(way) - 1
    reference = min(start, 1.0)
    arrives = taken(end).variation
    if not arrives < COLLAPSED * reference or (arrives == 0 and _is_cut(layers)):
        return
    below = [layer for layer in way[:-1] if layer.output.variation < COLLAPSED * reference]
    share = arrives / reference
    yield COLLAPSING_ACTIVATIONS.found(
        (below or way)[0].label,
        f"Rows differ by {start:.2g} at the input and by {arrives:.2g} where {end.label} takes them, after "
        f"{counted(hidden, 'layer')}{a_layer(share, hidden)} (standard deviations over {rows} rows). Below "
        f"{COLLAPSED:g} of the input gradient descent hardly moves.",
        numbers={"at_input": start, "at_last_layer": arrives, "share": share, "layers": hidden},
        severity="error" if share < LOST else "warning",
    )


def _explosion(
    ends: list[LayerRecord], way: list[LayerRecord], start: float, rows: int, trained: bool
) -> Iterator[Finding]:
    reference = max(start, 1.0)
    largest = strongest([way[-1], *ends], _reached)
    assert largest is not None
    share = _reached(largest) / reference
    if not share > (FAR_EXPLODED if trained else EXPLODED):
        return
    beyond = [layer for layer in way if layer.output.variation > EXPLODED * reference]
    yield EXPLODING_ACTIVATIONS.found(
        (beyond or [largest])[0].label,
        f"Rows differ by {start:.2g} at the input and by {_reached(largest):.2g} at {largest.label}, after "
        f"{counted(len(way), 'layer')}{a_layer(share, len(way))} (standard deviations over {rows} rows).",
        numbers={"at_input": start, "at_output": _reached(largest), "share": share, "layers": len(way)},
        severity="error" if share > FAR_EXPLODED else "warning",
    )


def _reached(layer: LayerRecord) -> float:
    """Before or behind an output layer, whose weights may start small."""
    sizes = [size for size in (taken(layer).variation, layer.output.variation) if not math.isnan(size)]
    return max(sizes, default=math.nan)


def _is_cut(layers: Sequence[LayerRecord]) -> bool:
    """Whether nothing arrives for another reason: zero weights, or a layer of dead units."""
    zero = any(each.norm == 0 for layer in layers if has_weights(layer) for each in matrices(layer))
    return zero or any(layer.dead_units == layer.units for layer in layers)


FAULTS: tuple[Fault, ...] = (COLLAPSING_ACTIVATIONS, EXPLODING_ACTIVATIONS)
CHECKS: tuple[Check, ...] = (collapsing_and_exploding_activations,)
