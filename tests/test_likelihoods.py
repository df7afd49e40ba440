"""Distribution → negative log-likelihood → named loss, by the numbers (SPEC A2–A5, A8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from head_cases import CASES, real, unit
from lastlayer import heads, losses
from lastlayer.checks import ShapeError
from loss_properties import random

GAUSSIAN_AND_SQUARED_ERROR = (
    heads.Gaussian,
    losses.squared_error,
    lambda b: 1 / (2 * b * b),
    lambda b: math.log(b) + math.log(2 * math.pi) / 2,
)
LAPLACE_AND_ABSOLUTE_ERROR = (
    heads.Laplace,
    losses.absolute_error,
    lambda b: 1 / b,
    lambda b: math.log(2 * b),
)
every_a8 = pytest.mark.parametrize(
    ("head", "loss", "slope", "offset"),
    [GAUSSIAN_AND_SQUARED_ERROR, LAPLACE_AND_ABSOLUTE_ERROR],
    ids=["gaussian and squared error", "laplace and absolute error"],
)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("option", ["scale", "fitted_scale"])
@every_a8
def test_a8_likelihood_and_named_loss_have_one_minimizer(head, loss, slope, offset, scale, option):
    """SPEC A8, source S4: distribution → negative log-likelihood → named loss, by the numbers."""
    target = real(51)
    grid = torch.linspace(-2, 8, 401, dtype=torch.float64)
    one = head(**{option: scale})
    likelihood = torch.stack([one.negative_log_likelihood(c.expand(51, 1), target).mean() for c in grid])
    trained = torch.stack([one.loss(c.expand(51, 1), target) for c in grid])
    named = torch.stack([loss(c.expand(51), target) for c in grid])
    assert likelihood.argmin() == named.argmin()
    assert_close(likelihood, slope(scale) * named + offset(scale))
    assert_close(trained, likelihood)


@pytest.mark.parametrize("scale", [0.25, 3.0])
@every_a8
def test_a8_a_scale_only_stretches_the_gradient(head, loss, slope, offset, scale):
    target = real(20)
    raw = torch.randn(20, 1, dtype=torch.float64, generator=random(1)).requires_grad_()
    (named,) = torch.autograd.grad(loss(raw.squeeze(-1), target), raw)
    assert_close(head(scale=scale).loss_and_gradient(raw, target)[1], slope(scale) * named)


@every_a8
def test_a8_a_predicted_scale_of_one_number_is_that_scale(head, loss, slope, offset):
    """The likelihood of both, at a raw scale that is the same for all, is that of one scale."""
    target = real(20)
    location = torch.randn(20, 1, dtype=torch.float64, generator=random(1))
    scale = 1e-3 + math.log1p(math.exp(0.7))
    both = head(scale="predicted").negative_log_likelihood(torch.cat([location, 0.7 + 0 * location], -1), target)
    assert_close(both, slope(scale) * loss(location.squeeze(-1), target, reduction="none") + offset(scale))
    assert_close(both, head(scale=scale).negative_log_likelihood(location, target))


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        (heads.Gaussian(scale="predicted", beta=1.0), lambda s, y: losses.squared_error(s, y, halved=True)),
        (heads.Laplace(scale="predicted", beta=0.5), losses.absolute_error),
    ],
    ids=["gaussian, beta 1", "laplace, beta one half"],
)
def test_a_weight_gives_the_location_the_named_gradient(head, loss):
    """Whatever the scale, the location learns as with one scale for all; the scale learns from its likelihood."""
    target = real(40)
    raw = (3 * torch.randn(40, 2, dtype=torch.float64, generator=random(1))).requires_grad_()
    location = raw[:, 0].detach().requires_grad_()
    (named,) = torch.autograd.grad(loss(location, target), location)
    assert_close(head.loss_and_gradient(raw, target)[1][:, 0], named)
    assert_close(torch.autograd.grad(head.loss(raw, target), raw)[0][:, 0], named)
    without = type(head)(scale="predicted", beta=0.0)
    weight = (1e-3 + torch.nn.functional.softplus(raw[:, 1].detach())) ** (2 * head.beta)
    inner = without.loss_and_gradient(raw, target)[1]
    assert_close(head.loss_and_gradient(raw, target)[1], weight.unsqueeze(-1) * inner)
    # It is judged without the weight.
    assert_close(head.negative_log_likelihood(raw, target), without.negative_log_likelihood(raw, target))


def test_a8_bernoulli_and_categorical_are_their_cross_entropies():
    """SPEC A8: no constant between the likelihood and the loss where the target is a class."""
    for name, loss in (("bernoulli", losses.binary_cross_entropy), ("categorical", losses.cross_entropy)):
        case = CASES[name]
        raw, target = case.raw(30), case.targets(30)
        scores = raw.squeeze(-1) if name == "bernoulli" else raw
        each = loss(scores, target, reduction="none")
        assert_close(each, -case.log_density(raw, target))
        assert_close(case.head.loss(raw, target, reduction="none"), each)
        assert_close(case.head.negative_log_likelihood(raw, target), each)


def test_a1_a_sigmoid_is_a_softmax_of_two():
    """SPEC A1, A2: one logit, or two scores of which one is 0."""
    raw, target = CASES["bernoulli"].raw(30), CASES["bernoulli"].targets(30)
    scores = torch.cat([torch.zeros_like(raw), raw], -1)
    two = heads.Categorical(classes=2)
    assert_close(two.loss(scores, target.long()), heads.Bernoulli().loss(raw, target))
    assert_close(two.parameters(scores)["probability"][:, 1], heads.Bernoulli().parameters(raw)["probability"])


def test_two_ordered_classes_are_a_sigmoid():
    raw, target = CASES["ordinal of two"].raw(30), CASES["ordinal of two"].targets(30)
    ordinal = heads.Ordinal(classes=2).negative_log_likelihood(raw, target)
    assert_close(ordinal, heads.Bernoulli().negative_log_likelihood(-raw, target.double()))


def test_one_component_is_its_family():
    raw, target = CASES["mixture of one"].raw(30), real(30)
    for family, head in (
        ("gaussian", heads.Gaussian(scale="predicted")),
        ("laplace", heads.Laplace(scale="predicted")),
        ("student_t", heads.StudentT(degrees_of_freedom=4.0)),
    ):
        one = heads.Mixture(components=1, family=family).negative_log_likelihood(raw, target)
        assert_close(one, head.negative_log_likelihood(raw[:, 1:], target))


def test_the_limits_of_heavier_tails_and_more_variance():
    """Student's t of many degrees of freedom is Gaussian, a negative binomial of a large concentration Poisson."""
    raw, target = 0.3 * CASES["gaussian, predicted"].raw(30), 0.3 * real(30)
    gaussian = heads.Gaussian(scale="predicted").negative_log_likelihood(raw, target)
    student_t = heads.StudentT(degrees_of_freedom=1e9).negative_log_likelihood(raw, target)
    assert_close(student_t, gaussian, rtol=1e-6, atol=1e-6)
    count = CASES["poisson"].targets(30)
    log_rate = 0.5 * CASES["poisson"].raw(30)
    poisson = heads.Poisson().negative_log_likelihood(log_rate, count)
    narrow = torch.cat([log_rate, torch.full_like(log_rate, -40.0)], -1)
    head = heads.NegativeBinomial(minimum_scale=1e-5)
    assert_close(head.negative_log_likelihood(narrow, count), poisson, rtol=1e-6, atol=1e-6)


