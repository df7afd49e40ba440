"""Every head through the estimators: units, quantiles, intervals, calibration, class weights, saved and loaded."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import log_loss

import lastlayer
from command_line import environment
from lastlayer import Classifier, LastLayerWarning, Regressor, heads
from lastlayer.checks import InputError
from lastlayer.heads import admissible_heads

SMALL: dict[str, Any] = {"hidden": (16,), "max_epochs": 3}
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(160, 3))
REAL = ROWS[:, 0] + 0.5 * RANDOM.normal(size=160)
TARGETS = {
    "real": REAL,
    "positive": np.exp(REAL),
    "unit": 1 / (1 + np.exp(-REAL)),
    "count": RANDOM.poisson(np.exp(0.5 * ROWS[:, 0] + 1)).astype(float),
}
CLASSES = np.digitize(REAL, [-0.5, 0.5])

#: Every head of a quantity, beside what ``admissible_heads`` knows, with the target that it is for.
HEADS: dict[str, str] = {
    "gaussian": "real", "gaussian:predicted": "real", "gaussian:0.5": "real",
    "laplace": "real", "laplace:predicted": "real",
    "student_t": "real", "student_t:4": "real",
    "mixture:5": "real", "mixture:2:laplace": "real",
    "quantiles": "real", "quantiles:0.1,0.5,0.9": "real",
    "log_normal": "positive", "gamma": "positive",
    "beta": "unit", "unit_interval": "unit", "unit_interval:squared_error": "unit",
    "poisson": "count", "negative_binomial": "count",
}  # fmt: skip
every_head = pytest.mark.parametrize("head", HEADS)
WAYS: dict[str, dict[str, Any]] = {
    "alone": {},
    "members": {"members": 2},
    "drawn": {"dropout": 0.2, "dropout_members": 3},
    "pit": {"calibration": "pit"},
    "scale": {"calibration": "scale"},
    "all of it": {"members": 2, "dropout": 0.2, "dropout_members": 2, "calibration": "pit"},
}
_FITTED: dict[tuple[str, str], Regressor] = {}


def fitted(head: str, way: str = "alone") -> Regressor:
    """A small model, made once."""
    if (head, way) not in _FITTED:
        _FITTED[head, way] = Regressor(head=head, **SMALL, **WAYS[way]).fit(ROWS, TARGETS[HEADS[head]])
    return _FITTED[head, way]


def nll(model: Regressor, target: NDArray[Any]) -> float:
    """In the target's units."""
    return -float(model.predict_distribution(ROWS).log_prob(torch.tensor(target)).mean())


def test_every_head_that_fits_a_quantity_is_here() -> None:
    assert {text for target in TARGETS.values() for text in admissible_heads(target)} <= HEADS.keys()
    quantities = {name for name, head in heads.catalog().items() if not head.over_classes}
    assert {name.partition(":")[0] for name in HEADS} == quantities


# --- what is predicted ------------------------------------------------------------------------------------------------


