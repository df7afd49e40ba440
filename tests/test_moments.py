"""Moments of rows that come in batches: NumPy's of all rows at once as the oracle, and wrong ways that are caught."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from copy import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.preprocessing import Moments, moments

Floats = NDArray[np.float64]

# Where to cut 40 rows into batches; the same place twice is an empty batch.
CUTS = st.lists(st.integers(0, 40), max_size=12).map(sorted)


def batches(rows: Floats, cuts: list[int]) -> list[Floats]:
    return np.split(rows, cuts)


def table(n: int = 40, k: int = 3, *, mean: float = 5.0, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, k)) @ random.normal(size=(k, k)) + mean


# --- right, however the rows come -------------------------------------------------------------------------------------


@given(cuts=CUTS, weighted=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_partition_gives_the_moments_of_all_rows(cuts: list[int], weighted: bool, seed: int) -> None:
    rows = table(seed=seed)
    weight = np.random.default_rng(seed).choice([0.0, 0.25, 1.0, 7.0], size=40) if weighted else np.ones(40)
    found, spread = Moments("covariance"), Moments("variance")
    for batch, batch_weight in zip(batches(rows, cuts), batches(weight, cuts), strict=True):
        found.partial_fit(batch, batch_weight if weighted else None)
        spread.partial_fit(batch, batch_weight if weighted else None)
    assert found.rows == np.count_nonzero(weight)
    assert found.weight == pytest.approx(weight.sum())
    np.testing.assert_allclose(found.mean, np.average(rows, axis=0, weights=weight), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T, aweights=weight, bias=True), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(spread.variance, np.diagonal(found.covariance), rtol=1e-12)
    assert np.array_equal(found.covariance, found.covariance.T)


@given(cuts=CUTS)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_workers_that_merge_know_what_one_would(cuts: list[int]) -> None:
    rows = table()
    workers = [Moments("covariance").partial_fit(batch) for batch in batches(rows, cuts)]
    first, *others = workers
    before = [copy(worker) for worker in others]
    for worker in others:
        assert first.merge(worker) is first
    assert first.rows == 40
    np.testing.assert_allclose(first.mean, rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(first.covariance, np.cov(rows.T, bias=True), rtol=1e-11)
    assert [worker._sums for worker in others] == [worker._sums for worker in before]


def test_without_spread_the_mean_is_all_there_is() -> None:
    rows = table()
    found = Moments("none").partial_fit(rows[:7]).merge(Moments("none").partial_fit(rows[7:]))
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13)
    with pytest.raises(InputError, match=r"Fix: Moments\('variance'\)"):
        found.variance  # noqa: B018
    with pytest.raises(InputError, match=r"Fix: Moments\('covariance'\)"):
        Moments("variance").partial_fit(rows).covariance  # noqa: B018


def test_a_weight_is_that_many_rows_and_a_common_factor_none_of_the_weights() -> None:
    rows, weight = table(), np.arange(40) % 4
    found = Moments("covariance").partial_fit(rows, weight)
    repeated = Moments("covariance").partial_fit(rows.repeat(weight, axis=0))
    scaled = Moments("covariance").partial_fit(rows, weight * 1e-9)
    for other in (repeated, scaled):
        np.testing.assert_allclose(found.mean, other.mean, rtol=1e-13)
        np.testing.assert_allclose(found.covariance, other.covariance, rtol=1e-11)


# --- numerics, and the ways that fail ---------------------------------------------------------------------------------


def exact_variance(column: Floats) -> float:
    """In rational numbers."""
    values = [Fraction(float(value)) for value in column]
    mean = sum(values) / len(values)
    return float(sum((value - mean) ** 2 for value in values) / len(values))


def streamed(rows: Floats, size: int) -> Floats:
    found = Moments("variance")
    for start in range(0, len(rows), size):
        found.partial_fit(rows[start : start + size])
    return found.variance


def mean_of_squares(rows: Floats, size: int) -> Floats:
    """Wrong: E[x²] − E[x]², which cancels."""
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for start in range(0, len(rows), size):
        total += rows[start : start + size].sum(axis=0)
        squares += np.square(rows[start : start + size]).sum(axis=0)
    return squares / len(rows) - (total / len(rows)) ** 2


def mean_of_variances(rows: Floats, size: int) -> Floats:
    """Wrong: the batches' variances without the distance of their means."""
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return np.average([part.var(axis=0) for part in parts], axis=0, weights=[len(part) for part in parts])


def relative_error(variance: Callable[[Floats, int], Floats], size: int, *, mean: float) -> float:
    rows = np.random.default_rng(0).normal(size=(2000, 1)) + mean
    return abs(variance(rows, size)[0] / exact_variance(rows[:, 0]) - 1)


