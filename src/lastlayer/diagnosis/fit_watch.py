"""The record of our own training: taken after epochs, on copies, so that no step of it is watched or slowed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.after_training import look_at_layers
from lastlayer.diagnosis.comparison import comparison_of_rows
from lastlayer.diagnosis.run_data import RunData
from lastlayer.diagnosis.run_record import LayerLook, RunRecord
from lastlayer.diagnosis.sampling import BASE_OF_LAYERS, USUAL_OF_LAYERS, Sampling
from lastlayer.heads import Head
from lastlayer.training import History, Plan, Rows

#: Rows of a look at the layers.
ROWS = 64


class FitWatch:
    """Called after every epoch; looks at the layers after the epochs 1, 16, 256, … and the last.

    Hooks would take the library's own networks off the path that writes their backward pass out, and with it a quarter
    of their speed. So nothing is hooked: weights are looked at between epochs, on a copy, and the curves are those that
    training keeps anyway.

    Args:
        network: that is trained.
        head: whose loss it is trained by.
        training: the rows, on the network's device.
        plan: how.
    """

    def __init__(self, network: nn.Module, head: Head, training: Rows, plan: Plan) -> None:
        self._network = network
        self._loss = _loss_of(network, head)
        self._head = head
        self._data = RunData(training.features, training.target).some(ROWS)
        self._rows = len(training)
        self._plan = plan
        self._looks: list[LayerLook] = []
        self._note = ""
        # Two looks take as long as some twenty steps of a small network.
        self._sampling = Sampling(period=USUAL_OF_LAYERS, base=BASE_OF_LAYERS)

    def __call__(self, history: History) -> None:
        """A look, if it is time for one."""
        if self._sampling.is_due(len(history.epochs)):
            self._look(len(history.epochs))

    def record(self, history: History, losses: Mapping[str, Tensor] | None = None) -> RunRecord:
        """The record, once training is over and the best weights are in place.

        Args:
            losses: of every row held out, for ``"network"``, ``"constant"`` and ``"linear"``, by the same loss.
        """
        self._look(len(history.epochs))
        record = RunRecord.from_curves(history.to_dict())
        record = replace(
            record,
            network=type(self._network).__name__,
            loss=type(self._head).__name__,
            optimizer=self._plan.optimizer,
            steps=len(history.epochs) * self._steps_of_an_epoch,
            rows=self._rows,
            epochs=tuple(replace(epoch, step=epoch.number * self._steps_of_an_epoch) for epoch in record.epochs),
            layers=tuple(self._looks),
            notes=(self._note,) if self._note else (),
        )
        if losses is None or set(losses) != {"network", "constant", "linear"}:
            return record
        width = self._data.features.shape[1] if isinstance(self._data.features, Tensor) else 0
        return replace(record, comparison=comparison_of_rows(**losses, features=width))

    @property
    def _steps_of_an_epoch(self) -> int:
        return -(-self._rows // self._plan.batch_size)

    def _look(self, epoch: int) -> None:
        step = epoch * self._steps_of_an_epoch
        if self._note or (self._looks and self._looks[-1].step == step):
            return
        try:
            # The draws of dropout in a look are the same whenever it is taken.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(step)
                look = look_at_layers(self._network, self._loss, self._data, step)
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            # A record that lacks something is no reason to lose a fit.
            self._note = f"the layers: {type(error).__name__}: {error}"
            return
        if look is not None:
            self._looks.append(look)


def _loss_of(network: nn.Module, head: Head) -> Any:
    """The head, or for members side by side its loss against the same target for each."""
    members = getattr(network, "members", None)
    if members is None:
        return head

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return head.loss(raw, target.expand(members, *target.shape))

    return loss
