"""A forward pass that breaks off: which layer, what arrives, what it takes, and what to put in between."""

from __future__ import annotations

import os
import re
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lastlayer.diagnosis.changed_calls import Change
from lastlayer.diagnosis.copies import copy_of, deep_recursion, kept_random_state, ordinary_mode
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.misfits import Misfit, Repair, fit_last_axis, misfit_of, misfit_of_shape
from lastlayer.diagnosis.subject import Failure, Subject, call
from lastlayer.diagnosis.tensors import tensors_in
from lastlayer.diagnosis.trace import function_name

LAYER_SHAPE_MISMATCH = Fault(
    name="layer_shape_mismatch",
    title="a layer that does not fit what arrives",
    severity="error",
    why="The forward pass raises an error: what arrives has another shape, dtype or device than the layer takes.",
    fix="Change the layer's size, or insert what brings the tensor into the shape that it takes.",
    reference="SPEC D9",
)
FORWARD_FAILS = Fault(
    name="forward_fails",
    title="a pass that raises an error",
    severity="error",
    why="Without a result there is nothing to learn from, and most of the doctor's questions have no answer.",
    fix="Mend the error, then ask again.",
    reference="SPEC D9",
)

# Where PyTorch's files lie, and this package's; what was typed in has none.
_NOT_THE_USERS = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)), "<")
# Told by a question of its own.
_BATCH_OF_ONE = "Expected more than 1 "


def layer_shape_mismatch(subject: Subject) -> Iterator[Finding]:
    """Why the forward pass broke off, where it is a shape, a kind of number or a device; else what was raised."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage == "loss" or _BATCH_OF_ONE in str(failure.error):
        return
    said = textwrap.shorten(str(failure.error), 200, placeholder=" …")
    words = f"{type(failure.error).__name__}: {said}"
    place = line_of(failure)
    if failure.stage == "backward":
        yield _of_backward(subject, f"{type(failure.error).__name__}: {failure.error}".partition("; expected")[0])
        return
    misfit, where = (
        (misfit_of(failure.refused), failure.refused.label) if failure.refused else _of_module(subject, failure)
    )
    if misfit is None or not misfit.repairs:
        yield FORWARD_FAILS.found(where or "the forward pass", f"It raises {words}{place}.")
        return
    repair, tried = try_repairs(subject, failure, misfit.repairs)
    evidence = f"{misfit.evidence} The forward pass raises {words}{place}."
    yield LAYER_SHAPE_MISMATCH.found(where, evidence, fix=repair.sentence, tried=tried)


def line_of(failure: Failure) -> str:
    """The last line of the user's own on the way to an error, as an evidence ends; ``""`` if there is none."""
    for frame in reversed(traceback.extract_tb(failure.error.__traceback__)):
        if not frame.filename.startswith(_NOT_THE_USERS):
            line = f", {frame.line}" if frame.line else ""
            return f" (line {frame.lineno} of {os.path.basename(frame.filename)}{line})"
    return ""


def try_repairs(subject: Subject, failure: Failure, repairs: tuple[Repair, ...]) -> tuple[Repair, str | None]:
    """The first repair with which a copy runs to its end, and what came of it; else the first, untried."""
    for repair in repairs:
        if repair.change is None:
            continue
        result = _run_with(subject, failure, repair.change)
        if result is not None:
            return repair, f"on a copy, so that it fits, the forward pass runs to its end and returns {result}."
    return repairs[0], None


def _run_with(subject: Subject, failure: Failure, change: Change) -> str | None:
    """What the network returns if the call that was refused gets other arguments; ``None`` if it fails again."""
    network = copy_of(subject.network)
    network.train()
    try:
        with warnings.catch_warnings(), kept_random_state(), ordinary_mode(network), deep_recursion():
            warnings.simplefilter("ignore")
            if failure.refused is not None:
                with _Changed(failure.refused.name, change):
                    result = call(network, subject.features)
            else:
                module = network.get_submodule(failure.module)
                module.register_forward_pre_hook(lambda _, args, keywords: change(args, keywords), with_kwargs=True)
                result = call(network, subject.features)
    except Exception:
        return None
    shapes = [str(tuple(tensor.shape)) for tensor in tensors_in(result)]
    return " and ".join(shapes[:3]) if shapes else None


