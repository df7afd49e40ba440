"""scikit-learn estimators over the whole path: table in, likelihood out. Thin assembly; no mathematics."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from typing_extensions import Self

from lastlayer.checks import InputError, LastLayerWarning, check_device, check_seed
from lastlayer.fitting import NetworkOptions, Task, fit_model, pass_once, start_model
from lastlayer.heads import Bernoulli, Categorical, ConstantScaleHead, Head, MultiLabel, catalog
from lastlayer.heads.targets import present_values, to_array
from lastlayer.model import Model
from lastlayer.model_folder import load_model, save_model
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.frames import Frame, as_frame
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding
from lastlayer.training import History, Recipe


class TableEstimator(BaseEstimator):
    """What classifier and regressor share: options, the way to a fitted model, saving.

    Attributes:
        model_: the fitted model: encoder, network, head, target coding, baselines.
        head_: the head, its constants fitted.
        loss_curve_: training loss per epoch.
        validation_curve_: validation loss per epoch; empty without held-out rows.
        best_epoch_: the epoch whose weights were kept.
        n_iter_: epochs run.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        *,
        head: str | Head | None = None,
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        dropout: float | None = None,
        bins: int = 16,
        optimizer: str = "adamw",
        learning_rate: float = 2e-3,
        weight_decay: float | None = None,
        momentum: float = 0.9,
        schedule: str = "constant",
        shuffle: bool = True,
        batch_size: int | None = None,
        max_epochs: int | None = None,
        patience: int | None = None,
        average: float = 0.99,
        validation_fraction: float = 0.15,
        refit: bool | None = None,
        keep: Collection[str] = (),
        max_categories: int = 64,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.head = head
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.bins = bins
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
        self.validation_fraction = validation_fraction
        self.refit = refit
        self.keep = keep
        self.max_categories = max_categories
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

    @property
    def head_(self) -> Head:
        """The head, its constants fitted."""
        check_is_fitted(self, "model_")
        return self.model_.head

    def _fit(self, task: Task) -> Self:
        model, history = fit_model(
            task,
            self._encoder(),
            self._network_options(),
            self._recipe(),
            validation_fraction=self.validation_fraction,
            refit=self.refit,
            device=self._checked_device(),
            seed=self._seed(),
            verbose=self.verbose,
        )
        self._adopt(model)
        self.loss_curve_ = [epoch.training_loss for epoch in history.epochs]
        self.validation_curve_ = [
            epoch.validation_loss for epoch in history.epochs if epoch.validation_loss is not None
        ]
        self.best_epoch_ = history.best_epoch
        self.n_iter_ = len(history.epochs)
        return self

    def _partial_fit(self, task: Task, *, first: bool) -> Self:
        plan = self._recipe().plan(len(task.table), classes=task.head.over_classes)
        if first:
            model, _ = start_model(
                task,
                self._encoder(),
                self._network_options(),
                device=self._checked_device(),
                seed=self._seed(),
            )
            self._adopt(model)
            self._optimizer = plan.build_optimizer(model.network)
            self._generator = torch.Generator().manual_seed(self._seed())
            self.loss_curve_, self.validation_curve_, self.best_epoch_, self.n_iter_ = [], [], 0, 0
        loss = pass_once(self.model_, task, self._optimizer, plan, generator=self._generator)
        self.loss_curve_.append(loss)
        self.n_iter_ += 1
        self.best_epoch_ = self.n_iter_
        return self

    def _adopt(self, model: Model) -> None:
        self.model_ = model
        # Arrays have no names; scikit-learn warns where a table with names meets a model without, or the other way.
        model.record.setdefault("named_columns", hasattr(self, "feature_names_in_"))
        # A warm optimizer belongs to the network it started with.
        self.__dict__.pop("_optimizer", None)

    def _can_continue(self) -> bool:
        return "_optimizer" in self.__dict__

    def _encoder(self) -> TableEncoder:
        return TableEncoder(keep=self.keep, max_categories=self.max_categories)

    def _checked_device(self) -> str:
        check_device(self.device)
        return self.device

    def _network_options(self) -> NetworkOptions:
        return NetworkOptions(self.hidden, self.activation, self.dropout, self.bins)

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

    def _table(self, X: Any, *, reset: bool) -> Frame:
        """The inputs as one kind of frame, checked as scikit-learn checks them."""
        native = nw.to_native(X, pass_through=True)
        is_frame = isinstance(nw.from_native(native, pass_through=True), (nw.DataFrame, nw.LazyFrame))
        if is_frame:
            frame = as_frame(native)
            validate_data(self, nw.to_native(frame), skip_check_array=True, reset=reset)
            return frame
        array = validate_data(self, X, dtype=None, ensure_all_finite="allow-nan", reset=reset)
        frame = as_frame(array)
        if not reset:
            frame = frame.rename(dict(zip(frame.columns, self.model_.encoder.feature_names_in_, strict=True)))
        return frame

    def _rows_with_target(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[Frame, NDArray[Any], NDArray[np.float64] | None]:
        """Inputs, targets and weights of the rows that have a target and count."""
        table = self._table(X, reset=not self._can_continue())
        if y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: the column to learn."
            )
        array = to_array(y)
        if len(array) != len(table):
            raise InputError(f"X has {len(table)} rows and y {len(array)}; expected one target per row.")
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
            return table.filter(present.tolist()), values, None
        weight = _check_sample_weight(sample_weight, array, dtype=np.float64, ensure_non_negative=True)
        counted = present & (weight > 0)
        if not counted.any():
            raise InputError("no row has both a target and a weight above 0; there is nothing to learn from.")
        return table.filter(counted.tolist()), values[counted[present]], weight[counted]


