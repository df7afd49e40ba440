"""What a layer's tensors come down to, reduced where they are; all figures go to the host at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from lastlayer.diagnosis.copies import kept_random_state
from lastlayer.diagnosis.layout import Layout, row_axis, units_of_weight
from lastlayer.diagnosis.operation import Operation, names

#: Equally wide bins of every histogram.
BINS = 40
#: Figures of a signal, before the bins.
FIGURES = 8

#: Activations with one flat side; a unit that is there on all rows is dead.
ONE_FLAT_SIDE = names("relu relu6 elu selu celu gelu silu mish softplus hardswish threshold")
#: Activations with two flat sides and a slope between them, by the steepest slope.
TWO_FLAT_SIDES = {
    "sigmoid": 0.25,
    "tanh": 1.0,
    "hardtanh": 1.0,
    "hardsigmoid": 1 / 6,
    "softsign": 1.0,
    "arctan": 1.0,
    "atan": 1.0,
    "erf": 2 / math.sqrt(math.pi),
}
#: Flat is a slope below this share of the steepest: a hundredth passes. A tanh is flat beyond 3, a sigmoid beyond 6.
FLAT = 0.01
#: A unit is saturated if it is flat on this share of the rows.
NEARLY_ALL = 0.95


def flat_sides(operation: Operation) -> int:
    """How many flat sides an activation has: 1 of a rectifier, also of one with a ceiling; 2 of a sigmoid; else 0."""
    if operation.name == "hardtanh":
        low = operation.options.get("min_val", operation.options.get("1", -1.0))
        return 1 if low == 0 else 2  # PyTorch's ReLU6 is one from 0 to 6.
    return 1 if operation.name in ONE_FLAT_SIDE else 2 if operation.name in TWO_FLAT_SIDES else 0


def figures_of(
    operation: Operation, layout: Layout, parameters: Mapping[str, Tensor], rows: int, seen: dict[Hashable, Tensor]
) -> dict[str, Tensor]:
    """Vectors of figures of what an operation took, gave and got back, of its slopes and its parameters.

    Args:
        seen: figures of tensors that were reduced already: what one operation gave another takes.
    """
    parts: dict[str, Tensor] = {}
    signals = {"output": operation.output, "gradient": operation.gradient}
    if operation.role == "weight":
        signals["input"] = operation.input
    for name, signal in signals.items():
        if signal is not None and is_plain(signal):
            axis = row_axis(signal, layout, rows)
            key = (signal.device, signal.data_ptr(), signal.shape, signal.stride(), signal.dtype, axis)
            if key not in seen:
                seen[key] = _of_signal(signal, axis)
            parts[name] = seen[key]
    if flat_sides(operation):
        with kept_random_state():
            slope = None if operation.inferred else operation.slope
        if slope is not None:
            parts["flat"] = _of_slopes(slope, TWO_FLAT_SIDES.get(operation.name, 1.0), layout)
    for name, parameter in parameters.items():
        parts[f"parameter {name}"] = _of_parameter(operation, name, parameter)
    return parts


def is_plain(x: Tensor) -> bool:
    """Whether it is a dense tensor that has elements."""
    return not x.is_nested and x.layout == torch.strided and x.numel() > 0


def transferred(drafts: Sequence[Mapping[str, Tensor]]) -> list[dict[str, list[float]]]:
    """The figures on the host, by one transfer from each device."""
    flat = [(number, name, part) for number, parts in enumerate(drafts) for name, part in parts.items()]
    result: list[dict[str, list[float]]] = [{} for _ in drafts]
    for device in dict.fromkeys(part.device for _, _, part in flat):
        own = [entry for entry in flat if entry[2].device == device]
        numbers = torch.cat([part for _, _, part in own]).tolist()
        ends = accumulate(len(part) for _, _, part in own)
        for (number, name, part), end in zip(own, ends, strict=True):
            result[number][name] = numbers[end - len(part) : end]
    return result


def _of_signal(x: Tensor, rows: int | None) -> Tensor:
    """Mean, std, rms, minimum, maximum, share of zeros, share finite, variation, and the counts of the bins."""
    x = _floating(x)
    low, high = x.aminmax()
    if x.device.type != "cpu" or not bool((high - low).isfinite()):
        return _of_finite_part(x, rows)
    # On the host it costs nothing to ask, and most passes over the tensor are saved.
    size = torch.maximum(low.abs(), high.abs())
    scaled = x / size.where(size > 0, 1.0)
    mean = scaled.mean()
    between = _between(scaled, rows)
    moments = torch.stack([mean, _root_mean_square(scaled - mean), _root_mean_square(scaled), between]).double() * size
    zeros = (x == 0).sum().double() / x.numel()
    counts = torch.histc(x, BINS, low.item(), high.item()) if high > low else _all_in_one(x.numel(), x)
    return torch.cat([moments[:3], torch.stack([low, high, zeros, torch.ones_like(mean)]), moments[3:], counts])


def _between(x: Tensor, rows: int | None) -> Tensor:
    """The standard deviation from row to row; NaN if it is not known which they are."""
    if rows is None:
        return x.new_tensor(math.nan)
    # Beside the first row: rows that are all the same differ by 0 then, and not by rounding.
    apart = x - x.narrow(rows, 0, 1)
    return _root_mean_square(apart - apart.mean(rows, keepdim=True))


def _root_mean_square(x: Tensor) -> Tensor:
    """The fastest way over a whole tensor."""
    return torch.linalg.vector_norm(x) / math.sqrt(x.numel())


def _of_finite_part(x: Tensor, rows: int | None) -> Tensor:
    """The same where something may not be finite, with no number to the host in between."""
    finite = x.isfinite()
    count = finite.sum().to(x)
    low = x.masked_fill(~finite, math.inf).amin()
    high = x.masked_fill(~finite, -math.inf).amax()
    size = torch.maximum(low.abs(), high.abs())
    size = size.where((size > 0) & (count > 0), 1.0)
    scaled = x.masked_fill(~finite, 0.0) / size
    mean = scaled.sum() / count
    std = ((scaled - mean) * finite).square().sum().div(count).sqrt()
    rms = scaled.square().sum().div(count).sqrt()
    zeros = ((scaled == 0) & finite).sum().to(x) / x.numel()
    between = _between(scaled, rows)
    known = torch.stack([mean * size, std * size, rms * size, low, high, zeros]).where(count > 0, math.nan)
    rest = torch.stack([count / x.numel(), (between * size).where(count > 0, math.nan)])
    # Bins by their place in the range. Integers are added up: the order does not matter.
    width = (high - low).where(high > low, 1.0)
    place = ((x - low) * (BINS / width)).nan_to_num(0.0).long().clamp(0, BINS - 1).reshape(-1)
    counts = torch.zeros(BINS, dtype=torch.long, device=x.device).scatter_add_(0, place, finite.reshape(-1).long())
    return _wide(torch.cat([known, rest, counts.to(x)]))


def _all_in_one(count: int, like: Tensor) -> Tensor:
    """The counts of bins without width."""
    return torch.cat([like.new_tensor([float(count)]), like.new_zeros(BINS - 1)])


def _of_slopes(slope: Tensor, steepest: float, layout: Layout) -> Tensor:
    """The share of flat elements, and how many units are flat on nearly all rows, on all, and on none."""
    flat = slope.abs() < FLAT * steepest
    others = [axis for axis in range(flat.dim()) if axis not in layout.unit_axes(flat)]
    share = _wide(flat.sum(others) if others else flat) / math.prod(flat.shape[axis] for axis in others)
    counts = [(share >= least).sum() for least in (NEARLY_ALL, 1.0)] + [(share == 0).sum()]
    return torch.stack([share.mean(), *(count.to(share) for count in counts)])


def _of_parameter(operation: Operation, name: str, parameter: Tensor) -> Tensor:
    """Norm, std, the gradient's norm, units, and how far they and their gradients differ; NaN for what there is not."""
    values = _wide(parameter)
    gradient = None if parameter.grad is None else _wide(parameter.grad.to_dense())
    absent = torch.full((), math.nan, dtype=values.dtype, device=values.device)
    units, apart, pulled_apart = 1, absent, absent
    matrices = units_of_weight(operation, name, values)
    if matrices is not None:
        units, apart = matrices.shape[1], _differ(matrices)
        of_gradient = None if gradient is None else units_of_weight(operation, name, gradient)
        pulled_apart = absent if of_gradient is None else _differ(of_gradient)
    return torch.stack(
        [
            torch.linalg.vector_norm(values),
            values.std(correction=0) if values.numel() else absent,
            absent if gradient is None else torch.linalg.vector_norm(gradient),
            torch.full_like(absent, units),
            apart,
            pulled_apart,
        ]
    )


def _differ(matrices: Tensor) -> Tensor:
    """The largest difference between units of one block, (blocks, units, weights), over the largest weight."""
    largest = matrices.abs().amax()
    return ((matrices - matrices[:, :1]).abs().amax() / largest).where(largest > 0, 0.0)


def _floating(x: Tensor) -> Tensor:
    """In single precision at least."""
    x = x.detach().abs() if x.is_complex() else x.detach()
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _wide(x: Tensor) -> Tensor:
    """In double precision where the device has it, so that the squares of tiny gradients are not 0."""
    x = _floating(x)
    return x.double() if x.device.type in ("cpu", "cuda") else x
