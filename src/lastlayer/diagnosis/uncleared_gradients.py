"""Are gradients cleared between steps? If not, every step follows the sum of all gradients so far."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.run_record import RunRecord, Uncleared

GRADIENTS_NOT_CLEARED = Fault(
    name="gradients_not_cleared",
    title="gradients that pile up",
    severity="error",
    why="backward() adds to what is in .grad. Without a zero_grad between two steps every step follows the sum of all "
    "gradients since the first: old ones from other weights outweigh the new one, as with momentum that never fades.",
    fix="Call optimizer.zero_grad() before backward() in every step, or, to add up several batches on purpose, after "
    "every step.",
    reference="PyTorch documentation, torch.optim.Optimizer.zero_grad",
)

#: Parameters that are listened to: what is cleared is nearly always all of them.
LISTENED = 4
#: Windows that must all be uncleared: a single one may be a loop that was being set up.
FEWEST_WINDOWS = 2


class UnclearedWatch:
    """Listens to a few parameters from one step to the next.

    A hook on a parameter runs before a gradient is added to it. If at every backward pass between two steps there is
    something already, and at the first of them the very gradient that the step before had used, nobody cleared it. So
    adding up several batches is not mistaken for it, nor clearing between forward and backward, nor clearing to zero,
    nor another network's loss that passes through this one before its own ``zero_grad``.
    """

    def __init__(self) -> None:
        self.seen = Uncleared()
        self._handles: list[RemovableHandle] = []
        self._used: dict[int, Tensor] = {}
        self._met: dict[int, list[Tensor | None]] = {}
        self._step = -1

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return bool(self._handles)

    @torch.no_grad()
    def open(self, optimizer: Optimizer, step: int) -> None:
        """Begins to listen; called after a step."""
        self.close()
        self._step = step
        parameters = [own for group in optimizer.param_groups for own in group["params"]]
        listened = [own for own in parameters if own.grad is not None and own.requires_grad and not own.grad.is_sparse]
        for parameter in listened[:: max(1, -(-len(listened) // LISTENED))]:
            self._used[id(parameter)] = _size(parameter.grad)
            self._met[id(parameter)] = []
            self._handles.append(parameter.register_hook(self._listener(parameter)))

    def close(self) -> None:
        """Ends a window, if one is open; called after the next step."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        used, met = self._used, self._met
        self._used, self._met = {}, {}
        judged = [_is_uncleared(used[key], met[key]) for key in used if met[key]]
        if not judged:
            return
        uncleared = all(judged)
        self.seen = Uncleared(
            windows=self.seen.windows + 1,
            uncleared=self.seen.uncleared + uncleared,
            first=self._step if uncleared and self.seen.first < 0 else self.seen.first,
        )

    def _listener(self, parameter: nn.Parameter) -> object:
        met = self._met[id(parameter)]

        def listen(gradient: Tensor) -> None:
            there = parameter.grad
            met.append(None if there is None else _size(there))

        return listen


def judge_uncleared(record: RunRecord) -> Iterable[Finding]:
    """Every window that was looked at ended as it began: with the old gradient."""
    seen = record.uncleared
    if seen.uncleared < FEWEST_WINDOWS or seen.uncleared < seen.windows:
        return
    yield GRADIENTS_NOT_CLEARED.found(
        "the training loop",
        f"In all of {seen.windows} pairs of neighboring steps that were looked at, the first after step {seen.first}, "
        f"the gradient of the step before was still in .grad when the next backward pass began.",
        numbers={"windows": seen.windows, "uncleared": seen.uncleared},
    )


@torch.no_grad()
def _size(gradient: Tensor) -> Tensor:
    return gradient.detach().abs().sum(dtype=torch.float32)


def _is_uncleared(used: Tensor, met: list[Tensor | None]) -> bool:
    """Whether something was there at every backward pass, and at the first what the last step had used."""
    sizes = [0.0 if each is None else float(each) for each in met]
    return all(size > 0 for size in sizes) and sizes[0] == float(used)


FAULTS: tuple[Fault, ...] = (GRADIENTS_NOT_CLEARED,)
CHECKS: tuple[Check, ...] = ()
