"""Which way a formula is evaluated, and why: decided here, once for all losses.

========== ==========================================================================================
plain      the readable value under autograd: right under every transform of PyTorch
blockwise  value and closed-form gradient in one sweep over blocks that stay in cache, in plain PyTorch
kernel     the same sweep through a compiled loop, translated from the formula (Numba, optional)
compiled   the same sweep through ``torch.compile``: the way on a GPU
========== ==========================================================================================
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, check_choice, shape_text
from lastlayer.evaluation import kernels
from lastlayer.evaluation.formula import Formula

PATHS = ("plain", "blockwise", "kernel", "compiled")

#: From how many numbers on the path is worth its start: a kernel takes half a second to translate, once.
_KERNEL_FROM = 1 << 20
_COMPILED_FROM = 1 << 20


@dataclass(frozen=True)
class Choice:
    """The path that runs, and the reason in a sentence."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class _Wish:
    path: str | None = None
    gradient_buffer: Tensor | None = None


_NOTHING = _Wish()
_NO_TENSOR = frozenset([None])
_WISH: ContextVar[_Wish] = ContextVar("lastlayer_evaluation")


@contextmanager
def evaluate_with(*, path: str | None = None, gradient_buffer: Tensor | None = None) -> Iterator[None]:
    """How losses are evaluated inside the ``with`` block.

    Args:
        path: ``"plain"``, ``"blockwise"``, ``"kernel"`` or ``"compiled"``; ``None`` leaves the choice to the library.
            Under a transform of PyTorch (``torch.func``, ``torch.compile``, forward mode) the plain path runs
            whatever is asked for.
        gradient_buffer: where the gradient with respect to the raw output is written, of its shape, dtype and device.
            A buffer that is used again saves the page faults of a fresh one, which on a CPU cost more than the loss.
            The raw output itself may be given: its numbers are then lost, and autograd notices if another operation
            still needs them. A buffer holds one gradient at a time: take the backward pass before the next loss.

    Raises:
        InputError: for a path that is not known or, when a loss is called, cannot serve it.
        ShapeError: when a loss is called whose raw output the buffer does not fit.

    Example:
        >>> import torch, lastlayer
        >>> scores, classes = torch.zeros(3, 4, requires_grad=True), torch.tensor([0, 1, 2])
        >>> with evaluate_with(path="blockwise", gradient_buffer=torch.empty(3, 4)):
        ...     lastlayer.losses.cross_entropy(scores, classes).backward()
        >>> scores.grad[0]
        tensor([-0.2500,  0.0833,  0.0833,  0.0833])
    """
    if path is not None:
        check_choice(path, PATHS, what="path")
    token = _WISH.set(_Wish(path, gradient_buffer))
    try:
        yield
    finally:
        _WISH.reset(token)


def nothing_special(formula: Formula, raw: Tensor, target: Tensor) -> bool:
    """Whether :func:`why_plain` has nothing to say and nothing was asked for: the same questions, in a microsecond."""
    return (
        not torch.compiler.is_compiling()
        and not transforming()
        and not _forward_mode()
        and _WISH.get(_NOTHING) is _NOTHING
        and type(raw) is Tensor
        and type(target) is Tensor
        and not target.requires_grad
        and _NO_TENSOR.issuperset(formula.tensors)
        and torch._C._get_tracing_state() is None
    )


def gradient_buffer_for(raw: Tensor) -> Tensor | None:
    """The buffer that was asked for.

    Raises:
        ShapeError: if it does not fit the raw output.
        InputError: if it lies over the raw output in another order, so that one would be lost before it is read.
    """
    buffer = _WISH.get(_NOTHING).gradient_buffer
    if buffer is None:
        return None
    if (buffer.shape, buffer.dtype, buffer.device) != (raw.shape, raw.dtype, raw.device):
        raise ShapeError(
            f"gradient_buffer is {shape_text(buffer)}, {buffer.dtype} on {buffer.device}; raw is {shape_text(raw)}, "
            f"{raw.dtype} on {raw.device}. Fix: torch.empty_like(raw)."
        )
    if not lies_over(buffer, raw) and _overlap(buffer, raw):
        raise InputError(
            "gradient_buffer shares memory with raw, in another order. Fix: give raw itself, or torch.empty_like(raw)."
        )
    return buffer.detach()


