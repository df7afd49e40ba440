"""Every figure against scikit-learn, SciPy or a few lines of NumPy; weights as repetitions; figures not defined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk

from lastlayer import distributions, heads
from lastlayer.distributions import Distribution
from lastlayer.metrics import headline, headline_value, score
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding

RANDOM = np.random.default_rng(0)
MEAN, SCALE = RANDOM.normal(size=90) * 3, RANDOM.uniform(0.3, 3.0, size=90)
ACTUAL = MEAN + SCALE * RANDOM.normal(size=90) * 1.3
LOGITS = RANDOM.normal(size=(90, 3))
INDEX = np.array([RANDOM.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in LOGITS])
LABELS = (RANDOM.random((90, 4)) < 0.4).astype(float)
LABEL_LOGITS = RANDOM.normal(size=(90, 4)) + LABELS
TIMES = RANDOM.integers(0, 4, size=90)


def tensor(values: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def quantity(rows: Any = slice(None), weight: Any = None) -> dict[str, float]:
    predicted = distributions.Gaussian(tensor(MEAN[rows]), tensor(SCALE[rows]))
    return score(predicted, QuantityCoding(), tensor(ACTUAL[rows]), weight)


def classes(rows: Any = slice(None), weight: Any = None, *, count: int = 3, **options: Any) -> dict[str, float]:
    coding = ClassCoding(np.arange(count))
    index = torch.tensor(INDEX[rows].clip(max=count - 1))
    predicted: Distribution = distributions.Categorical(tensor(LOGITS[rows]))
    if count == 2:
        predicted = distributions.Bernoulli(tensor(LOGITS[rows, 1]))
    return score(predicted, coding, index, weight, **options)


def labels(rows: Any = slice(None), weight: Any = None) -> dict[str, float]:
    coding = LabelCoding(tuple("abcd"))
    return score(distributions.Bernoulli(tensor(LABEL_LOGITS[rows])), coding, tensor(LABELS[rows]), weight)


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_a_quantity(weighted: bool) -> None:
    weight = RANDOM.uniform(0.1, 2, size=90) if weighted else None
    figures = quantity(weight=weight)
    normal = scipy.stats.norm(MEAN, SCALE)
    z = (ACTUAL - MEAN) / SCALE
    crps = SCALE * (z * (2 * scipy.stats.norm.cdf(z) - 1) + 2 * scipy.stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    inside = np.abs(z) <= scipy.stats.norm.ppf(0.95)
    expected = {
        "nll": np.average(-normal.logpdf(ACTUAL), weights=weight),
        "crps": np.average(crps, weights=weight),
        "rmse": sk.root_mean_squared_error(ACTUAL, MEAN, sample_weight=weight),
        "mae": sk.mean_absolute_error(ACTUAL, MEAN, sample_weight=weight),
        "r2": sk.r2_score(ACTUAL, MEAN, sample_weight=weight),
        "coverage_90": np.average(inside, weights=weight),
        "width_90": np.average(2 * scipy.stats.norm.ppf(0.95) * SCALE, weights=weight),
    }
    assert figures == pytest.approx(expected, rel=1e-9)


def test_point_figures_are_of_the_statistic_that_they_are_least_at() -> None:
    """The squared error judges the mean, the absolute error the median."""
    predicted = distributions.Gamma(torch.full((90,), 0.7), torch.ones(90)).map(torch.Tensor.double)
    actual = np.abs(ACTUAL)
    figures = score(predicted, QuantityCoding(), tensor(actual))
    gamma = scipy.stats.gamma(np.float32(0.7))
    assert figures["rmse"] == pytest.approx(np.sqrt(((actual - gamma.mean()) ** 2).mean()), rel=1e-6)
    assert figures["mae"] == pytest.approx(np.abs(actual - gamma.median()).mean(), rel=1e-6)


def test_figures_that_are_not_defined_are_no_numbers() -> None:
    cauchy = distributions.StudentT(tensor(MEAN), tensor(SCALE), torch.ones(90, dtype=torch.float64))
    figures = score(cauchy, QuantityCoding(), tensor(ACTUAL))
    assert math.isnan(figures["rmse"])
    assert math.isnan(figures["r2"])
    expected = -scipy.stats.cauchy(MEAN, SCALE).logpdf(ACTUAL).mean()
    assert figures["nll"] == pytest.approx(expected, rel=1e-9)
    assert figures["mae"] == pytest.approx(np.abs(ACTUAL - MEAN).mean())
    single = quantity([3])
    assert math.isnan(single["r2"])
    assert all(math.isfinite(value) for name, value in single.items() if name != "r2")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_figures_of_classes(count: int, weighted: bool) -> None:
    weight = RANDOM.uniform(0.1, 2, size=90) if weighted else None
    figures = classes(weight=weight, count=count)
    index = INDEX.clip(max=count - 1)
    probability = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    if count == 2:
        yes = 1 / (1 + np.exp(-LOGITS[:, 1]))
        probability = np.stack([1 - yes, yes], axis=1)
    chosen = probability.argmax(1)
    recall = [np.average(chosen[index == k] == k, weights=None if weight is None else weight[index == k])
              for k in range(count)]  # fmt: skip
    area: dict[str, Any] = {"sample_weight": weight} | ({"multi_class": "ovr"} if count > 2 else {})
    brier = ((probability - np.eye(count)[index]) ** 2).sum(1) / (2 if count == 2 else 1)
    expected = {
        "nll": sk.log_loss(index, probability, sample_weight=weight),
        "accuracy": sk.accuracy_score(index, chosen, sample_weight=weight),
        "balanced_accuracy": np.mean(recall),
        "roc_auc": sk.roc_auc_score(index, probability if count > 2 else probability[:, 1], **area),
        "brier": np.average(brier, weights=weight),
    }
    ece = figures.pop("ece")
    assert figures == pytest.approx(expected, rel=1e-9)
    assert 0 <= ece <= 1


def test_calibration_error_by_hand() -> None:
    """Nine in ten right at a confidence of 0.6 is off by 0.3."""
    logit = torch.full((10,), math.log(0.6 / 0.4), dtype=torch.float64)
    index = torch.tensor([1] * 9 + [0])
    figures = score(distributions.Bernoulli(logit), ClassCoding(np.arange(2)), index)
    assert figures["ece"] == pytest.approx(0.3)
    assert figures["brier"] == pytest.approx(0.9 * 0.16 + 0.1 * 0.36)


def test_the_class_decided_for_rules_accuracy_alone() -> None:
    plain, other = classes(), classes(chosen=INDEX)
    assert other["accuracy"] == other["balanced_accuracy"] == 1.0
    assert plain["accuracy"] < 1.0
    for name in ("nll", "roc_auc", "brier", "ece"):
        assert plain[name] == other[name]


def test_a_class_that_does_not_occur_has_no_area() -> None:
    figures = classes(INDEX != 2)
    assert "roc_auc" not in figures
    assert all(map(math.isfinite, figures.values()))
    # Nor does one that does not count, and without a warning.
    weighted = classes(weight=(INDEX != 2).astype(float))
    assert weighted == pytest.approx(figures)


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_labels(weighted: bool) -> None:
    weight = RANDOM.uniform(0.1, 2, size=90) if weighted else None
    probability = 1 / (1 + np.exp(-LABEL_LOGITS))
    chosen = (probability > 0.5).astype(float)
    each = -(LABELS * np.log(probability) + (1 - LABELS) * np.log(1 - probability)).sum(1)
    expected = {
        "nll": np.average(each, weights=weight),
        "label_accuracy": np.average((chosen == LABELS).mean(1), weights=weight),
        "subset_accuracy": np.average((chosen == LABELS).all(1), weights=weight),
        "f1_micro": sk.f1_score(LABELS, chosen, average="micro", sample_weight=weight),
    }
    assert labels(weight=weight) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("figures", [quantity, classes, labels])
def test_a_weight_is_a_repetition_and_0_is_left_out(figures: Any) -> None:
    assert (TIMES == 0).any()
    repeated = figures(np.repeat(np.arange(90), TIMES))
    assert figures(weight=TIMES.astype(float)) == pytest.approx(repeated, rel=1e-9)


def test_weights_do_not_have_to_add_up_to_anything() -> None:
    for figures in (quantity, classes, labels):
        assert figures(weight=np.full(90, 7.0)) == pytest.approx(figures(), rel=1e-9)


def test_a_quantity_in_other_units() -> None:
    predicted = distributions.Gaussian(tensor(MEAN), tensor(SCALE)).affine(5.0, 100.0)
    other, one = score(predicted, QuantityCoding(), tensor(100 * ACTUAL + 5)), quantity()
    assert other["nll"] == pytest.approx(one["nll"] + math.log(100))
    for name in ("crps", "rmse", "mae", "width_90"):
        assert other[name] == pytest.approx(100 * one[name])
    for name in ("r2", "coverage_90"):
        assert other[name] == pytest.approx(one[name])


def test_counts_are_covered_by_intervals_with_both_ends() -> None:
    rate = np.array([0.1, 1.0, 4.0, 30.0]).repeat(5)
    count = np.array([0, 1, 5, 26, 40] * 4)
    figures = score(distributions.Poisson(tensor(np.log(rate))), QuantityCoding(), tensor(count.astype(float)))
    low, high = scipy.stats.poisson.ppf(0.05, rate), scipy.stats.poisson.ppf(0.95, rate)
    assert figures["nll"] == pytest.approx(-scipy.stats.poisson.logpmf(count, rate).mean())
    assert figures["coverage_90"] == pytest.approx(((count >= low) & (count <= high)).mean())
    assert figures["width_90"] == pytest.approx((high - low).mean())


@pytest.mark.parametrize("members", [None, 2])
def test_the_headline_is_the_figure_of_its_name(members: int | None) -> None:
    """The cheap one of every epoch, of the mean of the members where there are several."""

    def raw(values: NDArray[Any]) -> torch.Tensor:
        return tensor(values) if members is None else tensor(np.stack([values, values[::-1]]))

    coding = QuantityCoding(shift=2.0, scale=10.0)
    head: heads.Head = heads.Gaussian()
    mean = MEAN if members is None else (MEAN + MEAN[::-1]) / 2
    assert headline(head) == "rmse"
    assert headline_value(head, coding, raw(MEAN[:, None]), tensor(ACTUAL)) == pytest.approx(
        10 * sk.root_mean_squared_error(ACTUAL, mean)
    )
    head, probability = heads.Categorical(3), np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    probability = probability if members is None else (probability + probability[::-1]) / 2
    assert headline(head) == "accuracy"
    assert headline_value(head, ClassCoding(np.arange(3)), raw(LOGITS), torch.tensor(INDEX)) == pytest.approx(
        (probability.argmax(1) == INDEX).mean()
    )
    head, yes = heads.MultiLabel(4), 1 / (1 + np.exp(-LABEL_LOGITS))
    yes = yes if members is None else (yes + yes[::-1]) / 2
    assert headline(head) == "label_accuracy"
    assert headline_value(head, LabelCoding(tuple("abcd")), raw(LABEL_LOGITS), tensor(LABELS)) == pytest.approx(
        ((yes > 0.5) == LABELS).mean()
    )
