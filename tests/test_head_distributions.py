"""What every head predicts, asked: it is the likelihood that the head is judged by, in every shape and dtype."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from head_cases import CASES, NORMAL, WITH_SCALE, Case, every, every_case, real, scipy_density
from lastlayer import distributions, heads
from lastlayer.checks import DomainError
from loss_properties import random

FLOATS = [torch.float32, torch.float64]
SHAPES = [
    ((6,), torch.float32),
    ((2, 3), torch.float64),
    ((2, 1, 2), torch.float32),
    ((0,), torch.float64),
    ((3, 0), torch.float32),
]


def _is_continuous(case: Case) -> bool:
    return not case.head.distribution(case.raw(1)).discrete


@every_case
def test_it_is_the_likelihood_that_judges(case):
    for shape in ((40,), (4, 5), (2, 3, 2)):
        raw, target = case.raw(*shape), case.targets(*shape)
        log_prob = case.joint(case.head.distribution(raw).log_prob(case.head.judged(target)))
        assert_close(log_prob, -case.head.negative_log_likelihood(raw, target), rtol=1e-8, atol=1e-9)
        assert_close(log_prob, case.log_density(raw, target), rtol=1e-7, atol=1e-8)


@every_case
def test_it_is_so_in_float32_too(case):
    raw, target = case.raw(40).float(), case.targets(40)
    expected = case.log_density(raw.double(), target.float().double() if target.is_floating_point() else target)
    if target.is_floating_point():
        target = target.float()
    log_prob = case.joint(case.head.distribution(raw).log_prob(case.head.judged(target)))
    assert log_prob.dtype == torch.float32
    assert_close(log_prob.double(), expected, rtol=2e-4, atol=2e-4)
    assert_close(-case.head.negative_log_likelihood(raw, target).double(), expected, rtol=2e-4, atol=2e-4)


@every_case
def test_judging_leaves_alone_what_has_a_density(case):
    target = case.targets(50)
    judged = case.head.judged(target)
    assert judged.shape == target.shape
    if isinstance(case.head, heads.Beta):
        inside = (target > 1e-4) & (target < 1 - 1e-4)
        assert not inside.all()
        assert_close(judged[inside], target[inside], rtol=0, atol=0)
        assert_close(judged[~inside], target[~inside], rtol=0, atol=1.01e-4)
    else:
        assert_close(judged, target, rtol=0, atol=0)
    assert case.head.distribution(case.raw(50)).log_prob(judged).isfinite().all()


@every_case
@pytest.mark.parametrize(("shape", "dtype"), SHAPES, ids=str)
def test_shapes_and_dtypes(case, shape, dtype):
    raw, target = case.raw(*shape).to(dtype), case.targets(*shape)
    distribution = case.head.distribution(raw)
    batch = torch.Size([*shape, *case.labels])
    assert distribution.shape == batch
    assert target.shape == batch
    for ask in ("mean", "variance", "standard_deviation", "median", "mode", "entropy"):
        assert getattr(distribution, ask).shape == batch, ask
        assert getattr(distribution, ask).dtype == dtype, ask
    for ask in (distribution.log_prob, distribution.cdf, distribution.crps):
        assert ask(target).shape == batch
        assert ask(target).dtype == dtype
        assert ask(target.expand(2, *batch)).shape == (2, *batch)
        assert ask(0.5).shape == batch
    assert distribution.quantile(0.3).shape == batch
    assert distribution.quantile([0.1, 0.5, 0.9]).shape == (3, *batch)
    assert distribution.quantile([0.1, 0.5, 0.9]).dtype == dtype
    low, high = distribution.interval(0.8)
    assert low.shape == high.shape == batch
    assert (low <= high).all()
    low, high = distribution.interval([0.5, 0.8])
    assert low.shape == high.shape == (2, *batch)
    sample = distribution.sample(4, generator=random(1))
    assert sample.shape == (4, *batch)
    assert sample.dtype == dtype
    assert distribution.support.contains(sample).all() or isinstance(case.head, heads.UnitInterval)


@every_case
def test_elements_know_nothing_of_each_other(case):
    """The same rows in another arrangement have the same answers."""
    raw, target = case.raw(2, 3, 2), case.targets(2, 3, 2)
    dense, rows = case.head.distribution(raw), case.head.distribution(raw.reshape(12, -1))
    flat = target.reshape(12, *case.labels)
    for ask in (
        lambda d, y: d.log_prob(y),
        lambda d, y: d.cdf(y),
        lambda d, y: d.crps(y),
        lambda d, y: d.mean,
        lambda d, y: d.quantile(0.7),
        lambda d, y: d.mode,
    ):
        answer = ask(dense, target)
        assert_close(answer.reshape(12, *case.labels), ask(rows, flat), rtol=1e-10, atol=1e-12)


@every_case
def test_one_sample_alone(case):
    """Raw output of shape (raw_size,): the answers of a batch of one, without its axis."""
    raw, target = case.raw(1), case.targets(1)
    batch, alone = case.head.distribution(raw), case.head.distribution(raw[0])
    assert alone.shape == case.labels
    for ask in (
        lambda d, y: d.log_prob(y),
        lambda d, y: d.cdf(y),
        lambda d, y: d.crps(y),
        lambda d, y: d.mean,
        lambda d, y: d.mode,
        lambda d, y: d.median,
    ):
        assert_close(ask(alone, target[0]), ask(batch, target)[0], rtol=1e-10, atol=1e-12)
    assert_close(alone.quantile([0.1, 0.9]), batch.quantile([0.1, 0.9])[:, 0], rtol=1e-10, atol=1e-12)
    assert_close(
        case.head.negative_log_likelihood(raw[0], target[0]), case.head.negative_log_likelihood(raw, target)[0]
    )


@every_case
def test_quantiles_and_the_distribution_function_undo_each_other(case):
    # Not so far out that all mass of a beta distribution lies, in float64, at its ends.
    distribution = case.head.distribution(0.3 * case.raw(12))
    for share in (0.05, 0.5, 0.8):
        value = distribution.quantile(share)
        reached = distribution.cdf(value)
        if distribution.discrete:
            assert (reached >= share - 1e-12).all()
            assert (distribution.cdf(value - 1) < share + 1e-12).all()
        else:
            assert_close(reached, torch.full_like(reached, share), rtol=1e-8, atol=1e-8)


@every_case
def test_samples_have_the_mean(case):
    """Where there is a variance that so few draws can show."""
    raw = 0.3 * case.raw(4)
    distribution = case.head.distribution(raw)
    n = 4000
    drawn = distribution.sample(n, generator=random(5))
    assert not drawn.requires_grad
    error = (drawn.mean(0) - distribution.mean).abs() / (distribution.standard_deviation / math.sqrt(n))
    assert (error < 6).all()
    assert (distribution.sample(3, generator=random(5)) == distribution.sample(3, generator=random(5))).all()


def _fields(distribution: distributions.Distribution) -> dict[str, Tensor]:
    """What a head calls a parameter, by the distribution's own names."""
    match distribution:
        case distributions.Gaussian():
            return {"mean": distribution.location, "scale": distribution.scale}
        case distributions.Laplace():
            return {"median": distribution.location, "scale": distribution.scale}
        case distributions.StudentT():
            freedom = distribution.degrees_of_freedom
            return {"location": distribution.location, "scale": distribution.scale, "degrees_of_freedom": freedom}
        case distributions.LogNormal():
            return {"location": distribution.location, "scale": distribution.scale}
        case distributions.Gamma():
            return {"mean": distribution.concentration / distribution.rate, "concentration": distribution.concentration}
        case distributions.Beta():
            total = distribution.concentration1 + distribution.concentration0
            return {"mean": distribution.concentration1 / total, "concentration": total}
        case distributions.Poisson():
            return {"rate": distribution.rate}
        case distributions.NegativeBinomial():
            return {"mean": distribution.mean, "concentration": distribution.concentration}
        case distributions.Bernoulli():
            return {"probability": distribution.probability}
        case distributions.Categorical():
            return {"probability": distribution.probability}
        case distributions.QuantileKnots():
            return {"quantiles": distribution.values}
        case distributions.Mixture():
            part = distribution.components
            of_components = {"weight": distribution.weight, "location": part.location, "scale": part.scale}
            return {name: value.movedim(0, -1) for name, value in of_components.items()}
    raise AssertionError(f"nothing said of {type(distribution).__name__}")


