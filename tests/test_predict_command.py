"""What can be asked of a fitted quantity by the command, what evaluate says, and wrong options of fit and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

import lastlayer
from command_line import SHORT, contents, done, refused, run, table
from lastlayer import Classifier, Regressor

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table ``t.csv`` of a quantity, a class and a count, and a model of each."""
    place = tmp_path_factory.mktemp("predict")
    x = RANDOM.normal(size=120)
    path = table(
        place / "t.csv",
        rows=120,
        x=x.tolist(),
        y=(x + RANDOM.normal(size=120)).tolist(),
        kind=np.array(["a", "b", "c"])[np.digitize(x, [-0.5, 0.5])].tolist(),
        count=RANDOM.poisson(np.exp(x)).tolist(),
    )
    fit = ("fit", path, *SHORT, "-o")
    done(*fit, place / "quantity", "-t", "y", "--head", "mixture:3", "--members", "3", "--calibration", "pit")
    done(*fit, place / "count", "-t", "count", "--head", "negative_binomial")
    done(*fit, place / "class", "-t", "kind", "--members", "2", "--calibration", "temperature")
    return place


def predicted(*arguments: Any) -> polars.DataFrame:
    return polars.DataFrame(done("predict", *arguments, "--json").json)


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_takes_head_members_and_calibration(folder: Path) -> None:
    described = done("show", folder / "quantity", "--json").json
    assert described["head"]["name"] == "mixture"
    assert described["head"]["components"] == 3
    assert described["network"]["members"] == 3
    assert described["calibration"]["name"] == "pit_recalibration"
    assert len(described["conformal_scores"]) == 18
    model = lastlayer.load(folder / "quantity")
    assert isinstance(model, Regressor)
    assert (model.head, model.members, model.calibration) == ("mixture:3", 3, "pit")
    assert "mixture" in done("show", folder / "quantity").out


def test_the_command_and_the_estimator_are_one(folder: Path) -> None:
    rows = polars.read_csv(folder / "t.csv")
    inputs = rows.drop("y")
    estimator = Regressor(head="mixture:3", members=3, calibration="pit", max_epochs=2).fit(inputs, rows["y"])
    frame = predicted(folder / "quantity", folder / "t.csv", "--interval", "0.8")
    np.testing.assert_allclose(frame["prediction"], estimator.predict(inputs))
    np.testing.assert_allclose(frame.select("low_80", "high_80"), estimator.predict_interval(inputs, 0.8))


def test_auto_tries_heads_and_says_so(folder: Path, tmp_path: Path) -> None:
    fit = ("fit", folder / "t.csv", "-t", "count", "--drop", "y", "--drop", "kind", "--max-epochs", "1")
    planned = done(*fit, "--head", "auto", "--dry-run", "--json", "-o", tmp_path / "m").json
    assert planned["head"] == "auto"
    assert not (tmp_path / "m").exists()
    done(*fit, "--head", "auto", "-o", tmp_path / "m")
    described = done("show", tmp_path / "m", "--json").json
    assert {"gaussian", "poisson", "negative_binomial", "mixture:5"} <= described["record"]["tried"].keys()
    assert all(np.isfinite(list(described["record"]["tried"].values())))
    best = min(described["record"]["tried"], key=lambda name: described["record"]["tried"][name])
    assert described["head"]["name"] == best.partition(":")[0]
    done("predict", tmp_path / "m", folder / "t.csv")


WRONG_FITS: dict[str, tuple[tuple[str, ...], str]] = {
    "no components": (("-t", "y", "--head", "mixture:0"), "components is 0; expected a whole number, 1 or more"),
    "no family": (("-t", "y", "--head", "mixture:2:cauchy"), "family is 'cauchy'; expected one of"),
    "no number": (("-t", "y", "--head", "student_t:x"), "head 'student_t': 'x' is not a number"),
    "no option": (("-t", "y", "--head", "poisson:2"), "head 'poisson' takes no options"),
    "no head": (("-t", "y", "--head", "gauss"), "there is no head named 'gauss'"),
    "no levels": (("-t", "y", "--head", "quantiles:0.9,0.1"), "levels"),
    "an option of classes": (("-t", "kind", "--head", "categorical:3"), "heads for classes take no options"),
    "temperature": (("-t", "y", "--head", "laplace", "--calibration", "temperature"), "expected 'scale' or 'pit'"),
    "scale of counts": (("-t", "count", "--head", "poisson", "--calibration", "scale"), "expected 'pit' for counts"),
    "pit of classes": (("-t", "kind", "--calibration", "pit"), "expected 'temperature' or 'isotonic' for classes"),
    "no calibration": (("-t", "y", "--head", "auto", "--calibration", "platt"), "calibration is 'platt'"),
    "balanced": (("-t", "y", "--head", "auto", "--balanced"), "--balanced is for classes"),
}


