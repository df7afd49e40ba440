"""Modules that are evaluated hundreds of times and are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class State:
    """Attributes, buffers and the registers of parameters and submodules, as they are now.

    Nothing that a module owns is ever written to: a parameter or buffer lends its name to another tensor's numbers for
    one evaluation, and has its own back afterwards, bit for bit.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        everything = {id(part): part for module in modules for part in module.modules()}.values()
        self._attributes = [(part, dict(vars(part))) for part in everything]
        names = ("_parameters", "_buffers", "_modules")
        self._registers = [(vars(part)[name], dict(vars(part)[name])) for part in everything for name in names]
        buffers = {id(buffer): buffer for part in everything for buffer in part.buffers(recurse=False)}
        self._buffers = [(buffer, buffer.data) for buffer in buffers.values()]

    def renew(self) -> None:
        """Everything as it was, for one evaluation, with copies of the buffers to write to."""
        self.restore()
        for buffer, data in self._buffers:
            buffer.data = data.clone()

    def restore(self) -> None:
        """Everything as it was."""
        for part, attributes in self._attributes:
            vars(part).clear()
            vars(part).update(attributes)
        for register, entries in self._registers:
            register.clear()
            register.update(entries)
        for buffer, data in self._buffers:
            buffer.data = data


@contextmanager
def kept(state: State, devices: Iterable[torch.device]) -> Iterator[None]:
    """The modules' state and the random generators, restored at the end, whatever happens."""
    with torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]), torch.enable_grad():
        try:
            yield
        finally:
            state.restore()


@contextmanager
def in_place_of(tensors: dict[str, Tensor], moved: dict[str, Tensor]) -> Iterator[None]:
    """Some tensors with the numbers of others, for as long as it lasts."""
    own = {name: tensor.data for name, tensor in tensors.items()}
    try:
        for name, tensor in tensors.items():
            if moved[name] is not tensor:
                tensor.data = moved[name].detach()
        yield
    finally:
        for name, tensor in tensors.items():
            tensor.data = own[name]