@every_case
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_named_parameters_are_those_of_the_distribution(case, dtype):
    raw = case.raw(3, 4).to(dtype)
    parameters, fields = case.head.parameters(raw), _fields(case.head.distribution(raw))
    if isinstance(case.head, heads.Ordinal):
        below = fields["probability"].cumsum(-1)[..., :-1]
        above = fields["probability"].flip(-1).cumsum(-1).flip(-1)[..., 1:]
        fields["threshold"] = below.log() - above.log()
    assert parameters.keys() == fields.keys()
    for name, value in parameters.items():
        assert value.dtype == dtype
        assert value.shape == fields[name].shape
        rough = name == "threshold" and dtype == torch.float32
        assert_close(value, fields[name], rtol=1e-3 if rough else 2e-6, atol=1e-3 if rough else 1e-7)


@every_case
def test_a_point_prediction_is_what_the_training_loss_is_least_at(case):
    """``statistic`` names one of the distribution's; for location-scale heads it is the raw location itself."""
    assert case.head.statistic in ("mean", "median", "mode")
    distribution = case.head.distribution(case.raw(5))
    point = getattr(distribution, case.head.statistic)
    assert point.shape == (5, *case.labels)
    if isinstance(case.head, heads.LocationScaleHead):
        assert_close(point, case.raw(5)[:, 0])


