"""What each column of a table is, and why some are left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from lastlayer.checks import InputError
from lastlayer.preprocessing.frames import Frame, as_frame, is_moment, listed, number_cells

USED = ("numeric", "boolean", "categorical", "date")
LEFT_OUT_UNLESS_KEPT = ("constant", "identifier", "text")
LEFT_OUT = (*LEFT_OUT_UNLESS_KEPT, "empty", "unsupported")

# In fewer rows a column may count up, or never repeat, by accident.
_ENOUGH_ROWS = 20
# "id", "user_id", "customer-id", "PassengerId", "orderID", "uuid"; not "paid", "valid" or "Madrid".
_IDENTIFIER_NAME = re.compile(r"^(id|uuid|guid)$|[^a-z0-9]id$|(?-i:[a-z0-9](Id|ID)$)", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """A column's name, its kind (one of ``USED`` or ``LEFT_OUT``), its missing cells, and why it is left out."""

    name: str
    kind: str
    missing: int = 0
    note: str = ""

    @property
    def used(self) -> bool:
        return self.kind in USED


def describe_columns(frame: Any, *, keep: Collection[str] = ()) -> list[Column]:
    """What each column of a table is, in the table's order.

    Used: ``numeric``, ``boolean`` and ``date`` by their type, ``categorical`` for text that repeats and category types.
    Left out, each with a sentence that says why and what to do:

    - ``empty``: every cell is missing;
    - ``constant``: the same value in every one of at least two rows;
    - ``identifier``: 20 rows or more, integers that count up by 1, or integers or text that never repeat
      under a name such as "id" or "user_id";
    - ``text``: more than 20 different strings, and more than half as many as there are filled cells;
    - ``unsupported``: a type that is none of the above, such as lists.

    ``keep`` names columns to use although they are constant, identifiers (as numbers or categories) or text
    (as categories). Raises ``InputError`` if one of them is not in the table.

    >>> import polars
    >>> [column.kind for column in describe_columns(polars.DataFrame({"a": [1.5, 2.0], "b": ["x", None], "c": [7, 7]}))]
    ['numeric', 'categorical', 'constant']
    """
    frame = as_frame(frame)
    keep = {keep} if isinstance(keep, str) else set(keep)
    unknown = keep.difference(frame.columns)
    if unknown:
        raise InputError(
            f"keep names {listed(sorted(unknown))}, and the table has no such column. It has: {listed(frame.columns)}."
        )

    numbers = _number_facts(frame)
    columns = []
    for name, dtype in frame.schema.items():
        fact = numbers[name] if name in numbers else _other_facts(frame[name])
        kind, why = _reason_to_leave_out(frame, name, dtype, fact)
        if kind and not (name in keep and kind in LEFT_OUT_UNLESS_KEPT):
            columns.append(Column(name, kind, fact.missing, f"{name!r} is left out: {why}"))
        else:
            columns.append(Column(name, _natural_kind(dtype), fact.missing))
    return columns


@dataclass(frozen=True)
class _Facts:
    missing: int
    constant: bool
    counts_up: bool = False


def _number_facts(frame: Frame) -> dict[str, _Facts]:
    """The facts of all numeric columns in a few array operations, because there may be thousands."""
    schema = frame.schema
    names = [name for name, dtype in schema.items() if dtype.is_numeric()]
    if not names or len(frame) == 0:
        return {}
    cells = number_cells(frame, names)
    missing = np.isnan(cells).sum(axis=0)
    constant = (np.fmin.reduce(cells, axis=0) == np.fmax.reduce(cells, axis=0)) & (missing == 0)
    counts_up = np.array([schema[name].is_integer() for name in names]) & (missing == 0)
    counts_up[counts_up] = np.all(np.diff(cells[:, counts_up], axis=0) == 1, axis=0)
    return {
        name: _Facts(int(missing[index]), bool(constant[index]), bool(counts_up[index]))
        for index, name in enumerate(names)
    }


def _other_facts(column: nw.Series[Any]) -> _Facts:
    missing = int(column.null_count())  # pandas counts in NumPy integers, which JSON does not take
    comparable = _natural_kind(column.dtype) != "unsupported"
    return _Facts(missing, constant=comparable and missing == 0 and column.n_unique() == 1)


def _reason_to_leave_out(frame: Frame, name: str, dtype: Any, fact: _Facts) -> tuple[str, str]:
    """The kind that leaves a column out, and the sentence that says so; two empty strings if it is used."""
    rows, kind = len(frame), _natural_kind(dtype)
    filled = rows - fact.missing
    if filled == 0:
        return "empty", "every cell is missing. Fill it in, or remove it."
    if kind == "unsupported":
        return "unsupported", f"{dtype} is not a number, truth value, category or date. Convert it to one."
    if fact.constant and rows > 1:
        return "constant", f"it is {frame[name][0]!r} in every row. To use it all the same: {_kept(name)}."

    integer, text = dtype.is_integer(), dtype == nw.String
    if integer and fact.counts_up and rows >= _ENOUGH_ROWS:
        return "identifier", f"it counts the rows. To use it as a number: {_kept(name)}."
    if not text and not (integer and _IDENTIFIER_NAME.search(name)):
        return "", ""
    values = frame[name].drop_nulls()
    distinct = values.n_unique()
    if _IDENTIFIER_NAME.search(name) and distinct == rows >= _ENOUGH_ROWS:
        use = "categories" if text else "a number"
        return "identifier", f"it names each row, and no value repeats. To use it as {use}: {_kept(name)}."
    if text and distinct > max(_ENOUGH_ROWS, filled / 2):
        seen = f"{distinct} different values in {filled} filled cells, such as {values[0]!r}"
        return "text", f"it is free text ({seen}). To use it as categories: {_kept(name)}."
    return "", ""


def _natural_kind(dtype: Any) -> str:
    """The kind that a type suggests, before its cells are looked at."""
    if dtype.is_numeric():
        return "numeric"
    if dtype == nw.Boolean:
        return "boolean"
    if is_moment(dtype):
        return "date"
    if dtype == nw.String or dtype == nw.Categorical or dtype == nw.Enum:
        return "categorical"
    return "unsupported"


def _kept(name: str) -> str:
    """The option that keeps a column, as it is spelled in Python and for the command."""
    return f"keep=[{name!r}], or --keep {shlex.quote(name)}"
