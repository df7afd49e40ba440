"""Inputs for the ways of evaluating a loss, and the bound that each of them must keep."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lastlayer import losses
from lastlayer.evaluation import Formula, evaluate, evaluate_with
from lastlayer.evaluation.kernels.translation import NotElementwise, translate
from lastlayer.losses import Loss
from loss_properties import random

CATALOG = losses.catalog()
every_loss = pytest.mark.parametrize("name", CATALOG)

#: Units in the last place that any way may be off besides twice the error of the plain one: sums are added up in
#: another order, closed forms round at other places, and a kernel's functions are within two and a half units.
SLACK = 8.0


def translates(formula: Formula) -> bool:
    """Whether the formula reads as arithmetic on one element."""
    try:
        translate(formula)
    except NotElementwise:
        return False
    return formula.event_dims == 0


KERNELS = [name for name, loss in CATALOG.items() if translates(loss.formula)]
SOFTMAX_KERNELS = [name for name, loss in CATALOG.items() if loss.formula.sees_true_class]
every_kernel = pytest.mark.parametrize("name", KERNELS)
every_softmax_kernel = pytest.mark.parametrize("name", SOFTMAX_KERNELS)
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="kernels need Numba")
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")),
    reason="torch.compile needs a C++ compiler on the CPU",
)


@dataclass(frozen=True)
class Case:
    """One input of one loss."""

    what: str
    raw: Tensor
    target: Tensor
    weight: Tensor | None = None

    @property
    def options(self) -> dict[str, Tensor]:
        return {} if self.weight is None else {"sample_weight": self.weight}

    def doubled(self) -> Case:
        """The same numbers in float64."""
        target = self.target.double() if self.target.is_floating_point() else self.target
        return replace(self, raw=self.raw.double(), target=target)


def example(loss: Loss, *batch: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Valid raw output and target of a batch shape."""
    raw, target = loss.facts.example(math.prod(batch), dtype=dtype, generator=random(seed))
    return raw.reshape((*batch, *raw.shape[1:])), target.reshape((*batch, *target.shape[1:]))


