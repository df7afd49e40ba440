"""Do the units of a layer still react? Dead ones give the same on all rows, saturated ones nearly the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.fresh_start import tried_fresh_start
from lastlayer.diagnosis.layer_figures import FLAT, NEARLY_ALL
from lastlayer.diagnosis.layers import LayerRecord, shared_layers
from lastlayer.diagnosis.order import FEW_ROWS, has_weights, last_weights, name_of, taken
from lastlayer.diagnosis.subject import Subject

DEAD_UNITS = Fault(
    name="dead_units",
    title="units on the flat side for all rows",
    severity="warning",
    why="Where an activation is flat no gradient passes: a unit that lies there for every row learns no more, and what "
    "it could have said is missing. It comes of biases far below 0, or of a step that was too large.",
    fix="Start biases at 0 or a little above (lastlayer.initialize(network, bias=0.01)), lower the learning rate, or "
    "take an activation that is flat nowhere: leaky ReLU.",
    reference="SPEC F; A. L. Maas, A. Y. Hannun, A. Y. Ng, ICML (2013)",
)
SATURATED_UNITS = Fault(
    name="saturated_units",
    title="units at the ends of their range",
    severity="warning",
    why="A sigmoid or a tanh is flat at both ends, where the gradient that passes is a hundredth or less: the weights "
    "before it hardly move. It comes of weights or inputs that are too large.",
    fix="Draw the weights by Xavier's rule, lastlayer.initialize(network), or put a normalization before the units.",
    reference="SPEC E3, F; X. Glorot, Y. Bengio, AISTATS (2010)",
)

#: Share of a layer's units, where what is left is less than half of the layer that was meant. Up to a third was dead
#: in networks that learn well: deep ones before training, ones with a large learning rate after it.
DEAD = 0.5
#: Good to know, and no more.
SOME_DEAD = 0.25
#: Random weights give as many units that are never flat as units that always are, the more the less rows differ: by
#: chance, then, and the first steps shift it. Dead ones beyond that, in standard deviations of a fair coin.
BEYOND_CHANCE = 3.0
#: With so many rows a unit that reacts to more than 5 % of them was seen to. Fewer show no more than a note.
ENOUGH_ROWS = 64
#: Share of a layer's outputs on flat parts before training. Weights that keep the variance give 0 to 0.05. With tanh
#: units on 40 % and more, Adam needed three times as many steps; on two thirds, twenty times and more.
SATURATED = 0.4
#: Beyond this size inputs saturate units whatever rule the weights were drawn by: of a tanh a third would be.
LARGE_INPUT = 3.0
#: With this share at the ends a layer is a code of bits that no gradient changes.
SATURATED_WHOLLY = 0.9
#: The standard deviation of a gate, in units of its range, that is shut for one row in fourteen, or open for one.
SWITCHING = 0.25


def dead_and_saturated_units(subject: Subject) -> Iterator[Finding]:
    """Which units do not react to the batch, with what another start of the weights does on a copy."""
    for finding in judge_units(shared_layers(subject), rows=subject.rows):
        yield tried_fresh_start(subject, finding)


def judge_units(layers: Sequence[LayerRecord], *, rows: int, trained: bool = False) -> list[Finding]:
    """Layers of which a good part does not react.

    Args:
        trained: whether steps were taken: units may then have come to lie at an end on most rows each, some rows at
            the one and some at the other, because that is what they have learned to tell.
    """
    if rows < FEW_ROWS:
        return []
    hidden = [
        layer
        for place, layer in enumerate(layers)
        if layer.hidden and layer.saturated is not None and _is_alone(layers, place)
    ]
    return [*_dead(layers, hidden, rows), *_saturated(layers, hidden, rows, trained)]


def _is_alone(layers: Sequence[LayerRecord], place: int) -> bool:
    """Whether what it takes goes on through it alone: a PReLU may be written as a ReLU and what it leaves out."""
    own = set(layers[place].sources)
    beside = {source for layer in layers if place in layer.sources for source in layer.sources} - {place}
    return not any(
        other in own or (layers[other].role == "activation" and own & set(layers[other].sources)) for other in beside
    )


def _dead(layers: Sequence[LayerRecord], hidden: list[LayerRecord], rows: int) -> Iterator[Finding]:
    found = [(layer, severity) for layer in hidden if (severity := _how_dead(layers, layer, rows)) is not None]
    for severity in ("error", "warning", "note"):
        own = [layer for layer, its in found if its == severity]
        if own:
            layer = max(own, key=_dead_share)
            dead = layer.dead_units or 0
            yield DEAD_UNITS.found(
                name_of(layers, layer),
                f"{dead} of {layer.units} units of {name_of(layers, layer)} are flat on all {rows} rows{_others(own)}.",
                numbers={"dead": dead, "units": layer.units, "share": _dead_share(layer), "layers": len(own)},
                severity=severity,
            )
            return


def _how_dead(layers: Sequence[LayerRecord], layer: LayerRecord, rows: int) -> Severity | None:
    dead, active, share = layer.dead_units or 0, layer.active_units or 0, _dead_share(layer)
    if not _can_die(layer) or layer.gate or share < SOME_DEAD:
        return None
    beyond_chance = dead - active >= BEYOND_CHANCE * math.sqrt(dead + active)
    if share == 1.0 and (beyond_chance or rows >= ENOUGH_ROWS):
        return "error" if _is_the_only_way(layers) else "warning"
    if not beyond_chance:
        return None
    return "warning" if share >= DEAD and rows >= ENOUGH_ROWS else "note"


def _can_die(layer: LayerRecord) -> bool:
    """Whether it is flat for good: without any slope, or far on the one side where it has less and less."""
    return layer.flat_sides == 1 or layer.name in ("hardtanh", "hardsigmoid")


def _is_the_only_way(layers: Sequence[LayerRecord]) -> bool:
    """Whether the output layers take the same numbers whatever the row."""
    variations = [taken(layer).variation for layer in last_weights(layers)]
    return bool(variations) and all(variation == 0 for variation in variations)


def _saturated(layers: Sequence[LayerRecord], hidden: list[LayerRecord], rows: int, trained: bool) -> Iterator[Finding]:
    own = [layer for layer in hidden if layer.flat_sides == 2 and _is_saturated(layer, trained)]
    if not own:
        return
    layer = max(own, key=lambda layer: _saturated_share(layer, trained))
    share = _saturated_share(layer, trained)
    at_input = _input_size(layers, layer)
    yield SATURATED_UNITS.found(
        name_of(layers, layer),
        f"{layer.saturated:.0%} of the outputs of {name_of(layers, layer)} lie where its slope is below {FLAT:.0%} of "
        f"the steepest, and {layer.saturated_units} of {layer.units} units do so on {NEARLY_ALL:.0%} or more of the "
        f"{rows} rows{_others(own)}.",
        numbers={
            "share": layer.saturated or 0.0,
            "saturated": layer.saturated_units or 0,
            "units": layer.units,
            "layers": len(own),
        },
        severity="error" if share >= SATURATED_WHOLLY else "warning",
        fix=f"Standardize the inputs, whose root mean square is {at_input:.3g}." if at_input > LARGE_INPUT else None,
    )


def _input_size(layers: Sequence[LayerRecord], layer: LayerRecord) -> float:
    """Of the network's inputs, if one layer of weights is all that lies between them and this activation; else 0."""
    before = [layers[source] for source in layer.sources]
    return max((taken(each).rms for each in before if has_weights(each) and not each.sources), default=0.0)


def _is_saturated(layer: LayerRecord, trained: bool) -> bool:
    share = _saturated_share(layer, trained)
    if layer.gate:
        # Meant to be open or shut; but not to switch from row to row before anything was learned.
        switches = layer.output.variation > SWITCHING * (layer.output.maximum - layer.output.minimum)
        return switches and share >= SATURATED_WHOLLY and not trained
    return share >= SATURATED and not (_can_die(layer) and _dead_share(layer) == 1.0)


def _saturated_share(layer: LayerRecord, trained: bool) -> float:
    return (layer.saturated_units or 0) / layer.units if trained else layer.saturated or 0.0


def _dead_share(layer: LayerRecord) -> float:
    return (layer.dead_units or 0) / layer.units


def _others(layers: list[LayerRecord]) -> str:
    more = len(layers) - 1
    return f"; {more} more layer{'s are' if more > 1 else ' is'} alike" if more else ""


FAULTS: tuple[Fault, ...] = (DEAD_UNITS, SATURATED_UNITS)
CHECKS: tuple[Check, ...] = (dead_and_saturated_units,)
