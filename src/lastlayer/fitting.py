"""From a table and a coded target to a fitted model: split, encode, build, train, fit the scale and the baselines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from lastlayer.baselines import fit_baselines
from lastlayer.checks import InputError, LastLayerWarning
from lastlayer.heads import Head
from lastlayer.initialization import start_as_constant
from lastlayer.metrics import headline, headline_value
from lastlayer.model import Model
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.frames import Frame
from lastlayer.preprocessing.target_coding import ClassCoding, QuantityCoding, TargetCoding
from lastlayer.training import History, Recipe, Rows, forward, hold_out, one_epoch, progress_bar, train


@dataclass(frozen=True)
class NetworkOptions:
    """The shape of the body.

    Attributes:
        hidden: widths of the hidden layers.
        activation: between them.
        dropout: share of hidden units dropped while training.
        bins: piecewise-linear bins per numeric column; 0 for none.
    """

    hidden: Sequence[int] = (256, 256)
    activation: str = "silu"
    dropout: float = 0.1
    bins: int = 16

    def __post_init__(self) -> None:
        if any(isinstance(units, bool) or int(units) != units or units < 1 for units in self.hidden):
            raise InputError(f"hidden is {self.hidden!r}; expected widths such as (256, 256).")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; expected a number in [0, 1).")
        if isinstance(self.bins, bool) or int(self.bins) != self.bins or self.bins < 0:
            raise InputError(f"bins is {self.bins!r}; expected a whole number of 0 or more.")

    def build(self, encoder: TableEncoder, features: NDArray[np.float32], head: Head) -> TabularNetwork:
        """The network for these training features, its weights drawn from PyTorch's random state."""
        numeric = encoder.numeric_width_
        return TabularNetwork(
            inputs=features.shape[1],
            numeric=numeric,
            outputs=head.raw_size,
            hidden=self.hidden,
            activation=self.activation,
            dropout=self.dropout,
            codes=PiecewiseLinear.learn(features[:, :numeric], self.bins),
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
        notes: what was said of the target.
    """

    table: Frame
    target: NDArray[Any]
    weight: NDArray[np.float64] | None
    head: Head
    coding: TargetCoding | None
    target_names: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)


def start_model(
    task: Task,
    encoder: TableEncoder,
    options: NetworkOptions,
    index: NDArray[np.int64],
    *,
    device: str,
    seed: int,
) -> tuple[Model, Rows]:
    """The model before its first step, its encoder and coding learned from the rows named, and those rows encoded.

    It predicts the best constant. Weights are drawn from ``seed``; the caller's random state is left as it was.
    """
    encoder.fit(task.table[index])
    coding = task.coding or QuantityCoding.learn(task.target[index], standardize=task.head.standardizes)
    rows = encode_rows(task, encoder, coding, index)
    task.head.check_target(rows.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = options.build(encoder, rows.features.numpy(), task.head)
    start_as_constant(network.last, task.head, rows.target, rows.ones_or_weight())
    return Model(encoder, network.to(device), task.head, coding, task.target_names), rows


def fit_model(
    task: Task,
    encoder: TableEncoder,
    options: NetworkOptions,
    recipe: Recipe,
    *,
    validation_fraction: float,
    device: str,
    seed: int,
    verbose: bool,
) -> tuple[Model, History]:
    """Fits everything: the encoder and the network on the training rows, the head's scale on the rows held out.

    Same machine, same seed, same data: the same model, bit for bit.
    """
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction!r}; expected a number in [0, 1).")
    classes = task.coding.encode(task.target) if isinstance(task.coding, ClassCoding) else None
    train_index, held_index = hold_out(
        len(task.table), validation_fraction, np.random.RandomState(seed), classes=classes
    )
    model, training = start_model(task, encoder, options, train_index, device=device, seed=seed)
    held_out = encode_rows(task, encoder, model.coding, held_index)
    task.head.check_target(held_out.target)

    with progress_bar(headline(task.head), shown=verbose) as watch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        history = train(
            model.network,
            task.head,
            training.to(device),
            held_out.to(device) if len(held_out) else None,
            recipe,
            generator=torch.Generator().manual_seed(seed),
            headline=lambda raw, target: headline_value(task.head, model.coding, raw, target),
            watch=watch,
        )
    _warn_of_ending(history)

    judged = held_out if len(held_out) else training
    raw = forward(model.network, judged.features.to(device)).cpu()
    model.head = task.head.refit(raw, judged.target, judged.ones_or_weight())
    model.baselines = fit_baselines(task.head, training, judged)
    model.record = {
        "rows": {"training": len(training), "held_out": len(held_out)},
        "judged_on": "held-out rows" if len(held_out) else "training rows: too few to hold any out",
        "seed": seed,
        "training": history.to_dict(),
        "figures": model.score_rows(judged),
        **task.notes,
    }
    return model, history


def pass_once(model: Model, task: Task, optimizer: Optimizer, recipe: Recipe, *, generator: torch.Generator) -> float:
    """One pass over the rows of a task with a model that has started; returns the mean training loss.

    A constant scale is fitted to these rows before the pass, while the network has not yet learned from them.
    """
    everything = np.arange(len(task.table))
    rows = encode_rows(task, model.encoder, model.coding, everything).to(str(model.device))
    task.head.check_target(rows.target)
    model.head = task.head.refit(forward(model.network, rows.features), rows.target, rows.ones_or_weight())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        loss = one_epoch(model.network, None, task.head, optimizer, rows, recipe, 1, generator=generator)
    model.network.eval()
    return loss


def encode_rows(task: Task, encoder: TableEncoder, coding: TargetCoding, index: NDArray[np.int64]) -> Rows:
    """The rows named, as tensors on the CPU."""
    features = torch.from_numpy(encoder.transform(task.table[index]))
    target = torch.from_numpy(np.asarray(coding.encode(task.target[index])))
    weight = None if task.weight is None else torch.from_numpy(task.weight[index].astype(np.float32))
    return Rows(features, target, weight)


def _warn_of_ending(history: History) -> None:
    if history.stopped == "interrupted":
        message = f"training was interrupted after epoch {len(history.epochs)}; epoch {history.best_epoch} is kept."
    elif history.stopped == "not finite":
        message = (
            f"the loss was no longer a number in epoch {len(history.epochs)}; epoch {history.best_epoch} is kept. "
            f"Lower the learning rate, or look for extreme values in the target."
        )
    else:
        return
    warnings.warn(message, LastLayerWarning, stacklevel=5)
