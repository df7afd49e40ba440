"""What must hold of every activation, each as a function that raises ``AssertionError`` where it does not.

``test_activations.py`` asks them of every activation in the catalog, and of activations that are wrong on purpose.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from lastlayer.activations import Activation
from lastlayer.facts import SATURATED

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_EXTREMES = (0.0, 1e-4, 1.0, 10.0, 100.0, 300.0, 1000.0, 1e4)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(activation: Activation, n: int = 24, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return activation.facts.example(n, dtype=dtype, generator=random(seed))


def away_from_kinks(activation: Activation, n: int = 24) -> Tensor:
    """The example, its numbers at least 0.01 from 0, where every kink of an elementwise activation is."""
    x = example(activation, n)
    return x + 0.01 * torch.sign(x)


def grid(size: float = 30.0, points: int = 6001) -> Tensor:
    return torch.linspace(-size, size, points, dtype=torch.float64)


def jacobian(activation: Activation, x: Tensor) -> Tensor:
    """The derivative by autograd through the value, in the shape in which ``derivative`` gives it."""
    if activation.facts.elementwise:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(activation.value(x).sum(), x)[0]
    return torch.stack([torch.autograd.functional.jacobian(activation.value, row) for row in x])


def derivative_is_that_of_value(activation: Activation) -> None:
    """At the kink, too: 0 is among the inputs."""
    x = example(activation)
    x[0] = 0.0
    assert_close(activation.derivative(x), jacobian(activation, x), rtol=1e-10, atol=1e-14)


def derivative_is_symmetric_difference(activation: Activation) -> None:
    x = away_from_kinks(activation)
    step = torch.finfo(x.dtype).eps ** (1 / 3)
    # Elementwise, all entries move at once; otherwise one input of every row at a time.
    width = 1 if activation.facts.elementwise else x.shape[-1]
    slopes = [
        (activation.value(x + step * direction) - activation.value(x - step * direction)) / (2 * step)
        for direction in torch.eye(width, dtype=x.dtype)
    ]
    slope = slopes[0] if activation.facts.elementwise else torch.stack(slopes, dim=-1)
    assert_close(activation.derivative(x), slope, rtol=1e-7, atol=1e-8)


def first_order_is_right(activation: Activation) -> None:
    x = away_from_kinks(activation, 6).requires_grad_()
    assert gradcheck(activation.value, x, check_forward_ad=True, raise_exception=False)


def second_order_is_right(activation: Activation) -> None:
    x = away_from_kinks(activation, 6).requires_grad_()
    assert gradgradcheck(activation.value, x, raise_exception=False)


def monotonic_as_said(activation: Activation) -> None:
    value, _ = activation.profile(grid())
    assert activation.facts.monotonic == bool((value.diff() >= -1e-12).all())


def derivative_monotonic_as_said(activation: Activation) -> None:
    turn = activation.profile(grid())[1].diff()
    assert activation.facts.derivative_monotonic == bool((turn >= -1e-12).all() or (turn <= 1e-12).all())


def range_as_said(activation: Activation) -> None:
    """No value lies outside, a closed end is reached, and an open one is approached as closely as one likes."""
    x = torch.cat([size * example(activation, 2000, seed=seed) for seed, size in enumerate((0.1, 0.3, 1.0, 10.0, 1e4))])
    values, interval = activation.value(x), activation.facts.range
    # Rounding may reach an open end.
    assert (values >= interval.low).all()
    assert (values <= interval.high).all()
    for end, extreme, closed in (
        (interval.low, values.min(), interval.low_closed),
        (interval.high, values.max(), interval.high_closed),
    ):
        if end in (-torch.inf, torch.inf):
            assert extreme.sign() * end == torch.inf
            assert extreme.abs() > 1e3
        else:
            assert abs(extreme - end) < (1e-6 if closed else 1e-4)
    # Near 0 nothing is rounded to an open end.
    near = activation.value(0.1 * example(activation, 2000))
    assert interval.contains(near).all()


def saturates_as_said(activation: Activation) -> None:
    """Beyond the stated x the derivative stays small, and a little before it does not."""
    far = torch.logspace(-3, 6, 2000, dtype=torch.float64)
    flat = bool((activation.profile(torch.cat([far, -far]))[1] == 0).all())
    for side, edge in ((-1.0, activation.facts.saturates_below), (1.0, activation.facts.saturates_above)):
        if edge is None:
            assert activation.profile(side * far)[1].abs()[-1] >= SATURATED
            continue
        assert (activation.profile(edge + side * far)[1].abs() < SATURATED).all()
        before = torch.tensor([edge - side * 0.02 * max(1.0, abs(edge) / 10)], dtype=torch.float64)
        assert flat == bool(activation.profile(before)[1].abs() < SATURATED)


def zero_centered_as_said(activation: Activation) -> None:
    """An odd function, and only that, turns every input symmetric around 0 into an output with mean 0."""
    x = grid(5.0, 1001)
    value, mirrored = activation.profile(x)[0], activation.profile(-x)[0]
    assert activation.facts.zero_centered == bool(((value + mirrored).abs() < 1e-12).all())
    assert activation.facts.zero_centered == bool(value.mean().abs() < 1e-9)


def smooth_as_said(activation: Activation) -> None:
    """Neither value nor derivative jumps anywhere between −1 and 1."""
    value, derivative = activation.profile(grid(1.0, 20001))
    jump = max(value.diff().abs().max(), derivative.diff().abs().max())
    assert activation.facts.smooth == bool(jump < 1e-3)


def elementwise_as_said(activation: Activation) -> None:
    """Moving one input moves one output, its own; or the derivative is a matrix that says which others."""
    x = example(activation, 8).reshape(8, -1)
    moved = x.clone()
    moved[0, 0] += 0.7
    if activation.facts.elementwise:
        row, other = torch.arange(12.0, dtype=torch.float64) - 5.5, torch.arange(12.0, dtype=torch.float64) - 5.5
        other[3] += 40.0
        changed = activation.value(row) != activation.value(other)
        assert activation.value(row).shape == row.shape
        assert not (changed & (torch.arange(12) != 3)).any()
        assert activation.derivative(row).shape == row.shape
    else:
        value = activation.value(x)
        changed = activation.value(moved) != value
        assert changed[0].sum() > 1
        assert not changed[1:].any()
        assert activation.derivative(x).shape == (*value.shape, x.shape[-1])


def input_is_left_alone(activation: Activation) -> None:
    x = example(activation)
    before = x.clone()
    activation(x)
    activation.value(x)
    activation.derivative(x)
    activation.profile(grid())
    assert torch.equal(x, before)


def finite_at_extremes(activation: Activation, dtype: torch.dtype) -> None:
    """Value, derivative and what backward gives are finite; elementwise, nearly to the dtype's largest number."""
    sizes = torch.tensor(_EXTREMES, dtype=dtype)
    if activation.facts.elementwise:
        sizes = torch.cat([sizes, torch.tensor([1e3, torch.finfo(dtype).max / 4], dtype=dtype)])
    x = example(activation, 16 * 2 * len(sizes), dtype=dtype)
    extremes = torch.cat([sizes, -sizes]).repeat(16).reshape(-1, *[1] * (x.dim() - 1))
    # In a row of inputs the others lie at zero and at the other extreme.
    signs = torch.randint(-1, 2, x.shape, generator=random(2)).to(dtype) if x.dim() > 1 else torch.ones_like(x)
    x = (extremes * signs).requires_grad_()
    activation = activation.to(dtype)
    value = activation.value(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    derivative = activation.derivative(x.detach())
    for result in (value, gradient, derivative):
        assert result.isfinite().all()
        assert result.dtype == dtype


EVERY_PROPERTY = (
    derivative_is_that_of_value,
    derivative_is_symmetric_difference,
    first_order_is_right,
    second_order_is_right,
    monotonic_as_said,
    derivative_monotonic_as_said,
    range_as_said,
    saturates_as_said,
    zero_centered_as_said,
    smooth_as_said,
    elementwise_as_said,
    input_is_left_alone,
)
