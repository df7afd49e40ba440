"""A network or a loss with one operation left out, wherever it is written: what a fix that removes it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import Subject, loss_of
from lastlayer.diagnosis.trial import compare

#: Of a batch, so many rows are enough to see what a fix does; for a network with many units fewer, since a trial is
#: 160 passes: as many as have a million numbers in one, and a few at least.
MOST_ROWS, FEWEST_ROWS, NUMBERS = 128, 8, 1_000_000
# A function and which of its calls in one pass is meant, counted from 1.
_Call = tuple[Callable[..., Any], int]


class _LeavingOut(TorchFunctionMode):
    """While it is active, these calls give back what they are given. Each pass has one of its own, which counts."""

    def __init__(self, calls: frozenset[_Call]) -> None:
        super().__init__()
        self._calls = calls
        self._counts: dict[Callable[..., Any], int] = {}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        number = self._counts[function] = self._counts.get(function, 0) + 1
        if (function, number) in self._calls:
            return args[0] if args else kwargs["input"]
        return function(*args, **kwargs)


class _Network(nn.Module):
    """A network without some of its operations."""

    def __init__(self, network: nn.Module, calls: frozenset[_Call]) -> None:
        super().__init__()
        self.network = network
        self._calls = calls

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _LeavingOut(self._calls):
            return self.network(*args, **kwargs)


def without(subject: Subject, operations: Sequence[Operation]) -> tuple[nn.Module, Callable[[Any, Tensor], Tensor]]:
    """The subject's network and loss without these operations of its training pass, each of which passes on its input.

    Special cases: operations that were inferred cannot be left out, as no call of theirs is seen.
    """
    calls: dict[bool, set[_Call]] = {False: set(), True: set()}
    for operation in operations:
        part = [one for one in subject.training_pass.operations if one.within_loss == operation.within_loss]
        number = sum(one.function == operation.function for one in part if one.index <= operation.index)
        calls[operation.within_loss].add((operation.function, number))
    compute = loss_of(subject.loss)

    def loss(raw: Any, target: Tensor) -> Tensor:
        with _LeavingOut(frozenset(calls[True])):
            return compute(raw, target)

    return _Network(subject.network, frozenset(calls[False])), loss


def tried_without(subject: Subject, operations: Sequence[Operation], *, fix: str) -> str | None:
    """What leaving these operations out does to the first steps, in a sentence; ``None`` if it cannot be tried."""
    if any(operation.inferred for operation in operations):
        return None
    few, on = with_few_rows(subject)
    return compare(few, lambda: without(subject, operations), fix=f"{fix}{on}")


def with_few_rows(subject: Subject) -> tuple[Subject, str]:
    """The subject with the first rows of its batch only, so that a trial does not take long, and words that say so."""
    rows, target = subject.rows, subject.target
    outputs = [operation.output for operation in subject.training_pass.of_network if operation.output is not None]
    numbers = sum(output.numel() for output in outputs) / max(1, rows)
    kept = min(MOST_ROWS, max(FEWEST_ROWS, int(NUMBERS / max(1.0, numbers))))
    if rows <= kept or target is None or target.dim() == 0 or len(target) != rows:
        return subject, ""

    def first(values: Any) -> Any:
        if isinstance(values, Tensor) and values.dim() and len(values) == rows:
            return values[:kept]
        if isinstance(values, dict):
            return {name: first(value) for name, value in values.items()}
        return tuple(map(first, values)) if type(values) is tuple else values

    few = Subject(subject.network, subject.loss, first(subject.features), first(target))
    return few, f", on its first {kept} rows"
