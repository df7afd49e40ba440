"""From inputs and a coded target to a fitted model: split, encode, build, train, fit the scale and the baselines."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from lastlayer.baselines import fit_baselines, refit_baselines
from lastlayer.calibration import check_calibration, fit_calibration
from lastlayer.checks import InputError, LastLayerWarning
from lastlayer.diagnosis.fit_watch import FitWatch
from lastlayer.heads import Head
from lastlayer.initialization import initialize, start_as_constant
from lastlayer.metrics import headline, headline_value
from lastlayer.model import Model
from lastlayer.networks import Network, NetworkOptions
from lastlayer.preprocessing import Encoder, Inputs
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
from lastlayer.training.split import FEWEST_ROWS_TO_SPLIT, usual_fraction

# Below this many training rows the rows held out are worth a second fit on all of them.
_WORTH_REFITTING = 10_000
# Values in a batch of images that are worth several threads. 256 images of 28 × 28 are not: two cores gained a factor
# of 1.7 on an idle machine, and on a busy one took 3.6 times the work of one and twice its time.
_WORTH_THREADS = 1 << 20
# Conformal scores kept: enough for a level of 99.9 %, little enough for a JSON file.
_MOST_SCORES = 2000


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        inputs: a table or images, a row or an image each.
        target: as the user has it, one value (or one row of labels) each.
        weight: one per row, or ``None``; without that of its class.
        head: the likelihood.
        coding: ``None`` to learn a quantity's shift and scale from the training rows.
        target_names: the target's column, or the labels'.
        class_weight: how much each class counts, in the order of the classes, all above 0; ``None`` for alike.
        calibration: the name of a calibration to fit to rows held out; ``None`` for none.
    """

    inputs: Inputs
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
        judged: the rows held out, or, where there were too few to hold any out, those trained on; with the weights that
            rows were given, classes not weighted.
    """

    model: Model
    history: History
    judged: Rows


def check_held_out_use(
    calibration: str | None, validation_fraction: float | None, *, over_classes: bool, whole: bool = False
) -> None:
    """What rows held out are to be used for can be had; known before there are inputs, and checked before training.

    Raises:
        InputError: for a calibration that does not fit the target, or no rows to fit it to.
    """
    if validation_fraction is not None and not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction!r}; expected a number in [0, 1), or None.")
    check_calibration(calibration, over_classes=over_classes, whole=whole)
    if calibration is not None and validation_fraction == 0:
        raise InputError(
            f"calibration is {calibration!r}, and validation_fraction is 0: no rows are held out to fit it to. Leave "
            f"one of the two at its default."
        )


def check_rows_to_judge(rows: int, validation_fraction: float | None) -> None:
    """There are rows to hold out, so that heads are not compared on what they learned from.

    Raises:
        InputError: if there are none.
    """
    if validation_fraction == 0 or rows < FEWEST_ROWS_TO_SPLIT:
        raise InputError(
            f"head is 'auto', which is judged on rows held out; of {rows} rows with validation_fraction "
            f"{validation_fraction} there are none. Name a head, or give {FEWEST_ROWS_TO_SPLIT} rows at least."
        )


def start_model(task: Task, encoder: Encoder, options: NetworkOptions, *, device: str, seed: int) -> tuple[Model, Rows]:
    """The model before its first step, and the task's rows as it reads them.

    Encoder, codes and the target's coding are learned from all rows, those held out later included: no label enters
    the features. The network predicts the best constant. Weights are drawn from ``seed``; the caller's random state is
    left as it was.
    """
    encoder.fit(task.inputs)
    head = task.head
    coding = task.coding
    if coding is None:
        coding = QuantityCoding.learn(task.target, standardize=head.standardizes, rescale=head.rescales)
        head = head.with_grid(usual_step(task.target) / coding.scale)
    rows = encode_rows(task, encoder, coding)
    head.check_target(rows.target, rows.weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = options.build(
            rows.features.numpy(),
            outputs=head.raw_size,
            numeric=encoder.numeric_width_,
            classes=head.over_classes,
            few_rows=len(rows) < FEW_ROWS,
        )
        if network.over_images:
            _start_as_activations_need(network)
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


def _start_as_activations_need(network: Network) -> None:
    """Draws the weights by the rules of :func:`lastlayer.initialization.initialize`."""
    # Where an activation reads several units there is no gain to compute, and identity has none to find.
    without_gain = network.spec["activation"] in ("identity", "softmax", "log_softmax")
    initialize(network, "identity" if without_gain else None)


def usual_step(target: NDArray[Any]) -> float:
    """The distance between neighboring values of a target, as the median over them: the step, where it has one."""
    distinct = np.unique(np.asarray(target, dtype=np.float64))
    return float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0


def fit_model(
    task: Task,
    encoder: Encoder,
    options: NetworkOptions,
    recipe: Recipe,
    *,
    validation_fraction: float | None,
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
    check_held_out_use(
        task.calibration, validation_fraction, over_classes=task.head.over_classes, whole=task.head.whole
    )
    model, rows = start_model(task, encoder, options, device=device, seed=seed)
    start = copy.deepcopy(model.network)
    classes = rows.target.numpy() if isinstance(model.coding, ClassCoding) else None
    fraction = usual_fraction(len(rows)) if validation_fraction is None else validation_fraction
    index = hold_out(len(rows), fraction, np.random.RandomState(seed), classes=classes)
    training, held_out = (rows.take(torch.from_numpy(part)) for part in index)
    spared = len(held_out) > 0
    if task.calibration is not None and not spared:
        raise InputError(
            f"calibration is {task.calibration!r}, and {len(rows)} rows are too few to hold any out to fit it to. Give "
            f"more rows, or leave calibration out."
        )
    judged = _as_given(task, *((held_out, index[1]) if spared else (training, index[0])))

    plan = recipe.plan(len(training), classes=task.head.over_classes, images=model.network.over_images)
    seen = FitWatch(model.network, model.head, training.to(model.device), plan)
    history = _train(model, training, held_out if spared else None, plan, seed=seed, verbose=verbose, watches=(seen,))
    run = seen.record(history)
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
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "plan": dataclasses.asdict(plan),
        "training": history.to_dict(),
        "run": run.to_dict(),
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
        model.calibration = fit_calibration(
            calibration,
            model.distribution_of(raw, calibrate=False),
            target,
            None if rows.weight is None else rows.weight.double(),
            over_classes=model.head.over_classes,
        )
    alike = rows.weight is None or bool((rows.weight == rows.weight[0]).all())
    if not spared or isinstance(model.coding, LabelCoding) or not alike:
        # Neither rows learned from, nor labels together, nor rows that count differently have the guarantee.
        return
    scores = model.conformal_scores_of(model.distribution_of(raw), target)
    model.conformal_scores = tuple(scores[:_MOST_SCORES].tolist())


def _train(
    model: Model,
    training: Rows,
    held_out: Rows | None,
    plan: Plan,
    *,
    seed: int,
    verbose: bool,
    watches: Sequence[Callable[[History], None]] = (),
) -> History:
    """Trains the model's network where it is; its dropout and shuffles are drawn from ``seed``."""
    head = model.head
    progress = progress_bar(headline(head), shown=verbose)
    with progress as show, _threads(model.network, training, plan), torch.random.fork_rng(devices=[]):

        def watch(history: History) -> None:
            for watching in (show, *watches):
                watching(history)

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


