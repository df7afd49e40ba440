"""What must hold of every loss, each as a function that raises ``AssertionError`` where it does not.

``test_losses.py`` asks them of every loss in the catalog, ``test_wrong_twins.py`` of losses that are wrong on purpose.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from lastlayer.checks import ShapeError
from lastlayer.evaluation import evaluate_with, mean_and_gradient
from lastlayer.losses import Loss

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_EXTREMES = (0.0, 1e-4, 1.0, 10.0, 100.0, 1000.0, 1e4)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(loss: Loss, n: int = 24, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    return loss.facts.example(n, dtype=dtype, generator=random(seed))


def weights(n: int, seed: int = 1) -> Tensor:
    return 0.1 + torch.rand(n, dtype=torch.float64, generator=random(seed))


def autograd_of_mean(loss: Loss, raw: Tensor, target: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """The reduced loss and its gradient, by autograd through the readable value."""
    with evaluate_with(path="plain"):
        return by_autograd(loss, raw, target, **options)


def by_autograd(loss: Loss, raw: Tensor, target: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """The reduced loss and its gradient as anyone gets them: the closed form, as a node of the graph."""
    raw = raw.detach().requires_grad_()
    value = loss(raw, target, **options)
    return value.detach(), torch.autograd.grad(value, raw)[0]


def both_ways(loss: Loss, raw: Tensor, target: Tensor, **options: object) -> list[tuple[Tensor, Tensor]]:
    """Mean and gradient through the readable value, in closed form as a node of the graph, and without a graph."""
    return [
        autograd_of_mean(loss, raw, target, **options),
        by_autograd(loss, raw, target, **options),
        mean_and_gradient(loss.formula, raw, target, **options),
    ]


def gradient_is_that_of_value(loss: Loss) -> None:
    raw, target = example(loss)
    raw.requires_grad_()
    with evaluate_with(path="plain"):
        (expected,) = torch.autograd.grad(loss.value(raw, target).sum(), raw)
    assert_close(loss.gradient(raw.detach(), target), expected, rtol=1e-10, atol=1e-12)


def gradient_is_symmetric_difference(loss: Loss) -> None:
    raw, target = example(loss)
    step = torch.finfo(raw.dtype).eps ** (1 / 3)
    # An elementwise loss moves all its entries at once, any other one coordinate of every sample at a time.
    directions = torch.eye(raw.shape[-1], dtype=raw.dtype) if loss.formula.event_dims else torch.ones(1)
    for direction in directions:
        ahead, behind = loss.value(raw + step * direction, target), loss.value(raw - step * direction, target)
        gradient = loss.gradient(raw, target) * direction
        slope = gradient.sum(-1) if loss.formula.event_dims else gradient
        assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-8)


def gradient_of_the_mean(loss: Loss) -> None:
    raw, target = example(loss)
    for options in ({}, {"sample_weight": weights(len(raw))}, {"normalizer": 7.0}):
        expected, *closed = both_ways(loss, raw, target, **options)
        for value, gradient in closed:
            assert_close(value, expected[0], rtol=1e-12, atol=1e-14)
            assert_close(gradient, expected[1], rtol=1e-10, atol=1e-14)


def first_order_is_right(loss: Loss) -> None:
    raw, target = example(loss, 6)
    raw.requires_grad_()
    assert gradcheck(
        lambda scores: loss(scores, target, sample_weight=weights(6)), raw, check_forward_ad=True, raise_exception=False
    )


def second_order_is_right(loss: Loss) -> None:
    raw, target = example(loss, 6)
    raw.requires_grad_()
    assert gradgradcheck(lambda scores: loss(scores, target, sample_weight=weights(6)), raw, raise_exception=False)


def perfect_prediction_is_best(loss: Loss) -> None:
    """At the raw output whose link gives the target: no gradient, no better value, and 0 where the facts say 0."""
    raw, target = example(loss)
    if not loss.facts.proper:
        # An improper loss keeps that promise for certain outcomes only.
        target = target.round()
    perfect = _PERFECT[loss.facts.link](raw, target)
    least = loss.value(perfect, target)
    # Of a beta density the last place of the logit counts a million times: its likeliest mean is no round number.
    tolerance = 1e-8 if loss.facts.name == "beta_nll" else 1e-12
    assert_close(loss.gradient(perfect, target), torch.zeros_like(raw), rtol=0, atol=tolerance)
    for shift in (-1.0, -0.01, 0.01, 1.0):
        moved = perfect + shift * torch.randn(raw.shape, dtype=raw.dtype, generator=random(3))
        assert (loss.value(moved, target) >= least - 1e-12).all()
    if loss.facts.minimum.startswith("0"):
        # For a hard target the entropy, too, is 0.
        assert_close(least, torch.zeros_like(least), rtol=0, atol=1e-12)


_PERFECT = {
    "identity": lambda raw, target: target if target.is_floating_point() else _one_hot(raw, target),
    "sign": lambda raw, target: 2.0 * _one_hot(raw, target) - 1.0,
    "sigmoid": lambda raw, target: torch.logit(target, eps=1e-15),
    "exp": lambda raw, target: target.clamp_min(1e-15).log(),
    # The least scale lies at a raw scale of −∞.
    "identity, softplus": lambda raw, target: torch.stack([target, torch.full_like(target, -40.0)], dim=-1),
    "softmax, identity, softplus": lambda raw, target: torch.cat(
        [raw.chunk(3, -1)[0], target.unsqueeze(-1).expand(-1, raw.shape[-1] // 3), 0 * raw.chunk(3, -1)[2] - 40.0], -1
    ),
    "softmax": lambda raw, target: 100.0 * _one_hot(raw, target),
    "identity, softplus; of log y": lambda raw, target: _stacked(target.log(), -40.0),
    # At the location itself no tail is best: the Gaussian.
    "identity, softplus, 2.01 + softplus": lambda raw, target: _stacked(target, -40.0, 1e7),
    "exp, (softplus)⁻²": lambda raw, target: _stacked(target.log(), -40.0),
    "exp, (softplus)⁻²; of counts": lambda raw, target: _stacked(target.clamp_min(1e-15).log(), -40.0),
    "sigmoid, (softplus)⁻²": lambda raw, target: _stacked(_likeliest_logit(target), -40.0),
    "identity and distances by softplus": lambda raw, target: _stacked(-40.0, -40.0, target, -40.0, -40.0),
    "sigmoid of ordered thresholds": lambda raw, target: _far_thresholds(raw, target),
}


def _stacked(*parts: Tensor | float) -> Tensor:
    whole = next(part for part in parts if isinstance(part, Tensor))
    return torch.stack([part if isinstance(part, Tensor) else torch.full_like(whole, part) for part in parts], dim=-1)


def _likeliest_logit(target: Tensor, concentration: float = 1e6) -> Tensor:
    """The logit of the mean at which a beta density of this concentration is largest: ψ(α) − ψ(β) = logit y."""
    low, high = torch.logit(target) - 1.0, torch.logit(target) + 1.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        of_one, of_other = (torch.digamma(concentration * torch.sigmoid(side)) for side in (middle, -middle))
        beyond = of_one - of_other > torch.logit(target)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return 0.5 * (low + high)


def _far_thresholds(raw: Tensor, target: Tensor) -> Tensor:
    """The class's own threshold far above 0, that of the class before far below."""
    place = torch.arange(raw.shape[-1])
    first = torch.where(target.unsqueeze(-1) == 0, 100.0, -100.0).to(raw.dtype)
    increment = torch.where(place == target.unsqueeze(-1), 200.0, -100.0).to(raw.dtype)
    return torch.where(place == 0, first, increment)


