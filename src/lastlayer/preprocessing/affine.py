"""Transformers that are an affine map learned from a covariance matrix, whatever the map: learning, there and back."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from typing_extensions import Self

from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.preprocessing.arrays import without_tensors
from lastlayer.preprocessing.moments import Floats, Moments

if TYPE_CHECKING:
    import torch

    from lastlayer.preprocessing.modules import AffineMap

# How much is in float64 at a time: 8 MiB.
_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors of a covariance matrix, the largest first.

    Attributes:
        values: ``(directions,)``, the variance along each direction.
        vectors: ``(columns, directions)``, orthonormal; the largest entry of each is positive.
    """

    values: Floats
    vectors: Floats


@dataclass(frozen=True)
class Maps:
    """What a transformer applies: ``(x − mean) · there``, and back ``z · back + mean``.

    Attributes:
        eigenpairs: of the covariance matrix, those that are used.
        mean: ``(columns,)``.
        there, back: ``(columns, width)`` and ``(width, columns)``.
    """

    eigenpairs: Eigenpairs
    mean: Floats
    there: Floats
    back: Floats


class AffineTransformer(TransformerMixin, BaseEstimator):
    """The common part: a transformer adds what its maps are."""

    @abstractmethod
    def _maps_of(self, moments: Moments) -> Maps:
        """The maps for data of these moments."""

    @abstractmethod
    def _check_options(self, columns: int) -> None:
        """Raises ``InputError`` for an option that cannot be."""

    # --- learning ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learns from these rows alone."""
        table = self._table(X)
        self._check_options(table.shape[1])
        moments = Moments("covariance").partial_fit(table, sample_weight)
        maps = self._maps_of(_enough(moments))
        # Only now, so that rows which cannot be learned from leave what was learned before.
        self._check_columns(X, reset=True)
        return self._set(moments, maps)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learns from these rows as well, one, many or none. The eigenvectors are found when they are next needed."""
        first = not hasattr(self, "moments_")
        table = self._table(X, expected=not first)
        self._check_options(table.shape[1])
        moments = Moments("covariance") if first else self.moments_
        moments.partial_fit(table, sample_weight)
        if not moments.rows:
            return self
        self._check_columns(X, reset=first)
        return self._set(moments)

    def merge(self, other: AffineTransformer) -> Self:
        """Learns from the rows of another one as well: for several workers, each with some of the rows."""
        check_is_fitted(self)
        check_is_fitted(other)
        return self._set(self.moments_.merge(other.moments_))

    def _set(self, moments: Moments, *maps: Maps) -> Self:
        self.moments_ = moments
        # A list, because scikit-learn holds transform to setting no attribute.
        self._found = list(maps)
        return self

    @property
    def _maps(self) -> Maps:
        check_is_fitted(self)
        if not self._found:
            self._found.append(self._maps_of(_enough(self.moments_)))
        return self._found[0]

    # --- there and back -----------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        table = self._table(X, expected=True)
        maps = self._maps
        return _in_blocks(table, maps.there, before=maps.mean)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """The rows that ``transform`` takes to these, but for directions that were dropped: there, the mean."""
        maps = self._maps
        table = self._table(X, least=0)  # no direction is left of rows that are all alike
        if table.shape[1] != len(maps.back):
            raise ShapeError(
                f"X has {table.shape[1]} columns; {type(self).__name__}.transform gives {len(maps.back)}, and takes "
                f"those back."
            )
        return _in_blocks(table, maps.back, after=maps.mean)

    def to_module(self, *, dtype: torch.dtype | None = None) -> AffineMap:
        """The same as a module of tensors, ``(..., columns)``; its ``inverse`` goes back. ``None`` is float32."""
        from lastlayer.preprocessing.modules import AffineMap  # only here, as it loads PyTorch

        maps = self._maps
        return AffineMap(maps.mean, maps.there, maps.back, dtype=dtype)

    # --- what was learned ---------------------------------------------------------------------------------------------

    @property
    def mean_(self) -> Floats:
        return self._maps.mean

    @property
    def eigenvalues_(self) -> Floats:
        return self._maps.eigenpairs.values

    @property
    def eigenvectors_(self) -> Floats:
        return self._maps.eigenpairs.vectors

    @property
    def _n_features_out(self) -> int:
        return self._maps.there.shape[1]

    def _table(self, X: Any, *, expected: bool = False, least: int = 1) -> NDArray[Any]:
        """The rows as float64 or float32, finite: the columns of training if ``expected``, else so many at least."""
        name = type(self).__name__
        rows = without_tensors(X)
        if getattr(rows, "ndim", 2) > 2:
            raise ShapeError(f"X has shape {X.shape}; {name} takes rows. Fix: X.reshape(len(X), -1) flattens images.")
        try:
            table = check_array(
                rows,
                dtype=[np.float64, np.float32],
                ensure_all_finite=False,
                ensure_min_samples=0,
                ensure_min_features=least,
                estimator=self,
            )
        except TypeError as error:
            raise KindError(str(error)) from error
        except ValueError as error:
            raise InputError(str(error)) from error
        if expected:
            self._check_columns(X, reset=False)
        if not np.isfinite(table).all():
            row, column = np.argwhere(~np.isfinite(table))[0]
            raise InputError(
                f"row {row}, column {column} of X (counting from 0) holds {table[row, column]}, and {name} accepts "
                f"neither NaN nor infinity. Fix: impute missing values, or leave the row out."
            )
        return table

    def _check_columns(self, X: Any, *, reset: bool) -> None:
        """The columns' number and names are those of training; ``reset`` makes them so."""
        try:
            validate_data(self, without_tensors(X), reset=reset, skip_check_array=True)
        except TypeError as error:
            raise KindError(str(error)) from error
        except ValueError as error:
            raise ShapeError(f"{error} Fix: pass the columns of training.") from error

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def eigenpairs(moments: Moments) -> Eigenpairs:
    """All directions of the data. Columns that are constant up to rounding have variance 0."""
    covariance = moments.covariance
    covariance[moments.constant] = 0.0
    covariance[:, moments.constant] = 0.0
    values, vectors = np.linalg.eigh(covariance)
    if 0 < values[-1] < np.finfo(np.float64).tiny / np.finfo(np.float64).eps:
        raise InputError("values that differ this little underflow when squared. Fix: multiply them by a constant.")
    values, vectors = values[::-1], vectors[:, ::-1]
    # The first of those entries that are the largest up to rounding, which otherwise would choose the sign.
    size = np.abs(vectors)
    largest = np.argmax(size >= (1 - 1e-8) * size.max(axis=0), axis=0)
    return Eigenpairs(values, vectors * np.sign(vectors[largest, np.arange(len(values))]))


def _enough(moments: Moments) -> Moments:
    if moments.rows < 2:
        raise InputError(f"found {moments.rows} sample(s) of a weight above zero; a covariance takes 2 at least.")
    return moments


def _in_blocks(table: NDArray[Any], matrix: Floats, *, before: Any = 0.0, after: Any = 0.0) -> NDArray[Any]:
    """``(table − before) · matrix + after`` in float64, a block at a time, in the dtype of the table."""
    result = np.empty((len(table), matrix.shape[1]), dtype=table.dtype)
    step = max(1, _BLOCK_VALUES // max(1, *matrix.shape))
    for start in range(0, len(table), step):
        rows = slice(start, start + step)
        result[rows] = (table[rows] - before) @ matrix + after
    return result