def _threads(network: Network, rows: Rows, plan: Plan) -> AbstractContextManager[None]:
    """As many threads as there are for a batch of images that is worth it; one for tables, and for few small images."""
    worth = network.over_images and plan.batch_size * rows.features[0].numel() >= _WORTH_THREADS
    return nullcontext() if worth else one_thread()


def pass_once(model: Model, task: Task, optimizer: Optimizer, plan: Plan, *, generator: torch.Generator) -> float:
    """One pass over the rows of a task with a model that has started; returns the mean training loss.

    A constant scale is fitted to these rows before the pass, while the network has not yet learned from them.
    """
    rows = encode_rows(task, model.encoder, model.coding)
    model.head.check_target(rows.target, rows.weight)
    model.head = _refit(model, rows)
    with _threads(model.network, rows, plan), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        rows = rows.to(model.device)
        loss = one_epoch(model.network, None, model.head, optimizer, rows, plan, 1, generator=generator)
    model.network.eval()
    return loss


def encode_rows(task: Task, encoder: Encoder, coding: TargetCoding) -> Rows:
    """The task's rows as tensors on the CPU, their weights times those of their classes."""
    features = torch.from_numpy(encoder.transform(task.inputs))
    coded = np.asarray(coding.encode(task.target))
    weight = task.weight
    if task.class_weight is not None:
        weight = np.asarray(task.class_weight)[coded] * (1.0 if weight is None else weight)
    return Rows(features, torch.from_numpy(coded), None if weight is None else torch.from_numpy(np.float32(weight)))


def _as_given(task: Task, rows: Rows, index: NDArray[np.int64]) -> Rows:
    """These rows of the task with the weights that they were given: classes count as they occur."""
    if task.class_weight is None:
        return rows
    weight = None if task.weight is None else torch.from_numpy(np.float32(task.weight[index]))
    return dataclasses.replace(rows, weight=weight)


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
