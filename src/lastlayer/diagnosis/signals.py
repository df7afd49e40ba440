"""What is wrong with the signal in a network: the judgments of its layers together."""

from __future__ import annotations

from collections.abc import Sequence

from lastlayer.diagnosis.activations_by_layer import judge_activations
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.gradients_by_layer import judge_gradients
from lastlayer.diagnosis.initial_weights import judge_weights
from lastlayer.diagnosis.layers import LayerRecord
from lastlayer.diagnosis.units import judge_units


def judge_layers(layers: Sequence[LayerRecord], *, rows: int, trained: bool = False) -> list[Finding]:
    """What these records show of weights, activations, gradients and units.

    Args:
        layers: of one pass, as :func:`~lastlayer.diagnosis.layers.record_layers` gives them.
        rows: how many samples the pass had.
        trained: whether the network has been trained on its way there: some of what is wrong at the start is then
            what was learned.
    """
    return [
        *judge_weights(layers, rows=rows),
        *judge_activations(layers, rows=rows, trained=trained),
        *judge_gradients(layers, rows=rows),
        *judge_units(layers, rows=rows, trained=trained),
    ]
