"""How many threads a small network trains with: one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_before = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operators use one thread in here, and as many as before once the last user has left.

    The matrix products of a mini-batch of a few hundred rows are over sooner than threads can be told of them: two
    cores gained a quarter on an idle machine, and on a busy one, where each waits for the other at every product,
    took twenty times as long. One thread also gives the same sums, bit for bit, whatever the number of cores.
    """
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_before)
