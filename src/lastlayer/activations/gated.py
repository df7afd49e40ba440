"""The input times a smooth gate of itself: SiLU and GELU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.activations.activation import Activation, elementwise_example
from lastlayer.checks import check_choice, check_floating
from lastlayer.facts import ActivationFacts, Interval

# Far beyond where the gate is 0 or 1 in every dtype, and far below where the cube of x overflows.
_GATE_IS_SETTLED = 1e4
_CUBIC = 0.044715


def silu(x: Tensor) -> Tensor:
    """The sigmoid linear unit, also known as swish.

    Formula: ``x σ(x)``.

    Gradient: ``σ(x) (1 + x σ(−x))``.

    Shapes: any, kept.

    Example:
        >>> silu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.2689,  0.0000,  0.7311])

    Reference: S. Elfwing, E. Uchibe, K. Doya, Neural Networks 107 (2018).
    """
    check_floating(x, what="x")
    return F.silu(x)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """The Gaussian error linear unit, x times the standard normal distribution function.

    Formula: ``x Φ(x) = x/2 · (1 + erf(x/√2))``; with ``approximate="tanh"``
    ``x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))``, which older models were trained with.

    Gradient: ``Φ(x) + x φ(x)``; of the approximation ``(1 + t)/2 + x/2 · (1 − t²) √(2/π) (1 + 3 · 0.044715 x²)`` with
    t the tanh.

    Shapes: any, kept.

    Numerics: PyTorch's kernel doubles x on the way and overflows beyond half the dtype's largest number.

    Raises:
        InputError: if ``approximate`` is neither ``"none"`` nor ``"tanh"``.

    Example:
        >>> gelu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.1587,  0.0000,  0.8413])

    Reference: D. Hendrycks, K. Gimpel, arXiv 1606.08415 (2016).
    """
    check_floating(x, what="x")
    check_choice(approximate, ("none", "tanh"), what="approximate")
    if approximate == "none":
        return F.gelu(x)
    # Past the clamp the cube would overflow in the kernel's backward: 0 · ∞.
    near = x.clamp(-_GATE_IS_SETTLED, _GATE_IS_SETTLED)
    return F.gelu(near, approximate="tanh") + torch.relu(x - near)


class SiLU(Activation):
    """Module form of :func:`silu`."""

    facts = ActivationFacts(
        name="silu",
        title="sigmoid linear unit (SiLU, swish)",
        formula="x σ(x)",
        derivative="σ(x) (1 + x σ(−x))",
        # The least value is −W(1/e), W being Lambert's function, at x = −1.2784645….
        range=Interval(low=-0.2784645427610738, low_closed=True),
        monotonic=False,
        derivative_monotonic=False,
        saturates_below=-11.57,
        saturates_above=None,
        zero_centered=False,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="a smooth rectifier is wanted in hidden layers, above all in deep networks",
        avoid_when="order must be kept: from −∞ to −1.28 it falls",
        reference="S. Elfwing, E. Uchibe, K. Doya, Neural Networks 107 (2018)",
        example=elementwise_example,
    )

    def value(self, x: Tensor) -> Tensor:
        return silu(x)

    def _pull_back(self, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.silu_backward(gradient, x)
        return result

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (1.0 + x * torch.sigmoid(-x))


class GELU(Activation):
    """Module form of :func:`gelu`."""

    facts = ActivationFacts(
        name="gelu",
        title="Gaussian error linear unit (GELU)",
        formula="x Φ(x)",
        derivative="Φ(x) + x φ(x)",
        # The least value lies at x = −0.7517916….
        range=Interval(low=-0.16997120747990369, low_closed=True),
        monotonic=False,
        derivative_monotonic=False,
        saturates_below=-4.42,
        saturates_above=None,
        zero_centered=False,
        smooth=True,
        elementwise=True,
        parameters=None,
        use_when="a smooth rectifier is wanted in hidden layers, above all in transformers",
        avoid_when="order must be kept: from −∞ to −0.75 it falls",
        reference="D. Hendrycks, K. Gimpel, arXiv 1606.08415 (2016)",
        example=elementwise_example,
    )

    def __init__(self, *, approximate: str = "none") -> None:
        super().__init__()
        check_choice(approximate, ("none", "tanh"), what="approximate")
        self.approximate = approximate

    def value(self, x: Tensor) -> Tensor:
        return gelu(x, approximate=self.approximate)

    def _derivative(self, x: Tensor) -> Tensor:
        # Beyond, the gate is settled; the powers of x would overflow to 0 · ∞.
        x = x.clamp(-_GATE_IS_SETTLED, _GATE_IS_SETTLED)
        if self.approximate == "none":
            density = torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
            return torch.special.ndtr(x) + x * density
        root = math.sqrt(2.0 / math.pi)
        gate = torch.tanh(root * (x + _CUBIC * x**3))
        return 0.5 * (1.0 + gate) + 0.5 * x * (1.0 - gate * gate) * root * (1.0 + 3.0 * _CUBIC * x * x)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"
