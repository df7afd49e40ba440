"""What only the distribution of a few quantiles has; its oracle and what all have is in the general tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from discrete_cases import LEVELS, KnotsOracle, quantile_knots
from lastlayer.checks import DomainError, ShapeError
from lastlayer.distributions.quantile_knots import QuantileKnots

CASE = quantile_knots()


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_oracle_is_a_distribution() -> None:
    for oracle in CASE.oracles:
        assert isinstance(oracle, KnotsOracle)
        assert math.isclose(oracle.expect(np.ones_like), 1.0, rel_tol=1e-12)


def test_the_quantiles_at_the_levels_are_the_knots() -> None:
    distribution = CASE.distribution
    assert isinstance(distribution, QuantileKnots)
    assert torch.equal(distribution.quantile(LEVELS), distribution.values.T)
    expected = tensor(*LEVELS).unsqueeze(1).expand(-1, 3)
    assert_close(distribution.cdf(distribution.values.T), expected, rtol=1e-13, atol=0)


def test_the_density_is_continuous_at_the_outer_knots() -> None:
    distribution = CASE.distribution
    assert isinstance(distribution, QuantileKnots)
    for knot in (distribution.values[:, 0], distribution.values[:, -1]):
        assert_close(distribution.log_prob(knot - 1e-9), distribution.log_prob(knot + 1e-9), rtol=0, atol=1e-4)


def test_second_derivatives() -> None:
    values = tensor(-1.0, 0.5, 1.0, 4.0).requires_grad_()
    for y in (-3.0, 0.1, 0.8, 2.0, 9.0):
        for question in ("log_prob", "cdf", "crps"):
            assert torch.autograd.gradgradcheck(
                lambda v, q=question, y=y: getattr(QuantileKnots(v, (0.1, 0.4, 0.6, 0.8)), q)(y), (values,)
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "knots",
    [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (-5.0, 2.0, 2.0), (2.0, 2.0, 7.0), (1e6, 1e6, 1e6), (-1.0, 0.0, 1e-30)],
)
def test_equal_knots_stay_finite(knots: tuple[float, ...], dtype: torch.dtype) -> None:
    values = torch.tensor(knots, dtype=dtype, requires_grad=True)
    distribution = QuantileKnots(values, (0.1, 0.5, 0.9))
    points = torch.tensor([-1e6, -1.0, 0.0, 1.0, 2.0, 2.0001, 5.0, 1e6], dtype=dtype)
    answers = [getattr(distribution, question)(points) for question in ("log_prob", "cdf", "crps")]
    moments = [distribution.mean, distribution.variance, distribution.mode, distribution.entropy]
    for answer in (*answers, *moments, distribution.quantile([0.01, 0.1, 0.3, 0.5, 0.7, 0.99])):
        assert answer.isfinite().all()
        (gradient,) = torch.autograd.grad(answer.sum(), values, retain_graph=True)
        assert gradient.isfinite().all()
    assert (answers[1].diff() >= 0).all()
    assert (distribution.quantile([0.01, 0.1, 0.3, 0.5, 0.7, 0.99]).diff() >= 0).all()


def test_a_point_has_the_absolute_error_for_a_crps() -> None:
    points = tensor(-3.0, 0.0, 2.0, 7.0)
    crps = QuantileKnots(tensor(2.0, 2.0, 2.0), (0.1, 0.5, 0.9)).crps(points)
    assert_close(crps, (points - 2.0).abs(), rtol=1e-12, atol=1e-12)


def test_the_mass_between_equal_knots_is_in_the_cdf_and_in_the_density() -> None:
    distribution = QuantileKnots(tensor(0.0, 1.0, 1.0, 3.0), (0.2, 0.4, 0.7, 0.9))
    width = torch.finfo(torch.float64).eps * 3.0
    assert_close(distribution.cdf(tensor(1.0 - 1e-9, 1.0 + 1e-9)), tensor(0.4, 0.7), rtol=1e-8, atol=0)
    expected = math.log(0.3 / width + 0.2 / 2.0)
    assert_close(distribution.log_prob(1.0).item(), expected, rtol=1e-12, atol=0)


def test_indexing_leaves_the_axis_of_the_knots() -> None:
    values = torch.arange(30.0).reshape(2, 5, 3)
    distribution = QuantileKnots(values, (0.1, 0.5, 0.9))
    assert torch.equal(distribution[..., -1].values, values[:, -1])
    assert torch.equal(distribution[1, 2].values, values[1, 2])
    assert distribution[:, 1:3].shape == (2, 2)
    assert distribution[0].levels == distribution.levels
    assert distribution.map(lambda parameter: parameter.T).shape == (5, 2)
    with pytest.raises(IndexError):
        distribution[0, 0, 0]


def test_what_is_no_distribution_is_an_error() -> None:
    with pytest.raises(ShapeError, match="at least two"):
        QuantileKnots(torch.zeros(4, 1), (0.5,))
    with pytest.raises(ShapeError, match=r"\(4, 3\), and there are 2 levels"):
        QuantileKnots(torch.zeros(4, 3), (0.1, 0.9))
    for levels in ((0.0, 0.5), (0.5, 1.0), (0.6, 0.5), (0.5, 0.5), (0.5, math.nan)):
        with pytest.raises(DomainError, match="rise strictly"):
            QuantileKnots(torch.zeros(4, 2), levels)
    with pytest.raises(DomainError, match="Sort them"):
        QuantileKnots(torch.tensor([[1.0, 0.0]]), (0.1, 0.9))
    with pytest.raises(DomainError, match="expected a positive number"):
        CASE.distribution.affine(0.0, -1.0)
