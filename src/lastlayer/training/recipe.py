"""Everything about training that is a number or a name, with the defaults that measured best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lastlayer.checks import InputError, check_choice
from lastlayer.training.schedules import SCHEDULES

_ADAPTIVE: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
OPTIMIZERS = (*_ADAPTIVE, "sgd", "momentum")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        optimizer: ``"adam"``, ``"adamw"``, ``"momentum"`` (Nesterov's form not used) or ``"sgd"``.
        learning_rate, weight_decay, momentum: as PyTorch's optimizers take them.
        schedule: a key of ``SCHEDULES``.
        batch_size: rows in a mini-batch; ``None`` for a size that grows with the table.
        max_epochs: passes over the data at most; ``None`` for enough of them on a small table.
        patience: epochs without a lower validation loss before training stops; ``None`` for a rule by table size.
        average: decay of the exponential moving average of the weights that is judged and kept; 0 for none.
    """

    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: str = "constant"
    batch_size: int | None = None
    max_epochs: int | None = None
    patience: int | None = None
    average: float = 0.99

    def __post_init__(self) -> None:
        check_choice(self.optimizer, OPTIMIZERS, what="optimizer")
        check_choice(self.schedule, tuple(SCHEDULES), what="schedule")
        for name, least in (("batch_size", 1), ("max_epochs", 1), ("patience", 1)):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or int(count) != count or count < least):
                raise InputError(f"{name} is {count!r}; expected a whole number of {least} or more, or None.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate!r}; expected a positive number.")
        if not 0 <= self.average < 1:
            raise InputError(f"average is {self.average!r}; expected a number in [0, 1).")

    def build_optimizer(self, network: nn.Module) -> Optimizer:
        """The optimizer over all parameters; weight decay only on matrices, never on biases."""
        matrices = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
        others = [p for p in network.parameters() if p.requires_grad and p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": self.weight_decay}]
        groups.append({"params": others, "weight_decay": 0.0})
        groups = [group for group in groups if group["params"]]
        if self.optimizer in _ADAPTIVE:
            # One kernel for all parameters; the default loops over them in Python.
            return _ADAPTIVE[self.optimizer](groups, lr=self.learning_rate, fused=True)
        momentum = self.momentum if self.optimizer == "momentum" else 0.0
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=momentum, fused=True)

    def rows_per_batch(self, rows: int) -> int:
        """The batch size for a table of this many rows: 1/32 of it, between 32 and 256, unless set."""
        return min(rows, self.batch_size or min(256, max(32, rows // 32)))

    def most_epochs(self, rows: int) -> int:
        """60 passes, and 4000 steps at least, unless set: a small table needs steps more than passes."""
        return self.max_epochs or max(60, math.ceil(4000 / self._steps(rows)))

    def epochs_of_patience(self, rows: int) -> int:
        """16 passes, and 500 steps at least, unless set."""
        return self.patience or max(16, math.ceil(500 / self._steps(rows)))

    def _steps(self, rows: int) -> int:
        return math.ceil(rows / self.rows_per_batch(rows))
