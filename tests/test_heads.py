"""Every head of the catalog against what a head promises, and against SciPy and torch.distributions as oracles."""

from __future__ import annotations

import json
import math

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.testing import assert_close

from head_cases import CASES, NORMAL, WITH_SCALE, Case, every_case, every_scale, real, scipy_density
from lastlayer import heads, losses
from lastlayer.checks import DomainError, InputError, ShapeError
from lastlayer.evaluation import evaluate
from loss_properties import random


def test_every_head_of_the_catalog_is_tested():
    assert {case.head.facts.name for case in CASES.values()} == set(heads.catalog())
    for name, head in heads.catalog().items():
        assert head.facts.name == name
        assert all(vars(head.facts).values())
        assert head.facts.loss in losses.catalog()
        assert getattr(heads, head.__name__) is head


@every_case
def test_closed_form_gradient_is_that_of_autograd(case):
    raw, target = case.raw(20).requires_grad_(), case.targets(20)
    weight = torch.rand(20, dtype=torch.float64, generator=random(3))
    for options in ({}, {"sample_weight": weight}, {"normalizer": 7.0}, {"sample_weight": weight, "normalizer": 7.0}):
        loss = case.head.loss(raw, target, **options)
        value, gradient = case.head.loss_and_gradient(raw, target, **options)
        assert_close(value, loss.detach())
        assert_close(gradient, torch.autograd.grad(loss, raw)[0])
        assert gradient.shape == raw.shape
        assert not gradient.requires_grad


@every_case
def test_gradient_goes_on_into_the_network(case):
    layer = torch.nn.Linear(5, case.head.raw_size, dtype=torch.float64)
    features, target = torch.randn(12, 5, dtype=torch.float64, generator=random(4)), case.targets(12)
    raw = layer(features)
    raw.backward(case.head.loss_and_gradient(raw, target)[1])
    direct = torch.autograd.grad(case.head.loss(layer(features), target), [*layer.parameters()])
    assert_close([parameter.grad for parameter in layer.parameters()], [*direct])


@every_case
def test_masked_rows_count_nothing(case):
    raw, target = case.raw(6), case.targets(6)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    if target.is_floating_point():
        target[weight == 0] = torch.nan
    kept = weight > 0
    value, gradient = case.head.loss_and_gradient(raw, target, sample_weight=weight)
    assert_close(value, case.head.loss(raw[kept], target[kept], sample_weight=weight[kept]))
    assert (gradient[~kept] == 0).all()
    value, gradient = case.head.loss_and_gradient(raw, target, sample_weight=torch.zeros(6))
    assert value == 0
    assert (gradient == 0).all()


@every_case
def test_initial_bias_is_the_best_constant(case):
    target = case.targets(301)
    weight = torch.rand(301, dtype=torch.float64, generator=random(3))
    bias = case.head.initial_bias(target, weight)
    assert bias.shape == (case.head.raw_size,)

    def mean_at(constant: Tensor) -> Tensor:
        return case.head.loss(constant.expand(301, -1), target, sample_weight=weight)

    for size in (1e-3, 0.1, 1.0, 5.0):
        for seed in range(5):
            step = size * torch.randn(bias.shape, dtype=torch.float64, generator=random(seed))
            assert mean_at(bias + step) >= mean_at(bias) - 1e-12
            assert mean_at(bias - step) >= mean_at(bias) - 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize(
    "head",
    [
        heads.Bernoulli(),
        heads.MultiLabel(labels=3),
        heads.UnitInterval(),
        heads.UnitInterval(criterion="squared_error"),
    ],
    ids=repr,
)
def test_initial_bias_of_a_single_outcome_is_confident_and_finite(head, level, dtype):
    for n in range(1, 120):
        target = torch.full((n, 3) if isinstance(head, heads.MultiLabel) else (n,), level, dtype=dtype)
        bias = head.initial_bias(target, 0.1 + torch.rand(n, dtype=dtype, generator=random(n)))
        assert_close(bias, torch.full_like(bias, 10.0 if level else -10.0))


