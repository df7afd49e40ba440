"""Calibration learned on held-out rows: temperature, isotonic maps, class weights undone, spread and levels of cdfs."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, optimize, stats
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lastlayer.checks import DomainError, InputError, KindError, ShapeError
from lastlayer.distributions.beta import Beta
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.log_normal import LogNormal
from lastlayer.distributions.negative_binomial import NegativeBinomial
from lastlayer.distributions.poisson import Poisson
from lastlayer.distributions.student_t import StudentT
from lastlayer.uncertainty import (
    Isotonic,
    LevelMap,
    PitRecalibration,
    Recalibrated,
    RecalibratedCounts,
    Rescaled,
    ScaleRecalibration,
    State,
    Temperature,
    correct_class_logits,
    correct_label_logits,
    coverage,
    expected_calibration_error,
    fit_class_temperature,
    fit_isotonic_classes,
    fit_isotonic_labels,
    fit_label_temperature,
    fit_pit_recalibration,
    fit_scale,
    from_dict,
    mean_nll,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- temperature


def classes_of(logits: Tensor, seed: int = 0) -> Tensor:
    return Categorical(logits).sample(1, generator=generator(seed))[0].long()


@pytest.mark.parametrize("sharpened", [0.2, 1.0, 5.0])
def test_the_class_temperature_makes_held_out_rows_likeliest(sharpened: float) -> None:
    logits, weight = 2 * numbers(500, 4), numbers(500, seed=2).abs()
    target = classes_of(logits)

    def nll(inverse: float) -> float:
        losses = F.cross_entropy(inverse * sharpened * logits, target, reduction="none")
        return float((weight * losses).sum())

    found = fit_class_temperature(sharpened * logits, target, sample_weight=weight).temperature
    oracle = optimize.minimize_scalar(nll, bounds=(1e-3, 20.0), method="bounded", options={"xatol": 1e-10})
    assert isinstance(found, float)
    assert 1 / found == pytest.approx(oracle.x, rel=1e-5)
    assert found == pytest.approx(sharpened, rel=0.2)


def test_the_temperature_is_the_root_of_the_slope() -> None:
    logits = vector(3.0, -1.0, 2.0, 0.5, -4.0)
    target = vector(1.0, 1.0, 1.0, 0.0, 0.0)
    temperature = fit_label_temperature(logits, target).temperature
    assert isinstance(temperature, float)
    slope = ((torch.sigmoid(logits / temperature) - target) * logits).sum()
    assert float(slope) == pytest.approx(0.0, abs=1e-12)


def test_two_classes_and_a_label_have_one_temperature() -> None:
    logits = numbers(200)
    target = (numbers(200, seed=1) < 2 * logits).long()
    both = torch.stack([torch.zeros(200).double(), logits], -1)
    of_classes, of_label = fit_class_temperature(both, target), fit_label_temperature(logits, target)
    assert of_classes.temperature == pytest.approx(of_label.temperature, rel=1e-10)


def test_the_temperature_scales_with_the_logits() -> None:
    logits, target = numbers(100, 3), torch.arange(100) % 3
    separable = torch.where(F.one_hot(target, 3).bool(), logits.abs() + 10, logits)
    for scores in (logits + F.one_hot(target, 3), separable, logits - 5 * F.one_hot(target, 3)):
        one = fit_class_temperature(scores, target).temperature
        for scale in (1e-8, 1e3, 1e30):
            scaled = fit_class_temperature(scale * scores + 7.0 * scale, target).temperature
            assert scaled == pytest.approx(scale * one, rel=1e-6)


def test_separable_rows_get_the_rule_of_succession() -> None:
    # n rows, each right by the same margin: the class is then claimed with (n + 1)/(n + 2).
    for n in (1, 5, 1000):
        logits, target = torch.full((n,), 4.0).double(), torch.ones(n).double()
        claimed = torch.sigmoid(fit_label_temperature(logits, target)(logits))
        assert claimed.tolist() == pytest.approx([(n + 1) / (n + 2)] * n)
        three = torch.tensor([[9.0, 1.0, 1.0]]).double().expand(n, 3)
        claimed = fit_class_temperature(three, torch.zeros(n).long())(three).softmax(-1)[:, 0]
        assert claimed.tolist() == pytest.approx([(n + 1) / (n + 3)] * n)


def test_scores_worse_than_chance_lose_nearly_all_confidence_but_keep_their_order() -> None:
    logits = numbers(50, 3)
    temperature = fit_class_temperature(logits, logits.argmin(-1))
    scaled = temperature(logits)
    assert torch.equal(scaled.argmax(-1), logits.argmax(-1))
    assert float(scaled.softmax(-1).max()) < 0.34


def test_logits_that_say_nothing_stay() -> None:
    assert fit_class_temperature(torch.zeros(5, 3), torch.arange(5) % 3) == Temperature(1.0)
    assert fit_label_temperature(torch.zeros(1), torch.ones(1)) == Temperature(1.0)


def test_a_temperature_for_each_label() -> None:
    logits = numbers(400, 3, seed=3)
    target = (torch.rand(400, 3, generator=generator()).double() < torch.sigmoid(logits)).double()
    factors = vector(0.5, 1.0, 4.0)
    weight = numbers(400, seed=4).abs()
    fit = fit_label_temperature(factors * logits, target, per_label=True, sample_weight=weight)
    assert isinstance(fit.temperature, tuple)
    for k in range(3):
        alone = fit_label_temperature(factors[k] * logits[:, k], target[:, k], sample_weight=weight).temperature
        assert fit.temperature[k] == pytest.approx(alone, rel=1e-12)
    together = fit_label_temperature(factors * logits, target, sample_weight=weight)
    assert isinstance(together.temperature, float)
    assert fit(numbers(2, 5, 3).float()).dtype == torch.float32


def test_soft_targets_and_deeper_shapes() -> None:
    logits = numbers(6, 5, 3)
    soft = numbers(6, 5, 3, seed=1).softmax(-1)
    flat = fit_class_temperature(logits.reshape(30, 3), soft.reshape(30, 3))
    assert fit_class_temperature(logits, soft) == flat
    index = torch.arange(30).reshape(6, 5) % 3
    hard = fit_class_temperature(logits, F.one_hot(index, 3).double())
    assert fit_class_temperature(logits, index) == hard


def test_temperature_refuses_what_it_cannot_use() -> None:
    for temperature in (0.0, -1.0, math.inf, (), (1.0, math.nan)):
        with pytest.raises(DomainError):
            Temperature(temperature)  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        Temperature((1.0, 2.0))(torch.zeros(3))
    with pytest.raises(KindError):
        fit_class_temperature(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2))
    with pytest.raises(InputError, match="no values"):
        fit_class_temperature(torch.zeros(0, 2), torch.zeros(0))
    with pytest.raises(DomainError, match="class index"):
        fit_class_temperature(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(DomainError, match="finite"):
        fit_class_temperature(torch.tensor([[0.0, math.inf]]), torch.tensor([0]))
    with pytest.raises(ShapeError, match="class"):
        fit_class_temperature(torch.zeros(2, 2), torch.zeros(3))
    with pytest.raises(ShapeError):
        fit_label_temperature(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(DomainError, match="outside"):
        fit_label_temperature(torch.zeros(2), torch.tensor([0.0, 2.0]))


def test_rows_of_weight_zero_do_not_count_whatever_their_target() -> None:
    logits, target = numbers(30, 3), torch.arange(30) % 3
    weight = (torch.arange(30) < 20).double()
    masked = torch.where(weight > 0, target, -1)
    expected = fit_class_temperature(logits[:20], target[:20])
    assert fit_class_temperature(logits, masked, sample_weight=weight) == expected
    labels = (numbers(30, 3, seed=1) > 0).double()
    shares = logits.sigmoid()
    missing = torch.where(weight.unsqueeze(-1) > 0, labels, math.nan)
    for per_label in (False, True):
        found = fit_label_temperature(logits, missing, per_label=per_label, sample_weight=weight)
        alone = fit_label_temperature(logits[:20], labels[:20], per_label=per_label)
        assert found.temperature == pytest.approx(alone.temperature, rel=1e-12)
        found_map = fit_isotonic_labels(shares, missing, per_label=per_label, sample_weight=weight)
        assert found_map == fit_isotonic_labels(shares[:20], labels[:20], per_label=per_label)
    probability = logits.softmax(-1)
    isotonic = fit_isotonic_classes(probability, masked, sample_weight=weight)
    assert isotonic == fit_isotonic_classes(probability[:20], target[:20])
    with pytest.raises(InputError, match="is 0"):
        fit_label_temperature(logits, labels, per_label=True, sample_weight=vector(1.0, 1.0, 0.0).expand(30, 3))
    with pytest.raises(InputError, match="is 0"):
        fit_isotonic_labels(probability, labels, per_label=True, sample_weight=vector(1.0, 1.0, 0.0).expand(30, 3))


# --- isotonic


def test_isotonic_is_scikit_learns_but_for_what_it_rules_out() -> None:
    probability, weight = torch.rand(300, generator=generator()).double(), numbers(300).abs()
    target = (torch.rand(300, generator=generator(1)).double() < probability**2).double()
    oracle = IsotonicRegression(out_of_bounds="clip").fit(probability, target, sample_weight=weight)
    fit = fit_isotonic_labels(probability, target, sample_weight=weight)
    new = torch.linspace(0, 1, 101, dtype=torch.float64)
    rows = float(weight.sum() ** 2 / weight.square().sum())
    expected = oracle.predict(new.numpy()).clip(1 / (rows + 2), (rows + 1) / (rows + 2))
    np.testing.assert_allclose(fit(new), expected, rtol=1e-12)
    assert float(fit(probability).min()) > 0


def test_isotonic_classes_are_each_against_the_rest_and_add_up() -> None:
    logits = 2 * numbers(3000, 3)
    target = classes_of(logits)
    claimed = (3 * logits).softmax(-1)
    fit = fit_isotonic_classes(claimed, target)
    mended = fit(claimed)
    torch.testing.assert_close(mended.sum(-1), torch.ones(3000).double())
    raw = np.stack(
        [
            IsotonicRegression(out_of_bounds="clip").fit(claimed[:, k], target == k).predict(claimed[:, k])
            for k in range(3)
        ],
        axis=1,
    ).clip(1 / 3002, 3001 / 3002)
    np.testing.assert_allclose(mended, raw / raw.sum(1, keepdims=True), rtol=1e-10)
    new = 2 * numbers(3000, 3, seed=5)
    happened = classes_of(new, seed=6)
    before = expected_calibration_error(Categorical(3 * new), happened)
    after = expected_calibration_error(Categorical(fit((3 * new).softmax(-1)).log()), happened)
    assert after < 0.4 * before


def test_isotonic_for_each_label_and_deeper_shapes() -> None:
    probability, target = numbers(40, 3).sigmoid(), (numbers(40, 3, seed=1) > 0).double()
    fit = fit_isotonic_labels(probability, target, per_label=True)
    for k in range(3):
        alone = fit_isotonic_labels(probability[:, k], target[:, k])
        assert torch.equal(fit(probability)[:, k], alone(probability[:, k]))
    assert fit(probability.reshape(8, 5, 3)).shape == (8, 5, 3)
    assert fit(probability.float()).dtype == torch.float32


def test_isotonic_of_one_row_and_of_one_class() -> None:
    assert fit_isotonic_labels(vector(0.3), vector(1.0))(vector(0.0, 1.0)).tolist() == pytest.approx([2 / 3] * 2)
    one = fit_isotonic_classes(vector(0.3, 0.7).expand(10, 2), torch.zeros(10).long())
    assert one(vector(0.3, 0.7)).tolist() == pytest.approx([11 / 12, 1 / 12])
    # Where all parts are mapped to 0 they are equal.
    zero = Isotonic(((0.0, 1.0), (0.0, 1.0)), ((0.0, 0.0), (0.0, 0.0)), "classes")
    assert zero(vector(0.3, 0.7)).tolist() == [0.5, 0.5]


def test_isotonic_refuses_what_it_cannot_use() -> None:
    with pytest.raises(DomainError, match="not logits"):
        fit_isotonic_labels(torch.tensor([2.0]), torch.tensor([1.0]))
    with pytest.raises(ShapeError):
        fit_isotonic_labels(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(InputError, match="no values"):
        fit_isotonic_labels(torch.zeros(0), torch.zeros(0))
    with pytest.raises(DomainError, match="class index"):
        fit_isotonic_classes(torch.full((1, 2), 0.5), torch.tensor([2]))
    with pytest.raises(DomainError, match="ascend"):
        Isotonic(((0.0, 1.0),), ((1.0, 0.0),), "labels")
    with pytest.raises(ShapeError, match="expected"):
        Isotonic(((0.0,), (0.0,)), ((0.5,), (0.5,)), "labels")(torch.zeros(3))


# --- class weights undone


def test_the_shift_of_class_weights_is_undone_exactly() -> None:
    truth, weight = numbers(20, 4).softmax(-1), vector(0.1, 1.0, 2.0, 30.0)
    # The weighted loss Σ_k p_k w_k log(1/q_k) is least for q ∝ w p.
    learned = (weight * truth) / (weight * truth).sum(-1, keepdim=True)
    logits = learned.log().requires_grad_()
    gradient = torch.autograd.grad(-(weight * truth * logits.log_softmax(-1)).sum(), logits)[0]
    assert float(gradient.abs().max()) < 1e-12
    torch.testing.assert_close(correct_class_logits(logits, weight).softmax(-1), truth)
    torch.testing.assert_close(correct_class_logits(logits, 5 * weight).softmax(-1), truth)


def test_labels_are_classes_of_two() -> None:
    logits, positive, negative = numbers(7, 3), vector(2.0, 5.0, 0.1), 3.0
    corrected = correct_label_logits(logits, positive, negative)
    for k in range(3):
        both = torch.stack([torch.zeros(7).double(), logits[:, k]], -1)
        expected = correct_class_logits(both, vector(negative, float(positive[k])))
        torch.testing.assert_close(corrected[:, k], expected[:, 1] - expected[:, 0])
    assert correct_label_logits(torch.zeros(2), 2.0).dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 3])
def test_a_weighted_logistic_regression_is_calibrated_again(classes: int) -> None:
    features = numbers(20000, 2)
    coefficients = vector(*([0.0, 1.5, -1.0] * classes)[: 2 * classes]).reshape(2, classes)
    truth = features @ coefficients + vector(0.0, -2.0, 1.0)[:classes]
    target = classes_of(truth)
    weight = vector(1.0, 8.0, 0.5)[:classes]
    model = LogisticRegression(C=1e6, class_weight=dict(enumerate(weight.tolist())), tol=1e-8, max_iter=500)
    decision = torch.from_numpy(model.fit(features.numpy(), target.numpy()).decision_function(features.numpy()))
    if classes == 2:
        decision = torch.stack([torch.zeros_like(decision), decision], -1)
        corrected = correct_label_logits(decision[:, 1], float(weight[1]), float(weight[0]))
        corrected = torch.stack([torch.zeros_like(corrected), corrected], -1)
    else:
        corrected = correct_class_logits(decision, weight)
    error = (corrected.softmax(-1) - truth.softmax(-1)).abs().mean()
    assert float(error) < 0.012
    assert float((decision.softmax(-1) - truth.softmax(-1)).abs().mean()) > 0.05


def test_weights_that_are_no_weights_are_refused() -> None:
    for weight in ([1.0, 0.0], [1.0, -1.0], [1.0, math.inf], [math.nan, 1.0]):
        with pytest.raises(DomainError, match="positive"):
            correct_class_logits(torch.zeros(1, 2), torch.tensor(weight))
    with pytest.raises(ShapeError):
        correct_class_logits(torch.zeros(1, 3), torch.ones(2))
    with pytest.raises(ShapeError):
        correct_label_logits(torch.zeros(3), torch.ones(2))
    with pytest.raises(DomainError):
        correct_label_logits(torch.zeros(3), 0.0)


# --- distributions with changed spread or levels

CONTINUOUS: dict[str, tuple[Distribution, list[Any]]] = {
    "gaussian": (Gaussian(vector(-3.0, 1e4), vector(0.5, 3.0)), [stats.norm(-3, 0.5), stats.norm(1e4, 3)]),
    "laplace": (Laplace(vector(1.0), vector(2.0)), [stats.laplace(1, 2)]),
    "student_t": (StudentT(vector(0.0, 2.0), vector(1.0, 0.1), vector(3.0, 30.0)), [stats.t(3), stats.t(30, 2, 0.1)]),
    "gamma": (Gamma(vector(3.0, 0.7), vector(2.0, 1.0)), [stats.gamma(3, scale=0.5), stats.gamma(0.7)]),
    "log_normal": (LogNormal(vector(0.0), vector(0.5)), [stats.lognorm(0.5)]),
    "beta": (Beta(vector(2.0, 0.8), vector(3.0, 4.0)), [stats.beta(2, 3), stats.beta(0.8, 4)]),
}
LEVELS = LevelMap((0.0, 0.02, 0.3, 0.6, 0.9, 0.999, 1.0), (0.0, 0.05, 0.2, 0.7, 0.8, 0.98, 1.0))
CHANGED: dict[str, Callable[[Distribution], Distribution]] = {
    "wider": lambda base: Rescaled(base, 1.7),
    "narrower": lambda base: Rescaled(base, 0.6),
    "recalibrated": lambda base: Recalibrated(base, LEVELS),
}


def changed_cdf(oracle: Any, change: str, base: Distribution) -> Callable[[float], float]:
    """The cdf by its definition, from SciPy's cdf."""
    if change == "recalibrated":
        return lambda y: float(np.interp(oracle.cdf(y), LEVELS.claimed, LEVELS.observed))
    factor, median = (1.7 if change == "wider" else 0.6), oracle.median()
    if math.isinf(base.support.low):
        return lambda y: float(oracle.cdf(median + (y - median) / factor))
    if math.isinf(base.support.high):
        return lambda y: float(oracle.cdf(median * (y / median) ** (1 / factor)))
    odds = median / (1 - median)

    def between(y: float) -> float:
        if not 0 < y < 1:
            return float(y >= 1)
        changed = odds * (y / (1 - y) / odds) ** (1 / factor)
        return float(oracle.cdf(changed / (1 + changed)))

    return between


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("family", CONTINUOUS)
def test_changed_distributions_are_what_their_cdf_says(family: str, change: str) -> None:
    base, oracles = CONTINUOUS[family]
    distribution = CHANGED[change](base)
    shares = vector(1e-6, 1e-3, 0.04, 0.27, 0.5, 0.77, 0.95, 0.9999)
    values = distribution.quantile(shares.tolist())
    torch.testing.assert_close(distribution.cdf(values), shares.unsqueeze(-1).expand_as(values), rtol=1e-9, atol=1e-12)
    density = distribution.log_prob(values).exp()
    for i, oracle in enumerate(oracles):
        cdf = changed_cdf(oracle, change, base)
        np.testing.assert_allclose(distribution.cdf(values)[:, i], [cdf(float(y)) for y in values[:, i]], rtol=1e-8)
        for k in range(1, len(shares) - 1):
            y = float(values[k, i])
            step = 1e-4 * float(values[k - 1 : k + 2, i].diff().min())
            slope = (cdf(y + step) - cdf(y - step)) / (2 * step)
            assert float(density[k, i]) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("family", CONTINUOUS)
