"""Tables into matrices: scikit-learn as the oracle, every kind of frame alike, and bad cells named."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import polars
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lastlayer.checks import InputError, KindError, LastLayerWarning, ModelFolderError, ShapeError
from lastlayer.preprocessing import TableEncoder, describe_columns, read_table
from lastlayer.preprocessing.dates import DATE_PARTS, TIME_PARTS, date_parts

PENGUINS = Path(__file__).parent.parent / "data" / "penguins.csv.gz"
ROWS = 30


def mixed_table() -> polars.DataFrame:
    """A column of every usable type, with and without missing cells."""
    random = np.random.default_rng(0)
    rows = range(ROWS)
    noon = datetime(2020, 1, 1, 12)
    return polars.DataFrame(
        {
            "float": [None if row % 7 == 0 else row * 1.5 for row in rows],
            "integer": random.integers(0, 9, ROWS),
            "square": [None if row % 5 == 0 else row * row for row in rows],
            "decimal": [Decimal(row) / 4 for row in rows],
            "flag": [None if row % 4 == 0 else bool(row % 3) for row in rows],
            "sure": [bool(row % 3) for row in rows],
            "day": [None if row == 3 else date(2020, 1, 1) + timedelta(days=13 * row) for row in rows],
            "moment": [noon + timedelta(hours=13 * row) for row in rows],
            "utc": [noon.replace(tzinfo=timezone.utc) + timedelta(hours=13 * row) for row in rows],
            "text": [None if row % 6 == 0 else "abc"[row % 3] for row in rows],
            "category": polars.Series(["uvw"[row % 3] for row in rows], dtype=polars.Categorical),
            "enum": polars.Series(["uvw"[row % 3] for row in rows], dtype=polars.Enum(["w", "v", "u"])),
        }
    )


def small_table() -> polars.DataFrame:
    return polars.DataFrame({"size": [1, 2, 3], "town": ["Ulm", "Bonn", None], "open": [True, None, False]})


def kinds(table: polars.DataFrame, **options: object) -> dict[str, str]:
    return {column.name: column.kind for column in describe_columns(table, **options)}


# --- what each column is ----------------------------------------------------------------------------------------------


def test_left_out_columns_say_why_and_what_to_do():
    table = polars.DataFrame(
        {
            "row": range(100, 100 + ROWS),
            "orderID": [7 * row % 31 for row in range(ROWS)],
            "user_id": [f"u{row}" for row in range(ROWS)],
            "name": [f"person {row}" for row in range(ROWS)],
            "same": [3] * ROWS,
            "nothing": [None] * ROWS,
            "lists": [[1]] * ROWS,
            "useful": [row % 4 for row in range(ROWS)],
        }
    )
    columns = describe_columns(table)
    assert [column.kind for column in columns] == [
        *("identifier", "identifier", "identifier", "text", "constant", "empty", "unsupported", "numeric"),
    ]
    for column in columns[:-1]:
        assert column.note.startswith(f"{column.name!r} is left out: ")
        assert not column.used
    for column in columns[:5]:
        assert f"keep=[{column.name!r}]" in column.note
    kept = kinds(table, keep=["row", "orderID", "user_id", "name", "same", "nothing"])
    assert list(kept.values())[:6] == ["numeric", "numeric", "categorical", "categorical", "numeric", "empty"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("paid", [7 * row % 31 for row in range(ROWS)]),  # unique integers, under a name that only ends in "id"
        ("user_id", [float(row) for row in range(ROWS)]),
        ("user_id", [row // 2 for row in range(ROWS)]),
        ("row", [*range(ROWS - 1), None]),
        ("index", [0, 2, *range(2, ROWS)]),
    ],
)
def test_numbers_that_are_no_identifiers(name, cells):
    assert kinds(polars.DataFrame({name: cells})) == {name: "numeric"}


def test_small_tables_keep_their_columns():
    table = polars.DataFrame({"id": range(19), "name": [f"person {row}" for row in range(19)]})
    assert kinds(table) == {"id": "numeric", "name": "categorical"}
    assert kinds(polars.DataFrame({"a": [1], "b": ["x"]})) == {"a": "numeric", "b": "categorical"}


def test_text_is_what_rarely_repeats():
    towns = [f"town {row % 42}" for row in range(1000)]
    assert kinds(polars.DataFrame({"a": towns, "b": [f"{row % 501}" for row in range(1000)]})) == {
        "a": "categorical",
        "b": "text",
    }
    sparse = [f"cabin {row}" if row % 20 == 0 else None for row in range(1000)]
    assert kinds(polars.DataFrame({"a": sparse})) == {"a": "text"}
    assert kinds(polars.DataFrame({"a": polars.Series(sparse, dtype=polars.Categorical)})) == {"a": "categorical"}


def test_keep_must_name_columns():
    with pytest.raises(InputError, match="keep names 'nmae', and the table has no such column"):
        describe_columns(small_table(), keep=["nmae"])


# --- the matrix -------------------------------------------------------------------------------------------------------


def test_scikit_learn_gives_the_same_matrix():
    table = read_table(PENGUINS).to_pandas()
    numeric = [name for name in table if pandas.api.types.is_numeric_dtype(table[name])]
    words = [name for name in table if name not in numeric]
    table[words] = table[words].astype(object).where(table[words].notna(), None)
    imputer = SimpleImputer(strategy="median", add_indicator=True).fit(table[numeric])
    indicators = [numeric[index] for index in imputer.indicator_.features_]
    oracle = ColumnTransformer(
        [
            ("scaled", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
            ("missing", make_pipeline(SimpleImputer(strategy="median", add_indicator=True)), numeric),
            ("one-hot", OneHotEncoder(sparse_output=False), words),
        ]
    ).fit_transform(table)
    oracle = np.delete(
        oracle, np.s_[len(numeric) : 2 * len(numeric)], axis=1
    )  # the second, unscaled copy of the numbers
    encoder = TableEncoder()
    matrix = encoder.fit_transform(table)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, oracle.astype(np.float32))
    assert encoder.numeric_width_ == len(numeric)
    names = list(encoder.get_feature_names_out())
    assert names[: len(numeric)] == numeric
    assert names[len(numeric) : len(numeric) + len(indicators)] == [f"{name} is missing" for name in indicators]


def test_rare_categories_are_those_of_scikit_learn():
    letters = np.repeat(list("abcdefgh"), [9, 1, 7, 2, 6, 3, 8, 4])
    table = pandas.DataFrame({"letter": letters})
    oracle = OneHotEncoder(max_categories=4, handle_unknown="infrequent_if_exist", sparse_output=False).fit(table)
    encoder = TableEncoder(max_categories=4).fit(table)
    new = pandas.DataFrame({"letter": ["a", "b", "c", "z", "g"]})
    for frame in (table, new):
        np.testing.assert_array_equal(encoder.transform(frame), oracle.transform(frame).astype(np.float32))
    assert list(encoder.get_feature_names_out()) == ["letter=a", "letter=c", "letter=g", "letter is rare"]
    assert encoder.notes_ == [
        "'letter': the 3 most frequent categories have a column each; 16 rows of others share one."
    ]


def as_pandas_objects(table: polars.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({name: pandas.Series(cells, dtype=object) for name, cells in table.to_dict().items()})


FORMS = {
    "lazy polars": lambda table: table.lazy(),
    "pyarrow": lambda table: table.to_arrow(),
    "pandas": lambda table: table.to_pandas().set_axis(np.arange(ROWS) % 5),
    "pandas of pyarrow": lambda table: table.to_pandas(use_pyarrow_extension_array=True),
    "pandas, nullable": lambda table: table.to_pandas().convert_dtypes(),
    "pandas, objects": as_pandas_objects,
    "reversed": lambda table: table.select(table.columns[::-1]),
    "with more": lambda table: table.with_columns(more=polars.lit("x")),
    "array of objects": lambda table: np.array(table.rows(), dtype=object),
    "rows": lambda table: table.rows(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_gives_the_same_matrix(form):
    table = mixed_table()
    encoder = TableEncoder().fit(table)
    expected = encoder.transform(table)
    given = FORMS[form](table)
    np.testing.assert_array_equal(encoder.transform(given), expected)
    if form not in ("reversed", "with more"):
        np.testing.assert_array_equal(TableEncoder().fit_transform(given), expected)


def test_dates_are_trends_and_cycles():
    encoder = TableEncoder().fit(mixed_table().select("day", "moment"))
    parts = ["days", "year", "year sine", "year cosine", "week sine", "week cosine"]
    names = [f"day {part}" for part in parts]
    names += [f"moment {part}" for part in [*parts, "day sine", "day cosine"]]
    assert list(encoder.get_feature_names_out()) == [*names, "day is missing"]
    assert encoder.numeric_width_ == 14
    matrix = encoder.transform(mixed_table())
    np.testing.assert_allclose(matrix[:, :14].mean(axis=0), 0, atol=1e-6)
    spread = [0 if name == "moment year" else 1 for name in names]  # all moments lie in 2020
    np.testing.assert_allclose(matrix[:, :14].std(axis=0), spread, atol=1e-5)


def test_date_parts_against_the_calendar():
    days = [date(1969, 7, 20), date(1970, 1, 1), date(2024, 2, 29), date(2024, 12, 31)]
    cells = np.array([*days, None], dtype="datetime64[us]") + np.timedelta64(6, "h")
    parts = dict(zip(DATE_PARTS + TIME_PARTS, date_parts(cells, DATE_PARTS + TIME_PARTS).T, strict=True))
    assert all(np.isnan(values[-1]) for values in parts.values())
    assert parts["year"][:-1].tolist() == [day.year for day in days]
    assert parts["days"][:-1].tolist() == [(day - date(1970, 1, 1)).days for day in days]
    week = np.arctan2(parts["week sine"], parts["week cosine"])[:-1] / (2 * np.pi) * 7
    np.testing.assert_allclose(week % 7, [day.weekday() for day in days], atol=1e-9)
    year = np.arctan2(parts["year sine"], parts["year cosine"])[:-1] / (2 * np.pi) % 1
    elapsed = [(day.timetuple().tm_yday - 1 + 0.25) / (366 if day.year == 2024 else 365) for day in days]
    np.testing.assert_allclose(year, elapsed, atol=1e-9)
    np.testing.assert_allclose(parts["day sine"][:-1], 1)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (6, 3), elements=st.floats(allow_infinity=False) | st.just(np.nan)), st.floats(0, 1.7e308))
def test_every_finite_table_gives_a_finite_matrix(cells, wild):
    assume(any(column.used for column in describe_columns(cells)))
    encoder = TableEncoder().fit(cells)
    assert np.isfinite(encoder.transform(cells)).all()
    assert np.isfinite(encoder.transform(np.full((1, 3), -wild))).all()
    again = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    np.testing.assert_array_equal(again.transform(cells), encoder.transform(cells))


@pytest.mark.parametrize("value", [np.finfo(np.float64).max, 5e-324])
def test_the_largest_and_the_smallest_number(value):
    cells = np.array([[value], [np.nan], [value]])
    encoder = TableEncoder().fit(cells)
    assert np.isfinite(encoder.scaling_.mean).all()
    assert encoder.transform(cells)[:, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("exponent", [-1000, -500, 0, 500, 1000])
def test_any_magnitude_is_scaled_alike(exponent):
    cells = np.random.default_rng(0).normal(size=(ROWS, 2))
    expected = TableEncoder().fit_transform(cells)
    np.testing.assert_array_equal(TableEncoder().fit_transform(np.ldexp(cells, exponent)), expected)


# --- saving -----------------------------------------------------------------------------------------------------------


def test_json_round_trip_is_bit_identical_and_readable():
    table = mixed_table()
    encoder = TableEncoder(keep=["float"], max_categories=2).fit(table.to_pandas())
    description = encoder.to_dict()
    again = TableEncoder.from_dict(json.loads(json.dumps(description, sort_keys=True)))
    assert again.transform(table).tobytes() == encoder.transform(table).tobytes()
    assert again.to_dict() == description
    assert again.columns_ == encoder.columns_
    assert again.notes_ == encoder.notes_
    assert list(again.get_feature_names_out()) == list(encoder.get_feature_names_out())
    assert again.get_params() == {"keep": ["float"], "max_categories": 2}
    columns = {column["name"]: column for column in description["columns"]}
    assert columns["float"]["median"] == table["float"].median()
    assert columns["float"]["missing"] == table["float"].null_count()
    assert columns["text"] == {
        "name": "text",
        "kind": "categorical",
        "missing": 5,
        "note": "",
        "categories": {"b": 10},
        "rare": 15,
    }


@pytest.mark.parametrize("path", ["keep", "columns", "columns/0/median", "columns/1/categories", "columns/2/frequent"])
def test_a_damaged_description_is_an_error(path):
    description = TableEncoder().fit(small_table()).to_dict()
    *way, last = path.split("/")
    part = description
    for step in way:
        part = part[int(step)] if isinstance(part, list) else part[step]
    del part[last]
    with pytest.raises(ModelFolderError, match=f"damaged.*{last}"):
        TableEncoder.from_dict(description)


# --- at prediction ----------------------------------------------------------------------------------------------------


def test_new_and_missing_categories():
    encoder = TableEncoder().fit(polars.DataFrame({"town": ["Ulm", "Bonn"]}))
    assert encoder.transform(polars.DataFrame({"town": ["Köln", None, "Ulm"]})).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_categories_that_look_like_numbers_or_truth_values():
    table = polars.DataFrame({"count": ["1", "2", "3+"], "known": ["TRUE", "FALSE", "maybe"]})
    encoder = TableEncoder().fit(table)
    expected = encoder.transform(table)[:2]
    narrowed = polars.DataFrame({"count": [1, 2], "known": [True, False]})
    np.testing.assert_array_equal(encoder.transform(narrowed), expected)
    np.testing.assert_array_equal(encoder.transform(narrowed.cast({"count": polars.Float64})), expected)


def test_booleans_as_zeros_and_ones_and_integers_as_floats():
    encoder = TableEncoder().fit(small_table())
    expected = encoder.transform(small_table())
    other = small_table().cast({"size": polars.Float32, "open": polars.Int8})
    np.testing.assert_array_equal(encoder.transform(other), expected)


def test_absent_columns_count_as_missing_cells():
    encoder = TableEncoder().fit(small_table())
    cleared = small_table().with_columns(size=None, open=None)
    expected = encoder.transform(cleared)
    with pytest.warns(LastLayerWarning, match="no column 'size', 'open'; all its cells are taken as missing"):
        matrix = encoder.transform(small_table().select("town"))
    np.testing.assert_array_equal(matrix, expected)
    with pytest.raises(InputError, match=r"none of the columns learned from: 'size', 'town', 'open'\. It has: 'other'"):
        encoder.transform(polars.DataFrame({"other": [1]}))


def test_no_rows_give_no_rows():
    encoder = TableEncoder().fit(small_table())
    width = len(encoder.get_feature_names_out())
    assert encoder.transform(small_table().head(0)).shape == (0, width)
    assert encoder.transform(pandas.DataFrame({"size": [], "town": [], "open": []})).shape == (0, width)
    assert encoder.transform(np.empty((0, 3))).shape == (0, width)


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("size", ["1", None, "12 m"], r"'size' should hold numbers, and row 2 \(counting from 0\) holds '12 m'"),
        ("size", ["1", "2", "3"], r"'size' should hold numbers, and row 0 .* holds '1' \(.*String\)"),
        ("size", [1.0, -np.inf, 2.0], r"'size' holds -inf in row 1 .*finite number"),
        ("size", [None, date(2024, 1, 1), None], r"'size' should hold numbers, and row 1 .*2024"),
        ("open", ["yes", "no", None], r"'open' should hold true or false, and row 0 .* holds 'yes'"),
        ("open", [0, 1, 2], r"'open' holds 2 in row 2 .*true or false"),
    ],
)
@pytest.mark.parametrize("form", ["polars", "pandas"])
def test_cells_of_another_kind_are_named(column, cells, message, form):
    encoder = TableEncoder().fit(small_table())
    table = small_table().with_columns(polars.Series(column, cells))
    with pytest.raises(InputError, match=message):
        encoder.transform(table if form == "polars" else table.to_pandas())


def test_numbers_in_a_date_column_are_refused():
    table = polars.DataFrame({"day": [date(2024, 1, 1), date(2024, 5, 1)]})
    encoder = TableEncoder().fit(table)
    with pytest.raises(InputError, match=r"'day' should hold dates, and row 0 .* holds 20240101"):
        encoder.transform(polars.DataFrame({"day": [20240101, 20240102]}))
    assert encoder.transform(polars.DataFrame({"day": [None]})).shape == (1, 6)


# --- tables that cannot be learned from -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (small_table().head(0), InputError, r"0 sample\(s\)"),
        (np.empty((3, 0)), InputError, r"0 feature\(s\)"),
        (np.ones(3), ShapeError, r"2 dimensions, and this array has shape \(3,\)"),
        (polars.Series([1]), ShapeError, "2 dimensions"),
        ({"a": [1]}, KindError, "a dict is not a table"),
        (polars.DataFrame({"a": [1.0, np.inf]}), InputError, r"'a' holds inf in row 1"),
        (pandas.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]), InputError, "more than one column is named 'a'"),
        (pandas.DataFrame([[1, 2]], columns=[1, "1"]), InputError, "more than one column is named '1'"),
        (
            polars.DataFrame({"a": [None, None], "b": [1, 1]}),
            InputError,
            "(?s)none of the 2 .*'a' is left.*'b' is left",
        ),
    ],
)
def test_tables_that_cannot_be_learned_from(table, error, message):
    with pytest.raises(error, match=message):
        TableEncoder().fit(table)


def test_a_table_that_cannot_be_learned_from_loses_nothing():
    encoder = TableEncoder().fit(small_table())
    before = encoder.to_dict()
    for bad in ({"a": [1.0, np.inf]}, {"a": [None]}, {"a": [1, 1], "b": [[1], [2]]}):
        with pytest.raises(InputError):
            encoder.fit(polars.DataFrame(bad))
    assert encoder.to_dict() == before


def test_options_and_order_of_use_are_checked():
    with pytest.raises(InputError, match="max_categories is 1; it should be an integer of 2 or more"):
        TableEncoder(max_categories=1).fit(small_table())
    with pytest.raises(NotFittedError):
        TableEncoder().transform(small_table())
    with pytest.raises(ShapeError, match="X has 2 features, but TableEncoder is expecting 3"):
        TableEncoder().fit(small_table()).transform(np.ones((1, 2)))


@parametrize_with_checks([TableEncoder()])
def test_scikit_learn_manners(estimator, check):
    check(estimator)
