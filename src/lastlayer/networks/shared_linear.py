"""A linear layer that the members of an ensemble share, but for a sign and size per input and unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, ShapeError, shape_text
from lastlayer.networks.linear import uniform_start


class SharedLinear(nn.Module):
    """One weight matrix for all members; each member scales its inputs and its outputs, and has a bias of its own.

    Formula: for member m ``((x ∘ r_m) Wᵀ) ∘ s_m + b_m``: a weight matrix ``W ∘ s_m r_mᵀ`` of its own at the price of
    two vectors.

    Shapes: weight ``(units, inputs)``, ``input_scale`` ``(members, inputs)``, ``output_scale`` and ``bias``
    ``(members, units)``. ``(n, inputs)`` that all members share or ``(members, n, inputs)`` become
    ``(members, n, units)``.

    The weight starts uniform in ``±1/√inputs``, output scales at 1. Input scales start as random signs where
    ``diverse``, so that members differ from the first step, and at 1 elsewhere.

    Raises:
        InputError: for fewer than one member.
        ShapeError: if the input does not fit.

    Example:
        >>> SharedLinear(3, 2, members=5)(torch.zeros(7, 3)).shape
        torch.Size([5, 7, 2])

    Reference: Y. Wen, D. Tran, J. Ba, BatchEnsemble (ICLR 2020); Y. Gorishniy, A. Kotelnikov, A. Babenko, TabM (ICLR
    2025), for the start.
    """

    def __init__(self, inputs: int, units: int, *, members: int, diverse: bool = False) -> None:
        super().__init__()
        if members < 1:
            raise InputError(f"members is {members}; expected a whole number from 1 on.")
        self.inputs, self.units, self.members, self.diverse = inputs, units, members, diverse
        self.weight = nn.Parameter(torch.empty(units, inputs))
        self.input_scale = nn.Parameter(torch.empty(members, inputs))
        self.output_scale = nn.Parameter(torch.empty(members, units))
        self.bias = nn.Parameter(torch.empty(members, units))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights, signs and biases."""
        uniform_start(self.weight, self.bias, self.inputs)
        nn.init.ones_(self.output_scale)
        nn.init.ones_(self.input_scale)
        if self.diverse:
            with torch.no_grad():
                self.input_scale.copy_(torch.randint(0, 2, self.input_scale.shape) * 2.0 - 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.record(x)[0]

    def record(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The output, and what :meth:`backpropagate` needs of it: x, x scaled, and the product."""
        if x.shape[-1] != self.inputs or x.dim() not in (2, 3) or (x.dim() == 3 and x.shape[0] != self.members):
            raise ShapeError(
                f"SharedLinear: the input has shape {shape_text(x)}; expected (n, {self.inputs}), or "
                f"({self.members}, n, {self.inputs}) for its {self.members} members."
            )
        scaled = x * self.input_scale.unsqueeze(1)
        # One product over the rows of all members.
        product = torch.mm(scaled.view(-1, self.inputs), self.weight.t()).view(*scaled.shape[:2], self.units)
        return torch.addcmul(self.bias.unsqueeze(1), product, self.output_scale.unsqueeze(1)), (x, scaled, product)

    def backpropagate(self, saved: tuple[Tensor, Tensor, Tensor], gradient: Tensor, *, further: bool) -> Tensor | None:
        """Sets the gradients of all parameters, and gives that of the input where it is to go ``further``."""
        x, scaled, product = saved
        self.bias.grad = gradient.sum(1)
        self.output_scale.grad = (gradient * product).sum(1)
        flat = (gradient * self.output_scale.unsqueeze(1)).view(-1, self.units)
        self.weight.grad = torch.mm(flat.t(), scaled.view(-1, self.inputs))
        of_scaled = torch.mm(flat, self.weight).view(scaled.shape)
        self.input_scale.grad = (of_scaled * x).sum(1)
        if not further:
            return None
        back = of_scaled * self.input_scale.unsqueeze(1)
        return back if x.dim() == 3 else back.sum(0)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, units={self.units}, members={self.members}, diverse={self.diverse}"
