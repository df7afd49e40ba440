"""A loss as a node of PyTorch's graph: repeated and second backward passes, transforms, buffers, subclasses.

Whatever is asked of it, the answer is right or an error that says what to do; never is something silently detached.
"""

from __future__ import annotations

import inspect
import threading

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import lastlayer
from evaluation_cases import (
    CATALOG,
    KERNELS,
    Case,
    by_path,
    check_path,
    every_kernel,
    every_loss,
    example,
    masked,
    needs_compiler,
    needs_numba,
    positive_weight,
    wide_example,
)
from lastlayer import losses
from lastlayer.checks import InputError, ShapeError
from lastlayer.evaluation import evaluate, evaluate_with, mean_and_gradient
from loss_properties import random

# PyTorch's own compiler and forward mode still use what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WITH_NUMBERS = [name for name, loss in CATALOG.items() if loss.facts.target is not None]
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
ways = pytest.mark.parametrize("way", ["small", "weighted", "kernel"])


def _graph(name: str, way: str = "small", **options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Raw output, its loss by one of the ways that keep no graph of their own, and the plain loss."""
    dtype = torch.float32 if way == "kernel" else torch.float64
    raw, target = example(CATALOG[name], 2, 7, dtype=dtype)
    raw.requires_grad_()
    if way == "weighted":
        options["sample_weight"] = positive_weight(2, 7) * (torch.arange(7) % 3 != 0)
    formula = CATALOG[name].formula
    with evaluate_with(path="plain"):
        plain = evaluate(formula, raw, target, **options)
    if way == "kernel":
        with evaluate_with(path="kernel"):
            return raw, evaluate(formula, raw, target, **options), plain
    return raw, evaluate(formula, raw, target, **options), plain


def _skip_without_kernel(name: str, way: str) -> None:
    if way == "kernel" and (name not in KERNELS[:2] or lastlayer.evaluation.kernels.obstacle(CATALOG[name].formula, _ONE)):
        pytest.skip("one kernel stands for all")


_ONE = torch.zeros(1)


def _close(found: object, expected: object) -> None:
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


# Backward again, with another upstream gradient, and once more through the gradient.


@every_loss
@ways
@every_reduction
def test_backward_again_and_again(name, way, reduction):
    _skip_without_kernel(name, "" if reduction == "none" else way)
    if way == "kernel" and reduction == "none":
        pytest.skip("a kernel gives no single values")
    raw, loss, plain = _graph(name, way, reduction=reduction)
    upstream = torch.randn(loss.shape, dtype=loss.dtype, generator=random(7))
    expected = torch.autograd.grad(plain, raw, upstream, retain_graph=True)[0]
    for _ in range(3):
        _close(torch.autograd.grad(loss, raw, upstream, retain_graph=True)[0], expected)
        loss.backward(torch.ones_like(loss), retain_graph=True)
    times_three = 3 * torch.autograd.grad(plain, raw, torch.ones_like(plain))[0]
    _close(raw.grad, times_three)
    # What has been handed out is the caller's: it may be overwritten.
    raw.grad.zero_()
    loss.backward(torch.ones_like(loss))
    _close(raw.grad, times_three / 3)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1 / 3, 65536.0])
def test_an_upstream_gradient_costs_half_precision_nothing(name, dtype, size):
    """A scaled loss, whose scale float16 cannot hold, and one whose reciprocal bfloat16 rounds."""
    loss = CATALOG[name]
    case = masked(loss, dtype)
    found, plain, exact = (
        torch.autograd.grad(evaluate(loss.formula, raw, each.target, **each.options) * size, raw)[0].double()
        for raw, each, path in [
            (each.raw.clone().requires_grad_(), each, path)
            for each, path in [(case, "blockwise"), (case, "plain"), (case.doubled(), "plain")]
        ]
        if _wish(path)
    )
    unit = torch.finfo(dtype).eps * (exact.abs() + size / case.weight.sum())
    assert found.isfinite().all()
    held = exact.abs() < torch.finfo(dtype).max
    assert (((found - exact).abs() / unit)[held]).max() <= 2 * (((plain - exact).abs() / unit)[held]).max() + 1


def _wish(path: str) -> bool:
    return path in ("plain", "blockwise")


@every_loss
@pytest.mark.parametrize("way", ["small", "weighted"])
@every_reduction
def test_the_gradient_has_a_gradient(name, way, reduction):
    raw, loss, plain = _graph(name, way, reduction=reduction)
    upstream = torch.randn(loss.shape, dtype=loss.dtype, generator=random(7)).requires_grad_()
    direction = torch.randn(raw.shape, dtype=raw.dtype, generator=random(8))
    second = []
    for each in (loss, plain):
        (gradient,) = torch.autograd.grad(each, raw, upstream, create_graph=True)
        assert gradient.requires_grad
        second.append((gradient, *torch.autograd.grad((gradient * direction).sum(), [raw, upstream])))
    assert_close(second[0], second[1], rtol=1e-9, atol=1e-12)


@every_loss
@every_reduction
def test_many_upstream_gradients_at_once(name, reduction):
    raw, loss, plain = _graph(name, reduction=reduction)
    upstream = torch.randn(3, *loss.shape, dtype=loss.dtype, generator=random(7))
    for each in (loss, _graph(name, "weighted", reduction=reduction)[1]):
        if each is loss:
            found, expected = (
                torch.autograd.grad(one, raw, upstream, is_grads_batched=True, retain_graph=True)[0]
                for one in (loss, plain)
            )
            assert_close(found, expected, rtol=1e-9, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(
        lambda scores: evaluate(CATALOG[name].formula, scores, example(CATALOG[name], 2, 7, dtype=torch.float64)[1]),
        raw.detach(),
        vectorize=True,
    )
    assert jacobian.shape == raw.shape


@every_loss
def test_an_empty_gradient_has_a_gradient(name):
    raw, target = example(CATALOG[name], 0, dtype=torch.float64)
    raw.requires_grad_()
    for path in ("plain", "blockwise"):
        with evaluate_with(path=path):
            (gradient,) = torch.autograd.grad(evaluate(CATALOG[name].formula, raw, target), raw, create_graph=True)
        assert gradient.shape == raw.shape


# Transforms.


@every_loss
def test_forward_mode(name):
    loss = CATALOG[name]
    raw, target = example(loss, 6, dtype=torch.float64)
    direction = torch.randn(raw.shape, dtype=raw.dtype, generator=random(4))
    slope = (loss.gradient(raw, target) * direction).sum() / 6
    with forward_mode.dual_level():
        dual = forward_mode.make_dual(raw, direction)
        assert_close(forward_mode.unpack_dual(loss(dual, target)).tangent, slope)
        second = forward_mode.unpack_dual(loss.gradient(dual, target)).tangent
    assert_close(torch.autograd.functional.jvp(lambda scores: loss(scores, target), raw, direction)[1], slope)
    hessian = torch.func.hessian(lambda scores: loss(scores, target, normalizer=1.0))(raw)
    product = (hessian.flatten(0, raw.dim() - 1).flatten(1) @ direction.flatten()).reshape(raw.shape)
    assert_close(second, product, rtol=1e-6, atol=1e-9)
    assert_close(torch.func.jacrev(lambda scores: loss(scores, target))(raw), loss.gradient(raw, target) / 6)


@every_loss
def test_the_gradient_function_under_transforms(name):
    loss = CATALOG[name]
    raw, target = example(loss, 6, dtype=torch.float64)
    expected = loss.gradient(raw, target)
    assert_close(torch.func.vmap(loss.gradient)(raw, target), expected)
    assert_close(torch.compile(loss.gradient, backend="eager", fullgraph=True)(raw, target), expected)
    again = loss.gradient(raw.clone().requires_grad_(), target)
    assert again.requires_grad
    assert_close(again.detach(), expected)


@every_loss
def test_a_function_with_the_loss_in_it_compiles_whole(name):
    loss = CATALOG[name]
    raw, target = example(loss, 6, dtype=torch.float64)
    weight = positive_weight(6)

    def training_loss(scale: Tensor) -> Tensor:
        return loss(scale * raw, target, sample_weight=weight)

    found, expected = (
        torch.autograd.grad(function(scale), scale)[0]
        for function in (torch.compile(training_loss, backend="eager", fullgraph=True), training_loss)
        for scale in [torch.tensor(0.7, dtype=torch.float64, requires_grad=True)]
    )
    assert_close(found, expected)


@needs_compiler
def test_a_compiled_function_has_the_gradient():
    raw, target = wide_example(20, 8)
    function = torch.compile(lambda scores: losses.cross_entropy(2 * scores, target), fullgraph=True)
    found, expected = (
        torch.autograd.grad(each(scores), scores)[0]
        for each, scores in [
            (function, raw.clone().requires_grad_()),
            (lambda scores: losses.cross_entropy(2 * scores, target), raw.clone().requires_grad_()),
        ]
    )
    assert_close(found, expected)


def test_tracing_keeps_the_gradient():
    raw, target = example(CATALOG["squared_error"], 6)
    traced = torch.jit.trace(lambda scores: losses.squared_error(scores, target), raw, check_trace=False)
    scores = (raw + 1).requires_grad_()
    assert_close(torch.autograd.grad(traced(scores), scores)[0], 2 * (scores.detach() - target) / 6)


@every_loss
def test_of_a_subclass_the_subclass_comes_back(name):
    class Marked(Tensor):
        pass

    raw, target = example(CATALOG[name], 6, dtype=torch.float64)
    marked = raw.as_subclass(Marked).requires_grad_()
    loss = CATALOG[name](marked, target)
    assert isinstance(loss, Marked)
    (gradient,) = torch.autograd.grad(loss, marked)
    assert_close(torch.Tensor(gradient), CATALOG[name].gradient(raw, target) / 6)


@every_loss
def test_behind_a_layer_under_autocast(name):
    loss = CATALOG[name]
    raw, target = example(loss, 6)
    features = raw if raw.dim() == 2 else raw.unsqueeze(-1)
    layer = torch.nn.Linear(features.shape[-1], features.shape[-1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = layer(features).reshape(raw.shape)
        assert scores.dtype == torch.bfloat16
        value = loss(scores, target)
    assert value.dtype == torch.float32
    value.backward()
    found = layer.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluate_with(path="plain"):
        loss(layer(features).reshape(raw.shape), target).backward()
    assert_close(found, layer.weight.grad, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_under_activation_checkpointing(reentrant, reduction):
    raw, target = wide_example(20, 8)
    scores = raw.requires_grad_()

    def total(scores: Tensor) -> Tensor:
        return losses.cross_entropy(2 * scores, target, sample_weight=torch.ones(8), reduction=reduction).sum()

    found = torch.autograd.grad(total(scores), scores)[0]
    checkpoint(total, scores, use_reentrant=reentrant).backward()
    assert_close(scores.grad, found)


def test_saved_tensors_may_be_stored_elsewhere():
    raw, target = wide_example(20, 8)
    raw.requires_grad_()
    expected = torch.autograd.grad(losses.cross_entropy(raw, target), raw)[0]
    for options in ({}, {"sample_weight": torch.ones(8)}):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
            loss = losses.cross_entropy(raw, target, **options)
        assert_close(torch.autograd.grad(loss, raw)[0], expected)


def test_in_inference_mode_and_of_its_tensors():
    raw, target = wide_example(20, 8)
    expected = losses.cross_entropy(raw, target)
    with torch.inference_mode():
        assert_close(losses.cross_entropy(raw, target), expected)
        assert_close(mean_and_gradient(CATALOG["cross_entropy"].formula, raw, target)[0], expected)
        frozen = target.clone()
    scores = raw.clone().requires_grad_()
    for reduction in ("mean", "sum", "none"):
        losses.cross_entropy(scores, frozen, reduction=reduction).sum().backward()
    assert scores.grad.isfinite().all()


# Whatever needs a gradient gets one.


@pytest.mark.parametrize("name", WITH_NUMBERS)
@every_reduction
def test_a_target_that_needs_a_gradient_gets_it(name, reduction):
    loss = CATALOG[name]
    raw, target = example(loss, 6, dtype=torch.float64)
    _gets_its_gradient(
        lambda wanted: evaluate(loss.formula, raw, wanted, reduction=reduction), target, loss.value, (raw,)
    )


def _gets_its_gradient(function, operand: Tensor, value, before: tuple[Tensor, ...]) -> None:
    """By symmetric differences of the sum of what the function gives."""
    operand = operand.clone().requires_grad_()
    result = function(operand)
    assert result.requires_grad
    (gradient,) = torch.autograd.grad(result.sum(), operand)
    step, direction = 1e-6, torch.rand(operand.shape, dtype=operand.dtype, generator=random(9))
    with torch.no_grad():
        ahead, behind = (function(operand + sign * step * direction).sum() for sign in (1, -1))
    assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
