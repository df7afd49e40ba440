"""Targets as users have them, and the head that is chosen for each."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer import choose_head, heads
from lastlayer.checks import InputError
from lastlayer.heads.targets import present_values

RNG = np.random.default_rng(0)
OF_REAL = ["laplace", "gaussian:predicted", "student_t", "mixture:5"]


def _chosen(target: object, **options: object) -> heads.Choice:
    """The choice, whose words must hang together whatever the target."""
    choice = choose_head(target, **options)
    name = choice.head.facts.name
    assert name in choice.problem.heads
    assert name not in choice.alternatives
    assert {text.partition(":")[0] for text in choice.alternatives} - {"auto"} <= set(heads.catalog())
    assert choice.reason.endswith(".")
    for alternative, when in choice.alternatives.items():
        assert f"head={alternative!r}: {when}" in choice.override
    if not choice.alternatives:
        assert choice.override == "No other head fits this target."
    return choice


THREE_STRINGS = {
    "list": ["a", "b", "c"] * 5,
    "tuple": ("a", "b", "c") * 5,
    "list with None": ["a", "b", "c", None] * 5,
    "numpy str": np.array(["a", "b", "c"] * 5),
    "numpy object with None": np.array(["a", "b", "c", None] * 5, dtype=object),
    "numpy object with NaN": np.array(["a", "b", "c", float("nan")] * 5, dtype=object),
    "numpy column": np.array([["a"], ["b"], ["c"]] * 5),
    "list of rows": [["a"], ["b"], ["c"]] * 5,
    "pandas object": pd.Series(["a", "b", "c", None] * 5, dtype=object),
    "pandas string": pd.Series(["a", "b", "c", pd.NA] * 5, dtype="string"),
    "pandas categorical": pd.Series(["a", "b", "c", None] * 5, dtype="category"),
    "pandas index": pd.Index(["a", "b", "c"] * 5),
    "pandas frame": pd.DataFrame({"y": ["a", "b", "c", None] * 5}),
    "list with NA": ["a", "b", "c", pd.NA] * 5,
    "polars string": pl.Series(["a", "b", "c", None] * 5),
    "polars categorical": pl.Series(["a", "b", "c", None] * 5, dtype=pl.Categorical),
    "polars enum": pl.Series(["a", "b", "c"] * 5, dtype=pl.Enum(["a", "b", "c"])),
    "polars frame": pl.DataFrame({"y": ["a", "b", "c", None] * 5}),
    "pyarrow string": pa.chunked_array([["a", "b", "c", None] * 5]),
    "pyarrow dictionary": pa.chunked_array([pa.array(["a", "b", "c", None] * 5).dictionary_encode()]),
}


@pytest.mark.parametrize("target", THREE_STRINGS.values(), ids=THREE_STRINGS)
def test_a_few_strings_are_classes(target):
    choice = _chosen(target, name="animal")
    assert choice.head == heads.Categorical(classes=3)
    assert choice.reason == "'animal' holds 3 distinct strings, so exactly one of several classes."
    assert choice.alternatives == {}
    assert choice.warnings == ()
    assert choice.problem.loss == "cross-entropy"
    assert choice.problem.activation == "softmax"


TWO_VALUES = {
    "strings": (["no", "yes"] * 5, "no and yes", False),
    "strings with None": (["no", "yes", None] * 5, "no and yes", False),
    "bools": ([True, False] * 5, "False and True", False),
    "bools with None": ([True, False, None] * 5, "False and True", False),
    "numpy bools": (np.array([True, False] * 5), "False and True", False),
    "pandas boolean": (pd.Series([True, False, pd.NA] * 5, dtype="boolean"), "False and True", False),
    "polars bools": (pl.Series([True, False, None] * 5), "False and True", False),
    "pyarrow bools": (pa.chunked_array([[True, False, None] * 5]), "False and True", False),
    "torch bools": (torch.tensor([True, False] * 5), "False and True", False),
    "integers": ([0, 1] * 5, "0 and 1", True),
    "other integers": ([7, 5] * 5, "5 and 7", True),
    "torch integers": (torch.tensor([0, 1] * 5), "0 and 1", True),
    "floats": ([0.5, 1.5] * 5, "0.5 and 1.5", True),
    "floats with NaN": (np.array([0.0, 1.0, np.nan] * 5), "0.0 and 1.0", True),
    "nullable integers": (pd.Series([0, 1, pd.NA] * 5, dtype="Int64"), "0 and 1", True),
}


@pytest.mark.parametrize(("target", "values", "numeric"), TWO_VALUES.values(), ids=TWO_VALUES)
def test_two_values_are_binary(target, values, numeric):
    choice = _chosen(target)
    assert choice.head == heads.Bernoulli()
    assert choice.reason == f"'target' holds two values, {values}, so one of two classes."
    assert list(choice.alternatives) == (["gaussian"] if numeric else [])
    assert choice.warnings == ()
    assert choice.problem.loss == "binary cross-entropy"


FEW_INTEGERS = {
    "list": [1, 2, 3] * 10,
    "list with None": [1, 2, 3, None] * 10,
    "list of numpy integers with None": [np.int64(1), np.int64(2), None, np.int32(3)] * 10,
    "numpy int8": np.array([1, 2, 3] * 10, dtype=np.int8),
    "numpy uint64": np.array([1, 2, 3] * 10, dtype=np.uint64),
    "pandas": pd.Series([1, 2, 3] * 10),
    "pandas nullable": pd.Series([1, 2, 3, pd.NA] * 10, dtype="Int64"),
    "pandas object": pd.Series([1, 2, 3, None] * 10, dtype=object),
    "pandas categorical": pd.Series([1, 2, 3] * 10, dtype="category"),
    "polars": pl.Series([1, 2, 3, None] * 10),
    "polars uint8": pl.Series([1, 2, 3] * 10, dtype=pl.UInt8),
    "pyarrow": pa.chunked_array([[1, 2, 3, None] * 10]),
    "torch": torch.tensor([1, 2, 3] * 10),
}


@pytest.mark.parametrize("target", FEW_INTEGERS.values(), ids=FEW_INTEGERS)
def test_a_few_whole_numbers_are_classes_and_may_be_a_quantity(target):
    choice = _chosen(target)
    assert choice.head == heads.Categorical(classes=3)
    assert "3 distinct whole numbers, 1 to 3, about 10 rows each" in choice.reason
    assert "could also be a quantity" in choice.reason
    assert list(choice.alternatives) == ["ordinal", "gaussian", "laplace", "negative_binomial"]


def test_wine_quality():
    """Grades 3 to 9, many rows each: classes, and the reader is told how to have a quantity."""
    choice = _chosen(RNG.choice(np.arange(3, 10), p=[0.01, 0.04, 0.33, 0.44, 0.13, 0.04, 0.01], size=4898), name="q")
    assert choice.head == heads.Categorical(classes=7)
    assert "7 distinct whole numbers, 3 to 9" in choice.reason
    assert "about 700 rows each" in choice.reason
    assert "head='gaussian'" in choice.override
    assert "2 lies between 1 and 3" in choice.override


def test_how_many_whole_numbers_are_too_many():
    assert _chosen(np.tile(np.arange(20), 5)).head == heads.Categorical(classes=20)
    assert _chosen(np.tile(np.arange(21), 5)).head == heads.Gaussian()
    # Four rows each are too few to learn a class from.
    assert _chosen(np.tile(np.arange(20), 4)).head == heads.Gaussian()
    choice = _chosen(np.tile(np.arange(21), 5))
    assert choice.reason == (
        "'target' holds 21 distinct whole numbers in 105 rows, too many to be classes, so a quantity."
    )
    assert list(choice.alternatives) == [*OF_REAL, "negative_binomial", "categorical", "auto"]
    assert "negative_binomial" not in _chosen(np.tile(np.arange(-10, 11), 5)).alternatives


REAL = {
    "list": [0.5, 2.5, None, 7.25],
    "list of numpy floats": [np.float32(0.5), None, np.float64(2.5), np.float64(9.0)],
    "numpy float16": np.array([0.5, 2.5, 9.0], dtype=np.float16),
    "numpy NaN": np.array([0.5, np.nan, 2.5, 9.0]),
    "pandas": pd.Series([0.5, None, 2.5, 9.0]),
    "pandas nullable": pd.Series([0.5, pd.NA, 2.5, 9.0], dtype="Float64"),
    "pandas frame": pd.DataFrame({"y": [0.5, 2.5, 9.0]}),
    "polars null and NaN": pl.Series([0.5, None, float("nan"), 2.5, 9.0]),
    "pyarrow": pa.chunked_array([[0.5, None], [2.5, 9.0]]),
    "torch": torch.tensor([0.5, 2.5, 9.0]),
    "torch column with gradient": torch.tensor([[0.5], [2.5], [9.0]], requires_grad=True),
    "mixed whole and real": [1, 2.5, 9],
}


@pytest.mark.parametrize("target", REAL.values(), ids=REAL)
def test_other_numbers_are_a_real_quantity(target):
    choice = _chosen(target)
    assert choice.head == heads.Gaussian()
    assert choice.reason == "'target' holds 3 distinct numbers, so a real quantity."
    assert list(choice.alternatives) == [*OF_REAL, "gamma", "auto"]
    assert "outliers" in choice.alternatives["laplace"]
    assert choice.problem.activation == "none"


def test_whole_numbers_stored_as_decimals_are_said_to_be_whole():
    choice = _chosen([1.0, 2.0, 3.0] * 20)
    assert choice.head == heads.Gaussian()
    assert "They are whole, so they could be classes" in choice.reason
    assert "categorical" in choice.alternatives


def test_many_real_numbers_are_no_classes():
    assert list(_chosen(RNG.normal(size=100)).alternatives) == [*OF_REAL, "auto"]


def test_numbers_between_zero_and_one_may_be_shares():
    for target in (RNG.random(100), np.append(RNG.random(100), [0.0, 1.0])):
        choice = _chosen(target)
        assert choice.head == heads.Gaussian()
        assert choice.reason.endswith("so a real quantity. All of them lie in [0, 1].")
        assert "a proportion" in choice.alternatives["unit_interval"]
    for target in (np.append(RNG.random(100), 1.01), np.append(RNG.random(100), -0.01)):
        assert "unit_interval" not in _chosen(target).alternatives


LABELS = {
    "lists": [[1, 0], [0, 1], [1, 1]],
    "numpy bools": np.array([[True, True], [False, False]]),
    "numpy floats": np.array([[1.0, 1.0], [0.0, 0.0]]),
    "pandas": pd.DataFrame({"a": [1, 0, 1], "b": [0, 1, 1]}),
    "pandas nullable": pd.DataFrame({"a": pd.array([True, pd.NA, False], dtype="boolean"), "b": [True, False, False]}),
    "polars": pl.DataFrame({"a": [True, False], "b": [True, False]}),
    "pyarrow": pa.table({"a": [1, 0], "b": [1, 0]}),
    "torch": torch.tensor([[1, 0], [0, 0], [0, 1]]),
}


@pytest.mark.parametrize("target", LABELS.values(), ids=LABELS)
def test_columns_of_zero_and_one_are_labels(target):
    choice = _chosen(target, name="tags")
    assert choice.head == heads.MultiLabel(labels=2)
    assert choice.reason == "'tags' is 2 columns of 0 and 1, so any number of 2 labels can hold at once."
    assert choice.warnings == ()
    assert choice.problem.activation == "sigmoid per label"


def test_one_label_in_every_row_looks_like_classes():
    (warning,) = _chosen([[1, 0, 0], [0, 0, 1], [0, 1, 0]]).warnings
    assert "every row has exactly one label" in warning
    assert "one column of classes" in warning


def test_a_label_that_never_changes_is_pointed_out():
    assert _chosen([[1, 0, 0], [1, 1, 0]]).warnings == ("'target': column 0, column 2 never changes.",)


@pytest.mark.parametrize(
    "target",
    [RNG.random((5, 3)), [["x", "y"], ["y", "x"]], np.array([[0, 1], [1, 2]]), pd.DataFrame({"a": [1.5], "b": [0.0]})],
    ids=["real", "strings", "classes", "frame"],
)
def test_several_columns_of_anything_else_are_an_error(target):
    with pytest.raises(InputError, match=r"'y' is \d columns, and not all of them hold 0 and 1 only.*one model per"):
        choose_head(target, name="y")


@pytest.mark.parametrize("target", [["a"] * 5 + ["b"] * 5 + ["c"], [0] * 9 + [1], [0] * 20 + [1] * 20 + [2]])
def test_a_class_of_a_single_row_is_pointed_out(target):
    (warning,) = _chosen(target, name="y").warnings
    assert f"'y': class {target[-1]} has a single row" in warning
    assert "merge it with another class" in warning


CONSTANT = ([5] * 4, ["a"] * 3, [True, None, True], [1.2], np.array([2.0, np.nan]), pl.Series([None, "x", "x"]))


@pytest.mark.parametrize("target", CONSTANT, ids=repr)
def test_a_constant_target_is_an_error(target):
    with pytest.raises(InputError, match=r"'y' is constant: every row is .*nothing to learn"):
        choose_head(target, name="y")


MISSING = ([None, None], [np.nan] * 3, np.full(3, np.nan), pl.Series([None, None]), pd.Series([pd.NA], dtype="Int64"))


@pytest.mark.parametrize("target", [*MISSING, [], np.array([])], ids=repr)
def test_a_target_without_values_is_an_error(target):
    with pytest.raises(InputError, match=rf"'y' holds no value in any of its {len(target)} rows"):
        choose_head(target, name="y")


DATES = {
    "numpy": np.arange("2020-01-01", "2020-02-01", dtype="datetime64[D]"),
    "list of numpy": list(np.arange("2020-01-01", "2020-02-01", dtype="datetime64[D]")),
    "list of dates": [datetime.date(2020, 1, day) for day in range(1, 29)],
    "a few dates, often": [datetime.date(2020, 1, day) for day in range(1, 4)] * 20,
    "two dates": [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), None],
    "list of times": [datetime.datetime(2020, 1, day, tzinfo=datetime.timezone.utc) for day in range(1, 29)],
    "pandas": pd.Series(pd.date_range("2020", "2021", periods=30)),
    "pandas with a zone": pd.Series(pd.date_range("2020", "2021", periods=30, tz="UTC")),
    "polars date": pl.Series([datetime.date(2020, 1, day) for day in range(1, 29)]),
    "polars frame": pl.DataFrame({"y": [datetime.datetime(2020, 1, day) for day in range(1, 29)]}),
    "pyarrow": pa.chunked_array([pa.array([datetime.date(2020, 1, day) for day in range(1, 29)])]),
}


@pytest.mark.parametrize("target", DATES.values(), ids=DATES)
def test_dates_are_an_error_that_says_what_to_do(target):
    with pytest.raises(InputError, match=r"'y' holds dates\. Turn them into a number first"):
        choose_head(target, name="y")


def test_row_numbers_are_an_identifier():
    for target in (np.arange(100), RNG.permutation(100) + 5000, pl.Series(range(100)), range(20)):
        with pytest.raises(InputError, match=r"'id' numbers the rows: \d+ different whole numbers without a gap"):
            choose_head(target, name="id")
    with pytest.raises(InputError, match=r"head='gaussian' \(--head gaussian\) if it is a quantity after all"):
        choose_head(np.arange(100))
    # With a gap, or with few rows, nothing tells an identifier from a quantity.
    assert _chosen(np.append(np.arange(99), 200)).head == heads.Gaussian()
    assert _chosen(np.arange(19)).head == heads.Gaussian()


def test_too_many_different_texts_are_an_error():
    target = [f"user {number}" for number in range(60)] + ["guest"] * 40
    with pytest.raises(InputError, match=r"'who' holds 61 different texts in 100 rows: an identifier or free text"):
        choose_head(target, name="who")
    assert _chosen(["a", "b"] * 11 + [f"user {number}" for number in range(18)]).head == heads.Categorical(classes=20)
    assert _chosen([f"user {number}" for number in range(19)]).head == heads.Categorical(classes=19)


def test_an_infinite_value_is_an_error():
    for infinite in (np.inf, -np.inf):
        with pytest.raises(InputError, match="'y' holds an infinite value"):
            choose_head([1.5, 2.5, infinite], name="y")


@pytest.mark.parametrize("target", [3, "abc", np.zeros((3, 2, 2)), [[1, 0], [0]], {"a": 1}], ids=repr)
def test_what_is_no_column_is_an_input_error(target):
    with pytest.raises(InputError, match=r"expected one column|rows differ in length"):
        choose_head(target)


def test_every_problem_of_the_lecture_has_its_head():
    """SPEC A1–A5, source S1 "Cost and Last Layer Activation Functions"."""
    assert {name for row in heads.PROBLEM_TYPES for name in row.heads} <= set(heads.catalog())
    assert [(row.problem, row.activation, row.loss) for row in heads.PROBLEM_TYPES] == [
        ("binary classification", "sigmoid", "binary cross-entropy"),
        ("multiclass, single-label classification", "softmax", "cross-entropy"),
        ("multiclass, multilabel classification", "sigmoid per label", "binary cross-entropy"),
        ("regression to arbitrary values", "none", "squared error or absolute error"),
        ("regression to values between 0 and 1", "sigmoid", "binary cross-entropy or squared error"),
    ]


_CELLS = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40))),
    st.lists(st.one_of(st.none(), st.floats())),
    st.lists(st.one_of(st.none(), st.text(max_size=3))),
    st.lists(st.one_of(st.none(), st.booleans())),
    st.lists(st.one_of(st.none(), st.integers(0, 9), st.floats(0, 1), st.text(max_size=2), st.booleans())),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1))),
)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(target=_CELLS, seed=st.integers(0, 1000))
def test_any_list_gives_a_choice_or_an_error_of_the_family_in_any_order(target, seed):
    shuffled = [target[index] for index in np.random.default_rng(seed).permutation(len(target))]
    try:
        choice = _chosen(target)
    except InputError:
        with pytest.raises(InputError):
            choose_head(shuffled)
    else:
        assert choose_head(shuffled) == choice


@settings(deadline=None, max_examples=60, derandomize=True)
@given(values=st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1))
def test_every_library_s_column_gives_the_same_values(values):
    expected = [value for value in values if value is not None]
    mask = [value is not None for value in values]
    for column in (
        values,
        np.array(values, dtype=object),
        pd.Series(values, dtype="Int64"),
        pd.Series(values, dtype=object),
        pl.Series(values, dtype=pl.Int64),
        pa.chunked_array([pa.array(values, type=pa.int64())]),
    ):
        present, there = present_values(column)
        assert present.tolist() == expected
        assert there.tolist() == mask
        assert present.dtype.kind == "i" or not expected