class _Changed(TorchFunctionMode):
    """Repeats the calls of one function that are refused, with other arguments."""

    def __init__(self, name: str, change: Change) -> None:
        super().__init__()
        self._name, self._change = name, change

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            return function(*args, **kwargs)
        except Exception:
            if function_name(function) != self._name:
                raise
            args, kwargs = self._change(tuple(args), kwargs)
            return function(*args, **kwargs)


def _of_backward(subject: Subject, words: str) -> Finding:
    """Usually something was written over numbers that backward needs again."""
    needed = re.search(r"output \d+ of (\w+?)(Backward\d*)?,", words)
    for operation in subject.training_pass.operations if needed is not None else ():
        for parent in operation.parents if operation.in_place else ():
            if needed is None or parent is None or parent.name.replace("_", "") != needed[1].lower():
                continue
            return FORWARD_FAILS.found(
                operation.label,
                f"It writes over the output of {parent.label}, which backward needs again. PyTorch says: {words}.",
                fix="Write it out of place: y = y + x for y += x, torch.relu(x) for x.relu_().",
            )
    return FORWARD_FAILS.found("the backward pass", f"It raises {words}.")


def _of_module(subject: Subject, failure: Failure) -> tuple[Misfit | None, str]:
    """The same of a layer of PyTorch's that refuses its input before any function is called."""
    network = subject.training_pass.network
    module = dict(network.named_modules()).get(failure.module, network)
    kind = type(module).__name__
    name = f"layer '{failure.module}' ({kind})" if failure.module else f"{kind}'s forward"
    arrived = _arrived(failure, module)
    if arrived is None:
        return None, name
    shape, source = tuple(arrived.shape), _source(subject, arrived)
    if isinstance(module, nn.RNNBase) and shape and shape[-1] != module.input_size:
        layer = f"nn.{kind}({{}}, {module.hidden_size})"
        axes = "(n, steps, {})" if module.batch_first else "(steps, n, {})"
        repairs = fit_last_axis(shape, module.input_size, layer)
        return misfit_of_shape(axes.format(module.input_size), shape, source, repairs), name
    if isinstance(module, nn.modules.batchnorm._NormBase) and "D input" in str(failure.error):
        right = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}.get(len(shape))
        if right is not None:
            right = right.replace("Batch", "Instance") if "Instance" in kind else right
            repair = Repair(f"Make it nn.{right}({module.num_features}), or bring what arrives into that shape.")
            takes = "(n, channels) or (n, channels, length)" if kind.endswith("1d") else "(n, channels, height, width)"
            return misfit_of_shape(takes, shape, source, [repair]), name
    return None, name


def _source(subject: Subject, arrived: Tensor) -> str:
    """What most likely made it: the last operation before, if the shape is that of its output."""
    operations = subject.training_pass.operations
    last = operations[-1].output if operations else None
    if last is not None and last.shape == arrived.shape:
        return operations[-1].label
    return "the inputs" if any(x.shape == arrived.shape for x in tensors_in(subject.features)) else "what is before it"


def _arrived(failure: Failure, module: nn.Module) -> Tensor | None:
    """What the module was given, from the frames of the error."""
    step = failure.error.__traceback__
    while step is not None:
        inside = step.tb_frame.f_locals
        if inside.get("self") is module:
            for name, value in inside.items():
                if name != "self" and isinstance(value, Tensor):
                    return value
        step = step.tb_next
    return None


FAULTS: tuple[Fault, ...] = (LAYER_SHAPE_MISMATCH, FORWARD_FAILS)
CHECKS: tuple[Check, ...] = (layer_shape_mismatch,)
