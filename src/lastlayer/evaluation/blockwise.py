"""One sweep over the raw output, block by block, in plain PyTorch.

Each block is small enough to stay in cache between the operations on it, so memory sees every number once: raw and
target read, gradient written. Nothing of the size of raw is allocated besides the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lastlayer.evaluation.formula import Formula
from lastlayer.evaluation.reduction import hide_masked, rounded

#: Numbers in a block: large enough for the fixed cost of an operation to vanish, small enough for the cache.
BLOCK = 1 << 18


@dataclass(slots=True)
class Sweep:
    """What a sweep reads, checked and ready.

    Attributes:
        formula: the mathematics.
        raw: the network's raw output, in its own dtype.
        target: as the caller gave it; every block is conformed by itself, so that no converted copy is made.
        weight: one per value, of the shape of the values and in the caller's dtype, or ``None``.
        normalizer: what the sum of the values is divided by.
        scale: what the gradients are multiplied by: one over the normalizer.
        computed: the dtype of the arithmetic.
    """

    formula: Formula
    raw: Tensor
    target: Tensor
    weight: Tensor | None
    normalizer: Tensor | float
    scale: Tensor | float
    computed: torch.dtype


def run(sweep: Sweep, gradient: Tensor | None = None, values: Tensor | None = None) -> Tensor:
    """The weighted sum of the loss, not divided; gradient and weighted values are written where a place is given."""
    if not sweep.raw.numel():
        return sweep.raw.new_zeros((), dtype=sweep.computed)
    if sweep.raw.numel() > BLOCK and sweep.raw.device.type == "cpu":
        _keep_freed_memory()
    sums = [_run_block(sweep, *block) for block in _blocks(sweep, gradient, values)]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


def _run_block(
    sweep: Sweep, raw: Tensor, target: Tensor, weight: Tensor | None, gradient: Tensor | None, values: Tensor | None
) -> Tensor:
    formula = sweep.formula
    raw = raw.to(sweep.computed)
    target = formula.conform(raw, target)
    if weight is not None:
        weight = weight.to(sweep.computed)
        target = hide_masked(target, weight)
    if gradient is None:
        result = formula.value(raw, target)
    else:
        place = gradient if gradient.dtype == sweep.computed else torch.empty_like(raw)
        result = formula.value_into(raw, target, place)
        if weight is not None:
            place.mul_((weight * sweep.scale).unsqueeze(-1) if formula.event_dims else weight * sweep.scale)
        elif not isinstance(sweep.scale, float) or sweep.scale != 1.0:
            place.mul_(sweep.scale)
        if place is not gradient:
            gradient.copy_(rounded(place, gradient.dtype))
    if weight is not None:
        result = result * weight
    if values is not None:
        values.copy_(result)
    return result.sum()


@cache
def _keep_freed_memory() -> None:
    """Lets the C library reuse what a block has freed, instead of asking the system for fresh pages every time.

    glibc learns from the largest block it sees freed (up to 32 MB) how much to keep. This one is never touched, so it
    costs nothing; without it, the page faults of the intermediate results cost several times the arithmetic.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _blocks(
    sweep: Sweep, gradient: Tensor | None, values: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]]:
    """The operands block by block, as views."""
    raw, target, weight = sweep.raw, sweep.target, sweep.weight
    if raw.numel() <= BLOCK:
        yield raw, target, weight, gradient, values
        return
    whole = _whole_axes(sweep.formula)
    if not whole and all(one is None or one.is_contiguous() for one in (raw, target, weight, gradient, values)):
        # Element by element the shape does not matter.
        raw, target = raw.view(-1), target.view(-1)
        weight, gradient, values = (None if one is None else one.view(-1) for one in (weight, gradient, values))
    batch = raw.dim() - whole
    size = 4 * BLOCK if sweep.formula.works_in_place and gradient is not None else BLOCK
    for index in _slices(raw.shape[:batch], raw.shape[batch:].numel(), size):
        one, two, three = (None if one is None else one[index] for one in (weight, gradient, values))
        yield raw[index], target[index], one, two, three


def _whole_axes(formula: Formula) -> int:
    """How many of the last axes no block may cut: those of one sample, and those that a tensor option goes along."""
    return max([formula.event_dims, *(tensor.dim() for tensor in formula.tensors if tensor is not None)])


def _slices(batch: torch.Size, event: int, size: int) -> Iterator[tuple[int | slice, ...]]:
    """Indices that cut the batch axes into pieces of about ``size`` numbers, along one axis, leading ones in turn."""
    if not batch:
        yield ()
        return
    row = math.prod(batch[1:]) * event
    if row > size and len(batch) > 1:
        for position in range(batch[0]):
            for rest in _slices(batch[1:], event, size):
                yield (position, *rest)
        return
    step = max(1, size // row)
    for start in range(0, batch[0], step):
        yield (slice(start, start + step),)
