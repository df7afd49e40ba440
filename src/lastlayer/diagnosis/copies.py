"""What makes probing leave no trace: copies of networks and inputs, and the caller's state given back."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lastlayer.checks import KindError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# A copy calls about six functions per level of nesting, a forward pass three and a hooked one four: whatever runs
# within the interpreter's limit can also be copied and watched within this many times it.
_DEEPER = 8


def copy_of(network: nn.Module) -> nn.Module:
    """A copy that can be trained, probed and changed without a trace on the network.

    Special cases: hooks of the user's are left out, because what they write to is not copied; methods of the network's
    own modules and hooks of PyTorch's (weight normalization, pruning, lazy modules) are part of the network. Tensors
    with a graph, which a module keeps of its last forward pass, are copied as plain numbers. What can be copied by
    nobody (a lock, a log file) is shared.

    Raises:
        KindError: for a network that cannot be copied.
    """
    network = getattr(network, "_orig_mod", network)  # Of a compiled one, what was compiled.
    try:
        # Without gradients, or the copy of a scripted module's parameters would be results, and no parameters.
        with deep_recursion(), torch.inference_mode(False), torch.no_grad():
            try:
                copied = copy.deepcopy(network, _replacements(network))
            except TypeError:
                copied = copy.deepcopy(network, _replacements(network) | _shared(network))
    except Exception as error:
        raise KindError(
            f"{type(network).__name__} cannot be copied ({error}), and the doctor works on a copy. Diagnose before the "
            f"first forward pass, or keep no tensors with a graph in the module."
        ) from error
    for parameter, original in zip(copied.parameters(), network.parameters(), strict=False):
        if parameter.requires_grad != original.requires_grad:
            parameter.requires_grad_(original.requires_grad)
    for module in copied.modules():
        for kind in _HOOKS:
            hooks = getattr(module, kind)
            for key in [key for key, hook in hooks.items() if hook is _no_hook]:
                del hooks[key]
    return copied


def copy_of_inputs(values: Any) -> Any:
    """The same tensors, batches or dictionaries of them, over other memory and without a graph."""
    if isinstance(values, Tensor):
        return values.detach().clone().requires_grad_(values.requires_grad)
    if isinstance(values, dict):
        return {name: copy_of_inputs(value) for name, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(map(copy_of_inputs, values))
    return values


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the caller's random state is left as it was: PyTorch's, NumPy's and Python's."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is the one that people draw from)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextmanager
def kept_gradients(value: Tensor, network: nn.Module) -> Iterator[None]:
    """A backward pass inside gives gradients to this network alone.

    A loss may reach further, by a penalty on the caller's own network or through another that it holds; whatever such
    parameters had as ``grad``, they have afterwards.
    """
    own = {id(parameter) for parameter in network.parameters()}
    foreign = {id(leaf): leaf for leaf in _leaves(value) if id(leaf) not in own}.values()
    before = [(leaf, leaf.grad) for leaf in foreign]
    try:
        for leaf, _ in before:
            leaf.grad = None
        yield
    finally:
        for leaf, gradient in before:
            leaf.grad = gradient


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Room for networks nested as deeply as the interpreter allows their own forward pass to be."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(_DEEPER * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def ordinary_mode(network: nn.Module) -> Iterator[None]:
    """Gradients on, whatever mode the caller is in; compiled submodules run as they were written."""
    compiled = any(hasattr(module, "_orig_mod") for module in network.modules())
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, torch.inference_mode(False), torch.enable_grad():
        yield


def _no_hook(*arguments: Any, **keywords: Any) -> None:
    """Stands in a copy for a hook of the user's."""


def _replacements(network: nn.Module) -> dict[int, Any]:
    """What the copy has in place of what must not or cannot be copied, as ``deepcopy`` takes it."""
    replaced: dict[int, Any] = {}
    own = {id(module) for module in network.modules()}
    for module in network.modules():
        for kind in _HOOKS:
            for hook in getattr(module, kind, {}).values():
                if not _is_of_pytorch(hook) and id(getattr(hook, "__self__", None)) not in own:
                    replaced[id(hook)] = _no_hook
        for tensor in _with_graph(vars(module)):
            replaced[id(tensor)] = tensor.detach().clone()
    return replaced


def _is_of_pytorch(hook: Any) -> bool:
    function = getattr(hook, "__func__", hook)
    home = getattr(function, "__module__", None) or type(hook).__module__
    return home == "torch" or home.startswith("torch.")


def _with_graph(values: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors in a module's attributes that are a result of operations."""
    if isinstance(values, Tensor):
        if not values.is_leaf:
            yield values
    elif depth and isinstance(values, dict | list | tuple | set):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _with_graph(value, depth - 1)


def _shared(network: nn.Module) -> dict[int, Any]:
    """Attributes that nobody can copy, as themselves."""
    shared: dict[int, Any] = {}
    for module in network.modules():
        for name, value in vars(module).items():
            if name.startswith("_") and isinstance(value, dict):
                continue  # PyTorch's registers.
            try:
                copy.deepcopy(value, _replacements(network))
            except TypeError:
                shared[id(value)] = value
    return shared


def _leaves(value: Tensor) -> Iterable[Tensor]:
    """The tensors that the backward pass of this one gives gradients to."""
    waiting = [value.grad_fn] if value.grad_fn is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
