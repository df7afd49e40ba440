"""A network's layers as a table in the terminal: how large the signal is, how it is spread, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

# Of eight heights, and their likeness where the output knows ASCII only.
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_WIDTH = 16


def layers_text(layers: Sequence[dict[str, Any]], *, ascii_only: bool = False) -> Table:
    """One row a layer, from the input to the output.

    Args:
        layers: each as :meth:`lastlayer.diagnosis.LayerRecord.to_dict` gives it.
        ascii_only: letters instead of bars.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading, justify in (
        ("layer", "left"),
        ("std", "right"),
        ("outputs", "left"),
        ("flat", "right"),
        ("std of gradient", "right"),
        ("gradients", "left"),
    ):
        table.add_column(heading, justify=justify, no_wrap=heading != "layer")  # type: ignore[arg-type]
    for layer in layers:
        output, gradient = layer["output"], layer["gradient"]
        flat = "" if layer["saturated"] is None else f"{100 * layer['saturated']:.0f}%"
        table.add_row(
            Text(_name(layer)),
            _figure(output),
            histogram(output["counts"], ascii_only=ascii_only),
            flat,
            _figure(gradient),
            "" if gradient is None else histogram(gradient["counts"], ascii_only=ascii_only),
        )
    return table


def histogram(counts: Sequence[int], *, width: int = _WIDTH, ascii_only: bool = False) -> str:
    """Bars from the smallest value to the largest, the fullest of full height.

    Args:
        counts: of equally wide bins, at least ``width`` of them.
        width: how many characters.

    Example:
        >>> histogram([0, 1, 2, 4, 8, 4, 2, 1], width=4, ascii_only=True)
        '.=@:'
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    edges = [len(counts) * place // width for place in range(width + 1)]
    # By the mean of its bins: not every character stands for as many.
    heights = [sum(counts[left:right]) / (right - left) for left, right in pairwise(edges)]
    most = max(heights) or 1.0
    # Whatever is not empty shows.
    return "".join(bars[0 if height == 0 else max(1, round(8 * height / most))] for height in heights)


def _name(layer: dict[str, Any]) -> str:
    """``2 ReLU`` for a module, ``relu`` for a function called in the network's own forward."""
    own = layer["kind"].lower().replace("_", "") == layer["name"].replace("_", "") or layer["role"] == "weight"
    return f"{layer['module']} {layer['kind'] if own else layer['name']}".strip()


def _figure(signal: dict[str, Any] | None) -> str:
    if signal is None:
        return ""
    return "–" if signal["std"] is None else f"{signal['std']:.2g}"
