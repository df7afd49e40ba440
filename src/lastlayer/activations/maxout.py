"""Maxout: the largest of several affine pieces, each learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.activations.activation import Activation
from lastlayer.checks import InputError, ShapeError, check_floating, shape_text
from lastlayer.facts import REAL, ActivationFacts


def maxout(x: Tensor, weight: Tensor, bias: Tensor, *, pieces: int = 2) -> Tensor:
    """Maxout: every unit is the largest of k affine functions of its inputs.

    Formula: ``max_k (w_k · x + b_k)``, biases included; one of the lectures prints it without.

    Gradient: ``w_k`` of the largest piece; pieces that are equally large share it evenly, as in PyTorch's ``amax``.

    Shapes: x ``(..., inputs)`` to ``(..., units)``; weight ``(pieces · units, inputs)``, all units of the first piece
    first; bias ``(pieces · units,)``.

    Raises:
        InputError: for fewer than two pieces.
        ShapeError: if the shapes do not belong together.

    Example: the pieces x and −x make the absolute value.
        >>> maxout(torch.tensor([[-2.0], [3.0]]), torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
        tensor([[2.],
                [3.]])

    Reference: SPEC C, H; I. J. Goodfellow et al., ICML (2013).
    """
    return _pieces(x, weight, bias, pieces).amax(-2)


def _pieces(x: Tensor, weight: Tensor, bias: Tensor, pieces: int) -> Tensor:
    """Every piece of every unit, ``(..., pieces, units)``."""
    check_floating(x, what="x")
    _check_pieces(pieces)
    if weight.dim() != 2 or len(weight) % pieces or bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"maxout: weight has shape {shape_text(weight)}, bias {shape_text(bias)}; expected ({pieces} · units, "
            f"inputs) and ({pieces} · units,)."
        )
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"maxout: x has shape {shape_text(x)}; expected (..., {weight.shape[1]}).")
    return F.linear(x, weight, bias).unflatten(-1, (pieces, len(weight) // pieces))


def _check_pieces(pieces: int) -> None:
    if pieces < 2:
        raise InputError(f"maxout: pieces is {pieces}; expected 2 or more. One piece is a linear layer.")


def _second_moment_of_the_largest(pieces: int) -> float:
    """``E[max²]`` of so many standard normal numbers: 1 for two, by symmetry, and more for more."""
    z = torch.linspace(-12.0, 12.0, 4801, dtype=torch.float64)
    density = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return float(torch.trapezoid(pieces * z * z * density * torch.special.ndtr(z) ** (pieces - 1), z))


def _example(n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None) -> Tensor:
    return 3 * torch.randn(n, 3, dtype=dtype, generator=generator)


class Maxout(Activation):
    """Module form of :func:`maxout`: a linear layer to all pieces, and the largest of each unit's.

    It takes the place of a linear layer and its activation. The weights start normal with the variance that keeps the
    mean square of the signal, ``1 / (inputs · m)`` with m the mean square of the largest of k standard normal numbers
    (1 for k = 2, 1.28 for 3, 1.55 for 4); the biases start at 0 and, being a vector, are never decayed by ``training``.

    Args:
        inputs: width of x.
        units: how many outputs.
        pieces: affine pieces per unit.
        generator: draws the weights.
    """

    facts = ActivationFacts(
        name="maxout",
        title="maxout (largest of k affine pieces)",
        formula="max_k (w_k · x + b_k)",
        derivative="w_k of the largest piece",
        range=REAL,
        monotonic=False,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=None,
        zero_centered=False,
        smooth=False,
        elementwise=False,
        parameters="weights and biases of k pieces per unit, k = 2 by default",
        use_when="the shape of the activation should itself be learned; its authors use it with dropout",
        avoid_when="parameters are dear: it has k times those of a linear layer with ReLU",
        reference="SPEC C, H; I. J. Goodfellow et al., ICML (2013)",
        example=_example,
        profile="one unit over its first input, the others at 0",
    )

    def __init__(
        self,
        inputs: int,
        units: int,
        pieces: int = 2,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_pieces(pieces)
        self.pieces = pieces
        self.weight = nn.Parameter(torch.empty(pieces * units, inputs, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(pieces * units, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights, and sets the biases to 0."""
        variance = 1.0 / (max(self.weight.shape[1], 1) * _second_moment_of_the_largest(self.pieces))
        nn.init.normal_(self.weight, std=math.sqrt(variance), generator=generator)
        nn.init.zeros_(self.bias)

    def value(self, x: Tensor) -> Tensor:
        return maxout(x, self.weight, self.bias, pieces=self.pieces)

    def _derivative(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        piece = _pieces(x, weight, self.bias.to(x.dtype), self.pieces)
        largest = (piece == piece.amax(-2, keepdim=True)).to(x.dtype)
        share = largest / largest.sum(-2, keepdim=True)
        return torch.einsum("...ku,kui->...ui", share, weight.unflatten(0, piece.shape[-2:]))

    def profile(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first unit over its first input, the others at 0."""
        inputs = torch.zeros(*x.shape, self.weight.shape[1], dtype=x.dtype, device=x.device)
        inputs[..., 0] = x
        return self.value(inputs)[..., 0], self.derivative(inputs)[..., 0, 0]

    def extra_repr(self) -> str:
        rows, inputs = self.weight.shape
        return f"inputs={inputs}, units={rows // self.pieces}, pieces={self.pieces}"
