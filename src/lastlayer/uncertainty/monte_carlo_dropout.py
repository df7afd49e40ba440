"""Monte Carlo dropout: one network, asked many times with its dropout left on, as the members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lastlayer.activations import Activation, ReLU
from lastlayer.checks import InputError, ShapeError, shape_text
from lastlayer.networks import Dropout, Linear, TabularNetwork
from lastlayer.networks.seeded_dropout import SeededDropout

# Rows that any module sees at once, as in training's own evaluation.
_ROWS_AT_ONCE = 4096
# Units of the widest layer in a block: two buffers of half a megabyte each stay in a core's second-level cache.
_UNITS_AT_ONCE = 1 << 17
# Rows in a block, each with as many draws as fit: what the draws share is then read from the first-level cache.
_ROWS_OF_A_BLOCK = 128


@torch.no_grad()
def dropout_members(
    network: nn.Module, features: Tensor, members: int, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """Raw output of ``members`` draws of the network's dropout: samples from the approximate posterior of its weights.

    ``head.distribution(raw).mixed()`` is then the prediction, the exact mixture with its density and quantiles, and
    ``decompose(head.distribution(raw))`` tells noise from the draws' disagreement.

    Domain: a module with at least one layer of dropout that drops something: any of PyTorch's, the library's own,
    attention and recurrent layers with a dropout of their own, and modules with "Dropout" in their class's name.
    Everything else, batch normalization above all, is as in evaluation.

    Formula: with dropout as a Bayesian approximation, T draws ``ŷ_t`` and a Gaussian of precision τ, predictive mean
    ``1/T Σ ŷ_t``, variance ``τ⁻¹ + 1/T Σ ŷ_t² − (1/T Σ ŷ_t)²``, log-likelihood
    ``logsumexp_t(−½ τ (y − ŷ_t)²) − log T − ½ log 2π + ½ log τ``: those are ``mean``, ``variance`` and ``log_prob(y)``
    of ``Gaussian(scale=τ**-0.5).distribution(raw).mixed()``, and of any other head's mixture likewise. The objective
    that such a network minimizes, ``1/N Σ E + λ Σ (‖W‖² + ‖b‖²)``, is its loss plus
    ``l2_penalty(network, 2 * λ, include="all")``.

    Shapes: features ``(n, ...)``; raw ``(members, n, ...)``. A network that is an ensemble itself, of M members and
    raw output ``(M, n, ...)``, gives ``(members · M, n, ...)``, draw after draw.

    Numerics: what is drawn is independent for every member, row and unit. The same seed gives the same members, in
    batches of the same size, on the same device. ``networks.TabularNetwork`` on a CPU runs its layers before the first
    dropout once, and the others in blocks that stay in cache.

    Special cases: training flags and the global random state are afterwards as they were, also when a layer raises.
    Nothing is recorded for autograd.

    Args:
        members: how many draws.
        seed: of the draws, 0 or more; calls whose members shall differ need seeds that do.
        batch_size: rows at once, at most; a few thousand where left out.

    Raises:
        InputError: if no layer drops anything, or members, seed or batch_size are no such numbers.
        ShapeError: if the raw output does not have one row for each of the features'.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        >>> dropout_members(network, torch.ones(5, 3), members=100).shape
        torch.Size([100, 5, 1])

    Reference: SPEC B19; Y. Gal, Z. Ghahramani, Dropout as a Bayesian approximation (ICML 2016).
    """
    for what, value, least in (("members", members, 1), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"{what} is {value!r}; expected a whole number from {least} on.")
    if features.dim() == 0:
        raise ShapeError("the features have shape (); expected (n, ...), one row for each prediction.")
    dropping = [module for module in network.modules() if _drops(module)]
    if not dropping:
        raise InputError(
            f"{type(network).__name__} has no dropout that drops anything, so that its members would all be the same. "
            f"Fix: train it with dropout, nn.Dropout(0.1) behind each hidden layer for example, or build an ensemble."
        )
    rows = batch_size or _ROWS_AT_ONCE
    # PyTorch leaves out dropout in fused inference, unless the module around the layers is in training too.
    around = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
    fused = [module for module in network.modules() if isinstance(module, around)]
    if isinstance(network, TabularNetwork) and _can_be_blocked(network, features):
        with _in_training(network, []):
            return _by_blocks(network, features, members, SeededDropout(seed), rows)
    with _in_training(network, [*dropping, *fused]), _seeded(network, features, seed):
        return _one_after_another(network, features, members, rows)


def _drops(module: nn.Module) -> bool:
    """Whether the module itself, apart from those inside it, drops something while it is in training."""
    if isinstance(module, Dropout):
        return module.dropped > 0
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    named = isinstance(module, _DropoutNd) or "Dropout" in type(module).__name__
    return named and bool(getattr(module, "p", 1.0))


@contextmanager
def _in_training(network: nn.Module, chosen: list[nn.Module]) -> Iterator[None]:
    """Puts those modules into training and all others into evaluation; afterwards all are as they were.

    The flags alone: a module's own ``train`` may do more than that, and passes on to the modules inside it.
    """
    before = [(module, module.training) for module in network.modules()]
    try:
        for module, flag in before:
            # Most are in evaluation already, and setting an attribute of a module takes its time.
            if flag:
                module.training = False
        for module in chosen:
            module.training = True
        yield
    finally:
        for module, flag in before:
            if module.training != flag:
                module.training = flag


@contextmanager
def _seeded(network: nn.Module, features: Tensor, seed: int) -> Iterator[None]:
    """Seeds the random state that dropout draws from, of the devices in use alone, and brings it back."""
    tensors = (features, *network.parameters(), *network.buffers())
    devices = sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def _one_after_another(network: nn.Module, features: Tensor, members: int, rows: int) -> Tensor:
    """Of any module: one call for each draw and part of the rows, written to where it belongs."""
    # An ensemble's raw output has its members in front of the rows.
    before_rows = 0 if getattr(network, "members", None) is None else 1
    result: Tensor | None = None
    for start, part in zip(range(0, max(len(features), 1), rows), features.split(rows), strict=True):
        for member in range(members):
            raw = network(part)
            if raw.dim() <= before_rows or raw.shape[before_rows] != len(part):
                leading = "(n, ...)" if before_rows == 0 else "(members, n, ...)"
                raise ShapeError(
                    f"{type(network).__name__} gave raw output of shape {shape_text(raw)} for {len(part)} rows; "
                    f"expected {leading}."
                )
            if result is None:
                shape = (members, *raw.shape[:before_rows], len(features), *raw.shape[before_rows + 1 :])
                result = raw.new_empty(shape)
            result[member].narrow(before_rows, start, len(part)).copy_(raw)
    assert result is not None
    return result.flatten(0, 1) if before_rows else result


def _can_be_blocked(network: TabularNetwork, features: Tensor) -> bool:
    """Whether the formulas of layers that are known here are all that a call of this network would do."""
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    own = type(network).forward is TabularNetwork.forward
    return (
        own
        and not hooked
        and all(map(_is_known, (*network.body, network.last)))
        and features.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def _is_known(layer: nn.Module) -> bool:
    """Whether the layer's formula and the width of its output are known here."""
    return type(layer) in (Linear, Dropout) or (isinstance(layer, Activation) and layer.facts.elementwise)


