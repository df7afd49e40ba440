"""For distributions whose parameter has one axis more than their shape, its last: of classes, of knots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lastlayer.distributions.distribution import Distribution, check_parameters


def index_before_last_axis(index: Any) -> Any:
    """The index that does to the axes before the last what ``index`` says, and leaves the last as it is."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is Ellipsis for part in parts):
        return (*parts, slice(None))
    return (*parts, Ellipsis, slice(None))


def map_before_last_axis(distribution: Distribution, change: Callable[[Tensor], Tensor], parameter: Tensor) -> Tensor:
    """A change that only knows the axes before the last, made to every slice along the last.

    Raises:
        ShapeError, KindError: if it makes slices of different shapes or dtypes of them.
    """
    slices = [change(part) for part in parameter.unbind(dim=-1)]
    check_parameters(distribution, **{f"slice {index}": part for index, part in enumerate(slices)})
    return torch.stack(slices, dim=-1)
