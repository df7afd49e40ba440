"""What reaches the first layers with weights: the inputs as the network learns from them, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import Pass, Subject
from lastlayer.diagnosis.trace import tensors_in

#: A column that is 0 on more rows than this is sparse: its mean and its spread say little of it.
SPARSE = 0.5
# Numbers that means and spreads are taken of: of more, every so-manieth sample stands for all.
_MOST_NUMBERS = 2**22
# Operations that leave every number as it is.
_RESHAPES = frozenset(["flatten", "view", "reshape", "squeeze", "unsqueeze", "to", "float", "contiguous"])


@dataclass(frozen=True)
class Arrival:
    """What one first layer takes, one column per input or channel.

    Attributes:
        operation: the layer's.
        columns: shape (samples, d), float64; positions of images and sequences count as samples.
        low, high: of each column, over all samples.
        rows: how many rows of the batch they come from.
        image: whether columns are the channels of images or signals.
        embedded: whether embeddings are among them, whose numbers are learned.
        untouched: whether it is an input of the network as the user gave it, so that columns are the user's.
        behind: the name of the normalization that comes directly after the layer; ``""`` for none.
    """

    operation: Operation
    columns: Tensor
    low: Tensor
    high: Tensor
    rows: int
    image: bool
    embedded: bool
    untouched: bool
    behind: str

    @property
    def where(self) -> str:
        """As a finding names it."""
        layer = self.operation.label
        return f"the inputs of {layer}" if self.untouched else f"what reaches {layer}"

    @property
    def loses_scale(self) -> bool:
        """Whether a normalization behind the layer takes a common scale of all columns out again."""
        return self.behind != ""

    @property
    def loses_offset(self) -> bool:
        """Whether a normalization behind the layer, over the rows or positions, takes the columns' means out again."""
        return self.behind in ("batch_norm", "instance_norm")

    @cached_property
    def mean(self) -> Tensor:
        """Of each column."""
        return self.columns.mean(0)

    @cached_property
    def std(self) -> Tensor:
        """Of each column, 0 for one that varies by rounding alone."""
        std = self.columns.std(0, correction=0)
        rounding = 1e-7 * torch.maximum(self.low.abs(), self.high.abs())
        return std.where(std > rounding, 0.0)

    @cached_property
    def constant(self) -> Tensor:
        """Which columns are the same in all samples, but for rounding."""
        return self.high - self.low <= 1e-6 * torch.maximum(self.low.abs(), self.high.abs())

    @cached_property
    def size(self) -> Tensor:
        """Of each column, the root mean square of what is not 0: 1 of a one-hot column, however rare; 0 if all is 0."""
        present = (self.columns != 0).sum(0).clamp_min(1)
        return (self.columns.square().sum(0) / present).sqrt()

    @cached_property
    def dense(self) -> Tensor:
        """Which columns vary, are not sparse, and hold more than two values."""
        zeros = (self.columns == 0).double().mean(0)
        two_values = ((self.columns == self.low) | (self.columns == self.high)).all(0)
        return (zeros <= SPARSE) & ~two_values & (self.std > 0)

    @property
    def noun(self) -> str:
        """What a column is called."""
        return "channel" if self.image else "column"


def arrivals(subject: Subject) -> list[Arrival]:
    """What every first layer takes, in the order of the forward pass; made once for a subject.

    A first layer has no other layer with weights before it but embeddings. What is done to the inputs on the way
    (scaling, batch normalization, the codes of columns) is done when it is looked at.

    Special cases: integers, numbers that are not finite, and layers that look at something else than rows of the batch
    are left out.
    """
    if "arrivals" not in subject.shared:
        subject.shared["arrivals"] = list(_arrivals(subject.training_pass, subject.rows))
    found: list[Arrival] = subject.shared["arrivals"]
    return found


def _arrivals(made: Pass, rows: int) -> Iterator[Arrival]:
    parameters = {parameter.untyped_storage().data_ptr() for parameter in made.network.parameters()}
    for operation in made.with_role("weight"):
        if operation.name == "embedding" or any(
            earlier.role == "weight" and earlier.name != "embedding" for earlier in operation.ancestors()
        ):
            continue
        taken = _taken(operation, parameters)
        if taken is None or rows < 2 or not any(size and size % rows == 0 for size in taken.shape[:2]):
            continue
        image = operation.name.startswith("conv")
        columns = _columns(taken, spatial=int(operation.name[-2]) if image else 0)
        if columns is None or len(columns) < 2:
            continue
        low, high = (end.double() for end in columns.aminmax(dim=0))
        if bool((high - low).isfinite().all()):
            shown = columns[:: max(1, columns.numel() // _MOST_NUMBERS)].double()
            before = {earlier.name for earlier in operation.ancestors()}
            yield Arrival(
                operation,
                shown,
                low,
                high,
                rows,
                image,
                embedded="embedding" in before,
                untouched=before <= _RESHAPES,
                behind=_normalization_behind(operation),
            )


def _taken(operation: Operation, parameters: set[int]) -> Tensor | None:
    """The first tensor among the arguments that is no parameter."""
    if operation.arguments or operation.keywords:
        given: Iterable[Any] = tensors_in((operation.arguments, operation.keywords))
        return next((one for one in given if one.untyped_storage().data_ptr() not in parameters), None)
    return operation.input


def _columns(taken: Tensor, *, spatial: int) -> Tensor | None:
    """Samples and columns; ``None`` for what has none."""
    if not taken.is_floating_point() or taken.dim() < 2 or taken.numel() == 0:
        return None
    if spatial:
        taken = taken.movedim(-1 - spatial, -1)
    return taken.reshape(-1, taken.shape[-1])


def _normalization_behind(operation: Operation) -> str:
    """The normalization that alone reads the layer's output."""
    children = {child.index: child for child in operation.children if not child.within_loss}
    if len(children) != 1:
        return ""
    (child,) = children.values()
    return child.name if child.role == "normalization" and child.name != "local_response_norm" else ""


def most_of(flags: Tensor) -> bool:
    """Whether more than half of them hold."""
    return bool(flags.double().mean() > 0.5) if flags.numel() else False


def shown(places: Tensor, noun: str, most: int = 5) -> str:
    """``column 3``, ``columns 0, 1 and 4``, ``12 columns (0, 1, 2, 3, 4, …)``, counted from 0."""
    names = [str(place) for place in places.reshape(-1).tolist()]
    if len(names) == 1:
        return f"{noun} {names[0]}"
    if len(names) <= most:
        return f"{noun}s {', '.join(names[:-1])} and {names[-1]}"
    return f"{len(names)} {noun}s ({', '.join(names[:most])}, …)"
