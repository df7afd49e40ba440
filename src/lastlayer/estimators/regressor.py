"""A quantity from a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from lastlayer.checks import InputError
from lastlayer.estimators.table_estimator import TableEstimator, column_names
from lastlayer.fitting import Task
from lastlayer.heads import ConstantScaleHead, Head, catalog


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
        return Task(table, values.astype(np.float64), weight, self._quantity_head(), None, column_names(y, 1))

    def _quantity_head(self) -> Head:
        if isinstance(self.head, ConstantScaleHead):
            return self.head
        quantities = [name for name, head in catalog().items() if issubclass(head, ConstantScaleHead)]
        name = "gaussian" if self.head is None else self.head
        if name not in quantities:
            raise InputError(f"head={name!r} is for no quantity; expected {', '.join(map(repr, quantities))}.")
        return catalog()[name]()
