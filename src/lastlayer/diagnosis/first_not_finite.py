"""The first operation that makes NaN or infinity of finite numbers, in a forward pass or in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lastlayer.diagnosis.numerical_causes import cause_of_gradient, cause_of_output, inputs_of
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.tensors import each, tensors_in

# Who makes infinity here means it, as a mask before softmax; whoever makes NaN of it is to blame.
_MASKS = frozenset(["masked_fill", "full", "full_like", "where", "fill", "tensor", "triu", "tril", "setitem"])
_TAKES_INFINITY = frozenset(["softmax", "log_softmax", "logsumexp", "softmin", "scaled_dot_product_attention"])


@dataclass(frozen=True)
class Culprit:
    """The operation that made the first number that is not finite of numbers that are.

    Attributes:
        operation: it.
        stage: ``"forward"``: its output is not finite; ``"backward"``: the gradient it passes on is not, though the one
            that reached it is.
        what: ``"NaN"`` or ``"infinity"``.
        count, total: how many of how many numbers.
        cause: why, as far as its inputs tell.
        fix: what to do, in a sentence.
    """

    operation: Operation
    stage: Literal["forward", "backward"]
    what: Literal["NaN", "infinity"]
    count: int
    total: int
    cause: str
    fix: str

    @property
    def evidence(self) -> str:
        """What was seen, in a sentence."""
        of = "that come out" if self.stage == "forward" else "of the gradient that it passes on"
        is_are = "is" if self.count == 1 else "are"
        came = ", though all that went in was finite" if all(map(finite, inputs_of(self.operation))) else ""
        return f"{self.count} of the {self.total} numbers {of} {is_are} {self.what}{came}: {self.cause}."


def first_not_finite(operations: Sequence[Operation]) -> Culprit | None:
    """What made the first NaN or infinity that reached the loss, the network's result, or a gradient.

    Args:
        operations: of one forward pass, in order, with the loss's; with gradients, if there was a backward pass.

    Special cases: infinity that no result shows, as in a mask before softmax, is nobody's fault. ``None`` as well where
    it came from outside: from an input or a parameter.
    """
    for end in _ends(operations):
        if not finite(end.output):
            return _maker_of_output(end)
    return _maker_of_gradient(operations)


def _ends(operations: Sequence[Operation]) -> list[Operation]:
    """The operations whose outputs are results: the loss, or else what the network returned."""
    of_loss = [operation for operation in operations if operation.within_loss and not operation.children]
    if of_loss:
        # A custom function's own arithmetic leaves ends as well; the loss is where the gradient starts.
        return [operation for operation in of_loss if operation.gradient is not None] or of_loss[-1:]
    returned = [operation for operation in operations if operation.returned]
    return returned or [operation for operation in operations if not operation.children][-1:]


def _maker_of_output(end: Operation) -> Culprit | None:
    maker = end
    if has_nan(end.output):
        maker = _earliest(end, has_nan)
        if any(has_nan(tensor) for tensor in inputs_of(maker)):
            return None
        meant = maker.name in _TAKES_INFINITY and not any(tensor.isposinf().any() for tensor in inputs_of(maker))
        if not meant:
            maker = _earliest(maker, has_infinity)
    else:
        maker = _earliest(end, has_infinity)
    assert maker.output is not None
    return _culprit(maker, "forward", maker.output, *cause_of_output(maker))


def _earliest(end: Operation, bad: Callable[[Tensor | None], bool]) -> Operation:
    """The operation from which the bad numbers of this one come; masks are none."""
    here = end
    while True:
        earlier = [parent for parent in here.parents if parent is not None and bad(parent.output)]
        earlier = [parent for parent in earlier if has_nan(parent.output) or not _is_mask(parent)]
        if not earlier:
            return here
        here = min(earlier, key=lambda operation: operation.index)


def _is_mask(operation: Operation) -> bool:
    """Whether its infinities are meant: written by a mask, or held by a tensor from outside."""
    infinite = [parent for parent in operation.parents if parent is not None and has_infinity(parent.output)]
    if infinite:
        return all(map(_is_mask, infinite))
    return operation.name in _MASKS or any(has_infinity(tensor) for tensor in inputs_of(operation))


def _maker_of_gradient(operations: Sequence[Operation]) -> Culprit | None:
    bad = [operation for operation in operations if not finite(operation.gradient)]
    if bad:
        # Backward runs from the last operation to the first: whoever took this one's output passed it on.
        gradient = bad[-1].gradient
        assert gradient is not None
        takers = [child for child in bad[-1].children if child.gradient is not None and finite(child.gradient)]
        makers = [taker for taker in takers if not all(map(finite, pulled_back(taker)))] or takers
        if not makers:
            return None
        return _culprit(makers[-1], "backward", gradient, *cause_of_gradient(makers[-1]))
    for operation in reversed(operations):
        if operation.parameters and operation.role == "other":
            for gradient in pulled_back(operation):
                if not finite(gradient):
                    return _culprit(operation, "backward", gradient, *cause_of_gradient(operation))
    return None


def pulled_back(operation: Operation) -> list[Tensor]:
    """The gradients that an operation passes on to its inputs, computed once more; none where it cannot be repeated."""
    if operation.gradient is None or operation.inferred:
        return []
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1].clone()

    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            result = operation.function(*each(operation.arguments, leaf), **each(operation.keywords, leaf))
            output = next(tensors_in(result))
            gradients = torch.autograd.grad(output, leaves, operation.gradient, allow_unused=True)
    except (RuntimeError, TypeError, StopIteration):
        return []
    return [gradient for gradient in gradients if gradient is not None]


def _culprit(
    operation: Operation, stage: Literal["forward", "backward"], numbers: Tensor, cause: str, fix: str
) -> Culprit:
    what: Literal["NaN", "infinity"] = "NaN" if has_nan(numbers) else "infinity"
    return Culprit(operation, stage, what, int((~numbers.isfinite()).sum()), numbers.numel(), cause, fix)


def finite(tensor: Tensor | None) -> bool:
    """Whether all its numbers are."""
    return not _has(torch.isfinite, tensor, negated=True)


def has_nan(tensor: Tensor | None) -> bool:
    """Whether one of its numbers is NaN."""
    return _has(torch.isnan, tensor)


def has_infinity(tensor: Tensor | None) -> bool:
    """Whether one of its numbers is infinite."""
    return _has(torch.isinf, tensor)


def _has(which: Callable[[Tensor], Tensor], tensor: Tensor | None, *, negated: bool = False) -> bool:
    if tensor is None or not tensor.is_floating_point() or tensor.is_meta or tensor.is_nested:
        return False
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    found = which(tensor)
    return bool((~found if negated else found).any())
