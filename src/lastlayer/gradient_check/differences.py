"""Difference quotients: of a scalar function element by element, of an elementwise function all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, check_choice, check_floating, shape_text

SCHEMES = ("symmetric", "forward")
# A difference of two values is taken to be wrong by so many roundings of them.
_ROUNDINGS = 8.0


def machine_precision(dtype: torch.dtype) -> float:
    """The largest relative error of rounding: 6e-8 in float32, 1e-16 in float64."""
    return torch.finfo(dtype).eps / 2


def default_step(dtype: torch.dtype, scheme: str = "symmetric") -> float:
    """Where rounding and truncation are about equal, for a function and a point of size 1: ε^(1/3), forward ε^(1/2)."""
    return machine_precision(dtype) ** (1 / 3 if scheme == "symmetric" else 1 / 2)


def check_step(step: float | None) -> None:
    """A step, where given, is a positive number.

    Raises:
        InputError: naming what was given.
    """
    if step is not None and not 0 < step < math.inf:
        raise InputError(f"step is {step!r}; expected a positive number, or None for the dtype's own.")


@dataclass(frozen=True)
class Line:
    """A line through a point: which elements move, and how far each for a step of 1."""

    indices: Tensor
    sizes: Tensor


@dataclass(frozen=True)
class Quotients:
    """Slopes along a line.

    Attributes:
        step: the step they were taken with.
        symmetric, forward, backward: the quotients.
        expected: what the gradient says.
        noise: what rounding may add to each.
        moved: whether any output changed, of those that a wider step changes.
    """

    step: float
    symmetric: float
    forward: float
    backward: float
    expected: float
    noise: float
    moved: bool


class Probe:
    """A function while one of its tensors moves and everything else stays.

    The function's outputs are weighted, so that it is a scalar one; with no weights all count 1. They are subtracted
    one by one before they are summed, in float64: the outputs that stay where they are add no rounding.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], point: Tensor, weights: Tensor | None = None) -> None:
        self._f, self._weights = f, weights
        self.point = point.detach()
        self._flat = self.point.reshape(-1)
        self._here, dtype = self._outputs(self.point)
        self._precision = max(machine_precision(dtype), machine_precision(point.dtype))
        # Below it numbers are rounded as it is.
        self._least = torch.finfo(dtype).smallest_normal

    def sizes(self, indices: Tensor) -> Tensor:
        """max(1, |x|) of some elements."""
        return self._flat[indices].double().abs().clamp(min=1.0)

    def affected(self, line: Line, step: float) -> Tensor:
        """Which outputs a step changes visibly."""
        return self._outputs(self._moved(line, step)[0])[0] != self._outputs(self._moved(line, -step)[0])[0]

    def quotients(self, line: Line, step: float, gradient: Tensor, affected: Tensor | None = None) -> Quotients | None:
        """Slopes per element moved, or per step along a line of many; ``None`` if the step is lost in rounding.

        Args:
            gradient: the claimed gradient of the elements that move, in float64.
            affected: outputs whose rounding counts, also if this step does not change them; ``None`` for no others.
        """
        ahead, forth = self._moved(line, step)
        behind, back = self._moved(line, -step)
        if not ((forth != 0).any() and (back != 0).any()):
            return None
        alone = len(line.indices) == 1
        # What was really moved, not what was asked for: x + h is rounded.
        up, down = (forth.item(), -back.item()) if alone else (step, step)
        here, (above, _), (below, _) = self._here, self._outputs(ahead), self._outputs(behind)
        change = above - below
        counted = change != 0 if affected is None else (change != 0) | affected
        moved = bool((change != 0).any()) or not counted.any()
        counted = counted if counted.any() else ~counted
        size = max(torch.stack([here, above, below]).abs().amax(0)[counted].norm().item(), self._least)
        return Quotients(
            step=step,
            symmetric=change.sum().item() / (up + down),
            forward=(above - here).sum().item() / up,
            backward=(here - below).sum().item() / down,
            expected=gradient.item() if alone else (gradient * (forth - back)).sum().item() / (up + down),
            noise=_ROUNDINGS * self._precision * size / (up + down),
            moved=moved,
        )

    def _outputs(self, point: Tensor) -> tuple[Tensor, torch.dtype]:
        output = self._f(point).detach()
        values = output.double().reshape(-1)
        return values if self._weights is None else self._weights * values, output.dtype

    def _moved(self, line: Line, step: float) -> tuple[Tensor, Tensor]:
        """The point moved along the line, with the strides it has, and by how much each element really moved."""
        old = self._flat[line.indices].double()
        flat = self._flat.clone()
        flat[line.indices] = (old + step * line.sizes).to(flat.dtype)
        moved = torch.empty_like(self.point).copy_(flat.view(self.point.shape))
        return moved, flat[line.indices].double() - old


