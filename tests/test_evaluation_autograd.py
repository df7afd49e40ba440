"""A loss as a node of PyTorch's graph: repeated and second backward passes, transforms, buffers, subclasses.

Whatever is asked of it, the answer is right or an error that says what to do; never is something silently detached.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import lastlayer
from evaluation_cases import (
    CATALOG,
    KERNELS,
    Case,
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
#: Those whose targets may need a gradient: ranks may not.
DIFFERENTIABLE = [name for name in WITH_NUMBERS if CATALOG[name].facts.example(1)[1].is_floating_point()]
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
weighted_or_not = pytest.mark.parametrize("weighted", [False, True], ids=["plain rows", "weighted rows"])


def _graph(name: str, weighted: bool, reduction: str, *, path: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Raw output, its loss as the library chooses to evaluate it (or as told), and the plain loss."""
    raw, target = example(CATALOG[name], 2, 7, dtype=torch.float32 if path == "kernel" else torch.float64)
    raw.requires_grad_()
    weight = positive_weight(2, 7) * (torch.arange(7) % 3 != 0) if weighted else None
    options = {"sample_weight": weight, "reduction": reduction}
    with evaluate_with(path="plain"):
        plain = evaluate(CATALOG[name].formula, raw, target, **options)
    with nullcontext() if path is None else evaluate_with(path=path):
        return raw, evaluate(CATALOG[name].formula, raw, target, **options), plain


@pytest.fixture
def fresh_compiler():
    """PyTorch counts how often it compiles the same code for another loss, and stops at the eighth."""
    torch.compiler.reset()


def _backward_again_and_again(raw: Tensor, loss: Tensor, plain: Tensor) -> None:
    upstream = torch.randn(loss.shape, dtype=loss.dtype, generator=random(7))
    ones = torch.ones_like(loss)
    scaled, expected = (torch.autograd.grad(plain, raw, each, retain_graph=True)[0] for each in (upstream, ones))
    for _ in range(3):
        assert_close(torch.autograd.grad(loss, raw, upstream, retain_graph=True)[0], scaled, rtol=1e-5, atol=1e-6)
        loss.backward(ones, retain_graph=True)
    assert_close(raw.grad, 3 * expected, rtol=1e-5, atol=1e-6)
    # What has been handed out is the caller's, who may overwrite it.
    raw.grad.zero_()
    loss.backward(ones)
    assert_close(raw.grad, expected, rtol=1e-5, atol=1e-6)


# Backward again, with another upstream gradient, and once more through the gradient.


@every_loss
@weighted_or_not
@every_reduction
def test_backward_again_and_again(name, weighted, reduction):
    _backward_again_and_again(*_graph(name, weighted, reduction))


@needs_numba
@pytest.mark.parametrize("name", KERNELS[:2])
@weighted_or_not
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_backward_again_and_again_by_the_kernel(name, weighted, reduction):
    _backward_again_and_again(*_graph(name, weighted, reduction, path="kernel"))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1 / 3, 65536.0])
def test_half_precision_loses_nothing_to_a_scaled_loss(name, dtype, scale):
    """A scale that bfloat16 rounds, and one that float16 cannot hold."""
    loss, case = CATALOG[name], masked(CATALOG[name], dtype)

    def gradient(path: str, case: Case) -> Tensor:
        raw = case.raw.detach().requires_grad_()
        with evaluate_with(path=path):
            value = loss(raw, case.target, **case.options)
        return torch.autograd.grad(scale * value, raw)[0].double()

    exact = gradient("plain", case.doubled())
    unit = torch.finfo(dtype).eps * (exact.abs() + scale / case.weight.sum())
    held = exact.abs() < torch.finfo(dtype).max
    error, plain_error = (((gradient(path, case) - exact).abs() / unit)[held].max() for path in ("blockwise", "plain"))
    assert error <= 2 * plain_error + 1


@every_loss
@weighted_or_not
@every_reduction
def test_the_gradient_has_a_gradient(name, weighted, reduction):
    raw, loss, plain = _graph(name, weighted, reduction)
    upstream = torch.randn(loss.shape, dtype=loss.dtype, generator=random(7)).requires_grad_()
    direction = torch.randn(raw.shape, dtype=raw.dtype, generator=random(8))
    found, expected = (
        (gradient, *torch.autograd.grad((gradient * direction).sum(), [raw, upstream]))
        for each in (loss, plain)
        for gradient in torch.autograd.grad(each, raw, upstream, create_graph=True)
    )
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every_loss
@weighted_or_not
@every_reduction
def test_many_upstream_gradients_at_once(name, weighted, reduction):
    """As ``torch.autograd.functional.jacobian(vectorize=True)`` asks for them."""
    raw, loss, plain = _graph(name, weighted, reduction)
    upstream = torch.randn(3, *loss.shape, dtype=loss.dtype, generator=random(7))
    found, expected = (torch.autograd.grad(each, raw, upstream, is_grads_batched=True) for each in (loss, plain))
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every_loss
@weighted_or_not
@every_reduction
def test_a_sample_without_a_batch(name, weighted, reduction):
    raw, target = example(CATALOG[name], dtype=torch.float64)
    options = {"sample_weight": torch.tensor(0.3)} if weighted else {}
    scores = raw.requires_grad_()
    loss = evaluate(CATALOG[name].formula, scores, target, reduction=reduction, **options)
    (gradient,) = torch.autograd.grad(loss, scores)
    share = 0.3 if weighted and reduction != "mean" else 1.0
    assert loss.shape == ()
    assert_close(loss, share * CATALOG[name].value(raw, target), rtol=1e-6, atol=1e-9)
    assert_close(gradient, share * CATALOG[name].gradient(raw.detach(), target), rtol=1e-6, atol=1e-9)


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
@pytest.mark.usefixtures("fresh_compiler")
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
@pytest.mark.usefixtures("fresh_compiler")
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


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
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


def _gets_its_gradient(function: Callable[[Tensor], Tensor], operand: Tensor) -> None:
    """The gradient with respect to the operand, by symmetric differences."""
    operand = operand.clone().requires_grad_()
    result = function(operand)
    assert result.requires_grad
    (gradient,) = torch.autograd.grad(result.sum(), operand)
    step, direction = 1e-6, torch.rand(operand.shape, dtype=operand.dtype, generator=random(9)) - 0.5
    with torch.no_grad():
        ahead, behind = (function(operand + side * step * direction).sum() for side in (1, -1))
    assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@every_reduction
def test_a_target_that_needs_a_gradient_gets_it(name, reduction):
    raw, target = example(CATALOG[name], 6, dtype=torch.float64)
    formula = CATALOG[name].formula
    if CATALOG[name].facts.name == "poisson_nll":
        target = target + 0.5  # log y! has its derivative at 0 from one side only
    _gets_its_gradient(lambda wanted: evaluate(formula, raw, wanted, reduction=reduction), target)
    assert CATALOG[name].gradient(raw, target.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("name", [name for name in CATALOG if name not in WITH_NUMBERS])
@every_reduction
def test_class_probabilities_that_need_a_gradient_get_it(name, reduction):
    raw, _ = wide_example(5, 6, dtype=torch.float64)
    shares = torch.softmax(torch.randn(6, 5, dtype=torch.float64, generator=random(6)), -1)
    formula = CATALOG[name].formula
    _gets_its_gradient(lambda wanted: evaluate(formula, raw, wanted, reduction=reduction), shares)


@every_loss
@every_reduction
def test_weights_and_a_normalizer_that_need_a_gradient_get_it(name, reduction):
    raw, target = example(CATALOG[name], 6, dtype=torch.float64)
    for scores in (raw, raw.clone().requires_grad_()):

        def loss(scores: Tensor = scores, **options: Tensor) -> Tensor:
            return evaluate(CATALOG[name].formula, scores, target, reduction=reduction, **options)

        _gets_its_gradient(lambda weight: loss(sample_weight=weight), positive_weight(6))
        if reduction == "mean":
            _gets_its_gradient(lambda total: loss(normalizer=total), torch.tensor(3.0, dtype=torch.float64))


def _tensor_options() -> list[tuple[str, str]]:
    """Every option of a loss that is a tensor."""
    return [
        (name, option.name)
        for name, loss in CATALOG.items()
        for option in inspect.signature(type(loss)).parameters.values()
        if "Tensor" in str(option.annotation)
    ]


@pytest.mark.parametrize(("name", "option"), _tensor_options())
@every_reduction
def test_an_option_that_needs_a_gradient_gets_it(name, option, reduction):
    raw, target = wide_example(5, 6, dtype=torch.float64)
    if name in WITH_NUMBERS:
        target = torch.rand(6, 5, dtype=torch.float64, generator=random(6))
    for scores in (raw, raw.clone().requires_grad_()):
        _gets_its_gradient(
            lambda given: losses.by_name(name, **{option: given}, reduction=reduction)(scores, target),  # noqa: B023
            positive_weight(5),
        )
    assert losses.by_name(name, **{option: torch.ones(5, requires_grad=True)}).gradient(raw, target).requires_grad


def test_some_option_is_a_tensor():
    assert {("cross_entropy", "weight"), ("binary_cross_entropy", "pos_weight")} <= set(_tensor_options())


# What is overwritten between the loss and its backward pass.


@pytest.mark.parametrize("what", ["target", "sample_weight", "weight", "nothing"])
@pytest.mark.parametrize("again", [False, True], ids=["single values", "second order"])
def test_an_operand_that_changed_is_an_error(what, again):
    raw, target = wide_example(5, 6)
    operands = {"target": target, "sample_weight": torch.ones(6), "weight": torch.ones(5)}
    raw.requires_grad_()
    loss = losses.cross_entropy(raw, **operands, reduction="mean" if again else "none")
    if what == "nothing":
        torch.autograd.grad(loss.sum(), raw, create_graph=again)
        return
    operands[what].zero_()
    with pytest.raises(InputError, match=r"was modified in place between the loss and its backward pass.*Fix: "):
        torch.autograd.grad(loss.sum(), raw, create_graph=again)


def test_a_target_that_changed_matters_only_where_it_is_read_again():
    raw, target = wide_example(5, 6)
    raw.requires_grad_()
    (expected,) = torch.autograd.grad(losses.cross_entropy(raw, target), raw)
    # Written so, PyTorch's own function of the same loss, which runs for so few numbers, is not the one that runs.
    for options in ({"z_loss": 1e-30}, {"sample_weight": torch.ones(6)}):
        loss = losses.cross_entropy(raw, target, **options)
        kept = target.clone()
        target.zero_()
        assert_close(torch.autograd.grad(loss, raw, retain_graph=True)[0], expected)
        with pytest.raises(InputError, match="modified in place"):
            torch.autograd.grad(loss, raw, create_graph=True)
        target.copy_(kept)


# A buffer for the gradient.

buffered = pytest.mark.parametrize(
    "path", ["blockwise", pytest.param("kernel", marks=needs_numba), pytest.param("compiled", marks=needs_compiler)]
)


def _in_buffer(path: str, raw: Tensor, buffer: Tensor, **options: object) -> Tensor:
    with evaluate_with(path=path, gradient_buffer=buffer):
        return losses.squared_error(raw, torch.zeros_like(raw), **options)


def _numbers(*shape: int) -> tuple[Tensor, Tensor]:
    """A leaf, and a raw output that depends on it."""
    leaf = torch.randn(*(shape or (6,)), generator=random(5)).requires_grad_()
    return leaf, 1.0 * leaf


@buffered
def test_the_gradient_lies_in_the_buffer(path):
    leaf, raw = _numbers()
    buffer = torch.full((6,), torch.nan)
    (gradient,) = torch.autograd.grad(_in_buffer(path, raw, buffer), raw)
    assert gradient.data_ptr() == buffer.data_ptr()
    assert_close(buffer, 2 * leaf.detach() / 6)


def test_of_single_values_the_gradient_lies_in_the_buffer_after_backward():
    leaf, raw = _numbers()
    buffer = torch.zeros(6)
    loss = _in_buffer("blockwise", raw, buffer, reduction="none")
    assert (buffer == 0).all()
    (gradient,) = torch.autograd.grad(loss.sum(), raw)
    assert gradient.data_ptr() == buffer.data_ptr()
    assert_close(buffer, 2 * leaf.detach())


@buffered
def test_the_gradient_over_the_raw_output(path):
    leaf, raw = _numbers()
    loss = _in_buffer(path, raw, raw)
    assert_close(raw.detach(), 2 * leaf.detach() / 6)
    loss.backward()
    assert_close(leaf.grad, 2 * leaf.detach() / 6)


@buffered
def test_autograd_notices_a_raw_output_that_is_still_needed(path):
    leaf, _ = _numbers()
    loss = _in_buffer(path, raw := leaf.tanh(), raw)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@buffered
def test_a_second_loss_in_the_buffer_before_the_first_backward(path):
    buffer = torch.empty(6)
    (leaf, raw), (other, raw_of_other) = _numbers(), _numbers()
    first, second = _in_buffer(path, raw, buffer), _in_buffer(path, 3.0 * raw_of_other, buffer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.backward()
    second.backward()
    assert_close(other.grad, 9 * 2 * other.detach() / 6)
    assert leaf.grad is None


@needs_numba
def test_the_softmax_kernel_tells_autograd_what_it_overwrites():
    scores, target = wide_example(101, 6)
    buffer = torch.empty_like(scores)
    first, second = (_leaf_and_scores(scores) for _ in range(2))
    with evaluate_with(path="kernel", gradient_buffer=buffer):
        lost, kept = (losses.cross_entropy(raw, target) for _, raw in (first, second))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        lost.backward()
    kept.backward()
    assert_close(second[0].grad, CATALOG["cross_entropy"].gradient(scores, target) / 6)
    leaf = scores.clone().requires_grad_()
    raw = leaf.tanh()
    with evaluate_with(path="kernel", gradient_buffer=raw):
        loss = losses.cross_entropy(raw, target)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def _leaf_and_scores(scores: Tensor) -> tuple[Tensor, Tensor]:
    leaf = scores.clone().requires_grad_()
    return leaf, 1.0 * leaf


@pytest.mark.parametrize("weighted", [False, True])
def test_single_values_share_a_buffer_and_stay_right(weighted):
    """Their gradients come in backward, where a buffer that was written since is left alone."""
    leaf, raw = _numbers()
    buffer = torch.empty(6)
    options = {"sample_weight": torch.full((6,), 2.0)} if weighted else {}
    first = _in_buffer("blockwise", raw, buffer, reduction="none", **options)
    second = _in_buffer("blockwise", 3.0 * raw, buffer, reduction="none", **options)
    (first.sum() + second.sum()).backward()
    assert_close(leaf.grad, (1 + 9) * 2 * leaf.detach() * (2 if weighted else 1))

    _, raw = _numbers()
    loss = _in_buffer("blockwise", raw, buffer, reduction="none")
    one, two = (torch.autograd.grad(times * loss.sum(), raw, retain_graph=True)[0] for times in (1.0, 2.0))
    assert_close(two, 2 * one)


def test_a_gradient_of_a_gradient_needs_the_raw_output():
    _, raw = _numbers()
    loss = _in_buffer("blockwise", raw, raw)
    with pytest.raises(InputError, match=r"the raw output it needs was overwritten.*Fix: "):
        torch.autograd.grad(loss, raw, create_graph=True)
    _, raw = _numbers()
    loss = _in_buffer("blockwise", raw, torch.empty(6))
    assert torch.autograd.grad(loss, raw, create_graph=True)[0].requires_grad


@pytest.mark.parametrize("buffer", [torch.empty(3, 2), torch.empty(6, dtype=torch.float64), torch.empty(6).to("meta")])
@every_reduction
def test_a_buffer_that_does_not_fit_names_both(buffer, reduction):
    _, raw = _numbers()
    with pytest.raises(ShapeError, match=r"gradient_buffer is .*; raw is .*Fix: torch.empty_like\(raw\)") as caught:
        _in_buffer("blockwise", raw, buffer, reduction=reduction)
    assert str(tuple(buffer.shape)) in str(caught.value)
    assert f"{buffer.dtype} on {buffer.device}" in str(caught.value)
    assert "raw is (6,), torch.float32 on cpu" in str(caught.value)


@pytest.mark.parametrize("place", ["transposed", "shifted"])
def test_a_buffer_that_lies_across_the_raw_output_is_an_error(place):
    memory = torch.randn(5, 4, generator=random(5))
    raw = memory[:4]
    buffer = raw.t() if place == "transposed" else memory[1:]
    with pytest.raises(InputError, match=r"gradient_buffer shares memory with raw, in another order.*Fix: "):
        _in_buffer("blockwise", raw.requires_grad_(), buffer)
    # Neighbors in one memory are no trouble.
    both = torch.randn(2, 6, generator=random(5))
    raw = both[0].requires_grad_()
    (gradient,) = torch.autograd.grad(_in_buffer("blockwise", raw, both[1].detach()), raw)
    assert_close(both[1].detach(), gradient)


def test_a_buffer_in_another_order_of_memory():
    leaf, raw = _numbers(4, 5)
    buffer = torch.empty(5, 4).t()
    torch.autograd.grad(_in_buffer("blockwise", raw, buffer), raw)
    assert_close(buffer, 2 * leaf.detach() / 20)
    with pytest.raises(InputError, match="'kernel' was asked for and cannot serve: gradient_buffer is not contiguous"):
        _in_buffer("kernel", raw, buffer)


# What is asked for holds inside the block, on this thread.


def test_wishes_nest_and_end():
    raw = torch.zeros(6)

    def chosen() -> str:
        return lastlayer.explain("squared_error", raw).path

    assert chosen() == "blockwise"
    with evaluate_with(path="plain"):
        with evaluate_with(path="compiled"):
            assert chosen() == "compiled"
        assert chosen() == "plain"
        with evaluate_with(gradient_buffer=torch.empty(6)):
            assert chosen() == "blockwise"
        with pytest.raises(KeyError), evaluate_with(path="compiled"):
            raise KeyError
        assert chosen() == "plain"
    assert chosen() == "blockwise"


def test_threads_do_not_see_each_others_wishes():
    raw, seen = torch.zeros(6), []
    thread = threading.Thread(target=lambda: seen.append(lastlayer.explain("squared_error", raw).path))
    with evaluate_with(path="plain"):
        thread.start()
        thread.join()
    assert seen == ["blockwise"]


@every_loss
def test_backward_reads_no_value_on_the_host(name):
    """On the meta device there is no value to read: whatever synchronizes with the device fails."""
    raw, target = (tensor.to("meta") for tensor in example(CATALOG[name], 6))
    raw.requires_grad_()
    for options in ({}, {"sample_weight": torch.ones(6, device="meta")}, {"reduction": "none"}):
        evaluate(CATALOG[name].formula, raw, target, **options).sum().backward()
        assert raw.grad.shape == raw.shape
