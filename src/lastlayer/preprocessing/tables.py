"""A table as the float matrix that a network reads."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from lastlayer.checks import InputError, LastLayerWarning, ModelFolderError, ShapeError
from lastlayer.preprocessing.categories import Vocabulary
from lastlayer.preprocessing.columns import USED, Column, describe_columns
from lastlayer.preprocessing.dates import DATE_PARTS, TIME_PARTS, date_parts, parts_of
from lastlayer.preprocessing.frames import Frame, as_frame, is_array, listed, moment_cells, number_cells, text_cells
from lastlayer.preprocessing.scaling import Scaling


class TableEncoder(TransformerMixin, BaseEstimator):
    """Learn from a table how to encode it, and encode it and later ones in the same way.

    Domain: pandas, polars, pyarrow or narwhals tables; 2-D NumPy arrays, whose columns are called x0, x1, ...

    The columns of the result, in this order:

    - ``numeric_width_`` scaled columns: the numeric ones (median for missing, mean 0, standard deviation 1),
      then the parts of each date (see ``dates.py``), treated alike;
    - a 0/1 column for each numeric, date or boolean column that had missing cells in training;
    - the boolean columns as 0/1, the more frequent value for missing;
    - one 0/1 column per category: at most ``max_categories`` per table column, the rarest sharing one of them,
      and one more for missing if training had missing cells.

    What ``describe_columns`` leaves out is left out, unless ``keep`` names it; ``notes_`` says so in sentences.

    Shapes: a table of n rows gives float32 ``(n, width)``, C-contiguous; no rows give ``(0, width)``.

    Numerics: float64 until the last step, finite for every finite table.

    Special cases: in ``transform``, columns may come in any order, and further ones are ignored; an absent column
    counts as missing cells, with a ``LastLayerWarning``; a new category counts as a rare one, and is all zeros if
    training had no rare ones. An array is taken by position, also after training on a table with names.

    Raises: ``InputError`` for a table without rows (``fit``) or without a usable column, for infinite cells, and for
    text in a column that held numbers, truth values or dates in training.

    >>> import polars
    >>> table = polars.DataFrame({"age": [20, 30, None, 30], "town": ["Ulm", "Bonn", "Ulm", None]})
    >>> encoder = TableEncoder().fit(table)
    >>> list(encoder.get_feature_names_out())
    ['age', 'age is missing', 'town=Bonn', 'town=Ulm', 'town is missing']
    >>> print(encoder.transform(table.head(2)).round(1))
    [[-1.7  0.   0.   1.   0. ]
     [ 0.6  0.   1.   0.   0. ]]
    """

    def __init__(self, *, keep: Collection[str] = (), max_categories: int = 64) -> None:
        self.keep = keep
        self.max_categories = max_categories

    # --- learning ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        if not isinstance(self.max_categories, int) or self.max_categories < 2:
            raise InputError(f"max_categories is {self.max_categories!r}; it should be an integer of 2 or more.")
        frame = as_frame(X)
        rows, width = len(frame), len(frame.columns)
        for count, what in ((width, "feature"), (rows, "sample")):
            if count == 0:
                raise InputError(
                    f"the table has 0 {what}(s) (shape=({rows}, {width})) while a minimum of 1 is required."
                )
        columns = describe_columns(frame, keep=self.keep)
        if not any(column.used for column in columns):
            reasons = "\n".join(f"- {column.note}" for column in columns[:10])
            raise InputError(f"none of the {width} columns can be used:\n{reasons}")

        dates = {name: parts_of(moment_cells(frame, name)) for name in _names(columns, "date")}
        numeric, _, truths = _read(frame, columns, dates)
        often_true = np.nanmean(truths, axis=0) >= 0.5
        vocabularies = {
            name: Vocabulary.learn(text_cells(frame, name), self.max_categories)
            for name in _names(columns, "categorical")
        }
        # Only now, so that a table which cannot be learned from leaves what was learned before.
        self._set_columns(columns)
        self.date_parts_ = dates
        self.scaling_ = Scaling.learn(numeric)
        self.frequent_ = dict(zip(_names(columns, "boolean"), often_true.tolist(), strict=True))
        self.vocabularies_ = vocabularies
        return self

    def _set_columns(self, columns: list[Column]) -> None:
        self.columns_ = columns
        self.feature_names_in_ = np.array([column.name for column in columns], dtype=object)
        self.n_features_in_ = len(columns)

    # --- encoding ---------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        frame = self._expected_frame(X)
        numeric, missing, truths = _read(frame, self.columns_, self.date_parts_)
        blocks = [
            self.scaling_.apply(numeric),
            missing[:, self._had_missing()],
            np.where(np.isnan(truths), list(self.frequent_.values()), truths),
            *(vocabulary.apply(text_cells(frame, name)) for name, vocabulary in self.vocabularies_.items()),
        ]
        return np.concatenate(blocks, axis=1, dtype=np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        check_is_fitted(self)
        names = _names(self.columns_, "numeric")
        names += [f"{name} {part}" for name, parts in self.date_parts_.items() for part in parts]
        sources = np.array(_names(self.columns_, "numeric", "date", "boolean"), dtype=object)
        names += [f"{name} is missing" for name in sources[self._had_missing()]]
        names += _names(self.columns_, "boolean")
        for name, vocabulary in self.vocabularies_.items():
            names += vocabulary.feature_names(name)
        return np.array(names, dtype=object)

    def _expected_frame(self, X: Any) -> Frame:
        frame = as_frame(X)
        if is_array(X):
            if len(frame.columns) != self.n_features_in_:
                raise ShapeError(
                    f"X has {len(frame.columns)} features, but TableEncoder is expecting {self.n_features_in_} "
                    "features as input. Pass the columns of training, or a table whose columns have names."
                )
            return frame.rename(dict(zip(frame.columns, self.feature_names_in_, strict=True)))
        used = [column.name for column in self.columns_ if column.used]
        present = set(frame.columns)
        absent = [name for name in used if name not in present]
        if len(absent) == len(used):
            raise InputError(
                f"the table has none of the columns learned from: {listed(used)}. It has: {listed(frame.columns)}."
            )
        if absent:
            message = f"the table has no column {listed(absent)}; all its cells are taken as missing."
            warnings.warn(message, LastLayerWarning, stacklevel=3)
        return frame

    def _had_missing(self) -> NDArray[np.bool_]:
        """Which numeric, date and boolean columns had missing cells in training."""
        missing = {column.name: column.missing for column in self.columns_}
        return np.array([missing[name] > 0 for name in _names(self.columns_, "numeric", "date", "boolean")], dtype=bool)

    # --- what was learned ---------------------------------------------------------------------------------------------

    @property
    def numeric_width_(self) -> int:
        """How many of the first columns of the result are scaled numbers."""
        return len(self.scaling_.mean)

    @property
    def notes_(self) -> list[str]:
        """What a user should know, in sentences: which columns are left out and why, and which categories share one."""
        notes = [column.note for column in self.columns_ if column.note]
        for name, vocabulary in self.vocabularies_.items():
            if vocabulary.rare:
                most = f"the {len(vocabulary.categories)} most frequent categories"
                notes.append(f"{name!r}: {most} have a column each; {vocabulary.rare} rows of others share one.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain, readable, JSON-able data: per column its kind, statistics, categories and counts."""
        check_is_fitted(self)
        statistics = zip(
            self.scaling_.median.tolist(), self.scaling_.mean.tolist(), self.scaling_.scale.tolist(), strict=True
        )
        scaled = [dict(zip(("median", "mean", "scale"), values, strict=True)) for values in statistics]
        learned: dict[str, dict[str, Any]] = dict(zip(_names(self.columns_, "numeric"), scaled, strict=False))
        rest = iter(scaled[len(learned) :])
        for name, parts in self.date_parts_.items():
            learned[name] = {"parts": {part: next(rest) for part in parts}}
        for name, frequent in self.frequent_.items():
            learned[name] = {"frequent": frequent}
        for name, vocabulary in self.vocabularies_.items():
            learned[name] = {"categories": vocabulary.categories, "rare": vocabulary.rare}
        return {
            "keep": [self.keep] if isinstance(self.keep, str) else list(self.keep),
            "max_categories": self.max_categories,
            "columns": [asdict(column) | learned.get(column.name, {}) for column in self.columns_],
        }

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> TableEncoder:
        """The encoder that ``to_dict`` described: it encodes every table bit for bit alike.

        Raises ``ModelFolderError`` if the description is damaged.
        """
        try:
            encoder = cls(keep=description["keep"], max_categories=description["max_categories"])
            entries = description["columns"]
            encoder._set_columns([Column(**{key: entry[key] for key in _COLUMN_FIELDS}) for entry in entries])
            of_kind = {kind: [entry for entry in entries if entry["kind"] == kind] for kind in USED}
            encoder.date_parts_ = {
                entry["name"]: tuple(part for part in DATE_PARTS + TIME_PARTS if part in entry["parts"])
                for entry in of_kind["date"]
            }
            scaled = of_kind["numeric"] + [
                entry["parts"][part] for entry in of_kind["date"] for part in encoder.date_parts_[entry["name"]]
            ]
            encoder.scaling_ = Scaling(
                *(np.array([float(entry[key]) for entry in scaled]) for key in ("median", "mean", "scale"))
            )
            encoder.frequent_ = {entry["name"]: bool(entry["frequent"]) for entry in of_kind["boolean"]}
            encoder.vocabularies_ = {
                entry["name"]: Vocabulary(dict(entry["categories"]), entry["rare"], entry["missing"])
                for entry in of_kind["categorical"]
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(f"the description of a table encoder is damaged: {error!r}.") from error
        return encoder

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


_COLUMN_FIELDS = tuple(field.name for field in fields(Column))


def _names(columns: list[Column], *kinds: str) -> list[str]:
    """Names of columns, kind by kind."""
    return [column.name for kind in kinds for column in columns if column.kind == kind]


def _read(
    frame: Frame, columns: list[Column], dates: dict[str, tuple[str, ...]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Numbers with the parts of dates (not yet scaled), what is missing of each column, and 0/1 for booleans."""
    numeric, boolean = _names(columns, "numeric"), _names(columns, "boolean")
    numbers = number_cells(frame, numeric)
    _refuse(np.isinf(numbers), numbers, numeric, "a finite number")
    truths = number_cells(frame, boolean, expected="true or false")
    _refuse(~np.isin(truths, (0, 1)) & ~np.isnan(truths), truths, boolean, "true or false (1 or 0)")
    moments = [moment_cells(frame, name) for name in dates]
    parts = [date_parts(cells, names) for cells, names in zip(moments, dates.values(), strict=True)]
    missing = np.column_stack([np.isnan(numbers), *map(np.isnat, moments), np.isnan(truths)])
    return np.column_stack([numbers, *parts]), missing, truths


def _refuse(wrong: NDArray[np.bool_], cells: NDArray[np.float64], names: list[str], expected: str) -> None:
    """Raise for the first cell that is marked as wrong."""
    if wrong.any():
        row, index = np.argwhere(wrong)[0]
        raise InputError(
            f"column {names[index]!r} holds {cells[row, index]:g} in row {row} (counting from 0). "
            f"Write {expected} there, or leave the cell empty."
        )
