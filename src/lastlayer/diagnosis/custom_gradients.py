"""Gradients written by hand, in custom autograd functions and in losses and activations with a closed form: checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from lastlayer.diagnosis.copies import copy_of
from lastlayer.diagnosis.custom_functions import Applied, applications, is_known
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.tensors import each, tensors_in
from lastlayer.gradient_check import GradientCheck, check_gradient

WRONG_GRADIENT = Fault(
    name="wrong_gradient",
    title="a backward that is not the derivative of its forward",
    severity="error",
    why="The optimizer follows the gradient that backward gives. Where that is another than the loss's, it goes "
    "somewhere else, more slowly, or nowhere, and nothing raises an error.",
    fix="Mend backward until lastlayer.check_gradient(function, inputs) is true.",
    reference="SPEC D8",
)

# Enough rows for every branch of an elementwise function to be met, few enough to be quick.
_ROWS = 8
# Elements compared one by one, and random directions through all of them.
_SAMPLES, _DIRECTIONS = 24, 2
# Larger points are not checked: each comparison evaluates the function twice.
_LARGEST = 1_000_000
# A step that every smooth function shows in float64, and that meets a jump in one of a million elements.
_STEP = 1e-6


def wrong_gradient(subject: Subject) -> Iterator[Finding]:
    """Every custom function of the network and the loss, and every closed form of the user's, on a few rows."""
    yield from _closed_forms(subject)
    ran = subject.training_pass
    # What is made by a custom function was not seen being made; without any there is nothing to look for.
    if ran.failure is not None or not any(operation.inferred for operation in ran.operations):
        return
    for applied in applications(subject):
        label = next((one.label for one in ran.operations if one.name == applied.function.__name__), None)
        yield from _checked(applied, label or f"autograd.Function {applied.function.__name__}")


def _checked(applied: Applied, where: str) -> Iterator[Finding]:
    tried = _tried(applied)
    if tried is None or tried.check.problem is not None or tried.check.passed:
        return
    name, wrong = applied.function.__name__, " ".join(map(str, tried.check.wrong))
    errors = {"relative_error": max(row.relative_error for row in tried.check.wrong)}
    # What is no derivative on purpose: of a step there is none to give, and the identity needs no backward.
    if tried.returns_its_input:
        meant = "returns its input unchanged and changes the gradient, as one that reverses or scales it does"
    elif tried.is_flat:
        meant = "is piecewise constant and passes a gradient on all the same: a straight-through or surrogate estimator"
    else:
        yield WRONG_GRADIENT.found(where, wrong, numbers=errors)
        return
    yield WRONG_GRADIENT.found(
        where,
        f"{name} {meant}. {wrong}",
        numbers=errors,
        fix="Nothing, if that is meant; else mend its backward.",
        severity="note",
    )


@dataclass(frozen=True)
class Tried:
    """A custom function at a point, and what the check says of it there."""

    function: Callable[..., Tensor]
    point: tuple[Tensor, ...]
    check: GradientCheck

    @property
    def returns_its_input(self) -> bool:
        """Whether the forward is the identity."""
        with torch.no_grad():
            output = self.function(*self.point)
        return any(output.shape == tensor.shape and torch.equal(output, tensor) for tensor in self.point)

    @property
    def is_flat(self) -> bool:
        """Whether small steps of one of the tensors change nothing, up or down."""
        with torch.no_grad():
            here = self.function(*self.point)
            unmoved = [
                all(torch.equal(self._moved(place, step), here) for step in (_STEP, -_STEP))
                for place in range(len(self.point))
            ]
            return any(unmoved)

    def _moved(self, place: int, step: float) -> Tensor:
        point = list(self.point)
        point[place] = point[place] + step * point[place].abs().clamp(min=1.0)
        return self.function(*point)


def _tried(applied: Applied) -> Tried | None:
    """The check on a few rows in float64; on all, or in the dtype given, where the function does not take that."""
    places = [place for place, learns in enumerate(applied.learns) if learns]
    for rows in (_ROWS, None):
        for dtype in (torch.float64, None):
            arguments = [_fewer(argument, rows, dtype) for argument in applied.arguments]
            point = tuple(arguments[place].detach().clone().requires_grad_() for place in places)
            if sum(tensor.numel() for tensor in point) > _LARGEST:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    function = _function(applied.function, arguments, places, point)
                    return Tried(
                        function, point, check_gradient(function, *point, samples=_SAMPLES, directions=_DIRECTIONS)
                    )
            except Exception:
                continue
    return None


def _function(
    kind: type[Function], arguments: list[Any], places: list[int], point: tuple[Tensor, ...]
) -> Callable[..., Tensor]:
    """The application as a function of the tensors that learn, to one tensor of all outputs with a gradient."""

    def outputs(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        given = list(each(arguments, torch.Tensor.clone))
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return list(tensors_in(kind.apply(*given)))

    with torch.enable_grad():
        differentiable = [output.requires_grad for output in outputs(tuple(tensor.clone() for tensor in point))]

    def function(*tensors: Tensor) -> Tensor:
        kept = [output for output, counts in zip(outputs(tensors), differentiable, strict=True) if counts]
        return kept[0] if len(kept) == 1 else torch.cat([output.reshape(-1) for output in kept])

    return function


def _fewer(argument: Any, rows: int | None, dtype: torch.dtype | None) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    argument = argument if rows is None or argument.dim() == 0 else argument[:rows]
    return argument.to(dtype) if dtype is not None and argument.is_floating_point() else argument


def _closed_forms(subject: Subject) -> Iterator[Finding]:
    """Losses and activations of the user's that offer a derivative in closed form."""
    target = subject.target
    raw = subject.training_pass.raw
    if isinstance(target, Tensor) and raw is not None and _offers(subject.loss, "gradient"):
        yield from _of_closed_form(
            f"the loss {type(subject.loss).__name__}",
            lambda: check_gradient(
                subject.loss,
                raw[:_ROWS].double(),
                target[:_ROWS].double() if target.is_floating_point() else target[:_ROWS],
                samples=_SAMPLES,
                directions=_DIRECTIONS,
            ),
        )
    for path, module in subject.network.named_modules():
        inputs = [operation.input for operation in subject.training_pass.of_network if operation.module == path]
        if _offers(module, "derivative") and inputs and inputs[0] is not None:
            x = inputs[0][:_ROWS].double()
            yield from _of_closed_form(
                f"layer '{path}' ({type(module).__name__})",
                lambda module=module, x=x: check_gradient(  # type: ignore[misc]
                    copy_of(module).double(), x, samples=_SAMPLES, directions=_DIRECTIONS
                ),
            )


def _of_closed_form(where: str, run: Callable[[], GradientCheck]) -> Iterator[Finding]:
    try:
        check = run()
    except Exception:
        return
    if check.problem is None and not check.passed:
        errors = {"relative_error": max(row.relative_error for row in check.wrong)}
        yield WRONG_GRADIENT.found(where, " ".join(map(str, check.wrong)), numbers=errors)


def _offers(thing: Any, derivative: str) -> bool:
    methods = all(callable(getattr(thing, method, None)) for method in ("value", derivative))
    return methods and not isinstance(thing, type) and not is_known(type(thing))


FAULTS: tuple[Fault, ...] = (WRONG_GRADIENT,)
CHECKS: tuple[Check, ...] = (wrong_gradient,)
