"""Gradients against differences, for whatever has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError
from lastlayer.gradient_check.differences import Probe, check_step, machine_precision
from lastlayer.gradient_check.judgment import Options, check_tensor
from lastlayer.gradient_check.result import GradientCheck, TensorCheck
from lastlayer.gradient_check.state import kept
from lastlayer.gradient_check.subject import Claim, Subject, subject_of


def check_gradient(
    f: Any,
    *inputs: Any,
    loss: Callable[..., Tensor] | None = None,
    target: Any = None,
    samples: int = 100,
    directions: int = 2,
    tolerance: float | None = None,
    step: float | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> GradientCheck:
    """Whether a gradient is the derivative of its function, by symmetric differences of the function.

    What is checked follows from what f is:

    - a function of tensors to a tensor: backward, with respect to the inputs that require grad, or to every
      floating-point input if none does; with ``loss``, of ``loss(f(*inputs), target)``;
    - a module, or a method of one: backward, with respect to every parameter that requires grad, and to the inputs
      that do; with ``loss``, of ``loss(network(*inputs), target)``;
    - a loss of lastlayer, or anything with ``.value(raw, target)`` and ``.gradient(raw, target)``: the closed form, and
      backward through the value; inputs are raw and target, or none, for the example of its facts;
    - an activation of lastlayer, or anything with ``.value(x)`` and ``.derivative(x)``: likewise. Where every output
      depends on several inputs, the derivative is the Jacobian, ``(..., outputs, inputs)``.

    Nothing is changed: parameters, their grads, buffers, attributes, training flags and PyTorch's random state are
    afterwards as they were, also after an error. What a plain function changes by itself is its own.

    Args:
        f: what to check.
        inputs: what f takes; anything but floating-point tensors is passed on as it is.
        loss: a function of f's result and ``target``; of f's result alone if there is no target.
        target: what the loss compares with.
        samples: elements compared one by one per tensor, all of them in a smaller one. Two evaluations each.
        directions: random directions per tensor that is larger, which see every element; one along the gradient itself
            is always added, unless this is 0.
        tolerance: the relative error allowed; ``None`` for the dtype's: 5e-7 in float64, 4e-4 in float32.
        step: how far an element moves; ``None`` for ``ε^(1/3)·max(1, |x|)``, ε the dtype's machine precision.
        dtype: of the example that is drawn for a loss or an activation without inputs; ``None`` for that of its
            parameters, float64 if it has none.
        seed: which elements and directions.

    Returns:
        A :class:`GradientCheck`: true if all is right, plain words as ``str``, rows per tensor as ``.tensors``.

    Formula: the relative error is ``|a − n| / max(|a|, |n|, s)``, with backward's a, the difference quotient n, and a
    floor s of a hundredth of the gradient's root mean square, or more where the rounding of f hides more.

    Numerics: everything is computed in the dtypes given; prefer float64 (``network.double()``). In float32 rounding
    hides a thousand times more.

    Special cases: a result of several numbers is summed with fixed random weights. Where an element disagrees at the
    first step, other steps decide. Where slopes to both sides differ (a kink, as ReLU's at 0), any gradient between
    them is right. A tensor with no gradient (None) is wrong if f depends on it, and named as unused if not. If two
    evaluations differ, as with active dropout, or f is not finite, ``.problem`` says so and the check fails.

    Raises:
        InputError: if nothing has a gradient, or options are out of range.
        KindError: if f is none of these, or gives something else than one floating-point tensor.
        ShapeError: if a closed form has another shape than what it is the gradient of.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
        >>> features, target = torch.randn(8, 3).double(), torch.randn(8, 1).double()
        >>> bool(check_gradient(network, features, loss=torch.nn.functional.mse_loss, target=target))
        True
        >>> half = lambda x: (x * x.detach()).sum()
        >>> print(check_gradient(half, torch.tensor([1.0, 3.0], dtype=torch.float64)).wrong[0])
        x is wrong: at [1] backward gives 3, differences give 6 (relative error 0.5, allowed 5e-07); \
every checked element is about half of what it should be.

    Reference: SPEC D8.
    """
    for name, number in (("samples", samples), ("directions", directions)):
        least = int(name == "samples")
        if number < least:
            raise InputError(f"{name} is {number!r}; expected a whole number of {least} or more.")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; expected a number between 0 and 1, or None for the dtype's own.")
    check_step(step)
    generator = torch.Generator().manual_seed(seed)
    subject = subject_of(f, inputs, loss=loss, target=target, dtype=dtype, generator=generator)
    options = Options(samples, directions, tolerance, step, generator)
    with kept(subject.state, [tensor.device for tensor in subject.tensors.values()]):
        here, again = (subject.evaluate({}).detach() for _ in range(2))
        problem = _problem(here, again, f)
        if problem is not None:
            return GradientCheck((), problem)
        weights = subject.weights(here)
        rows = tuple(_row(subject, claim, weights, options) for claim in subject.claims(weights))
    return GradientCheck(rows, notes=_notes(rows, subject, weights))


def _row(subject: Subject, claim: Claim, weights: Tensor | None, options: Options) -> TensorCheck:
    probe = Probe(lambda moved: subject.evaluate({claim.name: moved}), subject.tensors[claim.name], weights)
    return check_tensor(probe, claim.gradient, name=claim.name, how=claim.how, options=options)


def _problem(here: Tensor, again: Tensor, f: Any) -> str | None:
    """Why differences would mean nothing; ``None`` if they mean something."""
    if not here.isfinite().all():
        value = here[~here.isfinite()].reshape(-1)[0].item()
        return f"Nothing can be compared: the function is {value} at the given point."
    if torch.equal(here, again):
        return None
    change = (here.double() - again.double()).abs().reshape(-1)
    where = int(change.argmax())
    # A sum in another order, as on a GPU, is no other function.
    if change[where] <= 16 * machine_precision(here.dtype) * here.abs().max():
        return None
    owner = getattr(f, "__self__", f)
    active = [
        f"'{name}'"
        for name, part in (owner.named_modules() if isinstance(owner, nn.Module) else ())
        if "Dropout" in type(part).__name__ and part.training and getattr(part, "p", 1)
    ]
    cause = "it is random, or remembers earlier calls"
    if active:
        cause = f"dropout is active in {', '.join(active)}. Fix: network.eval()"
    return (
        f"Nothing can be compared: two evaluations at the same point differ, {here.reshape(-1)[where].item():.6g} and "
        f"{again.reshape(-1)[where].item():.6g}; {cause}."
    )


def _notes(rows: tuple[TensorCheck, ...], subject: Subject, weights: Tensor | None) -> tuple[str, ...]:
    notes = []
    if weights is not None:
        notes.append(f"The function gives {len(weights)} numbers; slopes are those of their sum with random weights.")
    coarse = {str(tensor.dtype).removeprefix("torch.") for tensor in subject.tensors.values()} - {"float64"}
    if coarse:
        hidden = list(dict.fromkeys(row.label for row in rows if row.size and row.noise > row.size / 10))
        which = f"hides errors in {', '.join(hidden[:3])}" if hidden else "hides small errors"
        more = f" and {len(hidden) - 3} more" if len(hidden) > 3 else ""
        notes.append(f"Checked in {' and '.join(sorted(coarse))}, whose rounding {which}{more}; float64 shows more.")
    return tuple(notes)
