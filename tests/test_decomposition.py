"""The parts of an ensemble's uncertainty: against the law of total variance, entropies by SciPy, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lastlayer.checks import DomainError, InputError, ShapeError
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.poisson import Poisson
from lastlayer.uncertainty import decompose


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


QUANTITIES = [
    pytest.param(Gaussian(numbers(5, 3, 2), numbers(5, 3, 2, seed=1).exp()), id="gaussian"),
    pytest.param(Poisson(numbers(5, 3, 2)), id="poisson"),
]
CLASSES = [
    pytest.param(Categorical(3 * numbers(5, 3, 2, 4)), id="categorical"),
    pytest.param(Bernoulli(3 * numbers(5, 3, 2)), id="bernoulli"),
]


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.0, 1.0, 4.0])])
@pytest.mark.parametrize("members", QUANTITIES)
def test_the_total_variance_is_that_of_the_mixture(members: Distribution, weight: torch.Tensor | None) -> None:
    parts = decompose(members, weight=weight)
    assert parts.measure == "variance"
    torch.testing.assert_close(parts.total, members.mixed(weight).variance)
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)
    share = torch.ones(5).double() / 5 if weight is None else weight.double() / weight.sum()
    torch.testing.assert_close(parts.aleatoric, torch.einsum("m,mij->ij", share, members.variance))


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.0, 1.0, 4.0])])
@pytest.mark.parametrize("members", CLASSES)
def test_the_total_entropy_is_that_of_the_mixture(members: Distribution, weight: torch.Tensor | None) -> None:
    parts = decompose(members, weight=weight)
    assert parts.measure == "entropy"
    torch.testing.assert_close(parts.total, members.mixed(weight).entropy)
    share = torch.ones(5).double() / 5 if weight is None else weight.double() / weight.sum()
    torch.testing.assert_close(parts.aleatoric, torch.einsum("m,mij->ij", share, members.entropy))
    assert bool((parts.epistemic >= 0).all())
    assert bool((parts.epistemic <= math.log(5)).all())


def test_by_hand() -> None:
    # Two members that are certain of different classes: log 2, all of it epistemic.
    parts = decompose(Bernoulli(torch.tensor([[1000.0], [-1000.0]], dtype=torch.float64)))
    assert float(parts.epistemic) == pytest.approx(math.log(2))
    assert float(parts.aleatoric) == 0.0
    # Three members of one opinion: its entropy, all of it aleatoric.
    probability = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    parts = decompose(Categorical(probability.log().expand(3, 1, 3)))
    assert float(parts.total) == pytest.approx(stats.entropy(probability.numpy()))
    assert float(parts.epistemic) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_members_that_agree_have_no_negative_part(dtype: torch.dtype) -> None:
    for scale in (1e-4, 1.0, 30.0):
        logits = (scale * numbers(1, 200, 6)).to(dtype).expand(7, 200, 6)
        for members in (Categorical(logits), Bernoulli(logits), Gaussian(1e6 * logits, torch.ones_like(logits))):
            parts = decompose(members)
            assert bool((parts.epistemic >= 0).all())
            assert bool((parts.epistemic <= 1e-5 if dtype == torch.float32 else parts.epistemic <= 1e-14).all())
            assert parts.total.dtype == dtype


def test_a_large_mean_takes_no_digits_from_the_disagreement() -> None:
    location = torch.tensor([[1e9], [1e9 + 2.0]], dtype=torch.float64)
    assert float(decompose(Gaussian(location, torch.ones_like(location))).epistemic) == 1.0


def test_a_member_of_weight_zero_does_not_count() -> None:
    location = torch.tensor([[torch.nan], [1.0], [3.0]], dtype=torch.float64)
    parts = decompose(Gaussian(location, torch.ones_like(location)), weight=torch.tensor([0.0, 1.0, 1.0]))
    assert float(parts.total) == 2.0


def test_the_entropy_of_densities() -> None:
    # Far apart and alike: the mixture's entropy is a member's and log 2.
    location = torch.tensor([[-50.0], [50.0]], dtype=torch.float64)
    parts = decompose(Gaussian(location, torch.ones_like(location)), measure="entropy")
    assert float(parts.epistemic) == pytest.approx(math.log(2), abs=1e-6)
    assert float(parts.aleatoric) == pytest.approx(stats.norm.entropy())


def test_one_member_has_nothing_epistemic() -> None:
    for members in (Categorical(numbers(1, 4, 3)), Gaussian(numbers(1, 4), numbers(1, 4).exp())):
        assert decompose(members).epistemic.tolist() == [0.0] * 4


def test_classes_can_be_decomposed_by_variance() -> None:
    members = Bernoulli(numbers(4, 3))
    p = torch.sigmoid(members.logit).mean(0)
    torch.testing.assert_close(decompose(members, measure="variance").total, p * (1 - p))


def test_errors_say_what_is_wrong() -> None:
    members = Gaussian(torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(ShapeError, match="members"):
        decompose(Gaussian(torch.tensor(0.0), torch.tensor(1.0)))
    with pytest.raises(ShapeError, match="members"):
        decompose(Gaussian(torch.zeros(0, 2), torch.ones(0, 2)))
    with pytest.raises(ShapeError, match="one for each of 2"):
        decompose(members, weight=torch.ones(3))
    for weight in ([0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0]):
        with pytest.raises(DomainError, match="weights"):
            decompose(members, weight=torch.tensor(weight))
    with pytest.raises(InputError, match="measure"):
        decompose(members, measure="spread")