def test_moments_and_crps_of_changed_distributions_are_those_of_their_cdf(family: str, change: str) -> None:
    base, oracles = CONTINUOUS[family]
    distribution = CHANGED[change](base)
    shares = [1e-14, 1e-9, 1e-4, 0.02, 0.05, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.98, 0.9999, 1 - 1e-9, 1 - 1e-14]
    for i, oracle in enumerate(oracles):
        ends = [float(end) for end in distribution.quantile(shares)[:, i]]
        mean, variance, center, scale = moments(changed_cdf(oracle, change, base), ends)
        # Of three degrees of freedom the variance's tail falls as 1/y: what lies beyond the last share is missed here.
        rough = 1e-3 if family == "student_t" and i == 0 else 1e-6
        assert float(distribution.mean[i]) - center == pytest.approx(mean, rel=1e-6, abs=1e-6 * scale)
        assert float(distribution.variance[i]) == pytest.approx(variance, rel=rough)
        for y in (ends[4], center, ends[11], ends[-1]):
            found = float(distribution.crps(torch.full_like(base.mean, y))[i])
            expected = crps_of(changed_cdf(oracle, change, base), ends, y)
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-8 * scale)


def pieces(function: Callable[[float], float], ends: list[float]) -> float:
    with warnings.catch_warnings():
        # Of tails that are all rounding quadpack says so; they count for nothing.
        warnings.simplefilter("ignore", integrate.IntegrationWarning)
        return sum(integrate.quad(function, a, b, limit=100, epsabs=1e-12)[0] for a, b in pairwise(ends))


