"""A target column of any kind as plain NumPy values, and which rows have one."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import InputError


def present_values(target: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The values that are there, in their natural dtype, and a mask of the rows that have one.

    A whole-number column with missing cells stays whole numbers. Missing are ``None``, null and NaN.

    Args:
        target: one column: list, NumPy array, pandas, polars or pyarrow column, or tensor.

    Raises:
        InputError: if it is not one column.

    Example:
        >>> present_values([3, None, 5])
        (array([3, 5]), array([ True, False,  True]))
    """
    series = nw.from_native(target, series_only=True, allow_series=True, pass_through=True)
    if isinstance(series, nw.Series):
        present = ~series.is_null().to_numpy().astype(bool)
        return _without_nan(_natural(series.drop_nulls().to_numpy()), present)
    array = to_array(target)
    if array.ndim != 1:
        raise InputError(f"the target has shape {array.shape}; expected one column.")
    if array.dtype.kind != "O":
        return _without_nan(array, np.ones(array.shape, dtype=bool))
    present = np.array([not _is_missing(cell) for cell in array], dtype=bool)
    return _natural(array[present]), present


def to_array(target: Any) -> NDArray[Any]:
    """A column or a table of columns as an array; lists of mixed kinds become objects, not strings."""
    if hasattr(target, "detach"):
        return np.asarray(target.detach().cpu().numpy())
    native = nw.from_native(target, allow_series=True, pass_through=True)
    if isinstance(native, (nw.DataFrame, nw.Series)):
        return np.asarray(native.to_numpy())
    if isinstance(target, np.ndarray):
        return target
    try:
        array = np.asarray(target)
    except ValueError as error:
        raise InputError(f"the target is ragged: its rows differ in length ({error}).") from error
    if array.dtype.kind in "USO":
        return np.asarray(target, dtype=object)
    return array


def _natural(values: NDArray[Any]) -> NDArray[Any]:
    """Objects that are all booleans or all numbers as such; everything else as strings."""
    if values.dtype.kind != "O":
        return values
    cells = [_plain(cell) for cell in values.tolist()]
    kinds = {type(cell) for cell in cells}
    if cells and all(isinstance(cell, date) for cell in cells):
        return np.array([cell.isoformat()[:10] for cell in cells], dtype="datetime64[D]")
    if kinds <= {bool} or kinds <= {int, float} or all(isinstance(cell, np.datetime64) for cell in cells):
        return np.array(cells)
    return np.array([str(cell) for cell in cells], dtype=object)


def _is_missing(cell: Any) -> bool:
    """``None``, NaN, or the NA of pandas, which is equal to nothing and has no truth value."""
    return cell is None or type(cell).__name__ == "NAType" or bool(cell != cell)


def _plain(cell: Any) -> Any:
    """A NumPy scalar or a decimal as the Python number or text it stands for."""
    if isinstance(cell, Decimal):
        return float(cell)
    return cell.item() if isinstance(cell, np.generic) and cell.dtype.kind in "biufSU" else cell


def _without_nan(values: NDArray[Any], present: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if values.dtype.kind != "f":
        return values, present
    there = ~np.isnan(values)
    mask = present.copy()
    mask[present] = there
    return values[there], mask