@every_head
def test_everything_that_can_be_asked_is_finite_and_in_order(head: str) -> None:
    model = fitted(head)
    for statistic in (None, "mean", "median", "mode"):
        predicted = model.predict(ROWS, statistic=statistic)
        assert predicted.shape == (160,)
        assert np.isfinite(predicted).all()
    shares = (0.01, 0.1, 0.4, 0.5, 0.8, 0.99)
    quantiles = model.predict_quantiles(ROWS, shares)
    assert quantiles.shape == (160, 6)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    # Where quantiles are searched for, the last digit depends on what else is asked.
    np.testing.assert_allclose(quantiles[:, 3], model.predict(ROWS, statistic="median"), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(quantiles[:, 3:4], model.predict_quantiles(ROWS, 0.5), rtol=1e-9, atol=1e-12)
    assert math.isfinite(nll(model, TARGETS[HEADS[head]]))
    inner, outer = model.predict_interval(ROWS, 0.5), model.predict_interval(ROWS, 0.9)
    assert (outer[:, 0] <= inner[:, 0]).all()
    assert (inner[:, 0] <= inner[:, 1]).all()
    assert (inner[:, 1] <= outer[:, 1]).all()
    samples = model.predict_distribution(ROWS).sample(50)
    assert model.predict_distribution(ROWS).support.contains(samples).all()


@every_head
def test_the_prediction_is_the_statistic_of_the_loss(head: str) -> None:
    model = fitted(head)
    statistic = "median" if head.startswith(("laplace", "quantiles")) else "mean"
    assert np.array_equal(model.predict(ROWS), model.predict(ROWS, statistic=statistic))
    with pytest.raises(InputError, match="statistic is 'max'; expected one of 'mean', 'median', 'mode'"):
        model.predict(ROWS, statistic="max")


@every_head
def test_conformal_intervals_nest_and_follow_the_quantiles(head: str) -> None:
    model = fitted(head)
    inner, outer = (model.predict_interval(ROWS, p, conformal=True) for p in (0.5, 0.9))
    assert np.isfinite(outer).all()
    assert (outer[:, 0] <= inner[:, 0]).all()
    assert (inner[:, 1] <= outer[:, 1]).all()
    target = TARGETS[HEADS[head]]
    # Three epochs are no model, but the promise is about any: 24 rows held out, of 160 mostly their like.
    assert ((target >= outer[:, 0]) & (target <= outer[:, 1])).mean() > 0.75
    with pytest.raises(InputError, match=r"24 held-out rows .* at least 99 rows"):
        model.predict_interval(ROWS, 0.99, conformal=True)


@pytest.mark.parametrize(
    ("head", "way"),
    [(head, "alone") for head in HEADS if heads.from_text(head).standardizes]
    + [(head, way) for head in ("gaussian:predicted", "quantiles") for way in ("members", "scale", "pit")],
)
def test_a_target_in_other_units_gives_the_same_model_in_those_units(head: str, way: str) -> None:
    other = Regressor(head=head, **SMALL, **WAYS[way]).fit(ROWS, 1000 * REAL - 3e4)
    one = fitted(head, way)
    assert nll(other, 1000 * REAL - 3e4) - nll(one, REAL) == pytest.approx(math.log(1000), abs=2e-3)
    np.testing.assert_allclose(other.predict(ROWS), 1000 * one.predict(ROWS) - 3e4, atol=2.0)
    np.testing.assert_allclose(other.predict_quantiles(ROWS), 1000 * one.predict_quantiles(ROWS) - 3e4, atol=5.0)
    figures = [model.model_.record["figures"]["network"] for model in (other, one)]
    for name in ("crps", "rmse", "mae", "width_90"):
        assert figures[0][name] == pytest.approx(1000 * figures[1][name], rel=2e-3)
    assert figures[0]["coverage_90"] == pytest.approx(figures[1]["coverage_90"], abs=0.05)


@pytest.mark.parametrize("head", ["log_normal", "gamma"])
def test_a_positive_target_in_other_units_gives_the_same_model_in_those_units(head: str) -> None:
    target = TARGETS["positive"]
    other, one = Regressor(head=head, **SMALL).fit(ROWS, 1000 * target), fitted(head)
    assert nll(other, 1000 * target) - nll(one, target) == pytest.approx(math.log(1000), abs=2e-3)
    np.testing.assert_allclose(other.predict(ROWS), 1000 * one.predict(ROWS), rtol=2e-3)


def test_a_mixture_finds_both_answers() -> None:
    rng = np.random.default_rng(2)
    rows = rng.uniform(-1, 1, size=(400, 1))
    target = np.where(rng.random(400) < 0.5, 1.0, -1.0) * 5 + 0.3 * rng.normal(size=400)
    model = Regressor(head="mixture:2", hidden=(16,), max_epochs=60, learning_rate=1e-2).fit(rows, target)
    assert np.abs(np.abs(model.predict(rows, statistic="mode")) - 5).max() < 0.6
    assert np.abs(model.predict(rows)).max() < 1.5
    plain = Regressor(head="gaussian", hidden=(16,), max_epochs=60).fit(rows, target)
    figures = [each.model_.record["figures"]["network"]["nll"] for each in (model, plain)]
    assert figures[0] < figures[1] - 1


def test_a_predicted_scale_follows_the_noise() -> None:
    rng = np.random.default_rng(3)
    rows = rng.uniform(-1, 1, size=(500, 1))
    target = np.exp(1.5 * rows[:, 0]) * rng.normal(size=500)
    model = Regressor(head="gaussian:predicted", hidden=(16,), max_epochs=60, learning_rate=1e-2).fit(rows, target)
    low, high = model.predict_interval(np.array([[-0.9], [0.9]]), 0.9) @ [-1, 1]
    assert high / low == pytest.approx(math.exp(2.7), rel=0.5)
    with pytest.raises(AttributeError, match="has no scale that all rows share"):
        _ = model.scale_


def test_a_head_that_is_for_no_quantity_or_no_head_is_an_error() -> None:
    wrong = {
        "gauss": "there is no head named 'gauss'",
        "mixture:0": "components is 0",
        "student_t:x": "'x' is not a number",
        "quantiles:0.9,0.1": "levels",
        "poisson:3": "takes no options",
        "bernoulli": "use a classifier",
        "ordinal": "has to know its classes",
    }
    for head, message in wrong.items():
        with pytest.raises(InputError, match=f"(?i){message}"):
            Regressor(head=head, **SMALL).fit(ROWS, REAL)


# --- saved and loaded -------------------------------------------------------------------------------------------------


def _answers(model: Any) -> dict[str, NDArray[Any]]:
    """Everything a model can say of the rows."""
    if isinstance(model, Classifier):
        answers = {
            "predict": model.predict(ROWS),
            "probability": model.predict_proba(ROWS),
            "decision": model.decision_function(ROWS),
        }
        return answers | ({"set": model.predict_set(ROWS, 0.8)} if model.model_.conformal_scores else {})
    return {
        "predict": model.predict(ROWS),
        "mode": model.predict(ROWS, statistic="mode"),
        "quantiles": model.predict_quantiles(ROWS),
        "interval": model.predict_interval(ROWS, 0.8),
        "conformal": model.predict_interval(ROWS, 0.8, conformal=True),
        "density": model.predict_distribution(ROWS).log_prob(torch.ones(160, dtype=torch.float64)).numpy(),
        "epistemic": model.decompose(ROWS).epistemic.numpy(),
    }


def _same(model: Any, other: Any) -> None:
    mine, others = _answers(model), _answers(other)
    assert mine.keys() == others.keys()
    for name, answer in mine.items():
        assert np.array_equal(answer, others[name], equal_nan=True), name
    records = [json.loads(json.dumps(each.model_.record)) for each in (model, other)]
    for record in records:
        record["training"].pop("seconds")
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("head", "way"),
    [*((head, "alone") for head in HEADS)]
    # Three kinds of distribution say the rest; a spread that is multiplied leaves no whole numbers.
    + [(head, way) for head in ("gaussian:predicted", "log_normal", "poisson") for way in WAYS if way != "alone"
       and (head, way) != ("poisson", "scale")],
)  # fmt: skip
def test_a_loaded_quantity_answers_the_same_bit_for_bit(head: str, way: str, tmp_path: Path) -> None:
    model = fitted(head, way)
    model.save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    _same(model, loaded)
    assert loaded.get_params() == model.get_params()
    assert clone(loaded).get_params() == model.get_params()
    # Not the constants that were fitted, but what was asked for.
    assert loaded.head_ == model.head_


