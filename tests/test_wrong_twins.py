"""Losses that are wrong on purpose, one mistake each: the properties must catch them, or they prove nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import loss_properties as properties
from lastlayer.evaluation import Formula, weighted_mean
from lastlayer.losses import Loss
from lastlayer.losses.absolute_error import AbsoluteErrorFormula
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.cross_entropy import CrossEntropyFormula
from lastlayer.losses.squared_error import SquaredErrorFormula

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class Twin(Loss):
    """A formula as a loss."""

    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self._formula = formula

    @property
    def formula(self) -> Formula:
        return self._formula


class WrongFactor(SquaredErrorFormula):
    """``s − y`` for the derivative of ``(s − y)²``."""

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return raw - target

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(raw, target), self.gradient(raw, target)


class WrongSoftmaxGradient(CrossEntropyFormula):
    """The lecture's missing sign (SPEC H): softmax + one-hot."""

    def _closed_form(self, raw: Tensor, target: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        value, gradient = super()._closed_form(raw, target, None)
        return value, 2 * torch.softmax(raw, dim=-1) - gradient


class SecondOrderLost(SquaredErrorFormula):
    """The right value and first derivative, and half of the curvature detached."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        error = raw - target
        return error.detach() * (2 * error - error.detach())


class HalfDetached(SquaredErrorFormula):
    """The right value, and one of its two factors detached."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw - target).detach() * (raw - target)


class MeanForMedian(AbsoluteErrorFormula):
    """The constant that is best for the squared error."""

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return weighted_mean(target, sample_weight)


class UnweightedConstant(SquaredErrorFormula):
    """The mean of the targets, whatever the rows weigh."""

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        return target.mean(0)


class LaterRowsCountMore(SquaredErrorFormula):
    """A value that depends on where in the batch the row stands."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return super().value(raw, target) * (1 + torch.arange(len(raw)))

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return super().gradient(raw, target) * (1 + torch.arange(len(raw)))


class NothingTimesInfinity(SquaredErrorFormula):
    """Infinite where the target is 0, as a masked one is: times a weight of 0 that is NaN."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return super().value(raw, target) - target.abs().log()


class LogOfOneMinusSigmoid(BinaryCrossEntropyFormula):
    """``log(1 − σ(s))``, which rounds to log 0."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        probability = torch.sigmoid(raw)
        return -(target * probability.log() + (1 - target) * (1 - probability).log())


class OffTarget(SquaredErrorFormula):
    """Least a little beside the target."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return super().value(raw, target + 0.01)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return super().gradient(raw, target + 0.01)


class Hill(SquaredErrorFormula):
    """``−(s − y)²``: the sign forgotten, as the lecture forgets it (SPEC H)."""

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        return -super().value(raw, target)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return -super().gradient(raw, target)


class Broadcasting(SquaredErrorFormula):
    """Looks at no shape."""

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        return target.to(raw.dtype)


@dataclass
class _Ignoring:
    """A loss that drops one option on the way."""

    option: str

    def __call__(self) -> Loss:
        dropped = self.option

        class Ignoring(Twin):
            def forward(self, raw: Tensor, target: Tensor, **options: object) -> Tensor:
                return super().forward(raw, target, **{key: value for key, value in options.items() if key != dropped})

        return Ignoring(SquaredErrorFormula())


CAUGHT = [
    (WrongFactor, "gradient_is_that_of_value"),
    (WrongFactor, "gradient_is_symmetric_difference"),
    (WrongFactor, "gradient_of_the_mean"),
    (WrongSoftmaxGradient, "gradient_is_that_of_value"),
    (WrongSoftmaxGradient, "gradient_is_symmetric_difference"),
    (WrongSoftmaxGradient, "gradient_of_the_mean"),
    (WrongSoftmaxGradient, "perfect_prediction_is_best"),
    (HalfDetached, "gradient_is_that_of_value"),
    (HalfDetached, "first_order_is_right"),
    (SecondOrderLost, "second_order_is_right"),
    (MeanForMedian, "optimal_constant_is_optimal"),
    (UnweightedConstant, "optimal_constant_is_optimal"),
    (LaterRowsCountMore, "integer_weight_repeats_the_row"),
    (LaterRowsCountMore, "zero_weight_removes_the_row"),
    (LaterRowsCountMore, "partition_adds_up"),
    (LaterRowsCountMore, "order_does_not_matter"),
    (NothingTimesInfinity, "zero_weight_removes_the_row"),
    (NothingTimesInfinity, "nothing_counted_is_zero"),
    (OffTarget, "perfect_prediction_is_best"),
    (OffTarget, "optimal_constant_is_optimal"),
    (Hill, "perfect_prediction_is_best"),
    (Hill, "optimal_constant_is_optimal"),
    (Broadcasting, "shapes_never_broadcast"),
]


@pytest.mark.parametrize(("wrong", "check"), CAUGHT)
def test_a_wrong_formula_is_caught(wrong, check):
    with pytest.raises(AssertionError):
        getattr(properties, check)(Twin(wrong()))


@pytest.mark.parametrize(
    ("option", "check"),
    [
        ("sample_weight", "integer_weight_repeats_the_row"),
        ("sample_weight", "zero_weight_removes_the_row"),
        ("sample_weight", "gradient_of_the_mean"),
        ("normalizer", "partition_adds_up"),
        ("normalizer", "gradient_of_the_mean"),
    ],
)
def test_an_option_that_is_ignored_is_caught(option, check):
    with pytest.raises(AssertionError):
        getattr(properties, check)(_Ignoring(option)())


@pytest.mark.parametrize("dtype", properties.DTYPES, ids=str)
def test_a_formula_that_overflows_is_caught(dtype):
    with pytest.raises(AssertionError):
        properties.finite_at_extremes(Twin(LogOfOneMinusSigmoid()), dtype)


def test_a_formula_that_is_not_convex_is_caught():
    one, other, target = torch.tensor([[-1.0], [1.0], [0.0]], dtype=torch.float64)
    properties.chord_lies_above(Twin(SquaredErrorFormula()), one, other, target, 0.5)
    with pytest.raises(AssertionError):
        properties.chord_lies_above(Twin(Hill()), one, other, target, 0.5)


def test_every_property_catches_something():
    # The list of properties and the list of mistakes grow together.
    caught = {check for _, check in CAUGHT}
    assert {check.__name__ for check in properties.EVERY_PROPERTY} == caught
