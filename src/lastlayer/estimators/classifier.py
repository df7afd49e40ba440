"""Classes and labels from a table or from images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from lastlayer.checks import InputError
from lastlayer.estimators.estimator import Estimator, column_names
from lastlayer.fitting import Task, check_held_out_use
from lastlayer.heads import Bernoulli, Categorical, Head, MultiLabel, Ordinal
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding
from lastlayer.uncertainty import class_probabilities, conformal_threshold


class Classifier(ClassifierMixin, Estimator):
    """Classes or labels from a table or from images: honest probabilities with no tuning.

    Two classes get a sigmoid and binary cross-entropy, more a softmax and cross-entropy, a table of 0/1 columns a
    sigmoid and binary cross-entropy per label.

    Args:
        head: ``None`` to go by the target, or ``"bernoulli"``, ``"categorical"``, ``"ordinal"`` (the classes, sorted,
            are in order), ``"multilabel"``.
        class_weight: ``None``, ``"balanced"`` (each class counts the same in all), or a weight per class. It rules
            which class is decided for; in predicted probabilities it is undone, so that they say how often classes
            occur.
        network: of images, ``"convolutional"`` (what ``None`` means), ``"lenet"`` or ``"lenet:average"``; see
            :class:`lastlayer.networks.ConvolutionalNetwork` and :class:`lastlayer.networks.LeNet`.
        hidden, bins: of tables, the network; see :class:`lastlayer.networks.TabularNetwork`.
        activation, dropout: of every network.
        members: of tables, networks trained side by side, predicted as their mixture (a deep ensemble).
        share_weights: whether they share their weight matrices, but for signs and sizes of inputs and units: a large
            ensemble as small as a single network.
        dropout_members: draws of dropout that a prediction is the mixture of (Monte Carlo dropout).
        calibration: ``"temperature"`` or ``"isotonic"``, fitted to rows held out; see :mod:`lastlayer.uncertainty`.
        optimizer, learning_rate, weight_decay, momentum, schedule, shuffle, batch_size, max_epochs, patience,
            average: see :class:`lastlayer.training.Recipe`.
        shifts: of images, by how many pixels at most every batch moves them at random; see
            :class:`lastlayer.networks.RandomShift`.
        validation_fraction: share of the rows held out to stop by; 0 for none, ``None`` for 15 %, and 7500 rows at
            most.
        refit: learn again from all rows once it is known when to stop; ``None`` for where they are fewer than 10 000.
        keep: of tables, columns to use although they look like an identifier or free text.
        max_categories: of tables, columns per category column at most; rarer categories share one.
        image_scaling: of images, a kind of :class:`lastlayer.preprocessing.ImageScaler`.
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
        super().__init__(
            head=head,
            network=network,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            bins=bins,
            members=members,
            share_weights=share_weights,
            dropout_members=dropout_members,
            calibration=calibration,
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
            shifts=shifts,
            validation_fraction=validation_fraction,
            refit=refit,
            keep=keep,
            max_categories=max_categories,
            image_scaling=image_scaling,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learns from the rows of ``X`` that have a target in ``y``.

        Args:
            X: pandas, polars or pyarrow table, or a 2-D array; or images, as an array or tensor of shape (n, height,
                width) or (n, height, width, channels).
            y: one column of classes, or a table of 0/1 labels.
            sample_weight: one weight of 0 or more per row.
        """
        self.check_options()
        return self._fit(self._task(X, y, sample_weight, classes=None), seed=self._seed())

    def check_options(self) -> None:
        super().check_options()
        check_held_out_use(self.calibration, self.validation_fraction, over_classes=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where the last pass ended.

        The first call learns the encoding of the columns from its rows, and takes ``classes`` if its rows do not hold
        all of them.
        """
        if isinstance(self.class_weight, str):
            raise InputError(
                f"class_weight is {self.class_weight!r}, which needs all rows, and partial_fit sees some. Give a "
                f"weight per class, such as class_weight={{0: 1.0, 1: 5.0}}."
            )
        if self._can_continue():
            classes = getattr(self.model_.coding, "classes", None)
            return self._partial_fit(self._task(X, y, sample_weight, classes=classes), first=False)
        return self._partial_fit(self._task(X, y, sample_weight, classes=classes), first=True)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of every class, shape (n, classes), or of every label, shape (n, labels)."""
        check_is_fitted(self, "model_")
        return self.model_.probability(self._inputs(X, reset=False))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithm of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """What :meth:`predict` decides by: the logit of the second of two classes, shape (n,); else one per class.

        Of labels the logit of each, shape (n, labels). Where there is one network and nothing is calibrated, it is the
        raw output of a sigmoid or softmax.
        """
        check_is_fitted(self, "model_")
        scores: NDArray[np.float64] = self.model_.decision_scores(self._inputs(X, reset=False)).numpy()
        return scores

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class, shape (n,), or 0/1 per label, shape (n, labels).

        With class weights it is the class that is most probable once every class counts as in training.
        """
        check_is_fitted(self, "model_")
        if isinstance(self.model_.coding, ClassCoding):
            return self.model_.coding.decode(self.model_.decide(self._inputs(X, reset=False)))
        return (self.predict_proba(X) > 0.5).astype(np.int64)

    def predict_set(self, X: Any, p: float = 0.9) -> NDArray[np.bool_]:
        """Which classes could be the true one, shape (n, classes): a conformal set, as small as it can be.

        Over all rows like those held out it has the true class with probability ``p`` at least, up to what those rows
        have decided themselves (when to stop, a calibration) and the second training on all rows. A set may be empty,
        where no class is probable enough.

        Raises:
            InputError: for labels, for a model that held out no rows, or too few for this ``p``.
        """
        distribution = self.predict_distribution(X)
        if not isinstance(self.model_.coding, ClassCoding):
            raise InputError("a conformal set is one of classes; several labels have none. Use predict_proba.")
        threshold = conformal_threshold(self._held_out_scores, p)
        sets: NDArray[np.bool_] = (1.0 - class_probabilities(distribution) <= threshold).numpy()
        return sets

    def _task(self, X: Any, y: Any, sample_weight: Any, *, classes: Any) -> Task:
        inputs, values, weight = self._rows_with_target(X, y, sample_weight)
        coding: ClassCoding | LabelCoding
        if values.ndim == 2:
            head = self._named_head({"multilabel": MultiLabel(labels=values.shape[1])})
            names = column_names(y, values.shape[1])
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
            fitting: dict[str, Head] = {"categorical": Categorical(classes=count), "ordinal": Ordinal(classes=count)}
            head = self._named_head({"bernoulli": Bernoulli(), **fitting} if count == 2 else fitting)
            names = column_names(y, 1)
        weight, class_weight = self._with_class_weight(values, coding, weight)
        self.classes_ = coding.classes if isinstance(coding, ClassCoding) else np.array([0, 1])
        return Task(inputs, values, weight, head, coding, names, class_weight, self.calibration)

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
        self, values: NDArray[Any], coding: ClassCoding | LabelCoding, weight: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64] | None, tuple[float, ...] | None]:
        """The weight of every row, and the weight of every class beside it.

        Classes of weight 0 are left out of training, which no probability can undo: their rows then weigh 0 themselves.
        """
        if self.class_weight is None:
            return weight, None
        if isinstance(coding, LabelCoding):
            raise InputError("class_weight is for classes; several labels have none. Pass sample_weight instead.")
        try:
            by_class = compute_class_weight(self.class_weight, classes=coding.classes, y=values).astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"class_weight is {self.class_weight!r}; expected 'balanced', or a weight for each of the classes "
                f"{', '.join(map(str, coding.classes[:20]))} ({error})."
            ) from error
        if not ((by_class >= 0) & np.isfinite(by_class)).all() or not (by_class > 0).any():
            raise InputError(f"class_weight is {self.class_weight!r}; expected numbers of 0 or more, not all 0.")
        if (by_class > 0).all():
            return weight, tuple(by_class.tolist())
        by_row = by_class[coding.encode(values)]
        return by_row if weight is None else by_row * weight, None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
