"""Conformal prediction: ranks by hand, and the finite-sample guarantee by simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lastlayer.checks import DomainError, InputError, ShapeError
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.poisson import Poisson
from lastlayer.uncertainty import (
    conformal_quantile,
    fit_class_sets,
    fit_conformal_quantiles,
    fit_cross_conformal,
    fit_scaled_residual,
    from_dict,
    least_rows,
    set_sizes,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


@pytest.mark.parametrize("level", [0.5, 0.55, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_the_quantile_is_the_right_order_statistic(level: float) -> None:
    for n in (1, 2, 9, 10, 19, 20, 99, 100, 137):
        scores = torch.arange(1.0, n + 1.0, dtype=torch.float64)[torch.randperm(n, generator=generator())]
        # In hundredths, so that the rank is exact.
        rank = -(-(n + 1) * round(100 * level) // 100)
        expected = float(rank) if rank <= n else math.inf
        assert float(conformal_quantile(scores, level)) == expected
        assert (rank <= n) == (n >= least_rows(level))


def test_weights_that_are_all_alike_change_nothing() -> None:
    scores = numbers(30, 4)
    for level in (0.5, 0.9):
        expected = conformal_quantile(scores, level)
        assert torch.equal(conformal_quantile(scores, level, sample_weight=torch.full((30,), 0.3)), expected)
    zero = torch.cat([torch.ones(30), torch.zeros(5)])
    padded = torch.cat([scores, torch.full((5, 4), torch.nan)])
    assert torch.equal(conformal_quantile(padded, 0.9, sample_weight=zero), expected)


def test_weights_by_hand() -> None:
    scores, weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 1.0])
    # Of 4 + 1: at most 1 lies 0.2, at most 2 0.6, at most 3 0.8, the rest at infinity.
    for level, expected in ((0.2, 1.0), (0.6, 2.0), (0.61, 3.0), (0.8, 3.0), (0.81, math.inf)):
        found = conformal_quantile(scores, level, sample_weight=weight, test_weight=1.0)
        assert float(found) == expected


def test_a_column_each() -> None:
    scores = numbers(25, 3, 2)
    together = conformal_quantile(scores, 0.8)
    assert together.shape == (3, 2)
    assert float(together[1, 1]) == float(conformal_quantile(scores[:, 1, 1], 0.8))


def guarantee(covered: np.ndarray, level: float, n: int, *, exact: bool) -> None:
    """The mean coverage over trials lies within 4 standard errors of what is promised."""
    mean, error = covered.mean(), covered.std() / math.sqrt(len(covered))
    assert mean >= level - 4 * error
    if exact:
        # Scores without ties are covered with probability ⌈(n + 1) level⌉/(n + 1) exactly.
        assert mean == pytest.approx(math.ceil((n + 1) * level - 1e-9) / (n + 1), abs=4 * error)


def trials(n: int, count: int = 300, new: int = 60, seed: int = 0) -> torch.Tensor:
    """Heteroscedastic, skewed noise: nothing like the Gaussians that are predicted."""
    x = numbers(count, n + new, seed=seed)
    noise = -torch.rand(count, n + new, dtype=torch.float64, generator=generator(seed + 1)).log() - 0.5
    return torch.stack([x, x + (0.5 + x.abs()) * noise])


@pytest.mark.parametrize(("n", "level"), [(19, 0.9), (30, 0.8), (50, 0.95)])
@pytest.mark.parametrize("kind", ["scaled", "constant", "iqr", "quantiles", "asymmetric"])
def test_intervals_keep_their_promise(n: int, level: float, kind: str) -> None:
    covered = []
    for x, y in trials(n).unbind(1):
        predicted = Gaussian(0.9 * x, 0.3 + 0.2 * x.abs())
        held_out, new = predicted[:n], predicted[n:]
        if kind in ("quantiles", "asymmetric"):
            fit = fit_conformal_quantiles(held_out, y[:n], level, symmetric=kind == "quantiles")
        else:
            spread = {"scaled": "standard_deviation", "iqr": "interquartile_range"}.get(kind, kind)
            fit = fit_scaled_residual(held_out, y[:n], level, spread=spread)
        low, high = fit.interval(new)
        covered.append(float(((y[n:] >= low) & (y[n:] <= high)).double().mean()))
    guarantee(np.array(covered), level, n, exact=kind != "asymmetric")


def test_the_simulation_catches_a_quantile_without_its_correction() -> None:
    covered = []
    for x, y in trials(10).unbind(1):
        bound = (y[:10] - x[:10]).abs().sort().values[math.ceil(10 * 0.9) - 1]
        covered.append(float(((y[10:] - x[10:]).abs() <= bound).double().mean()))
    with pytest.raises(AssertionError):
        guarantee(np.array(covered), 0.9, 10, exact=False)


def test_asymmetric_ends_miss_as_much_on_each_side() -> None:
    missed = []
    n, level = 99, 0.9
    for x, y in trials(n).unbind(1):
        predicted = Gaussian(x, torch.ones_like(x))
        low, high = fit_conformal_quantiles(predicted[:n], y[:n], level, symmetric=False).interval(predicted[n:])
        missed.append([float((y[n:] < low).double().mean()), float((y[n:] > high).double().mean())])
    sides = np.array(missed)
    for side in sides.T:
        assert side.mean() == pytest.approx(0.05, abs=4 * side.std() / math.sqrt(len(side)))


def test_intervals_of_counts_are_whole_numbers_that_keep_their_promise() -> None:
    n, level, covered = 40, 0.9, []
    for seed in range(200):
        truth = Poisson(numbers(90, seed=seed))
        y = truth.sample(1, generator=generator(seed))[0]
        claimed = Poisson(truth.log_rate - 0.5)
        for fit in (
            fit_conformal_quantiles(claimed[:n], y[:n], level),
            fit_scaled_residual(claimed[:n], y[:n], level),
        ):
            low, high = fit.interval(claimed[n:])
            assert bool(((low == low.round()) & (high == high.round()) & (low >= 0) & (low <= high)).all())
            covered.append(float(((y[n:] >= low) & (y[n:] <= high)).double().mean()))
    guarantee(np.array(covered), level, n, exact=False)


def test_rounding_does_not_lose_the_number_at_an_end() -> None:
    # In float32 as well: the row that sets the radius lies inside its own interval.
    for seed in range(50):
        predicted = Poisson(1.5 * numbers(20, seed=seed).float())
        y = predicted.sample(1, generator=generator(seed))[0]
        for fit in (fit_scaled_residual(predicted, y, 0.9), fit_conformal_quantiles(predicted, y, 0.9)):
            low, high = fit.interval(predicted)
            assert int(((y >= low) & (y <= high)).sum()) >= 19


def test_intervals_end_where_values_do_and_never_cross() -> None:
    predicted = Gamma(torch.full((20,), 2.0), torch.full((20,), 0.1))
    low, _ = fit_conformal_quantiles(predicted, torch.full((20,), 200.0), 0.9).interval(predicted)
    assert bool((low == 0).all())
    # Every target at the center: both ends move in by all there is.
    wide = Gaussian(torch.zeros(20), torch.linspace(1.0, 5.0, 20))
    low, high = fit_conformal_quantiles(wide, torch.zeros(20), 0.9).interval(wide)
    assert bool((low <= high).all())


def test_a_radius_for_each_element_of_a_row() -> None:
    predicted, y = Gaussian(torch.zeros(50, 2, 3), torch.ones(50, 2, 3)), numbers(50, 2, 3).float()
    fit = fit_scaled_residual(predicted, y, 0.9)
    alone = fit_scaled_residual(predicted[:, 1, 2], y[:, 1, 2], 0.9)
    assert fit.radius[1][2] == alone.radius
    low, high = fit.interval(predicted[:7])
    assert low.shape == high.shape == (7, 2, 3)
    assert low.dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "randomized"), [("least_ambiguous", False), ("adaptive", False), ("adaptive", True)]
)
@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (40, 0.8)])
def test_sets_of_classes_keep_their_promise(method: str, randomized: bool, n: int, level: float) -> None:
    covered, draw = [], generator(3)
    for seed in range(300):
        logits = 1.5 * numbers(n + 60, 5, seed=seed)
        y = Categorical(logits).sample(1, generator=draw)[0]
        claimed = Categorical(2.0 * logits + 0.3 * numbers(n + 60, 5, seed=seed + 1000))
        fit = fit_class_sets(claimed[:n], y[:n], level, method=method, randomized=randomized, generator=draw)
        sets = fit.sets(claimed[n:], allow_empty=True, generator=draw)
        covered.append(float(sets.gather(-1, y[n:].long().unsqueeze(-1)).double().mean()))
    guarantee(np.array(covered), level, n, exact=True)


def test_sets_by_hand() -> None:
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    held_out = Categorical(probability[:1].expand(9, 3).log())
    y = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1])
    # The largest of 9 scores: 1 − 0.3, and 0.5 + 0.3.
    least = fit_class_sets(held_out, y, 0.9)
    assert least.threshold == pytest.approx(0.7)
    assert least.sets(Categorical((probability + 1e-9).log())).tolist() == [[True, True, False], [False, False, True]]
    adaptive = fit_class_sets(held_out, y, 0.9, method="adaptive")
    assert adaptive.threshold == pytest.approx(0.8)
    sets = adaptive.sets(Categorical(torch.tensor([[0.5, 0.29, 0.21], [0.1, 0.15, 0.75]]).log()))
    assert sets.tolist() == [[True, True, False], [False, False, True]]
    assert set_sizes(sets).tolist() == [2, 1]


def test_randomized_scores_of_the_truth_are_uniform() -> None:
    logits, draw = 1.5 * numbers(20000, 5), generator(1)
    y = Categorical(logits).sample(1, generator=draw)[0]
    for level in (0.2, 0.5, 0.9):
        fit = fit_class_sets(Categorical(logits), y, level, method="adaptive", randomized=True, generator=draw)
        assert fit.threshold == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 20000))


def test_no_set_is_empty_unless_allowed() -> None:
    sure = Categorical(torch.tensor([[50.0, 0.0, 0.0]]).expand(20, 3))
    fit = fit_class_sets(sure, torch.zeros(20), 0.5)
    unsure = Categorical(torch.tensor([[0.1, 0.0, 0.0]]))
    assert fit.sets(unsure, allow_empty=True).any().item() is False
    assert fit.sets(unsure).tolist() == [[True, False, False]]


def test_a_set_for_each_label_keeps_its_promise() -> None:
    n, level, covered = 30, 0.9, []
    for seed in range(200):
        logits = 2 * numbers(90, 3, seed=seed)
        y = Bernoulli(logits).sample(1, generator=generator(seed))[0]
        claimed = Bernoulli(torch.stack([3 * logits[:, 0], 0.1 * logits[:, 1], logits[:, 2] - 1], -1))
        fit = fit_class_sets(claimed[:n], y[:n], level)
        sets = fit.sets(claimed[n:])
        assert sets.shape == (60, 3, 2)
        covered.append(sets.gather(-1, y[n:].long().unsqueeze(-1)).double().mean(0).squeeze(-1).numpy())
    for label in np.stack(covered).T:
        guarantee(label, level, n, exact=False)


def folds_of_line(x: torch.Tensor, y: torch.Tensor, folds: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A fold for each row; slope and intercept of every fold's least-squares line, fitted without it."""
    fold = torch.arange(len(x)) % folds
    lines = [np.polyfit(x[fold != k].numpy(), y[fold != k].numpy(), 1) for k in range(folds)]
    slope, intercept = torch.tensor(np.array(lines)).unbind(1)
    return fold, slope, intercept