class Classifier(ClassifierMixin, TableEstimator):
    """Classes or labels from a table: honest probabilities with no tuning.

    Two classes get a sigmoid and binary cross-entropy, more a softmax and cross-entropy, a table of 0/1 columns a
    sigmoid and binary cross-entropy per label.

    Args:
        head: ``None`` to go by the target, or ``"bernoulli"``, ``"categorical"``, ``"multilabel"``.
        class_weight: ``None``, ``"balanced"`` (each class counts the same in all), or a weight per class. It shifts the
            predicted probabilities towards rare classes; leave it out where probabilities matter.
        hidden, activation, dropout, bins: the network; see :class:`lastlayer.networks.TabularNetwork`.
        optimizer, learning_rate, weight_decay, momentum, schedule, shuffle, batch_size, max_epochs, patience,
            average: see :class:`lastlayer.training.Recipe`.
        validation_fraction: share of the rows held out to stop by; 0 for none.
        refit: learn again from all rows once it is known when to stop; ``None`` for where they are fewer than 10 000.
        keep: columns to use although they look like an identifier or free text.
        max_categories: columns per category column at most; rarer categories share one.
        device: where to train, ``"cpu"`` or ``"cuda"``.
        random_state: seed; the same one gives the same model, bit for bit, on one machine.
        verbose: show a progress bar where a terminal watches.

    Attributes:
        classes_: the classes, sorted; ``[0, 1]`` per label for several labels.

    Raises:
        InputError: if the target is constant or does not fit the head, with what to do.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = Classifier(max_epochs=20).fit(X, y)
        >>> model.predict_proba(X[:1]).shape
        (1, 3)
    """

    def __init__(
        self,
        *,
        head: str | Head | None = None,
        class_weight: str | dict[Any, float] | None = None,
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        dropout: float | None = None,
        bins: int = 16,
        optimizer: str = "adamw",
        learning_rate: float = 2e-3,
        weight_decay: float | None = None,
        momentum: float = 0.9,
        schedule: str = "constant",
        shuffle: bool = True,
        batch_size: int | None = None,
        max_epochs: int | None = None,
        patience: int | None = None,
        average: float = 0.99,
        validation_fraction: float = 0.15,
        refit: bool | None = None,
        keep: Collection[str] = (),
        max_categories: int = 64,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            head=head,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            bins=bins,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            momentum=momentum,
            schedule=schedule,
            shuffle=shuffle,
            batch_size=batch_size,
            max_epochs=max_epochs,
            patience=patience,
            average=average,
            validation_fraction=validation_fraction,
            refit=refit,
            keep=keep,
            max_categories=max_categories,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learns from the rows of ``X`` that have a target in ``y``.

        Args:
            X: pandas, polars or pyarrow table, or a 2-D array.
            y: one column of classes, or a table of 0/1 labels.
            sample_weight: one weight of 0 or more per row.
        """
        return self._fit(self._task(X, y, sample_weight, classes=None))

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where the last pass ended.

        The first call learns the encoding of the columns from its rows, and takes ``classes`` if its rows do not hold
        all of them.
        """
        if self._can_continue():
            classes = getattr(self.model_.coding, "classes", None)
            return self._partial_fit(self._task(X, y, sample_weight, classes=classes), first=False)
        return self._partial_fit(self._task(X, y, sample_weight, classes=classes), first=True)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of every class, shape (n, classes), or of every label, shape (n, labels)."""
        check_is_fitted(self, "model_")
        return self.model_.probability(self._table(X, reset=False))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithm of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Raw output: the logit of the second of two classes, shape (n,); else one per class or label."""
        check_is_fitted(self, "model_")
        raw = self.model_.raw(self._table(X, reset=False)).numpy()
        return raw[:, 0] if isinstance(self.model_.head, Bernoulli) else raw

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class, shape (n,), or 0/1 per label, shape (n, labels)."""
        probability = self.predict_proba(X)
        if isinstance(self.model_.coding, ClassCoding):
            return self.model_.coding.decode(probability.argmax(axis=1))
        return (probability > 0.5).astype(np.int64)

    def _task(self, X: Any, y: Any, sample_weight: Any, *, classes: Any) -> Task:
        table, values, weight = self._rows_with_target(X, y, sample_weight)
        coding: ClassCoding | LabelCoding
        if values.ndim == 2:
            head = self._named_head({"multilabel": MultiLabel(labels=values.shape[1])})
            names = _column_names(y, values.shape[1])
            coding = LabelCoding(names)
        else:
            check_classification_targets(values)
            coding = ClassCoding(np.unique(values) if classes is None else np.unique(np.asarray(classes)))
            count = len(coding.classes)
            if count < 2:
                raise InputError(
                    f"the target holds one class only, {coding.classes[0]}; a classifier needs two. Add rows of "
                    f"another class, or name another target."
                )
            fitting: dict[str, Head] = {"categorical": Categorical(classes=count)}
            head = self._named_head({"bernoulli": Bernoulli(), **fitting} if count == 2 else fitting)
            names = _column_names(y, 1)
        weight = self._with_class_weight(values, weight)
        self.classes_ = coding.classes if isinstance(coding, ClassCoding) else np.array([0, 1])
        return Task(table, values, weight, head, coding, names)

    def _named_head(self, fitting: dict[str, Head]) -> Head:
        """The head asked for, out of those that fit the target; the first of them if none was asked for."""
        if self.head is None:
            return next(iter(fitting.values()))
        name = self.head.facts.name if isinstance(self.head, Head) else self.head
        if name not in fitting:
            raise InputError(
                f"head={name!r} does not fit this target; expected {' or '.join(map(repr, fitting))}, or None to go by "
                f"the target."
            )
        return fitting[name]

    def _with_class_weight(
        self, values: NDArray[Any], weight: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return weight
        if values.ndim == 2:
            raise InputError("class_weight is for classes; several labels have none. Pass sample_weight instead.")
        by_class = compute_sample_weight(self.class_weight, values)
        return by_class if weight is None else by_class * weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.classifier_tags.multi_label = True
        return tags


class Regressor(RegressorMixin, TableEstimator):
    """A quantity from a table: its centre, and how far off to expect it.

    The target is standardized inside, and every figure comes back in its own units.

    Args:
        head: ``"gaussian"`` (squared error, the mean; what ``None`` means), ``"laplace"`` (absolute error, the median),
            ``"unit_interval"`` (a share in [0, 1]), or such a head.
        hidden, activation, dropout, bins: the network; see :class:`lastlayer.networks.TabularNetwork`.
        optimizer, learning_rate, weight_decay, momentum, schedule, shuffle, batch_size, max_epochs, patience,
            average: see :class:`lastlayer.training.Recipe`.
        validation_fraction: share of the rows held out to stop by and to fit the scale to; 0 for none.
        refit: learn again from all rows once it is known when to stop; ``None`` for where they are fewer than 10 000.
        keep: columns to use although they look like an identifier or free text.
        max_categories: columns per category column at most; rarer categories share one.
        device: where to train, ``"cpu"`` or ``"cuda"``.
        random_state: seed; the same one gives the same model, bit for bit, on one machine.
        verbose: show a progress bar where a terminal watches.

    Attributes:
        scale_: the constant scale of the predicted distribution, in the target's units.

    Raises:
        DomainError: if a target lies outside the head's support.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = Regressor(max_epochs=20).fit(X, y)
        >>> model.predict(X[:2]).shape
        (2,)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learns from the rows of ``X`` that have a target in ``y``.

        Args:
            X: pandas, polars or pyarrow table, or a 2-D array.
            y: one column of numbers.
            sample_weight: one weight of 0 or more per row.
        """
        return self._fit(self._task(X, y, sample_weight))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where the last pass ended.

        The first call learns the encoding of the columns and the target's scale from its rows.
        """
        first = not self._can_continue()
        return self._partial_fit(self._task(X, y, sample_weight), first=first)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The centre of the predicted distribution, in the target's units, shape (n,)."""
        check_is_fitted(self, "model_")
        return self.model_.centre(self._table(X, reset=False))

    @property
    def scale_(self) -> float:
        """The constant scale of the predicted distribution, in the target's units."""
        check_is_fitted(self, "model_")
        return self.model_.scale()

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        table, values, weight = self._rows_with_target(X, y, sample_weight)
        if values.ndim == 2:
            raise InputError(
                f"y has {values.shape[1]} columns; a Regressor learns one quantity. Fit one model per column, or a "
                f"Classifier if they are labels."
            )
        if values.dtype.kind not in "biuf":
            raise InputError(
                f"y holds {values[0]!r}, no number; a Regressor learns a quantity. For classes, use a Classifier."
            )
        return Task(table, values.astype(np.float64), weight, self._quantity_head(), None, _column_names(y, 1))

    def _quantity_head(self) -> Head:
        if isinstance(self.head, ConstantScaleHead):
            return self.head
        quantities = [name for name, head in catalog().items() if issubclass(head, ConstantScaleHead)]
        name = "gaussian" if self.head is None else self.head
        if name not in quantities:
            raise InputError(f"head={name!r} is for no quantity; expected {', '.join(map(repr, quantities))}.")
        return catalog()[name]()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def _column_names(y: Any, count: int) -> tuple[str, ...]:
    """What the target's columns are called, where it says so."""
    columns = getattr(y, "columns", None)
    if columns is not None and len(columns) == count:
        return tuple(str(name) for name in columns)
    name = getattr(y, "name", None)
    if count == 1:
        return (str(name) if name else "target",)
    return tuple(f"label_{index}" for index in range(count))


def load(folder: str | os.PathLike[str]) -> Classifier | Regressor:
    """The fitted estimator that :meth:`TableEstimator.save`, or the command, wrote to a folder.

    Nothing in the folder is run: it holds numbers and text.

    Raises:
        ModelFolderError: if the folder is missing, foreign, damaged or from a later version.
    """
    model = load_model(folder)
    estimator: Classifier | Regressor
    if isinstance(model.coding, QuantityCoding):
        estimator = Regressor(head=model.head)
    else:
        estimator = Classifier(head=model.head)
        estimator.classes_ = model.coding.classes if isinstance(model.coding, ClassCoding) else np.array([0, 1])
    estimator._adopt(model)
    estimator.n_features_in_ = model.encoder.n_features_in_
    if model.record["named_columns"]:
        estimator.feature_names_in_ = model.encoder.feature_names_in_
    history = model.record.get("training", History().to_dict())
    estimator.loss_curve_ = history["training_loss"]
    estimator.validation_curve_ = [loss for loss in history["validation_loss"] if loss is not None]
    estimator.best_epoch_ = history["best_epoch"]
    estimator.n_iter_ = len(estimator.loss_curve_)
    return estimator