def lies_over(buffer: Tensor, raw: Tensor) -> bool:
    """Whether the two are the same numbers in the same order."""
    return buffer.data_ptr() == raw.data_ptr() and buffer.stride() == raw.stride() and raw.numel() > 0


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether the memory between the first and the last number of both has something in common."""
    if not one.numel() or one.device.type == "meta":
        return False
    (start, end), (begin, stop) = (
        (
            tensor.data_ptr(),
            tensor.data_ptr()
            + tensor.element_size()
            * (1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))),
        )
        for tensor in (one, other)
    )
    return start < stop and begin < end


def choose_path(formula: Formula, raw: Tensor, *others: Tensor | float | None, reduction: str = "mean") -> Choice:
    """The path for this raw output; ``others`` are the target, weights and normalizer.

    Raises:
        InputError: if a path was asked for that cannot serve.
    """
    reason = why_plain(formula, raw, *others)
    if reason:
        return Choice("plain", reason)
    target = others[0] if others and isinstance(others[0], Tensor) else None
    wish = _WISH.get(_NOTHING).path
    if wish is not None:
        obstacle = _obstacle(wish, formula, raw, target, reduction)
        if obstacle:
            raise InputError(f"the path {wish!r} was asked for and cannot serve: {obstacle}.")
        return Choice(wish, "asked for")
    if raw.is_cuda:
        obstacle = _obstacle("compiled", formula, raw, target, reduction)
        if raw.numel() < _COMPILED_FROM:
            obstacle = f"fewer than {_COMPILED_FROM} numbers do not repay compiling"
        return Choice("blockwise", obstacle) if obstacle else Choice("compiled", "one fused loop on the GPU")
    if raw.numel() < _KERNEL_FROM:
        return Choice("blockwise", "value and closed-form gradient in one sweep")
    obstacle = _obstacle("kernel", formula, raw, target, reduction) or kernels.not_quicker(formula, raw)
    if obstacle:
        return Choice("blockwise", f"value and closed-form gradient, block by block in cache; no kernel: {obstacle}")
    return Choice("kernel", "value and closed-form gradient in one compiled loop")


def _obstacle(path: str, formula: Formula, raw: Tensor, target: Tensor | None, reduction: str) -> str:
    """Why the path cannot serve; empty if it can."""
    if path == "kernel":
        if reduction == "none":
            return "a kernel adds the values up, and every single one is wanted"
        buffer = _WISH.get(_NOTHING).gradient_buffer
        if buffer is not None and not buffer.is_contiguous():
            return "gradient_buffer is not contiguous"
        return kernels.obstacle(formula, raw, target)
    if path == "compiled" and raw.is_cuda and not _installed("triton"):
        return "torch.compile needs Triton for this GPU"
    return ""


def why_plain(formula: Formula, raw: Tensor, *others: Tensor | float | None) -> str:
    """Why the readable formula under autograd is to run: nothing else is right, or it was asked for. Else empty."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "the compiler fuses the readable formula itself"
    if transforming():
        return "a torch.func transform differentiates the readable formula"
    if _forward_mode():
        return "forward-mode differentiation goes through the readable formula"
    if type(raw) is not Tensor and type(raw) is not torch.nn.Parameter:
        return f"{type(raw).__name__} is a subclass with rules of its own"
    for tensor in (*others, *formula.tensors):
        if isinstance(tensor, Tensor):
            if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
                return f"{type(tensor).__name__} is a subclass with rules of its own"
            if tensor.requires_grad:
                return "more than the raw output needs a gradient"
    return "asked for" if _WISH.get(_NOTHING).path == "plain" else ""


# None of these questions has a public answer. Where PyTorch renames them, autograd refuses the closed form under the
# transform with an error of its own: loud, not wrong.
transforming = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_legacy_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)


def many_at_once(upstream: Tensor) -> bool:
    """Whether these are many upstream gradients in one (``is_grads_batched``), of which a sweep knows nothing."""
    return transforming() or _legacy_batched(upstream)


def _forward_mode() -> bool:
    return getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0


@cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
