"""What every distribution promises beside its figures: shapes, edges, dtypes, finite numbers, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from distribution_cases import Case, in_dtype, parameters, with_parameters
from distribution_registry import MIDDLE, apart, continuous, every, random
from lastlayer.checks import DomainError, ShapeError
from lastlayer.uncertainty import LevelMap, Recalibrated, RecalibratedCounts

# Outside, nothing, and nonsense


@every
def test_outside_the_support(case: Case) -> None:
    distribution, support = case.distribution, case.distribution.support
    for value, share in ((support.low - 1.0, 0.0), (support.high + 1.0, 1.0), (-math.inf, 0.0), (math.inf, 1.0)):
        assert (distribution.log_prob(value) == -math.inf).all(), f"log_prob({value})"
        assert (distribution.cdf(value) == share).all(), f"cdf({value})"
    if distribution.discrete:
        assert (distribution.log_prob(0.5) == -math.inf).all()
        assert_close(distribution.cdf(0.5), distribution.cdf(0.0))


@every
def test_not_a_number_stays_one(case: Case) -> None:
    for question in ("log_prob", "cdf", "crps"):
        assert getattr(case.distribution, question)(math.nan).isnan().all(), question


@every
def test_shapes(case: Case) -> None:
    distribution, n = case.distribution, len(case.oracles)
    assert distribution.shape == (n,)
    points = case.points(*MIDDLE)
    for question in (distribution.log_prob, distribution.cdf, distribution.crps):
        several = question(points)
        assert several.shape == points.shape
        assert_close(several, torch.stack([question(row) for row in points]))
        assert_close(question(points[None, :, :])[0], several)
        assert_close(question(1), question(torch.ones(n, dtype=torch.float64)))
        with pytest.raises(ShapeError, match=rf"the value has shape \({n}, 1\); expected \({n},\)"):
            question(torch.zeros(n, 1))
        with pytest.raises(ShapeError):
            question(torch.zeros(()))
        with pytest.raises(ShapeError):
            question(torch.zeros(n + 1))
    for question in ("mean", "variance", "standard_deviation", "median", "mode", "entropy"):
        assert getattr(distribution, question).shape == (n,), question
    assert distribution.quantile(0.3).shape == (n,)
    assert distribution.quantile([0.3, 0.4, 0.5]).shape == (3, n)
    assert distribution.quantile(torch.tensor([0.3], dtype=torch.float64)).shape == (1, n)
    with pytest.raises(ShapeError, match="expected a number or a sequence of numbers"):
        distribution.quantile(torch.full((2, 2), 0.5))
    for wrong in (-0.1, 1.1, math.nan, [0.5, 2.0]):
        with pytest.raises(DomainError, match=r"expected shares in \[0, 1\]"):
            distribution.quantile(wrong)
        with pytest.raises(DomainError, match=r"expected shares in \[0, 1\]"):
            distribution.interval(wrong)


@every
def test_parameters_must_fit_together(case: Case) -> None:
    tensors = parameters(case.distribution)
    if len(tensors) < 2:
        pytest.skip("one parameter fits itself")
    with pytest.raises(ShapeError, match="the parameters' shapes differ"):
        with_parameters(case.distribution, [tensors[0][:1], *tensors[1:]])
    with pytest.raises(TypeError, match="the parameters' dtypes differ"):
        with_parameters(case.distribution, [tensors[0].float(), *tensors[1:]])
    with pytest.raises(DomainError, match="expected a tensor of floating dtype"):
        with_parameters(case.distribution, [tensors[0].long(), *tensors[1:]])


# As a container


@every
def test_map_and_index(case: Case) -> None:
    distribution = case.distribution
    points = case.points(*MIDDLE)
    first = distribution[0]
    assert first.shape == ()
    assert_close(first.log_prob(points[:, 0]), distribution.log_prob(points)[:, 0])
    assert_close(first.crps(float(points[1, 0])), distribution.crps(points)[1, 0])
    assert first.sample(3).shape == (3,)
    assert_close(distribution[1:].quantile(0.3), distribution.quantile(0.3)[1:])
    twice = distribution.map(lambda parameter: torch.stack([parameter, parameter]))
    assert twice.shape == (2, *distribution.shape)
    assert_close(twice.cdf(torch.stack([points, points], dim=1))[:, 1], distribution.cdf(points))
    assert twice.quantile([0.2, 0.3, 0.4]).shape == (3, *twice.shape)
    assert type(twice) is type(distribution)
    empty = distribution[:0]
    assert empty.log_prob(torch.zeros(4, 0)).shape == empty.cdf(torch.zeros(4, 0)).shape == (4, 0)
    assert empty.quantile([0.5]).shape == (1, 0)


@every
def test_interval_holds_its_share(case: Case) -> None:
    distribution = case.distribution
    low, high = distribution.interval([0.5, 0.9])
    assert low.shape == high.shape == (2, *distribution.shape)
    share = torch.tensor([[0.5], [0.9]], dtype=torch.float64)
    if distribution.discrete:
        assert (distribution.cdf(high) - distribution.cdf(low - 1.0) >= share - 1e-9).all()
    else:
        held = distribution.cdf(high) - distribution.cdf(low)
        assert_close(held, share.expand_as(held), rtol=1e-6, atol=0)
    assert_close(distribution.interval(0.9)[0], low[1])


@continuous
def test_other_units(case: Case) -> None:
    distribution = case.distribution
    moved = distribution.affine(-7.0, 2.5)
    # Not where values are so close to an end that beside the shift nothing is left of them.
    points = case.points(0.8, 0.9, 0.97)
    assert_close(
        moved.log_prob(-7.0 + 2.5 * points), distribution.log_prob(points) - math.log(2.5), rtol=1e-6, atol=1e-6
    )
    assert_close(moved.cdf(-7.0 + 2.5 * points), distribution.cdf(points), rtol=1e-6, atol=1e-9)
    assert_close(moved.quantile([0.2, 0.7]), -7.0 + 2.5 * distribution.quantile([0.2, 0.7]))
    assert_close(moved.crps(-7.0 + 2.5 * points), 2.5 * distribution.crps(points), rtol=1e-6, atol=1e-9)
    for name in ("mean", "median", "mode"):
        assert_close(getattr(moved, name), -7.0 + 2.5 * getattr(distribution, name), equal_nan=True)
    assert_close(moved.variance, 6.25 * distribution.variance, equal_nan=True)
    assert_close(moved.entropy, distribution.entropy + math.log(2.5))
    back = moved.affine(2.8, 0.4)
    assert_close(back.quantile(0.3), distribution.quantile(0.3), rtol=1e-6, atol=1e-9)
    assert_close(moved.sample(4, generator=random()), -7.0 + 2.5 * distribution.sample(4, generator=random()))


@every
def test_nothing_is_mutated(case: Case) -> None:
    tensors = parameters(case.distribution)
    copies, points = [tensor.clone() for tensor in tensors], case.points(*MIDDLE)
    asked, versions = points.clone(), [tensor._version for tensor in (*tensors, points)]
    for question in ("log_prob", "cdf", "crps"):
        getattr(case.distribution, question)(points)
    for name in ("mean", "variance", "median", "mode", "entropy"):
        getattr(case.distribution, name)
    case.distribution.quantile([0.1, 0.5])
    case.distribution.sample(3)
    assert [tensor._version for tensor in (*tensors, points)] == versions
    assert all(torch.equal(*pair) for pair in zip((*tensors, points), (*copies, asked), strict=True))


# Numbers


@every
def test_float32_agrees_with_float64(case: Case) -> None:
    single = case.distribution.map(in_dtype(torch.float32))
    double = single.map(in_dtype(torch.float64))
    points = case.points(0.02, 0.3, 0.6, 0.97).float()
    for question, tolerance in (("log_prob", 3e-4), ("cdf", 3e-4), ("crps", 3e-4)):
        actual, expected = getattr(single, question)(points), getattr(double, question)(points.double())
        assert actual.dtype == torch.float32
        inside = double.support.contains(points)
        unit = apart(double) if question == "crps" else torch.ones(())
        error = ((actual.double() - expected).abs() / (expected.abs() + unit))[inside]
        assert (error < tolerance).all(), f"{question} is off by {float(error.max()):.1e}"
    for name in ("mean", "variance", "median", "mode", "entropy"):
        actual, expected = getattr(single, name), getattr(double, name)
        assert actual.dtype == torch.float32, name
        assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    actual, expected = single.quantile([0.02, 0.3, 0.97]), double.quantile(torch.tensor([0.02, 0.3, 0.97]))
    assert_close(actual.double(), expected, rtol=3e-5, atol=1e-37)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_targets_a_million_scales_away(case: Case, dtype: torch.dtype) -> None:
    tensors = [in_dtype(dtype)(p).clone().requires_grad_(p.is_floating_point()) for p in parameters(case.distribution)]
    distribution = with_parameters(case.distribution, tensors)
    wide = 1e6 * apart(case.distribution)
    far = torch.stack([case.distribution.median - wide, case.distribution.median + wide])
    far = (far.round() if distribution.discrete else far).to(dtype)
    for question in ("log_prob", "crps", "cdf"):
        answer = getattr(distribution, question)(far)
        inside = distribution.support.contains(far)
        assert not answer.isnan().any(), question
        assert answer[inside].isfinite().all(), question
        if question == "log_prob":
            answer = torch.where(inside, answer, 0.0)
        learned = [tensor for tensor in tensors if tensor.requires_grad]
        for gradient in torch.autograd.grad(answer.sum(), learned, materialize_grads=True):
            assert gradient.isfinite().all(), f"gradient of {question}"


@every
@pytest.mark.parametrize("question", ["log_prob", "cdf", "crps", "quantile", "moments"])
def test_gradients_in_the_parameters(case: Case, question: str) -> None:
    """Against differences, in parameters measured by their own size: a scale of 1e-3 moves by 1e-10, not by 1e-7."""
    if case.distribution.discrete and question == "quantile":
        pytest.skip("a quantile that is a whole number stands still")
    originals = parameters(case.distribution)
    sizes = [torch.where(p == 0, 1.0, p.abs()) for p in originals]
    points = case.points(0.1, 0.35, 0.8)
    moments = (
        ("mean", "variance", "entropy") if case.distribution.discrete else ("mean", "variance", "entropy", "median")
    )
    finite = {name: getattr(case.distribution, name).isfinite() for name in moments}

    def answer(*changes: Tensor) -> Tensor:
        moved = [p + size * change for p, size, change in zip(originals, sizes, changes, strict=True)]
        distribution = with_parameters(case.distribution, moved)
        if question == "quantile":
            return distribution.quantile([0.1, 0.35, 0.8])
        if question == "moments":
            return torch.stack([torch.where(finite[name], getattr(distribution, name), 0.0) for name in finite])
        return getattr(distribution, question)(points)

    # Along the first axis all move at once: an answer depends on its own element alone, and otherwise is caught here.
    changes = [torch.zeros(p.shape[1:], dtype=p.dtype, requires_grad=True) for p in originals]
    assert torch.autograd.gradcheck(answer, changes, eps=1e-7, atol=1e-5, rtol=1e-4)


@continuous
def test_gradients_in_value_and_share(case: Case) -> None:
    distribution = case.distribution
    points = case.points(0.1, 0.35, 0.8).requires_grad_()
    (density,) = torch.autograd.grad(distribution.cdf(points).sum(), points)
    assert_close(density.log(), distribution.log_prob(points.detach()), rtol=1e-8, atol=1e-8)
    share = torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64, requires_grad=True)
    quantile = distribution.quantile(share)
    (spacing,) = torch.autograd.grad(quantile.sum(), share)
    assert_close(spacing, (-distribution.log_prob(quantile.detach())).exp().sum(-1), rtol=1e-7, atol=0)
    # The derivative of the CRPS is 2F(y) − 1.
    (slope,) = torch.autograd.grad(distribution.crps(points).sum(), points)
    assert_close(slope, 2.0 * distribution.cdf(points.detach()) - 1.0, rtol=1e-6, atol=1e-6)


@every
def test_a_dtype_costs_no_answer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recalibrated distribution the mean is a quadrature: it is not asked for to shape a value or a share."""
    base, levels = case.distribution, LevelMap((0.0, 0.4, 1.0), (0.0, 0.6, 1.0))
    recalibrated = RecalibratedCounts(base, levels) if base.discrete else Recalibrated(base, levels)
    for distribution in (base, recalibrated):

        def asked(_: object) -> Tensor:
            raise AssertionError("the mean")

        monkeypatch.setattr(type(distribution), "mean", property(asked))
        for dtype in (torch.float64, torch.float32):
            same = distribution.map(in_dtype(dtype))
            assert same._values(1).dtype == dtype
            assert same._values(torch.ones(same.shape, dtype=torch.float64)).dtype == dtype
            assert same._shares(0.5, what="q").dtype == dtype