@every_case
def test_the_gradient_of_the_log_density_reaches_the_raw_output(case):
    """Against symmetric differences of the oracle."""
    raw, target = case.raw(8).requires_grad_(), case.targets(8)
    log_prob = case.head.distribution(raw).log_prob(case.head.judged(target))
    (gradient,) = torch.autograd.grad(log_prob.sum(), raw)
    for index in range(case.head.raw_size):
        step = torch.zeros(case.head.raw_size, dtype=torch.float64)
        step[index] = 1e-5
        ahead, behind = (case.log_density(raw.detach() + side * step, target) for side in (1, -1))
        assert_close(gradient[:, index], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-5)


@every_case
@pytest.mark.parametrize("ask", ["mean", "quantile", "cdf", "crps", "entropy"])
def test_other_answers_have_a_gradient_too(case, ask):
    """Against their own symmetric differences; a quantile that is a whole number has none."""

    def answer(raw: Tensor) -> Tensor:
        distribution = case.head.distribution(raw)
        if ask in ("mean", "entropy"):
            return getattr(distribution, ask)
        if ask == "quantile":
            return distribution.quantile(0.3)
        return getattr(distribution, ask)(case.head.judged(case.targets(4)) + (0.0 if distribution.discrete else 0.01))

    # Not the mean of a scale so large that it overflows a finite difference.
    raw = (0.5 * case.raw(4)).requires_grad_()
    value = answer(raw)
    constant = ask == "entropy" and case in WITH_SCALE.values()
    if not (constant or (ask == "quantile" and not _is_continuous(case))):
        assert value.requires_grad
        (gradient,) = torch.autograd.grad(value.sum(), raw)
        for index in range(case.head.raw_size):
            step = torch.zeros(case.head.raw_size, dtype=torch.float64)
            step[index] = 1e-4
            ahead, behind = (case.joint(answer(raw.detach() + side * step)) for side in (1, -1))
            assert_close(gradient[:, index], (ahead - behind) / 2e-4, rtol=1e-4, atol=1e-5)


@every_case
def test_members_along_the_first_axis_mix(case):
    """An ensemble's density is the mean of its members', whatever they predict."""
    raw, target = case.raw(4, 5), case.head.judged(case.targets(5))
    members = case.head.distribution(raw)
    mixed = members.mixed()
    assert members.shape == (4, 5, *case.labels)
    assert mixed.shape == (5, *case.labels)
    each = members.log_prob(target.expand(4, *target.shape))
    assert_close(mixed.log_prob(target), each.logsumexp(0) - math.log(4), rtol=1e-9, atol=1e-10)
    assert_close(mixed.cdf(target), members.cdf(target.expand(4, *target.shape)).mean(0), rtol=1e-9, atol=1e-10)
    assert_close(mixed.mean, members.mean.mean(0), rtol=1e-9, atol=1e-10)
    weight = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    weighted = members.mixed(weight)
    share = (weight / weight.sum()).log().reshape(4, *[1] * target.dim())
    assert_close(weighted.log_prob(target), (each + share).logsumexp(0), rtol=1e-9, atol=1e-10)
    for single in (mixed, weighted):
        assert single.mode.shape == single.median.shape == (5, *case.labels)
        assert single.sample(3, generator=random(1)).shape == (3, 5, *case.labels)
        low, high = single.interval(0.9)
        assert (low <= high).all()
    assert_close(case.head.distribution(raw[:1]).mixed().log_prob(target), each[0], rtol=1e-9, atol=1e-10)