def _by_blocks(network: TabularNetwork, features: Tensor, members: int, source: SeededDropout, rows: int) -> Tensor:
    """Of the library's own network: what its draws share is computed once for a few thousand rows."""
    networks = 1 if network.members is None else network.members
    result: Tensor | None = None
    for start, part in zip(range(0, max(len(features), 1), rows), features.split(rows), strict=True):
        shared, layers = network.before_dropout(part)
        if result is None:
            result = shared.new_empty(members, networks, len(features), network.last.units)
        for number in range(networks):
            own, member = (shared, None) if network.members is None else (shared[number], number)
            _draw_blocks(layers, member, own, source, result[:, number, start : start + rows])
    assert result is not None
    return result.flatten(0, 1)


def _draw_blocks(
    layers: Sequence[nn.Module], member: int | None, shared: Tensor, source: SeededDropout, result: Tensor
) -> None:
    """The draws of one network, shape (draws, n, raw_size), in blocks of one size: some rows, each drawn many times."""
    draws, count, _ = result.shape
    if count == 0:
        return
    widest = max(1, shared.shape[1], *(layer.units for layer in layers if isinstance(layer, Linear)))
    rows = -(-count // -(-count // _ROWS_OF_A_BLOCK))
    most = max(_UNITS_AT_ONCE // (rows * widest), 1)
    draws_at_once = -(-draws // -(-draws // most))
    kept = shared.new_empty(rows * draws_at_once * widest)
    steps: dict[tuple[int, int], list[Step]] = {}
    for start in range(0, count, rows):
        part = shared[start : start + rows].contiguous()
        for first in range(0, draws, draws_at_once):
            block = result[first : first + draws_at_once, start : start + rows]
            shape = block.shape[0], block.shape[1]
            if shape not in steps:
                steps[shape] = _steps(layers, member, shared, kept, shape, source)
            x = part
            for step in steps[shape]:
                x = step(x)
            block.copy_(x.view(block.shape))


Step = Callable[[Tensor], Tensor]


def _steps(
    layers: Sequence[nn.Module],
    member: int | None,
    like: Tensor,
    kept_memory: Tensor,
    shape: tuple[int, int],
    source: SeededDropout,
) -> list[Step]:
    """The layers from the first dropout on, for blocks of (draws, rows): each writes into memory that is there already.

    The factor by which dropout scales what it keeps is part of the next layer's weights. Bias and rectifier of a layer
    that dropout follows are left to the pass that drops.
    """
    draws, rows = shape
    width = like.shape[1]
    steps: list[Step] = []
    bias_left: Tensor | None = None
    scale = 1.0
    for place, layer in enumerate(layers):
        if isinstance(layer, Dropout):
            if not layer.dropped:
                continue
            size = draws * rows * width
            # What a linear layer reads next is free again for the dropout after it.
            memory = kept_memory if type(layers[place + 1]) is Linear else like.new_empty(size)
            kept = memory[:size].view((draws, rows, width) if place == 0 else (1, draws * rows, width))
            steps.append(source.into(kept, layer.dropped, bias_left))
            steps.append(lambda x: x.flatten(0, 1))
            scale, bias_left = scale * layer.scale, None
        elif isinstance(layer, Linear):
            weight, bias = (own if member is None else own[member] for own in (layer.weight, layer.bias))
            width = layer.units
            leaves_bias = [type(each) for each in layers[place + 1 : place + 3]] == [ReLU, Dropout]
            leaves_bias = leaves_bias and cast(Dropout, layers[place + 2]).dropped > 0
            bias_left = bias if leaves_bias else None
            steps.append(
                _linear(weight.t() * scale, None if leaves_bias else bias, like.new_empty(draws * rows, width))
            )
            scale = 1.0
        else:
            if scale != 1.0:
                steps.append(partial(torch.mul, other=scale))
                scale = 1.0
            if bias_left is None:
                steps.append(_in_place(layer))
    return steps


def _linear(weight: Tensor, bias: Tensor | None, out: Tensor) -> Step:
    if bias is None:
        return lambda x: torch.mm(x, weight, out=out)
    return lambda x: torch.addmm(bias, x, weight, out=out)


def _in_place(layer: nn.Module) -> Step:
    """The layer; an activation without chance may write over its input."""
    if isinstance(layer, Activation) and type(layer).forward is Activation.forward:
        return lambda x: layer.record(x, in_place=True)[0].contiguous()
    return lambda x: layer(x).contiguous()