def numerical_gradient(
    f: Callable[[Tensor], Tensor], x: Tensor, *, scheme: str = "symmetric", step: float | None = None
) -> Tensor:
    """The derivative of f at x by difference quotients, with no use of autograd.

    Domain: x is floating point; f takes a tensor like x, and is either scalar (its result has one element: a loss, as
    a function of the raw output or of a parameter) or elementwise (its result has the shape of x: an activation).

    Formula: symmetric ``(f(x + h) − f(x − h)) / 2h``, forward ``(f(x + h) − f(x)) / h``, where h is the difference of
    the rounded numbers. ``step=None`` is ``ε^(1/3)·max(1, |x|)`` for symmetric and ``ε^(1/2)·max(1, |x|)`` for forward
    differences, with the dtype's machine precision ε (6e-8 in float32, 1e-16 in float64); a number is taken as it is.

    Shapes: the result has the shape and dtype of x. A scalar f is evaluated twice per element (forward: once, and once
    at x); an elementwise one a few times in all.

    Numerics: with the step above the relative error is about ``ε^(2/3)`` (forward ``ε^(1/2)``): prefer float64.

    Raises:
        KindError: if x is not floating point.
        ShapeError: if the result is neither scalar nor of the shape of x.
        InputError: for another scheme, a step that is not positive, or a result of the shape of x whose elements
            depend on other elements of x, as a softmax's do.

    Example:
        >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> numerical_gradient(torch.sigmoid, x)
        tensor([0.1966, 0.1050], dtype=torch.float64)
        >>> numerical_gradient(lambda x: (x**2).sum(), x, scheme="forward")
        tensor([2.0000, 4.0000], dtype=torch.float64)

    Reference: SPEC D8, G8.
    """
    check_choice(scheme, SCHEMES, what="scheme")
    check_floating(x, what="x")
    check_step(step)
    x = x.detach()
    output = f(x.clone()).detach()
    relative = default_step(x.dtype, scheme)
    old = x.double()
    shift = relative * old.abs().clamp(min=1.0) if step is None else torch.full_like(old, step)
    ahead = (old + shift).to(x.dtype)
    behind = (old - shift).to(x.dtype) if scheme == "symmetric" else x
    known = None if scheme == "symmetric" else output.double()
    if output.numel() == 1:
        return _of_scalar(f, x, ahead, behind, known)
    if output.shape != x.shape:
        raise ShapeError(
            f"numerical_gradient: f takes x of shape {shape_text(x)} to shape {shape_text(output)}; expected a scalar, "
            f"or one value per element of x. Fix: differentiate one number, such as f(x).sum()."
        )
    _check_elementwise(f, x, ahead, output)
    above = f(ahead.clone()).detach().double()
    below = f(behind.clone()).detach().double() if known is None else known
    return ((above - below) / (ahead.double() - behind.double())).to(x.dtype)


def _of_scalar(f: Callable[[Tensor], Tensor], x: Tensor, ahead: Tensor, behind: Tensor, known: Tensor | None) -> Tensor:
    """One element after the other; ``known`` is f where the element is behind, if that is f(x)."""
    gradient = torch.empty_like(x)
    for position in range(x.numel()):
        at = tuple(int(axis) for axis in torch.unravel_index(torch.tensor(position), x.shape)) if x.dim() else ()
        above = _with(f, x, at, ahead[at])
        below = _with(f, x, at, behind[at]) if known is None else known.reshape(())
        gradient[at] = ((above - below) / (ahead[at].double() - behind[at].double())).to(x.dtype)
    return gradient


def _with(f: Callable[[Tensor], Tensor], x: Tensor, at: tuple[int, ...], element: Tensor) -> Tensor:
    """f where one element of x is another."""
    moved = x.clone()
    moved[at] = element
    return f(moved).detach().double().reshape(())


def _check_elementwise(f: Callable[[Tensor], Tensor], x: Tensor, ahead: Tensor, output: Tensor) -> None:
    """Elements that stay must keep their values while others move."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        moves = (torch.rand(x.shape, generator=generator) < 0.5).to(x.device)
        mixed = f(torch.where(moves, ahead, x)).detach()
        if not torch.equal(mixed[~moves].nan_to_num(), output[~moves].nan_to_num()):
            raise InputError(
                "numerical_gradient: f gives a result of the shape of x whose elements depend on other elements of x, "
                "so that its derivative is a matrix. Fix: differentiate one number, such as (weights * f(x)).sum()."
            )
