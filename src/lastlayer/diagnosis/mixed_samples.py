"""A softmax that goes over the samples in the middle of a network, or in a loss that then picks classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.diagnosis.class_axis import SOFTMAX_OVER_WRONG_AXIS
from lastlayer.diagnosis.copies import copy_of, kept_random_state
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.operation import LINK, Operation
from lastlayer.diagnosis.subject import Features, Subject, call

#: What the rest of the batch may change in a row's output by another order of sums, in shares of the largest output.
ROUNDING = 1e-3


def softmax_over_the_samples(subject: Subject) -> Iterator[Finding]:
    """Of a hidden softmax over the first axis: whether a row's output depends on the other rows of its batch."""
    ran, rows = subject.training_pass, subject.rows
    if rows < 4:
        return
    for operation in ran.of_network:
        if _over_samples(operation, rows) and not operation.returned and _rows_depend_on_each_other(subject):
            yield _finding(operation, "What the network says of a row changes with the other rows of its batch.")
    target = subject.target
    for operation in ran.of_loss:
        output = operation.output
        if output is None or not _over_samples(operation, rows) or output.dim() != 2 or output.shape[1] == rows:
            continue
        picks = any(child.name in ("gather", "getitem", "take_along_dim") for child in operation.children)
        classes = target is not None and target.dim() == 1 and not target.is_floating_point()
        if picks and classes:
            yield _finding(operation, "The loss then picks each row's class from it.")


def _over_samples(operation: Operation, rows: int) -> bool:
    output = operation.output
    if operation.name not in LINK or output is None or output.dim() < 2 or output.shape[0] != rows:
        return False
    axis = operation.options.get("dim", operation.options.get("1"))
    return isinstance(axis, int) and axis in (0, -output.dim())


@torch.no_grad()
def _rows_depend_on_each_other(subject: Subject) -> bool:
    """Whether half of the batch, alone, gets another output than within the whole; in evaluation mode."""
    half = subject.rows // 2
    network = copy_of(subject.network).eval()
    try:
        with kept_random_state():
            whole, part = call(network, subject.features), call(network, _first(subject.features, half))
    except Exception:
        return False
    if not isinstance(whole, Tensor) or not isinstance(part, Tensor) or len(whole) != subject.rows:
        return False
    size = whole.abs().max().clamp_min(torch.finfo(whole.dtype).tiny)
    return bool((whole[:half] - part).abs().max() > ROUNDING * size)


def _first(features: Features, rows: int) -> Features:
    if isinstance(features, tuple):
        return tuple(value[:rows] if isinstance(value, Tensor) else value for value in features)
    if isinstance(features, dict):
        return {name: value[:rows] if isinstance(value, Tensor) else value for name, value in features.items()}
    return features[:rows]


def _finding(operation: Operation, effect: str) -> Finding:
    assert operation.output is not None
    shape = tuple(operation.output.shape)
    return SOFTMAX_OVER_WRONG_AXIS.found(
        operation.label,
        f"Of its outputs, {shape}, those of all {shape[0]} samples together add up to 1. {effect}",
        numbers={"axis": 0, "length": shape[0]},
        fix=f"Take {operation.name} over an axis within the sample, such as dim=1 or dim=-1.",
    )


FAULTS: tuple[Fault, ...] = ()
CHECKS: tuple[Check, ...] = (softmax_over_the_samples,)
