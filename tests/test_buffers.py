"""The memory of large gradients: never two tensors' at once, and the last one's again."""

from __future__ import annotations

import copy

import pytest
import torch

from lastlayer import losses
from lastlayer.evaluation import buffers


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffers, "_WORTH_IT", 1)
    buffers.release_memory()
    yield
    buffers.release_memory()


RAW = torch.zeros(64, 100)


def test_memory_comes_back_with_the_last_tensor_over_it() -> None:
    first = buffers.fresh_gradient(RAW)
    place, part = first.data_ptr(), first[3:].t()
    del first
    while_held = buffers.fresh_gradient(RAW)
    assert while_held.data_ptr() != place
    del part
    assert buffers.fresh_gradient(RAW).data_ptr() == place


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_a_tensor_like_any_other(dtype: torch.dtype) -> None:
    gradient = buffers.fresh_gradient(RAW, dtype=dtype)
    assert (gradient.shape, gradient.dtype, gradient.stride()) == (RAW.shape, dtype, RAW.stride())
    gradient.normal_()
    assert torch.equal(copy.deepcopy(gradient), gradient)


def test_two_at_once_share_nothing() -> None:
    one, other = (buffers.fresh_gradient(RAW).fill_(number) for number in (1.0, 2.0))
    assert (one == 1.0).all()
    assert (other == 2.0).all()


def test_another_size_and_a_release_let_go() -> None:
    del_me = buffers.fresh_gradient(RAW)
    del del_me
    assert len(buffers._idle) == 1
    small = buffers.fresh_gradient(RAW[:10])
    assert not buffers._idle
    del small
    buffers.release_memory()
    assert not buffers._idle


def test_gradients_of_two_losses_do_not_meet() -> None:
    """The second loss is taken while the first one's gradient is still wanted."""
    raw, target = torch.randn(64, 100, requires_grad=True), torch.randint(100, (64,))
    first = losses.cross_entropy(raw, target)
    second = losses.cross_entropy(raw, target.flip(0))
    first.backward()
    expected = raw.grad.clone()
    raw.grad = None
    second.backward()
    kept = raw.grad
    raw.grad = None
    losses.cross_entropy(raw, target).backward()
    torch.testing.assert_close(raw.grad, expected, rtol=0, atol=0)
    assert not torch.equal(kept, expected)


def test_what_is_not_contiguous_keeps_its_order() -> None:
    assert buffers.fresh_gradient(RAW.t()).stride() == RAW.t().stride()