@every_case
def test_members_that_agree_are_one(case):
    raw, target = case.raw(5), case.head.judged(case.targets(5))
    alone, mixed = case.head.distribution(raw), case.head.distribution(raw.expand(3, *raw.shape)).mixed()
    for ask in (lambda d: d.mean, lambda d: d.variance, lambda d: d.quantile([0.2, 0.9]), lambda d: d.crps(target)):
        assert_close(ask(mixed), ask(alone), rtol=1e-6, atol=1e-7)


SHIFT, SCALE = -40.0, 12.5


@every(lambda case: case.head.standardizes or case.head.rescales)
def test_other_units(case):
    """What was learned of ``(y − shift)/scale``, told of y: the density is divided by the scale."""
    shift = SHIFT if case.head.standardizes else 0.0
    raw, target = case.raw(12), case.targets(12)
    learned = case.head.distribution(raw)
    told = learned.affine(shift, SCALE)
    value = shift + SCALE * target
    expected = case.head.negative_log_likelihood(raw, target) + math.log(SCALE)
    assert_close(-told.log_prob(value), expected, rtol=1e-8, atol=1e-9)
    assert_close(told.cdf(value), learned.cdf(target), rtol=1e-8, atol=1e-9)
    assert_close(told.crps(value), SCALE * learned.crps(target), rtol=1e-7, atol=1e-9)
    for ask in (lambda d: d.mean, lambda d: d.median, lambda d: d.quantile([0.1, 0.9])):
        assert_close(ask(told), shift + SCALE * ask(learned), rtol=1e-7, atol=1e-8)
    assert_close(told.standard_deviation, SCALE * learned.standard_deviation)
    assert_close(told.entropy, learned.entropy + math.log(SCALE), rtol=1e-6, atol=1e-6)
    assert told.support.contains(value).all()


@pytest.mark.parametrize("name", ["log_normal", "gamma"])
def test_a_rescaling_head_predicts_in_any_unit(name):
    """The scale moves the log location and nothing else: the same family in the other unit."""
    case = CASES[name]
    raw, value = case.raw(12), SCALE * case.targets(12)
    moved = raw + torch.tensor([math.log(SCALE), 0.0], dtype=torch.float64)
    assert_close(
        case.head.distribution(raw).affine(0.0, SCALE).log_prob(value),
        case.head.distribution(moved).log_prob(value),
        rtol=1e-9,
        atol=1e-9,
    )


@every_case
def test_which_targets_may_be_moved(case):
    """Real numbers are shifted and scaled, positive ones scaled, everything else is left as it is."""
    support = case.head.support
    real_number = support is not None and math.isinf(support.low)
    positive = support is not None and support.low == 0 and math.isinf(support.high) and not case.head.whole
    assert case.head.standardizes == real_number
    assert case.head.rescales == positive
    if not _is_continuous(case):
        with pytest.raises(DomainError, match="whole numbers"):
            case.head.distribution(case.raw(2)).affine(0.0, 2.0)


# Wrong twins: what a test of this file must be able to see.


class _WiderThanJudged(heads.Gaussian):
    """Predicts another scale than it is judged by."""

    def distribution(self, raw: Tensor) -> distributions.Gaussian:
        return distributions.Gaussian(self.location(raw), 2.0 * self.scale_of(raw))


class _Detached(heads.Gaussian):
    """Cuts the gradient off."""

    def distribution(self, raw: Tensor) -> distributions.Gaussian:
        return super().distribution(raw.detach() + 0.0 * raw)


class _AxisLeft(heads.Gaussian):
    """Forgets to take the raw output's axis away."""

    def distribution(self, raw: Tensor) -> distributions.Gaussian:
        return distributions.Gaussian(raw, torch.ones_like(raw))


@pytest.mark.parametrize(
    ("head", "check"),
    [
        (_WiderThanJudged(), test_it_is_the_likelihood_that_judges),
        (_WiderThanJudged(), lambda case: test_the_named_parameters_are_those_of_the_distribution(case, torch.float64)),
        (_Detached(), test_the_gradient_of_the_log_density_reaches_the_raw_output),
        (_AxisLeft(), lambda case: test_shapes_and_dtypes(case, (6,), torch.float64)),
        (_AxisLeft(), test_a_point_prediction_is_what_the_training_loss_is_least_at),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_head_is_caught(head, check):
    with pytest.raises(AssertionError):
        check(Case(head, real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL)))
