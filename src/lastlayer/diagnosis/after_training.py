"""What is asked of the network once training is over: it is compared, its training is tried again, on copies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from lastlayer.diagnosis.comparison import ROWS, compare, forward, in_evaluation, mean_loss
from lastlayer.diagnosis.copies import copy_of, kept_random_state
from lastlayer.diagnosis.layers import layers_of
from lastlayer.diagnosis.learning_rate import largest_rate, try_rates
from lastlayer.diagnosis.not_finite_in_training import explain_not_finite
from lastlayer.diagnosis.rerun import Rerun, Weights, can_run_again
from lastlayer.diagnosis.run_data import RunData, device_of
from lastlayer.diagnosis.run_record import LayerLook, RunRecord, TrainingModeCalls
from lastlayer.diagnosis.subject import loss_of, run

Result = TypeVar("Result")

#: Runs act if it can, else says so and returns None: what the recorder does for each of these.
Attempt = Callable[[str, Callable[[], Result]], "Result | None"]
#: Rows of the pass that shows the layers' signals.
SHOWN = 256
#: Rows of the comparison: as a share of those that were trained on, and as many as a comparison takes at least.
SHARE_COMPARED, FEWEST_COMPARED = 0.25, 1000


@dataclass
class AfterTraining:
    """The trained network, what it learned from, and the weights it had on the way.

    Attributes:
        network, loss, optimizer, training, validation: as the recorder has them.
        initial: the weights before the first step; ``None`` if they were not kept.
        recent: the last weights that were seen to be finite; ``None`` likewise.
        batch_size: rows of a step.
    """

    network: nn.Module
    loss: Any
    optimizer: Optimizer | None
    training: RunData | None
    validation: RunData | None
    initial: Weights | None
    recent: Weights | None
    batch_size: int

    def complete(self, record: RunRecord, attempt: Attempt[Any]) -> RunRecord:
        """The record with all that can be found out now."""
        training, validation, optimizer = self.training, self.validation, self.optimizer
        if self.loss is None or training is None:
            return record
        if record.steps and (not record.layers or record.layers[-1].step < record.steps):
            look = attempt("the layers", lambda: look_at_layers(self.network, self.loss, training, record.steps))
            record = replace(record, layers=(*record.layers, *([look] if look is not None else [])))
        if validation is not None:
            most = max(FEWEST_COMPARED, min(ROWS, int(SHARE_COMPARED * record.steps * self.batch_size)))
            compared = attempt(
                "the comparison", lambda: compare(self.network, self.loss, training, validation, most=most)
            )
            record = replace(record, comparison=compared)
            if record.training_mode_calls.calls:
                calls = attempt("both modes", lambda: self._both_modes(record.training_mode_calls, validation))
                record = replace(record, training_mode_calls=calls or record.training_mode_calls)
        if optimizer is None or self.initial is None or not can_run_again(optimizer):
            return record
        initial = self.initial
        rerun = Rerun(self.network, self.loss, optimizer, training, min(self.batch_size, len(training)))
        record = replace(
            record, trials=attempt("other learning rates", lambda: try_rates(record, rerun, initial)) or ()
        )
        if record.not_finite is not None:
            found, weights = record.not_finite, self.recent or initial
            explained = attempt(
                "what was not finite", lambda: explain_not_finite(found, rerun, weights, largest_rate(record))
            )
            record = replace(record, not_finite=explained or found)
        return record

    def _both_modes(self, seen: TrainingModeCalls, validation: RunData) -> TrainingModeCalls:
        return replace(
            seen,
            in_training=validation_loss(self.network, self.loss, validation, training=True),
            in_evaluation=validation_loss(self.network, self.loss, validation),
        )


def look_at_layers(network: nn.Module, loss: Any, data: RunData, step: int) -> LayerLook | None:
    """The layers' signals in a pass on a copy; ``None`` if it breaks off, or nothing in it is a number any more."""
    rows = data.some(SHOWN).to(device_of(network))
    made = run(network, loss, rows.features, rows.target, training=True)
    if made.failure is not None or made.value is None or not math.isfinite(float(made.value)):
        return None
    layers = layers_of(made, rows=len(rows))
    return LayerLook(step, len(rows), tuple(_short(layer.to_dict()) for layer in layers))


def _short(layer: dict[str, Any]) -> dict[str, Any]:
    """Without the edges of histograms, which follow from the rest: a saved record is read by people too."""
    for part in ("input", "output", "gradient"):
        if layer.get(part) is not None:
            layer[part].pop("edges", None)
    return layer


def validation_loss(network: nn.Module, loss: Any, data: RunData, *, training: bool = False) -> float:
    """The loss of these rows on a copy; NaN if the network gives no single tensor."""
    copied = copy_of(network)
    with in_evaluation(copied, training=training), kept_random_state():
        raw = forward(copied, data.to(device_of(copied)))
    return math.nan if raw is None else mean_loss(loss_of(loss), raw, data.target.to(raw.device))
