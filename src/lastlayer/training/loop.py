"""The training loop: epochs of steps, a look at the validation rows after each, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from lastlayer.heads import Head
from lastlayer.training.recipe import Plan
from lastlayer.training.rows import Rows
from lastlayer.training.step import step

# Rows judged at once: enough to fill the matrix products, little enough to stay in cache.
_JUDGED_AT_ONCE = 4096
# … and fewer images, whose maps are many times as large as they are.
_PIXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Epoch:
    """What one epoch did. Training and validation loss stand side by side and are never mixed (SPEC D5).

    Attributes:
        number: counted from 1.
        training_loss: mean over the epoch's batches, as they were when trained on.
        validation_loss: of the weights after the epoch; ``None`` without validation rows.
        headline: a figure people read (accuracy, or the error in the target's units), on the validation rows.
    """

    number: int
    training_loss: float
    validation_loss: float | None
    headline: float | None


@dataclass
class History:
    """What training did.

    Attributes:
        epochs: every epoch, in order.
        best_epoch: whose weights were kept; 0 for the start, the best constant prediction.
        most_epochs: how many there could have been.
        stopped: ``"patience"``, ``"max_epochs"``, ``"interrupted"`` or ``"not finite"``.
        seconds: wall-clock time.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    most_epochs: int = 0
    stopped: str = "max_epochs"
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, one list per column."""
        return {
            "best_epoch": self.best_epoch,
            "most_epochs": self.most_epochs,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
            "training_loss": [epoch.training_loss for epoch in self.epochs],
            "validation_loss": [epoch.validation_loss for epoch in self.epochs],
            "headline": [epoch.headline for epoch in self.epochs],
        }


def rows_at_once(features: Tensor) -> int:
    """How many of such rows a network judges at once."""
    if features.dim() < 3:
        return _JUDGED_AT_ONCE
    return max(1, min(_JUDGED_AT_ONCE, _PIXELS_AT_ONCE // max(features[0].numel(), 1)))


@torch.no_grad()
def forward(network: nn.Module, features: Tensor) -> Tensor:
    """Raw output of all rows, a few thousand at a time, with dropout and batch statistics off."""
    was_training = network.training
    rows_axis = 0 if getattr(network, "members", None) is None else 1
    network.eval()
    try:
        return torch.cat([network(part) for part in features.split(rows_at_once(features))], dim=rows_axis)
    finally:
        network.train(was_training)


def train(
    network: nn.Module,
    head: Head,
    training: Rows,
    validation: Rows | None,
    plan: Plan,
    *,
    generator: torch.Generator,
    headline: Callable[[Tensor, Tensor], float],
    watch: Callable[[History], None] = lambda history: None,
) -> History:
    """Trains ``network`` in place and leaves it, in evaluation mode, with the best weights seen.

    Best is the lowest validation loss (SPEC D4), or, without validation rows, the last. Ctrl-C ends training early and
    keeps the best weights so far; a loss that is no number does the same. Of several members each keeps its own best;
    training goes on while any of them gets better.

    Args:
        headline: from validation raw output and target to the figure beside the loss.
        watch: called after every epoch with the history so far.
    """
    started = time.perf_counter()
    optimizer = plan.build_optimizer(network)
    averaged = AveragedModel(network, multi_avg_fn=_average_of(plan.average)) if plan.average else None
    judged: nn.Module = network if averaged is None else averaged.module
    history = History(most_epochs=plan.max_epochs)
    best = _Best(judged)
    if validation is not None:
        best.see(_judge(judged, head, validation, headline)[0], 0)
    improved = 0
    try:
        for number in range(1, plan.max_epochs + 1):
            training_loss = one_epoch(network, averaged, head, optimizer, training, plan, number, generator=generator)
            validation_loss, losses, figure = None, None, None
            if validation is not None:
                losses, figure = _judge(judged, head, validation, headline)
                validation_loss = float(losses.mean())
            history.epochs.append(Epoch(number, training_loss, validation_loss, figure))
            decisive = training_loss if validation_loss is None else validation_loss
            if not (math.isfinite(decisive) and math.isfinite(training_loss)):
                history.stopped = "not finite"
                break
            if best.see(losses, number):
                improved = number
            history.best_epoch = best.epoch
            watch(history)
            if number - improved >= plan.patience:
                history.stopped = "patience"
                break
    except KeyboardInterrupt:
        history.stopped = "interrupted"
    network.load_state_dict(best.weights)
    network.eval()
    history.seconds = time.perf_counter() - started
    return history


def one_epoch(
    network: nn.Module,
    averaged: AveragedModel | None,
    head: Head,
    optimizer: Optimizer,
    training: Rows,
    plan: Plan,
    number: int,
    *,
    generator: torch.Generator,
) -> float:
    """One pass over the training rows; the mean of its batches' losses, each weighted by its rows."""
    network.train()
    losses, sizes, done = [], [], 0
    for batch in training.batches(plan.batch_size, generator=generator, shuffle=plan.shuffle):
        rate = plan.rate(number - 1 + done / len(training))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Kept on the device: reading a loss at every step would make the host wait for it.
        losses.append(step(network, head, optimizer, batch))
        sizes.append(len(batch))
        done += len(batch)
        if averaged is not None:
            averaged.update_parameters(network)
    size = torch.tensor(sizes, dtype=torch.float32, device=losses[0].device)
    return float(torch.dot(torch.stack(losses), size) / size.sum())


def _average_of(decay: float) -> Callable[..., None]:
    """An exponential moving average that starts short: after t steps its decay is (1 + t)/(10 + t) at most."""

    def update(averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        done = int(steps)
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1 + done) / (10 + done)))

    return update


def _judge(
    network: nn.Module, head: Head, validation: Rows, headline: Callable[[Tensor, Tensor], float]
) -> tuple[Tensor, float]:
    """The validation loss, one for each member that has weights of its own, and the headline."""
    raw = forward(network, validation.features)
    if getattr(network, "members", None) is None:
        return head.validation_loss(raw, validation.target, validation.weight), headline(raw, validation.target)
    losses = [head.validation_loss(own, validation.target, validation.weight) for own in raw]
    each = torch.stack(losses)
    independent = getattr(network, "members_are_independent", True)
    return each if independent else each.mean(), headline(raw, validation.target)


class _Best:
    """The weights with the least loss so far; of several members each its own."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._loss: Tensor | None = None
        self._epoch = torch.tensor(0)
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @property
    def epoch(self) -> int:
        """After which epoch that was; of several members the middle one."""
        return int(self._epoch.float().median().round())

    def see(self, loss: Tensor | None, epoch: int) -> bool:
        """Keeps what is better than before (without a loss, everything); whether there was any."""
        if loss is None or loss.dim() == 0:
            better = loss is None or self._loss is None or bool(loss < self._loss)
            if better:
                self._loss, self._epoch = loss, torch.tensor(epoch)
                for name, value in self._network.state_dict().items():
                    self.weights[name].copy_(value)
            return better
        before = torch.full_like(loss, torch.inf) if self._loss is None else self._loss
        improved = loss < before
        self._loss = torch.where(improved, loss, before)
        self._epoch = torch.where(improved, epoch, self._epoch)
        for name, _ in self._network.named_parameters():
            self.weights[name][improved] = self._network.state_dict()[name][improved]
        return bool(improved.any())
