"""Layers that multiply by a weight, whatever they are called: its layout and its fans."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lastlayer.activations import Maxout
from lastlayer.networks import Linear, SharedLinear

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LOOK_UPS = (nn.Embedding, nn.EmbeddingBag)
#: PyTorch's own that start by rules of their own, and are left alone.
KEEPS_ITS_OWN = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)


@dataclass(frozen=True)
class Blocks:
    """A weight as matrices side by side, one for every group of channels, member or piece.

    Attributes:
        count: how many matrices.
        outputs, inputs: of each.
        kernel: positions of the kernel, 1 without; each input comes in as often.
        transposed: whether the inputs come before the outputs in memory.
        steps: the product of the strides of a transposed convolution: one output in so many sees a kernel position.
    """

    count: int
    outputs: int
    inputs: int
    kernel: int = 1
    transposed: bool = False
    steps: int = 1

    @property
    def fan_in(self) -> float:
        """How many products are added up in one output; for a transposed convolution on average, away from the edge."""
        return self.inputs * self.kernel / self.steps

    @property
    def fan_out(self) -> float:
        """How many outputs one input goes into, with stride 1. Only one piece of a maxout unit counts: the largest."""
        return self.outputs * self.kernel

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The shape (count, outputs, inputs · kernel)."""
        return self.count, self.outputs, self.inputs * self.kernel

    def laid_out(self, matrices: Tensor, shape: torch.Size) -> Tensor:
        """Matrices as the weight of this shape."""
        blocks = matrices.reshape(self.count, self.outputs, self.inputs, self.kernel)
        return (blocks.transpose(1, 2) if self.transposed else blocks).reshape(shape)

    def sums(self, weight: Tensor) -> Tensor:
        """What every output makes of inputs that are all 1, ``(count, outputs)``."""
        into, out = (1, 2) if self.transposed else (2, 1)
        sizes = {into: self.inputs, out: self.outputs}
        return weight.reshape(self.count, sizes[1], sizes[2], self.kernel).sum((into, 3)) / self.steps


@dataclass(frozen=True)
class Layer:
    """A layer of a network that has a weight to start.

    Attributes:
        name: as ``named_modules`` spells it.
        module: the layer.
        blocks: how its weight is laid out.
    """

    name: str
    module: nn.Module
    blocks: Blocks

    @property
    def kind(self) -> str:
        """The class's name; a parametrized module is of a class made for it, on top of its own."""
        return type(self.module).__mro__[1 if parametrize.is_parametrized(self.module) else 0].__name__

    @property
    def weight(self) -> Tensor:
        """The weight; of a parametrized layer as it is computed now."""
        weight = weight_of(self.module)
        assert weight is not None
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias, if there is one that learns."""
        bias = self.module._parameters.get("bias")
        return bias if isinstance(bias, nn.Parameter) and bias.requires_grad else None

    @property
    def looks_up(self) -> bool:
        """Whether it takes rows of its weight and adds up nothing, as an embedding does."""
        return isinstance(self.module, _LOOK_UPS)

    @property
    def parametrized(self) -> bool:
        """Whether the weight is computed from something else, as weight normalization does."""
        return parametrize.is_parametrized(self.module, "weight")

    @property
    def left_because(self) -> str | None:
        """Why the weight is to stay as it is; ``None`` if it may be started."""
        if not any(own.requires_grad for own in self._learned()):
            return "frozen"
        if self.parametrized and not all(hasattr(each, "right_inverse") for each in self._parametrizations()):
            return "computed by a parametrization that has no right_inverse"
        return None

    @property
    def identity(self) -> tuple[int, ...]:
        """The same for layers that are tied, and for no others."""
        return tuple(id(own) for own in self._learned())

    @torch.no_grad()
    def write(self, weight: Tensor) -> None:
        """Sets the weight; of a parametrized layer, what it is computed from."""
        if self.parametrized:
            self.module.weight = weight.to(self.weight)
        else:
            self.weight.copy_(weight)

    def _learned(self) -> list[nn.Parameter]:
        """What the weight is, or is computed from."""
        if self.parametrized:
            return list(self._parametrizations().parameters())
        weight = self.module._parameters["weight"]
        assert weight is not None
        return [weight]

    def _parametrizations(self) -> parametrize.ParametrizationList:
        """The steps from what is learned to the weight."""
        steps = self.module.parametrizations
        assert isinstance(steps, nn.ModuleDict)
        of_weight = steps["weight"]
        assert isinstance(of_weight, parametrize.ParametrizationList)
        return of_weight


def layer_of(name: str, module: nn.Module, *, any_weight: bool = False) -> Layer | None:
    """The module as a layer, or ``None`` if it is none that is known.

    Args:
        any_weight: whether a module of any other class counts that has a ``weight`` of two axes or more, which is then
            taken as PyTorch lays weights out, (outputs, inputs, ...).
    """
    weight = weight_of(module)
    if weight is None or isinstance(module, KEEPS_ITS_OWN):
        return None
    blocks = _blocks_of(module, weight)
    if blocks is None and any_weight:
        blocks = plain_blocks(weight.shape)
    return None if blocks is None else Layer(name, module, blocks)


def plain_blocks(shape: torch.Size) -> Blocks:
    """One matrix laid out as (outputs, inputs, ...), the rest being the kernel."""
    return Blocks(1, shape[0], shape[1], math.prod(shape[2:]))


def weight_of(module: nn.Module) -> Tensor | None:
    """The module's ``weight`` of two axes or more, if it can be written: a parameter, or a parametrized one."""
    if "weight" not in module._parameters and not parametrize.is_parametrized(module, "weight"):
        return None
    weight = module.weight
    return weight if isinstance(weight, Tensor) and weight.dim() >= 2 and weight.is_floating_point() else None


def _blocks_of(module: nn.Module, weight: Tensor) -> Blocks | None:
    shape = weight.shape
    if isinstance(module, Linear):
        return Blocks(module.members or 1, module.units, module.inputs)
    if isinstance(module, (nn.Linear, SharedLinear)):
        return Blocks(1, shape[0], shape[1])
    if isinstance(module, Maxout):
        return Blocks(module.pieces, shape[0] // module.pieces, shape[1])
    if isinstance(module, _CONVOLUTIONS):
        return Blocks(module.groups, shape[0] // module.groups, shape[1], math.prod(shape[2:]))
    if isinstance(module, _TRANSPOSED):
        steps = math.prod(module.stride)
        return Blocks(module.groups, shape[1], shape[0] // module.groups, math.prod(shape[2:]), True, steps)
    if isinstance(module, _LOOK_UPS):
        # A row is an input of its own; nothing is added up.
        return Blocks(shape[0], shape[1], 1)
    return None
