"""What a kernel is made of: functions of one number, and the translation of a formula into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation_cases import CATALOG, KERNELS, every_kernel, example, needs_numba
from lastlayer.evaluation.kernels import running
from lastlayer.evaluation.kernels.translation import NotElementwise, translate
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.focal import FocalFormula
from lastlayer.losses.huber import HuberFormula
from lastlayer.losses.squared_error import SquaredErrorFormula
from loss_properties import random

#: Each function in float64, and how many units in the last place it may be off: measured, and a little more.
FUNCTIONS: dict[str, tuple[Callable[..., Any], float]] = {
    "exp": (np.exp, 1.1),
    "expm1": (np.expm1, 1.7),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 1.6),
    "sqrt": (np.sqrt, 0.5),
    "sigmoid": (lambda x: np.exp(-np.logaddexp(0.0, -x)), 2.3),
    "log_sigmoid": (lambda x: -np.logaddexp(0.0, -x), 2.0),
    "softplus": (lambda x: np.logaddexp(0.0, x), 2.0),
    "tanh": (np.tanh, 2.5),
    "sinh": (np.sinh, 2.4),
    "cosh": (np.cosh, 1.7),
}
EXACT = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log_sigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
SPECIAL = np.float32([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38])


def _numbers() -> np.ndarray:
    """Numbers of every size, dense where the functions turn, overflow and underflow."""
    sizes = np.arange(0, 1 << 32, 7919, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = [np.linspace(*ends, 50_001, dtype=np.float32) for ends in ((-1, 1), (-105, 95), (80, 90), (-104.5, -86))]
    near_one = np.float32(1.0) + np.arange(-4000, 4000, dtype=np.float32) * np.float32(2**-24)
    everything = np.concatenate([sizes, *dense, near_one, -near_one, SPECIAL])
    return everything[np.isfinite(everything)]


def _of_every(name: str, numbers: np.ndarray, result: type = np.float32) -> np.ndarray:
    """The function in a compiled loop."""
    from numba import njit

    from lastlayer.evaluation.kernels import scalar_math

    function = getattr(scalar_math, name)

    @njit(error_model="numpy", fastmath={"contract", "nsz"})
    def loop(numbers: Any, results: Any) -> None:
        for i in range(numbers.shape[0]):
            results[i] = function(numbers[i])

    results = np.empty(len(numbers), result)
    loop(numbers, results)
    return results


@needs_numba
@every_function
def test_a_function_is_within_its_units_in_the_last_place(name):
    exact_function, bound = FUNCTIONS[name]
    numbers = _numbers()
    found = _of_every(name, numbers)
    with np.errstate(all="ignore"):
        exact = exact_function(numbers.astype(np.float64))
        nearest = exact.astype(np.float32)
        error = np.abs(found - exact) / np.spacing(np.abs(nearest)).astype(np.float64)
    held = np.isfinite(nearest)
    worst = np.argmax(np.where(held, error, 0.0))
    assert np.isfinite(found[held]).all(), numbers[held][~np.isfinite(found[held])][:5]
    assert error[held].max() <= bound, f"{error[worst]:.3f} at {numbers[worst]!r}"
    np.testing.assert_array_equal(found[~held], nearest[~held])


@needs_numba
@every_function
def test_a_function_at_the_ends_of_the_numbers(name):
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name][0](SPECIAL.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(_of_every(name, SPECIAL), expected, rtol=3e-7, atol=2e-45)


@every_function
def test_the_functions_in_float64_are_exact(name):
    """What the float32 functions are judged by, against mpmath."""
    exact = EXACT.get(name) or getattr(mpmath, name)
    for number in (-87.3, -20.1, -1.5, -0.3, -1e-5, 1e-7, 0.2, 0.9, 3.0, 17.5, 80.0):
        if (name in ("log", "sqrt") and number < 0) or (name == "log1p" and number < -1):
            continue
        with mpmath.workdps(60):
            expected = float(exact(mpmath.mpf(number)))
        assert FUNCTIONS[name][0](np.float64(number)) == pytest.approx(expected, rel=1e-13)


@needs_numba
def test_exp_below_zero_is_exp_where_that_is_a_normal_number():
    numbers = _numbers()
    numbers = numbers[(numbers <= 0) & (numbers >= -87)]
    exact = np.exp(numbers.astype(np.float64))
    error = np.abs(_of_every("exp_below_zero", numbers) - exact) / np.spacing(exact.astype(np.float32))
    assert error.max() <= 1.1
    assert (_of_every("exp_below_zero", np.float32([-88, -1000, -3.4e38, -np.inf])) < 2e-38).all()


@needs_numba
def test_the_lesser_the_greater_and_the_sign():
    from numba import njit

    from lastlayer.evaluation.kernels import scalar_math

    lesser, greater = scalar_math.minimum, scalar_math.maximum

    @njit(error_model="numpy")
    def both(one: Any, other: Any, low: Any, high: Any) -> None:
        for i in range(one.shape[0]):
            low[i], high[i] = lesser(one[i], other[i]), greater(one[i], other[i])

    one, other = np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))
    low, high = np.empty_like(one), np.empty_like(one)
    both(one, other, low, high)
    # NaN of the second operand is a constant of the formula, and no formula has one.
    held = ~np.isnan(other)
    np.testing.assert_array_equal(low[held], np.minimum(one, other)[held])
    np.testing.assert_array_equal(high[held], np.maximum(one, other)[held])
    np.testing.assert_array_equal(_of_every("sign", SPECIAL), np.sign(SPECIAL))


@needs_numba
def test_bfloat16_rounds_as_pytorch_does():
    """Every upper half of a float32, with lower halves that are ties, close to ties, and any."""
    upper = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    some = np.random.default_rng(0).integers(0, 1 << 16, 1 << 16, dtype=np.uint32)
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, some):
        numbers = (upper | np.asarray(lower, dtype=np.uint32)).view(np.float32)
        expected = torch.from_numpy(numbers).to(torch.bfloat16)
        found = torch.from_numpy(_of_every("bfloat16_of_float", numbers, np.int16)).view(torch.bfloat16)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    halves = (upper >> np.uint32(16)).astype(np.uint16).view(np.int16)
    wide = torch.from_numpy(_of_every("float_of_bfloat16", halves))
    expected = torch.from_numpy(halves).view(torch.bfloat16).float()
    torch.testing.assert_close(wide, expected, rtol=0, atol=0, equal_nan=True)


@needs_numba
@every_kernel
def test_what_is_not_a_number_is_not_hidden(name):
    loss = CATALOG[name]
    for which in range(2):
        operands = example(loss, 5)
        operands[which][2] = torch.nan
        value, gradient = _run(loss.formula, *operands)
        assert value != value
        assert gradient.isnan().tolist() == [False, False, True, False, False]


def _run(formula: Any, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    from lastlayer.evaluation import evaluate_with, mean_and_gradient

    with evaluate_with(path="kernel"):
        return mean_and_gradient(formula, raw, target)


# The translation.


@dataclass(frozen=True)
class Of(SquaredErrorFormula):
    """A formula of any operations."""

    operations: Callable[[Tensor, Tensor], Tensor] = torch.sub

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.operations(raw, target), raw


def _branching(raw: Tensor, target: Tensor) -> Tensor:
    return raw if (raw > target).all() else target


NO_ARITHMETIC = {
    "an unknown operation": (lambda raw, target: torch.erf(raw), "the operation erf has no scalar counterpart"),
    "an unknown method": (lambda raw, target: raw.erfinv(), "the operation erfinv has no scalar counterpart"),
    "a branch": (_branching, "symbolically traced variables cannot be used as inputs to control flow"),
    "a shape": (lambda raw, target: raw / float(raw.shape[0]), "."),
    "a sum": (lambda raw, target: raw - target.mean(), "the operation mean has no scalar counterpart"),
    "an option": (
        lambda raw, target: torch.div(raw, target, rounding_mode="floor"),
        "the operation div has no scalar counterpart",
    ),
    "a broken power": (lambda raw, target: raw**1.7, "the operation pow has no scalar counterpart"),
    "a power of an operand": (lambda raw, target: raw**target, "the operation pow has no scalar counterpart"),
    "a tensor of its own": (lambda raw, target: raw + torch.ones(3), "."),
}


@pytest.mark.parametrize(("operations", "reason"), NO_ARITHMETIC.values(), ids=NO_ARITHMETIC)
def test_what_is_no_arithmetic_is_refused_with_the_reason(operations, reason):
    with pytest.raises(NotElementwise, match=reason):
        translate(Of(operations=operations))


@needs_numba
@pytest.mark.parametrize(("operations", "reason"), NO_ARITHMETIC.values(), ids=NO_ARITHMETIC)
def test_what_is_refused_is_explained(operations, reason):
    for _ in range(2):
        why = running.obstacle(Of(operations=operations), torch.zeros(3))
        assert why.startswith("squared_error does not translate (")


@needs_numba
@pytest.mark.parametrize(
    "operations",
    [
        lambda raw, target: torch.where(raw > target, raw, target),
        lambda raw, target: raw.clamp(-0.5, 0.5) + target.clamp(min=0.1) - target.clamp(max=0.3) + raw.clamp_min(0.2),
        lambda raw, target: torch.maximum(raw, target) - torch.minimum(raw, -target) + torch.relu(raw),
        lambda raw, target: raw**2 - target**3 + raw**4 + target.abs() ** 0.5 + raw**1,
        lambda raw, target: torch.sign(raw) * torch.square(target) + raw.abs().reciprocal() / (1 + target.exp()),
        lambda raw, target: torch.sigmoid(raw) * torch.tanh(target) - F.softplus(raw) + F.logsigmoid(-raw) + raw.sinh(),
        lambda raw, target: torch.log1p(raw.abs()) + target.abs().log() + torch.expm1(raw) + target.cosh() + raw.sqrt(),
        lambda raw, target: torch.ones_like(raw) - 2 * torch.zeros_like(target) + 3 - -raw,
    ],
)
def test_every_operation_means_what_it_means_in_pytorch(operations):
    raw, target = 2 * torch.randn(2, 100, generator=random(3))
    expected = operations(raw.double(), target.double())
    for i in range(len(raw)):
        value, _ = _run(Of(operations=operations), raw[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(value.double(), expected[i], rtol=1e-5, atol=1e-6, equal_nan=True)


@needs_numba
@pytest.mark.parametrize("option", ["weight", "pos_weight"])
def test_an_option_that_is_a_tensor_is_refused(option):
    formula = BinaryCrossEntropyFormula(**{option: torch.ones(3)})
    assert running.obstacle(formula, torch.zeros(2, 3)) == "an option is a tensor"


@needs_numba
def test_options_are_told_apart():
    """One source for one formula and its options, and no other's."""
    raw, target = example(CATALOG["huber"], 50)
    for formula in (HuberFormula(0.3), HuberFormula(3.0), HuberFormula(0.3), FocalFormula(gamma=3.0), FocalFormula()):
        wanted = target.clamp(0, 1)
        expected = formula.value_and_gradient(raw.double(), wanted.double())
        value, gradient = _run(formula, raw, wanted)
        torch.testing.assert_close(value.double(), expected[0].mean(), rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.double(), expected[1] / 50, rtol=1e-5, atol=1e-8)


@every_kernel
def test_the_translation_is_plain_source(name):
    source = translate(CATALOG[name].formula)
    lines = source.code.splitlines()
    assert lines[0] == "def element(raw, target):"
    assert lines[-1].strip().startswith("return ")
    assert source == translate(CATALOG[name].formula)
    compile(source.code, name, "exec")


def test_there_are_kernels():
    assert {"squared_error", "binary_cross_entropy"} <= set(KERNELS)


@needs_numba
def test_the_logarithm_of_the_gamma_function():
    """Exact at 1 and 2, where a count of 0 or 1 has its factorial."""
    counts = np.arange(1, 2000, dtype=np.float32)
    others = np.concatenate([np.linspace(1, 20, 20_001), np.logspace(0, 10, 5000), np.logspace(-30, 0, 3000)])
    numbers = np.concatenate([counts, others.astype(np.float32)])
    found, exact = _of_every("lgamma", numbers), scipy.special.gammaln(numbers.astype(np.float64))
    unit = np.spacing(np.maximum(np.abs(exact), 1.0).astype(np.float32))
    assert (np.abs(found - exact) <= 2.5 * unit).all()
    assert (found[:2] == 0).all()
