"""What was seen of a run of training, as plain data: the doctor's questions and the report read nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class LossBlock:
    """Neighboring values of the training loss, one a step.

    Attributes:
        first: place of its first value, counted from 0.
        count: how many values.
        mean, deviation, lowest, highest: of those that are finite; NaN if none is.
        not_finite: how many are not.
    """

    first: int
    count: int
    mean: float
    deviation: float
    lowest: float
    highest: float
    not_finite: int = 0


@dataclass(frozen=True)
class Look:
    """One sampled step.

    Attributes:
        step: its number, counted from 0.
        rate: the largest learning rate of the optimizer's groups.
        gradient: root mean square over all gradients.
        weight: root mean square over all weights.
        update: the middle one, over weight matrices, of (root mean square of the step / that of the weights).
        largest_update: the largest of these.
        finite: whether the parameters are finite after the step.
    """

    step: int
    rate: float
    gradient: float
    weight: float
    update: float
    largest_update: float
    finite: bool = True


@dataclass(frozen=True)
class ParameterLooks:
    """What the sampled steps did to one parameter.

    Attributes:
        name: as ``named_parameters`` spells it.
        dtype: ``"float32"``, ``"bfloat16"``.
        looks: sampled steps in which it had a gradient that is more than rounding.
        moved: in how many of them it changed.
        rate: the largest learning rate it had in them.
    """

    name: str
    dtype: str
    looks: int
    moved: int
    rate: float


@dataclass(frozen=True)
class LayerLook:
    """The layers' signals on one batch after some steps.

    Attributes:
        step: after how many steps.
        rows: how many samples.
        layers: as :meth:`~lastlayer.diagnosis.layers.LayerRecord.to_dict` gives them.
    """

    step: int
    rows: int
    layers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class EpochFigures:
    """One look at the validation rows, after an epoch.

    Attributes:
        number: of the epoch, counted from 1.
        step: after how many steps.
        training_loss: mean over the epoch; NaN if unknown.
        validation_loss: after it; NaN if unknown.
    """

    number: int
    step: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Uncleared:
    """Whether gradients are cleared between two steps.

    Attributes:
        windows: pairs of neighboring steps that were looked at.
        uncleared: in how many the gradient of the first was still there at every backward pass before the second.
        first: the step after which that was first seen; -1 if never.
    """

    windows: int = 0
    uncleared: int = 0
    first: int = -1


@dataclass(frozen=True)
class TrainingModeCalls:
    """Calls of the network that were not for learning, with layers that behave otherwise in training.

    Attributes:
        calls: how many.
        rows: over how many samples.
        steps: after how many different steps there were any.
        repeated: the most passes over one and the same input without a step between.
        of_validation: calls with rows of the validation data.
        within_steps: the largest share of steps in a row that had such a call; 1 if each step had one.
        deliberate: calls while the network as a whole was in evaluation, or whose statistics were being collected.
        layers: which layers, at most eight.
        in_training, in_evaluation: the validation loss either way, after training; NaN if unknown.
    """

    calls: int = 0
    rows: int = 0
    steps: int = 0
    repeated: int = 0
    of_validation: int = 0
    within_steps: float = 0.0
    deliberate: int = 0
    layers: tuple[str, ...] = ()
    in_training: float = math.nan
    in_evaluation: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """The trained network beside simple predictors, on the same rows and by the same loss.

    Attributes:
        rows: of validation.
        network, constant, linear: mean loss on the validation rows; NaN if unknown.
        spread: the standard deviation of the constant's loss from row to row, or from block to block of rows.
        constant_margin: standard error of network minus constant.
        constant_wins: the share of blocks of rows on which the constant is better.
        linear_margin: standard error of network minus linear.
        training_network, training_constant, training_linear: mean loss on training rows.
        features: how many the linear predictor had.
    """

    rows: int
    network: float
    constant: float
    linear: float
    spread: float
    constant_margin: float
    constant_wins: float
    linear_margin: float
    training_network: float
    training_constant: float
    training_linear: float
    features: int


@dataclass(frozen=True)
class RateTrial:
    """A few steps on a copy with another learning rate.

    Attributes:
        start: ``"initial"`` or ``"final"``: from which weights.
        rate: the learning rate; 0 for none: the weights as they are.
        steps: how many.
        loss: the mean loss on the training rows afterwards; NaN if it was not finite.
    """

    start: str
    rate: float
    steps: int
    loss: float


@dataclass(frozen=True)
class NotFinite:
    """The first loss that was not finite.

    Attributes:
        step: its place among the logged values, counted from 0.
        before: the last finite value; NaN if there was none.
        where, evidence, fix: what made it when the training was repeated on a copy; empty if it did not come again.
    """

    step: int
    before: float
    where: str = ""
    evidence: str = ""
    fix: str = ""


@dataclass
class RunRecord:
    """A run of training.

    Attributes:
        network, loss, optimizer: their classes.
        steps: how often the optimizer moved the weights.
        rows: of the training data; 0 if unknown.
        calls_per_step: forward passes with a gradient for each step.
        first_losses: the first values of the training loss, one by one.
        losses: all of them, in blocks.
        looks: the sampled steps.
        parameters: what they did to each parameter.
        layers: signals along the way.
        epochs: after which the validation rows were looked at.
        best_epoch: whose weights were kept, if that is known.
        stopped: how training ended, if that is known.
        uncleared, training_mode_calls, comparison, trials, not_finite: see there.
        notes: what could not be recorded, and why.
    """

    network: str = ""
    loss: str = ""
    optimizer: str = ""
    steps: int = 0
    rows: int = 0
    calls_per_step: float = 1.0
    first_losses: tuple[float, ...] = ()
    losses: tuple[LossBlock, ...] = ()
    looks: tuple[Look, ...] = ()
    parameters: tuple[ParameterLooks, ...] = ()
    layers: tuple[LayerLook, ...] = ()
    epochs: tuple[EpochFigures, ...] = ()
    best_epoch: int | None = None
    stopped: str = ""
    uncleared: Uncleared = field(default_factory=Uncleared)
    training_mode_calls: TrainingModeCalls = field(default_factory=TrainingModeCalls)
    comparison: Comparison | None = None
    trials: tuple[RateTrial, ...] = ()
    not_finite: NotFinite | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; what is not finite is ``None``."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> RunRecord:
        """The record that :meth:`to_dict` described."""
        given = {own.name: description[own.name] for own in fields(cls) if own.name in description}
        for name, kind in _MANY.items():
            given[name] = tuple(_one(kind, each) for each in given.get(name, ()))
        for name, kind in _ONE.items():
            if given.get(name) is not None:
                given[name] = _one(kind, given[name])
        for name in ("first_losses", "notes"):
            given[name] = tuple(math.nan if each is None else each for each in given.get(name, ()))
        return cls(**given)

    @classmethod
    def from_curves(cls, curves: Mapping[str, Any]) -> RunRecord:
        """The record that the curves of a saved model's training give: its losses after every epoch.

        Args:
            curves: ``model.record["training"]``.
        """
        training = _numbers(curves.get("training_loss", ()))
        validation = _numbers(curves.get("validation_loss", ())) or [math.nan] * len(training)
        return cls(
            network="TabularNetwork",
            epochs=tuple(
                EpochFigures(number, 0, own, other)
                for number, (own, other) in enumerate(zip(training, validation, strict=True), 1)
            ),
            best_epoch=curves.get("best_epoch"),
            stopped=str(curves.get("stopped", "")),
        )


_MANY: dict[str, Any] = {
    "losses": LossBlock,
    "looks": Look,
    "parameters": ParameterLooks,
    "layers": LayerLook,
    "epochs": EpochFigures,
    "trials": RateTrial,
}
_ONE: dict[str, Any] = {
    "uncleared": Uncleared,
    "training_mode_calls": TrainingModeCalls,
    "comparison": Comparison,
    "not_finite": NotFinite,
}


def _one(kind: Any, description: Mapping[str, Any]) -> Any:
    given = {name: math.nan if value is None else value for name, value in description.items()}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