def test_cross_conformal_intervals_are_those_of_the_definition() -> None:
    x, y = trials(20, count=1, new=5).squeeze(1)
    fold, slope, intercept = folds_of_line(x[:20], y[:20], 4)
    out_of_fold = Gaussian(slope[fold] * x[:20] + intercept[fold], 0.5 + x[:20].abs())
    members = Gaussian(slope[:, None] * x[20:] + intercept[:, None], (0.5 + x[20:].abs()).expand(4, 5))
    fit = fit_cross_conformal(out_of_fold, y[:20], fold, 0.9)
    low, high = fit.interval(members)
    for j in range(5):
        # Barber et al. (2021), equation for CV+, with the residual in spreads.
        reach = [
            abs(float(y[i] - out_of_fold.location[i])) / float(out_of_fold.scale[i]) * float(0.5 + x[20 + j].abs())
            for i in range(20)
        ]
        middle = [float(members.location[fold[i], j]) for i in range(20)]
        lower = sorted(m - r for m, r in zip(middle, reach, strict=True))
        upper = sorted(m + r for m, r in zip(middle, reach, strict=True))
        # ⌊21 · 0.1⌋ = 2 and ⌈21 · 0.9⌉ = 19.
        assert float(low[j]) == pytest.approx(lower[2 - 1])
        assert float(high[j]) == pytest.approx(upper[19 - 1])


