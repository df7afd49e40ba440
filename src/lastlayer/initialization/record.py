"""What an initialization did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

_HEADINGS = ("layer", "kind", "reads", "rule", "fan-in", "gain", "std", "bias", "output std")
_NUMBERS = _HEADINGS[4:]


@dataclass(frozen=True)
class LayerStart:
    """How one layer starts.

    Attributes:
        name: as ``named_modules`` spells it.
        kind: its class.
        reads: what sets the scale of its input: "the input", an activation, a normalization, or a layer's name.
        rule: how its weight was drawn.
        fan_in, fan_out: how many products an output adds up, how many outputs an input goes into.
        gain: that of what it reads; 1 where the rule takes none.
        std: the standard deviation that the weight's elements were given.
        bias: what its bias started at, before the center of a sigmoid was taken away; ``None`` if it has none, or if
            it is the head's constant.
        output_std: what was measured on the batch in the end, of LSUV.
    """

    name: str
    kind: str
    reads: str
    rule: str
    fan_in: float
    fan_out: float
    gain: float
    std: float
    bias: float | None
    output_std: float | None = None

    def _cells(self) -> tuple[str, ...]:
        bias = "" if self.bias is None else f"{self.bias:g}"
        output = "" if self.output_std is None else f"{self.output_std:.4g}"
        numbers = (f"{self.fan_in:g}", f"{self.gain:.4g}", f"{self.std:.4g}", bias, output)
        return (self.name or "(all)", self.kind, self.reads, self.rule, *numbers)


@dataclass(frozen=True)
class Initialization:
    """What ``initialize`` did; ``print`` shows it as a table.

    Attributes:
        layers: the layers that were started, in module order.
        notes: what else is worth knowing, a sentence each: what was left as it was, and why.
    """

    layers: tuple[LayerStart, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [_HEADINGS, *(layer._cells() for layer in self.layers)]
        if all(layer.output_std is None for layer in self.layers):
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
                for cell, width, heading in zip(row, widths, _HEADINGS, strict=False)
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self.notes])
