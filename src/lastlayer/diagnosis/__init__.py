"""The doctor: what is wrong with a network, its loss, its data or its training, and what to do.

``diagnose`` asks before training, on a copy; ``Recorder`` watches a training. Both give ``Findings``. A question is a
file that ends in its ``FAULTS`` and its ``CHECKS``; this index has them in the order in which they are asked.

=======================  ===============================================================================================
``finding``, ``fault``   what is said, and what is known of every fault
``trace``, ``subject``   one step on a copy, every operation of it recorded
``examination``          the questions, asked one by one; one that fails does not silence the others
``output``               does the last layer fit the loss, and the target both?
``structure``            is what is computed what is meant?
``signals``              does every layer pass on what it is given, there and back?
``data``                 can anything be learned from these rows?
``run``                  the recorder, and the questions about a run of training
=======================  ===============================================================================================
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from lastlayer.diagnosis import (
    activations_by_layer,
    always_dropping,
    batch_norm,
    class_axis,
    class_balance,
    custom_gradients,
    gradients_by_layer,
    initial_weights,
    inputs,
    leakage,
    link_in_source,
    logarithms,
    mixed_samples,
    not_a_number,
    optimized,
    output_and_loss,
    output_range,
    parameters,
    run_questions,
    scale,
    shape_errors,
    slowdown,
    softmax_axis,
    target_form,
    target_scale,
    targets,
    units,
    unregistered,
    unused_values,
)
from lastlayer.diagnosis.examination import CHECK_FAILED, Check, examine
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import SEVERITIES, Finding, Findings, Severity
from lastlayer.diagnosis.layers import LayerRecord, record_layers
from lastlayer.diagnosis.model_record import judge_model_record
from lastlayer.diagnosis.recorder import Recorder
from lastlayer.diagnosis.run_questions import judge_run
from lastlayer.diagnosis.run_record import RunRecord
from lastlayer.diagnosis.table_questions import ask_about_table

_QUESTIONS = (
    # output
    output_and_loss, link_in_source, logarithms, output_range, scale, class_axis, mixed_samples, slowdown, targets,
    target_form,
    # structure
    unused_values, shape_errors, softmax_axis, parameters, unregistered, optimized, batch_norm, always_dropping,
    custom_gradients, not_a_number,
    # signals
    initial_weights, activations_by_layer, gradients_by_layer, units,
    # data
    inputs, target_scale, class_balance, leakage,
    # run
    run_questions,
)  # fmt: skip
_CHECKS: tuple[Check, ...] = tuple(check for questions in _QUESTIONS for check in questions.CHECKS)


def catalog() -> dict[str, Fault]:
    """Every fault the doctor knows, by name."""
    faults = [fault for questions in _QUESTIONS for fault in questions.FAULTS]
    return {fault.name: fault for fault in (*faults, CHECK_FAILED)}


def diagnose(
    network: nn.Module,
    loss: Any,
    batch: Any,
    *,
    optimizer: Optimizer | None = None,
    validation: Any = None,
    training: Any = None,
) -> Findings:
    """Asks, before training, what is wrong with a network, its loss and its data.

    It takes one step forward and back on a copy, and sees every operation of it. Nothing given is changed: weights,
    gradients, modes and random numbers stay as they are.

    Args:
        network: any module that takes the batch's features.
        loss: a head, a loss, a module of PyTorch's, or a function of (raw, target); ``None`` to leave out what
            concerns it.
        batch: (features, target) as a data loader gives it; features may be a tensor, a tuple or a dictionary.
        optimizer: the one that will train.
        validation: (features, target) that will be judged on.
        training: (features, target), all that will be learned from, if that is more than the batch.

    Returns:
        The findings, the worst first; none where nothing is wrong.

    Raises:
        KindError: for a network that is no module.
        InputError: for a batch that is no pair of features and target.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
        >>> findings = diagnose(network, nn.CrossEntropyLoss(), (torch.randn(64, 4), torch.arange(64) % 3))
        >>> findings.names
        ['softmax_before_cross_entropy']
    """
    return examine(_CHECKS, network, loss, batch, optimizer=optimizer, validation=validation, training=training)


__all__ = [
    "SEVERITIES",
    "Fault",
    "Finding",
    "Findings",
    "LayerRecord",
    "Recorder",
    "RunRecord",
    "Severity",
    "ask_about_table",
    "catalog",
    "diagnose",
    "judge_model_record",
    "judge_run",
    "record_layers",
]
