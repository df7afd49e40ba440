"""Conformal intervals and sets of estimators: the finite-sample promise, by simulation and on fresh rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lastlayer import Classifier, Regressor, distributions
from lastlayer.checks import DomainError, InputError
from lastlayer.distributions import Distribution
from lastlayer.heads import Gaussian
from lastlayer.uncertainty import conformal_share_interval, conformal_threshold, distance_from_middle

TRIALS = 2000


def _gaussian(rows: int, generator: torch.Generator) -> tuple[Distribution, Tensor]:
    """Predictions that are wrong in place and scale, from row to row: the promise is about any."""
    mean = torch.randn(rows, generator=generator, dtype=torch.float64)
    target = mean + torch.randn(rows, generator=generator, dtype=torch.float64).abs()
    return distributions.Gaussian(mean, 0.4 + mean.abs()), target


def _poisson(rows: int, generator: torch.Generator) -> tuple[Distribution, Tensor]:
    rate = torch.randn(rows, generator=generator, dtype=torch.float64).exp() * 2
    return distributions.Poisson((1.3 * rate).log()), torch.poisson(rate, generator=generator)


def _same_poisson(rows: int, generator: torch.Generator) -> tuple[Distribution, Tensor]:
    """One prediction for all rows, so that scores are equal more often than not."""
    rate = torch.full((rows,), 1.7, dtype=torch.float64)
    return distributions.Poisson(rate.log()), torch.poisson(rate, generator=generator)


def _thresholds(scores: Tensor, level: float) -> Tensor:
    """That of every trial."""
    return torch.tensor([conformal_threshold(each.tolist(), level) for each in scores], dtype=torch.float64)


KINDS: dict[str, Callable[[int, torch.Generator], tuple[Distribution, Tensor]]] = {
    "gaussian": _gaussian,
    "poisson": _poisson,
    "poisson, all alike": _same_poisson,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "level"), [(9, 0.9), (24, 0.8), (50, 0.5)])
def test_the_promise_is_kept_on_average_over_held_out_sets(kind: str, rows: int, level: float) -> None:
    generator = torch.Generator().manual_seed(rows)
    distribution, target = KINDS[kind](TRIALS * (rows + 1), generator)
    scores = distance_from_middle(distribution, target).reshape(TRIALS, rows + 1)
    thresholds = torch.tensor(
        [conformal_threshold(each.tolist(), level) for each in scores[:, :rows]], dtype=torch.float64
    )
    near = scores[:, rows] <= thresholds
    coverage, error = float(near.double().mean()), math.sqrt(level * (1 - level) / TRIALS)
    assert coverage > level - 4 * error
    if kind == "gaussian":
        # And no more than one row of the held-out ones above it.
        assert coverage < level + 1 / (rows + 1) + 4 * error
    # The interval holds just the values that are near enough; of whole numbers the median, where none is.
    for trial in range(100):
        last = trial * (rows + 1) + rows
        low, high = conformal_share_interval(distribution[last : last + 1], scores[trial, :rows].tolist(), level)
        inside = bool((target[last] >= low) & (target[last] <= high))
        alone = bool(low == high) and kind != "gaussian"
        assert inside == bool(near[trial]) or (alone and inside)


def test_a_threshold_without_its_correction_breaks_the_promise() -> None:
    """The simulation can tell: the plain quantile of nine scores covers nine of eleven, not nine of ten."""
    generator = torch.Generator().manual_seed(0)
    distribution, target = _gaussian(TRIALS * 10, generator)
    scores = distance_from_middle(distribution, target).reshape(TRIALS, 10)
    plain = scores[:, :9].sort(dim=1).values[:, 7]
    coverage = float((scores[:, 9] <= plain).double().mean())
    assert coverage < 0.9 - 4 * math.sqrt(0.09 / TRIALS)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_sets_of_classes_keep_the_promise(level: float) -> None:
    rows = 39
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(TRIALS, rows + 1, 4, generator=generator, dtype=torch.float64)
    truth = torch.multinomial(torch.softmax(0.5 * logits, -1).reshape(-1, 4), 1, generator=generator)
    probability = torch.softmax(2 * logits, -1)
    scores = 1 - probability.gather(-1, truth.reshape(TRIALS, rows + 1, 1)).squeeze(-1)
    bounds = _thresholds(scores[:, :rows], level)
    coverage = float((scores[:, rows] <= bounds).double().mean())
    error = math.sqrt(level * (1 - level) / TRIALS)
    assert level - 4 * error < coverage < level + 1 / (rows + 1) + 4 * error


def test_whole_numbers_at_both_ends_are_just_those_that_are_near_enough() -> None:
    distribution = distributions.Poisson(torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64))
    numbers = torch.arange(80.0, dtype=torch.float64).unsqueeze(1).expand(80, 3)
    distance = distance_from_middle(distribution, numbers)
    for score in distance.flatten().unique()[::3].tolist():
        low, high = conformal_share_interval(distribution, [score] * 9, 0.9)
        for column in range(3):
            inside = (distance[:, column] <= score).nonzero().flatten()
            if len(inside) and score < 0.5 - 1e-9:
                assert (int(low[column]), int(high[column])) == (int(inside[0]), int(inside[-1]))
            elif not len(inside):
                assert low[column] == high[column] == distribution.median[column]


def test_too_few_scores_are_refused_with_the_number_needed() -> None:
    one = distributions.Gaussian(torch.zeros(1), torch.ones(1))
    with pytest.raises(InputError, match=r"8 held-out rows give no finite bound at the level 0\.9.* at least 9 rows"):
        conformal_share_interval(one, [0.1] * 8, 0.9)
    with pytest.raises(InputError, match="0 held-out rows"):
        conformal_share_interval(one, [], 0.9)
    for level in (0.0, 1.0, -1.0, 2.0, math.nan):
        with pytest.raises(DomainError, match="the level is"):
            conformal_share_interval(one, [0.1] * 99, level)


# --- of estimators ----------------------------------------------------------------------------------------------------


def _rows(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    x = rng.normal(size=(rows, 2))
    return x, x[:, 0] + np.exp(0.5 * x[:, 1]) * rng.standard_t(4, size=rows)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize(
    "options", [{"head": "gaussian"}, {"head": "gaussian:predicted", "members": 2}, {"calibration": "pit"}], ids=str
)
def test_fresh_rows_are_covered(options: dict[str, Any], refit: bool) -> None:
    """Averaged over data sets, for the promise is about them; the second training on all rows changes little."""
    covered, held_out = [], 60
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows, target = _rows(rng, 300)
        fresh, truth = _rows(rng, 1500)
        model = Regressor(
            hidden=(16,), max_epochs=10, bins=4, learning_rate=1e-2, validation_fraction=held_out / 300, refit=refit,
            **options,
        ).fit(rows, target)  # fmt: skip
        assert len(model.model_.conformal_scores) == held_out
        low, high = model.predict_interval(fresh, 0.8, conformal=True).T
        covered.append(((truth >= low) & (truth <= high)).mean())
    # The coverage of one data set strays by √(0.8 · 0.2/62) = 0.05, that of five by less than half of it.
    assert np.mean(covered) == pytest.approx(0.8, abs=4 * 0.051 / math.sqrt(5))


def test_a_wrong_scale_is_made_good() -> None:
    rng = np.random.default_rng(9)
    rows, target = _rows(rng, 600)
    fresh, truth = _rows(rng, 1500)
    model = Regressor(head=Gaussian(scale=0.3), hidden=(), max_epochs=20, validation_fraction=0.4).fit(rows, target)
    coverage = []
    for conformal in (False, True):
        low, high = model.predict_interval(fresh, 0.8, conformal=conformal).T
        coverage.append(((truth >= low) & (truth <= high)).mean())
    assert coverage[0] < 0.6
    assert coverage[1] == pytest.approx(0.8, abs=0.1)


def test_sets_hold_the_true_class_of_fresh_rows() -> None:
    rng = np.random.default_rng(10)

    def rows(count: int) -> tuple[Any, Any]:
        x = rng.normal(size=(count, 2))
        return x, np.array(["a", "b", "c"])[np.digitize(x[:, 0] + 0.7 * rng.normal(size=count), [-0.5, 0.5])]

    fresh, truth = rows(2000)
    for options in ({}, {"class_weight": "balanced", "members": 2, "calibration": "temperature"}):
        model = Classifier(
            hidden=(16,), max_epochs=20, learning_rate=1e-2, validation_fraction=0.4, **options
        ).fit(*rows(600))  # fmt: skip
        narrow, wide = model.predict_set(fresh, 0.6), model.predict_set(fresh, 0.9)
        assert wide.dtype == bool
        assert wide.shape == (2000, 3)
        assert (wide | ~narrow).all()
        index = np.searchsorted(model.classes_, truth)
        for level, sets in ((0.6, narrow), (0.9, wide)):
            error = math.sqrt(level * (1 - level) * (1 / 242 + 1 / 2000))
            assert sets[np.arange(2000), index].mean() == pytest.approx(level, abs=4 * error)
        assert 1 < wide.sum(1).mean() < 2.5
        # The likeliest classes are in it before the others.
        probability = model.predict_proba(fresh)
        assert (np.where(wide, probability, np.inf).min(1) > np.where(wide, -np.inf, probability).max(1)).all()
        with pytest.raises(InputError, match="at least 999 rows"):
            model.predict_set(fresh, 0.999)


def test_rows_that_count_differently_or_were_learned_from_have_no_promise() -> None:
    rng = np.random.default_rng(11)
    rows, target = _rows(rng, 120)
    options: dict[str, Any] = {"hidden": (8,), "max_epochs": 2}
    weight = rng.integers(1, 3, size=120)
    without = [
        Regressor(**options).fit(rows, target, sample_weight=weight),
        Regressor(**options, validation_fraction=0).fit(rows, target),
        Regressor(**options).fit(rows[:9], target[:9]),
        Classifier(**options).fit(rows, target > 0, sample_weight=weight),
    ]
    for model in without:
        assert model.model_.conformal_scores == ()
        ask: Any = (
            functools.partial(model.predict_interval, conformal=True)
            if isinstance(model, Regressor)
            else (model.predict_set)
        )
        with pytest.raises(InputError, match="kept no scores of held-out rows"):
            ask(rows, 0.5)
    # Weights that are all alike change nothing.
    alike = Regressor(**options).fit(rows, target, sample_weight=np.full(120, 3.0))
    assert len(alike.model_.conformal_scores) == 18
    np.testing.assert_allclose(
        alike.predict_interval(rows, 0.8, conformal=True),
        Regressor(**options).fit(rows, target).predict_interval(rows, 0.8, conformal=True),
        rtol=1e-3,
    )
