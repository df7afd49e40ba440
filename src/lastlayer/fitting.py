"""From a table and a coded target to a fitted model: split, encode, build, train, fit the scale and the baselines."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from lastlayer.baselines import fit_baselines, refit_baselines
from lastlayer.calibration import fit_calibration
from lastlayer.checks import InputError, LastLayerWarning
from lastlayer.heads import Head
from lastlayer.initialization import start_as_constant
from lastlayer.metrics import headline, headline_value
from lastlayer.model import Model
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.frames import Frame
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding, TargetCoding
from lastlayer.training import (
    FEW_ROWS,
    History,
    Plan,
    Recipe,
    Rows,
    forward,
    hold_out,
    one_epoch,
    one_thread,
    progress_bar,
    train,
)

# Below this many training rows the rows held out are worth a second fit on all of them.
_WORTH_REFITTING = 10_000
# Conformal scores kept: enough for a level of 99.9 %, little enough for a JSON file.
_MOST_SCORES = 2000


@dataclass(frozen=True)
class NetworkOptions:
    """The shape of the body.

    Attributes:
        hidden: widths of the hidden layers.
        activation: between them.
        dropout: share of hidden units dropped while training; ``None`` for 0.3 for classes (0.5 below 1000 rows) and
            0 for quantities.
        bins: piecewise-linear bins per numeric column, 0 for none; ``None`` for 16, and for classes below 1000 rows no
            more than one for 40 rows.
        members: networks of this shape, each with weights of its own, trained side by side and predicted as their
            mixture; 1 for a single one.
        dropout_members: how many draws of dropout a prediction is the mixture of (Monte Carlo dropout); 0 for none.
    """

    hidden: Sequence[int] = (256, 256)
    activation: str = "relu"
    dropout: float | None = None
    bins: int | None = None
    members: int = 1
    dropout_members: int = 0

    def __post_init__(self) -> None:
        if any(isinstance(units, bool) or int(units) != units or units < 1 for units in self.hidden):
            raise InputError(f"hidden is {self.hidden!r}; expected widths such as (256, 256).")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; expected a number in [0, 1), or None.")
        if self.bins is not None and (isinstance(self.bins, bool) or int(self.bins) != self.bins or self.bins < 0):
            raise InputError(f"bins is {self.bins!r}; expected a whole number of 0 or more, or None.")
        for name, least in (("members", 1), ("dropout_members", 0)):
            count = getattr(self, name)
            if isinstance(count, bool) or int(count) != count or count < least:
                raise InputError(f"{name} is {count!r}; expected a whole number of {least} or more.")

    def build(self, encoder: TableEncoder, features: NDArray[np.float32], head: Head) -> TabularNetwork:
        """The network for features encoded so, its weights drawn from PyTorch's random state."""
        numeric = encoder.numeric_width_
        few_rows_of_classes = head.over_classes and len(features) < FEW_ROWS
        dropout, bins = self.dropout, self.bins
        if dropout is None:
            dropout = (0.5 if few_rows_of_classes else 0.3) if head.over_classes else 0.0
        if bins is None:
            bins = min(16, len(features) // 40) if few_rows_of_classes else 16
        if self.dropout_members and not dropout:
            raise InputError(
                f"dropout_members is {self.dropout_members}, and the network has no dropout to draw from. Add dropout, "
                f"such as dropout=0.1."
            )
        return TabularNetwork(
            inputs=features.shape[1],
            numeric=numeric,
            outputs=head.raw_size,
            hidden=self.hidden,
            activation=self.activation,
            dropout=dropout,
            codes=PiecewiseLinear.learn(features[:, :numeric], bins),
            members=None if self.members == 1 else self.members,
        )


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        table: the inputs, one row each.
        target: as the user has it, one value (or one row of labels) each.
        weight: one per row, or ``None``.
        head: the likelihood.
        coding: ``None`` to learn a quantity's shift and scale from the training rows.
        target_names: the target's column, or the labels'.
        class_weight: how much each class counts, in the order of the classes; ``weight`` has it already.
        calibration: the name of a calibration to fit to rows held out; ``None`` for none.
    """

    table: Frame
    target: NDArray[Any]
    weight: NDArray[np.float64] | None
    head: Head
    coding: TargetCoding | None
    target_names: tuple[str, ...]
    class_weight: tuple[float, ...] | None = None
    calibration: str | None = None


@dataclass(frozen=True)
class Fitted:
    """A model, the history of the training that rows were held out from, and those rows.

    Attributes:
        judged: the rows held out, or, where there were too few to hold any out, those trained on.
    """

    model: Model
    history: History
    judged: Rows


def start_model(
    task: Task, encoder: TableEncoder, options: NetworkOptions, *, device: str, seed: int
) -> tuple[Model, Rows]:
    """The model before its first step, and the task's rows as it reads them.

    Encoder, codes and the target's coding are learned from all rows, those held out later included: no label enters
    the features. The network predicts the best constant. Weights are drawn from ``seed``; the caller's random state is
    left as it was.
    """
    encoder.fit(task.table)
    head = task.head
    coding = task.coding
    if coding is None:
        coding = QuantityCoding.learn(task.target, standardize=head.standardizes, rescale=head.rescales)
        head = head.with_grid(usual_step(task.target) / coding.scale)
    rows = encode_rows(task, encoder, coding)
    head.check_target(rows.target, rows.weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = options.build(encoder, rows.features.numpy(), head)
    start_as_constant(network.last, head, rows.target, rows.ones_or_weight())
    model = Model(
        encoder,
        network.to(device),
        head,
        coding,
        task.target_names,
        class_weight=task.class_weight,
        dropout_members=options.dropout_members,
    )
    return model, rows


def usual_step(target: NDArray[Any]) -> float:
    """The distance between neighboring values of a target, as the median over them: the step, where it has one."""
    distinct = np.unique(np.asarray(target, dtype=np.float64))
    return float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0


def fit_model(
    task: Task,
    encoder: TableEncoder,
    options: NetworkOptions,
    recipe: Recipe,
    *,
    validation_fraction: float,
    refit: bool | None,
    device: str,
    seed: int,
    verbose: bool,
) -> Fitted:
    """Fits everything.

    The network learns from the training rows; the rows held out say when to stop, give the head its scale and the
    record its figures. With ``refit`` (``None``: where there are few rows) the network then starts again and learns
    from all rows for as many epochs as were best. Same machine, same seed, same data: the same model, bit for bit.
    """
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction!r}; expected a number in [0, 1).")
    model, rows = start_model(task, encoder, options, device=device, seed=seed)
    start = copy.deepcopy(model.network)
    classes = rows.target.numpy() if isinstance(model.coding, ClassCoding) else None
    index = hold_out(len(rows), validation_fraction, np.random.RandomState(seed), classes=classes)
    training, held_out = (rows.take(torch.from_numpy(part)) for part in index)
    spared = len(held_out) > 0
    judged = held_out if spared else training

    plan = recipe.plan(len(training), classes=task.head.over_classes)
    history = _train(model, training, held_out if spared else None, plan, seed=seed, verbose=verbose)
    _warn_of_ending(history, f"epoch {history.best_epoch} is kept.")
    model.head = _refit(model, judged)
    model.baselines = fit_baselines(model.head, training, judged)
    _calibrate(model, judged, task.calibration, spared=spared)
    figures = model.score_rows(judged)

    few = len(training) < _WORTH_REFITTING if refit is None else refit
    final = few and spared and history.best_epoch > 0 and history.stopped in ("patience", "max_epochs")
    if final:
        judged_network, model.network = model.network, start
        whole = dataclasses.replace(plan, max_epochs=history.best_epoch)
        again = _train(model, rows, None, whole, seed=seed, verbose=verbose)
        if again.stopped == "max_epochs":
            model.baselines = refit_baselines(model.baselines, model.head, rows)
        else:
            _warn_of_ending(again, "the second training, on all rows, is left out; the first is kept.")
            model.network, final = judged_network, False

    model.record = {
        "rows": {"training": len(training), "held_out": len(held_out)},
        "judged_on": "held-out rows" if spared else "training rows: too few to hold any out",
        "refitted_on_all_rows": final,
        "seed": seed,
        "plan": dataclasses.asdict(plan),
        "training": history.to_dict(),
        "figures": figures,
    }
    return Fitted(model, history, judged)


def _refit(model: Model, rows: Rows) -> Head:
    """The head with its constants fitted to these rows: of several members to the errors of each."""
    raw = forward(model.network, rows.features.to(model.device)).cpu()
    target, weight = rows.target, rows.ones_or_weight()
    if model.network.members is not None:
        target = target.expand(len(raw), *target.shape)
        weight = weight.expand(len(raw), *weight.shape)
    return model.head.refit(raw, target, weight)


def _calibrate(model: Model, rows: Rows, calibration: str | None, *, spared: bool) -> None:
    """Fits the calibration to these rows, and keeps what conformal intervals and sets are made from.

    Args:
        spared: whether the network has not learned from them.
    """
    raw = model.raw_of(rows.features)
    target = model.own_units(rows.target)
    if calibration is not None:
        # Of weighted classes the rows count as they are: it is their probabilities that are to be right.
        weight = None if rows.weight is None or model.class_weight is not None else rows.weight.double()
        model.calibration = fit_calibration(
            calibration,
            model.distribution_of(raw, calibrate=False),
            target,
            weight,
            over_classes=model.head.over_classes,
        )
    if not spared or isinstance(model.coding, LabelCoding) or (rows.weight is not None and not model.class_weight):
        # Neither rows learned from, nor labels together, nor rows that count differently have the guarantee.
        return
    scores = model.conformal_scores_of(model.distribution_of(raw), target)
    model.conformal_scores = tuple(scores[:_MOST_SCORES].tolist())


def _train(model: Model, training: Rows, held_out: Rows | None, plan: Plan, *, seed: int, verbose: bool) -> History:
    """Trains the model's network where it is; its dropout and shuffles are drawn from ``seed``."""
    head = model.head
    watching = progress_bar(headline(head), shown=verbose)
    with watching as watch, one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return train(
            model.network,
            head,
            training.to(model.device),
            None if held_out is None else held_out.to(model.device),
            plan,
            generator=torch.Generator().manual_seed(seed),
            headline=lambda raw, target: headline_value(head, model.coding, raw, target),
            watch=watch,
        )


def pass_once(model: Model, task: Task, optimizer: Optimizer, plan: Plan, *, generator: torch.Generator) -> float:
    """One pass over the rows of a task with a model that has started; returns the mean training loss.

    A constant scale is fitted to these rows before the pass, while the network has not yet learned from them.
    """
    rows = encode_rows(task, model.encoder, model.coding)
    model.head.check_target(rows.target, rows.weight)
    model.head = _refit(model, rows)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        rows = rows.to(model.device)
        loss = one_epoch(model.network, None, model.head, optimizer, rows, plan, 1, generator=generator)
    model.network.eval()
    return loss


def encode_rows(task: Task, encoder: TableEncoder, coding: TargetCoding) -> Rows:
    """The task's rows as tensors on the CPU."""
    features = torch.from_numpy(encoder.transform(task.table))
    target = torch.from_numpy(np.asarray(coding.encode(task.target)))
    weight = None if task.weight is None else torch.from_numpy(task.weight.astype(np.float32))
    return Rows(features, target, weight)


def _warn_of_ending(history: History, kept: str) -> None:
    """Says so where training ended neither by patience nor by its number of epochs."""
    reasons = {
        "interrupted": f"training was interrupted after epoch {len(history.epochs)}",
        "not finite": (
            f"the loss was no longer a number in epoch {len(history.epochs)} (lower the learning rate, or look for "
            f"extreme values in the target)"
        ),
    }
    if history.stopped in reasons:
        warnings.warn(f"{reasons[history.stopped]}: {kept}", LastLayerWarning, stacklevel=5)