def wide_example(classes: int, *batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Scores of more classes than the examples of the facts have, and indices."""
    raw = 3 * torch.randn(*batch, classes, dtype=dtype, generator=random(3))
    return raw, torch.randint(classes, batch, generator=random(4))


def positive_weight(*shape: int, seed: int = 1) -> Tensor:
    return 0.1 + torch.rand(shape, dtype=torch.float64, generator=random(seed))


def ragged_cases(loss: Loss, dtype: torch.dtype) -> Iterator[Case]:
    """Shapes that no block of 64 numbers divides, each with weights of another kind."""
    yield Case("one axis", *example(loss, 333, dtype=dtype))
    yield Case("a single sample", *example(loss, 1, dtype=dtype))
    yield Case("two axes", *example(loss, 9, 37, dtype=dtype), positive_weight(9))
    yield Case("three axes", *example(loss, 3, 5, 23, dtype=dtype), positive_weight(3, 5, 23))
    yield Case("rows longer than a block", *example(loss, 3, 101, dtype=dtype), positive_weight(3))
    yield masked(loss, dtype)


def masked(loss: Loss, dtype: torch.dtype, *batch: int) -> Case:
    """Every third sample weighs nothing, and its target is NaN."""
    raw, target = example(loss, *(batch or (11, 19)), dtype=dtype)
    kept = (torch.arange(target[..., 0].numel() if raw.shape == target.shape[:-1] else target.numel()) % 3 != 0).view(
        target.shape
    )
    weight = positive_weight(*target.shape) * kept
    if target.is_floating_point():
        target = torch.where(kept, target, torch.nan)
    return Case("masked", raw, target, weight)


def class_cases(loss: Loss, dtype: torch.dtype, classes: int = 37) -> Iterator[Case]:
    """What only scores of classes have: probabilities, many classes, a common offset, certainty."""
    yield from index_cases(loss, dtype, classes)
    raw, _ = wide_example(classes, 41, dtype=dtype)
    shares = torch.softmax(2 * torch.randn(raw.shape, dtype=torch.float64, generator=random(6)), -1).to(dtype)
    yield Case("probabilities", raw, shares, positive_weight(41))


def index_cases(loss: Loss, dtype: torch.dtype, classes: int) -> Iterator[Case]:
    """The same for class indices alone."""
    raw, target = wide_example(classes, 41, dtype=dtype)
    yield Case("classes", raw, target)
    yield Case("weighted", raw.view(1, 41, classes), target.view(1, 41), positive_weight(1, 41))
    masked = torch.arange(41) % 3 == 0
    yield Case("masked, whatever the class", raw, target.masked_fill(masked, -7), positive_weight(41) * ~masked)
    yield Case("more classes than a piece holds", *wide_example(4999, 3, dtype=dtype))
    sizes = torch.tensor([1e-4, 1.0, 10.0, 100.0, 1e3, 1e4]).repeat(7)[:41].unsqueeze(-1)
    yield Case("extremes", (sizes * torch.sign(raw.double())).to(dtype), target)
    if loss.facts.link == "softmax":
        offset = torch.where(torch.arange(41).unsqueeze(-1) % 2 == 0, 1e4, -1e4)
        yield Case("a common offset", (raw + offset).to(dtype), target)
        yield Case("a common offset and far apart", (20 * raw + offset).to(dtype), target)
        # The true class ahead of the others so far that its probability is 1 − 1e-7, and a little less far.
        ahead = torch.tensor([16.1, 12.0, 8.0], dtype=torch.float64) + math.log(classes - 1)
        sure = torch.tensor([0, classes // 2, classes - 1])
        certain = torch.zeros(3, classes, dtype=torch.float64).scatter(-1, sure.unsqueeze(-1), ahead.unsqueeze(-1))
        yield Case("certain", certain.to(dtype), sure)


def strided_cases(loss: Loss, dtype: torch.dtype) -> Iterator[Case]:
    """The same numbers in other orders of memory."""
    raw, target = example(loss, 14, 22, dtype=dtype)
    weight = positive_weight(14, 22)

    def swapped(tensor: Tensor) -> Tensor:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    def sliced(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor], dim=1).flatten(0, 1)[::2]

    yield Case("raw transposed", swapped(raw), target, weight)
    yield Case("all transposed", swapped(raw), swapped(target), swapped(weight))
    yield Case("raw sliced", sliced(raw), target)
    yield Case("target sliced", raw, sliced(target), sliced(weight))
    yield Case("target expanded", raw, target[:1].expand(target.shape), weight[:, :1].expand(14, 22))


def extreme_cases(loss: Loss, dtype: torch.dtype) -> Iterator[Case]:
    """Raw outputs up to ten thousand, of either sign."""
    sizes = torch.tensor([0.0, 1e-4, 1.0, 10.0, 100.0, 1e3, 1e4], dtype=dtype)
    raw, target = example(loss, 16, 2 * len(sizes), dtype=dtype)
    sign = torch.randint(-1, 2, raw.shape, generator=random(2)) if raw.dim() > 2 else torch.ones_like(raw)
    scores = torch.cat([sizes, -sizes]).reshape(1, -1, *[1] * (raw.dim() - 2))
    yield Case("extremes", (scores * sign).to(dtype), target)


def by_path(path: str | None, loss: Loss, case: Case, **options: Any) -> tuple[Tensor, Tensor]:
    """The reduced loss and its gradient, one way; ``None``: the one that the library chooses."""
    raw = case.raw.detach().requires_grad_()
    with nullcontext() if path is None else evaluate_with(path=path):
        value = evaluate(loss.formula, raw, case.target, **case.options, **options)
    upstream = torch.ones_like(value)
    return value.detach(), torch.autograd.grad(value, raw, upstream)[0]


def check_path(path: str | None, loss: Loss, case: Case, **options: Any) -> None:
    """Value and gradient of one way keep the bound: twice the plain error in this dtype, and the slack."""
    found, plain = by_path(path, loss, case, **options), by_path("plain", loss, case, **options)
    check_error(loss, case, found, plain, **options)


def check_error(
    loss: Loss, case: Case, found: tuple[Tensor, Tensor], plain: tuple[Tensor, Tensor], **options: Any
) -> None:
    """The bound itself, for a value and a gradient from anywhere."""
    exact = by_path("plain", loss, case.doubled(), **options)
    assert found[0].dtype == plain[0].dtype
    assert found[1].dtype == case.raw.dtype
    assert found[1].shape == case.raw.shape
    each, share = _sizes(loss, case, **options)
    # In float64 the formula is judge and party: its own roundings are of the last place of 1, and of what it
    # exponentiates.
    own = 1.0 + each if case.raw.dtype == torch.float64 else torch.ones_like(each)
    size = share * (own if case.raw.dtype == torch.float64 else each)
    _check("value", case.what, found[0], plain[0], exact[0], size if exact[0].dim() else size.sum())
    largest = exact[1].abs()
    if loss.formula.event_dims:
        largest, own, share = largest.amax(-1, keepdim=True), own.unsqueeze(-1), share.unsqueeze(-1)
    # At least the share: a gradient is often a difference of numbers up to 1.
    _check("gradient", case.what, found[1], plain[1], exact[1], own * torch.maximum(largest, share))


def _sizes(loss: Loss, case: Case, **options: Any) -> tuple[Tensor, Tensor]:
    """The size of every sample's loss, and its share in the reduced one."""
    wide = case.doubled()
    with evaluate_with(path="plain"):
        each = evaluate(loss.formula, wide.raw, _known(wide.target), reduction="none")
    weight = torch.ones_like(each) if case.weight is None else case.weight.double()
    weight = weight.reshape(*weight.shape, *[1] * (each.dim() - weight.dim())).expand(each.shape)
    total = {"none": 1.0, "sum": 1.0}.get(options.get("reduction", "mean"), options.get("normalizer", weight.sum()))
    return each.abs(), weight / total


def _check(what: str, where: str, found: Tensor, plain: Tensor, exact: Tensor, size: Tensor) -> None:
    """The worst error of the case, in units of the last place, against the worst plain one."""
    limits = torch.finfo(found.dtype)
    unit = limits.eps * (size + limits.smallest_normal)
    error, plain_error = (((one.double() - exact).abs() / unit).flatten() for one in (found, plain))
    if error.numel():
        assert error.max() <= 2 * plain_error.max() + SLACK, (
            f"{where}: {what} is off by {error.max():.3g} units in the last place, plainly by {plain_error.max():.3g}"
        )


def _known(target: Tensor) -> Tensor:
    """The targets without what a masked one may hold."""
    return torch.nan_to_num(target) if target.is_floating_point() else target.clamp_min(0)


class Allocations(TorchDispatchMode):
    """Records the size, in numbers, of every tensor that an operation allocates."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.numel() and not leaf.is_meta and _memory(leaf) not in given:
                given.add(_memory(leaf))
                self.sizes.append(leaf.untyped_storage().nbytes() // leaf.element_size())
        return result

    def larger_than(self, size: int) -> list[int]:
        return [each for each in self.sizes if each > size]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