@pytest.mark.parametrize("size", [1, 7, 2000])
@pytest.mark.parametrize("mean", [0.0, 1e6, -1e12])
def test_the_variance_keeps_its_digits_beside_a_mean_of_any_size(size: int, mean: float) -> None:
    assert relative_error(streamed, size, mean=mean) < 1e-12


@pytest.mark.parametrize("size", [1, 7, 2000])
def test_the_wrong_ways_are_caught(size: int) -> None:
    assert relative_error(mean_of_squares, size, mean=1e6) > 1e-7
    if size < 2000:
        assert relative_error(mean_of_variances, size, mean=0.0) > 0.05


@pytest.mark.parametrize("place", [0, 1999])
def test_an_outlier_does_no_harm_wherever_it_stands(place: int) -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 1))
    rows[place] = 1e9
    for size in (1, 2000):
        assert streamed(rows, size)[0] == pytest.approx(exact_variance(rows[:, 0]), rel=1e-12)


@given(value=st.floats(-1e200, 1e200), cuts=CUTS)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_a_constant_column_has_no_variance_at_all(value: float, cuts: list[int]) -> None:
    found = Moments("covariance")
    for batch in batches(np.column_stack([np.full(40, value), np.arange(40)]), cuts):
        found.merge(Moments("covariance").partial_fit(batch))
    assert found.mean[0] == value
    assert found.covariance[0].tolist() == [0.0, 0.0]
    assert found.constant.tolist() == [True, False]


def test_a_column_that_differs_by_rounding_alone_counts_as_constant() -> None:
    rows = np.array([[0.1 + 0.2, 0.3 + 1e-9], [0.3, 0.3]])
    assert Moments().partial_fit(rows).constant.tolist() == [True, False]


def test_a_batch_is_never_copied_whole_to_float64() -> None:
    rows = np.zeros((1_000_000, 10), dtype=np.uint8)
    tracemalloc.start()
    Moments("variance").partial_fit(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 8 * rows.size


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float16, np.float32, np.int64, ">f8"])
def test_numbers_of_any_dtype(dtype: str) -> None:
    rows = np.array([[0, 1], [1, 1], [1, 0]], dtype=dtype)
    np.testing.assert_allclose(Moments().partial_fit(rows).variance, [2 / 9, 2 / 9])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_too(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    found = Moments().partial_fit(rows, torch.tensor([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found.variance, [0.25, 0.25])


# --- what cannot be counted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "weight", "error", "message"),
    [
        ([[1.0, np.nan]], None, InputError, "row 0, column 1 .* holds nan"),
        ([[1.0, 1.0], [np.inf, 1.0]], None, InputError, "row 1, column 0 .* holds inf"),
        ([[1e200, 0.0], [-1e200, 0.0]], None, InputError, "overflow"),
        ([[1.0, 2.0, 3.0]], None, ShapeError, "3 columns; those before had 2"),
        ([1.0, 2.0], None, ShapeError, r"expected \(rows, columns\)"),
        ([["a", "b"]], None, KindError, "must be real numbers"),
        ([[1j, 2j]], None, KindError, "must be real numbers"),
        ([[1.0, 2.0]], [1.0, 1.0], ShapeError, r"expected \(1,\)"),
        ([[1.0, 2.0]], [-1.0], InputError, "the weights hold -1.0"),
        ([[1.0, 2.0]], [np.nan], InputError, "the weights hold nan"),
        ([[1.0, 2.0]], ["heavy"], KindError, "weights must be real numbers"),
    ],
)
def test_bad_input_is_refused_whole(
    rows: object, weight: object, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_BLOCK_VALUES", 1)  # so that what is bad comes after a good block
    found = Moments().partial_fit([[1.0, 2.0], [3.0, 5.0]])
    with pytest.raises(error, match=message):
        found.partial_fit(rows, weight)
    assert found.rows == 2
    assert found.variance.tolist() == [1.0, 2.25]


def test_what_cannot_be_asked_or_merged() -> None:
    with pytest.raises(InputError, match="spread is 'kurtosis'; expected one of"):
        Moments("kurtosis")
    for empty in (Moments(), Moments().partial_fit(np.empty((0, 2))), Moments().partial_fit([[1.0]], [0.0])):
        assert (empty.rows, empty.weight) == (0, 0.0)
        with pytest.raises(InputError, match="call partial_fit"):
            empty.mean  # noqa: B018
    found = Moments().partial_fit([[1.0, 2.0]])
    with pytest.raises(InputError, match="use one spread"):
        found.merge(Moments("none"))
    with pytest.raises(ShapeError, match="have 1 columns, these have 2"):
        found.merge(Moments().partial_fit([[1.0]]))
    with pytest.raises(KindError, match="was given ndarray"):
        found.merge(np.ones((2, 2)))  # type: ignore[arg-type]
    assert found.rows == 1
