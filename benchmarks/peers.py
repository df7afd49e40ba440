"""The same losses elsewhere: PyTorch's own, optax under ``jax.jit``, and the fused GPU libraries where installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.evaluation import evaluate_with
from lastlayer.losses import Loss

Criterion = Callable[[Tensor, Tensor], Tensor]


def _gaussian(raw: Tensor, target: Tensor) -> Tensor:
    location, scale = raw[..., 0], F.softplus(raw[..., 1]) + 1e-3
    return F.gaussian_nll_loss(location, target, scale * scale, full=True)


def _multilabel_margin(margin: float) -> Criterion:
    """PyTorch's hinge over embeddings, the nearest it has to ``Σ max(0, margin − ŷ o)``: one element at a time."""

    def criterion(raw: Tensor, target: Tensor) -> Tensor:
        sign = F.one_hot(target, raw.shape[-1]).to(raw.dtype).mul_(2).sub_(1)
        return F.relu(margin - sign * raw).sum(-1).mean()

    return criterion


TORCH: dict[str, Criterion] = {
    "squared_error": F.mse_loss,
    "absolute_error": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "cross_entropy": F.cross_entropy,
    "poisson_nll": lambda raw, target: F.poisson_nll_loss(raw, target, log_input=True, full=True),
    "gaussian_nll": _gaussian,
    "hinge": _multilabel_margin(0.5),
}


def torch_criterion(loss: Loss) -> tuple[Criterion, bool]:
    """PyTorch's own loss; where it has none, the readable formula under autograd. And whether it is its own."""
    own = TORCH.get(loss.facts.name)
    if own is not None:
        return own, True

    def plain(raw: Tensor, target: Tensor) -> Tensor:
        with evaluate_with(path="plain"):
            return loss(raw, target)

    return plain, False


def optax_step(name: str, raw: Tensor, target: Tensor) -> Callable[[], object] | None:
    """Value and gradient of optax's loss in one jitted function; ``None`` where it has none or is not installed."""
    if importlib.util.find_spec("jax") is None or importlib.util.find_spec("optax") is None:
        return None
    import jax
    import jax.numpy as jnp
    import optax

    losses = {
        "squared_error": optax.squared_error,
        "huber": optax.huber_loss,
        "log_cosh": optax.log_cosh,
        "binary_cross_entropy": optax.sigmoid_binary_cross_entropy,
        "focal": optax.sigmoid_focal_loss,
        "cross_entropy": optax.softmax_cross_entropy_with_integer_labels,
    }
    if name not in losses:
        return None

    def array(tensor: Tensor) -> jax.Array:
        if tensor.dtype == torch.bfloat16:
            return jnp.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
        return jnp.asarray(tensor.numpy())

    scores, wanted = array(raw), array(target)
    step = jax.jit(jax.value_and_grad(lambda scores, wanted: losses[name](scores, wanted).mean()))
    return lambda: jax.block_until_ready(step(scores, wanted))


def fused_linear_peers(features: Tensor, weight: Tensor, target: Tensor) -> dict[str, Callable[[], object]]:
    """One forward and backward of every other fused linear cross-entropy that is installed."""
    peers: dict[str, Callable[[], object]] = {}

    def backward(loss: Tensor) -> None:
        features.grad = weight.grad = None
        loss.backward()

    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        peers["F.linear_cross_entropy, chunked"] = lambda: backward(
            F.linear_cross_entropy(features, weight, target, options=options)
        )
    if features.is_cuda and importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss()
        peers["liger-kernel"] = lambda: backward(liger(weight, features, target))
    if features.is_cuda and importlib.util.find_spec("cut_cross_entropy") is not None:
        from cut_cross_entropy import linear_cross_entropy

        peers["cut-cross-entropy"] = lambda: backward(linear_cross_entropy(features, weight, target))
    if features.is_cuda and importlib.util.find_spec("quack") is not None:
        from quack.linear_cross_entropy import chunked_linear_cross_entropy

        peers["quack-kernels"] = lambda: backward(chunked_linear_cross_entropy(features, weight, target))
    return peers
