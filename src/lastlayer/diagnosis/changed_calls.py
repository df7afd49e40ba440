"""A call with other arguments: how the doctor tries whether a refused one would work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lastlayer.diagnosis.tensors import each

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: A call's arguments, by position and by name, to others.
Change = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]


def first(change: Callable[[Tensor], Tensor]) -> Change:
    """Changes the first argument."""

    def changed(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
        if args:
            return (change(args[0]), *args[1:]), keywords
        name = next(name for name, value in keywords.items() if isinstance(value, Tensor))
        return args, {**keywords, name: change(keywords[name])}

    return changed


def every(change: Callable[[Tensor], Tensor]) -> Change:
    """Changes every tensor."""
    return lambda args, keywords: each((args, keywords), change)


def widened(weight: int, axis: int, like: int = -1, *, flat: bool = False) -> Change:
    """Gives the weight at one place the width of the input.

    Args:
        weight: its place among the arguments.
        axis: which axis of it is the input's.
        like: the axis of the input that it is to match.
        flat: whether the input is flattened first.
    """

    def changed(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
        x = args[0].flatten(1) if flat else args[0]
        shape = list(args[weight].shape)
        shape[axis] = x.shape[like]
        other = torch.randn(shape, dtype=args[weight].dtype, device=args[weight].device) * shape[axis] ** -0.5
        return (x, *args[1:weight], other, *args[weight + 1 :]), keywords

    return changed


def resized(length: int) -> Change:
    """Gives every vector another length."""
    return every(lambda tensor: tensor.new_ones(length) if tensor.dim() == 1 else tensor)


def with_option(name: str, place: int, value: Any) -> Change:
    """Sets an argument, wherever it stands."""

    def changed(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
        if len(args) > place:
            return (*args[:place], value, *args[place + 1 :]), keywords
        return args, {**keywords, name: value}

    return changed


def option(args: tuple[Any, ...], keywords: dict[str, Any], name: str, place: int, default: Any) -> Any:
    """An argument, wherever it stands."""
    return keywords.get(name, args[place] if len(args) > place else default)
