"""What is known of a tensor on its way to the loss: where its numbers can lie, and what made it so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lastlayer.diagnosis.operation import Operation, names
from lastlayer.diagnosis.spans import Span
from lastlayer.diagnosis.trace import tensors_in

#: What adds up to 1 over the classes: probabilities, or what their logarithms stand for.
Normalized = Literal["probabilities", "logarithms"]

LOGARITHMS = names("log log2 log10")
SOFTMAX = names("softmax log_softmax softmin gumbel_softmax")

#: Rows that add up to 1 within this are meant to: what bfloat16's rounding and a guard such as ``log(p + 1e-4)`` leave
#: of a hundred classes.
ROUNDING = 0.02
#: Rows of which nothing else says that they are probabilities have to come this close: scores by chance do not.
NO_CHANCE = 1e-4


@dataclass(frozen=True)
class End:
    """What is known of a tensor.

    Attributes:
        span: where its numbers can lie; ``None`` if that is not known.
        normalized: whether a softmax made it, as probabilities or their logarithms, and nothing has undone that.
        link: the operation that limits its numbers, or the logarithm that they are; ``None`` if there is none.
        before: what is known of that operation's input.
        source: the operation that following back ended at.
        altered: whether arithmetic has made other numbers of what the link gave.
        parts: of tensors that were put beside each other and of which different things are known: each, and what.
    """

    span: Span | None
    normalized: Normalized | None = None
    link: Operation | None = None
    before: End | None = None
    source: Operation | None = None
    altered: bool = False
    parts: tuple[tuple[Tensor, End], ...] = ()

    @property
    def limited(self) -> bool:
        """Whether numbers are known to be out of reach."""
        return self.span is not None and self.span.limited

    @property
    def links(self) -> Iterator[tuple[Operation, End]]:
        """The operations that limit it and what each of them was given, the last first."""
        end: End | None = self
        while end is not None and end.link is not None and end.before is not None:
            yield end.link, end.before
            end = end.before


UNKNOWN = End(None)


def tensor_arguments(operation: Operation) -> Iterator[tuple[int | str, Tensor, Operation | None]]:
    """An operation's tensors, each with its position or name and the operation that made it."""
    parents = iter(operation.parents)
    places: list[tuple[int | str, Any]] = [*enumerate(operation.arguments), *operation.keywords.items()]
    for place, value in places:
        for tensor in tensors_in(value):
            yield place, tensor, next(parents, None)


def first_parent(operation: Operation) -> Operation | None:
    """What made the first tensor that it took."""
    return operation.parents[0] if operation.parents else None


def wide(values: Tensor) -> Tensor:
    """The numbers in a dtype that can be added up: float32 at least."""
    return values.detach() if values.dtype in (torch.float32, torch.float64) else values.detach().float()


def normalized_over(
    values: Tensor, axis: int, kind: Normalized = "probabilities", *, rounding: float = ROUNDING
) -> bool:
    """Whether the numbers add up to 1 along an axis; as logarithms, whether what they stand for does.

    Special cases: no numbers add up to nothing.
    """
    if values.numel() == 0 or not values.is_floating_point() or not bool(values.isfinite().any()):
        return False
    values = wide(values)
    if kind == "logarithms":
        return bool((torch.logsumexp(values, dim=axis).abs() < rounding).all())
    return bool((values >= -rounding).all()) and bool(((values.sum(dim=axis) - 1.0).abs() < rounding).all())