OBJECTS = [
    heads.Gaussian(scale=0.3),
    heads.Gaussian(scale="predicted", beta=0.0, minimum_scale=0.05),
    heads.StudentT(degrees_of_freedom=7.0),
    heads.Mixture(2, "logistic"),
    heads.Quantiles((0.2, 0.5, 0.7)),
]


@pytest.mark.parametrize("head", OBJECTS, ids=str)
def test_a_head_with_options_is_kept_as_it_was_given(head: heads.Head, tmp_path: Path) -> None:
    model = Regressor(head=head, **SMALL).fit(ROWS, REAL)
    assert model.head is head
    model.save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    assert loaded.head == head
    _same(model, loaded)
    _same(model, clone(loaded).fit(ROWS, REAL))


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ordinal": {"head": "ordinal"},
    "categorical": {"head": "categorical"},
    "members": {"members": 2},
    "drawn": {"dropout_members": 3},
    "temperature": {"calibration": "temperature"},
    "isotonic": {"calibration": "isotonic"},
    "weighted": {"class_weight": "balanced"},
    "weighted by hand": {"class_weight": {0: 3.0, 1: 0.5}},
    "weighted and ordinal": {"class_weight": "balanced", "head": "ordinal"},
    "all of it": {"members": 2, "dropout_members": 2, "calibration": "isotonic", "class_weight": "balanced"},
}