def test_initial_bias_of_a_class_that_never_occurs_is_finite():
    bias = heads.Categorical(classes=3).initial_bias(torch.tensor([0, 0, 2, 2]), torch.ones(4))
    assert_close(bias, torch.tensor([math.log(0.5), -10.0, math.log(0.5)]))


@every_case
def test_round_trip_through_json(case):
    saved = json.loads(json.dumps(case.head.to_dict()))
    assert saved["name"] == case.head.facts.name
    again = heads.from_dict(saved)
    assert again == case.head
    assert hash(again) == hash(case.head)
    assert repr(again) == repr(case.head)
    assert saved == case.head.to_dict(), "from_dict leaves what it is given alone"


def test_a_saved_head_that_nobody_knows():
    with pytest.raises(InputError, match="no head named 'gausian'; expected one of 'bernoulli', 'categorical'"):
        heads.from_dict({"name": "gausian"})
    with pytest.raises(InputError, match="no head named None"):
        heads.from_dict({})
    with pytest.raises(InputError, match="'categorical' does not take these options"):
        heads.from_dict({"name": "categorical", "labels": 3})
    with pytest.raises(InputError, match="'categorical' does not take these options"):
        heads.from_dict({"name": "categorical"})


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_parameters_are_valid_at_extremes(case, dtype):
    size = torch.tensor([0.0, 1e-3, 1.0, 30.0, 1e3, 1e4])
    extremes = torch.cat([size, -size])
    raw = torch.stack([extremes.roll(shift) for shift in range(case.head.raw_size)], -1).to(dtype)
    parameters = case.head.parameters(raw)
    for name, value in parameters.items():
        assert value.isfinite().all(), name
        assert value.shape[0] == len(raw)
    probability = parameters.get("probability")
    if probability is not None:
        assert (probability >= 0).all()
        assert (probability <= 1).all()
    if isinstance(case.head, heads.Categorical):
        assert_close(probability.double().sum(-1), torch.ones(len(raw)).double(), rtol=0, atol=2e-2)
    if "scale" in parameters:
        assert (parameters["scale"] > 0).all()
    if isinstance(case.head, heads.UnitInterval):
        assert (parameters["mean"] >= 0).all()
        assert (parameters["mean"] <= 1).all()


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_loss_and_gradient_are_finite_at_extremes(case, dtype):
    raw = (case.raw(64).sign() * 1e4).to(dtype)
    target = case.targets(64)
    loss, gradient = case.head.loss_and_gradient(raw, target)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype
    assert case.head.negative_log_likelihood(raw, target).isfinite().all()


@every_case
def test_raw_with_a_wrong_last_axis_names_the_fix(case):
    size = case.head.raw_size
    fix = r"raw\.unsqueeze\(-1\)" if size == 1 else rf"nn\.Linear\(width, {size}\)"
    target, weight = case.targets(7), torch.ones(7)
    for raw in (torch.zeros(7, size + 1), torch.zeros(7), torch.tensor(0.0)):
        for ask in (
            case.head.parameters,
            lambda raw: case.head.loss(raw, target),
            lambda raw: case.head.loss_and_gradient(raw, target),
            lambda raw: case.head.negative_log_likelihood(raw, target),
        ):
            with pytest.raises(ShapeError, match=rf"expected \(\.\.\., {size}\)\. Fix: .*{fix}"):
                ask(raw)
        if hasattr(case.head, "scale"):
            with pytest.raises(ShapeError, match="expected"):
                case.head.refit(raw, target, weight)


@every_case
def test_target_of_another_shape_names_both(case):
    raw, target = case.raw(7), case.targets(7)
    for wrong in (target.unsqueeze(-1), target[:-1]):
        with pytest.raises(ShapeError) as caught:
            case.head.loss(raw, wrong)
        assert str(tuple(wrong.shape)) in str(caught.value)


