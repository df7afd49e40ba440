"""What the estimators share: options, the way from a table or images to a fitted model, saving."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Sequence
from inspect import signature
from typing import Any, cast

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from typing_extensions import Self

from lastlayer.checks import InputError, LastLayerWarning, check_device, check_seed
from lastlayer.distributions import Distribution
from lastlayer.estimators.kinds import check_options_of_kind, check_same_kind, plain_option
from lastlayer.fitting import Fitted, NetworkOptions, Task, fit_model, pass_once, start_model
from lastlayer.heads import Head
from lastlayer.heads.targets import present_values, to_array
from lastlayer.model import Model
from lastlayer.model_folder import save_model
from lastlayer.preprocessing import (
    Encoder,
    Inputs,
    TableEncoder,
    as_images,
    is_images,
    kind_of,
    kind_of_encoder,
    new_encoder,
)
from lastlayer.preprocessing.frames import as_frame
from lastlayer.training import Plan, Recipe
from lastlayer.uncertainty import Decomposition, decompose


class Estimator(BaseEstimator):
    """What classifier and regressor share: options, the way to a fitted model, saving.

    Attributes:
        model_: the fitted model: encoder, network, head, target coding, baselines.
        head_: the head, its constants fitted.
        loss_curve_: training loss per epoch.
        validation_curve_: validation loss per epoch; empty without held-out rows.
        best_epoch_: the epoch whose weights were kept.
        n_iter_: epochs run.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn; the values of an image, which have no names.
    """

    def __init__(
        self,
        *,
        head: str | Head | None = None,
        network: str | None = None,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        dropout: float | None = None,
        bins: int | None = None,
        members: int = 1,
        share_weights: bool = False,
        dropout_members: int = 0,
        calibration: str | None = None,
        optimizer: str = "adamw",
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        momentum: float = 0.9,
        schedule: str | None = None,
        shuffle: bool = True,
        batch_size: int | None = None,
        max_epochs: int | None = None,
        patience: int | None = None,
        average: float = 0.99,
        shifts: int = 0,
        validation_fraction: float | None = None,
        refit: bool | None = None,
        keep: Collection[str] = (),
        max_categories: int = 64,
        image_scaling: str = "channel",
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.head = head
        self.network = network
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.bins = bins
        self.members = members
        self.share_weights = share_weights
        self.dropout_members = dropout_members
        self.calibration = calibration
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.schedule = schedule
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.average = average
        self.shifts = shifts
        self.validation_fraction = validation_fraction
        self.refit = refit
        self.keep = keep
        self.max_categories = max_categories
        self.image_scaling = image_scaling
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes the fitted model as a folder that :func:`lastlayer.load` reads, all of it or nothing.

        Args:
            folder: made by this call.
            force: replace a model folder that is already there; anything else there is never touched.

        Raises:
            ModelFolderError: if the folder exists (and ``force`` is not given), is no model folder, or cannot be
                written; what was there stays as it was.
        """
        check_is_fitted(self, "model_")
        save_model(self.model_, folder, force=force)

    def predict_distribution(self, X: Any) -> Distribution:
        """What is predicted for every row, to be asked for its mean, quantiles, samples, log_prob and the rest.

        In the target's units, or over the class indices; of members it is the true mixture. Shape (n,), or (n, labels).
        """
        check_is_fitted(self, "model_")
        return self.model_.distribution(self._inputs(X, reset=False))

    def decompose(self, X: Any) -> Decomposition:
        """How much of the uncertainty of every row lies in the data, and how much in what the members disagree on.

        Variances of a quantity, entropies (in nats) of classes; without members nothing is disagreed on.
        """
        check_is_fitted(self, "model_")
        return decompose(self.model_.members(self._inputs(X, reset=False)))

    def check_options(self) -> None:
        """What of the options can be judged before there are inputs; ``fit`` does it too.

        Raises:
            InputError: for an option that is wrong, or does not go with another.
        """
        self._network_options()
        self._recipe()
        self._checked_device()

    @property
    def _held_out_scores(self) -> tuple[float, ...]:
        """The scores that conformal intervals and sets are made by.

        Raises:
            InputError: if there are none.
        """
        scores = self.model_.conformal_scores
        if not scores:
            raise InputError(
                "this model kept no scores of held-out rows to be conformal by: rows were too few, all were trained on "
                "(validation_fraction=0, partial_fit), or they had different weights. Fit it otherwise, or ask for "
                "predictions that are not conformal."
            )
        return scores

    @property
    def head_(self) -> Head:
        """The head, its constants fitted."""
        check_is_fitted(self, "model_")
        return self.model_.head

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags

    def _train(self, task: Task, *, refit: bool | None, seed: int) -> Fitted:
        return fit_model(
            task,
            self._encoder(task.inputs),
            self._network_options(),
            self._recipe(),
            validation_fraction=self.validation_fraction,
            refit=refit,
            device=self._checked_device(),
            seed=seed,
            verbose=self.verbose,
        )

    def _fit(self, task: Task, *, seed: int) -> Self:
        fitted = self._train(task, refit=self.refit, seed=seed)
        history = fitted.history
        self._adopt(fitted.model)
        self.loss_curve_ = [epoch.training_loss for epoch in history.epochs]
        self.validation_curve_ = [
            epoch.validation_loss for epoch in history.epochs if epoch.validation_loss is not None
        ]
        self.best_epoch_ = history.best_epoch
        self.n_iter_ = len(history.epochs)
        return self

    def _partial_fit(self, task: Task, *, first: bool) -> Self:
        if self.calibration is not None:
            raise InputError(
                f"calibration is {self.calibration!r}; it is fitted to rows held out, and partial_fit holds none out. "
                f"Use fit, or leave calibration out."
            )
        if first:
            model, _ = start_model(
                task,
                self._encoder(task.inputs),
                self._network_options(),
                device=self._checked_device(),
                seed=self._seed(),
            )
            self._adopt(model)
            self._optimizer = self._plan(task).build_optimizer(model.network)
            self._generator = torch.Generator().manual_seed(self._seed())
            self.loss_curve_, self.validation_curve_, self.best_epoch_, self.n_iter_ = [], [], 0, 0
        loss = pass_once(self.model_, task, self._optimizer, self._plan(task), generator=self._generator)
        self.loss_curve_.append(loss)
        self.n_iter_ += 1
        self.best_epoch_ = self.n_iter_
        return self

    def _adopt(self, model: Model) -> None:
        self.model_ = model
        # Arrays have no names; scikit-learn warns where a table with names meets a model without, or the other way.
        model.record["named_columns"] = hasattr(self, "feature_names_in_")
        model.record["options"] = self._plain_options()
        # As it was asked for: the model's own has its constants fitted.
        model.record["head"] = self.head.to_dict() if isinstance(self.head, Head) else self.head
        # A warm optimizer belongs to the network it started with.
        self.__dict__.pop("_optimizer", None)

    def _plain_options(self) -> dict[str, Any]:
        """The options that JSON can hold, all but the head; a dictionary as the list of its pairs."""
        options = {name: plain_option(value) for name, value in self.get_params(deep=False).items() if name != "head"}
        return {
            name: value for name, value in options.items() if isinstance(value, bool | int | float | str | list | None)
        }

    def _can_continue(self) -> bool:
        return "_optimizer" in self.__dict__

    def _plan(self, task: Task) -> Plan:
        images = self.model_.network.over_images
        return self._recipe().plan(len(task.inputs), classes=task.head.over_classes, images=images)

    def _encoder(self, inputs: Inputs) -> Encoder:
        usual = {name: parameter.default for name, parameter in signature(type(self)).parameters.items()}
        check_options_of_kind(self.get_params(deep=False), usual, kind_of(inputs))
        return new_encoder(inputs, keep=self.keep, max_categories=self.max_categories, image_scaling=self.image_scaling)

    def _checked_device(self) -> str:
        check_device(self.device)
        return self.device

    def _network_options(self) -> NetworkOptions:
        return NetworkOptions(
            network=self.network,
            hidden=self.hidden,
            activation=self.activation,
            dropout=self.dropout,
            bins=self.bins,
            members=self.members,
            share_weights=self.share_weights,
            dropout_members=self.dropout_members,
            shifts=self.shifts,
        )

    def _recipe(self) -> Recipe:
        return Recipe(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            schedule=self.schedule,
            shuffle=self.shuffle,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            patience=self.patience,
            average=self.average,
        )

    def _seed(self) -> int:
        if isinstance(self.random_state, int):
            check_seed(self.random_state)
            return self.random_state
        return int(check_random_state(self.random_state).randint(2**31))

    def _inputs(self, X: Any, *, reset: bool) -> Inputs:
        """Images as an array, or a table as one kind of frame, checked as scikit-learn checks them."""
        kind = "images" if is_images(X) else "table"
        if not reset:
            check_same_kind(kind, kind_of_encoder(self.model_.encoder))
        if kind == "images":
            images = as_images(X)
            if reset:
                self.n_features_in_ = math.prod(images.shape[1:])
                self.__dict__.pop("feature_names_in_", None)
            return images
        native = nw.to_native(X, pass_through=True)
        is_frame = isinstance(nw.from_native(native, pass_through=True), (nw.DataFrame, nw.LazyFrame))
        if is_frame:
            frame = as_frame(native)
            validate_data(self, nw.to_native(frame), skip_check_array=True, reset=reset)
            return frame
        array = validate_data(self, X, dtype=None, ensure_all_finite="allow-nan", reset=reset)
        frame = as_frame(array)
        if not reset:
            names = cast(TableEncoder, self.model_.encoder).feature_names_in_
            frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
        return frame

    def _rows_with_target(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[Inputs, NDArray[Any], NDArray[np.float64] | None]:
        """Inputs, targets and weights of the rows that have a target and count."""
        inputs = self._inputs(X, reset=not self._can_continue())
        if y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: the column to learn."
            )
        array = to_array(y)
        if len(array) != len(inputs):
            raise InputError(f"X has {len(inputs)} rows and y {len(array)}; expected one target per row.")
        if array.ndim == 2 and array.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected: y of shape (n, 1) is taken as (n,).",
                DataConversionWarning,
                stacklevel=4,
            )
            y = array[:, 0]
            array = y
        values, present = (array, np.ones(len(array), dtype=bool)) if array.ndim == 2 else present_values(y)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError("Input y contains infinity. Remove those rows, or leave the cell empty.")
        if not present.any():
            raise InputError("Input y contains NaN: no row has a target, so there is nothing to learn from.")
        if not present.all():
            warnings.warn(
                f"{len(array) - present.sum()} of {len(array)} rows have no target and are left out.",
                LastLayerWarning,
                stacklevel=4,
            )
        if sample_weight is None:
            return _rows(inputs, present), values, None
        weight = _check_sample_weight(sample_weight, array, dtype=np.float64, ensure_non_negative=True)
        counted = present & (weight > 0)
        if not counted.any():
            raise InputError("no row has both a target and a weight above 0; there is nothing to learn from.")
        return _rows(inputs, counted), values[counted[present]], weight[counted]


def _rows(inputs: Inputs, chosen: NDArray[np.bool_]) -> Inputs:
    return inputs if chosen.all() else inputs[np.flatnonzero(chosen)]


def column_names(y: Any, count: int) -> tuple[str, ...]:
    """What the target's columns are called, where it says so."""
    columns = getattr(y, "columns", None)
    if columns is not None and len(columns) == count:
        return tuple(str(name) for name in columns)
    name = getattr(y, "name", None)
    if count == 1:
        return (str(name) if name else "target",)
    return tuple(f"label_{index}" for index in range(count))