@pytest.mark.parametrize("way", CLASSIFIERS)
@pytest.mark.parametrize("count", [2, 3])
def test_loaded_classes_answer_the_same_bit_for_bit(way: str, count: int, tmp_path: Path) -> None:
    target = CLASSES.clip(max=count - 1)
    if count == 2 and way == "categorical":
        assert Classifier(head="categorical", **SMALL).fit(ROWS, target).decision_function(ROWS).shape == (160,)
    model = Classifier(**SMALL, **CLASSIFIERS[way]).fit(ROWS, target)
    model.save(tmp_path / "model")
    loaded: Any = lastlayer.load(tmp_path / "model")
    _same(model, loaded)
    assert loaded.get_params() == model.get_params()
    _same(model, clone(loaded).fit(ROWS, target))


@pytest.mark.parametrize("way", ["members", "drawn", "temperature", "isotonic"])
def test_loaded_labels_answer_the_same_bit_for_bit(way: str, tmp_path: Path) -> None:
    labels = (ROWS[:, :2] > 0.2).astype(int)
    model = Classifier(**SMALL, **CLASSIFIERS[way]).fit(ROWS, labels)
    model.save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    _same(model, loaded)
    assert np.array_equal(model.predict(ROWS), (model.predict_proba(ROWS) > 0.5))
    with pytest.raises(InputError, match="several labels have none"):
        model.predict_set(ROWS)


def test_another_process_answers_the_same(tmp_path: Path) -> None:
    model = fitted("gaussian:predicted", "all of it")
    model.save(tmp_path / "model")
    np.save(tmp_path / "rows.npy", ROWS)
    program = (
        "import sys, numpy as np, lastlayer; folder = sys.argv[1]; model = lastlayer.load(folder + '/model');"
        "rows = np.load(folder + '/rows.npy');"
        "np.save(folder + '/answer.npy', np.c_[model.predict_quantiles(rows), model.predict_interval(rows, 0.8,"
        "conformal=True), model.predict(rows)])"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment(), timeout=120)
    here = np.c_[model.predict_quantiles(ROWS), model.predict_interval(ROWS, 0.8, conformal=True), model.predict(ROWS)]
    # Another process may have another number of threads.
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), here, rtol=1e-5, atol=1e-6)


