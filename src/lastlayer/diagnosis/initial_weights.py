"""Do the units of a layer start alike? Then they stay alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.fresh_start import tried_fresh_start
from lastlayer.diagnosis.layers import LayerRecord, ParameterRecord, layers_of, shared_layers
from lastlayer.diagnosis.order import last_weights, taken
from lastlayer.diagnosis.subject import Subject

CONSTANT_WEIGHTS = Fault(
    name="constant_weights",
    title="units that start alike",
    severity="error",
    why="Units with the same weights give the same output and get the same gradient: every step leaves them alike, and "
    "a layer of any width does what one unit could.",
    fix="Draw the weights at random: lastlayer.initialize(network).",
    reference="SPEC E3, F",
)

#: The same numbers, but for rounding of what they were computed from: a difference of this share of the largest weight
#: is ten of float32's last places. Noise that is meant to tell units apart is thousands of times as large.
ALIKE = 1e-6
#: Gradients of units that are alike differ by the order in which a kernel adds up, in half precision by some last
#: places; those of units that are told apart differed by 1 % and more in every network measured.
GRADIENTS_ALIKE = 1e-3


def constant_weights(subject: Subject) -> Iterator[Finding]:
    """Layers whose units start alike, with what a random start does on a copy."""
    layers = shared_layers(subject)
    if any(operation.role == "dropout" for operation in subject.training_pass.of_network):
        # What only the chance of dropout tells apart is alike all the same.
        layers = layers_of(subject.evaluation_pass, rows=subject.rows)
    for finding in judge_weights(layers, rows=subject.rows):
        yield tried_fresh_start(subject, finding)


def judge_weights(layers: Sequence[LayerRecord], *, rows: int) -> list[Finding]:
    """Hidden layers whose units have the same weights, and get the same gradient.

    Zeros are left alone where they are a way to start: in an output layer, and in a branch beside a path that carries
    the signal. The gradient then tells the units apart, or the signal reaches the output by another way.
    """
    cut = _nothing_passes(layers)
    learning = any(each.gradient_norm is not None for layer in layers for each in layer.parameters)
    alike: list[tuple[LayerRecord, ParameterRecord, bool]] = []
    for layer in layers:
        for parameter in layer.parameters if layer.role == "weight" and layer.hidden else ():
            frozen = learning and parameter.gradient_norm is None
            if frozen or parameter.units < 2 or parameter.units_differ is None or parameter.units_differ > ALIKE:
                continue
            pulled_apart = (parameter.gradients_differ or 0.0) > GRADIENTS_ALIKE
            if parameter.norm > 0 and not (pulled_apart and _one_channel_each(layer, parameter)):
                alike.append((layer, parameter, pulled_apart or _biases_differ(layer)))
            elif parameter.norm == 0 and cut and not pulled_apart:
                alike.append((layer, parameter, _biases_differ(layer)))
    if not alike:
        return []
    told_apart = all(apart for _, _, apart in alike)
    layer, parameter, _ = next((each for each in alike if not each[2]), alike[0])
    same = "0" if parameter.norm == 0 else "the same"
    others = f", and likewise in {len(alike) - 1} more" if len(alike) > 1 else ""
    severity: Severity = "error"
    if told_apart:
        effect = "Only their biases, or the layers behind, tell them apart"
        severity = "warning" if len(alike) == _hidden_matrices(layers) else "note"
    elif parameter.gradient_norm is None:
        effect = "Nothing tells them apart"
    else:
        effect = "Their gradients are alike too, so that no step tells them apart"
    return [
        CONSTANT_WEIGHTS.found(
            layer.label,
            f"The weights {parameter.name!r} of all {parameter.units} units are {same}{others}. {effect}.",
            severity=severity,
            numbers={"units": parameter.units, "layers": len(alike), "weight_norm": parameter.norm},
        )
    ]


def _nothing_passes(layers: Sequence[LayerRecord]) -> bool:
    """Whether the output layers take the same numbers whatever the row."""
    variations = [taken(layer).variation for layer in last_weights(layers)]
    return bool(variations) and all(variation == 0 for variation in variations)


def _hidden_matrices(layers: Sequence[LayerRecord]) -> int:
    return sum(each.units > 1 for layer in layers if layer.hidden for each in layer.parameters)


def _biases_differ(layer: LayerRecord) -> bool:
    return any(len(parameter.shape) == 1 and parameter.std > 0 for parameter in layer.parameters)


def _one_channel_each(layer: LayerRecord, parameter: ParameterRecord) -> bool:
    """A convolution of every channel by itself: the same filter for all of them is a way to start, as a blur."""
    return layer.name.startswith("conv") and len(parameter.shape) > 2 and parameter.shape[1] == 1 < layer.units


FAULTS: tuple[Fault, ...] = (CONSTANT_WEIGHTS,)
CHECKS: tuple[Check, ...] = (constant_weights,)
