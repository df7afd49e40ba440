"""The estimators on real tables: what they learn, in whose units, with which weights, and what they keep."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lastlayer
from lastlayer import Classifier, LastLayerWarning, Regressor
from lastlayer.checks import DomainError, InputError
from lastlayer.heads import Bernoulli, Categorical, Laplace, MultiLabel
from lastlayer.preprocessing import read_table
from lastlayer.training import loop

PENGUINS = Path(__file__).parent.parent / "data" / "penguins.csv.gz"
QUICK: dict[str, Any] = {"hidden": (32,), "max_epochs": 40, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def penguins() -> tuple[polars.DataFrame, polars.Series]:
    table = read_table(PENGUINS)
    return table.drop("species"), table["species"]


@pytest.fixture(scope="module")
def classifier(penguins: tuple[polars.DataFrame, polars.Series]) -> Classifier:
    return Classifier(**QUICK).fit(*penguins)


@pytest.fixture(scope="module")
def regressor() -> Regressor:
    return Regressor(**QUICK).fit(*load_diabetes(return_X_y=True))


# --- it learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
def test_classes_are_learned_better_than_by_the_constant(load: Any) -> None:
    features, target = load(return_X_y=True)
    model = Classifier(**QUICK).fit(features[::2], target[::2])
    assert model.score(features[1::2], target[1::2]) > 0.9
    shares = np.bincount(target) / len(target)
    constant = -(shares * np.log(shares)).sum()
    assert log_loss(target[1::2], model.predict_proba(features[1::2])) < 0.4 * constant


@pytest.mark.parametrize("head", ["gaussian", "laplace"])
def test_a_quantity_is_learned_better_than_by_the_constant(head: str) -> None:
    features, target = load_diabetes(return_X_y=True)
    model = Regressor(head=head, **QUICK).fit(features[::2], target[::2])
    assert model.score(features[1::2], target[1::2]) > 0.35
    assert 30 < model.scale_ < 80


def test_a_share_stays_in_the_unit_interval() -> None:
    features, target = load_diabetes(return_X_y=True)
    share = (target - target.min()) / np.ptp(target)
    model = Regressor(head="unit_interval", **QUICK).fit(features[::2], share[::2])
    predicted = model.predict(features[1::2] * 10)
    assert (predicted >= 0).all()
    assert (predicted <= 1).all()
    assert model.score(features[1::2], share[1::2]) > 0.35
    with pytest.raises(DomainError, match="lies outside"):
        Regressor(head="unit_interval", **QUICK).fit(features, target)


def test_labels_are_learned_each_on_its_own() -> None:
    features, target = load_iris(return_X_y=True)
    labels = np.stack([target == 0, target != 1, features[:, 0] > 5.8], axis=1).astype(int)
    model = Classifier().fit(features[::2], labels[::2])
    assert isinstance(model.head_, MultiLabel)
    assert model.predict_proba(features).shape == (150, 3)
    assert (model.predict(features[1::2]) == labels[1::2]).mean() > 0.95
    assert model.score(features[1::2], labels[1::2]) == accuracy_score(labels[1::2], model.predict(features[1::2]))


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn(
    classifier: Classifier, penguins: tuple[polars.DataFrame, polars.Series]
) -> None:
    table, species = penguins
    figures = classifier.model_.evaluate(table, species.to_numpy())["network"]
    assert figures["nll"] == pytest.approx(log_loss(species, classifier.predict_proba(table)), rel=1e-5)
    assert figures["accuracy"] == accuracy_score(species, classifier.predict(table))


def test_figures_of_a_quantity_are_in_its_own_units(regressor: Regressor) -> None:
    features, target = load_diabetes(return_X_y=True)
    figures = regressor.model_.evaluate(features, target)["network"]
    predicted = regressor.predict(features)
    assert figures["rmse"] == pytest.approx(root_mean_squared_error(target, predicted), rel=1e-5)
    assert figures["mae"] == pytest.approx(mean_absolute_error(target, predicted), rel=1e-5)
    assert figures["r2"] == pytest.approx(r2_score(target, predicted), rel=1e-5)
    density = torch.distributions.Normal(torch.tensor(predicted), torch.tensor(regressor.scale_))
    assert figures["nll"] == pytest.approx(-float(density.log_prob(torch.tensor(target)).mean()), rel=1e-5)


def test_a_target_in_other_units_gives_the_same_model_in_those_units() -> None:
    features, target = load_diabetes(return_X_y=True)
    one = Regressor(**QUICK).fit(features, target)
    other = Regressor(**QUICK).fit(features, 1000 * target - 5e5)
    assert np.allclose(other.predict(features), 1000 * one.predict(features) - 5e5, rtol=1e-3)
    assert other.scale_ == pytest.approx(1000 * one.scale_, rel=1e-3)
    difference = [model.model_.record["figures"]["network"]["nll"] for model in (other, one)]
    assert difference[0] - difference[1] == pytest.approx(math.log(1000), abs=1e-3)


def test_baselines_are_those_of_scikit_learn() -> None:
    features, target = load_breast_cancer(return_X_y=True)
    model = Classifier(**QUICK).fit(features, target)
    encoded = model.model_.encoder.transform(features)
    linear = LogisticRegression(max_iter=1000).fit(encoded, target)
    figures = model.model_.evaluate(features, target)
    assert figures["linear"]["nll"] == pytest.approx(log_loss(target, linear.predict_proba(encoded)), rel=0.02)
    share = target.mean()
    assert figures["constant"]["nll"] == pytest.approx(
        -share * np.log(share) - (1 - share) * np.log(1 - share), rel=1e-4
    )


def test_the_linear_baseline_of_a_quantity_is_ridge_regression(regressor: Regressor) -> None:
    features, target = load_diabetes(return_X_y=True)
    encoded = regressor.model_.encoder.transform(features)
    figures = regressor.model_.evaluate(features, target)
    predicted = Ridge().fit(encoded, target).predict(encoded)
    assert figures["linear"]["rmse"] == pytest.approx(root_mean_squared_error(target, predicted), rel=1e-3)
    assert figures["constant"]["rmse"] == pytest.approx(target.std(), rel=1e-4)


# --- repeatable -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model_bit_for_bit() -> None:
    features, target = load_iris(return_X_y=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = Classifier(**QUICK).fit(features, target).predict_proba(features)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert np.array_equal(one, Classifier(**QUICK).fit(features, target).predict_proba(features))
    assert not np.array_equal(one, Classifier(random_state=1, **QUICK).fit(features, target).predict_proba(features))


def test_every_kind_of_frame_gives_the_same_model(penguins: tuple[polars.DataFrame, polars.Series]) -> None:
    table, species = penguins
    models = [
        Classifier(**QUICK).fit(table, species),
        Classifier(**QUICK).fit(table.to_pandas(), pd.Series(species.to_list())),
        Classifier(**QUICK).fit(table.to_arrow(), pyarrow.chunked_array([species.to_arrow()])),
    ]
    frames = [table, table.to_pandas(), table.to_arrow()]
    results = [model.predict_proba(frame) for model, frame in zip(models, frames, strict=True)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert list(models[0].feature_names_in_) == table.columns


# --- weights and missing targets --------------------------------------------------------------------------------------


def test_a_weight_of_zero_is_a_row_left_out() -> None:
    features, target = load_iris(return_X_y=True)
    weight = np.ones(150)
    weight[100:] = 0.0
    weighted = Classifier(**QUICK).fit(features, np.where(target == 2, 2, target), sample_weight=weight)
    without = Classifier(**QUICK).fit(features[:100], target[:100])
    assert np.array_equal(weighted.predict_proba(features[:, :]), without.predict_proba(features))


def test_rows_without_a_target_are_left_out_with_a_count() -> None:
    features, target = load_diabetes(return_X_y=True)
    holes = target.copy()
    holes[::10] = np.nan
    with pytest.warns(LastLayerWarning, match="45 of 442 rows have no target"):
        model = Regressor(**QUICK).fit(features, holes)
    there = ~np.isnan(holes)
    assert np.array_equal(
        model.predict(features), Regressor(**QUICK).fit(features[there], target[there]).predict(features)
    )


def test_balanced_weights_rule_decisions_and_leave_probabilities_true() -> None:
    rng = np.random.RandomState(0)
    features = rng.normal(size=(1000, 2))
    target = (features[:, 0] + rng.normal(size=1000) > 2).astype(int)
    plain = Classifier(**QUICK).fit(features, target)
    balanced = Classifier(class_weight="balanced", **QUICK).fit(features, target)
    by_hand = Classifier(class_weight={0: 1.0, 1: (target == 0).sum() / target.sum()}, **QUICK).fit(features, target)
    for model in (plain, balanced, by_hand):
        assert model.predict_proba(features)[:, 1].mean() == pytest.approx(target.mean(), abs=0.05)
    assert balanced.predict(features).mean() > plain.predict(features).mean() + 0.1
    assert by_hand.predict(features).mean() == pytest.approx(balanced.predict(features).mean(), abs=0.04)
    assert np.array_equal(balanced.predict(features), (balanced.decision_function(features) > 0).astype(int))


# --- scikit-learn's ways ----------------------------------------------------------------------------------------------


def test_pipeline_grid_search_and_cross_validation() -> None:
    features, target = load_iris(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Classifier(**QUICK)), {"classifier__learning_rate": [1e-9, 5e-3]}
    )
    search.fit(features, target)
    assert search.best_params_ == {"classifier__learning_rate": 5e-3}
    assert cross_val_score(Regressor(**QUICK), *load_diabetes(return_X_y=True), cv=3).mean() > 0.3


def test_clone_copy_and_display(classifier: Classifier) -> None:
    assert clone(classifier).get_params() == classifier.get_params()
    assert "Classifier" in classifier._repr_html_()
    assert "max_epochs=40" in repr(classifier)
    assert copy.deepcopy(classifier).model_.head == classifier.model_.head


def test_decision_function_is_the_raw_output(classifier: Classifier, penguins: Any) -> None:
    raw = classifier.decision_function(penguins[0])
    assert raw.shape == (344, 3)
    assert np.allclose(torch.softmax(torch.tensor(raw), 1).numpy(), classifier.predict_proba(penguins[0]))
    features, target = load_breast_cancer(return_X_y=True)
    binary = Classifier(**QUICK).fit(features, target)
    assert binary.decision_function(features).shape == (569,)
    assert np.allclose(1 / (1 + np.exp(-binary.decision_function(features))), binary.predict_proba(features)[:, 1])
    assert np.allclose(np.exp(binary.predict_log_proba(features)), binary.predict_proba(features))


def test_curves_tell_what_training_did(classifier: Classifier) -> None:
    assert len(classifier.loss_curve_) == len(classifier.validation_curve_) == classifier.n_iter_ <= 40
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[0]
    assert classifier.validation_curve_[classifier.best_epoch_ - 1] == min(classifier.validation_curve_)


@pytest.mark.parametrize("kind", ["classes", "quantity"])
def test_partial_fit_goes_on_and_fit_starts_anew(kind: str) -> None:
    features, target = load_iris(return_X_y=True) if kind == "classes" else load_diabetes(return_X_y=True)
    model: Any = Classifier(**QUICK) if kind == "classes" else Regressor(**QUICK)
    options: dict[str, Any] = {"classes": [0, 1, 2]} if kind == "classes" else {}
    scores = []
    for _ in range(25):
        for part in range(3):
            model.partial_fit(features[part::3], target[part::3], **options)
        scores.append(model.score(features, target))
    assert model.n_iter_ == 75
    assert scores[-1] > scores[0]
    assert scores[-1] > (0.9 if kind == "classes" else 0.4)
    fresh = clone(model).fit(features, target)
    assert np.array_equal(model.fit(features, target).predict(features), fresh.predict(features))


def test_partial_fit_takes_classes_that_come_later() -> None:
    features, target = load_iris(return_X_y=True)
    model = Classifier(**QUICK).partial_fit(features[:50], target[:50], classes=[0, 1, 2])
    assert model.predict_proba(features).shape == (150, 3)
    model.partial_fit(features[50:], target[50:])
    with pytest.raises(DomainError, match="which training never saw"):
        model.partial_fit(features, np.where(target == 2, 7, target))


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_the_head_follows_the_target_unless_told() -> None:
    features, target = load_breast_cancer(return_X_y=True)
    assert Classifier(**QUICK).fit(features, target).head_ == Bernoulli()
    softmax = Classifier(head="categorical", **QUICK).fit(features, target)
    assert softmax.head_ == Categorical(classes=2)
    assert isinstance(Regressor(head=Laplace(), **QUICK).fit(*load_diabetes(return_X_y=True)).head_, Laplace)
    with pytest.raises(InputError, match="does not fit this target"):
        Classifier(head="multilabel", **QUICK).fit(features, target)
    with pytest.raises(InputError, match="is for no quantity"):
        Regressor(head="bernoulli", **QUICK).fit(features, target)


def test_a_network_of_any_width_and_none() -> None:
    features, target = load_iris(return_X_y=True)
    for hidden in ((), (8,), (16, 16, 16)):
        model = Classifier(hidden=hidden, max_epochs=60, dropout=0.0, learning_rate=0.01).fit(features, target)
        assert model.score(features, target) > 0.85


def test_a_target_with_one_class_or_of_text_is_an_error_that_says_so() -> None:
    features, target = load_iris(return_X_y=True)
    with pytest.raises(InputError, match="one class only, 0"):
        Classifier(**QUICK).fit(features, np.zeros(150, dtype=int))
    with pytest.raises(InputError, match="no number; a Regressor learns a quantity"):
        Regressor(**QUICK).fit(features, np.array(["a", "b", "c"])[target])
    with pytest.raises(InputError, match="X has 150 rows and y 149"):
        Classifier(**QUICK).fit(features, target[:149])


# --- saved and loaded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "labels", "quantity"])
def test_a_loaded_model_predicts_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    features, target = load_iris(return_X_y=True)
    columns = pd.DataFrame(features, columns=list("abcd")).assign(e=np.where(target == 1, "x", None))
    model: Any = Regressor(**QUICK) if kind == "quantity" else Classifier(**QUICK)
    y = {"classes": np.array(["u", "v", "w"])[target], "labels": np.eye(3)[target], "quantity": features.sum(1)}[kind]
    model.fit(columns, y).save(tmp_path / "model")
    loaded: Any = lastlayer.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert np.array_equal(loaded.predict(columns), model.predict(columns))
    assert loaded.model_.evaluate(columns, y) == model.model_.evaluate(columns, y)
    assert loaded.head_ == model.head_
    assert loaded.loss_curve_ == model.loss_curve_
    assert loaded.get_params() | {"head": None} == model.get_params() | {"head": None}
    assert np.array_equal(clone(loaded).fit(columns, y).predict(columns), model.predict(columns))
    if kind != "quantity":
        assert np.array_equal(loaded.predict_proba(columns), model.predict_proba(columns))
        assert loaded.classes_.tolist() == model.classes_.tolist()
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_a_model_that_learned_pass_by_pass_is_kept_too(tmp_path: Path) -> None:
    features, target = load_iris(return_X_y=True)
    model = Classifier(**QUICK).partial_fit(features, target)
    model.save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(features), model.predict(features))
    assert loaded.loss_curve_ == []


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 2, 45])
def test_ctrl_c_keeps_the_best_so_far_and_says_so(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first epoch, in a later one, and in the second training on all rows."""
    features, target = load_iris(return_X_y=True)
    calls = []
    real = loop.one_epoch

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(arguments)
        if len(calls) == epoch + 1:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "one_epoch", interrupted)
    with pytest.warns(LastLayerWarning, match="interrupted after epoch"):
        model = Classifier(**QUICK).fit(features, target)
    assert model.n_iter_ == min(epoch, 40)
    probability = model.predict_proba(features)
    if epoch == 0:
        assert np.allclose(probability, 1 / 3, atol=0.05)
    assert model.model_.record["refitted_on_all_rows"] is False
    figures = model.model_.record["figures"]["network"]
    assert figures["nll"] <= model.model_.record["figures"]["constant"]["nll"] + 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "expected 'cpu' or 'cuda'"),
        ({"random_state": -1}, "the seed is -1"),
        ({"hidden": (0,)}, "expected widths"),
        ({"activation": "swish"}, "activation is 'swish'; expected one of"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"bins": -1}, "bins is -1"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"keep": ["nothing"]}, "nothing"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(options: dict[str, Any], message: str) -> None:
    features, target = load_iris(return_X_y=True)
    with pytest.raises(InputError, match=re.escape(message)):
        Classifier(**options).fit(features, target)


def test_a_loss_that_is_no_number_ends_in_a_model_and_a_warning() -> None:
    features, target = load_diabetes(return_X_y=True)
    with pytest.warns(LastLayerWarning, match="no longer a number"):
        model = Regressor(**QUICK | {"optimizer": "sgd", "learning_rate": 1e9}).fit(features, target)
    assert np.isfinite(model.predict(features)).all()