@every_case
def test_check_target(case):
    case.head.check_target(case.targets(50))
    case.head.check_target(case.targets(5, 4))
    case.head.check_target(case.targets(0))
    wrong = case.outside.flatten()[-1] if case.outside.dim() == 1 else case.outside[1, 1]
    with pytest.raises(DomainError) as caught:
        case.head.check_target(case.outside)
    assert f"{wrong.item():g}" in str(caught.value)
    assert type(case.head).__name__ in str(caught.value)


@every_case
def test_check_target_refuses_nan(case):
    target = case.targets(6).double()
    target[(3, *[0] * (target.dim() - 1))] = torch.nan
    with pytest.raises(DomainError, match="nan"):
        case.head.check_target(target)


def test_check_target_says_where():
    with pytest.raises(DomainError, match=r"target 1\.5 at index \[1\] lies outside \[0, 1\], 0 or 1"):
        heads.Bernoulli().check_target(torch.tensor([0.0, 1.5]))
    with pytest.raises(DomainError, match=r"target 2 at index \[1, 0\]"):
        heads.MultiLabel(labels=2).check_target(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(DomainError, match=r"holds 3; expected class indices 0 … 2.*count classes from 0"):
        heads.Categorical(classes=3).check_target(torch.tensor([1, 2, 3]))
    with pytest.raises(DomainError, match=r"holds -0\.5; .*class probabilities"):
        heads.Categorical(classes=2).check_target(torch.tensor([[1.5, -0.5]], dtype=torch.float64))


@every_case
def test_negative_log_likelihood_is_that_of_an_oracle(case):
    for shape in ((40,), (4, 5)):
        raw, target = case.raw(*shape), case.targets(*shape)
        assert_close(case.head.negative_log_likelihood(raw, target), -case.log_density(raw, target))


@pytest.mark.parametrize("case", [case for name, case in CASES.items() if name != "unit_interval"])
def test_the_training_loss_is_the_likelihood(case):
    """All but the cross-entropy of a proportion, which is no density."""
    raw, target = case.raw(30), case.targets(30)
    assert_close(case.head.loss(raw, target), -case.log_density(raw, target).mean())


@every_case
def test_negative_log_likelihood_holds_no_graph(case):
    raw = case.raw(5).requires_grad_()
    assert not case.head.negative_log_likelihood(raw, case.targets(5)).requires_grad


@every_case
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 6), (1, 1, 1), (3, 0)])
def test_dense_outputs(case, shape):
    """SPEC A9: the same head on ``(N, H, W, raw_size)`` and ``(N, T, raw_size)``."""
    raw, target = case.raw(*shape), case.targets(*shape)
    count = math.prod(shape)
    flat_raw = raw.reshape(count, case.head.raw_size)
    flat_target = target.reshape(count, *target.shape[len(shape) :])
    each = case.head.loss(raw, target, reduction="none")
    assert each.shape == shape
    assert_close(each.flatten(), case.head.loss(flat_raw, flat_target, reduction="none"))
    value, gradient = case.head.loss_and_gradient(raw, target)
    flat_value, flat_gradient = case.head.loss_and_gradient(flat_raw, flat_target)
    assert_close(value, flat_value)
    assert_close(gradient.reshape(flat_raw.shape), flat_gradient)
    assert gradient.shape == raw.shape
    for name, parameter in case.head.parameters(raw).items():
        assert parameter.shape[: len(shape)] == shape, name
    # One weight per image stands for all its positions.
    if count:
        weight = torch.rand(shape[0], dtype=torch.float64, generator=random(3))
        spread = weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        assert_close(
            case.head.loss(raw, target, sample_weight=weight), case.head.loss(raw, target, sample_weight=spread)
        )


@every_scale
def test_refit_finds_the_maximum_likelihood_scale(case):
    raw, target = case.raw(200), case.targets(200)
    fitted = case.head.refit(raw, target, torch.ones(200))
    assert type(fitted) is type(case.head)
    location = next(iter(fitted.parameters(raw).values()))
    oracle = scipy.stats.laplace if isinstance(case.head, heads.Laplace) else scipy.stats.norm
    _, scale = oracle.fit((target - location).numpy(), floc=0)
    assert fitted.scale == pytest.approx(scale)
    best = fitted.negative_log_likelihood(raw, target).mean()
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = heads.from_dict(fitted.to_dict() | {"scale": fitted.scale * factor})
        assert other.negative_log_likelihood(raw, target).mean() > best


