"""Every head of the catalog against what a head promises, and against SciPy and torch.distributions as oracles."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from head_cases import (
    CASES,
    NORMAL,
    Case,
    every,
    every_case,
    real,
    scipy_density,
    softplus,
)
from lastlayer import heads, losses
from lastlayer.checks import InputError, ShapeError
from lastlayer.evaluation import evaluate, evaluate_with
from loss_properties import random

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def test_every_head_of_the_catalog_is_tested():
    assert {case.head.facts.name for case in CASES.values()} == set(heads.catalog())
    for name, head in heads.catalog().items():
        assert head.facts.name == name
        assert all(value for fact, value in vars(head.facts).items() if fact != "spelling")
        assert head.facts.loss in losses.catalog()
        assert getattr(heads, head.__name__) is head


@every_case
def test_closed_form_gradient_is_that_of_autograd(case):
    """As a node of the graph, without a graph, and through the readable value."""
    raw, target = case.raw(20).requires_grad_(), case.targets(20)
    weight = torch.rand(20, dtype=torch.float64, generator=random(3))
    for options in ({}, {"sample_weight": weight}, {"normalizer": 7.0}, {"sample_weight": weight, "normalizer": 7.0}):
        with evaluate_with(path="plain"):
            expected = case.head.loss(raw, target, **options)
            (expected_gradient,) = torch.autograd.grad(expected, raw)
        loss = case.head.loss(raw, target, **options)
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, raw)[0], expected_gradient)
        value, gradient = case.head.loss_and_gradient(raw, target, **options)
        assert_close(value, expected.detach())
        assert_close(gradient, expected_gradient)
        assert gradient.shape == raw.shape
        assert not gradient.requires_grad


@every_case
def test_second_derivatives_are_those_of_the_readable_value(case):
    raw, target = case.raw(6).requires_grad_(), case.targets(6)
    direction = torch.randn(raw.shape, dtype=torch.float64, generator=random(7))

    def curvature() -> Tensor:
        (gradient,) = torch.autograd.grad(
            case.head.loss(raw, target, sample_weight=torch.ones(6)), raw, create_graph=True
        )
        if not gradient.requires_grad:
            return torch.zeros_like(raw)
        along = (gradient * direction).sum()
        return torch.autograd.grad(along, raw, materialize_grads=True)[0]

    with evaluate_with(path="plain"):
        expected = curvature()
    assert_close(curvature(), expected)


@every(lambda case: not case.weighted)
def test_gradient_is_the_symmetric_difference(case):
    """But where the weight that the predicted scale gives is held fast."""
    raw, target = case.raw(12), case.targets(12)
    _, gradient = case.head.loss_and_gradient(raw, target, normalizer=1.0)
    for index in range(case.head.raw_size):
        step = torch.zeros(case.head.raw_size, dtype=torch.float64)
        step[index] = 1e-5
        ahead, behind = (case.head.loss(raw + side * step, target, reduction="none") for side in (1, -1))
        assert_close(gradient[..., index], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("n", [9, 2000], ids=["few", "many"])
def test_factor_multiplies_the_gradient_alone(case, n):
    raw, target = case.raw(n), case.targets(n)
    weight = torch.rand(n, dtype=torch.float64, generator=random(3))
    for options in ({}, {"sample_weight": weight}, {"normalizer": 7.0}):
        value, gradient = case.head.loss_and_gradient(raw, target, **options)
        for factor in (0.0, 0.125, -3.0, 65536.0):
            again, scaled = case.head.loss_and_gradient(raw, target, factor=factor, **options)
            assert again == value
            assert_close(scaled, factor * gradient, rtol=1e-12, atol=1e-300)


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
    target[weight == 0] = torch.nan if target.is_floating_point() else 99
    kept = weight > 0
    value, gradient = case.head.loss_and_gradient(raw, target, sample_weight=weight)
    assert_close(value, case.head.loss(raw[kept], target[kept], sample_weight=weight[kept]))
    assert (gradient[~kept] == 0).all()
    value, gradient = case.head.loss_and_gradient(raw, target, sample_weight=torch.zeros(6))
    assert value == 0
    assert (gradient == 0).all()


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
def test_a_used_head_is_as_good_as_new(case):
    """Its formulas, made once, are no part of its value."""
    used, new = case.head, heads.from_dict(case.head.to_dict())
    raw, target = case.raw(5), case.targets(5)
    loss = used.loss(raw, target)
    used.negative_log_likelihood(raw, target)
    assert used == new
    assert hash(used) == hash(new)
    assert used.to_dict() == new.to_dict()
    assert repr(used) == repr(new)
    assert used.formula is used.formula
    for again in (copy.copy(used), copy.deepcopy(used), pickle.loads(pickle.dumps(used)), dataclasses.replace(used)):
        assert again == used
        assert again.to_dict() == used.to_dict()
        assert_close(again.loss(raw, target), loss)
        assert_close(again.negative_log_likelihood(raw, target), used.negative_log_likelihood(raw, target))


CHANGES = [
    (heads.Gaussian(scale=1.0), {"scale": 3.0}),
    (heads.Gaussian(), {"fitted_scale": 3.0}),
    (heads.Laplace(), {"fitted_scale": 3.0}),
    (heads.Gaussian(scale="predicted"), {"beta": 0.0}),
    (heads.Gaussian(scale="predicted"), {"minimum_scale": 0.5}),
    (heads.StudentT(), {"minimum_scale": 0.5}),
    (heads.StudentT(degrees_of_freedom=3.0), {"degrees_of_freedom": 30.0}),
    (heads.Mixture(components=2), {"family": "laplace"}),
    (heads.Quantiles(levels=(0.1, 0.9)), {"levels": (0.2, 0.9)}),
    (heads.LogNormal(), {"minimum_scale": 0.5}),
    (heads.Gamma(), {"minimum_scale": 0.5}),
    (heads.Beta(), {"margin": 0.2}),
    (heads.NegativeBinomial(), {"minimum_scale": 0.5}),
    (heads.UnitInterval(), {"criterion": "squared_error"}),
    (heads.UnitInterval(criterion="squared_error"), {"fitted_scale": 3.0}),
]


@pytest.mark.parametrize(("head", "changes"), CHANGES, ids=str)
def test_a_changed_head_has_formulas_of_its_own(head, changes):
    raw = torch.randn(6, head.raw_size, dtype=torch.float64, generator=random(1))
    target = torch.full((6,), 1.0 if isinstance(head, heads.NegativeBinomial) else 0.9, dtype=torch.float64)
    before = head.loss(raw, target), head.negative_log_likelihood(raw, target)
    changed = dataclasses.replace(head, **changes)
    fresh = heads.from_dict(head.to_dict() | {k: [*v] if isinstance(v, tuple) else v for k, v in changes.items()})
    assert changed == fresh != head
    assert_close(changed.loss(raw, target), fresh.loss(raw, target))
    assert changed.loss(raw, target) != before[0]
    assert_close(changed.negative_log_likelihood(raw, target), fresh.negative_log_likelihood(raw, target))
    assert_close((head.loss(raw, target), head.negative_log_likelihood(raw, target)), before)


@pytest.mark.parametrize("head", [heads.Gaussian(scale="predicted"), heads.StudentT(), heads.Mixture(2)], ids=repr)
def test_a_grid_bounds_the_scale(head):
    """A target in steps of 2: no scale below what rounding leaves, and never a smaller one than before."""
    bounded = head.with_grid(2.0)
    # The standard deviation of a number that is anywhere within its step.
    rounding = float(np.std(np.linspace(-1.0, 1.0, 1_000_001)))
    assert bounded.minimum_scale == pytest.approx(rounding, rel=1e-5)
    raw = torch.full((1, head.raw_size), -1e4)
    assert (bounded.parameters(raw)["scale"] >= 0.577).all()
    assert bounded.with_grid(1e-9) == bounded
    assert head.with_grid(1e-9) == head


@every_case
@every_dtype
def test_parameters_are_valid_at_extremes(case, dtype):
    size = torch.tensor([0.0, 1e-3, 1.0, 30.0, 1e3, 1e4])
    extremes = torch.cat([size, -size])
    raw = torch.stack([extremes.roll(shift) for shift in range(case.head.raw_size)], -1).to(dtype)
    parameters = case.head.parameters(raw)
    for name, value in parameters.items():
        assert value.isfinite().all(), name
        assert value.shape[0] == len(raw)
        assert value.dtype == (torch.float32 if dtype.itemsize == 2 else dtype), name
    if "probability" in parameters:
        assert ((parameters["probability"] >= 0) & (parameters["probability"] <= 1)).all()
    if isinstance(case.head, (heads.Categorical, heads.Ordinal)):
        total = parameters["probability"].double().sum(-1)
        assert_close(total, torch.ones(len(raw)).double(), rtol=0, atol=1e-5)
    for name in ("scale", "concentration"):
        assert (parameters.get(name, torch.ones(1)) > 0).all()
    if isinstance(case.head, heads.UnitInterval):
        assert ((parameters["mean"] >= 0) & (parameters["mean"] <= 1)).all()
    if isinstance(case.head, heads.Beta):
        assert ((parameters["mean"] > 0) & (parameters["mean"] < 1)).all()
    if isinstance(case.head, (heads.Gamma, heads.NegativeBinomial)):
        assert (parameters["mean"] > 0).all()
    if isinstance(case.head, heads.StudentT):
        assert (parameters["degrees_of_freedom"] > 2).all()
    if isinstance(case.head, heads.Mixture):
        assert_close(parameters["weight"].sum(-1), torch.ones_like(parameters["weight"][..., 0]))
    if isinstance(case.head, heads.Quantiles):
        assert (parameters["quantiles"].diff(dim=-1) >= 0).all()
    if isinstance(case.head, heads.Ordinal):
        assert (parameters["threshold"].diff(dim=-1) >= 0).all()


@every_case
@every_dtype
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_loss_and_gradient_are_finite_at_extremes(case, dtype, size):
    """Raw outputs of ±10⁴, and where the support allows it targets a million of the usual size away."""
    raw = (case.raw(64).sign() * 1e4).to(dtype)
    target = case.targets(64)
    if size > 1.0:
        if case.head.support is None or math.isfinite(case.head.support.high):
            return
        target = target * size
    loss, gradient = case.head.loss_and_gradient(raw, target)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype
    assert case.head.negative_log_likelihood(raw, target).isfinite().all()


@every_case
def test_half_precision_is_computed_in_float32(case):
    for dtype in (torch.bfloat16, torch.float16):
        raw, target = case.raw(9).to(dtype), case.targets(9)
        if target.is_floating_point():
            target = target.float()
        assert_close(
            case.head.negative_log_likelihood(raw, target), case.head.negative_log_likelihood(raw.float(), target)
        )
        assert_close(case.head.parameters(raw), case.head.parameters(raw.float()))
        median = case.head.distribution(raw).median
        assert median.dtype == torch.float32
        assert_close(median, case.head.distribution(raw.float()).median)


@every_case
def test_nothing_given_is_changed(case):
    raw, target, weight = case.raw(5, 3), case.targets(5, 3), torch.rand(5, generator=random(1))
    weight[0] = 0.0
    before = raw.clone(), target.clone(), weight.clone()
    case.head.loss(raw, target, sample_weight=weight)
    case.head.loss_and_gradient(raw, target, sample_weight=weight, factor=2.0)
    case.head.negative_log_likelihood(raw, target)
    case.head.parameters(raw)
    case.head.distribution(raw).log_prob(case.head.judged(target))
    case.head.initial_bias(target, weight)
    case.head.refit(raw, target, weight)
    case.head.check_target(target, weight)
    assert_close((raw, target, weight), before)


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
            case.head.distribution,
        ):
            with pytest.raises(ShapeError, match=rf"expected \(\.\.\., {size}\)\. Fix: .*{fix}"):
                ask(raw)
        if getattr(case.head, "scale", None) == "constant":
            with pytest.raises(ShapeError, match="expected"):
                case.head.refit(raw, target, weight)


@every_case
def test_target_of_another_shape_names_both(case):
    raw, target = case.raw(7), case.targets(7)
    for wrong in (target.unsqueeze(-1), target[:-1]):
        for ask in (case.head.loss, case.head.loss_and_gradient, case.head.negative_log_likelihood):
            with pytest.raises(ShapeError) as caught:
                ask(raw, wrong)
            assert str(tuple(wrong.shape)) in str(caught.value)
            assert str(tuple(raw.squeeze(-1).shape)) in str(caught.value) or str(tuple(raw.shape)) in str(caught.value)
    for ask in (case.head.loss, case.head.negative_log_likelihood):
        with pytest.raises(ShapeError):
            ask(raw, target.expand(3, *target.shape))


@every_case
def test_negative_log_likelihood_is_that_of_an_oracle(case):
    for shape in ((40,), (4, 5), (2, 3, 2)):
        raw, target = case.raw(*shape), case.targets(*shape)
        assert_close(case.head.negative_log_likelihood(raw, target), -case.log_density(raw, target))


@every(lambda case: case.trains_on_likelihood)
def test_the_training_loss_is_the_likelihood(case):
    """All but the cross-entropy of a proportion, pinball loss and what weighs by a scale, which are no densities."""
    raw, target = case.raw(30), case.targets(30)
    assert_close(case.head.loss(raw, target), -case.log_density(raw, target).mean())


@every(lambda case: case.weighted)
def test_a_weighted_loss_is_the_likelihood_times_a_power_of_the_scale(case):
    raw, target = case.raw(30), case.targets(30)
    scale = torch.as_tensor(1e-3 + softplus(raw[:, 1].numpy()))
    assert_close(case.head.loss(raw, target), -(scale ** (2 * 0.5) * case.log_density(raw, target)).mean())


@every_case
def test_negative_log_likelihood_holds_no_graph(case):
    raw = case.raw(5).requires_grad_()
    assert not case.head.negative_log_likelihood(raw, case.targets(5)).requires_grad


@every_case
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 6), (1, 1, 1), (3, 0)], ids=str)
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


# Wrong twins: what a test of this file must be able to see.


class _NoConstants(heads.Gaussian):
    """A likelihood that forgets its constants."""

    @torch.no_grad()
    def negative_log_likelihood(self, raw: Tensor, target: Tensor) -> Tensor:
        return evaluate(losses.SquaredError(halved=True).formula, raw.squeeze(-1), target, reduction="none")


class _FactorOnBoth(heads.Gaussian):
    """Multiplies the loss by the factor too."""

    def loss_and_gradient(self, raw: Tensor, target: Tensor, **options: object) -> tuple[Tensor, Tensor]:
        value, gradient = super().loss_and_gradient(raw, target, **options)
        return value * options.get("factor", 1.0), gradient


class _StaleFormula(heads.Gaussian):
    """Every head has the formula of the first."""

    @property
    def formula(self):
        return heads.Gaussian().formula


@pytest.mark.parametrize(
    ("head", "check"),
    [
        (_NoConstants(), test_negative_log_likelihood_is_that_of_an_oracle),
        (_FactorOnBoth(), lambda case: test_factor_multiplies_the_gradient_alone(case, 9)),
        (_StaleFormula(scale=2.0), lambda case: test_a_changed_head_has_formulas_of_its_own(case.head, {"scale": 3.0})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_head_is_caught(head, check):
    twin = Case(head, real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL))
    with pytest.raises(AssertionError):
        check(twin)
