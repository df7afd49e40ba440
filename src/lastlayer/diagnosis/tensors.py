"""Tensors inside of arguments, results and objects, and what can be asked of any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

# How far into a result that is no tensor, list or dictionary tensors are looked for: a distribution of distributions.
_DEPTH = 4


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)


def tensors_within(values: Any, depth: int = _DEPTH) -> Iterator[Tensor]:
    """The same, and those in the attributes of any other object: a result class, a distribution."""
    if isinstance(values, Tensor):
        yield values
    elif depth > 0 and not isinstance(values, nn.Module | type):
        inside: Iterable[Any] = values if isinstance(values, list | tuple | set) else ()
        if isinstance(values, dict):
            inside = values.values()
        for value in (*inside, *_attributes(values)):
            yield from tensors_within(value, depth - 1)


def _attributes(thing: Any) -> Iterator[Any]:
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(thing, name, None)
    yield from getattr(thing, "__dict__", {}).values()


def has_numbers(tensor: Tensor) -> bool:
    """Not a stand-in of a transform such as ``torch.vmap``, which does not outlive it, nor of a lazy module."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not wrapped and not isinstance(tensor, UninitializedParameter | UninitializedBuffer)


def detached(tensor: Tensor, *, copied: bool = False) -> Tensor | None:
    """The numbers without the graph; ``None`` where there are none that last."""
    if not has_numbers(tensor):
        return None
    return tensor.detach().clone() if copied else tensor.detach()


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape, empty where it is not known."""
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # Of a nested tensor, or of a lazy parameter that has none yet.
        return ()


def memory_of(tensor: Tensor) -> int | None:
    """Where the numbers lie; ``None`` where they are nowhere, or in more than one place."""
    if not has_numbers(tensor):
        return None
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None


def each(values: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same arguments, every tensor changed."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {name: each(value, change) for name, value in values.items()}
    if isinstance(values, list):
        return [each(value, change) for value in values]
    if isinstance(values, tuple):
        return tuple(each(value, change) for value in values)
    return values