def test_cross_conformal_intervals_keep_their_promise() -> None:
    covered = []
    for x, y in trials(24, count=200).unbind(1):
        fold, slope, intercept = folds_of_line(x[:24], y[:24], 6)
        out_of_fold = Gaussian(slope[fold] * x[:24] + intercept[fold], torch.ones(24).double())
        members = Gaussian(slope[:, None] * x[24:] + intercept[:, None], torch.ones(6, 60).double())
        low, high = fit_cross_conformal(out_of_fold, y[:24], fold, 0.9).interval(members)
        covered.append(float(((y[24:] >= low) & (y[24:] <= high)).double().mean()))
    guarantee(np.array(covered), 0.8, 24, exact=False)
    assert np.mean(covered) > 0.85


def test_with_equal_folds_models_cross_conformal_is_split_conformal() -> None:
    y = numbers(49)
    predicted = Gaussian(torch.zeros(49).double(), torch.ones(49).double())
    low, high = fit_cross_conformal(predicted, y, torch.arange(49) % 7, 0.9).interval(predicted[:7, None])
    radius = float(conformal_quantile(y.abs(), 0.9))
    assert (float(low), float(high)) == (-radius, radius)


def test_states_come_back_from_json_exactly() -> None:
    predicted, y = Gaussian(numbers(40, 2), numbers(40, 2).exp()), numbers(40, 2, seed=1)
    one, target = predicted[:, 0], y[:, 0]
    labels = Bernoulli(numbers(40, 2))
    states = [
        fit_scaled_residual(predicted, y, 0.9),
        fit_scaled_residual(one, target, 0.9, spread="constant"),
        fit_conformal_quantiles(predicted, y, 0.9),
        fit_conformal_quantiles(one, target, 0.8, symmetric=False),
        fit_cross_conformal(one, target, torch.arange(40) % 5, 0.9),
        fit_class_sets(labels, (y > 0).double(), 0.9, method="adaptive", randomized=True, generator=generator()),
    ]
    for state in states:
        text = json.dumps(state.to_dict(), allow_nan=False)
        assert from_dict(json.loads(text)) == state


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    predicted, y = Gaussian(torch.zeros(18), torch.ones(18)), torch.zeros(18)
    with pytest.raises(InputError, match="at least 19 rows"):
        fit_scaled_residual(predicted, y, 0.95)
    with pytest.raises(InputError, match="at least 19 rows"):
        fit_conformal_quantiles(predicted, y, 0.9, symmetric=False)
    with pytest.raises(InputError, match="at least 19"):
        fit_cross_conformal(predicted, y, torch.arange(18) % 3, 0.95)
    with pytest.raises(InputError, match="at least 99 rows"):
        fit_class_sets(Categorical(torch.zeros(18, 2)), torch.zeros(18), 0.99)


