"""The recorder: watches a training from the outside, samples a few of its steps, and never changes it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from lastlayer.checks import InputError, KindError
from lastlayer.diagnosis.after_training import AfterTraining, look_at_layers, validation_loss
from lastlayer.diagnosis.evaluation_mode import EvaluationWatch
from lastlayer.diagnosis.finding import Findings
from lastlayer.diagnosis.loss_curve import LossCurve
from lastlayer.diagnosis.parameter_looks import ParameterWatch
from lastlayer.diagnosis.run_data import RunData
from lastlayer.diagnosis.run_questions import judge_run
from lastlayer.diagnosis.run_record import EpochFigures, LayerLook, Look, NotFinite, RunRecord
from lastlayer.diagnosis.sampling import BASE_OF_LAYERS, USUAL_OF_LAYERS, Sampling
from lastlayer.diagnosis.uncleared_gradients import UnclearedWatch

#: Parameters of a network that is copied while it trains, at most: a copy then takes no more than 80 MB.
MOST_COPIED = 20_000_000
#: Rows of a look at the layers: of units that are active on a few percent of all rows, one in fifty is missed by them.
ROWS_OF_LAYERS = 64
#: Validation rows that the recorder looks at itself, at most, and the share of the work of training they may take.
VALIDATION_ROWS = 1000
VALIDATION_SHARE = 0.005
#: A step goes forward and twice as far back.
PASSES_OF_A_STEP = 3

Result = TypeVar("Result")


class Recorder:
    """Records a training as it goes, and says what went wrong.

    It hooks into the optimizer's step and the network's call, counts them, and looks at a few: the first, and then ever
    fewer. Figures are reduced on the device; the host waits for them at those steps alone. Whatever takes a pass of its
    own takes it on a copy. Weights, gradients, random numbers and modes are bit for bit what they are without it, and
    the hooks are gone once the ``with`` block is left, however it is left.

    Special cases: without ``training`` and a loss nothing can be tried out, and fewer questions are asked. Steps that
    a gradient scaler skips are not counted. What the recorder cannot do with a network, it leaves out and notes.

    Args:
        network: any module.
        loss: a head, a loss, or a function of (raw, target); that of a module is also seen without :meth:`log`.
        optimizer: whose steps are looked at; several in a list, the first of which counts the steps.
        training: features and target that are learned from.
        validation: features and target of other rows.
        every: so many steps between looks; ``None`` for many in the beginning, then few.

    Raises:
        KindError: for a network that is no module, or an optimizer that is none.
        InputError: for rows that are no pair of features and target, or ``every`` below 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(200, 4)
        >>> y = x.sum(1, keepdim=True)
        >>> network, loss = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)), nn.MSELoss()
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=3.0)
        >>> with Recorder(network, loss, optimizer, training=(x, y)) as recorder:
        ...     for step in range(30):
        ...         optimizer.zero_grad()
        ...         value = loss(network(x), y)
        ...         value.backward()
        ...         optimizer.step()
        ...         recorder.log(value)
        >>> "learning_rate_too_high" in recorder.findings().names
        True
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Any = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        training: Any = None,
        validation: Any = None,
        every: int | None = None,
    ) -> None:
        if not isinstance(network, nn.Module):
            raise KindError(f"network is {type(network).__name__}; expected a torch.nn.Module.")
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise InputError(f"every is {every!r}; expected a whole number of 1 or more, or None.")
        self._called = network
        self._network = bare(network)
        self._loss = loss
        self._optimizers = _read_optimizers(optimizer)
        self._training = RunData.read(training, what="training")
        self._validation = RunData.read(validation, what="validation")
        self._sampling = Sampling(every)
        self._layer_sampling = Sampling(every, period=USUAL_OF_LAYERS, base=BASE_OF_LAYERS)
        self._curve, self._seen_curve = LossCurve(), LossCurve()
        self._parameter_watches = [ParameterWatch(self._network) for _ in self._optimizers]
        self._uncleared = UnclearedWatch()
        self._evaluation = EvaluationWatch(self._network, self._validation)
        self._looks: list[Look] = []
        self._layers: list[LayerLook] = []
        self._epochs: list[EpochFigures] = []
        self._initial: dict[str, Tensor] | None = None
        self._recent: dict[str, Tensor] | None = None
        self._steps = self._calls = self._steps_of_calls = self._batch_rows = 0
        self._step_of_last_validation: int | None = None
        self._handles: list[RemovableHandle] = []
        # Those of single steps.
        self._looking: list[RemovableHandle] = []
        self._loss_handle: RemovableHandle | None = None
        self._busy = self._at_work = False
        self._failed: dict[str, str] = {}
        self._completed: RunRecord | None = None

    def __enter__(self) -> Self:
        if self._at_work:
            raise InputError("this recorder is at work already. Leave its with block first, or make another.")
        self._completed = None
        self._at_work = True
        for place, optimizer in enumerate(self._optimizers):
            self._handles.append(optimizer.register_step_post_hook(self._after_step(place)))
        self._look_out()
        if isinstance(self._loss, nn.Module):
            self._loss_handle = self._loss.register_forward_hook(self._on_loss)
            self._handles.append(self._loss_handle)
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in (*self._handles, *self._looking):
            handle.remove()
        self._handles.clear()
        self._looking.clear()
        self._at_work = False
        self._attempt("gradients between steps", self._uncleared.close)
        self._evaluation.forget()

    def log(self, value: Tensor | float) -> None:
        """Takes the training loss of a step; the host does not wait for it."""
        self._curve.add(value)
        if self._loss_handle is not None:
            # Who logs need not be watched.
            self._loss_handle.remove()
            self._loss_handle = None
        if not self._optimizers:
            self._steps += 1
            self._steps_of_calls += 1
            self._look_at_layers()

    def end_epoch(
        self, validation_loss: float | Tensor | None = None, training_loss: float | Tensor | None = None
    ) -> None:
        """Ends an epoch, with the figures known of it.

        Args:
            validation_loss: after it. Without it, and with validation rows, the recorder looks now and then itself.
            training_loss: mean over the epoch; the mean of what was logged in it, if left out.
        """
        own = self._logged.mean_since()
        self._epochs.append(
            EpochFigures(
                number=len(self._epochs) + 1,
                step=self._steps,
                training_loss=own if training_loss is None else float(training_loss),
                validation_loss=self._own_validation_loss() if validation_loss is None else float(validation_loss),
            )
        )

    def findings(self) -> Findings:
        """What went wrong; after the ``with`` block also what copies of the network tell."""
        return Findings(judge_run(self.record))

    @property
    def record(self) -> RunRecord:
        """All that was seen, as plain data; after the ``with`` block also what copies of the network tell."""
        if self._completed is not None:
            return self._completed
        record = self._seen()
        if self._at_work:
            return record
        after = AfterTraining(
            self._network,
            self._loss,
            self._optimizers[0] if self._optimizers else None,
            self._training,
            self._validation,
            self._initial,
            self._recent,
            self._batch_rows or 64,
        )
        record = after.complete(record, self._attempt)
        record.notes = self._notes
        self._completed = record
        return record

    @property
    def _logged(self) -> LossCurve:
        """What was logged, or else what the loss module was seen to give."""
        return self._curve if self._curve.count else self._seen_curve

    @property
    def _notes(self) -> tuple[str, ...]:
        return tuple(f"{what}: {why}" for what, why in self._failed.items())

    def _seen(self) -> RunRecord:
        curve = self._logged
        curve.read()
        return RunRecord(
            network=type(self._network).__name__,
            loss=type(self._loss).__name__ if self._loss is not None else "",
            optimizer=", ".join(type(optimizer).__name__ for optimizer in self._optimizers),
            steps=self._steps,
            rows=len(self._training) if self._training is not None else 0,
            calls_per_step=self._calls / self._steps_of_calls if self._steps_of_calls else 0.0,
            first_losses=tuple(curve.first),
            losses=curve.blocks,
            looks=tuple(self._looks),
            parameters=tuple(each for watch in self._parameter_watches for each in watch.parameters),
            layers=tuple(self._layers),
            epochs=tuple(self._epochs),
            uncleared=self._uncleared.seen,
            training_mode_calls=self._evaluation.seen,
            not_finite=None if curve.not_finite is None else NotFinite(*curve.not_finite),
            notes=self._notes,
        )

    def _look_out(self) -> None:
        """Hooks for the step to come, if it is one to look at; in all others only the end of a step is hooked.

        Where layers behave otherwise in training, every call is looked at, for those that are not for learning. Of
        several optimizers each has its own order of steps, and its hooks stay.
        """
        stays = len(self._optimizers) != 1
        due = self._sampling.is_due(self._steps) or stays
        if not due and self._looking and not self._evaluation.needed:
            for handle in self._looking:
                handle.remove()
            self._looking.clear()
        if due and not self._looking:
            for place, optimizer in enumerate(self._optimizers):
                self._looking.append(optimizer.register_step_pre_hook(self._before_step(place)))
            self._attempt("calls of the network", self._hook_into_calls)

    def _hook_into_calls(self) -> None:
        self._looking.append(self._called.register_forward_pre_hook(self._on_call, with_kwargs=True))

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._busy or torch.compiler.is_compiling():
            return
        if not torch.is_grad_enabled():
            if self._evaluation.needed:
                self._attempt(
                    "calls without gradients", lambda: self._evaluation.see((*args, *kwargs.values()), self._steps)
                )
            return
        self._calls += 1
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                self._batch_rows = value.shape[0] if value.dim() else 1
                break

    def _on_loss(self, module: nn.Module, args: Any, value: Any) -> None:
        if not self._curve.count and isinstance(value, Tensor) and value.requires_grad and not self._busy:
            self._seen_curve.add(value)

    def _before_step(self, place: int) -> Callable[..., None]:
        watch = self._parameter_watches[place]

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if self._steps == 0 and place == 0 and self._initial is None:
                self._initial = self._attempt("the first weights", self._copied_weights)
            if self._sampling.is_due(self._steps):
                self._attempt("steps", lambda: watch.before(optimizer))

        return before

    def _after_step(self, place: int) -> Callable[..., None]:
        watch = self._parameter_watches[place]

        def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            due = self._sampling.is_due(self._steps)
            if place > 0:
                if due:
                    self._attempt("steps", lambda: watch.after(self._steps))
                return
            if self._uncleared.is_open:
                self._attempt("gradients between steps", self._uncleared.close)
            if due:
                look = self._attempt("steps", lambda: watch.after(self._steps))
                if look is not None:
                    self._looks.append(look)
                    self._sampling.thin(self._looks)
                    if look.finite:
                        self._recent = self._attempt("recent weights", self._copied_weights)
                self._attempt("gradients between steps", lambda: self._uncleared.open(optimizer, self._steps))
            self._steps += 1
            self._steps_of_calls += bool(self._looking)
            self._look_out()
            self._look_at_layers()

        return after

    def _look_at_layers(self) -> None:
        """After a step, if it is due: the layers' signals, on a copy."""
        training = self._training
        if training is None or self._loss is None or not self._layer_sampling.is_due(self._steps):
            return
        if not self._may_be_copied:
            return
        rows = training.some(ROWS_OF_LAYERS)
        look = self._attempt("the layers", lambda: look_at_layers(self._network, self._loss, rows, self._steps))
        if look is not None:
            self._layers.append(look)
            self._layer_sampling.thin(self._layers)

    def _own_validation_loss(self) -> float:
        """The loss of the validation rows on a copy, where that is little beside the training since the last time."""
        if self._validation is None or self._loss is None or not self._may_be_copied:
            return math.nan
        count = min(len(self._validation), VALIDATION_ROWS)
        last = self._step_of_last_validation
        if last is not None:
            done = (self._steps - last) * self._batch_rows
            if count > VALIDATION_SHARE * PASSES_OF_A_STEP * done:
                return math.nan
        self._step_of_last_validation = self._steps
        rows = self._validation.some(VALIDATION_ROWS)
        found = self._attempt("the validation loss", lambda: validation_loss(self._network, self._loss, rows))
        return math.nan if found is None else found

    @property
    def _may_be_copied(self) -> bool:
        return sum(parameter.numel() for parameter in self._network.parameters()) <= MOST_COPIED

    @torch.no_grad()
    def _copied_weights(self) -> dict[str, Tensor] | None:
        if not self._may_be_copied or self._training is None or self._loss is None:
            return None
        return {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in self._network.state_dict().items()
        }

    def _attempt(self, what: str, act: Callable[[], Result]) -> Result | None:
        """Does it, unseen by the recorder's own hooks; what fails once is left out from then on and noted."""
        if what in self._failed:
            return None
        busy, self._busy = self._busy, True
        try:
            return act()
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            self._failed[what] = f"{type(error).__name__}: {error}"
            return None
        finally:
            self._busy = busy


def bare(network: nn.Module) -> nn.Module:
    """What a wrapper that compiles or distributes has inside."""
    while True:
        inside = getattr(network, "_orig_mod", None)
        if inside is None and isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inside = network.module
        if not isinstance(inside, nn.Module):
            return network
        network = inside


def _read_optimizers(given: Any) -> list[Optimizer]:
    if given is None:
        return []
    optimizers = list(given) if isinstance(given, list | tuple) else [given]
    for each in optimizers:
        if not isinstance(each, Optimizer):
            raise KindError(
                f"optimizer is {type(each).__name__}; expected a torch.optim.Optimizer, or several in a list."
            )
    return optimizers
