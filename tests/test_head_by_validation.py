"""``head="auto"``: which head wins on data whose likelihood is known, and that no density wins by a spike."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from sklearn.base import clone

import lastlayer
from lastlayer import LastLayerWarning, Regressor, distributions
from lastlayer.checks import InputError
from lastlayer.head_by_validation import cell_log_probability, grid_step
from lastlayer.heads import admissible_heads
from lastlayer.training import loop

OPTIONS: dict[str, Any] = {"head": "auto", "hidden": (16,), "max_epochs": 12, "learning_rate": 1e-2, "bins": 0}
ROWS = np.random.default_rng(0).normal(size=(400, 2))


def poisson() -> NDArray[Any]:
    return np.random.default_rng(1).poisson(np.exp(1.0 + 0.5 * ROWS[:, 0])).astype(float)


def overdispersed() -> NDArray[Any]:
    mean = np.exp(1.5 + 0.5 * ROWS[:, 0])
    return np.random.default_rng(2).negative_binomial(1.0, 1 / (1 + mean)).astype(float)


def log_normal() -> NDArray[Any]:
    return np.exp(1.5 * ROWS[:, 0] + 0.7 * np.random.default_rng(3).normal(size=400))


def gaussian() -> NDArray[Any]:
    return ROWS[:, 0] + 0.5 * np.random.default_rng(4).normal(size=400)


def heavy() -> NDArray[Any]:
    return ROWS[:, 0] + 0.3 * np.random.default_rng(5).standard_t(2.0, size=400)


KINDS = {
    poisson: ("poisson", "negative_binomial"),
    overdispersed: ("negative_binomial",),
    log_normal: ("log_normal", "gamma"),
    gaussian: ("gaussian", "gaussian:predicted", "student_t", "mixture:5"),
    heavy: ("student_t", "laplace:predicted", "mixture:5"),
}
_FITTED: dict[Any, Regressor] = {}


def fitted(make: Any) -> Regressor:
    """The model of such a target, made once."""
    if make not in _FITTED:
        _FITTED[make] = Regressor(**OPTIONS).fit(ROWS, make())
    return _FITTED[make]


every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


@every_kind
def test_the_likelihood_that_made_the_data_wins(make: Any) -> None:
    model = fitted(make)
    best = min(model.tried_, key=lambda name: model.tried_[name])
    assert best in KINDS[make]
    assert model.head_.facts.name == best.partition(":")[0]
    assert model.tried_.keys() == admissible_heads(make()).keys()
    assert all(map(math.isfinite, model.tried_.values()))


def test_figures_of_the_trials_are_near_those_of_the_truth() -> None:
    """The winner cannot be much better than what made the data, nor is it much worse."""
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert min(fitted(gaussian).tried_.values()) == pytest.approx(entropy, abs=0.15)
    rate = np.exp(1.0 + 0.5 * ROWS[:, 0])
    truth = -scipy.stats.poisson.logpmf(poisson(), rate).mean()
    assert min(fitted(poisson).tried_.values()) == pytest.approx(truth, abs=0.15)


def test_what_was_tried_is_recorded_and_comes_back(tmp_path: Path) -> None:
    model = fitted(poisson)
    model.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["record"]["tried"] == model.tried_
    loaded = lastlayer.load(tmp_path / "model")
    assert isinstance(loaded, Regressor)
    assert loaded.head == "auto"
    assert loaded.tried_ == model.tried_
    assert loaded.head_ == model.head_
    assert np.array_equal(loaded.predict_quantiles(ROWS), model.predict_quantiles(ROWS))
    assert clone(loaded).get_params() == model.get_params()
    again = clone(loaded).fit(ROWS, poisson())
    assert again.tried_ == model.tried_
    assert np.array_equal(again.predict(ROWS), model.predict(ROWS))


def test_another_fit_without_auto_forgets_what_was_tried() -> None:
    model = Regressor(**OPTIONS | {"max_epochs": 1}).fit(ROWS, gaussian())
    assert "tried" in model.model_.record
    model.set_params(head="gaussian").fit(ROWS, gaussian())
    assert not hasattr(model, "tried_")
    assert "tried" not in model.model_.record


def test_every_head_is_judged_on_the_same_rows_whatever_the_seed_is() -> None:
    """A random state that moves on would give every head other rows; the same one again gives the same choice."""
    options = OPTIONS | {"max_epochs": 2}
    models = [Regressor(**options, random_state=np.random.RandomState(3)).fit(ROWS, gaussian()) for _ in range(2)]
    seed = int(np.random.RandomState(3).randint(2**31))
    by_number = Regressor(**options, random_state=seed).fit(ROWS, gaussian())
    assert models[0].tried_ == models[1].tried_ == by_number.tried_
    assert np.array_equal(models[0].predict(ROWS), by_number.predict(ROWS))


def test_members_and_calibration_are_for_the_winner_too() -> None:
    options = OPTIONS | {"max_epochs": 2}
    model = Regressor(**options, members=2, calibration="pit").fit(ROWS, poisson())
    assert model.model_.calibration is not None
    assert model.model_.members(ROWS).shape == (2, 400)
    # What multiplies a spread leaves no whole numbers, so counts' heads are not tried.
    scaled = Regressor(**options, calibration="scale").fit(ROWS, poisson())
    assert scaled.tried_.keys() == {name for name in model.tried_ if name not in ("poisson", "negative_binomial")}


def test_without_rows_to_judge_by_there_is_no_choice() -> None:
    for model, rows in ((Regressor(**OPTIONS, validation_fraction=0), 400), (Regressor(**OPTIONS), 9)):
        with pytest.raises(InputError, match=f"judged on rows held out; of {rows} rows"):
            model.fit(ROWS[:rows], gaussian()[:rows])
    with pytest.raises(InputError, match="partial_fit holds none out"):
        Regressor(**OPTIONS).partial_fit(ROWS, gaussian())


def test_control_c_ends_the_trials_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.one_epoch, []

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "one_epoch", interrupted)
    with pytest.warns(LastLayerWarning, match="interrupted after epoch 1"):
        model = Regressor(**OPTIONS | {"max_epochs": 2}).fit(ROWS, gaussian())
    assert [*model.tried_] == ["gaussian", "gaussian:predicted"]
    assert np.isfinite(model.predict(ROWS)).all()


# --- spikes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ([3, 6, 4], 1.0),
        ([10, 40, 20], 10.0),
        ([2, 4, 7], 1.0),
        ([1.5, 3.0, 6.0], 1.5),
        ([0.1, 0.2, 0.3, 1.0, 7.7], 0.1),
        (np.float32([0.1, 0.2, 0.3, 1.0, 7.7]), 0.1),
        ([1e15, 1e15 + 3], 3.0),
        ([5, 5], 1.0),
        ([0.5, 0.5], None),
        ([0.1, 2.3, 9.0, 4.4, 5.7], 0.1),
        (np.random.default_rng(0).normal(size=50), None),
        (np.random.default_rng(0).normal(size=50) * 1e17, None),
    ],
    ids=str,
)
def test_the_step_of_a_target(target: Any, step: float | None) -> None:
    found = grid_step(np.asarray(target))
    if step is None:
        # Of enormous numbers the step is that of floating point, next to nothing.
        assert found is None or found < 1e-10 * np.ptp(target)
    elif found is not None:
        assert found == pytest.approx(step, rel=1e-5)
    else:
        # No two neighbors are one step apart: taken as not in steps.
        assert np.diff(np.unique(target)).min() > 1.5 * step


def test_the_probability_of_a_cell_is_scipys() -> None:
    y = torch.tensor([0.0, 2.0, -3.0, 30.0, 400.0], dtype=torch.float64)
    mean, scale = torch.zeros(5, dtype=torch.float64), torch.full((5,), 1.5, dtype=torch.float64)
    ours = cell_log_probability(distributions.Gaussian(mean, scale), y, 0.5, y)
    normal = scipy.stats.norm(scale=1.5)
    expected = np.log(normal.cdf(y[:3].numpy() + 0.25) - normal.cdf(y[:3].numpy() - 0.25))
    np.testing.assert_allclose(ours[:3], expected, rtol=1e-9)
    # Far out the density times the step; finite where the density itself is 0.
    np.testing.assert_allclose(ours[3:], normal.logpdf(y[3:].numpy()) + math.log(0.5))
    counts = distributions.Poisson(torch.full((5,), 1.0, dtype=torch.float64))
    count = torch.tensor([0.0, 1.0, 2.0, 60.0, 400.0], dtype=torch.float64)
    np.testing.assert_allclose(
        cell_log_probability(counts, count, 1.0, count), scipy.stats.poisson.logpmf(count.numpy(), math.e), rtol=1e-6
    )
    # Of multiples of ten a count's head is asked for the ten numbers around.
    ten = torch.tensor([10.0], dtype=torch.float64)
    wide = cell_log_probability(counts.map(lambda rate: rate[:1] + 1), ten, 10.0, ten)
    assert float(wide) == pytest.approx(np.log(scipy.stats.poisson.pmf(np.arange(6, 16), math.e**2).sum()))


@pytest.mark.parametrize("step", [1.0, 10.0, 0.5])
def test_a_spike_gains_nothing_over_a_density_that_is_even(step: float) -> None:
    """As a density the spike is ten thousand times as likely; as a probability both say the same of the six grades."""
    grade = step * torch.arange(6, dtype=torch.float64).repeat(20)
    shape = (6, 120)
    centers = step * torch.arange(6, dtype=torch.float64).unsqueeze(1).expand(shape)

    def mixture(scale: float) -> distributions.Distribution:
        return distributions.Gaussian(centers, torch.full(shape, step * scale, dtype=torch.float64)).mixed()

    spiked, even = mixture(1e-5), mixture(0.29)
    density = [float(each.log_prob(grade).mean()) for each in (spiked, even)]
    assert density[0] > density[1] + 9
    cell = [float(cell_log_probability(each, grade, step, grade).mean()) for each in (spiked, even)]
    # At most the probability that the truth gives, a sixth.
    assert cell[0] == pytest.approx(math.log(1 / 6), abs=1e-6)
    assert cell[1] == pytest.approx(cell[0], abs=0.1)


@pytest.mark.parametrize("step", [1.0, 10.0])
def test_counts_in_steps_are_not_won_by_a_mixture_that_spikes(step: float) -> None:
    """Poisson counts of few values: five components could stand on five of them."""
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(500, 1))
    count = rng.poisson(np.exp(0.3 + 0.3 * rows[:, 0]))
    model = Regressor(**OPTIONS | {"max_epochs": 15}).fit(rows, step * count)
    truth = -scipy.stats.poisson.logpmf(count, np.exp(0.3 + 0.3 * rows[:, 0])).mean()
    # No head knows more than the truth, chance of 60 rows apart. As a density five spikes say log(1/scale) more.
    assert min(model.tried_.values()) > truth - 0.25
    if step == 1.0:
        assert model.tried_["poisson"] == pytest.approx(min(model.tried_.values()), abs=0.05)