def test_options_of_numpy_and_any_sequence_are_kept(tmp_path: Path) -> None:
    model = Regressor(
        hidden=np.array([16]), max_epochs=np.int64(2), learning_rate=np.float64(1e-3), members=np.int64(2)
    )
    model.fit(ROWS, REAL).save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    assert loaded.hidden == (16,)
    assert (loaded.max_epochs, loaded.learning_rate, loaded.members) == (2, 1e-3, 2)
    assert np.array_equal(clone(loaded).fit(ROWS, REAL).predict(ROWS), model.predict(ROWS))


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "target", "calibration", "expected"),
    [
        (Regressor(head="poisson"), TARGETS["count"], "scale", "expected 'pit' for counts"),
        (Regressor(), REAL, "temperature", "expected 'scale' or 'pit' for quantities"),
        (Regressor(head="auto"), REAL, "isotonic", "expected 'scale' or 'pit' for quantities"),
        (Regressor(), REAL, "platt", "calibration is 'platt'"),
        (Classifier(), CLASSES, "pit", "expected 'temperature' or 'isotonic' for classes"),
        (Classifier(head="ordinal"), CLASSES, "scale", "expected 'temperature' or 'isotonic' for classes"),
    ],
    ids=str,
)
def test_a_calibration_that_does_not_fit_is_refused_before_training(
    estimator: Any, target: Any, calibration: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr("lastlayer.fitting.train", never)
    with pytest.raises(InputError, match=expected):
        estimator.set_params(calibration=calibration).fit(ROWS, target)
    right = "temperature" if isinstance(estimator, Classifier) else "pit"
    with pytest.raises(InputError, match="no rows are held out to fit it to"):
        estimator.set_params(calibration=right, validation_fraction=0).fit(ROWS, target)
    with pytest.raises(InputError, match=r"9 rows are too few|of 9 rows"):
        estimator.set_params(validation_fraction=0.15).fit(ROWS[:9], target[:9])


@pytest.mark.parametrize("kind", [Regressor, Classifier])
def test_one_pass_cannot_be_calibrated(kind: type[Any]) -> None:
    calibration, target = ("pit", REAL) if kind is Regressor else ("isotonic", CLASSES)
    with pytest.raises(InputError, match="partial_fit holds none out"):
        kind(calibration=calibration, **SMALL).partial_fit(ROWS, target)
    passed = kind(**SMALL).partial_fit(ROWS, target)
    with pytest.raises(InputError, match="kept no scores of held-out rows"):
        passed.predict_interval(ROWS, conformal=True) if kind is Regressor else passed.predict_set(ROWS)


@pytest.mark.parametrize(("calibration", "scale"), [("scale", 0.05), ("scale", 5.0), ("pit", 0.3), ("pit", 2.0)])
def test_calibration_mends_a_scale_that_is_wrong(calibration: str, scale: float) -> None:
    """A scale finds any factor; a map of levels some, for it has no rows where predictions had no probability."""
    rng = np.random.default_rng(5)
    rows, fresh = rng.normal(size=(600, 2)), rng.normal(size=(400, 2))
    target, truth = (x[:, 0] + rng.normal(size=len(x)) for x in (rows, fresh))
    options: dict[str, Any] = {"head": heads.Gaussian(scale=scale), "hidden": (), "max_epochs": 15, "bins": 0}
    wrong = Regressor(**options).fit(rows, target)
    mended = Regressor(**options, calibration=calibration).fit(rows, target)
    coverage, widths = [], []
    for model in (wrong, mended):
        low, high = model.predict_interval(fresh, 0.9).T
        coverage.append(((truth >= low) & (truth <= high)).mean())
        widths.append((high - low).mean())
    # 90 rows held out: their own coverage strays by 0.03.
    assert coverage[0] < 0.6 if scale < 1 else coverage[0] > 0.995
    assert coverage[1] == pytest.approx(0.9, abs=0.06 if calibration == "scale" else 0.1)
    assert (widths[1] > 2 * widths[0]) if scale < 1 else (widths[1] < 0.7 * widths[0])
    likelihood = [
        float(model.predict_distribution(fresh).log_prob(torch.tensor(truth)).mean()) for model in (wrong, mended)
    ]
    assert likelihood[1] > likelihood[0] + 0.2
    if calibration == "scale":
        # The prediction itself stays.
        np.testing.assert_allclose(mended.predict(fresh), wrong.predict(fresh))


@pytest.mark.parametrize("target", ["two", "three", "labels"])
@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_calibrated_probabilities_are_probabilities(target: str, calibration: str) -> None:
    y: Any = {"two": CLASSES > 0, "three": CLASSES, "labels": (ROWS[:, :2] > 0).astype(int)}[target]
    plain = Classifier(**SMALL).fit(ROWS, y)
    model = Classifier(**SMALL, calibration=calibration).fit(ROWS, y)
    probability = model.predict_proba(ROWS)
    assert ((probability > 0) & (probability < 1)).all()
    if target != "labels":
        np.testing.assert_allclose(probability.sum(1), 1)
    assert not np.allclose(probability, plain.predict_proba(ROWS))
    if calibration == "temperature":
        assert np.array_equal(model.predict(ROWS), plain.predict(ROWS))
        ratio = np.log(probability / (1 - probability)) if target != "three" else np.diff(np.log(probability), axis=1)
        before = plain.predict_proba(ROWS)
        before = np.log(before / (1 - before)) if target != "three" else np.diff(np.log(before), axis=1)
        # Logits by one number, and that of the held-out rows is not 1.
        slope = (ratio * before).sum() / (before**2).sum()
        np.testing.assert_allclose(ratio, slope * before, atol=1e-6)


def test_temperature_takes_overconfidence_away() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(300, 10))
    target = (rows[:, 0] + 2 * rng.normal(size=300) > 0).astype(int)
    fresh = rng.normal(size=(1000, 10))
    truth = (fresh[:, 0] + 2 * rng.normal(size=1000) > 0).astype(int)
    # Without early stopping's judgment it learns the rows by heart.
    options: dict[str, Any] = {
        "hidden": (64,), "max_epochs": 30, "patience": 100, "dropout": 0.0, "weight_decay": 0.0, "average": 0.0,
        "learning_rate": 1e-2, "refit": False, "validation_fraction": 0.3,
    }  # fmt: skip
    plain, mended = (Classifier(**options, calibration=name).fit(rows, target) for name in (None, "temperature"))
    losses = [log_loss(truth, model.predict_proba(fresh)) for model in (plain, mended)]
    assert losses[1] < losses[0] + 1e-3


