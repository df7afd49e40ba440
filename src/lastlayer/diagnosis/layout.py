"""Which axis of a tensor is which: rows, units, and the units of a weight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lastlayer.diagnosis.operation import Operation

# Channels stand before the positions: so many axes from the end.
_CHANNELS = {f"conv{way}{n}d": -1 - n for n in (1, 2, 3) for way in ("", "_transpose")}
# Gates, or queries, keys and values, one below the other.
_STACKED = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm")


@dataclass(frozen=True)
class Layout:
    """Where a layer's output has its units.

    Attributes:
        units: the axis of units or channels, from the end.
        members: whether the first axis is that of networks side by side.
    """

    units: int = -1
    members: bool = False

    def unit_axes(self, x: Tensor) -> list[int]:
        """The axes over which units are counted."""
        if x.dim() == 0:
            return []
        units = x.dim() + self.units if x.dim() + self.units >= 0 else x.dim() - 1
        return [0, units] if self.members and x.dim() > 2 and units > 0 else [units]


def layout_of(operation: Operation, before: Layout) -> Layout:
    """The layout of an operation's output, given that of its input: only weights change it."""
    if operation.role != "weight":
        return before
    if operation.name in _CHANNELS:
        return Layout(_CHANNELS[operation.name])
    members = operation.name in ("bmm", "baddbmm") and operation.output is not None and operation.output.dim() == 3
    return Layout(members=members and bool(operation.parameters))


def row_axis(x: Tensor, layout: Layout, rows: int) -> int | None:
    """The axis of the samples: the first with as many entries as there are rows, or a multiple where they are
    flattened together with positions; ``None`` if there is none, or only one row.
    """
    if rows < 2:
        return None
    units = layout.unit_axes(x)
    free = [axis for axis in range(x.dim()) if axis not in units]
    for axis in free:
        if x.shape[axis] == rows:
            return axis
    return 0 if 0 in free and x.shape[0] > 0 and x.shape[0] % rows == 0 else None


def units_of_weight(operation: Operation, name: str, values: Tensor) -> Tensor | None:
    """A parameter, or its gradient, as (blocks, units, weights of a unit); ``None`` if it is no matrix of weights.

    Blocks are what differs by its place alone: gates, members.
    """
    if operation.role != "weight" or operation.name == "embedding" or values.dim() < 2 or values.numel() == 0:
        return None
    if operation.name in _PRODUCTS:
        return _of_product(operation, values)
    if operation.name.startswith("conv_transpose"):
        return values.transpose(0, 1).flatten(1).unsqueeze(0)
    leaf = name.rpartition(".")[2]
    blocks = _STACKED.get(operation.name, 3 if leaf == "in_proj_weight" else 1)
    if operation.name == "einsum" or values.shape[0] % blocks:
        return None
    return values.reshape(blocks, values.shape[0] // blocks, -1)


def _of_product(operation: Operation, values: Tensor) -> Tensor | None:
    """Of ``x @ weight``, or ``x @ weight.T``: units are the columns of the right factor as it is multiplied."""
    tensors = [value for value in (*operation.arguments, *operation.keywords.values()) if isinstance(value, Tensor)]
    if len(tensors) < 2:
        return None
    right = tensors[-1]
    if right.numel() != values.numel() or right.dim() != values.dim():
        return None
    # As stored if the shape and the strides say so; a square one that is transposed has others.
    as_stored = right.shape == values.shape and right.is_contiguous()
    matrices = values.transpose(-1, -2) if as_stored else values
    return matrices.reshape(-1, *matrices.shape[-2:])
