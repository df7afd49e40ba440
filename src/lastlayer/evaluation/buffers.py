"""Memory for a large gradient: in huge pages, and the last one again once nobody holds it."""

from __future__ import annotations

import mmap
import threading
import weakref

import torch
from torch import Tensor

#: Below this the C library hands out memory that it has had before.
_WORTH_IT = 32 << 20

# A place for one: what a training loop needs is the gradient of the step before. None of another process's: after a
# fork it holds a copy, which is as good.
_idle: list[mmap.mmap] = []
# Reentrant: the garbage collector may give a place back while one is being taken.
_lock = threading.RLock()


def fresh_gradient(raw: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized tensor like ``raw``.

    Touching 256 MB for the first time costs several copies of it in page faults, one per 4 KB. So a large gradient on
    the CPU asks Linux for pages of 2 MB, and its memory, when the last tensor over it is gone, is kept for the next
    one of its size: one at a time, until another size is asked for or :func:`release_memory` is called.
    """
    dtype = dtype or raw.dtype
    size = raw.numel() * dtype.itemsize
    if size < _WORTH_IT or raw.device.type != "cpu" or not raw.is_contiguous():
        return torch.empty_like(raw, dtype=dtype, requires_grad=False)
    memory = _take(size)
    view = memoryview(memory)
    gradient = torch.frombuffer(view, dtype=dtype, count=raw.numel()).view(raw.shape)
    # The tensors over it hold the view; with the last of them it goes, and says so.
    weakref.finalize(view, _give_back, memory).atexit = False
    return gradient


def release_memory() -> None:
    """Gives the memory of the last large gradient back to the system."""
    with _lock:
        _idle.clear()


def _take(size: int) -> mmap.mmap:
    with _lock:
        found = _idle.pop() if _idle else None
    if found is not None and len(found) == size:
        return found
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _give_back(memory: mmap.mmap) -> None:
    with _lock:
        _idle[:] = [memory]
