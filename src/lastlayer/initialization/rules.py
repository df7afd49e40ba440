"""The rules by which weights are drawn: constant, normal, Xavier, Glorot, He, orthogonal."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, check_floating, shape_text
from lastlayer.initialization.gains import AnyActivation, Gain, gain_of
from lastlayer.initialization.layers import Blocks, plain_blocks


class Rule(ABC):
    """How a weight starts. An immutable value; its options are plain numbers.

    ``initialize`` applies a rule to a whole network; :meth:`fill` to one tensor, such as the weight of a layer of your
    own.
    """

    name: ClassVar[str]
    #: Whether the gain of what the layer reads counts.
    uses_gain: ClassVar[bool] = False
    #: The activation that is taken to be read where none is seen or named.
    assumes: ClassVar[str] = "identity"

    @abstractmethod
    def std(self, blocks: Blocks, gain: float) -> float:
        """The standard deviation of the weight's elements."""

    def label(self, read: Gain) -> str:
        """What it is called where a layer reads this."""
        return self.name

    def for_look_up(self) -> Rule:
        """The rule for an embedding, which adds up nothing: its rows are what comes out."""
        return Normal(1.0)

    def draw(self, blocks: Blocks, gain: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Matrices of ``blocks.matrices``, of the dtype and device of ``like``; half precision is drawn in float32."""
        normal = standard_normal(blocks.matrices, generator, like)
        return normal.mul_(self.std(blocks, gain))

    @torch.no_grad()
    def fill(
        self,
        weight: Tensor,
        *,
        fan_in: int | None = None,
        activation: AnyActivation | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws one weight in place, and gives it.

        Args:
            weight: of two axes or more, as PyTorch lays weights out, (outputs, inputs, kernel), if ``fan_in`` is not
                given.
            fan_in: how many of its elements go into one output, where the axes lie in another order.
            activation: what the layer's input comes out of; He takes ReLU if none is given, the others none.
            generator: draws the numbers; the global random state is then left alone.

        Raises:
            ShapeError: for fewer than two axes, or a fan that does not divide the weight.

        Example: a weight laid out (inputs, outputs), as layers of one's own may have it.
            >>> weight = He().fill(torch.empty(800, 10), fan_in=800, generator=torch.Generator().manual_seed(0))
            >>> print(f"{weight.std():.3f}")  # √(2/800) is 0.05
            0.050
        """
        check_floating(weight, what="weight")
        if weight.dim() < 2:
            raise ShapeError(f"the weight has shape {shape_text(weight)}; expected two axes or more.")
        if fan_in is None:
            blocks = plain_blocks(weight.shape)
        elif fan_in < 1 or weight.numel() % fan_in:
            raise ShapeError(f"fan_in is {fan_in}, which does not divide a weight of shape {shape_text(weight)}.")
        else:
            blocks = Blocks(1, weight.numel() // fan_in, fan_in, transposed=weight.shape[-1] != fan_in)
        gain = gain_of(self.assumes if activation is None else activation).gain
        drawn = self.draw(blocks, gain, generator, weight)
        return weight.copy_(blocks.laid_out(drawn, weight.shape))


@dataclass(frozen=True)
class Constant(Rule):
    """The same number everywhere. With it all units of a layer are alike, and stay alike: nothing is learned (SPEC E3).

    Raises:
        InputError: for a value that is not finite.
    """

    name = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"the constant is {self.value}; expected a finite number.")

    def std(self, blocks: Blocks, gain: float) -> float:
        return 0.0

    def for_look_up(self) -> Rule:
        return self

    def draw(self, blocks: Blocks, gain: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_full(blocks.matrices, self.value)


@dataclass(frozen=True)
class Normal(Rule):
    """Normal numbers of one standard deviation, whatever the layer: 0.01 lets activations die out with depth, 0.2
    saturates a tanh, at some hundred units a layer (SPEC E3, E4).

    Raises:
        InputError: for a standard deviation that is negative or not finite.
    """

    name = "normal"
    deviation: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < math.inf:
            raise InputError(f"the standard deviation is {self.deviation}; expected a number of 0 or more.")

    def std(self, blocks: Blocks, gain: float) -> float:
        return self.deviation

    def for_look_up(self) -> Rule:
        return self


@dataclass(frozen=True)
class Xavier(Rule):
    """Variance ``1 / D_in``, as the lecture has it: keeps the variance of what is centered at 0.

    Reference: SPEC E3.
    """

    name = "xavier"

    def std(self, blocks: Blocks, gain: float) -> float:
        return 1.0 / math.sqrt(_at_least_one(blocks.fan_in))


@dataclass(frozen=True)
class Glorot(Rule):
    """Variance ``2 / (D_in + D_out)``: a compromise of outputs that keep their variance and gradients that do.

    Reference: X. Glorot, Y. Bengio, AISTATS (2010), equation 12.
    """

    name = "glorot"

    def std(self, blocks: Blocks, gain: float) -> float:
        return math.sqrt(2.0 / _at_least_one(blocks.fan_in + blocks.fan_out))


@dataclass(frozen=True)
class He(Rule):
    """Variance ``gain² / D_in``, with the gain of the activation that the layer reads: ``2 / D_in`` for ReLU.

    Reference: SPEC E3; K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015).
    """

    name = "he"
    uses_gain = True
    assumes = "relu"

    def std(self, blocks: Blocks, gain: float) -> float:
        return gain / math.sqrt(_at_least_one(blocks.fan_in))


@dataclass(frozen=True)
class Auto(He):
    """He with whatever a layer reads; where the gain is that of a slope at 0, it is Xavier."""

    name = "auto"
    assumes = "identity"

    def label(self, read: Gain) -> str:
        return "xavier" if read.by_slope else "he"


@dataclass(frozen=True)
class Orthogonal(Rule):
    """The gain times a random matrix with orthonormal rows, or columns where it has more rows: ``W Wᵀ = gain² I``, or
    ``Wᵀ W``.

    The variance of its elements is that of He where it does not widen; where it does, from D_in to more, it keeps the
    length of the signal, and each unit gets the smaller share ``D_in / D_out``.

    Reference: A. M. Saxe, J. L. McClelland, S. Ganguli, ICLR (2014).
    """

    name = "orthogonal"
    uses_gain = True

    def std(self, blocks: Blocks, gain: float) -> float:
        return gain / math.sqrt(max(1, *blocks.matrices[1:]))

    def draw(self, blocks: Blocks, gain: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
        count, rows, columns = blocks.matrices
        normal = standard_normal((count, max(rows, columns), min(rows, columns)), generator, like)
        q, r = torch.linalg.qr(normal)
        # Without the signs the factorization's own convention would be in the numbers, and they not uniform.
        q = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q).unsqueeze(-2)
        return gain * (q if rows >= columns else q.transpose(1, 2))


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Auto, Constant, Normal, Xavier, Glorot, He, Orthogonal)}


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Standard normal numbers on the device of ``like``, in its dtype, or float32 of half precision."""
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    # A generator draws on its own device; so the same one gives the same numbers wherever the network is.
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=dtype, device=device).to(like.device)


def _at_least_one(fan: float) -> float:
    """A layer without inputs has no weight to draw, and must not divide by 0."""
    return fan if fan > 0 else 1.0
