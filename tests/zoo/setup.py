"""What a set-up is, how it is trained, and how the doctor sees it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import lastlayer
from lastlayer.diagnosis.finding import Findings
from lastlayer.heads import Head

#: Rows that the doctor is shown before training.
SHOWN = 512
#: The half, beside 0 and 1, that was written without a look at the doctor's checks or thresholds.
BLIND = 2


@dataclass
class Case:
    """One network about to be trained.

    Attributes:
        network, loss, training, validation: as their owner made them; a loss is a head, a module or a function.
        optimizer: Adam with rate 1e-3 unless told.
        epochs: 0 for what cannot be trained.
        loop: how its owner trains it.
        shown: rows of the batch that the doctor is shown before training.
    """

    network: nn.Module
    loss: Any
    training: tuple[Any, Tensor]
    validation: tuple[Any, Tensor] | None = None
    optimizer: Optimizer | None = None
    batch_size: int = 64
    epochs: int = 6
    loop: Callable[[Case, Any], None] = field(default=lambda case, recorder: ordinary(case, recorder))
    shown: int = SHOWN

    def __post_init__(self) -> None:
        if self.optimizer is None and any(parameter.requires_grad for parameter in self.network.parameters()):
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    @property
    def compute(self) -> Callable[[Any, Tensor], Tensor]:
        """The loss as a function of raw output and target."""
        return self.loss.loss if isinstance(self.loss, Head) else self.loss

    def batches(self) -> Iterator[tuple[Any, Tensor]]:
        """One epoch's batches, reshuffled."""
        features, target = self.training
        order = torch.randperm(len(target))
        for rows in order.split(self.batch_size):
            if len(rows) > 1:
                yield features[rows], target[rows]


@dataclass(frozen=True)
class Setup:
    """A set-up of the zoo.

    Attributes:
        name: its own.
        fault: what is wrong with it, by the doctor's name; ``None`` if it is healthy.
        half: 0 for those that thresholds may be chosen on, 1 for those that the printed figures are of, ``BLIND`` for
            those whose author did not know how the doctor judges.
        build: makes it.
    """

    name: str
    fault: str | None
    half: int
    build: Callable[[], Case]

    def make(self) -> Case:
        """The case, drawn from a seed that its name gives."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        return self.build()


BROKEN: dict[str, Setup] = {}
HEALTHY: dict[str, Setup] = {}


def broken(fault: str, *, blind: bool = False) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Registers a set-up that has this fault."""

    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        # Halves alternate within a fault, so that both have every fault that occurs twice.
        before = sum(setup.fault == fault and setup.half != BLIND for setup in BROKEN.values())
        _add(BROKEN, Setup(build.__name__, fault, BLIND if blind else before % 2, build))
        return build

    return register


def healthy(build: Callable[[], Case], *, blind: bool = False) -> Callable[[], Case]:
    """Registers a set-up that nothing is wrong with."""
    before = sum(setup.half != BLIND for setup in HEALTHY.values())
    _add(HEALTHY, Setup(build.__name__, None, BLIND if blind else before % 2, build))
    return build


broken_blind = partial(broken, blind=True)
healthy_blind = partial(healthy, blind=True)


def _add(registry: dict[str, Setup], setup: Setup) -> None:
    assert setup.name not in registry, f"two set-ups are called {setup.name}"
    registry[setup.name] = setup


def ordinary(case: Case, recorder: Any) -> None:
    """Training as tutorials have it: shuffled batches, a look at the validation rows after each epoch."""
    assert case.optimizer is not None
    for _ in range(case.epochs):
        case.network.train()
        for features, target in case.batches():
            case.optimizer.zero_grad()
            value = case.compute(case.network(features), target)
            value.backward()
            case.optimizer.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@torch.no_grad()
def validation_loss(case: Case, *, evaluating: bool = True) -> float | None:
    """The loss of the validation rows; a careless owner forgets to switch to evaluation."""
    if case.validation is None:
        return None
    if evaluating:
        case.network.eval()
    features, target = case.validation
    return float(case.compute(case.network(features), target))


def examine(setup: Setup) -> Findings:
    """All the doctor finds: before training, and from the recorder during it, if it can be trained."""
    case = setup.make()
    features, target = case.training
    shown = (features[: case.shown], target[: case.shown])
    findings = lastlayer.diagnose(
        case.network, case.loss, shown, optimizer=case.optimizer, validation=case.validation, training=case.training
    )
    if case.epochs == 0:
        return findings
    recorder = lastlayer.Recorder(
        case.network, case.loss, case.optimizer, training=case.training, validation=case.validation
    )
    # What it raises its owner would see; the findings from before remain, and those of the steps that ran.
    with recorder, suppress(RuntimeError, ValueError, IndexError):
        case.loop(case, recorder)
    return findings + recorder.findings()
