"""The custom autograd functions of a training step: which they are, and what each is given."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.function import Function

from lastlayer.diagnosis.copies import copy_of, copy_of_inputs, deep_recursion, kept_random_state, ordinary_mode
from lastlayer.diagnosis.subject import Subject, call, loss_of, own_copy
from lastlayer.diagnosis.tensors import each, tensors_in


@dataclass(frozen=True)
class Applied:
    """One call of a custom autograd function.

    Attributes:
        function: its class.
        arguments: what it was given.
        learns: which of them are tensors that require a gradient.
    """

    function: type[Function]
    arguments: tuple[Any, ...]
    learns: tuple[bool, ...]


def applications(subject: Subject) -> list[Applied]:
    """One call of every custom function, in one more training step on a copy."""
    found: dict[type[Function], Applied] = {}
    with _watched(_kinds_in(_results(subject)), found):
        _results(subject)
    return list(found.values())


def _results(subject: Subject) -> list[Tensor]:
    """The loss, or else what the network returns, with its graph."""
    network = copy_of(subject.network)
    network.train()
    with warnings.catch_warnings(), kept_random_state(), ordinary_mode(network), deep_recursion():
        warnings.simplefilter("ignore")
        raw = call(network, subject.features)
        if subject.loss is None or subject.target is None:
            return list(tensors_in(raw))
        return [loss_of(own_copy(subject.loss))(raw, copy_of_inputs(subject.target))]


def _kinds_in(results: list[Tensor]) -> list[type[Function]]:
    """The custom functions in the graph that are neither PyTorch's nor ours."""
    kinds: dict[type[Function], None] = {}
    waiting = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        kind = getattr(node, "_forward_cls", None)
        if kind is not None and not is_known(kind):
            kinds[kind] = None
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return list(kinds)


@contextmanager
def _watched(kinds: list[type[Function]], found: dict[type[Function], Applied]) -> Iterator[None]:
    """Notes what each of these functions is given at its first call that is to have a gradient."""
    own: list[tuple[type[Function], Any]] = []
    for kind in kinds:
        own.append((kind, vars(kind).get("forward")))
        kind.forward = staticmethod(_noting(kind, kind.forward, found))  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, forward in own:
            if forward is None:
                del kind.forward
            else:
                kind.forward = forward  # type: ignore[method-assign]


def _noting(
    kind: type[Function], forward: Callable[..., Any], found: dict[type[Function], Applied]
) -> Callable[..., Any]:
    # Without setup_context the first argument is the context.
    apart = kind.setup_context is not Function.setup_context

    def noting(*arguments: Any) -> Any:
        given = arguments if apart else arguments[1:]
        learns = tuple(isinstance(one, Tensor) and one.is_floating_point() and one.requires_grad for one in given)
        if any(learns) and kind not in found:
            found[kind] = Applied(kind, each(given, lambda tensor: tensor.detach().clone()), learns)
        return forward(*arguments)

    return noting


def is_known(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", "lastlayer")