def test_a_log_normal_is_a_gaussian_of_the_logarithm():
    raw, target = CASES["log_normal"].raw(30), CASES["log_normal"].targets(30)
    of_logarithm = heads.Gaussian(scale="predicted").negative_log_likelihood(raw, target.log())
    assert_close(heads.LogNormal().negative_log_likelihood(raw, target), of_logarithm + target.log())


def test_a5_both_criteria_are_best_at_the_mean():
    """SPEC A5, source S1: regression in [0, 1] by sigmoid with squared error or binary cross-entropy."""
    target, weight = unit(101), torch.rand(101, dtype=torch.float64, generator=random(3))
    mean = (weight * target).sum() / weight.sum()
    for criterion in ("binary_cross_entropy", "squared_error"):
        bias = heads.UnitInterval(criterion=criterion).initial_bias(target, weight)
        assert_close(torch.sigmoid(bias), mean.reshape(1))


def test_a_row_of_labels_is_the_sum_of_its_labels():
    case = CASES["multilabel"]
    raw, target = case.raw(9), case.targets(9)
    each = losses.binary_cross_entropy(raw, target, reduction="none")
    assert_close(case.head.loss(raw, target, reduction="none"), each.sum(-1))
    assert_close(case.head.loss(raw, target), each.sum(-1).mean())
    assert_close(case.head.negative_log_likelihood(raw, target), each.sum(-1))
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(9, 3\), the per-sample values \(9,\)"):
        case.head.loss(raw, target, sample_weight=torch.ones(9, 3))


def test_only_real_numbers_may_be_standardized_and_only_positive_ones_rescaled():
    assert {name for name, head in heads.catalog().items() if head.standardizes} == {
        "gaussian",
        "laplace",
        "student_t",
        "mixture",
        "quantiles",
    }
    assert {name for name, head in heads.catalog().items() if head.rescales} == {"log_normal", "gamma"}


def test_class_probabilities_as_targets():
    """SPEC A2: class index, one-hot or probabilities."""
    head, raw = heads.Categorical(classes=4), CASES["categorical"].raw(12)
    index = CASES["categorical"].targets(12)
    one_hot = torch.nn.functional.one_hot(index, 4).double()
    assert_close(head.loss(raw, one_hot), head.loss(raw, index))
    assert_close(head.loss_and_gradient(raw, one_hot), head.loss_and_gradient(raw, index))
    assert_close(head.initial_bias(one_hot, torch.ones(12).double()), head.initial_bias(index, torch.ones(12).double()))
    head.check_target(one_hot)


def test_the_best_constants_are_the_mean_and_the_median():
    target, ones = real(99), torch.ones(99, dtype=torch.float64)
    assert heads.Gaussian().initial_bias(target, ones).item() == pytest.approx(np.mean(target.numpy()))
    assert heads.Laplace().initial_bias(target, ones).item() == pytest.approx(np.median(target.numpy()))
    outlier = torch.cat([target, torch.tensor([1e6], dtype=torch.float64)])
    ones = torch.ones(100, dtype=torch.float64)
    assert heads.Gaussian().initial_bias(outlier, ones) > 9000
    assert heads.Laplace().initial_bias(outlier, ones) < 4
