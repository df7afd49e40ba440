"""What moves and what is claimed of it: a function, a loss, an activation or a module, all seen as one thing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, KindError, ShapeError, check_floating, shape_text
from lastlayer.gradient_check.state import State, in_place_of


@dataclass(frozen=True)
class Claim:
    """A gradient as something computes it; ``None`` where it computes none."""

    name: str
    how: str
    gradient: Tensor | None


@dataclass(frozen=True)
class Subject:
    """A function of named tensors, any of which may move.

    Attributes:
        tensors: what moves, by name.
        function: the outputs, given a value for every tensor.
        separate: whether every output counts 1, because it belongs to one sample; otherwise each gets a weight.
        closed: a gradient in closed form, beside that of autograd: how it is called, and what it gives, given weights.
        state: what an evaluation may change.
    """

    tensors: dict[str, Tensor]
    function: Callable[[dict[str, Tensor]], Any]
    state: State
    separate: bool = False
    closed: tuple[str, Callable[[Tensor | None], Tensor]] | None = None

    def evaluate(self, moved: dict[str, Tensor]) -> Tensor:
        """The outputs with some tensors in place of the subject's own, from the state that was there first."""
        self.state.renew()
        output = self.function({**self.tensors, **moved})
        if not isinstance(output, Tensor):
            raise KindError(
                f"check_gradient: f gives {type(output).__name__}; expected one tensor. "
                f"Fix: lambda *inputs: f(*inputs)[0], or a loss= that takes what f gives."
            )
        check_floating(output, what="the result of f")
        return output

    def weights(self, output: Tensor) -> Tensor | None:
        """What every output counts: 1, or a number of size about 1 that no symmetry of the outputs makes cancel.

        The plain sum would see nothing of a softmax: its outputs add up to 1 wherever it is.
        """
        if self.separate or output.numel() <= 1:
            return None
        draw = torch.rand(output.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
            output.device
        )
        return (0.5 + draw) * torch.where(torch.arange(len(draw), device=draw.device) % 2 == 0, 1.0, -1.0)

    def claims(self, weights: Tensor | None) -> list[Claim]:
        """The gradient of the weighted sum of outputs, by every way there is to compute it."""
        leaves = {
            name: tensor if tensor.requires_grad else tensor.detach().clone().requires_grad_()
            for name, tensor in self.tensors.items()
        }
        output = self.evaluate(leaves)
        gradients: Iterable[Tensor | None] = [None] * len(leaves)
        if output.requires_grad:
            start = torch.ones_like(output) if weights is None else weights.to(output.dtype).reshape(output.shape)
            gradients = torch.autograd.grad(output, list(leaves.values()), start, allow_unused=True)
        claims = [Claim(name, "backward", gradient) for name, gradient in zip(leaves, gradients, strict=True)]
        if self.closed is not None:
            (name, point), (how, compute) = next(iter(self.tensors.items())), self.closed
            self.state.renew()
            gradient = compute(weights)
            if gradient.shape != point.shape:
                raise ShapeError(
                    f"check_gradient: {how} has shape {shape_text(gradient)}, {name} {shape_text(point)}; "
                    f"expected one shape."
                )
            claims.insert(0, Claim(name, how, gradient))
        return claims


def subject_of(
    f: Any, inputs: tuple[Any, ...], *, loss: Any, target: Any, dtype: torch.dtype | None, generator: torch.Generator
) -> Subject:
    """What f is, by what it offers.

    Raises:
        InputError: for inputs that f does not take.
        KindError: for an f that is none of the kinds.
    """
    if _offers(f, "value", "gradient"):
        return _of_loss(f, (*inputs, target) if len(inputs) == 1 and target is not None else inputs, dtype, generator)
    if _offers(f, "value", "derivative"):
        return _of_activation(f, inputs, dtype, generator)
    if not callable(f):
        raise KindError(f"check_gradient: f is {type(f).__name__}; expected a function, loss, activation or module.")
    if target is not None and loss is None:
        raise InputError("check_gradient: a target is given, and no loss to compare with it. Fix: pass loss= as well.")
    return _of_function(f, inputs, loss, target)


def _offers(f: Any, *methods: str) -> bool:
    return all(callable(getattr(f, method, None)) for method in methods)


