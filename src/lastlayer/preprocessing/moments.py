"""Mean, variance and covariance of rows that come in batches, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from lastlayer.checks import InputError, KindError, ShapeError, check_choice
from lastlayer.preprocessing.arrays import without_tensors

Floats = NDArray[np.float64]

SPREADS = ("none", "variance", "covariance")

# A block is what is taken to float64 at a time: 8 MiB, so that a batch of uint8 or float32 is never copied whole.
_BLOCK_VALUES = 2**20

# A column whose standard deviation is this small beside its mean differs from a constant by rounding alone.
_ROUNDING = 10 * np.finfo(np.float64).eps


class Moments:
    """Mean and spread of rows, batch by batch; two of them, of two workers, merge into one.

    Domain: batches ``(n, k)`` of finite real numbers, n ≥ 0; weights ``(n,)``, finite and not negative. A row of
    weight 2 counts as that row twice, one of weight 0 as none.

    Formula: ``mean = Σ w x / Σ w`` and ``covariance = Σ w (x − mean)(x − mean)ᵀ / Σ w``, divided by the sum of the
    weights as in the lecture, not by one less. Two parts with weights W₁, W₂, means apart by δ and sums of squared
    deviations S₁, S₂ combine to ``S₁ + S₂ + W₁ W₂ / (W₁ + W₂) · δ δᵀ``.

    Shapes: ``mean``, ``variance`` and ``constant`` are ``(k,)``, ``covariance`` is ``(k, k)``. Memory: O(k) for
    ``spread="none"`` and ``"variance"``, O(k²) for ``"covariance"``, and one block of rows, however many there are.

    Numerics: float64 throughout. Deviations are taken from the first row, not from zero, so digits that all rows share
    cost nothing, and a constant column has variance 0 exactly. That row is no further than √n standard deviations from
    the mean, so an outlier in its place does no harm. How the rows are split into batches changes only the rounding.

    Special cases: an empty batch changes nothing. Bad input is refused whole; what was counted before stays.

    Raises:
        InputError: for cells or weights that are not finite, negative weights, values whose squares overflow; for a
            moment asked for before any row.
        ShapeError: for another number of columns or weights than expected.
        KindError: for something that is no array of numbers.

    Example:
        >>> moments = Moments("covariance").partial_fit([[1.0, 2.0], [3.0, 2.0]]).partial_fit([[5.0, 8.0]])
        >>> moments.mean
        array([3., 4.])
        >>> moments.covariance
        array([[2.66666667, 4.        ],
               [4.        , 8.        ]])

    Reference: T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing sample
    variances (Stanford, 1979).
    """

    def __init__(self, spread: str = "variance") -> None:
        check_choice(spread, SPREADS, what="spread")
        self.spread = spread
        self._sums: _Sums | None = None

    def partial_fit(self, rows: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """Counts these rows as well."""
        table = _as_table(rows)
        if self._sums is not None and table.shape[1] != self.width:
            raise ShapeError(f"a batch has {table.shape[1]} columns; those before had {self.width}.")
        sums = self._sums
        # As many rows as columns at least, where each block costs a sum of matrices as large as the covariance.
        step = max(1, _BLOCK_VALUES // max(1, table.shape[1]), table.shape[1] * (self.spread == "covariance"))
        for block, block_weight in _blocks(table, None if weight is None else _as_weight(weight, len(table)), step):
            part = _sums_of_block(block, block_weight, self.spread)
            sums = part if sums is None else _combined(sums, part)
        self._sums = _checked(sums)
        return self

    def merge(self, other: Moments) -> Self:
        """Counts the other's rows as well; the other stays as it is."""
        if not isinstance(other, Moments):
            raise KindError(f"merge takes Moments, and was given {type(other).__name__}.")
        if other.spread != self.spread:
            raise InputError(f"Moments({self.spread!r}) cannot take in Moments({other.spread!r}). Fix: use one spread.")
        if self._sums is None or other._sums is None:
            self._sums = self._sums or other._sums
        elif other.width != self.width:
            raise ShapeError(f"the other Moments have {other.width} columns, these have {self.width}.")
        else:
            self._sums = _checked(_combined(self._sums, other._sums))
        return self

    @property
    def rows(self) -> int:
        """How many rows of positive weight were counted."""
        return 0 if self._sums is None else self._sums.rows

    @property
    def weight(self) -> float:
        """The sum of their weights."""
        return 0.0 if self._sums is None else self._sums.weight

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self._known().origin)

    @property
    def mean(self) -> Floats:
        sums = self._known()
        return sums.origin + sums.offset

    @property
    def variance(self) -> Floats:
        sums = self._known(needs=("variance", "covariance"))
        squares = sums.squares if self.spread == "variance" else sums.squares.diagonal()
        return squares / sums.weight

    @property
    def covariance(self) -> Floats:
        sums = self._known(needs=("covariance",))
        return sums.squares / sums.weight

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which columns hold one value, up to the rounding of float64."""
        return np.sqrt(self.variance) <= _ROUNDING * np.abs(self.mean)

    def _known(self, needs: tuple[str, ...] = SPREADS) -> _Sums:
        if self.spread not in needs:
            raise InputError(f"Moments({self.spread!r}) do not hold this. Fix: Moments({needs[0]!r}).")
        if self._sums is None:
            raise InputError("no row of positive weight was counted yet. Fix: call partial_fit with one first.")
        return self._sums


@dataclass(frozen=True)
class _Sums:
    """What is known of some rows, at least one.

    Attributes:
        rows, weight: how many, and the sum of their weights.
        origin: one of the rows, ``(k,)``.
        offset: the mean as seen from there.
        squares: weighted sum of squared deviations from the mean: ``(k,)``, or ``(k, k)`` with products.
    """

    rows: int
    weight: float
    origin: Floats
    offset: Floats
    squares: Floats


def _sums_of_block(rows: Floats, weight: Floats, spread: str) -> _Sums:
    """Two passes over a block that is in memory."""
    total = float(weight.sum())
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused at the end
        deviation = rows - rows[0]
        offset = (weight @ deviation) / total
        deviation -= offset
        if spread == "covariance":
            # Both factors are one array, so that the product is symmetric to the last bit.
            deviation *= np.sqrt(weight)[:, None]
            squares = deviation.T @ deviation
        elif spread == "variance":
            squares = weight @ np.square(deviation, out=deviation)
        else:
            squares = np.zeros(0)
    return _Sums(len(rows), total, rows[0].copy(), offset, squares)


def _combined(first: _Sums, second: _Sums) -> _Sums:
    """The parallel step of Chan, Golub and LeVeque."""
    weight = first.weight + second.weight
    share = second.weight / weight
    with np.errstate(over="ignore", invalid="ignore"):
        apart = (second.origin - first.origin) + (second.offset - first.offset)
        squares = first.squares + second.squares
        if squares.ndim == 2:
            squares += first.weight * share * np.outer(apart, apart)
        elif squares.size:
            squares += first.weight * share * apart**2
        return _Sums(first.rows + second.rows, weight, first.origin, first.offset + share * apart, squares)


def _checked(sums: _Sums | None) -> _Sums | None:
    if sums is not None and not (np.isfinite(sums.offset).all() and np.isfinite(sums.squares).all()):
        raise InputError("values this large overflow when squared. Fix: divide them by a constant first.")
    return sums


def _blocks(table: NDArray[Any], weight: Floats | None, step: int) -> Iterator[tuple[Floats, Floats]]:
    """The rows of positive weight in float64, at most ``step`` at a time, and their weights."""
    for start in range(0, len(table), step):
        rows = table[start : start + step].astype(np.float64)
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise InputError(
                f"row {start + row}, column {column} (counting from 0) holds {rows[row, column]}; expected finite "
                f"numbers. Fix: impute missing values, or leave the row out."
            )
        if weight is None:
            yield rows, np.ones(len(rows))
            continue
        counted = weight[start : start + step]
        if not counted.all():
            rows, counted = rows[counted > 0], counted[counted > 0]
        if len(rows):
            yield rows, counted


def _as_table(rows: ArrayLike) -> NDArray[Any]:
    table = np.asarray(without_tensors(rows))
    if table.dtype.kind not in "buif":
        raise KindError(f"rows must be real numbers, and are {table.dtype}.")
    if table.ndim != 2:
        raise ShapeError(f"rows have shape {table.shape}; expected (rows, columns).")
    return table


def _as_weight(weight: ArrayLike, rows: int) -> Floats:
    try:
        result = np.asarray(without_tensors(weight), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KindError(f"weights must be real numbers: {error}.") from error
    if result.shape != (rows,):
        raise ShapeError(f"the weights have shape {result.shape} for {rows} rows; expected ({rows},).")
    wrong = ~(np.isfinite(result) & (result >= 0))
    if wrong.any():
        raise InputError(f"the weights hold {result[wrong][0]}; expected finite numbers of at least 0.")
    return result
