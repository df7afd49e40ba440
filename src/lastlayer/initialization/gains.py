"""The gain of an activation: how much larger the weights behind it must be to undo what it does to the signal."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lastlayer.activations import Maxout, PReLU, RReLU, modules
from lastlayer.checks import InputError, KindError

#: How an activation may be named: as the catalog spells it, as a class, a module, or a function of a tensor.
AnyActivation = str | type[nn.Module] | nn.Module | Callable[[Tensor], Tensor]

# Beyond it a standard normal number does not occur: its density is 2e-32.
_FAR = 12
_PANELS_PER_UNIT = 32
_NODES_PER_PANEL = 8


@dataclass(frozen=True)
class Gain:
    """What is needed behind an activation.

    Attributes:
        gain: the weights' standard deviation, times the root of their fan-in.
        center: the activation of 0, where the signal swings around it and the bias has to take it away; else 0.
        by_slope: whether the gain is that of the slope at 0 (Xavier), not of the second moment (He).
    """

    gain: float
    center: float = 0.0
    by_slope: bool = False


#: What changes nothing.
IDENTITY = Gain(1.0, by_slope=True)


def gain(activation: AnyActivation) -> float:
    """The gain of an activation: with ``Var(w) = gain² / D_in`` the layer behind it has outputs of variance 1.

    Formula: ``1/√E[f(z)²]`` with z standard normal, of rectifiers and of everything not named below (He et al.): √2 of
    ReLU, ``√(2 / (1 + a²))`` of a leaky one. A PReLU counts with the slopes that it has, their mean square; an RReLU
    with the slopes that it draws, in evaluation mode with their mean; maxout as the largest of k standard normal
    numbers; GLU as a normal number times the sigmoid of another.

    ``1/f'(0)`` of activations that are odd about f(0) and bounded: tanh, arctan, hard tanh, the sigmoid (Xavier,
    as the lecture derives it: around 0 they are a line). It is 1 of the first three. The sigmoid's is 4, and its
    outputs swing around ½, not 0: ``initialize`` lets the bias of the layer behind take that away, without which every
    unit starts off center by N(0, 4) and ten layers leave nothing of the signal. This makes a network of sigmoids
    start as the same network of tanhs.

    Numerics: the moment is integrated in float64, piece by piece, to 10 digits where kinks lie at multiples of 1/32,
    to 6 elsewhere, and to 3 at a jump. A module is copied and evaluated in evaluation mode; it is left as it was.

    Special cases: ``torch.nn.init.calculate_gain`` has 5/3 for tanh, 1 for the sigmoid and 3/4 for SELU, which are
    rules of thumb; the others agree.

    Args:
        activation: a name of the catalog, a class, a module or a function; elementwise, without chance.

    Raises:
        InputError: for a name that is not in the catalog, a function that is not elementwise or whose moment is not
            finite and positive.
        KindError: for something that is none of these.

    Example:
        >>> round(gain("relu") ** 2, 6), round(gain(nn.LeakyReLU(0.1)) ** 2, 6), gain(torch.tanh)
        (2.0, 1.980198, 1.0)

    Reference: SPEC E3; K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015); X. Glorot, Y. Bengio, AISTATS (2010).
    """
    return gain_of(activation).gain


def gain_of(activation: AnyActivation) -> Gain:
    """The gain, with how it comes about; see :func:`gain`."""
    if isinstance(activation, str):
        return _of_name(activation)
    if isinstance(activation, type):
        return _of_class(activation)
    if isinstance(activation, nn.Module):
        known = _known_moment(activation)
        return _by_moment(known, activation) if known is not None else _of_function(_in_float64(activation), activation)
    if callable(activation):
        return _of_function(activation, activation)
    raise KindError(
        f"the activation is {activation!r}; expected a name such as 'relu', a module such as torch.nn.ReLU(), or a "
        f"function of a tensor."
    )


def _of_name(name: str) -> Gain:
    catalog = modules()
    if name not in catalog:
        raise InputError(
            f"the activation is {name!r}; expected one of {', '.join(map(repr, catalog))}, or any other as a module or "
            f"function."
        )
    return _of_class(catalog[name])


def _of_class(kind: type) -> Gain:
    if not issubclass(kind, nn.Module):
        raise KindError(f"the activation is the class {kind.__name__}; expected one of a torch.nn.Module.")
    if issubclass(kind, Maxout):
        return Gain(1.0)  # Of two pieces, as it is by default.
    try:
        made = kind()
    except Exception as error:
        raise InputError(
            f"the activation is the class {kind.__name__}, which is not made without arguments ({error}). Fix: pass a "
            f"module of it."
        ) from error
    return gain_of(made)


def _known_moment(module: nn.Module) -> float | None:
    """``E[f(z)²]`` of modules that are not a function of one number alone."""
    if isinstance(module, (PReLU, nn.PReLU)):
        slope = module.slope if isinstance(module, PReLU) else module.weight
        return 0.5 + 0.5 * float(slope.detach().double().square().mean())
    if isinstance(module, (RReLU, nn.RReLU)):
        low, high = module.lower, module.upper
        square = (low * low + low * high + high * high) / 3 if module.training else ((low + high) / 2) ** 2
        return 0.5 + 0.5 * square
    if isinstance(module, Maxout):
        k = module.pieces
        return normal_mean(lambda z: k * z * z * torch.special.ndtr(z) ** (k - 1))
    if isinstance(module, nn.GLU):
        return normal_mean(lambda z: torch.sigmoid(z).square())
    return None


def _of_function(function: Callable[[Tensor], Tensor], named: object) -> Gain:
    z, _ = _normal_nodes()
    value = _evaluated(function, z, named)
    if torch.equal(value, z):
        return IDENTITY
    slope = _slope_of_a_sigmoid(function, z, value, named)
    if slope is not None:
        center = float(_evaluated(function, z.new_zeros(1), named))
        return Gain(1.0 / slope, center, by_slope=True)
    return _by_moment(normal_mean(lambda _: value.square()), named)


def _by_moment(moment: float, named: object) -> Gain:
    if not 0 < moment < math.inf:
        raise InputError(
            f"the mean square of {_text(named)} over standard normal numbers is {moment}; expected a positive number. "
            f"Fix: name another activation, or rule='lsuv', which measures."
        )
    return Gain(1.0 / math.sqrt(moment))


def _slope_of_a_sigmoid(function: Callable[[Tensor], Tensor], z: Tensor, value: Tensor, named: object) -> float | None:
    """The slope at 0 of a function that is odd about its center and bounded; ``None`` of any other."""
    at = torch.tensor([0.0, -1e3, 1e3, -1e6, 1e6], dtype=z.dtype)
    center, *far = _evaluated(function, at, named)
    odd = (value + value.flip(0) - 2 * center).abs().max() <= 1e-9 * value.abs().max()
    bounded = all((far[side + 2] - far[side]).abs() <= 0.01 * (far[side] - center).abs() for side in (0, 1))
    if not (odd and bounded):
        return None
    try:
        with torch.enable_grad():
            zero = z.new_zeros(1).requires_grad_()
            slope = torch.autograd.grad(function(zero.clone()).sum(), zero)[0].item()
    except RuntimeError:
        # It has no derivative.
        return None
    return slope if slope > 0 else None


def _evaluated(function: Callable[[Tensor], Tensor], z: Tensor, named: object) -> Tensor:
    """The function's values, after it was seen to be elementwise."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            value: Any = function(z.clone())
            half = function(z[::2].clone())
    except Exception as error:
        raise InputError(
            f"{_text(named)} could not be called with a vector of float64 ({type(error).__name__}: {error}); its gain "
            f"is that of an elementwise function."
        ) from error
    alike = isinstance(value, Tensor) and value.shape == z.shape and value.is_floating_point()
    if not alike or not torch.allclose(value[::2], half, rtol=1e-6, atol=1e-12, equal_nan=True):
        raise InputError(
            f"{_text(named)} is not an elementwise function: every output must depend on one input, and not on chance. "
            f"Fix: name another activation, or rule='lsuv', which measures."
        )
    return value.double()