@every_scale
def test_refit_takes_weights(case):
    raw, target = case.raw(30), case.targets(30)
    times = torch.arange(30) % 3
    rows = torch.repeat_interleave(torch.arange(30), times)
    weighted = case.head.refit(raw, target, times.double())
    repeated = case.head.refit(raw[rows], target[rows], torch.ones(len(rows)))
    assert weighted.scale == pytest.approx(repeated.scale)


@every_scale
def test_refit_never_broadcasts_and_passes_over_masked_rows(case):
    raw, target = case.raw(6, 4), case.targets(6, 4)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
    spread = weight.unsqueeze(-1).expand(6, 4)
    expected = case.head.refit(raw.flatten(0, 1), target.flatten(), spread.flatten()).scale
    assert case.head.refit(raw, target, spread).scale == pytest.approx(expected)
    target[weight == 0] = torch.nan
    assert case.head.refit(raw, target, weight).scale == pytest.approx(expected)
    with pytest.raises(ShapeError, match=r"raw has shape \(6, 4\), target \(6, 4, 1\)"):
        case.head.refit(raw, target.unsqueeze(-1), weight)
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(4,\)"):
        case.head.refit(raw, target, torch.ones(4))


@every_scale
def test_refit_of_perfect_predictions_keeps_a_positive_scale(case):
    raw = case.raw(30)
    location = next(iter(case.head.parameters(raw).values()))
    assert 0 < case.head.refit(raw, location, torch.ones(30)).scale < 1e-5


@pytest.mark.parametrize("case", [case for name, case in CASES.items() if name not in WITH_SCALE])
def test_refit_of_a_head_without_constants_is_itself(case):
    assert case.head.refit(case.raw(5), case.targets(5), torch.ones(5)) is case.head


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("head", [heads.Gaussian, heads.Laplace, heads.UnitInterval])
def test_scale_must_be_positive(head, scale):
    with pytest.raises(InputError, match=f"{head.__name__}: scale is .*expected a positive number"):
        head(scale=scale)


def test_counts_must_be_whole_and_enough():
    for wrong in (1, 0, -3, 2.0, True, "3", None):
        with pytest.raises(InputError, match=r"classes is .*whole number, 2 or more"):
            heads.Categorical(classes=wrong)
    for wrong in (0, 1.0, True):
        with pytest.raises(InputError, match=r"labels is .*whole number, 1 or more"):
            heads.MultiLabel(labels=wrong)
    with pytest.raises(InputError, match="criterion is 'mse'"):
        heads.UnitInterval(criterion="mse")


# Wrong twins: what a test of this file must be able to see.


class _HalfScale(heads.Gaussian):
    """A refit that divides by the scale twice."""

    @staticmethod
    def _spread(residual: Tensor, weight: Tensor) -> Tensor:
        return heads.Gaussian._spread(residual, weight) / 2


class _MedianBias(heads.Gaussian):
    """Starts at the median, which is not where the squared error is least."""

    def initial_bias(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return target.median().reshape(1)


class _NoConstants(heads.Gaussian):
    """A likelihood that forgets its constants."""

    @torch.no_grad()
    def negative_log_likelihood(self, raw: Tensor, target: Tensor) -> Tensor:
        return evaluate(losses.SquaredError(halved=True).formula, raw.squeeze(-1), target, reduction="none")


@pytest.mark.parametrize(
    ("head", "check"),
    [
        (_HalfScale(), test_refit_finds_the_maximum_likelihood_scale),
        (_MedianBias(), test_initial_bias_is_the_best_constant),
        (_NoConstants(), test_negative_log_likelihood_is_that_of_an_oracle),
    ],
)
def test_a_wrong_head_is_caught(head, check):
    twin = Case(head, real, torch.tensor([math.inf]), scipy_density(NORMAL))
    with pytest.raises(AssertionError):
        check(twin)
