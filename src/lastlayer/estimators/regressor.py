"""A quantity from a table or from images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import InputError, check_choice
from lastlayer.estimators.estimator import Estimator, column_names
from lastlayer.fitting import Task, check_held_out_use, check_rows_to_judge
from lastlayer.head_by_validation import choose_by_validation
from lastlayer.heads import Gaussian, Head, LocationScaleHead, UnitInterval, from_text
from lastlayer.preprocessing.target_coding import QuantityCoding
from lastlayer.uncertainty import conformal_share_interval


class Regressor(RegressorMixin, Estimator):
    """A quantity from a table or from images: its centre, and how far off to expect it.

    The target is standardized inside, and every figure comes back in its own units.

    Args:
        head: what ``None`` means is ``"gaussian"``: squared error, the mean, one scale for all. With a predicted
            scale ``"gaussian:predicted"``, ``"laplace:predicted"``, ``"student_t"``; several values at once
            ``"mixture:5"``; ``"quantiles:0.1,0.5,0.9"``; positive values ``"log_normal"``, ``"gamma"``; shares
            ``"beta"``, ``"unit_interval"``; counts ``"poisson"``, ``"negative_binomial"``. ``"auto"`` tries those that
            fit the target and takes the likeliest on rows held out. Or a head, such as ``heads.StudentT(4.0)``.
        network: of images, ``"convolutional"`` (what ``None`` means), ``"lenet"`` or ``"lenet:average"``; see
            :class:`lastlayer.networks.ConvolutionalNetwork` and :class:`lastlayer.networks.LeNet`.
        hidden, bins: of tables, the network; see :class:`lastlayer.networks.TabularNetwork`.
        activation, dropout: of every network.
        members: of tables, networks trained side by side, predicted as their mixture (a deep ensemble).
        share_weights: whether they share their weight matrices, but for signs and sizes of inputs and units: a large
            ensemble as small as a single network.
        dropout_members: draws of dropout that a prediction is the mixture of (Monte Carlo dropout); needs ``dropout``.
        calibration: ``"scale"`` or ``"pit"``, fitted to rows held out; see :mod:`lastlayer.uncertainty`.
        optimizer, learning_rate, weight_decay, momentum, schedule, shuffle, batch_size, max_epochs, patience,
            average: see :class:`lastlayer.training.Recipe`.
        shifts: of images, by how many pixels at most every batch moves them at random; see
            :class:`lastlayer.networks.RandomShift`.
        validation_fraction: share of the rows held out to stop by and to fit the scale to; 0 for none, ``None`` for
            15 %, and 7500 rows at most.
        refit: learn again from all rows once it is known when to stop; ``None`` for where they are fewer than 10 000.
        keep: of tables, columns to use although they look like an identifier or free text.
        max_categories: of tables, columns per category column at most; rarer categories share one.
        image_scaling: of images, a kind of :class:`lastlayer.preprocessing.ImageScaler`.
        device: where to train, ``"cpu"`` or ``"cuda"``.
        random_state: seed; the same one gives the same model, bit for bit, on one machine.
        verbose: show a progress bar where a terminal watches.

    Attributes:
        scale_: the scale of the predicted distribution, in the target's units, where all rows share one.
        tried_: with ``head="auto"``, the negative log-likelihood of every head tried, on rows held out.

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
            X: pandas, polars or pyarrow table, or a 2-D array; or images, as an array or tensor of shape (n, height,
                width) or (n, height, width, channels).
            y: one column of numbers.
            sample_weight: one weight of 0 or more per row.
        """
        self.check_options()
        task, seed = self._task(X, y, sample_weight), self._seed()
        tried = None
        if self.head == "auto":
            check_rows_to_judge(len(task.inputs), self.validation_fraction)
            best, tried = choose_by_validation(task, lambda each: self._train(each, refit=False, seed=seed))
            task = dataclasses.replace(task, head=best)
        self._fit(task, seed=seed)
        self.__dict__.pop("tried_", None)
        if tried is not None:
            self.tried_ = tried
            self.model_.record["tried"] = tried
        return self

    def check_options(self) -> None:
        super().check_options()
        head = self._quantity_head()
        check_held_out_use(self.calibration, self.validation_fraction, over_classes=False, whole=head.whole)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where the last pass ended.

        The first call learns the encoding of the columns and the target's scale from its rows.
        """
        if self.head == "auto":
            raise InputError(
                "head is 'auto', which is judged on rows held out, and partial_fit holds none out. Use fit, or name a "
                "head."
            )
        first = not self._can_continue()
        return self._partial_fit(self._task(X, y, sample_weight), first=first)

    def predict(self, X: Any, *, statistic: str | None = None) -> NDArray[np.float64]:
        """One number for every row, in the target's units, shape (n,).

        Args:
            statistic: ``"mean"``, ``"median"`` or ``"mode"`` of the predicted distribution; ``None`` for the one that
                the head's loss is least at, the mean for most and the median for ``"laplace"`` and ``"quantiles"``.
        """
        check_is_fitted(self, "model_")
        wanted = self.model_.head.statistic if statistic is None else statistic
        check_choice(wanted, ("mean", "median", "mode"), what="statistic")
        value: Tensor = getattr(self.predict_distribution(X), wanted)
        result: NDArray[np.float64] = value.numpy()
        return result

    def predict_quantiles(self, X: Any, q: float | Sequence[float] = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        """The values that shares ``q`` of the probability do not exceed, shape (n, len(q)), in the target's units."""
        shares = np.atleast_1d(np.asarray(q, dtype=np.float64)).tolist()
        result: NDArray[np.float64] = self.predict_distribution(X).quantile(shares).numpy().T
        return result

    def predict_interval(self, X: Any, p: float = 0.9, *, conformal: bool = False) -> NDArray[np.float64]:
        """The central interval that is to hold the target with probability ``p``, shape (n, 2), in its units.

        Args:
            conformal: wider or narrower, so that of rows held out a share ``p`` was held: over all rows like them the
                coverage is then at least ``p``, whatever the distribution, up to what those rows have decided
                themselves (when to stop, the scale, a calibration) and the second training on all rows.

        Raises:
            InputError: for conformal intervals of a model that held out no rows, or too few for this ``p``.
        """
        distribution = self.predict_distribution(X)
        if conformal:
            ends = conformal_share_interval(distribution, self._held_out_scores, p)
        else:
            ends = distribution.interval(p)
        return np.stack([end.numpy() for end in ends], axis=1)

    @property
    def scale_(self) -> float:
        """The scale of the predicted distribution, in the target's units, where all rows share one.

        Raises:
            AttributeError: for a head that has none.
        """
        head = self.head_
        if not isinstance(head, (LocationScaleHead, UnitInterval)) or head.raw_size != 1:
            raise AttributeError(f"{head} has no scale that all rows share; use predict_distribution.")
        coding = self.model_.coding
        assert isinstance(coding, QuantityCoding)
        return head.one_scale * coding.scale

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        inputs, values, weight = self._rows_with_target(X, y, sample_weight)
        if values.ndim == 2:
            raise InputError(
                f"y has {values.shape[1]} columns; a Regressor learns one quantity. Fit one model per column, or a "
                f"Classifier if they are labels."
            )
        if values.dtype.kind not in "biuf":
            raise InputError(
                f"y holds {values[0]!r}, no number; a Regressor learns a quantity. For classes, use a Classifier."
            )
        head = self._quantity_head()
        return Task(
            inputs, values.astype(np.float64), weight, head, None, column_names(y, 1), calibration=self.calibration
        )

    def _quantity_head(self) -> Head:
        if self.head is None or self.head == "auto":
            return Gaussian()
        head = self.head if isinstance(self.head, Head) else from_text(self.head)
        if head.over_classes:
            raise InputError(f"head={self.head!r} is for no quantity, but for classes. Use a Classifier.")
        return head
