"""Scores of predicted distributions against scikit-learn, SciPy and numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn
import torch
from scipy import stats
from sklearn import metrics

from lastlayer.checks import DomainError, InputError, KindError, ShapeError
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.poisson import Poisson
from lastlayer.uncertainty import (
    brier_score,
    class_probabilities,
    coverage,
    expected_calibration_error,
    interval_score,
    mean_crps,
    mean_nll,
    mean_width,
    randomized_pit,
    reliability,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussians(n: int) -> tuple[Gaussian, torch.Tensor, torch.Tensor]:
    return Gaussian(numbers(n), numbers(n, seed=1).exp()), 2 * numbers(n, seed=2), numbers(n, seed=3).abs()


def test_mean_nll_is_the_weighted_mean_of_scipys() -> None:
    distribution, target, weight = gaussians(50)
    expected = -stats.norm(distribution.location.numpy(), distribution.scale.numpy()).logpdf(target.numpy())
    assert float(mean_nll(distribution, target)) == pytest.approx(expected.mean())
    weighted = np.average(expected, weights=weight.numpy())
    assert float(mean_nll(distribution, target, sample_weight=weight)) == pytest.approx(weighted)


def test_mean_nll_of_classes_is_scikit_learns_log_loss() -> None:
    logits, weight = 2 * numbers(80, 4), numbers(80, seed=3).abs()
    target = torch.arange(80) % 4
    expected = metrics.log_loss(target, logits.softmax(-1), sample_weight=weight)
    assert float(mean_nll(Categorical(logits), target, sample_weight=weight)) == pytest.approx(expected)


def test_mean_crps_is_the_integral() -> None:
    # A standard normal at 0: 2φ(0) − 1/√π.
    score = mean_crps(Gaussian(torch.zeros(3).double(), torch.ones(3).double()), torch.zeros(3).double())
    assert float(score) == pytest.approx(2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_brier_score_is_scikit_learns(classes: int) -> None:
    logits, weight = 2 * numbers(60, classes), numbers(60, seed=3).abs()
    target = torch.randint(classes, (60,), generator=torch.Generator().manual_seed(1))
    # scikit-learn before 1.7 knows two classes only; by the definition in words then.
    probability, there = logits.softmax(-1).numpy(), np.eye(classes)[target.numpy()]
    expected = np.average(((probability - there) ** 2).sum(1), weights=weight.numpy()) / (2 if classes == 2 else 1)
    assert float(brier_score(Categorical(logits), target, sample_weight=weight)) == pytest.approx(expected)
    if classes == 2:
        scikit_learn = metrics.brier_score_loss(target, probability[:, 1], sample_weight=weight)
        bernoulli = Bernoulli(logits[:, 1] - logits[:, 0])
        assert float(brier_score(bernoulli, target.double(), sample_weight=weight)) == pytest.approx(scikit_learn)
    elif tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7):
        scikit_learn = metrics.brier_score_loss(target, probability, sample_weight=weight, labels=list(range(classes)))
        assert expected == pytest.approx(scikit_learn)


def test_brier_score_by_hand() -> None:
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]], dtype=torch.float64)
    # (0.5² + 0.3² + 0.2²) = 0.38 and (1 + 1) = 2.
    score = brier_score(Categorical(probability.log()), torch.tensor([0, 2]))
    assert float(score) == pytest.approx((0.38 + 2.0) / 2)


def test_scores_over_labels_average_over_rows_and_labels() -> None:
    logits, target = numbers(20, 3), (numbers(20, 3, seed=1) > 0).double()
    weight = numbers(20, seed=2).abs()
    expected = np.average((torch.sigmoid(logits) - target).square().mean(1), weights=weight)
    assert float(brier_score(Bernoulli(logits), target, sample_weight=weight)) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Confidences 0.9, 0.9 (one right) and 0.6 (right), in two bins of ten: 2/3 · 0.4 + 1/3 · 0.4.
    distribution = Bernoulli(torch.tensor([0.9, 0.9, 0.4], dtype=torch.float64).logit())
    target = torch.tensor([1.0, 0.0, 0.0])
    assert expected_calibration_error(distribution, target, bins=10) == pytest.approx(0.4)
    # In one bin: confidence 0.8, accuracy 2/3.
    assert expected_calibration_error(distribution, target, bins=1) == pytest.approx(0.8 - 2 / 3)
    # Weights as repetition.
    weighted = expected_calibration_error(distribution, target, bins=1, sample_weight=torch.tensor([2.0, 1.0, 1.0]))
    assert weighted == pytest.approx(abs((2 * 0.9 + 0.9 + 0.6) / 4 - 3 / 4))


def test_bins_of_equal_width_are_open_below() -> None:
    table = reliability(Bernoulli(torch.tensor([0.0, 0.1])), torch.tensor([0.0, 1.0]), bins=2)
    assert table.high.tolist() == [0.5, 1.0]
    assert table.low.tolist() == [0.0, 0.5]


def test_bins_of_equal_mass_hold_as_much_and_keep_equal_predictions_together() -> None:
    logits, target = numbers(1000, 3), torch.arange(1000) % 3
    table = reliability(Categorical(logits), target, bins=10, binning="equal_mass")
    assert table.share.tolist() == pytest.approx([0.1] * 10)
    assert torch.equal(table.low[1:], table.high[:-1])
    assert bool(((table.confidence > table.low) & (table.confidence <= table.high)).all())
    same = reliability(Bernoulli(torch.zeros(100)), torch.arange(100) % 2, bins=10, binning="equal_mass")
    assert same.share.tolist() == [1.0]
    assert same.expected_error == pytest.approx(0.0)


def test_calibration_error_of_the_truth_is_small_and_of_overconfidence_large() -> None:
    logits = 2 * numbers(20000, 4)
    target = Categorical(logits).sample(1, generator=torch.Generator().manual_seed(5))[0]
    for binning in ("equal_width", "equal_mass"):
        assert expected_calibration_error(Categorical(logits), target, binning=binning) < 0.015
        assert expected_calibration_error(Categorical(3 * logits), target, binning=binning) > 0.1


def test_pit_of_the_truth_is_uniform_for_densities_and_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    for distribution in (Gaussian(numbers(4000), numbers(4000, seed=1).exp()), Poisson(numbers(4000))):
        target = distribution.sample(1, generator=generator)[0]
        pit = randomized_pit(distribution, target, generator=generator)
        assert stats.kstest(pit.numpy(), "uniform").pvalue > 0.001
    # Not randomized it would not be.
    assert stats.kstest(distribution.cdf(target).numpy(), "uniform").pvalue < 1e-6


def test_pit_draws_from_the_generator_given() -> None:
    distribution, target = Poisson(numbers(10)), torch.ones(10).double()
    first, second = (randomized_pit(distribution, target, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_coverage_width_and_interval_score() -> None:
    distribution, target, weight = gaussians(200)
    for level in (0.5, 0.9):
        half = stats.norm.ppf(0.5 + level / 2) * distribution.scale.numpy()
        low, high = distribution.location.numpy() - half, distribution.location.numpy() + half
        y, w = target.numpy(), weight.numpy()
        inside = np.average((y >= low) & (y <= high), weights=w)
        assert float(coverage(distribution, target, level, sample_weight=weight)) == pytest.approx(inside)
        width = np.average(high - low, weights=w)
        assert float(mean_width(distribution, level, sample_weight=weight)) == pytest.approx(width)
        # The interval score is 2/α times the two ends' pinball losses.
        alpha = 1 - level
        pinball = sum(
            metrics.mean_pinball_loss(y, end, alpha=tau, sample_weight=w)
            for end, tau in ((low, alpha / 2), (high, 1 - alpha / 2))
        )
        score = interval_score(distribution, target, level, sample_weight=weight)
        assert float(score) == pytest.approx(2 / alpha * pinball)
    both = coverage(distribution, target, [0.5, 0.9])
    assert both.tolist() == [float(coverage(distribution, target, level)) for level in (0.5, 0.9)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_keep_the_dtype_and_take_any_shape(dtype: torch.dtype) -> None:
    distribution = Gaussian(torch.zeros(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype))
    target = torch.ones(2, 3, dtype=dtype)
    for score in (mean_nll, mean_crps):
        assert score(distribution, target).dtype == dtype
        assert float(score(distribution, target)) == pytest.approx(float(score(distribution[0], target[0])))
    assert interval_score(distribution, target, [0.5, 0.8, 0.9]).shape == (3,)


def test_a_row_of_weight_zero_does_not_count_even_if_it_is_nan() -> None:
    distribution, target, _ = gaussians(3)
    broken = target.clone()
    broken[1] = torch.nan
    weight = torch.tensor([1.0, 0.0, 2.0])
    expected = float(mean_nll(distribution, target, sample_weight=weight))
    assert float(mean_nll(distribution, broken, sample_weight=weight)) == expected
    assert math.isnan(float(mean_nll(distribution, broken)))


def test_a_class_of_weight_zero_does_not_count_even_if_there_is_none() -> None:
    distribution, weight = Categorical(numbers(3, 4)), torch.tensor([1.0, 0.0, 2.0])
    broken, whole = torch.tensor([1, -1, 2]), torch.tensor([1, 3, 2])
    for score in (brier_score, expected_calibration_error):
        found = float(score(distribution, broken, sample_weight=weight))
        assert found == float(score(distribution, whole, sample_weight=weight))


def test_one_row_and_one_class() -> None:
    assert float(brier_score(Categorical(torch.zeros(1, 1)), torch.tensor([0]))) == 0.0
    assert expected_calibration_error(Bernoulli(torch.tensor([1e4])), torch.tensor([0])) == 1.0


def empty() -> Distribution:
    return Gaussian(torch.zeros(0), torch.ones(0))


def test_errors_say_what_is_wrong() -> None:
    one = Gaussian(torch.zeros(2), torch.ones(2))
    with pytest.raises(InputError, match="no values"):
        mean_nll(empty(), torch.zeros(0))
    with pytest.raises(InputError, match="every sample_weight is 0"):
        mean_crps(one, torch.zeros(2), sample_weight=torch.zeros(2))
    with pytest.raises(DomainError, match="negative"):
        mean_crps(one, torch.zeros(2), sample_weight=torch.tensor([1.0, -1.0]))
    with pytest.raises(ShapeError, match="sample_weight"):
        mean_crps(one, torch.zeros(2), sample_weight=torch.ones(3))
    with pytest.raises(ShapeError, match="target"):
        coverage(one, torch.zeros(2, 1), 0.5)
    with pytest.raises(KindError, match="not a distribution over classes"):
        brier_score(one, torch.zeros(2))
    with pytest.raises(DomainError, match="classes 0 to 2"):
        brier_score(Categorical(torch.zeros(2, 3)), torch.tensor([0, 3]))
    with pytest.raises(DomainError, match="fine is infinite"):
        interval_score(one, torch.zeros(2), 1.0)
    with pytest.raises(InputError, match="binning"):
        reliability(Bernoulli(torch.zeros(1)), torch.zeros(1), binning="none")
    with pytest.raises(InputError, match="bins"):
        reliability(Bernoulli(torch.zeros(1)), torch.zeros(1), bins=0)


def test_class_probabilities_of_labels_and_classes() -> None:
    logits = numbers(3, 2, 4)
    assert torch.allclose(class_probabilities(Categorical(logits)), logits.softmax(-1))
    labels = class_probabilities(Bernoulli(logits))
    assert torch.allclose(labels, torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], -1))
