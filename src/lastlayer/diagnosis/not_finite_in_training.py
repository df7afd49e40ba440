"""Where the first NaN of a training came from: the data, or an operation, as found by training again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.not_a_number import NOT_A_NUMBER, not_a_number
from lastlayer.diagnosis.rerun import Rerun, Weights
from lastlayer.diagnosis.run_data import RunData, device_of, tensors_of
from lastlayer.diagnosis.run_record import NotFinite, RunRecord
from lastlayer.diagnosis.subject import Subject

#: Steps that are repeated, at most, from the last weights that are known to be finite.
REPEATED = 256
#: Rows of a pass over the data with the first weights.
SHOWN = 512
#: A loss that has grown by this factor before it was no number was on its way there: its steps overshot.
GROWTH = 10.0


def explain_not_finite(found: NotFinite, rerun: Rerun, weights: Weights, rate: float) -> NotFinite:
    """The same with where and why, if that comes out again.

    Args:
        found: which value of the loss it was.
        weights: finite ones from before.
        rate: the learning rate.
    """
    for network, batch in _candidates(rerun, weights, rate):
        findings = list(not_a_number(Subject(network, rerun.loss, batch.features, batch.target)))
        if findings:
            first = findings[0]
            return NotFinite(found.step, found.before, where=first.where, evidence=first.evidence, fix=first.fix)
    return found


def _candidates(rerun: Rerun, weights: Weights, rate: float) -> Iterator[tuple[nn.Module, RunData]]:
    """Networks with finite weights, each with rows that may be too much for it."""
    bad = rows_not_finite(rerun.data)
    first = rerun.data.take(bad[:SHOWN]) if len(bad) else rerun.data.some(SHOWN)
    yield rerun.with_weights(weights), first.to(device_of(rerun.network))
    moment = rerun.until(weights, rate, REPEATED, lambda moment: not _is_finite(moment.value, moment.network))
    if moment is not None:
        yield moment.network, moment.batch


def rows_not_finite(data: RunData) -> Tensor:
    """The places of rows with a number that is not finite."""
    bad = torch.zeros(len(data), dtype=torch.bool, device=data.target.device)
    for column in (*tensors_of(data.features), data.target):
        if column.is_floating_point() and column.dim():
            bad |= ~column.isfinite().flatten(1).all(1) if column.dim() > 1 else ~column.isfinite()
    return bad.nonzero().flatten()


def _is_finite(value: Tensor, network: nn.Module) -> bool:
    gradients = [own.grad for own in network.parameters() if own.grad is not None]
    return math.isfinite(float(value.detach())) and all(bool(each.isfinite().all()) for each in gradients)


def judge_not_finite(record: RunRecord) -> Iterator[Finding]:
    """The first loss that was no number, and what made it."""
    found = record.not_finite
    if found is None:
        if record.stopped == "not finite":
            yield NOT_A_NUMBER.found(
                "training", f"The loss was no longer a finite number in epoch {len(record.epochs)}, and training ended."
            )
        broken = next((look.step for look in record.looks if not look.finite), None)
        if broken is not None:
            yield NOT_A_NUMBER.found(
                "the parameters", f"After step {broken}, one that was looked at, they were not finite."
            )
        return
    opening = next((value for value in record.first_losses if math.isfinite(value)), math.nan)
    came = f"it had been {found.before:.4g} just before" if math.isfinite(found.before) else "it never had been"
    grown = math.isfinite(found.before) and abs(found.before) > GROWTH * max(abs(opening), 1e-30)
    growth = f", and {opening:.4g} at first: it had grown step by step" if grown else ""
    evidence = f"The training loss was not finite at step {found.step}; {came}{growth}."
    fix = found.fix or (
        "Lower the learning rate; clipping gradients (torch.nn.utils.clip_grad_norm_) stops single large steps."
        if grown
        else None
    )
    if found.where:
        evidence += f" Repeated on a copy: {found.evidence}"
    yield NOT_A_NUMBER.found(
        found.where or f"the loss of step {found.step}",
        evidence,
        numbers={"step": found.step, "before": found.before},
        fix=fix,
    )
