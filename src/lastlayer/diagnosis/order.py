"""Which layers come first, which last, and the way the signal takes between them, from the records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lastlayer.diagnosis.layers import LayerRecord, ParameterRecord, Signal

#: With fewer rows a network that is right may well look as one that is not, and nothing is said: each unit may be flat
#: on all of them, and batch normalization of two leaves no gradient.
FEW_ROWS = 8


def has_weights(layer: LayerRecord) -> bool:
    """Whether the layer multiplies a signal by weights; a look-up does not."""
    return layer.role == "weight" and layer.name != "embedding" and layer.input is not None


def matrices(layer: LayerRecord) -> list[ParameterRecord]:
    """Its parameters that multiply a signal, without biases."""
    known = [parameter for parameter in layer.parameters if parameter.units_differ is not None]
    return known or [parameter for parameter in layer.parameters if len(parameter.shape) > 1]


def depths(layers: Sequence[LayerRecord]) -> list[int]:
    """How many layers with weights lie on the longest way from an input through each record, itself included."""
    found: list[int] = []
    for layer in layers:
        before = max((found[source] for source in layer.sources), default=0)
        found.append(before + has_weights(layer))
    return found


def first_weights(layers: Sequence[LayerRecord]) -> list[LayerRecord]:
    """Those that no other weights come before."""
    return [layer for layer, depth in zip(layers, depths(layers), strict=True) if has_weights(layer) and depth == 1]


def last_weights(layers: Sequence[LayerRecord]) -> list[LayerRecord]:
    """Those that no other weights come after: the output layers."""
    return [layer for layer in layers if has_weights(layer) and not layer.hidden]


def strongest(layers: Sequence[LayerRecord], of: Callable[[LayerRecord], float]) -> LayerRecord | None:
    """The layer of which a figure is largest; NaN counts for nothing."""
    known = [layer for layer in layers if not math.isnan(of(layer))]
    return max(known, key=of, default=None)


def taken(layer: LayerRecord) -> Signal:
    """What a layer with weights takes."""
    assert layer.input is not None
    return layer.input


def way_back(layers: Sequence[LayerRecord], end: LayerRecord) -> list[LayerRecord]:
    """From a layer back to an input, each time through the source whose output varies most from row to row."""
    way = [end]
    while True:
        before = strongest([layers[source] for source in way[-1].sources], lambda layer: layer.output.variation)
        if before is None:
            return way
        way.append(before)


def name_of(layers: Sequence[LayerRecord], layer: LayerRecord) -> str:
    """Its label; of a function that forward calls, perhaps more than once, with the layer before it."""
    before = [layers[source].label for source in layer.sources]
    return f"{layer.label}, after {before[0]}" if " in " in layer.label and before else layer.label


def counted(count: int, what: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def a_layer(share: float, count: int) -> str:
    """What a share over so many layers is for each."""
    return f", a factor of {share ** (1 / count):.2g} a layer" if count > 1 and share > 0 else ""