def _in_float64(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A copy to evaluate, in evaluation mode; hooks are passed by."""
    try:
        forward: Callable[[Tensor], Tensor] = copy.deepcopy(module).to("cpu", torch.float64).eval().forward
    except Exception as error:
        raise InputError(f"{_text(module)} cannot be copied ({error}); pass a function, not a module.") from error
    return forward


def normal_mean(function: Callable[[Tensor], Tensor]) -> float:
    """The mean of a function over standard normal numbers, by Gauss-Legendre quadrature on pieces between kinks."""
    z, weight = _normal_nodes()
    return float((function(z) * weight).sum())


@cache
def _normal_nodes() -> tuple[Tensor, Tensor]:
    """Nodes, symmetric about 0, and their weights with the normal density in them."""
    inner, weight = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    half = 0.5 / _PANELS_PER_UNIT
    middle = (np.arange(-_FAR * _PANELS_PER_UNIT, _FAR * _PANELS_PER_UNIT) + 0.5) / _PANELS_PER_UNIT
    z = torch.from_numpy((middle[:, None] + half * inner).ravel())
    z = 0.5 * (z - z.flip(0))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return z, torch.from_numpy(np.tile(half * weight, len(middle))) * density


def _text(activation: object) -> str:
    """What it is called in a message."""
    if isinstance(activation, nn.Module):
        return type(activation).__name__
    return str(getattr(activation, "__name__", None) or type(activation).__name__)
