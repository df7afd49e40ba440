"""Fresh memory for a large gradient."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20
#: Below this the allocator hands out memory it has had before, which is in small pages already.
_WORTH_IT = 32 << 20
_MADV_HUGEPAGE = 14


def fresh_gradient(raw: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized tensor like ``raw``, in huge pages where Linux gives them.

    Touching 256 MB of fresh memory for the first time costs several copies of it in page faults, one per 4 KB. Asked
    for 2 MB at a time, as the kernel may do on request, the cost is less than one copy.
    """
    gradient = torch.empty_like(raw, dtype=dtype, requires_grad=False)
    size = gradient.numel() * gradient.element_size()
    if size >= _WORTH_IT and gradient.device.type == "cpu":
        start = -(-gradient.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (gradient.data_ptr() + size - start) // _HUGE_PAGE * _HUGE_PAGE
        _advise()(start, length)
    return gradient


@cache
def _advise() -> Callable[[int, int], object]:
    """The system call; a refusal costs speed alone."""
    if not sys.platform.startswith("linux"):
        return lambda start, length: None
    madvise = ctypes.CDLL(None).madvise
    return lambda start, length: madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