def _one_hot(raw: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(target, raw.shape[-1]).to(raw.dtype)


def optimal_constant_is_optimal(loss: Loss) -> None:
    if not loss.facts.exact_constant:
        pytest.skip("the facts promise a start, not the optimum")
    raw, target = example(loss, 101)
    if loss.facts.target is None:
        target = _one_hot(raw, target)
    weight = weights(len(raw))
    constant = loss.formula.optimal_constant(target, weight)

    def mean_at(candidate: Tensor) -> Tensor:
        return loss(candidate.expand(raw.shape), target, sample_weight=weight)

    for size in (1e-3, 0.1, 1.0, 5.0):
        for _ in range(5):
            step = size * torch.randn(constant.shape, dtype=raw.dtype, generator=random())
            assert mean_at(constant + step) >= mean_at(constant) - 1e-13
            assert mean_at(constant - step) >= mean_at(constant) - 1e-13


def integer_weight_repeats_the_row(loss: Loss) -> None:
    raw, target = example(loss)
    times = torch.arange(len(raw)) % 4
    rows = torch.repeat_interleave(torch.arange(len(raw)), times)
    for weighted, repeated in zip(
        both_ways(loss, raw, target, sample_weight=times), both_ways(loss, raw[rows], target[rows]), strict=True
    ):
        assert_close(weighted[0], repeated[0], rtol=1e-12, atol=0)
        assert_close(weighted[1], torch.zeros_like(raw).index_add(0, rows, repeated[1]), rtol=1e-10, atol=1e-15)


def zero_weight_removes_the_row(loss: Loss) -> None:
    """Also where that row's target is NaN."""
    raw, target = example(loss)
    weight, kept = weights(len(raw)), torch.arange(len(raw)) % 3 != 0
    weight[~kept] = 0.0
    if target.is_floating_point():
        target[~kept] = torch.nan
    for masked, without in zip(
        both_ways(loss, raw, target, sample_weight=weight),
        both_ways(loss, raw[kept], target[kept], sample_weight=weight[kept]),
        strict=True,
    ):
        assert_close(masked[0], without[0], rtol=1e-12, atol=0)
        assert_close(masked[1][kept], without[1], rtol=1e-12, atol=0)
        assert (masked[1][~kept] == 0).all()


def nothing_counted_is_zero(loss: Loss) -> None:
    """A batch of which every row is masked, and an empty one."""
    raw, target = example(loss)
    missing = torch.full_like(target, torch.nan) if target.is_floating_point() else target
    for value, gradient in [
        *both_ways(loss, raw, missing, sample_weight=torch.zeros(len(raw))),
        *both_ways(loss, raw[:0], target[:0]),
    ]:
        assert value == 0
        assert (gradient == 0).all()


def partition_adds_up(loss: Loss) -> None:
    """Micro-batches under the whole batch's normalizer give its loss and gradient."""
    raw, target = example(loss)
    weight = weights(len(raw))
    whole = both_ways(loss, raw, target, sample_weight=weight)
    parts = [
        both_ways(loss, raw[rows], target[rows], sample_weight=weight[rows], normalizer=weight.sum())
        for rows in torch.arange(len(raw)).split([1, 7, 0, 5, 11])
    ]
    for way, (value, gradient) in enumerate(whole):
        assert_close(sum(part[way][0] for part in parts), value, rtol=1e-12, atol=0)
        assert_close(torch.cat([part[way][1] for part in parts]), gradient, rtol=1e-10, atol=1e-15)


def order_does_not_matter(loss: Loss) -> None:
    raw, target = example(loss)
    weight, order = weights(len(raw)), torch.randperm(len(raw), generator=random(5))
    for straight, shuffled in zip(
        both_ways(loss, raw, target, sample_weight=weight),
        both_ways(loss, raw[order], target[order], sample_weight=weight[order]),
        strict=True,
    ):
        assert_close(shuffled[0], straight[0], rtol=1e-12, atol=0)
        assert_close(shuffled[1], straight[1][order], rtol=1e-10, atol=1e-15)


def finite_at_extremes(loss: Loss, dtype: torch.dtype) -> None:
    size = torch.tensor(_EXTREMES, dtype=dtype)
    scores = torch.cat([size, -size])
    raw, target = example(loss, 16 * len(scores), dtype=dtype)
    # Every extreme against sixteen targets; in a vector of scores the others lie at zero and at the other extreme.
    sign = torch.randint(-1, 2, raw.shape, generator=random(2)) if raw.dim() > 1 else torch.ones_like(raw)
    raw = (scores.repeat(16).reshape(-1, *[1] * (raw.dim() - 1)) * sign).to(dtype)
    assert loss.value(raw, target).isfinite().all()
    assert loss.gradient(raw, target).isfinite().all()
    assert loss.gradient(raw, target).dtype == dtype
    for value, gradient in both_ways(loss, raw, target):
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.dtype == dtype


def chord_lies_above(loss: Loss, one: Tensor, other: Tensor, target: Tensor, share: float) -> None:
    """Convexity between two raw outputs."""
    between = loss.value(share * one + (1 - share) * other, target)
    chord = share * loss.value(one, target) + (1 - share) * loss.value(other, target)
    assert (between <= chord + 1e-9 * (1 + chord.abs())).all()


def gradient_never_jumps(loss: Loss, one: Tensor, other: Tensor, target: Tensor) -> None:
    """Smoothness between two raw outputs: halving after halving, towards the larger change, until nothing is left."""
    low, high = torch.zeros_like(one), torch.ones_like(one)

    def gradient(share: Tensor) -> Tensor:
        return loss.gradient(one + share * (other - one), target)

    def change(start: Tensor, end: Tensor) -> Tensor:
        moved = (gradient(end) - gradient(start)).abs()
        return moved.sum(-1, keepdim=True) if loss.formula.event_dims else moved

    for _ in range(45):
        middle = 0.5 * (low + high)
        later = change(middle, high) > change(low, middle)
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    assert (change(low, high) < 1e-6).all()


def targets_of_every_kind(loss: Loss, target: Tensor, classes: int) -> list[Tensor]:
    """The targets, and for a loss of classes as many class probabilities."""
    if loss.facts.target is not None:
        return [target]
    scores = 2 * torch.randn(*target.shape, classes, dtype=torch.float64, generator=random(6))
    return [target, torch.softmax(scores, -1)]


def shapes_never_broadcast(loss: Loss) -> None:
    """Shapes that do not belong together are an error that names both."""
    raw, target = example(loss)
    for wrong_raw, wrong_target in [
        (raw, target.unsqueeze(-1)),
        (raw.unsqueeze(-1), target),
        (raw, target[:-1]),
        (raw[:1], target),
        (raw[0], target),
    ]:
        message = _shape_complaint(loss, wrong_raw, wrong_target)
        assert str(tuple(wrong_raw.shape)) in message
        assert str(tuple(wrong_target.shape)) in message


def _shape_complaint(loss: Loss, raw: Tensor, target: Tensor) -> str:
    """What the loss says; nothing if it takes them."""
    try:
        loss(raw, target)
    except ShapeError as error:
        return str(error)
    return ""


EVERY_PROPERTY = (
    gradient_is_that_of_value,
    gradient_is_symmetric_difference,
    gradient_of_the_mean,
    first_order_is_right,
    second_order_is_right,
    perfect_prediction_is_best,
    optimal_constant_is_optimal,
    integer_weight_repeats_the_row,
    zero_weight_removes_the_row,
    nothing_counted_is_zero,
    partition_adds_up,
    order_does_not_matter,
    shapes_never_broadcast,
)
