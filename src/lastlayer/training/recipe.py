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
from lastlayer.regularization import parameters_to_penalize
from lastlayer.training.schedules import SCHEDULES

_ADAPTIVE: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
OPTIMIZERS = (*_ADAPTIVE, "sgd", "momentum")


# Tables of classes with fewer rows than this are held back harder: more dropout and weight decay, fewer bins.
FEW_ROWS = 1000


@dataclass(frozen=True)
class Plan:
    """How one network is trained on one table: every number settled.

    Attributes:
        batch_size, max_epochs, patience, weight_decay: see :class:`Recipe`.
        optimizer, learning_rate, momentum, schedule, shuffle, average: see :class:`Recipe`.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float
    schedule: str
    shuffle: bool
    batch_size: int
    max_epochs: int
    patience: int
    average: float

    def build_optimizer(self, network: nn.Module) -> Optimizer:
        """PyTorch's optimizer over all parameters that learn; weight decay on weights only, never on biases."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": 0.0}]
        if self.weight_decay:
            weights = parameters_to_penalize(network)
            penalized = set(map(id, weights))
            others = [parameter for parameter in parameters if id(parameter) not in penalized]
            groups = [{"params": weights, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        if self.optimizer in _ADAPTIVE:
            # One kernel for all parameters of a group; PyTorch's default goes through them in Python.
            return _ADAPTIVE[self.optimizer](groups, lr=self.learning_rate, fused=True)
        momentum = self.momentum if self.optimizer == "momentum" else 0.0
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=momentum, fused=True)

    def rate(self, epoch: float) -> float:
        """The learning rate after this many epochs, a fraction within one."""
        return self.learning_rate * SCHEDULES[self.schedule](epoch, self.max_epochs)


@dataclass(frozen=True)
class Recipe:
    """How networks are trained; what is ``None`` is settled by the number of rows and the kinds of target and input.

    The defaults were chosen on real tables: ``benchmarks/tables.py`` prints how they do, ``benchmarks/recipe.py``
    what each ingredient is worth. Those of images were chosen on parts of the training images of MNIST and
    Fashion-MNIST: ``benchmarks/images.py``.

    Attributes:
        optimizer: ``"adamw"``, ``"adam"``, ``"momentum"`` or ``"sgd"``.
        learning_rate: ``None`` for 0.002, and for 0.005 of images.
        momentum: of the optimizer of that name.
        weight_decay: on weight matrices; ``None`` for 512/rows for classes (below 1000 rows twice that, 4 at most) and
            0.01 for quantities, as AdamW decouples it from the gradient; for 0 with the other optimizers, which do not.
        schedule: a key of ``SCHEDULES``; ``None`` for ``"constant"``, and for ``"cosine"`` of images.
        shuffle: a fresh random partition every epoch; otherwise the rows in their fixed order.
        batch_size: rows in a mini-batch at most; ``None`` for the power of two next to 1/32 of the rows, 32 to 256.
        max_epochs: passes over the data; ``None`` for 60, and 4000 steps at least: a small table needs steps. Of images
            15, and 2000 steps at least.
        patience: epochs without a lower validation loss before training stops; ``None`` for 16, and 500 steps at least.
            Of images as many as there are: under a cosine the last ones are the best.
        average: decay of the exponential moving average of the weights that is judged and kept; 0 for none.

    Raises:
        InputError: for a number or a name that is none of these.
    """

    optimizer: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    schedule: str | None = None
    shuffle: bool = True
    batch_size: int | None = None
    max_epochs: int | None = None
    patience: int | None = None
    average: float = 0.99

    def __post_init__(self) -> None:
        check_choice(self.optimizer, OPTIMIZERS, what="optimizer")
        if self.schedule is not None:
            check_choice(self.schedule, tuple(SCHEDULES), what="schedule")
        for name in ("batch_size", "max_epochs", "patience"):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or int(count) != count or count < 1):
                raise InputError(f"{name} is {count!r}; expected a whole number of 1 or more, or None.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate!r}; expected a positive number, or None.")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay!r}; expected a number of 0 or more, or None.")
        if not 0 <= self.average < 1:
            raise InputError(f"average is {self.average!r}; expected a number in [0, 1).")

    def plan(self, rows: int, *, classes: bool, images: bool = False) -> Plan:
        """Every number settled, for so many training rows.

        Args:
            classes: whether the target is classes or labels, and not a quantity.
            images: whether the rows are images, and the network one of convolutions.
        """
        batch_size = min(rows, self.batch_size or min(256, max(32, 2 ** round(math.log2(max(rows, 32) / 32)))))
        steps = math.ceil(rows / batch_size)
        decay = self.weight_decay
        if decay is None:
            decay = 0.0
            if self.optimizer == "adamw":
                few = rows < FEW_ROWS
                decay = min(4.0, (1024 if few else 512) / rows) if classes else 0.01
        epochs, least_steps = (15, 2000) if images else (60, 4000)
        max_epochs = self.max_epochs or max(epochs, math.ceil(least_steps / steps))
        return Plan(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate or (5e-3 if images else 2e-3),
            weight_decay=decay,
            momentum=self.momentum,
            schedule=self.schedule or ("cosine" if images else "constant"),
            shuffle=self.shuffle,
            batch_size=batch_size,
            max_epochs=max_epochs,
            patience=self.patience or (max_epochs if images else max(16, math.ceil(500 / steps))),
            average=self.average,
        )
