"""The same training again on a copy: from other weights, with another learning rate, or until something happens."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lastlayer.diagnosis.copies import copy_of, deep_recursion, kept_gradients, kept_random_state, ordinary_mode
from lastlayer.diagnosis.run_data import RunData, device_of
from lastlayer.diagnosis.run_record import RateTrial
from lastlayer.diagnosis.subject import call, loss_of, own_copy

#: Rows on which the loss after a trial is measured, at most, and how many at once.
MEASURED = 1024
AT_ONCE = 512

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """One step of a training on a copy, before its weights are moved.

    Attributes:
        network: the copy, with the gradients of the step.
        batch: its rows.
        value: its loss.
    """

    network: nn.Module
    batch: RunData
    value: Tensor


@dataclass(frozen=True)
class Rerun:
    """How to train again.

    Attributes:
        network: never touched.
        loss: a head, a loss, or a function of (raw, target).
        optimizer: whose class and options are used, with a state of its own.
        data: rows to learn from.
        batch_size: rows of a step.
    """

    network: nn.Module
    loss: Any
    optimizer: Optimizer
    data: RunData
    batch_size: int

    def try_rate(self, start: str, weights: Weights | None, rate: float, steps: int) -> RateTrial:
        """So many steps with this rate, and the loss they lead to; with a rate of 0 the loss as it is."""
        copied = copy_of(self.network) if weights is None else self.with_weights(weights)
        with _probing(copied):
            if rate:
                for moment in self._steps(copied, rate, steps):
                    if not math.isfinite(float(moment.value.detach())):
                        return RateTrial(start, rate, steps, math.nan)
            return RateTrial(start, rate, steps if rate else 0, self._measured(copied))

    def until(self, weights: Weights, rate: float, steps: int, stop: Callable[[Moment], bool]) -> Moment | None:
        """Trains until a step is as asked for, before its weights are moved; ``None`` if none of so many is."""
        copied = self.with_weights(weights)
        with _probing(copied):
            return next((moment for moment in self._steps(copied, rate, steps) if stop(moment)), None)

    def with_weights(self, weights: Weights) -> nn.Module:
        """A copy of the network with these weights."""
        copied = copy_of(self.network)
        copied.load_state_dict(weights)
        return copied

    def _steps(self, copied: nn.Module, rate: float, steps: int) -> Iterator[Moment]:
        copied.train()
        compute = loss_of(own_copy(self.loss))
        device = device_of(copied)
        optimizer = optimizer_like(self.optimizer, self.network, copied, rate)
        batches = self.data.batches(self.batch_size, generator=torch.Generator().manual_seed(0))
        for _, drawn in zip(range(steps), batches, strict=False):
            batch = drawn.to(device)
            optimizer.zero_grad()
            value = compute(call(copied, batch.features), batch.target)
            with kept_gradients(value, copied):
                value.backward()
            yield Moment(copied, batch, value)
            optimizer.step()

    @torch.no_grad()
    def _measured(self, copied: nn.Module) -> float:
        """The loss in training mode, as the curve has it, over many rows."""
        torch.manual_seed(0)
        copied.train()
        compute = loss_of(own_copy(self.loss))
        rows = self.data.some(MEASURED).to(device_of(copied))
        total = 0.0
        for start in range(0, len(rows), AT_ONCE):
            part = rows.take(slice(start, start + AT_ONCE))
            if len(part) > 1 or len(rows) == 1:
                total += len(part) * float(compute(call(copied, part.features), part.target))
        mean = total / len(rows)
        return mean if math.isfinite(mean) else math.nan


def can_run_again(optimizer: Optimizer | None) -> bool:
    """Whether the optimizer's steps are one gradient each."""
    return optimizer is not None and not isinstance(optimizer, LBFGS)


def optimizer_like(optimizer: Optimizer, network: nn.Module, copied: nn.Module, rate: float) -> Optimizer:
    """An optimizer of the same class and options for the copy's parameters, the largest learning rate being ``rate``.

    Raises:
        ValueError: if none of its parameters belong to the network.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    own = dict(copied.named_parameters())
    largest = max(float(group["lr"]) for group in optimizer.param_groups)
    groups = []
    for group in optimizer.param_groups:
        options: dict[str, Any] = {name: value for name, value in group.items() if name not in ("params", "initial_lr")}
        options["lr"] = rate * float(group["lr"]) / largest if largest > 0 else rate
        parameters = [own[names[id(parameter)]] for parameter in group["params"] if id(parameter) in names]
        if parameters:
            groups.append({**options, "params": parameters})
    if not groups:
        raise ValueError("the optimizer has no parameter of the network")
    taken = inspect.signature(type(optimizer).__init__).parameters
    defaults = {name: value for name, value in optimizer.defaults.items() if name in taken}
    made: Optimizer = type(optimizer)(groups, **{**defaults, "lr": rate})
    return made


@contextmanager
def _probing(copied: nn.Module) -> Iterator[None]:
    """Whatever happens inside leaves no trace and prints nothing."""
    with warnings.catch_warnings(), kept_random_state(), ordinary_mode(copied), deep_recursion():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield
