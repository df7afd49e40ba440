"""The last layer and its loss in one: the same loss and gradients as one after the other, in less memory."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import lastlayer
from evaluation_cases import CATALOG, Allocations, every_loss, example, needs_numba, positive_weight
from head_cases import CASES, every_case
from lastlayer import heads, losses
from lastlayer.checks import InputError, KindError, LastLayerError, ShapeError
from lastlayer.evaluation import blockwise, evaluate, evaluate_with, fused_linear, paths
from loss_properties import random

# PyTorch's own compiler and forward mode still use what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WIDTH = 6
#: Rows at a time: one, a number that divides no batch here, all of them.
budgets = pytest.mark.parametrize("rows", [1, 3, None], ids=["row by row", "ragged", "at once"])


class Layer:
    """A last layer before a loss: features, weight and bias, and a target for what comes out."""

    def __init__(
        self,
        loss: losses.Loss,
        *batch: int,
        outputs: int = 3,
        dtype: torch.dtype = torch.float64,
        with_bias: bool = True,
    ) -> None:
        if loss.formula.event_dims:
            raw, self.target = example(loss, *batch, dtype=dtype)
            outputs = raw.shape[-1]
        else:
            _, self.target = example(loss, *batch, outputs, dtype=dtype)
        self.loss = loss
        self.features = self._random(*batch, WIDTH, dtype=dtype)
        self.weight = self._random(outputs, WIDTH, dtype=dtype)
        self.bias = self._random(outputs, dtype=dtype) if with_bias else None

    @staticmethod
    def _random(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=random(sum(shape))).to(dtype).requires_grad_()

    @property
    def parts(self) -> list[Tensor]:
        """What may need a gradient."""
        parts = (self.features, self.weight, self.bias)
        return [part for part in parts if part is not None and part.requires_grad]

    def budget(self, rows: int | None) -> int | None:
        return None if rows is None else rows * self.weight.shape[0] * self.weight.element_size()

    def fused(self, rows: int | None = None, **options: Any) -> Tensor:
        return lastlayer.fused_linear(
            self.loss,
            self.features,
            self.weight,
            self.target,
            bias=self.bias,
            byte_budget=self.budget(rows),
            **options,
        )

    def plain(self, **options: Any) -> Tensor:
        with evaluate_with(path="plain"):
            return evaluate(self.loss.formula, F.linear(self.features, self.weight, self.bias), self.target, **options)

    def gradients(self, value: Tensor, upstream: float = 1.0, **options: Any) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, self.parts, torch.full_like(value, upstream), **options)

    def check(self, rows: int | None = None, *, rtol: float = 1e-9, **options: Any) -> None:
        """Value and gradients are those of one after the other."""
        found, expected = self.fused(rows, **options), self.plain(**options)
        assert_close(found, expected, rtol=rtol, atol=1e-12)
        assert_close(self.gradients(found), self.gradients(expected), rtol=rtol, atol=1e-12)

    def in_float64(self) -> Layer:
        """The same numbers."""
        other = object.__new__(Layer)
        other.loss = self.loss
        other.target = self.target.double() if self.target.is_floating_point() else self.target
        other.features, other.weight = (part.detach().double().requires_grad_() for part in self.parts[:2])
        other.bias = None if self.bias is None else self.bias.detach().double().requires_grad_()
        return other


# The same as one after the other.


@every_loss
@budgets
@pytest.mark.parametrize("with_bias", [True, False], ids=["with a bias", "without"])
@pytest.mark.parametrize("batch", [(23,), (4, 5), ()], ids=str)
def test_is_the_layer_and_the_loss(name, rows, with_bias, batch):
    layer = Layer(CATALOG[name], *batch, with_bias=with_bias)
    layer.check(rows)
    layer.check(rows, reduction="sum")
    layer.check(rows, reduction="none")
    layer.check(rows, normalizer=7.0)
    layer.check(rows, sample_weight=positive_weight(*batch))
    with torch.no_grad():
        assert_close(layer.fused(rows), layer.plain(), rtol=1e-9, atol=1e-12)


@every_loss
@budgets
def test_with_weights_and_masks(name, rows):
    layer = Layer(CATALOG[name], 4, 5)
    kept = torch.arange(20).view(4, 5) % 3 != 0
    layer.check(rows, sample_weight=positive_weight(4))
    layer.check(rows, sample_weight=kept)
    if layer.loss.formula.event_dims == 0:
        layer.check(rows, sample_weight=positive_weight(4, 5, 3))
    if layer.target.is_floating_point():
        layer.target[~kept] = torch.nan
    layer.check(rows, sample_weight=positive_weight(4, 5) * kept)
    layer.check(rows, sample_weight=torch.zeros(4, 5))
    assert layer.fused(rows, sample_weight=torch.zeros(4, 5)) == 0


@every_case
@budgets
@pytest.mark.parametrize("batch", [(23,), (4, 5)], ids=str)
def test_of_every_head(case, rows, batch):
    head = case.head
    features, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=random(9)).requires_grad_()
        for shape in ((*batch, WIDTH), (head.raw_size, WIDTH), (head.raw_size,))
    )
    target = case.targets(*batch)
    for options in ({}, {"sample_weight": positive_weight(*batch)}, {"normalizer": 3.0}, {"reduction": "sum"}):
        found = lastlayer.fused_linear(
            head, features, weight, target, bias=bias, byte_budget=None if rows is None else rows * 64, **options
        )
        expected = head.loss(F.linear(features, weight, bias), target, **options)
        assert_close(found, expected, rtol=1e-9, atol=1e-12)
        parts = (features, weight, bias)
        assert_close(torch.autograd.grad(found, parts), torch.autograd.grad(expected, parts), rtol=1e-9, atol=1e-12)


def test_every_head_is_among_the_cases():
    assert {type(case.head) for case in CASES.values()} == set(heads.catalog().values())


@pytest.mark.parametrize(
    "loss",
    [
        losses.CrossEntropy(label_smoothing=0.1),
        losses.CrossEntropy(ignore_index=2),
        losses.CrossEntropy(positive_weight(5), ignore_index=1, z_loss=0.01),
        losses.CrossEntropy(soft_cap=3.0),
        losses.BinaryCrossEntropy(positive_weight(3)),
        losses.BinaryCrossEntropy(pos_weight=positive_weight(3)),
        losses.BinaryCrossEntropy(pos_weight=positive_weight(5, 3)),
        losses.Huber(delta=0.3),
        losses.Focal(gamma=3.0, alpha=0.25),
    ],
    ids=str,
)
@budgets
def test_with_options_of_the_loss(loss, rows):
    layer = Layer(loss, 4, 5)
    layer.check(rows)
    layer.check(rows, sample_weight=positive_weight(4))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"label_smoothing": 0.1, "ignore_index": 2}),
        ("binary_cross_entropy", {"pos_weight": positive_weight(3)}),
        ("huber", {"delta": 0.3}),
        ("quantile", {"level": 0.9}),
        ("squared_error", {}),
    ],
)
def test_options_by_the_name_of_the_loss(name, options):
    layer = Layer(losses.by_name(name, **options), 4, 5)
    by_object = layer.fused(3)
    layer.loss = name
    assert_close(layer.fused(3, **options), by_object, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name, loss in CATALOG.items() if loss.facts.target is None])
@budgets
def test_class_probabilities(name, rows):
    layer = Layer(CATALOG[name], 4, 5)
    layer.target = torch.softmax(torch.randn(4, 5, 5, dtype=torch.float64, generator=random(6)), -1)
    layer.check(rows, sample_weight=positive_weight(4, 5))


def test_the_reduction_of_the_module_holds_unless_told_otherwise():
    layer = Layer(losses.SquaredError(reduction="sum"), 23)
    assert_close(layer.fused(3), layer.plain(reduction="sum"))
    assert_close(layer.fused(3, reduction="mean"), layer.plain())
    assert layer.fused(reduction="none").shape == (23, 3)


@every_loss
def test_an_empty_batch(name):
    for batch in ((0,), (3, 0)):
        layer = Layer(CATALOG[name], *batch)
        value = layer.fused()
        assert value == 0
        for part, gradient in zip(layer.parts, layer.gradients(value), strict=True):
            assert gradient.shape == part.shape
            assert (gradient == 0).all()


@pytest.mark.parametrize(("rows", "width", "outputs"), [(4, 0, 3), (4, 6, 0), (0, 6, 3)])
def test_an_axis_of_length_zero(rows, width, outputs):
    features, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=random()).requires_grad_()
        for shape in ((rows, width), (outputs, width), (outputs,))
    )
    target = torch.zeros(rows, outputs, dtype=torch.float64)
    found = lastlayer.fused_linear("squared_error", features, weight, target, bias=bias)
    expected = losses.squared_error(F.linear(features, weight, bias), target)
    assert_close(found, expected)
    parts = (features, weight, bias)
    assert_close(torch.autograd.grad(found, parts), torch.autograd.grad(expected, parts))


@budgets
def test_in_other_orders_of_memory(rows):
    layer = Layer(CATALOG["cross_entropy"], 4, 5)
    with torch.no_grad():
        layer.features, layer.weight = (
            part.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
            for part in (layer.features, layer.weight)
        )
        layer.target = layer.target.t().contiguous().t()
    layer.check(rows, sample_weight=positive_weight(5, 4).t())
    layer.features = layer.features.detach()[:1].expand(4, 5, WIDTH).requires_grad_()
    layer.check(rows)


@every_loss
def test_micro_batches_add_up(name):
    layer = Layer(CATALOG[name], 24)
    weight = positive_weight(24)
    total_weight = weight.sum() * (1 if layer.loss.formula.event_dims else 3)
    whole = layer.gradients(layer.fused(5, sample_weight=weight))
    total = [torch.zeros_like(part) for part in layer.parts]
    features, target = layer.features, layer.target
    for rows in torch.arange(24).split([1, 7, 0, 5, 11]):
        layer.features, layer.target = features.detach()[rows].requires_grad_(), target[rows]
        parts = layer.gradients(layer.fused(3, sample_weight=weight[rows], normalizer=total_weight))
        total[0][rows] += parts[0]
        total[1] += parts[1]
        total[2] += parts[2]
    assert_close(tuple(total), whole, rtol=1e-9, atol=1e-12)


# Lower precision.


def _distance(found: Tensor, exact: Tensor) -> float:
    """How far off, as a share of the whole."""
    return ((found.double() - exact).norm() / exact.norm()).item()


def _check_bound(layer: Layer, found: tuple[Tensor, ...], plain: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    """Twice the plain error, a rounding in this dtype, and a few of the float32 sums."""
    slack = torch.finfo(layer.weight.dtype).eps + 4 * torch.finfo(torch.float32).eps
    for what, one, other, truth in zip(("features", "weight", "bias"), found, plain, exact, strict=True):
        assert one.dtype == layer.weight.dtype
        error, plain_error = _distance(one, truth), _distance(other, truth)
        assert error <= 2 * plain_error + slack, f"{what}: {error:.3g}, plainly {plain_error:.3g}"


@every_loss
@budgets
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_keeps_the_bound(name, rows, dtype):
    layer = Layer(CATALOG[name], 4, 5, dtype=dtype)
    for options in ({}, {"sample_weight": positive_weight(4, 5)}):
        exact = layer.in_float64().plain(**options)
        found, plain = layer.fused(rows, **options), layer.plain(**options)
        assert found.dtype == torch.float32
        slack = 8 * torch.finfo(torch.float32).eps * (exact.abs() + 1)
        assert (found - exact).abs() <= 2 * (plain - exact).abs() + slack
        exact_gradients = layer.in_float64()
        exact_gradients = exact_gradients.gradients(exact_gradients.plain(**options))
        _check_bound(layer, layer.gradients(found), layer.gradients(plain), exact_gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_over_many_chunks_half_precision_adds_up_in_float32(dtype):
    layer = Layer(CATALOG["cross_entropy"], 600, dtype=dtype)
    wide = layer.in_float64()
    exact = wide.gradients(wide.plain())
    plain = layer.gradients(layer.plain())
    for rows in (1, 7, 149, 150, 600):
        _check_bound(layer, layer.gradients(layer.fused(rows)), plain, exact)
    # Added up in half precision, the same sum is beyond the bound.
    raw = wide.features @ wide.weight.t() + wide.bias
    of_raw = (torch.softmax(raw, -1) - F.one_hot(layer.target, 5)).detach() / 600
    total = torch.zeros_like(layer.weight)
    with torch.no_grad():
        for row in range(600):
            total += (of_raw[row].unsqueeze(-1) * wide.features[row]).to(dtype)
    with pytest.raises(AssertionError, match="weight"):
        _check_bound(layer, (plain[0], total, plain[2]), plain, exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1 / 3, 1024.0, 65536.0])
def test_half_precision_under_a_scaled_loss(dtype, scale):
    layer = Layer(CATALOG["cross_entropy"], 20, dtype=dtype)
    wide = layer.in_float64()
    exact = wide.gradients(wide.plain(), scale)
    if max(gradient.abs().max() for gradient in exact) > torch.finfo(dtype).max:
        return
    _check_bound(layer, layer.gradients(layer.fused(3), scale), layer.gradients(layer.plain(), scale), exact)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@every_loss
def test_under_autocast_as_the_layer_is(name, given):
    """Features come in bfloat16 from the layer before, weights are float32; float64 stays as it is."""
    layer = Layer(CATALOG[name], 20, dtype=torch.float64 if given == torch.float64 else torch.float32)
    with torch.no_grad():
        layer.features = layer.features.to(given).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, plain = layer.fused(3), layer.plain()
    assert found.dtype == plain.dtype
    tolerance = 1e-9 if given == torch.float64 else 0.05
    assert_close(found, plain, rtol=tolerance, atol=tolerance)
    for one, other, part in zip(layer.gradients(found), layer.gradients(plain), layer.parts, strict=True):
        assert one.dtype == part.dtype
        assert _distance(one, other.double()) <= tolerance


@needs_numba
@pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_chunks_take_the_kernel(name, soft, dtype, monkeypatch):
    """As they would with a million numbers each."""
    taken = []
    monkeypatch.setattr(paths, "_KERNEL_FROM", 1)
    run = lastlayer.evaluation.fused_linear.__globals__["RUN"]
    monkeypatch.setitem(run, "kernel", lambda *operands, run=run["kernel"]: taken.append(1) or run(*operands))
    features, weight = (
        torch.randn(shape, generator=random(3)).to(dtype).requires_grad_() for shape in ((20, WIDTH), (70, WIDTH))
    )
    target = torch.rand(20, 70, generator=random(4)) if soft or name == "binary_cross_entropy" else torch.arange(20)
    if name == "cross_entropy" and soft:
        target = target / target.sum(-1, keepdim=True)
    options = {"sample_weight": torch.arange(20) % 3 != 0}
    found = lastlayer.fused_linear(name, features, weight, target, byte_budget=1000, **options)
    assert bool(taken) == (name == "binary_cross_entropy" or (dtype == torch.bfloat16 and not soft))
    with evaluate_with(path="plain"):
        expected = getattr(losses, name)(F.linear(features, weight), target, **options)
    assert_close(found, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=0)
    for one, other in zip(*(torch.autograd.grad(each, (features, weight)) for each in (found, expected)), strict=True):
        assert _distance(one, other.double()) < (2e-2 if dtype == torch.bfloat16 else 1e-5)


# As a node of the graph.


@every_loss
def test_backward_again_and_with_another_upstream_gradient(name):
    layer = Layer(CATALOG[name], 20)
    found, plain = layer.fused(3), layer.plain()
    expected = layer.gradients(plain, retain_graph=True)
    for upstream in (1.0, 1.0, -2.5, 0.0):
        gradients = layer.gradients(found, upstream, retain_graph=True)
        assert_close(gradients, tuple(upstream * each for each in expected), rtol=1e-9, atol=1e-12)
    for _ in range(3):
        (2.0 * found).backward(retain_graph=True)
    for part, each in zip(layer.parts, expected, strict=True):
        assert_close(part.grad, 6 * each, rtol=1e-9, atol=1e-12)
        part.grad.zero_()
    found.backward()
    for part, each in zip(layer.parts, expected, strict=True):
        assert_close(part.grad, each, rtol=1e-9, atol=1e-12)


@every_loss
@pytest.mark.parametrize("frozen", [("weight", "bias"), ("features",), ("features", "bias"), ("bias",)], ids=str)
def test_what_is_frozen_costs_nothing_and_gets_nothing(name, frozen):
    layer = Layer(CATALOG[name], 20)
    for part in frozen:
        getattr(layer, part).requires_grad_(False)
    layer.check(3)
    layer.fused(3).backward()
    for part in ("features", "weight", "bias"):
        assert (getattr(layer, part).grad is None) == (part in frozen)


def test_gradients_that_nobody_needs_are_not_made():
    features, weight = torch.randn(500, 40), torch.randn(30, 40)
    target = torch.zeros(500, 30)
    for frozen, made in [("features", 30 * 40), ("weight", 500 * 40)]:
        features.requires_grad_(frozen != "features")
        weight.requires_grad_(frozen != "weight")
        with Allocations() as allocations:
            lastlayer.fused_linear("squared_error", features, weight, target, byte_budget=4 * 30).backward()
        # Nothing else is larger than what a row takes, not even for a moment.
        assert allocations.larger_than(1000) == [made]


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_has_a_gradient(name, weighted):
    layer = Layer(CATALOG[name], 6)
    options = {"sample_weight": positive_weight(6) * (torch.arange(6) % 3 != 0)} if weighted else {}
    directions = [torch.randn(part.shape, dtype=part.dtype, generator=random(8)) for part in layer.parts]
    second = []
    for value in (layer.fused(3, **options), layer.plain(**options)):
        gradients = layer.gradients(value, 0.7, create_graph=True)
        along = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
        second.append((*gradients, *torch.autograd.grad(along, layer.parts)))
    assert_close(*second, rtol=1e-8, atol=1e-11)


@every_loss
def test_under_transforms(name):
    layer = Layer(CATALOG[name], 6)
    of_features, of_weight, of_bias = layer.gradients(layer.plain())

    def loss(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return fused_linear(layer.loss.formula, features, weight, layer.target, bias=bias)

    parts = tuple(part.detach() for part in layer.parts)
    assert_close(torch.func.grad(loss, argnums=(0, 1, 2))(*parts), (of_features, of_weight, of_bias))
    direction = torch.randn(parts[1].shape, dtype=torch.float64, generator=random(4))
    _, slope = torch.func.jvp(lambda weight: loss(parts[0], weight, parts[2]), (parts[1],), (direction,))
    assert_close(slope, (of_weight * direction).sum())
    each = torch.func.vmap(
        lambda features, target: fused_linear(layer.loss.formula, features, parts[1], target, bias=parts[2])
    )(parts[0], layer.target)
    assert_close(each.mean(), layer.plain().detach())


@every_loss
def test_many_upstream_gradients_at_once(name):
    layer = Layer(CATALOG[name], 6)
    upstream = torch.tensor([1.0, -2.5], dtype=torch.float64)
    found = torch.autograd.grad(layer.fused(3), layer.parts, upstream, is_grads_batched=True)
    for gradient, one in zip(found, layer.gradients(layer.plain()), strict=True):
        assert_close(gradient, torch.stack([one, -2.5 * one]), rtol=1e-9, atol=1e-12)


def test_a_function_with_it_compiles_whole():
    layer = Layer(CATALOG["cross_entropy"], 6)
    compiled = torch.compile(layer.fused, backend="eager", fullgraph=True)
    assert_close(layer.gradients(compiled()), layer.gradients(layer.plain()))


@pytest.mark.parametrize("name", [name for name in CATALOG if CATALOG[name].facts.example(1)[1].is_floating_point()])
def test_whatever_else_needs_a_gradient_gets_it(name):
    layer = Layer(CATALOG[name], 6)
    if name == "poisson_nll":
        layer.target = layer.target + 0.5  # log y! has its derivative at 0 from one side only
    layer.target.requires_grad_()
    weight, total = positive_weight(6).requires_grad_(), torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    options = {"sample_weight": weight, "normalizer": total}
    operands = [*layer.parts, layer.target, weight, total]
    found, expected = (
        torch.autograd.grad(value, operands) for value in (layer.fused(3, **options), layer.plain(**options))
    )
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_class_weight_that_needs_a_gradient_gets_it():
    weight = positive_weight(5).requires_grad_()
    layer = Layer(losses.CrossEntropy(weight), 6)
    found, expected = (torch.autograd.grad(value, [weight, *layer.parts]) for value in (layer.fused(), layer.plain()))
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_parameter_is_a_tensor_like_any_other_and_a_subclass_is_not():
    class Marked(Tensor):
        pass

    layer = Layer(CATALOG["cross_entropy"], 6)
    layer.weight = torch.nn.Parameter(layer.weight.detach())
    assert type(layer.fused().grad_fn).__name__ == "_FusedLinearBackward"
    layer.check(3)
    with torch.no_grad():
        layer.weight = layer.weight.as_subclass(Marked).requires_grad_()
    value = layer.fused(3)
    assert isinstance(value, Marked)
    assert_close(layer.gradients(value)[0].as_subclass(Tensor), layer.gradients(layer.plain())[0].as_subclass(Tensor))


def test_a_target_that_changed_before_the_second_order_is_an_error():
    layer = Layer(CATALOG["cross_entropy"], 6)
    value = layer.fused(3)
    layer.target.zero_()
    layer.gradients(value, retain_graph=True)
    with pytest.raises(InputError, match="was modified in place between the loss and its backward pass"):
        layer.gradients(value, create_graph=True)


@every_loss
def test_reads_no_value_on_the_host(name):
    layer = Layer(CATALOG[name], 6, dtype=torch.float32)
    with torch.no_grad():
        layer.features, layer.weight, layer.bias = (part.to("meta").requires_grad_() for part in layer.parts)
        layer.target = layer.target.to("meta")
    for part, gradient in zip(layer.parts, layer.gradients(layer.fused(3)), strict=True):
        assert gradient.shape == part.shape


@pytest.mark.parametrize("path", ["plain", "blockwise"])
def test_a_path_that_is_asked_for(path):
    layer = Layer(CATALOG["squared_error"], 20)
    with evaluate_with(path=path):
        layer.check(3)
        assert ("Fused" in type(layer.fused().grad_fn).__name__) == (path != "plain")


# Memory.


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_above_the_budget_is_allocated_but_the_gradients(name, dtype, weighted):
    blockwise._keep_freed_memory()
    layer = Layer(CATALOG[name], 30, 10, outputs=8, dtype=dtype)
    outputs = layer.weight.shape[0]
    options = {"sample_weight": positive_weight(30)} if weighted else {}
    rows = math.ceil(300 / outputs)  # so that the samples' own numbers, one each, are no more than a chunk's
    chunk = rows * outputs
    assert chunk < 300 * outputs / 1.9
    gradients = sorted(size for size in (part.numel() for part in layer.parts) if size > chunk)
    with torch.no_grad(), Allocations() as alone:
        layer.fused(rows, **options)
    assert not alone.larger_than(chunk)
    with Allocations() as together:
        layer.gradients(layer.fused(rows, **options))
    assert sorted(together.larger_than(chunk)) == gradients


def test_without_a_budget_there_is_one():
    outputs = 1 << 20
    features, weight = torch.zeros(20, 1), torch.zeros(outputs, 1)
    with torch.no_grad(), Allocations() as allocations:
        lastlayer.fused_linear("cross_entropy", features, weight, torch.zeros(20, dtype=torch.long))
    assert max(allocations.sizes) == 8 * outputs


# What does not belong together.


def _parts(**changed: Tensor | None) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "features": torch.zeros(4, 6),
        "weight": torch.zeros(5, 6),
        "target": torch.zeros(4, dtype=torch.long),
    }
    return parts | changed


@pytest.mark.parametrize(
    ("loss", "parts", "kind", "message"),
    [
        (
            "cross_entropy",
            _parts(weight=torch.zeros(6, 5)),
            ShapeError,
            r"features have shape \(4, 6\), weight \(6, 5\); expected \(..., D\) and \(K, D\), as of nn.Linear\(D, K\)",
        ),
        ("cross_entropy", _parts(weight=torch.zeros(6)), ShapeError, r"features have shape \(4, 6\), weight \(6,\)"),
        ("cross_entropy", _parts(features=torch.tensor(0.0)), ShapeError, r"features have shape \(\), weight \(5, 6\)"),
        (
            "cross_entropy",
            _parts(bias=torch.zeros(4)),
            ShapeError,
            r"bias has shape \(4,\), weight \(5, 6\); expected \(5,\): one per row of weight",
        ),
        (
            "cross_entropy",
            _parts(weight=torch.zeros(5, 6).double()),
            InputError,
            r"features are torch.float32, weight torch.float64; expected one dtype. Fix: features.to\(weight.dtype\)",
        ),
        (
            "cross_entropy",
            _parts(bias=torch.zeros(5).half()),
            InputError,
            r"features are torch.float32, weight torch.float32, bias torch.float16; expected one dtype",
        ),
        (
            "cross_entropy",
            _parts(features=torch.zeros(4, 6, dtype=torch.long)),
            KindError,
            r"features must be floating point, and is torch.int64. Fix: pass features.float\(\)",
        ),
        (
            "cross_entropy",
            _parts(target=torch.zeros(3, dtype=torch.long)),
            ShapeError,
            r"cross_entropy: class indices have shape \(3,\), raw \(4, 5\)",
        ),
        ("squared_error", _parts(target=torch.zeros(4)), ShapeError, r"raw has shape \(4, 5\), target \(4,\)"),
        (
            "squared_error",
            _parts(target=torch.zeros(4, 5), sample_weight=torch.ones(5)),
            ShapeError,
            r"sample_weight has shape \(5,\), the per-sample values \(4, 5\)",
        ),
        (
            "cross_entropy",
            _parts(byte_budget=19),
            InputError,
            r"byte_budget is 19; one row of 5 outputs takes 20 bytes. Fix: a larger byte_budget, or None",
        ),
        ("cross_entropy", _parts(reduction="average"), InputError, r"reduction is 'average'; expected one of 'mean'"),
        ("cross_entrpy", _parts(), InputError, r"no loss is called 'cross_entrpy'. Fix: cross_entropy"),
        ("huber", _parts(smoothing=0.1), InputError, r"huber has no option 'smoothing'; it has delta"),
        (
            losses.CrossEntropy(),
            _parts(label_smoothing=0.1),
            InputError,
            r"options 'label_smoothing' go with the name of a loss; CrossEntropy has its own. Fix: give them to Cross",
        ),
        (
            heads.Categorical(classes=4),
            _parts(),
            InputError,
            r"weight has 5 rows; Categorical takes 4",
        ),
        (
            F.cross_entropy,
            _parts(),
            KindError,
            r"loss is function; expected a lastlayer loss, a head, or the name of a loss",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_does_not_belong_together_is_an_error(loss, parts, kind, message):
    with pytest.raises(kind, match=message) as caught:
        lastlayer.fused_linear(loss, **parts)
    assert isinstance(caught.value, LastLayerError)


def test_dtypes_that_autocast_makes_one_are_no_error():
    parts = _parts(weight=torch.zeros(5, 6).bfloat16(), bias=torch.zeros(5))
    with pytest.raises(InputError, match="expected one dtype"):
        lastlayer.fused_linear("cross_entropy", **parts)
    for inside in (torch.autocast("cpu", dtype=torch.bfloat16), nullcontext()):
        if isinstance(inside, torch.autocast):
            with inside:
                assert lastlayer.fused_linear("cross_entropy", **parts) == pytest.approx(math.log(5))