def _of_loss(f: Any, inputs: tuple[Any, ...], dtype: torch.dtype | None, generator: torch.Generator) -> Subject:
    if len(inputs) not in (0, 2):
        raise InputError(f"check_gradient: a loss takes raw and target, and {len(inputs)} inputs are given.")
    raw, target = inputs or f.facts.example(20, dtype=dtype or _own_dtype(f), generator=generator)
    check_floating(raw, what="raw")
    parameters = _parameters(f)

    def function(moved: dict[str, Tensor]) -> Any:
        with in_place_of(parameters, moved):
            return f.value(moved["raw"].clone(), target)

    return Subject(
        {"raw": raw, **parameters},
        function,
        State(_modules(f)),
        separate=True,
        closed=("the closed form", lambda weights: f.gradient(raw.detach().clone(), target)),
    )


def _of_activation(f: Any, inputs: tuple[Any, ...], dtype: torch.dtype | None, generator: torch.Generator) -> Subject:
    if len(inputs) > 1:
        raise InputError(f"check_gradient: an activation takes x, and {len(inputs)} inputs are given.")
    x = inputs[0] if inputs else f.facts.example(100, dtype=dtype or _own_dtype(f), generator=generator)
    check_floating(x, what="x")
    parameters = _parameters(f)
    derivative = f.derivative(x.detach().clone()).detach()
    elementwise = derivative.shape == x.shape

    def function(moved: dict[str, Tensor]) -> Any:
        with in_place_of(parameters, moved):
            return f.value(moved["x"].clone())

    def of_the_sum(weights: Tensor | None) -> Tensor:
        if elementwise or weights is None:
            return derivative
        # A Jacobian, (..., outputs, inputs).
        weighted: Tensor = weights.reshape(derivative.shape[:-1]).unsqueeze(-1) * derivative
        return weighted.sum(-2)

    return Subject(
        {"x": x, **parameters},
        function,
        State(_modules(f)),
        separate=elementwise,
        closed=("the derivative", of_the_sum),
    )


def _of_function(f: Callable[..., Any], inputs: tuple[Any, ...], loss: Any, target: Any) -> Subject:
    parameters = {**_parameters(f), **{f"loss.{name}": parameter for name, parameter in _parameters(loss).items()}}
    real = {
        name: (position, value)
        for position, (name, value) in enumerate(zip(_input_names(f, len(inputs)), inputs, strict=True))
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    # As in PyTorch: what requires grad is asked for. A plain function of plain tensors is asked for all of them.
    asked = {name: place for name, place in real.items() if place[1].requires_grad}
    if not asked and not parameters:
        asked = real
    if not asked and not parameters:
        raise InputError(
            "check_gradient: nothing has a gradient: no input is floating point, and no parameter requires grad."
        )

    def function(moved: dict[str, Tensor]) -> Any:
        # Clones, so that a function that works in place spoils nothing.
        given = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        for name, (position, _) in asked.items():
            given[position] = moved[name].clone()
        with in_place_of(parameters, moved):
            output = f(*given)
            if loss is None:
                return output
            return loss(output) if target is None else loss(output, target)

    tensors = {**parameters, **{name: value for name, (_, value) in asked.items()}}
    return Subject(tensors, function, State((*_modules(f), *_modules(loss))))


def _parameters(owner: Any) -> dict[str, Tensor]:
    """The parameters of a module, or of the module that a method belongs to, that learn."""
    return {
        name: parameter
        for module in _modules(owner)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _own_dtype(f: Any) -> torch.dtype:
    """The dtype that a module's parameters have, float64 where there are none."""
    return next((parameter.dtype for parameter in _parameters(f).values()), torch.float64)


def _modules(owner: Any) -> tuple[nn.Module, ...]:
    """The module that a callable is, or is a method of."""
    owner = getattr(owner, "__self__", owner)
    return (owner,) if isinstance(owner, nn.Module) else ()


def _input_names(f: Callable[..., Any], count: int) -> list[str]:
    """The inputs as the function's signature spells them; numbered where it does not."""
    try:
        signature = inspect.signature(f.forward if isinstance(f, nn.Module) else f)
    except (TypeError, ValueError):
        named = []
    else:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        named = [parameter.name for parameter in signature.parameters.values() if parameter.kind in kinds]
    numbered = ["input"] if count == 1 else [f"input {position}" for position in range(count)]
    return [named[position] if position < len(named) else numbered[position] for position in range(count)]