@pytest.mark.parametrize("name", WRONG_FITS)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_wrong_option_of_fit_is_refused_and_nothing_written(
    name: str, dry: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    options, message = WRONG_FITS[name]
    assert message in refused("fit", folder / "t.csv", *options, "-o", tmp_path / "m", *SHORT, *dry)
    assert not contents(tmp_path)


@pytest.mark.parametrize("members", ["0", "-1", "two"])
def test_members_that_are_no_number_are_refused(members: str, folder: Path, tmp_path: Path) -> None:
    outcome = run("fit", folder / "t.csv", "-t", "y", "--members", members, "-o", tmp_path / "m")
    assert outcome.code == 2
    assert "--members" in outcome.err
    assert outcome.out == ""
    assert not contents(tmp_path)


def test_too_few_rows_to_calibrate_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows=9, y=[0.5 * row for row in range(9)])
    message = refused("fit", path, "-t", "y", "--head", "laplace", "--calibration", "pit", "-o", tmp_path / "m")
    assert "9 rows are too few to hold any out" in message
    assert [*contents(tmp_path)] == ["t.csv"]


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quantity", "count"])
def test_intervals_quantiles_and_statistics_are_the_estimators(name: str, folder: Path) -> None:
    model = lastlayer.load(folder / name)
    assert isinstance(model, Regressor)
    rows = polars.read_csv(folder / "t.csv")
    rows = rows.drop({"quantity": "y", "count": "count"}[name])
    frame = predicted(
        folder / name, folder / "t.csv", "--interval", "0.9", "--quantiles", "0.1, 0.5,0.975", "--statistic", "median"
    )
    assert frame.columns == [
        "prediction", "standard_deviation", "low_90", "high_90", "quantile_0.1", "quantile_0.5", "quantile_0.975"
    ]  # fmt: skip
    np.testing.assert_allclose(frame["prediction"], model.predict(rows, statistic="median"), rtol=1e-9)
    np.testing.assert_allclose(frame["quantile_0.5"], frame["prediction"], rtol=1e-9)
    np.testing.assert_allclose(frame.select("low_90", "high_90"), model.predict_interval(rows, 0.9), rtol=1e-9)
    quantiles = model.predict_quantiles(rows, [0.1, 0.5, 0.975])
    np.testing.assert_allclose(frame.select("^quantile_.*$"), quantiles, rtol=1e-9)
    spread = model.predict_distribution(rows).standard_deviation
    np.testing.assert_allclose(frame["standard_deviation"], spread, rtol=1e-9)
    for statistic in ("mean", "mode"):
        frame = predicted(folder / name, folder / "t.csv", "--statistic", statistic)
        np.testing.assert_allclose(frame["prediction"], model.predict(rows, statistic=statistic), rtol=1e-6)
    if name == "count":
        whole = predicted(folder / name, folder / "t.csv", "--interval", "0.5", "--statistic", "mode")
        for column in ("prediction", "low_50", "high_50"):
            assert (whole[column] == whole[column].round()).all()


def test_an_interval_of_little_more_than_a_percent_is_named_so(folder: Path) -> None:
    frame = predicted(folder / "quantity", folder / "t.csv", "--interval", "0.995", "--quantiles", "0.5")
    assert {"low_99.5", "high_99.5", "quantile_0.5"} <= set(frame.columns)
    done("predict", folder / "quantity", folder / "t.csv", "--interval", "0.9", "-o", folder / "p.parquet")
    assert polars.read_parquet(folder / "p.parquet").columns[-2:] == ["low_90", "high_90"]