# --- classes that count differently -----------------------------------------------------------------------------------


def _rare(rng: np.random.Generator, rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Three classes, of which the last is rare."""
    x = rng.normal(size=(rows, 2))
    score = x[:, 0] + rng.normal(size=rows)
    return x, np.digitize(score, [0.0, 2.2])


@pytest.mark.parametrize(
    ("head", "count", "members"),
    [(None, 2, 1), (None, 3, 1), ("ordinal", 2, 1), ("ordinal", 3, 2), ("categorical", 2, 1), (None, 3, 2)],
)
def test_class_weights_shift_decisions_and_leave_probabilities_true(head: str | None, count: int, members: int) -> None:
    rng = np.random.default_rng(7)
    rows, target = _rare(rng, 900)
    if count == 2:
        target = (target == 2).astype(int)
    rare = count - 1
    options: dict[str, Any] = {"hidden": (16,), "max_epochs": 25, "learning_rate": 5e-3, "head": head}
    options |= {"members": members, "dropout": 0.0, "weight_decay": 0.01}
    plain = Classifier(**options).fit(rows, target)
    balanced = Classifier(**options, class_weight="balanced").fit(rows, target)
    fresh, truth = _rare(rng, 2000)
    truth = (truth == 2).astype(int) if count == 2 else truth
    share = (truth == rare).mean()
    for model in (plain, balanced):
        assert model.predict_proba(fresh)[:, rare].mean() == pytest.approx(share, abs=0.04)
    losses = [log_loss(truth, model.predict_proba(fresh)) for model in (plain, balanced)]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert (balanced.predict(fresh) == rare).mean() > (plain.predict(fresh) == rare).mean() + 0.04
    recall = [(model.predict(fresh)[truth == rare] == rare).mean() for model in (plain, balanced)]
    assert recall[1] > recall[0] + 0.2
    # Decided for is the class that is likeliest once each counts as in training.
    weight = len(target) / (count * np.bincount(target))
    expected = (balanced.predict_proba(fresh) * weight).argmax(1)
    assert (balanced.predict(fresh) == expected).mean() > 0.999
    # The figures kept are of rows as they occur, and fair to the simpler models.
    figures = balanced.model_.record["figures"]
    assert figures["network"]["nll"] == pytest.approx(plain.model_.record["figures"]["network"]["nll"], abs=0.08)
    linear = plain.model_.record["figures"]["linear"]["nll"]
    assert figures["linear"]["nll"] == pytest.approx(linear, abs=0.1)
    assert figures["network"]["balanced_accuracy"] == pytest.approx(figures["linear"]["balanced_accuracy"], abs=0.12)


@pytest.mark.parametrize(("calibration", "members"), [(None, 1), (None, 2), ("temperature", 1), ("isotonic", 2)])
@pytest.mark.parametrize("head", [None, "ordinal"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_decisions_are_those_of_the_decision_function(
    calibration: str | None, head: str | None, count: int, weight: str | None, members: int
) -> None:
    target = np.array(["a", "b", "c"])[CLASSES.clip(max=count - 1)]
    model = Classifier(
        **SMALL, calibration=calibration, head=head, class_weight=weight, members=members
    ).fit(ROWS, target)  # fmt: skip
    scores, predicted = model.decision_function(ROWS), model.predict(ROWS)
    chosen = (scores > 0).astype(int) if count == 2 else scores.argmax(1)
    assert scores.shape == ((160,) if count == 2 else (160, 3))
    assert np.array_equal(predicted, model.classes_[chosen])
    if weight is None:
        assert np.array_equal(chosen, model.predict_proba(ROWS).argmax(1))


def test_a_weight_per_class_leaves_out_what_counts_once() -> None:
    rows, target = _rare(np.random.default_rng(8), 300)
    by_hand = Classifier(**SMALL, class_weight={2: 4.0}).fit(rows, target)
    assert by_hand.model_.class_weight == (1.0, 1.0, 4.0)
    in_full = Classifier(**SMALL, class_weight={0: 1.0, 1: 1, 2: 4}).fit(rows, target)
    assert np.array_equal(by_hand.predict_proba(rows), in_full.predict_proba(rows))
    # A class of weight 0 is left out, which no probability undoes.
    without = Classifier(**SMALL, class_weight={2: 0}).fit(rows, target)
    assert (without.predict_proba(rows)[:, 2] < 1e-3).all()
    assert without.model_.class_weight is None
    for wrong in ({3: 1.0}, {0: -1.0}, "even", {0: math.nan}, {0: 0, 1: 0, 2: 0}, {"0": "x"}, 3):
        with pytest.raises(InputError, match="class_weight is"):
            Classifier(**SMALL, class_weight=wrong).fit(rows, target)
    with pytest.raises(InputError, match="class_weight is for classes"):
        Classifier(**SMALL, class_weight="balanced").fit(rows, (rows > 0).astype(int))


def test_weights_of_rows_and_of_classes_multiply() -> None:
    rows, target = _rare(np.random.default_rng(9), 300)
    weight = np.random.default_rng(10).integers(1, 4, size=300).astype(float)
    options: dict[str, Any] = SMALL | {"calibration": "temperature"}
    both = Classifier(**options, class_weight={1: 2.0, 2: 5.0}).fit(rows, target, sample_weight=weight)
    by_rows = Classifier(**options).fit(rows, target, sample_weight=weight * np.array([1.0, 2.0, 5.0])[target])
    # The same network, of which one knows that classes were weighted.
    raw, other = (model.model_.raw(rows) for model in (both, by_rows))
    torch.testing.assert_close(raw, other)
    plain = torch.softmax(raw - torch.tensor([1.0, 2.0, 5.0]).log(), 1).log()
    calibration = both.model_.calibration
    assert isinstance(calibration, lastlayer.uncertainty.Temperature)
    expected = torch.softmax(plain / calibration.temperature, 1)
    np.testing.assert_allclose(both.predict_proba(rows), expected.numpy(), rtol=1e-6)
    # Rows that count differently have no conformal guarantee, and their figures are of rows as they were given.
    assert both.model_.conformal_scores == ()
    same = Classifier(**options, class_weight={1: 2.0, 2: 5.0}).fit(rows, target, sample_weight=np.full(300, 2.0))
    assert len(same.model_.conformal_scores) > 30


def test_balanced_pass_by_pass_is_refused_and_a_weight_per_class_is_not() -> None:
    rows, target = _rare(np.random.default_rng(11), 300)
    with pytest.raises(InputError, match="class_weight is 'balanced', which needs all rows"):
        Classifier(**SMALL, class_weight="balanced").partial_fit(rows, target)
    model = Classifier(**SMALL, class_weight={2: 5.0})
    # The first pass sees none of it.
    model.partial_fit(rows[target < 2], target[target < 2], classes=[0, 1, 2])
    assert model.model_.class_weight == (1.0, 1.0, 5.0)
    for _ in range(30):
        model.partial_fit(rows, target)
    assert model.predict_proba(rows)[:, 2].mean() == pytest.approx((target == 2).mean(), abs=0.06)


# --- a target in steps ------------------------------------------------------------------------------------------------


STEPPED = [
    "gaussian",
    "laplace",
    "gaussian:predicted",
    "laplace:predicted",
    "student_t",
    "mixture:3",
    "mixture:2:laplace",
]


@pytest.mark.parametrize(("head", "step"), [*((head, 1.0) for head in STEPPED), ("gaussian:predicted", 0.25)])
def test_no_scale_falls_below_what_rounding_leaves(head: str, step: float) -> None:
    """Grades that are known without error: a density could be as high as it likes."""
    rng = np.random.default_rng(12)
    grade = rng.integers(3, 9, size=150)
    rows = np.eye(9)[grade]
    options: dict[str, Any] = {"hidden": (), "max_epochs": 60, "learning_rate": 0.1, "average": 0.0}
    model = Regressor(head=head, **options).fit(rows, step * grade)
    raw = model.model_.raw(rows)
    scale = model.head_.parameters(raw)["scale"] * model.model_.coding.scale
    assert scale.min() >= 0.1 * step
    # And it got down there, or the bound was not put to the test.
    assert scale.min() < 0.5 * step
    assert float(model.predict_distribution(rows).log_prob(torch.tensor(step * grade)).max()) < math.log(10 / step)
    linear = model.model_.baselines["linear"].head
    assert linear.parameters(torch.zeros(1, 1))["scale"].item() * model.model_.coding.scale >= 0.1 * step


def test_a_scale_given_or_of_a_target_without_steps_is_left_alone() -> None:
    assert Regressor(head=heads.Gaussian(scale=0.01), **SMALL).fit(ROWS, CLASSES.astype(float)).head_.one_scale == 0.01
    # A line without noise: a ridge baseline comes far closer to it than a thousandth of its spread.
    model = Regressor(head="gaussian", **SMALL).fit(ROWS, ROWS[:, 0] * 3.0)
    assert model.model_.baselines["linear"].head.one_scale < 0.02


def test_all_rows_the_same_end_in_a_model_that_says_so() -> None:
    for head in ("gaussian", "gaussian:predicted", "quantiles", "student_t", "gamma", "poisson"):
        model = Regressor(head=head, **SMALL).fit(ROWS, np.full(160, 3.0))
        np.testing.assert_allclose(model.predict(ROWS), 3.0, atol=0.3)
        assert math.isfinite(model.model_.record["figures"]["network"]["nll"])


def test_warnings_are_for_what_was_left_out_only() -> None:
    with pytest.warns(LastLayerWarning, match="1 of 160 rows have no target"):
        Regressor(**SMALL, head="mixture:2").fit(ROWS, np.r_[np.nan, REAL[1:]])
