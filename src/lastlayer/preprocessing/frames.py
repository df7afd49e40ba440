"""Any table as one kind of frame, and its columns as plain arrays.

narwhals reads pandas, polars and pyarrow alike; NumPy arrays and lists get the column names x0, x1, ...
Missing is one thing from here on: NaN in numbers, NaT in moments, None in text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import polars
from numpy.typing import NDArray

from lastlayer.checks import InputError, KindError, ShapeError

Frame = nw.DataFrame[Any]


def as_frame(table: Any) -> Frame:
    """The table as a narwhals frame whose column names are distinct strings and whose columns all have a type.

    Table: pandas, polars (a lazy one is collected), pyarrow, narwhals, or a 2-D NumPy array or list of rows.
    Object columns get the type that their cells share: boolean, integer, float, datetime, and text for any mixture.
    """
    if isinstance(table, nw.DataFrame):
        return table
    table = nw.to_native(table, pass_through=True)
    if is_array(table):
        return _from_array(np.array(table, dtype=object) if isinstance(table, list | tuple) else np.asarray(table))
    if nw.dependencies.is_pandas_dataframe(table):
        if not all(isinstance(name, str) for name in table.columns):
            table = table.set_axis([str(name) for name in table.columns], axis=1)
        _check_unique(table.columns)
    elif nw.dependencies.is_pyarrow_table(table):
        _check_unique(table.column_names)
    try:
        frame = nw.from_native(table)
    except TypeError:
        raise KindError(
            f"a {type(table).__name__} is not a table. Pass pandas, polars, pyarrow or a 2-D array, not sparse."
        ) from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    objects = [name for name, dtype in frame.schema.items() if dtype == nw.Object]
    if objects:
        # Without its index, because pandas would align the new columns by it.
        frame = nw.maybe_reset_index(frame)
        frame = frame.with_columns(*(_typed(frame[name]) for name in objects))
    return frame


def is_array(table: Any) -> bool:
    """Whether the columns have places only, and no names."""
    if isinstance(table, list | tuple):
        return True
    return hasattr(table, "__array__") and not nw.dependencies.is_into_dataframe(table)


def number_cells(frame: Frame, names: Sequence[str], expected: str = "numbers") -> NDArray[np.float64]:
    """The named columns as float64 ``(n, len(names))``, NaN where a cell or a whole column is missing."""
    schema = frame.schema
    cells = np.full((len(frame), len(names)), np.nan, order="F")
    ready = [index for index, name in enumerate(names) if name in schema and _is_number(schema[name])]
    if ready:
        # Not the whole frame's to_numpy(): for pandas columns backed by pyarrow it gives objects.
        for index, column in zip(ready, frame.select([names[index] for index in ready]).iter_columns(), strict=True):
            cells[:, index] = (column if column.dtype == nw.Float64 else column.cast(nw.Float64())).to_numpy()
    for name in set(names).intersection(schema).difference(names[index] for index in ready):
        _refuse_filled(frame[name], expected)
    return cells


def moment_cells(frame: Frame, name: str) -> NDArray[np.datetime64]:
    """A date or datetime column as datetime64[us] in UTC, NaT where a cell or the whole column is missing."""
    nothing = np.full(len(frame), "NaT", dtype="datetime64[us]")
    if name not in frame.schema:
        return nothing
    column = frame[name]
    if not is_moment(column.dtype):
        _refuse_filled(column, "dates")
        return nothing
    if getattr(column.dtype, "time_zone", None) is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(nw.Datetime("us")).to_numpy().astype("datetime64[us]")


def text_cells(frame: Frame, name: str) -> list[str | None]:
    """A column as strings, None where a cell or the whole column is missing.

    Numbers and truth values are spelled as a text file would ("1", "true"): a category column of "1", "2" and "3+"
    arrives as integers when a small table happens to hold no "3+".
    """
    if name not in frame.schema:
        return [None] * len(frame)
    column = frame[name]
    missing = column.is_null().to_list()
    return [None if gone else _spelled(cell) for cell, gone in zip(column.to_list(), missing, strict=True)]


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first ten of them."""
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def is_moment(dtype: Any) -> bool:
    return dtype == nw.Date or dtype == nw.Datetime


def _spelled(cell: Any) -> str | None:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell)).lower()
    if isinstance(cell, float):
        return None if cell != cell else str(int(cell)) if cell.is_integer() else repr(cell)
    return str(cell)


def _is_number(dtype: Any) -> bool:
    return dtype.is_numeric() or dtype == nw.Boolean


def _refuse_filled(column: nw.Series[Any], expected: str) -> None:
    """Raise for the first cell that is not as expected; a column without any filled cell has none."""
    missing = column.is_null().to_list()
    filled = [(row, cell) for row, (cell, gone) in enumerate(zip(column.to_list(), missing, strict=True)) if not gone]
    if not filled:
        return
    # If every cell can be read as a number, it is the type of the column that is wrong, and any cell shows it.
    row, cell = next(((row, cell) for row, cell in filled if not _reads_as_number(cell)), filled[0])
    raise InputError(
        f"column {column.name!r} should hold {expected}, and row {row} (counting from 0) holds {cell!r} "
        f"(the column's type is {column.dtype}). Convert the column to {expected}, and leave unknown cells empty."
    )


def _reads_as_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _from_array(array: NDArray[Any]) -> Frame:
    if array.ndim != 2:
        raise ShapeError(
            f"a table has 2 dimensions, and this array has shape {array.shape}. "
            "Reshape your data with array.reshape(-1, 1) if it is one column, array.reshape(1, -1) if it is one row."
        )
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: pass the real and the imaginary part as columns of their own.")
    names = [f"x{index}" for index in range(array.shape[1])]
    if array.dtype.kind == "f":
        array = array.astype(np.float64, copy=False)
    if array.dtype.kind in "biuf":
        return nw.from_native(polars.DataFrame(array, schema=names, orient="row"))
    columns = [
        nw.new_series(name, *_cells_and_type(column.tolist()), backend="polars").to_native()
        for name, column in zip(names, array.T, strict=True)
    ]
    return nw.from_native(polars.DataFrame(columns))


def _typed(column: nw.Series[Any]) -> nw.Series[Any]:
    cells, dtype = _cells_and_type(column.to_list())
    if dtype == nw.Boolean and column.implementation.is_pandas_like():
        # NumPy's bool, which pandas would take by default, turns a missing cell into False.
        return nw.from_native(column.to_native().astype("boolean"), series_only=True)
    return nw.new_series(column.name, cells, dtype, backend=column.implementation)


def _cells_and_type(cells: list[Any]) -> tuple[list[Any], Any]:
    """Cells of any Python type, as the one type they share."""
    cells = [None if cell is None or cell != cell else cell for cell in cells]
    filled = [cell for cell in cells if cell is not None]
    if not filled:
        return cells, nw.String()
    if all(isinstance(cell, bool | np.bool_) for cell in filled):
        return cells, nw.Boolean()
    if len(filled) == len(cells) and all(isinstance(cell, Integral) and abs(int(cell)) < 2**63 for cell in cells):
        return [int(cell) for cell in cells], nw.Int64()
    if all(isinstance(cell, Real | Decimal) for cell in filled):
        return [None if cell is None else float(cell) for cell in cells], nw.Float64()
    if all(isinstance(cell, date) for cell in filled):
        return [None if cell is None else _moment(cell) for cell in cells], nw.Datetime("us")
    return [None if cell is None else _spelled(cell) for cell in cells], nw.String()


def _moment(day: date) -> datetime:
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)


def _check_unique(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"more than one column is named {listed(twice)}. Rename them.")