def moments(cdf: Callable[[float], float], ends: list[float]) -> tuple[float, float, float, float]:
    """From the cdf alone: mean (from the center on), variance, the center and the root of the second moment there."""
    center = ends[len(ends) // 2]
    below, above = ends[: len(ends) // 2 + 1], ends[len(ends) // 2 :]
    mean = pieces(lambda y: 1 - cdf(y), above) - pieces(cdf, below)
    second = pieces(lambda y: 2 * (y - center) * (1 - cdf(y)), above)
    second += pieces(lambda y: 2 * (center - y) * cdf(y), below)
    return mean, second - mean**2, center, math.sqrt(second)


def crps_of(cdf: Callable[[float], float], ends: list[float], y: float) -> float:
    below = pieces(lambda x: cdf(x) ** 2, [*(end for end in ends if end < y), y])
    return below + pieces(lambda x: (1 - cdf(x)) ** 2, [y, *(end for end in ends if end > y)])


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("family", CONTINUOUS)
def test_entropy_mode_and_sample_of_changed_distributions(family: str, change: str) -> None:
    distribution = CHANGED[change](CONTINUOUS[family][0])
    draws = distribution.sample(40000, generator=generator())
    assert draws.shape == (40000, *distribution.shape)
    surprise = -distribution.log_prob(draws)
    error = surprise.std(0) / 200
    assert bool(((surprise.mean(0) - distribution.entropy).abs() < 4.5 * error).all())
    for i in range(distribution.shape[0]):
        assert stats.kstest(distribution.cdf(draws)[:, i].numpy(), "uniform").pvalue > 1e-4
    grid = distribution.quantile(torch.linspace(0.001, 0.999, 999).double())
    at_mode = distribution.log_prob(distribution.mode)
    # The mode of a density that is infinite at an end is that end; at a corner the value before it counts.
    best = distribution.log_prob(grid).amax(0)
    near = distribution.log_prob(
        torch.stack([distribution.mode * (1 - 1e-9), distribution.mode * (1 + 1e-9) + 1e-15])
    ).amax(0)
    assert bool((torch.maximum(at_mode, near) >= best - 1e-6).all())


def test_the_identity_changes_nothing() -> None:
    for base, _ in CONTINUOUS.values():
        for same in (Rescaled(base, 1.0), Recalibrated(base, LevelMap((0.0, 1.0), (0.0, 1.0)))):
            y = base.quantile([0.001, 0.3, 0.9])
            for question in ("mean", "variance", "entropy", "median"):
                expected = getattr(base, question)
                torch.testing.assert_close(getattr(same, question), expected, rtol=2e-6, atol=1e-7)
            torch.testing.assert_close(same.log_prob(y), base.log_prob(y))
            torch.testing.assert_close(same.crps(y), base.crps(y), rtol=1e-7, atol=1e-9)


def test_moments_that_are_not_there_stay_away() -> None:
    cauchy = StudentT(vector(0.0), vector(1.0), vector(1.0))
    changed = Recalibrated(cauchy, LEVELS)
    assert not bool(changed.mean.isfinite().any())
    assert not bool(changed.variance.isfinite().any())
    assert bool(changed.crps(vector(0.5)).isfinite().all())


@pytest.mark.parametrize(
    "base", [Poisson(vector(-2.0, 1.0, 6.0)), NegativeBinomial(vector(0.0, 3.0), vector(0.5, 4.0))]
)
def test_recalibrated_counts_are_what_their_cdf_says(base: Distribution) -> None:
    distribution = RecalibratedCounts(base, LEVELS)
    top = int(base.quantile(1 - 1e-15).max()) + 2
    y = torch.arange(-1, top, dtype=torch.float64).unsqueeze(-1).expand(-1, *base.shape)
    cdf = torch.from_numpy(np.interp(base.cdf(y).numpy(), LEVELS.claimed, LEVELS.observed))
    mass = cdf.diff(dim=0)
    numbers_ = y[1:]
    torch.testing.assert_close(distribution.cdf(y), cdf)
    torch.testing.assert_close(distribution.log_prob(numbers_).exp(), mass, rtol=1e-6, atol=1e-14)
    mean = (mass * numbers_).sum(0)
    torch.testing.assert_close(distribution.mean, mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(distribution.variance, (mass * (numbers_ - mean) ** 2).sum(0), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(distribution.entropy, torch.special.entr(mass).sum(0), rtol=1e-7, atol=1e-9)
    assert torch.equal(distribution.mode, mass.argmax(0).double())
    for value in (0.0, 1.0, 2.5, 5000.0):
        steps = torch.arange(0, max(top, 5001), 0.5, dtype=torch.float64).unsqueeze(-1)
        at = torch.from_numpy(
            np.interp(base.cdf(steps.expand(-1, *base.shape).floor()), LEVELS.claimed, LEVELS.observed)
        )
        crps = 0.5 * (at - (steps >= value).double()).square().sum(0)
        torch.testing.assert_close(distribution.crps(torch.full_like(mean, value)), crps, rtol=1e-7, atol=1e-8)
    several = torch.stack([numbers_[0], numbers_[3], numbers_[2]])
    torch.testing.assert_close(distribution.crps(several)[1], distribution.crps(several[1]))
    for q in (0.001, 0.05, 0.2, 0.5, 0.7, 0.98, 0.9999):
        found = distribution.quantile(q)
        assert bool((distribution.cdf(found) >= q).all())
        assert bool(((found == 0) | (distribution.cdf(found - 1) < q)).all())
    draws = distribution.sample(20000, generator=generator())
    assert bool(((draws.mean(0) - mean).abs() < 4.5 * distribution.standard_deviation / math.sqrt(20000)).all())


@pytest.mark.parametrize("change", CHANGED)
def test_changed_distributions_keep_dtype_shape_and_gradient(change: str) -> None:
    base = Gaussian(torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3))
    distribution = CHANGED[change](base)
    for question in ("mean", "variance", "entropy", "mode", "median"):
        assert getattr(distribution, question).shape == (2, 3)
        assert getattr(distribution, question).dtype == torch.float32
    assert distribution.quantile([0.1, 0.2]).shape == (2, 2, 3)
    assert distribution.crps(torch.zeros(4, 2, 3)).shape == (4, 2, 3)
    assert distribution[0].shape == (3,)
    assert distribution.sample(5).shape == (5, 2, 3)
    distribution.log_prob(torch.ones(2, 3)).sum().backward()
    assert bool((base.location.grad != 0).all())
    assert bool(distribution.log_prob(1e4).isfinite().all())
    assert bool(distribution.quantile([1e-30, 1 - 1e-7]).isfinite().all())


def test_values_outside_stay_outside() -> None:
    for family in ("gamma", "beta", "log_normal"):
        for change in CHANGED.values():
            distribution = change(CONTINUOUS[family][0])
            assert bool((distribution.log_prob(-1.0) == -math.inf).all())
            assert bool((distribution.cdf(-1.0) == 0).all())
            assert bool((distribution.quantile(0.0) >= 0).all())
            assert bool(distribution.log_prob(math.nan).isnan().all())


# --- recalibration


@pytest.mark.parametrize("family", ["gaussian", "laplace", "student_t", "gamma", "beta", "log_normal"])
def test_the_scale_factor_makes_held_out_rows_likeliest(family: str) -> None:
    base = CONTINUOUS[family][0][:1].map(lambda parameter: parameter.expand(800))
    target = Rescaled(base, 1.8).sample(1, generator=generator())[0]
    weight = numbers(800, seed=8).abs()
    fit = fit_scale(base, target, sample_weight=weight)
    losses = [
        float(mean_nll(ScaleRecalibration(fit.factor * k)(base), target, sample_weight=weight))
        for k in (1.0, 0.999, 1.001)
    ]
    assert losses[0] < min(losses[1:])
    assert fit.factor == pytest.approx(1.8, rel=0.2)


def test_the_scale_factor_of_gaussians_by_hand() -> None:
    base = Gaussian(vector(0.0, 1.0, 2.0), vector(1.0, 2.0, 1.0))
    # z = 2, 1, 3 with weights 1, 1, 2: √((4 + 1 + 18)/4).
    fit = fit_scale(base, vector(2.0, 3.0, 5.0), sample_weight=vector(1.0, 1.0, 2.0))
    assert fit.factor == pytest.approx(math.sqrt(23 / 4))
    assert isinstance(fit(base), Gaussian)
    # Of a Laplace the mean of |z|.
    laplace = fit_scale(Laplace(vector(0.0, 1.0, 2.0), vector(1.0, 2.0, 1.0)), vector(2.0, 3.0, 5.0))
    assert laplace.factor == pytest.approx(2.0, rel=1e-6)


def test_scale_recalibration_of_constants_and_impossible_targets() -> None:
    base = Gaussian(vector(1.0, 1.0), vector(1.0, 1.0))
    assert fit_scale(base, vector(1.0, 1.0)).factor == pytest.approx(1e-3)
    assert fit_scale(Laplace(vector(1.0), vector(1.0)), vector(1.0)).factor == pytest.approx(1e-3)
    with pytest.raises(DomainError, match="impossible"):
        fit_scale(Gamma(vector(1.0), vector(1.0)), vector(-1.0))
    with pytest.raises(DomainError, match="NaN"):
        fit_scale(base, vector(1.0, math.nan))
    with pytest.raises(DomainError, match="whole numbers"):
        fit_scale(Poisson(vector(1.0)), vector(1.0))
    with pytest.raises(InputError, match="no values"):
        fit_scale(base[:0], vector())


def test_pit_recalibration_mends_coverage_and_likelihood_on_new_rows() -> None:
    def rows(seed: int) -> tuple[Distribution, Tensor]:
        x = numbers(4000, seed=seed)
        skewed = stats.gamma(2.0).ppf(torch.rand(4000, generator=generator(seed + 50)).double().numpy())
        return Gaussian(x + 1.5, torch.full_like(x, 0.7)), x + torch.from_numpy(skewed)

    held_out, target = rows(0)
    fit = fit_pit_recalibration(held_out, target)
    claimed, new = rows(1)
    mended = fit(claimed)
    for level in (0.5, 0.8, 0.9, 0.95):
        assert abs(float(coverage(claimed, new, level)) - level) > 0.05
        # Four standard errors of the share, of both samples.
        error = 4 * math.sqrt(2 * level * (1 - level) / 4000)
        assert float(coverage(mended, new, level)) == pytest.approx(level, abs=error)
    assert float(mean_nll(mended, new)) < float(mean_nll(claimed, new)) - 0.2
    torch.testing.assert_close(mended.mean.mean(), new.mean(), rtol=0, atol=0.15)


def test_pit_recalibration_of_the_truth_costs_little() -> None:
    truth = Gaussian(numbers(3000), numbers(3000, seed=1).exp())
    fit = fit_pit_recalibration(truth, truth.sample(1, generator=generator())[0])
    new = truth.sample(1, generator=generator(1))[0]
    assert float(mean_nll(fit(truth), new) - mean_nll(truth, new)) < 0.03


def test_pit_recalibration_of_counts() -> None:
    truth = NegativeBinomial(numbers(4000) + 2, torch.full((4000,), 2.0).double())
    claimed = Poisson(numbers(4000) + 2)
    target, new = truth.sample(2, generator=generator())
    fit = fit_pit_recalibration(claimed, target, generator=generator(1))
    assert fit == fit_pit_recalibration(claimed, target, generator=generator(1))
    mended = fit(claimed)
    assert isinstance(mended, RecalibratedCounts)
    assert float(mean_nll(mended, new)) < float(mean_nll(claimed, new)) - 0.3
    assert abs(float(coverage(mended, new, 0.8)) - 0.8) < 0.5 * abs(float(coverage(claimed, new, 0.8)) - 0.8)


def test_the_map_goes_through_the_empirical_shares() -> None:
    n = 999
    pit = (torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)) ** 2
    base = Gaussian(torch.zeros(n).double(), torch.ones(n).double())
    fit = fit_pit_recalibration(base, torch.special.ndtri(pit), pieces=8)
    # As F(y) = u², the share observed below u² is u.
    np.testing.assert_allclose(np.sqrt(fit.claimed), fit.observed, atol=2e-3)
    for share in (0.125, 0.5, 0.875):
        assert share in fit.observed
    assert min(np.diff(fit.observed)) * n >= 9


def test_the_map_of_three_rows_by_hand() -> None:
    pit = vector(0.6, 0.2, 0.5)
    fit = fit_pit_recalibration(
        Gaussian(torch.zeros(3).double(), torch.ones(3).double()), torch.special.ndtri(pit), pieces=4
    )
    assert fit.observed == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert fit.claimed == pytest.approx((0.0, 0.2, 0.5, 0.6, 1.0), abs=1e-6)


def test_weights_of_pit_recalibration_are_repetitions() -> None:
    y = numbers(2000)
    repeats = torch.where(y > 0.3, 3, torch.arange(2000) % 2)
    base = Gaussian(torch.zeros(2000).double(), torch.full((2000,), 2.0).double())
    index = torch.repeat_interleave(torch.arange(2000), repeats)
    weighted = fit_pit_recalibration(base, y, pieces=6, sample_weight=repeats.double())
    repeated = fit_pit_recalibration(base[index], y[index], pieces=6)
    share = torch.linspace(0, 1, 51, dtype=torch.float64)
    torch.testing.assert_close(weighted.levels(share), repeated.levels(share), rtol=0, atol=0.005)


@pytest.mark.parametrize("value", [0.0, 100.0, -1e6])
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_pit_recalibration_of_constants_stays_a_distribution(n: int, value: float) -> None:
    base = Gaussian(torch.zeros(n).double(), torch.ones(n).double())
    fit = fit_pit_recalibration(base, torch.full((n,), value).double())
    mended = fit(base)
    assert bool(mended.log_prob(0.0).isfinite().all())
    assert bool(mended.quantile([0.001, 0.5, 0.999]).isfinite().all())
    assert bool(mended.variance.isfinite().all())
    corners = [-9.0, *mended[:1].quantile(list(fit.observed[1:-1])).flatten().tolist(), 9.0]
    if value == 0.0:
        total = sum(
            integrate.quad(lambda y: float(mended[:1].log_prob(y).exp()), a, b)[0] for a, b in pairwise(corners)
        )
        assert total == pytest.approx(1.0, abs=1e-3)


def test_one_row_and_one_piece_change_nothing() -> None:
    base = Gaussian(vector(0.0), vector(1.0))
    assert fit_pit_recalibration(base, vector(2.0)) == PitRecalibration((0.0, 1.0), (0.0, 1.0))
    with pytest.raises(InputError, match="pieces"):
        fit_pit_recalibration(base, vector(2.0), pieces=0)
    with pytest.raises(DomainError, match="NaN"):
        fit_pit_recalibration(base, vector(math.nan))
    with pytest.raises(DomainError, match="ascend"):
        PitRecalibration((0.0, 0.5, 0.5, 1.0), (0.0, 0.2, 0.3, 1.0))
    with pytest.raises(DomainError, match="Fix"):
        Rescaled(Poisson(vector(0.0)), 2.0)
    with pytest.raises(DomainError, match="Fix"):
        Recalibrated(Poisson(vector(0.0)), LEVELS)
    with pytest.raises(DomainError, match="Fix"):
        RecalibratedCounts(base, LEVELS)


def test_states_come_back_from_json_exactly() -> None:
    probability, y = numbers(50, 3).softmax(-1), torch.arange(50) % 3
    base = Gaussian(numbers(50), numbers(50).exp())
    states: list[State] = [
        fit_class_temperature(numbers(50, 3), y),
        fit_label_temperature(numbers(50, 3), (numbers(50, 3, seed=1) > 0).double(), per_label=True),
        fit_isotonic_classes(probability, y),
        fit_isotonic_labels(probability, F.one_hot(y, 3), per_label=True),
        fit_scale(base, numbers(50, seed=1)),
        fit_pit_recalibration(base, numbers(50, seed=1)),
    ]
    for state in states:
        assert from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False))) == state


def test_inputs_are_left_as_they_were() -> None:
    logits, y = numbers(30, 3), torch.arange(30) % 3
    base, target = Gaussian(numbers(30), numbers(30).exp()), numbers(30, seed=1)
    before = [tensor.clone() for tensor in (logits, y, base.location, base.scale, target)]
    fit_class_temperature(logits, y)(logits)
    fit_isotonic_classes(logits.softmax(-1), y)
    _ = fit_pit_recalibration(base, target)(base).mean
    _ = fit_scale(base, target)(base).mean
    correct_class_logits(logits, vector(1.0, 2.0, 3.0))
    for tensor, copy in zip((logits, y, base.location, base.scale, target), before, strict=True):
        assert torch.equal(tensor, copy)
