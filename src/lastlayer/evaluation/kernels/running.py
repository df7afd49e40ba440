"""Whether a formula has a kernel, and its run over tensors on several threads."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer.checks import check_index
from lastlayer.evaluation.blockwise import Sweep
from lastlayer.evaluation.formula import Formula, Summed
from lastlayer.evaluation.kernels.translation import NotElementwise, Source, translate
from lastlayer.evaluation.reduction import hide_masked
from lastlayer.evaluation.true_class import Statistics

_DTYPES = (torch.float32, torch.bfloat16)
#: Shorter rows with a weight each are quicker with the weight written out for every element.
_SHORT_ROW = 64
#: Elements that repay handing them to another thread.
_PART = 1 << 17


def obstacle(formula: Formula, raw: Tensor, target: Tensor | None = None) -> str:
    """Why no kernel can serve; empty if one can. Without a target, class indices are supposed."""
    if raw.device.type != "cpu":
        return "kernels run on the CPU"
    if raw.dtype not in _DTYPES:
        return f"kernels know float32 and bfloat16, and raw is {raw.dtype}"
    if not raw.is_contiguous():
        return "raw is not contiguous"
    if not _numba():
        return "Numba is not installed (pip install 'lastlayer[kernels]')"
    if formula.sees_true_class:
        if target is not None and target.is_floating_point():
            return "the target is class probabilities, and a kernel takes class indices"
        return "" if raw.shape[-1] >= _SHORT_ROW else f"{raw.shape[-1]} classes are few, and blocks of samples quicker"
    result = _translated(_elementwise(formula))
    return result if isinstance(result, str) else ""


def not_quicker(formula: Formula, raw: Tensor) -> str:
    """Why a kernel that could serve is not worth it; empty if it is."""
    if formula.sees_true_class and raw.dtype == torch.float32:
        return "PyTorch's own softmax is as quick in float32"
    return ""


def run(sweep: Sweep, gradient: Tensor | None = None, values: Tensor | None = None) -> Tensor:
    """The weighted sum of the loss, not divided; the gradient is written where a place is given."""
    raw, target, weight = sweep.raw, _known(sweep.target).contiguous(), sweep.weight
    if not raw.numel():
        return raw.new_zeros((), dtype=sweep.computed)
    if sweep.formula.sees_true_class:
        return _run_rows(sweep, gradient)
    rows = False
    if weight is not None:
        if isinstance(sweep.formula, Summed):
            weight = weight.unsqueeze(-1).expand(raw.shape)
        rows = raw.dim() > 1 and weight.stride(-1) == 0 and raw.shape[-1] >= _SHORT_ROW
        weight = weight.select(-1, 0).reshape(-1) if rows else weight.reshape(-1)
        weight = weight.to(torch.float32) if rows or weight.dtype.is_floating_point else weight
    source = _translated(_elementwise(sweep.formula))
    assert isinstance(source, Source), source
    loop = _loop(source, raw.dtype, target.dtype, weight is not None, rows, gradient is not None)
    shape = (-1, raw.shape[-1]) if rows else (-1,)
    total = _on_threads(
        loop,
        _array(raw.view(shape)),
        _array(target.view(shape)),
        _array(raw.new_empty(0, dtype=torch.float32) if weight is None else weight),
        _array((raw if gradient is None else gradient).view(shape)),
        rest=(np.float32(float(sweep.scale)),),
    )
    if gradient is not None:
        _tell_autograd(gradient)
    return torch.tensor(total, dtype=sweep.computed)


def _tell_autograd(written: Tensor) -> None:
    """Autograd sees only what PyTorch writes: told, it refuses to use what lay there before."""
    torch.autograd.graph.increment_version(written)


def _known(target: Tensor) -> Tensor:
    """Numba on a CPU has no float16."""
    return target.to(torch.float32) if target.dtype == torch.float16 else target


def _run_rows(sweep: Sweep, gradient: Tensor | None) -> Tensor:
    """A loss of a softmax and a class index, by its statistics."""
    formula, classes = sweep.formula, sweep.raw.shape[-1]
    raw, target = sweep.raw.view(-1, classes), sweep.target.reshape(-1)
    weight = None if sweep.weight is None else sweep.weight.reshape(-1, 1).to(sweep.computed)
    if weight is not None:
        target = hide_masked(target, weight.squeeze(-1))
    index = formula.harmless_index(target).contiguous()
    check_index(index, classes)
    found = raw.new_empty(len(raw), 4, dtype=torch.float32)
    measure, write = _row_loops(raw.dtype)
    scores = _array(raw)
    _on_threads(measure, scores, index.numpy(), found.numpy())
    largest, others, squares, below = found.unsqueeze(-1).unbind(1)
    exp_true = below.exp()
    total = exp_true + others
    true = Statistics(
        index.unsqueeze(-1),
        exp_true / total,
        others / total,
        squares / total**2,
        torch.where(others < exp_true, -torch.log1p(others / exp_true), below - total.log()),
        largest + total.log(),
    )
    value, at_true, linear, quadratic = formula.of_index(true, target)
    if gradient is not None:
        scale = sweep.scale if weight is None else weight * sweep.scale
        factors = torch.empty_like(found)
        factors[:, 0:1] = largest
        factors[:, 1:2] = (1.0 if linear is None else linear) * scale / total
        factors[:, 2:3] = 0.0 if quadratic is None else quadratic * scale / total**2
        factors[:, 3:4] = at_true * scale
        _on_threads(write, scores, index.numpy(), factors.numpy(), _array(gradient.view(-1, classes)))
        _tell_autograd(gradient)
    return (value if weight is None else value * weight).sum()


def _elementwise(formula: Formula) -> Formula:
    """What happens to a single element: a sum over labels has the loss of a label inside."""
    return formula.inner if isinstance(formula, Summed) else formula


def _translated(formula: Formula) -> Source | str:
    """The scalar function, or why there is none."""
    if formula.event_dims:
        return f"{formula.facts.name} takes a whole row at once"
    if any(tensor is not None for tensor in formula.tensors):
        return "an option is a tensor"
    try:
        return _translate_once(type(formula), _options(formula), _Unhashed(formula))
    except TypeError:
        return "its options cannot be told apart"


@dataclasses.dataclass(frozen=True)
class _Unhashed:
    """Carries the formula past the cache, which goes by its type and options."""

    formula: Formula = dataclasses.field(compare=False, hash=False)


@lru_cache(maxsize=256)
def _translate_once(kind: type[Formula], options: tuple[Any, ...], carried: _Unhashed) -> Source | str:
    try:
        return translate(carried.formula)
    except NotElementwise as error:
        return f"{carried.formula.facts.name} does not translate ({error})"


def _options(formula: Formula) -> tuple[Any, ...]:
    return tuple(
        (name, (type(value), *_options(value)) if isinstance(value, Formula) else value)
        for name, value in sorted(vars(formula).items())
    )


@lru_cache(maxsize=256)
def _loop(
    source: Source, raw: torch.dtype, target: torch.dtype, weighted: bool, rows: bool, with_gradient: bool
) -> Callable[..., Any]:
    from lastlayer.evaluation.kernels import loops, scalar_math

    flat = loops.flat_loop(
        loops.scalar_function(source),
        scalar_math.float_of_bfloat16 if raw == torch.bfloat16 else scalar_math.unchanged,
        scalar_math.float_of_bfloat16 if target == torch.bfloat16 else scalar_math.to_float,
        scalar_math.bfloat16_of_float if raw == torch.bfloat16 else scalar_math.unchanged,
        weighted=weighted and not rows,
        with_gradient=with_gradient,
    )
    return loops.row_loop(flat, with_gradient=with_gradient) if rows else flat


@lru_cache(maxsize=2)
def _row_loops(raw: torch.dtype) -> tuple[Callable[..., float], Callable[..., float]]:
    from lastlayer.evaluation.kernels import scalar_math, softmax_loops

    half = raw == torch.bfloat16
    load = scalar_math.float_of_bfloat16 if half else scalar_math.unchanged
    store = scalar_math.bfloat16_of_float if half else scalar_math.unchanged
    return softmax_loops.statistics_loop(load), softmax_loops.gradient_loop(load, store)


def _on_threads(loop: Callable[..., float], *arrays: Any, rest: tuple[Any, ...] = ()) -> float:
    """The loop over parts of the first axis, one after the other or at once; without the interpreter's lock."""
    length = len(arrays[0])
    threads = torch.get_num_threads()
    parts = max(1, min(4 * threads, arrays[0].size // _PART)) if threads > 1 else 1
    step = -(-length // parts)
    pieces = [[array[start : start + step] for array in arrays] for start in range(0, length, step)]
    if len(pieces) == 1:
        return loop(*pieces[0], *rest)
    return sum(_pool(os.getpid(), threads).map(lambda piece: loop(*piece, *rest), pieces))


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Of this process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lastlayer-kernel")


def _array(tensor: Tensor) -> Any:
    """The memory of a tensor for Numba, which knows neither bfloat16 nor PyTorch's bool."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy()
    return (tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor).numpy()


@cache
def _numba() -> bool:
    return importlib.util.find_spec("numba") is not None