WRONG_PREDICTIONS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "interval": ("quantity", ("--interval", "2"), "2 is no share; expected numbers from 0 to 1"),
    "negative interval": ("quantity", ("--interval", "-0.5"), "-0.5 is no share"),
    "interval of NaN": ("quantity", ("--interval", "nan"), "nan is no share"),
    "quantiles": ("quantity", ("--quantiles", "a,b"), "--quantiles 'a,b' is no list of numbers"),
    "quantile missing": ("quantity", ("--quantiles", "0.1,,0.9"), "is no list of numbers"),
    "quantile outside": ("quantity", ("--quantiles", "0.1,1.5"), "1.5 is no share"),
    "statistic": ("quantity", ("--statistic", "max"), "statistic is 'max'; expected one of 'mean', 'median', 'mode'"),
    "interval of classes": ("class", ("--interval", "0.9"), "predicts classes; --interval, --quantiles"),
    "quantiles of classes": ("class", ("--quantiles", "0.5"), "are for quantities. Leave them out."),
    "statistic of classes": ("class", ("--statistic", "mode"), "predicts classes"),
}


@pytest.mark.parametrize("name", WRONG_PREDICTIONS)
def test_a_wrong_option_of_predict_is_refused_and_nothing_written(name: str, folder: Path, tmp_path: Path) -> None:
    model, options, message = WRONG_PREDICTIONS[name]
    assert message in refused("predict", folder / model, folder / "t.csv", *options, "-o", tmp_path / "p.csv")
    assert not contents(tmp_path)


def test_an_interval_of_no_number_is_refused(folder: Path, tmp_path: Path) -> None:
    outcome = run("predict", folder / "quantity", folder / "t.csv", "--interval", "wide", "-o", tmp_path / "p.csv")
    assert outcome.code == 2
    assert "--interval" in outcome.err
    assert not contents(tmp_path)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_says_how_good_intervals_are(folder: Path) -> None:
    result = done("evaluate", folder / "quantity", folder / "t.csv", "--json").json
    for figures in result["figures"].values():
        assert figures.keys() == {"nll", "crps", "rmse", "mae", "r2", "coverage_90", "width_90"}
        assert 0 <= figures["coverage_90"] <= 1
    rows = polars.read_csv(folder / "t.csv")
    model = lastlayer.load(folder / "quantity")
    assert isinstance(model, Regressor)
    low, high = model.predict_interval(rows.drop("y"), 0.9).T
    network = result["figures"]["network"]
    assert network["coverage_90"] == pytest.approx(((rows["y"] >= low) & (rows["y"] <= high)).mean())
    assert network["width_90"] == pytest.approx((high - low).mean())
    text = done("evaluate", folder / "quantity", folder / "t.csv").out
    for words in ("negative log-likelihood", "continuous ranked probability", "held by the 90 %", "width of the 90 %"):
        assert words in text


def test_evaluate_says_how_calibrated_classes_are(folder: Path) -> None:
    result = done("evaluate", folder / "class", folder / "t.csv", "--json").json
    model, rows = lastlayer.load(folder / "class"), polars.read_csv(folder / "t.csv")
    assert isinstance(model, Classifier)
    probability = model.predict_proba(rows.drop("kind"))
    there = rows["kind"].to_numpy()[:, None] == model.classes_
    network = result["figures"]["network"]
    assert network["brier"] == pytest.approx(((probability - there) ** 2).sum(1).mean())
    assert 0 <= network["ece"] < 0.5
    assert {"brier", "ece"} <= result["figures"]["linear"].keys()
    frame = predicted(folder / "class", folder / "t.csv")
    np.testing.assert_allclose(frame.select("probability_a", "probability_b", "probability_c"), probability)


def test_balanced_figures_are_of_rows_as_they_occur(folder: Path, tmp_path: Path) -> None:
    """What fit prints and what evaluate says of the constant: its likelihood is that of the classes' shares."""
    shown = done("fit", folder / "t.csv", "-t", "kind", "--balanced", "-o", tmp_path / "m", "--json", *SHORT).json
    constant = shown["record"]["figures"]["constant"]
    kinds = polars.read_csv(folder / "t.csv")["kind"].to_numpy()
    share = np.unique(kinds, return_counts=True)[1] / len(kinds)
    assert constant["nll"] == pytest.approx(-(share * np.log(share)).sum(), abs=0.03)
    on_all = done("evaluate", tmp_path / "m", folder / "t.csv", "--json").json["figures"]["constant"]
    assert on_all["nll"] == pytest.approx(-(share * np.log(share)).sum(), abs=0.01)
    assert json.loads((tmp_path / "m" / "model.json").read_text())["class_weight"] is not None