def test_errors_say_what_is_wrong() -> None:
    predicted, y = Gaussian(torch.zeros(20), torch.ones(20)), torch.zeros(20)
    for level in (0.0, 1.0, math.nan, 90.0):
        with pytest.raises(DomainError, match="between 0 and 1"):
            fit_scaled_residual(predicted, y, level)
    with pytest.raises(DomainError, match="NaN"):
        fit_scaled_residual(predicted, torch.full((20,), torch.nan), 0.9)
    with pytest.raises(DomainError, match="standard deviation is 0"):
        fit_scaled_residual(Gaussian(torch.zeros(20), torch.zeros(20)), y, 0.9)
    with pytest.raises(ShapeError, match="one shape"):
        fit_scaled_residual(predicted, y.unsqueeze(-1), 0.9)
    two = fit_scaled_residual(Gaussian(torch.zeros(20, 2), torch.ones(20, 2)), torch.zeros(20, 2), 0.9)
    with pytest.raises(ShapeError, match="as fitted"):
        two.interval(predicted)
    with pytest.raises(ShapeError, match="one weight"):
        conformal_quantile(torch.zeros(20, 2), 0.9, sample_weight=torch.ones(20, 2))
    with pytest.raises(InputError, match="no values"):
        conformal_quantile(torch.zeros(0), 0.9)
    with pytest.raises(InputError, match="numbered"):
        fit_cross_conformal(predicted, y, torch.arange(20) % 3 + 1, 0.9)
    with pytest.raises(InputError, match="randomized"):
        fit_class_sets(Categorical(torch.zeros(20, 2)), torch.zeros(20), 0.9, randomized=True)
    with pytest.raises(InputError, match="no calibration named"):
        from_dict({"name": "magic"})
    with pytest.raises(InputError, match="fields"):
        from_dict({"name": "scaled_residual", "level": 0.9})
