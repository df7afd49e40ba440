"""Decorrelated and whitened rows: NumPy's eigenvectors and scikit-learn's PCA as oracles, real digits, wrong twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.stats import ortho_group
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lastlayer.checks import InputError, LastLayerWarning, ShapeError
from lastlayer.preprocessing import Decorrelator, Whitener

Floats = NDArray[np.float64]

#: 1797 images of 64 pixels, of which 3 are blank in all of them.
DIGITS = load_digits().data

every_kind = pytest.mark.parametrize("kind", ["pca", "zca"])
every_transformer = pytest.mark.parametrize(
    "transformer", [Decorrelator(), Whitener("pca"), Whitener("zca"), Whitener("zca", epsilon=0.1)], ids=str
)


def rows_of(n: int, k: int, *, condition: float = 100.0, mean: float = 0.0, seed: int = 0) -> Floats:
    """Rows whose covariance matrix has variances from 1 down to 1 / condition, along directions of no column."""
    random = np.random.default_rng(seed)
    deviation = np.sqrt(np.geomspace(1.0, 1.0 / condition, k))
    return random.normal(size=(n, k)) * deviation @ ortho_group.rvs(k, random_state=seed) + mean


def covariance(rows: Floats) -> Floats:
    return np.atleast_2d(np.cov(rows.astype(np.float64).T, bias=True))


def departure(rows: Floats) -> float:
    """How far the covariance is from the identity."""
    return float(np.abs(covariance(rows) - np.eye(rows.shape[1])).max())


# --- white ------------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 1e4])
# The worst is about 1e-16 · condition number times a small number, and what float32 rounds of the result.
@pytest.mark.parametrize(("condition", "at_most"), [(1e2, 1e-7), (1e8, 1e-6), (1e11, 1e-3)])
def test_the_covariance_of_whitened_rows_is_the_identity(
    kind: str, dtype: type, mean: float, condition: float, at_most: float
) -> None:
    rows = rows_of(2000, 10, condition=condition, mean=mean).astype(dtype)
    white = Whitener(kind).fit_transform(rows)
    assert white.dtype == dtype
    assert np.abs(white.mean(axis=0, dtype=np.float64)).max() < 1e-6
    assert departure(white) < at_most <= 1e-3


def whitened_in_float32(rows: Floats) -> Floats:
    """Wrong: the same formula in the dtype of the rows."""
    centered = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centered.T @ centered / np.float32(len(rows)))
    return centered @ vectors / np.sqrt(np.maximum(values, np.finfo(np.float32).tiny))


def whitened_by_mean_of_squares(rows: Floats) -> Floats:
    """Wrong: E[xxᵀ] − μμᵀ, which cancels."""
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows) - np.outer(mean, mean))
    return (rows - mean) @ vectors / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))


def divided_before_rotation(rows: Floats) -> Floats:
    """Wrong: each column by its standard deviation, which leaves them correlated."""
    return StandardScaler().fit_transform(rows) @ np.linalg.eigh(covariance(rows))[1]


def test_the_wrong_ways_are_caught() -> None:
    rows = rows_of(2000, 10, condition=1e8, mean=1e4)
    assert departure(whitened_in_float32(rows.astype(np.float32))) > 1e-2
    assert departure(whitened_by_mean_of_squares(rows)) > 1e-2
    assert departure(divided_before_rotation(rows)) > 1e-2


@every_kind
def test_real_images_become_white(kind: str) -> None:
    whitener = Whitener(kind).fit(DIGITS)
    white = whitener.transform(DIGITS)
    assert len(whitener.eigenvalues_) == np.linalg.matrix_rank(DIGITS - DIGITS.mean(axis=0)) == 61
    if kind == "pca":
        assert departure(white) < 1e-10
    else:
        blank = np.ptp(DIGITS, axis=0) == 0
        assert blank.sum() == 3
        assert np.abs(white[:, blank]).max() < 1e-10
        assert departure(white[:, ~blank]) < 1e-10


# --- oracles ----------------------------------------------------------------------------------------------------------


def assert_equal_up_to_sign(found: Floats, expected: Floats, **margins: float) -> None:
    sign = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found, expected * sign, **margins)


@pytest.mark.parametrize("components", [None, 3])
def test_scikit_learn_agrees_on_pca(components: int | None) -> None:
    rows = rows_of(300, 6, mean=20.0)
    # It divides covariances by one less than the number of rows.
    larger = np.sqrt(300 / 299)
    oracle = PCA(n_components=components, svd_solver="full").fit(rows)
    decorrelator = Decorrelator(components=components).fit(rows)
    assert_equal_up_to_sign(decorrelator.transform(rows), oracle.transform(rows), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(decorrelator.eigenvalues_, oracle.explained_variance_ / larger**2, rtol=1e-10)
    np.testing.assert_allclose(decorrelator.mean_, oracle.mean_)
    assert_equal_up_to_sign(decorrelator.eigenvectors_, oracle.components_.T, rtol=1e-8, atol=1e-12)
    white = PCA(n_components=components, whiten=True, svd_solver="full").fit_transform(rows) * larger
    assert_equal_up_to_sign(Whitener(components=components).fit_transform(rows), white, rtol=1e-9, atol=1e-12)


def test_numpy_and_scipy_agree_on_zca() -> None:
    rows = rows_of(300, 6, mean=20.0)
    whitener = Whitener("zca").fit(rows)
    values, vectors = np.linalg.eigh(covariance(rows))
    matrix = vectors / np.sqrt(values) @ vectors.T
    np.testing.assert_allclose(matrix, np.linalg.inv(sqrtm(covariance(rows))), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whitener.transform(rows), (rows - rows.mean(axis=0)) @ matrix, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(whitener.eigenvalues_, values[::-1], rtol=1e-10)


def test_no_other_whitening_changes_the_rows_less_than_zca() -> None:
    """Kessy et al. (2018), section 4.1: ZCA has the largest total covariance with the input of all whitenings."""
    rows = rows_of(300, 6)
    rows -= rows.mean(axis=0)
    white = Whitener("zca").fit_transform(rows)
    cross = white.T @ rows / len(rows)
    np.testing.assert_allclose(cross, cross.T, atol=1e-12)  # the map is symmetric, so this is the root of covariance
    changed = np.square(white - rows).sum()
    others = [white @ ortho_group.rvs(6, random_state=seed) for seed in range(50)]
    others.append(Whitener("pca").fit_transform(rows))
    for other in others:
        assert departure(other) < 1e-9
        assert np.square(other - rows).sum() > changed


def test_decorrelated_columns_stand_in_the_order_of_their_variance() -> None:
    decorrelator = Decorrelator().fit(DIGITS)
    found = covariance(decorrelator.transform(DIGITS))
    np.testing.assert_allclose(found, np.diag(decorrelator.eigenvalues_), atol=1e-10 * decorrelator.eigenvalues_[0])
    assert (np.diff(decorrelator.eigenvalues_) <= 0).all()


@pytest.mark.parametrize("epsilon", [1e-3, 10.0])
@every_kind
def test_epsilon_holds_small_directions_back(kind: str, epsilon: float) -> None:
    rows = rows_of(500, 5)
    whitener = Whitener(kind, epsilon=epsilon).fit(rows)
    values = np.linalg.eigvalsh(covariance(rows))[::-1]
    found = np.linalg.eigvalsh(covariance(whitener.transform(rows)))[::-1]
    np.testing.assert_allclose(found, values / (values + epsilon), rtol=1e-9)


# --- rank -------------------------------------------------------------------------------------------------------------


def deficient() -> dict[str, Floats]:
    rows = rows_of(200, 4, mean=3.0)
    return {
        "a constant column": np.column_stack([rows, np.full(200, 0.1)]),
        "a column twice": np.column_stack([rows, rows[:, 0]]),
        "a sum of columns": np.column_stack([rows, rows @ np.ones(4)]),
        "a column in two units": np.column_stack([rows, 1e-3 * rows[:, 1] + 7.0]),
        "fewer rows than columns": rows_of(5, 20),
        "two rows": rows_of(2, 3),
    }


@every_transformer
@pytest.mark.parametrize("case", list(deficient()))
def test_empty_directions_are_dropped_and_the_inverse_gives_the_input(transformer: Any, case: str) -> None:
    rows = deficient()[case]
    rank = np.linalg.matrix_rank(rows - rows.mean(axis=0))
    fitted = clone(transformer).fit(rows)
    there = fitted.transform(rows)
    assert len(fitted.eigenvalues_) == rank < rows.shape[1]
    assert there.shape[1] == (rows.shape[1] if "zca" in str(transformer) else rank)
    np.testing.assert_allclose(fitted.inverse_transform(there), rows, rtol=1e-9, atol=1e-9)
    if transformer.get_params().get("epsilon") == 0:
        values = np.linalg.eigvalsh(covariance(there))
        np.testing.assert_allclose(values[-rank:], 1.0, atol=1e-9)
        np.testing.assert_allclose(values[:-rank], 0.0, atol=1e-9)


@every_transformer
def test_the_inverse_gives_real_images_back(transformer: Any) -> None:
    fitted = clone(transformer).fit(DIGITS)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(DIGITS)), DIGITS, atol=1e-10)
    small = DIGITS.astype(np.float32)
    back = clone(transformer).fit(small).inverse_transform(fitted.transform(small))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, small, atol=1e-4)


def test_what_training_never_saw_is_not_blown_up() -> None:
    """A pixel that is blank in training and not in use: nothing is known of its scale."""
    train, test = DIGITS[:300], DIGITS[300:]
    assert (np.ptp(train, axis=0) == 0).sum() > (np.ptp(DIGITS, axis=0) == 0).sum()
    for kind in ("pca", "zca"):
        assert np.abs(Whitener(kind).fit(train).transform(test)).max() < 1e3
    # Without a floor, rounding is taken for variance. The wrong twin.
    values, vectors = np.linalg.eigh(covariance(train))
    wrong = (test - train.mean(axis=0)) @ vectors / np.sqrt(np.maximum(values, 1e-30))
    assert np.abs(wrong).max() > 1e6


def test_a_column_lost_to_its_unit_is_named() -> None:
    rows = rows_of(100, 3)
    rows[:, 1] *= 1e-8
    with pytest.warns(LastLayerWarning, match=r"1 column\(s\) are lost below the floor. The first is column 1"):
        Whitener().fit(rows)
    assert departure(make_pipeline(StandardScaler(), Whitener()).fit_transform(rows)) < 1e-10


@every_kind
@pytest.mark.parametrize(
    "rows", [np.full((3, 2), 0.1), np.array([[0.3, 7.0], [0.1 + 0.2, 7.0], [0.3, 7.0]])], ids=["same", "rounded"]
)
def test_nothing_varies_and_nothing_is_lost(kind: str, rows: Floats) -> None:
    whitener = Whitener(kind).fit(rows)
    assert not np.any(whitener.transform(rows))
    assert whitener.transform(rows).shape == ((3, 2) if kind == "zca" else (3, 0))
    np.testing.assert_allclose(whitener.inverse_transform(whitener.transform(rows)), rows, rtol=1e-15)


def test_components_are_the_first_of_all_and_a_floor_cuts_the_last() -> None:
    rows = rows_of(300, 6)
    values = np.linalg.eigvalsh(covariance(rows))[::-1]
    floor = (values[3] + values[4]) / 2 / values[0]
    for fitted in (Decorrelator(floor=floor).fit(rows), Whitener("zca", floor=floor).fit(rows)):
        np.testing.assert_allclose(fitted.eigenvalues_, values[:4])
    np.testing.assert_allclose(
        Whitener(components=2).fit_transform(rows), Whitener().fit_transform(rows)[:, :2], atol=1e-12
    )
    back = Decorrelator(components=2)
    residual = rows - back.inverse_transform(back.fit_transform(rows))
    # Eckart and Young: no plane leaves less than the sum of the other eigenvalues.
    assert np.square(residual).sum() / 300 == pytest.approx(values[2:].sum())
    assert Whitener("zca", components=2).fit_transform(rows).shape == (300, 6)


def test_the_largest_entry_of_each_direction_is_positive() -> None:
    vectors = Decorrelator().fit(DIGITS).eigenvectors_
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(61)] > 0).all()


def test_rounding_does_not_choose_a_sign() -> None:
    # Both directions have two entries that are equally large, (1, 1) and (1, −1): rounding decides which is larger.
    rows = np.array([[4.0, 2.0], [2.0, 4.0], [-2.0, -4.0], [-4.0, -2.0]])
    for seed in range(20):
        noise = 1e-14 * np.random.default_rng(seed).normal(size=rows.shape)
        vectors = Decorrelator().fit(rows + noise).eigenvectors_
        np.testing.assert_allclose(vectors, np.array([[1, 1], [1, -1]]) / np.sqrt(2), atol=1e-9)


# --- in batches -------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 60), max_size=8).map(sorted), merged=st.booleans())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_rows_in_batches_are_rows_at_once(cuts: list[int], merged: bool) -> None:
    rows = rows_of(60, 4, mean=100.0)
    parts = [part for part in np.split(rows, cuts) if len(part) or not merged]
    for transformer in (Decorrelator(), Whitener("pca"), Whitener("zca")):
        if merged:
            workers = [clone(transformer).partial_fit(part) for part in parts]
            streamed = workers[0]
            for worker in workers[1:]:
                streamed.merge(worker)
        else:
            streamed = clone(transformer)
            for part in parts:
                streamed.partial_fit(part)
        once = clone(transformer).fit(rows)
        np.testing.assert_allclose(streamed.eigenvalues_, once.eigenvalues_, rtol=1e-10)
        np.testing.assert_allclose(streamed.transform(rows), once.transform(rows), atol=1e-8)


def test_a_later_batch_counts_after_a_transform() -> None:
    rows = rows_of(100, 3)
    streamed = Whitener("zca").partial_fit(rows[:50])
    streamed.transform(rows)
    streamed.partial_fit(rows[50:], sample_weight=np.full(50, 3.0))
    weighted = Whitener("zca").fit(np.vstack([rows, rows[50:], rows[50:]]))
    np.testing.assert_allclose(streamed.transform(rows), weighted.transform(rows), atol=1e-9)


def test_rows_are_transformed_block_by_block_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(100, 3)
    whitener = Whitener().fit(rows)
    whole = whitener.transform(rows)
    monkeypatch.setattr("lastlayer.preprocessing.affine._BLOCK_VALUES", 21)
    np.testing.assert_allclose(whitener.transform(rows), whole, rtol=1e-12, atol=1e-14)
    assert whitener.transform(rows[:0]).shape == (0, 3)


# --- tensors ----------------------------------------------------------------------------------------------------------


@every_transformer
def test_the_module_gives_the_numbers_of_the_transformer(transformer: Any) -> None:
    fitted = clone(transformer).fit(DIGITS)
    module, exact = fitted.to_module(), fitted.to_module(dtype=torch.float64)
    there = fitted.transform(DIGITS)
    margin = 1e-6 * np.sqrt(fitted.eigenvalues_[0] / fitted.eigenvalues_[-1]) * 10
    np.testing.assert_allclose(module(torch.tensor(DIGITS, dtype=torch.float32)), there, atol=margin)
    np.testing.assert_allclose(exact(torch.tensor(DIGITS)), there, atol=1e-11)
    np.testing.assert_allclose(exact.inverse(exact(torch.tensor(DIGITS))), DIGITS, atol=1e-10)
    back = module.inverse(module(torch.tensor(DIGITS, dtype=torch.float32)))
    np.testing.assert_allclose(back, DIGITS, atol=1e-3)
    assert not list(module.parameters())


@every_kind
def test_a_float32_module_whitens_what_is_badly_conditioned_and_far_from_zero(kind: str) -> None:
    rows = rows_of(2000, 10, condition=1e8, mean=1e4).astype(np.float32)
    whitener = Whitener(kind).fit(rows)
    module = whitener.to_module()
    assert departure(module(torch.tensor(rows)).numpy()) < 1e-3
    assert np.abs(module(torch.tensor(rows)).numpy() - whitener.transform(rows)).max() < 3e-3
    # The wrong twin: a mean of one float32, whose rounding is many times the least standard deviation.
    module.mean_rounding.zero_()
    assert np.abs(module(torch.tensor(rows)).numpy() - whitener.transform(rows)).max() > 0.1


def test_the_module_is_one_of_pytorch() -> None:
    rows = rows_of(50, 4)
    whitener = Whitener("zca").fit(rows)
    module = whitener.to_module()
    x = torch.tensor(rows, dtype=torch.float32)
    expected = module(x)
    other = Whitener("zca").fit(rows_of(50, 4, seed=1)).to_module()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), expected)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.testing.assert_close(exported.module()(x[:7]), expected[:7])
    torch.testing.assert_close(module(x.reshape(5, 10, 4)), expected.reshape(5, 10, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x), expected)
    exact = whitener.to_module(dtype=torch.float64)
    assert torch.autograd.gradcheck(exact, torch.tensor(rows[:3], requires_grad=True))
    with pytest.raises(ShapeError, match=r"has shape \(50, 3\); expected \(..., 4\)"):
        module(x[:, :3])
    tiny = Whitener().fit(rows * 1e-60)
    with pytest.raises(InputError, match=r"matrix does not fit into torch.float32. Fix: dtype=torch.float64"):
        tiny.to_module()
