"""What a fix does: the same few steps of training with and without it, on copies."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lastlayer.diagnosis.copies import (
    copy_of,
    copy_of_inputs,
    deep_recursion,
    kept_gradients,
    kept_random_state,
    ordinary_mode,
)
from lastlayer.diagnosis.subject import Subject, call, learn_shapes, loss_of, own_copy

#: Of one forward pass: more would make the few steps of a trial take longer than half a minute on one core.
MOST_MULTIPLICATIONS = 1e9


@dataclass(frozen=True)
class Trial:
    """The loss on one batch over a few steps.

    Attributes:
        losses: before the first step and after each; it ends where one is not finite.
    """

    losses: tuple[float, ...]

    @property
    def first(self) -> float:
        """Before the first step."""
        return self.losses[0]

    @property
    def last(self) -> float:
        """After the last step; NaN if the loss stopped being finite."""
        return self.losses[-1]


def train_a_copy(
    subject: Subject,
    *,
    network: nn.Module | None = None,
    loss: Any = None,
    steps: int = 40,
    learning_rate: float = 1e-2,
) -> Trial:
    """Trains a copy on the subject's batch with Adam and says how the loss went.

    Args:
        network: in place of the subject's own.
        loss: in place of the subject's own.
    """
    copied = copy_of(subject.network if network is None else network)
    copied.train()
    compute = loss_of(own_copy(subject.loss if loss is None else loss))
    losses: list[float] = []
    with warnings.catch_warnings(), kept_random_state(), ordinary_mode(copied), deep_recursion():
        warnings.simplefilter("ignore")  # The examination has told them.
        torch.manual_seed(0)
        learn_shapes(copied, subject.features)
        parameters = [parameter for parameter in copied.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        for _ in range(steps + 1):
            optimizer.zero_grad()
            value = compute(call(copied, subject.features), copy_of_inputs(subject.target))
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]):
                break
            with kept_gradients(value, copied):
                value.backward()
            optimizer.step()
    return Trial(tuple(losses))


def compare(subject: Subject, mended: Callable[[], tuple[nn.Module, Any]], *, fix: str, steps: int = 40) -> str | None:
    """What the fix does on this batch, in a sentence; ``None`` if either cannot be trained, or not soon.

    Args:
        mended: makes the mended network and the loss that goes with it.
        fix: what was changed, as the sentence begins: ``"without the softmax"``.
    """
    if _multiplications(subject) > MOST_MULTIPLICATIONS:
        return None
    try:
        network, loss = mended()
        before = train_a_copy(subject, steps=steps)
        after = train_a_copy(subject, network=network, loss=loss, steps=steps)
    except Exception:
        return None
    if not math.isfinite(before.first) or not math.isfinite(after.first):
        return None
    return (
        f"{fix}, {steps} steps of Adam on a copy took this batch's loss from {after.first:.3g} to {after.last:.3g}; "
        f"as it is, from {before.first:.3g} to {before.last:.3g}."
    )


def _multiplications(subject: Subject) -> float:
    """About how many one forward pass takes: for each output of a layer, as many as it has inputs."""
    made = subject.training_pass
    inputs = {
        name: each.numel() / max(1, len(each)) for name, each in made.network.named_parameters() if each.dim() > 1
    }
    return sum(
        operation.output.numel() * max((inputs.get(name, 0.0) for name in operation.parameters), default=0.0)
        for operation in made.with_role("weight")
        if operation.output is not None and operation.name != "embedding"
    )
