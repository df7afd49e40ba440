"""Decorrelator and Whitener as scikit-learn's users know transformers: checks, names, copies, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from lastlayer.checks import InputError, KindError, LastLayerError, ShapeError
from lastlayer.preprocessing import Decorrelator, Whitener


def rows_of(n: int, k: int) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    return random.normal(size=(n, k)) @ random.normal(size=(k, k))


@parametrize_with_checks(
    [Decorrelator(), Decorrelator(components=1), Whitener(), Whitener("zca"), Whitener("zca", epsilon=0.1)]
)
def test_scikit_learn_manners(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_names_of_columns() -> None:
    frame = pandas.DataFrame(rows_of(30, 3), columns=["a", "b", "c"])
    assert list(Whitener("zca").fit(frame).get_feature_names_out()) == ["a", "b", "c"]
    assert list(Whitener("pca", components=2).fit(frame).get_feature_names_out()) == ["whitener0", "whitener1"]
    assert list(Decorrelator().set_output(transform="pandas").fit_transform(frame)) == [
        f"decorrelator{place}" for place in range(3)
    ]


def test_a_copy_by_pickle_and_rows_as_tensors_are_the_same() -> None:
    rows = rows_of(30, 3)
    whitener = Whitener().fit(torch.tensor(rows, requires_grad=True))
    assert np.array_equal(pickle.loads(pickle.dumps(whitener)).transform(rows), whitener.transform(torch.tensor(rows)))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (rows_of(1, 3), InputError, "found 1 sample"),
        (np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]]), InputError, "row 1, column 1 of X .* holds nan"),
        (np.array([[1.0, np.inf, 3.0], [1.0, 2.0, 3.0]]), InputError, "row 0, column 1 of X .* holds inf"),
        (np.array([[1e200, 1.0], [-1e200, 1.0]]), InputError, "overflow"),
        (np.array([[1e-155, 1.0], [-1e-155, 1.0]]), InputError, "underflow"),
        (np.ones((2, 8, 8)), ShapeError, r"X.reshape\(len\(X\), -1\) flattens images"),
        (np.ones(3), InputError, "Expected 2D array"),
        (np.array([["a", "b"], ["c", "d"]]), InputError, "could not convert"),
        (np.ones((2, 0)), InputError, r"0 feature\(s\)"),
        (np.ones((0, 2)), InputError, "found 0 sample"),
    ],
)
@pytest.mark.parametrize("transformer", [Decorrelator(), Whitener()], ids=str)
def test_bad_rows_are_refused_and_nothing_is_lost(transformer: Any, rows: Any, error: type, message: str) -> None:
    good = rows_of(30, 3)
    fitted = clone(transformer).fit(good)
    before = fitted.transform(good)
    with pytest.raises(error, match=message) as raised:
        fitted.fit(rows)
    assert isinstance(raised.value, LastLayerError)
    assert np.array_equal(fitted.transform(good), before)


def test_rows_of_other_columns_are_refused() -> None:
    whitener = Whitener().fit(rows_of(30, 3))
    for method in (whitener.transform, whitener.partial_fit):
        with pytest.raises(ShapeError, match="X has 4 features, but Whitener is expecting 3 features"):
            method(rows_of(30, 4))
    with pytest.raises(ShapeError, match=r"X has 2 columns; Whitener.transform gives 3"):
        whitener.inverse_transform(rows_of(30, 2))
    with pytest.raises(ShapeError, match="the other Moments have 4 columns"):
        whitener.merge(Whitener().fit(rows_of(30, 4)))
    with pytest.raises(KindError, match="dense data is required"):
        whitener.fit(csr_array(np.eye(3)))
    frame = pandas.DataFrame(rows_of(30, 3), columns=["a", "b", "c"])
    with pytest.raises(ShapeError, match="feature names should match"):
        Whitener().fit(frame).transform(frame[["c", "b", "a"]])


def test_nothing_is_asked_before_two_rows() -> None:
    rows = rows_of(2, 3)
    for ask in ("transform", "inverse_transform", "merge"):
        with pytest.raises(NotFittedError):
            getattr(Whitener(), ask)(Whitener() if ask == "merge" else rows)
    for empty in (Whitener().partial_fit(rows[:0]), Whitener().partial_fit(rows, sample_weight=[0.0, 0.0])):
        with pytest.raises(NotFittedError):
            empty.to_module()
    one = Whitener().partial_fit(rows[:1])
    with pytest.raises(InputError, match="found 1 sample"):
        one.transform(rows)
    assert one.partial_fit(rows[1:]).transform(rows).shape == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cholesky"}, "kind is 'cholesky'; expected one of 'pca', 'zca'"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"floor": 1.0}, "floor is 1.0"),
        ({"components": 0}, "components is 0"),
        ({"components": 4}, "components is 4; expected None, or a whole number from 1 to the 3 columns"),
        ({"components": 1.5}, "components is 1.5"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Whitener(**options).fit(rows_of(30, 3))
    with pytest.raises(InputError, match=message):
        Whitener(**options).partial_fit(rows_of(30, 3))
