"""Is the network judged in training mode, with dropout on and batch statistics in place of the running ones?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.run_data import RunData, tensors_of
from lastlayer.diagnosis.run_record import RunRecord, TrainingModeCalls

DROPOUT_IN_EVALUATION = Fault(
    name="dropout_in_evaluation",
    title="judged in training mode",
    severity="warning",
    why="In training mode dropout goes on dropping, and batch normalization uses the batch at hand, and lets "
    "it into its running statistics. Figures from such calls are noisy and too bad, and not those of later use.",
    fix="Call network.eval() before judging, and network.train() before the next step.",
    reference="PyTorch documentation, torch.nn.Module.eval",
)

#: So many passes over one input without a step between are draws on purpose: Monte Carlo dropout.
DRAWS = 4
#: Where this share of steps in a row has a call of its own on new rows, the calls are part of the step: a generator
#: that makes examples, targets of the network's own. An evaluation comes once in an epoch.
PART_OF_THE_STEP = 0.9
#: Fewest steps for that to be told from an evaluation after each of a few epochs.
FEWEST_STEPS = 8
#: Calls whose input is compared with the validation rows; the others are told by their memory alone.
COMPARED = 8
_NAMED = 8


class EvaluationWatch:
    """Counts calls of a network that are not for learning, while layers are active that should not be.

    Args:
        network: whose layers are watched.
        validation: rows that are known to be for judging.
    """

    def __init__(self, network: nn.Module, validation: RunData | None) -> None:
        self._layers = [(name, module) for name, module in network.named_modules() if differs_in_training(module)]
        self._validation = next(tensors_of(validation.features), None) if validation is not None else None
        self._network = network
        self._calls = self._rows = self._of_validation = self._deliberate = self._compared = 0
        self._steps = 0
        self._step = self._first_step = -1
        self._in_a_row = self._longest = 0
        self._repeated = self._passes = 0
        self._input: Tensor | None = None
        self._names: dict[str, None] = {}

    @property
    def needed(self) -> bool:
        """Whether there is any layer that behaves otherwise in training."""
        return bool(self._layers)

    def see(self, inputs: Iterable[Any], step: int) -> None:
        """A call without gradients, after so many steps."""
        active = [(name, module) for name, module in self._layers if module.training]
        # Before the first step a network is tried out, or initialized by what it sees.
        if not active or step == 0:
            return
        if not self._network.training or any(_collects(module) for _, module in active):
            self._deliberate += 1
            return
        x = next((each for each in inputs if isinstance(each, Tensor)), None)
        self._calls += 1
        self._rows += len(x) if x is not None and x.dim() else 1
        self._names |= dict.fromkeys(f"'{name}' ({type(module).__name__})" for name, module in active[:_NAMED])
        self._of_validation += x is not None and self._is_validation(x)
        if step != self._step:
            self._steps += 1
            self._in_a_row = self._in_a_row + 1 if step == self._step + 1 else 1
            self._longest = max(self._longest, self._in_a_row)
            self._step, self._input, self._passes = step, None, 0
        if self._input is None:
            # Kept, so that the next batch cannot be given the same memory.
            self._input = x
        self._passes += x is not None and _same(x, self._input)
        self._repeated = max(self._repeated, self._passes)

    def forget(self) -> None:
        """Lets go of the input that was seen last."""
        self._input = None

    @property
    def seen(self) -> TrainingModeCalls:
        """What was counted."""
        return TrainingModeCalls(
            calls=self._calls,
            rows=self._rows,
            steps=self._steps,
            repeated=self._repeated,
            of_validation=self._of_validation,
            within_steps=self._longest / self._step if self._step >= FEWEST_STEPS else 0.0,
            deliberate=self._deliberate,
            layers=tuple(self._names)[:_NAMED],
        )

    def _is_validation(self, x: Tensor) -> bool:
        """Whether these rows were given to judge by: the same memory, or the first of them equal to one."""
        known = self._validation
        if known is None or x.dim() == 0 or x.shape[1:] != known.shape[1:] or x.dtype != known.dtype or not len(x):
            return False
        if x.device == known.device:
            start, size = known.data_ptr(), known.element_size()
            if start <= x.data_ptr() < start + max(known.numel(), 1) * size:
                return True
        if self._compared >= COMPARED:
            return False
        self._compared += 1
        return bool((known == x[0].to(known.device)).flatten(1).all(1).any()) if known.dim() > 1 else False


def differs_in_training(module: nn.Module) -> bool:
    """Whether the module itself, apart from those inside it, gives something else in training than in evaluation."""
    if isinstance(module, _BatchNorm):
        return module.track_running_stats
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    named = isinstance(module, _DropoutNd) or "Dropout" in type(module).__name__
    return named and bool(getattr(module, "p", 1.0))


def judge_evaluation_mode(record: RunRecord) -> Iterator[Finding]:
    """Calls without gradients in training mode that are neither draws on purpose nor part of the step."""
    seen = record.training_mode_calls
    if not seen.calls:
        return
    draws = seen.repeated >= DRAWS
    part_of_the_step = seen.within_steps >= PART_OF_THE_STEP and not seen.of_validation
    layers = ", ".join(seen.layers)
    evidence = (
        f"The network was called {seen.calls} times without gradients, on {seen.rows} rows in all, while it was in "
        f"training mode; {layers} were active."
    )
    if seen.of_validation:
        evidence += f" {seen.of_validation} of the calls had validation rows."
    tried = None
    if math.isfinite(seen.in_training) and math.isfinite(seen.in_evaluation):
        tried = (
            f"the loss of the validation rows is {seen.in_training:.4g} in training mode and "
            f"{seen.in_evaluation:.4g} in evaluation mode."
        )
    numbers = {"calls": seen.calls, "rows": seen.rows, "of_validation": seen.of_validation}
    where = "calls without gradients"
    if draws or part_of_the_step:
        reason = "the same input again and again: draws of dropout" if draws else "in each step: part of it"
        yield DROPOUT_IN_EVALUATION.found(
            where,
            f"{evidence} It looks deliberate, {reason}.",
            numbers=numbers,
            severity="note",
            fix="Nothing, if the calls are meant so; to judge the network, call network.eval() first.",
        )
        return
    yield DROPOUT_IN_EVALUATION.found(where, evidence, numbers=numbers, tried=tried)


def _collects(module: nn.Module) -> bool:
    """Whether batch normalization averages over all batches alike, as ``update_bn`` sets it to collect statistics."""
    return isinstance(module, _BatchNorm) and module.momentum is None


def _same(x: Tensor, other: Tensor | None) -> bool:
    return other is not None and x.shape == other.shape and x.data_ptr() == other.data_ptr()


FAULTS: tuple[Fault, ...] = (DROPOUT_IN_EVALUATION,)
CHECKS: tuple[Check, ...] = ()
