"""Every question about a run of training, asked of its record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lastlayer.diagnosis import evaluation_mode, learning_rate, overfitting, simple_predictors, uncleared_gradients
from lastlayer.diagnosis.examination import CHECK_FAILED, Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.frozen_in_training import judge_frozen
from lastlayer.diagnosis.not_finite_in_training import judge_not_finite
from lastlayer.diagnosis.run_record import RunRecord
from lastlayer.diagnosis.signals_in_training import judge_signals

#: One question: what of this kind the record shows.
RunCheck = Callable[[RunRecord], Iterable[Finding]]

RUN_CHECKS: tuple[RunCheck, ...] = (
    judge_not_finite,
    uncleared_gradients.judge_uncleared,
    learning_rate.judge_learning_rate,
    judge_signals,
    judge_frozen,
    evaluation_mode.judge_evaluation_mode,
    overfitting.judge_overfitting,
    simple_predictors.judge_simple_predictors,
)


def judge_run(record: RunRecord | Mapping[str, Any]) -> list[Finding]:
    """What is wrong with a run of training.

    Args:
        record: of a :class:`~lastlayer.diagnosis.recorder.Recorder`; or as plain data: what its ``to_dict`` gave, or
            the curves that a saved model has of its training (``model.record["training"]``).

    Example:
        >>> curves = {"training_loss": [1.0, 0.6, 0.4, 0.2, 0.1, 0.05, 0.03], "best_epoch": None,
        ...     "validation_loss": [1.0, 0.7, 0.6, 0.8, 1.0, 1.2, 1.4]}
        >>> [finding.name for finding in judge_run(curves)]
        ['overfitting']
    """
    if isinstance(record, Mapping):
        record = RunRecord.from_curves(record) if "training_loss" in record else RunRecord.from_dict(record)
    findings: list[Finding] = []
    for check in RUN_CHECKS:
        try:
            findings += check(record)
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            evidence = f"It raised {type(error).__name__}: {error}"
            findings.append(CHECK_FAILED.found(f"the question {getattr(check, '__name__', check)!r}", evidence))
    return findings


FAULTS: tuple[Fault, ...] = (
    *learning_rate.FAULTS,
    *overfitting.FAULTS,
    *simple_predictors.FAULTS,
    *evaluation_mode.FAULTS,
    *uncleared_gradients.FAULTS,
)
CHECKS: tuple[Check, ...] = ()
