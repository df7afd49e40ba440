"""What the doctor looks at before training: a network, its loss, a batch; and one pass through them on a copy."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from lastlayer.checks import KindError
from lastlayer.diagnosis.copies import (
    copy_of,
    copy_of_inputs,
    deep_recursion,
    kept_gradients,
    kept_random_state,
    ordinary_mode,
)
from lastlayer.diagnosis.trace import Operation, Refused, Trace
from lastlayer.heads import Head

__all__ = ["Failure", "Features", "Pass", "Subject", "call", "copy_of", "kept_random_state", "loss_of", "run"]

#: What a network takes: a tensor, or several by position or by name.
Features = Tensor | tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """Where a pass broke off.

    Attributes:
        stage: ``"forward"``, ``"loss"`` or ``"backward"``.
        error: what was raised.
        module: the innermost module it was raised in; ``""`` for the network's own forward, or outside of it.
        text: the end of its traceback.
        refused: the function that raised, with the shapes it was given; ``None`` if it was none of PyTorch's.
    """

    stage: str
    error: Exception
    module: str
    text: str
    refused: Refused | None


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        network: the copy it ran on; its parameters hold their gradients.
        operations: of the network and the loss, in order, with outputs and gradients.
        raw: what the network returned, detached; ``None`` if it raised, or returned no tensor.
        value: the loss, detached; ``None`` if there is none.
        failure: where it broke off; ``None`` if it did not.
        warnings: what PyTorch warned of, as text.
    """

    network: nn.Module
    operations: tuple[Operation, ...]
    raw: Tensor | None
    value: Tensor | None
    failure: Failure | None
    warnings: tuple[str, ...]

    @property
    def of_network(self) -> list[Operation]:
        """The network's operations, without the loss's."""
        return [operation for operation in self.operations if not operation.within_loss]

    @property
    def of_loss(self) -> list[Operation]:
        """The loss's operations."""
        return [operation for operation in self.operations if operation.within_loss]

    def with_role(self, role: str) -> list[Operation]:
        """The network's operations of a role, in order."""
        return [operation for operation in self.of_network if operation.role == role]


@dataclass
class Subject:
    """What is examined before training.

    Attributes:
        network: any module; it is copied, never changed.
        loss: a head, a loss of ours, a module of PyTorch's, or any function of (raw, target).
        features: what the network takes.
        target: what the loss takes.
        optimizer: the one that will train, if there is one.
        validation: features and target of other rows, if there are any.
        training: features and target of all rows to learn from, if they are more than the batch.
    """

    network: nn.Module
    loss: Any
    features: Features
    target: Tensor | None
    optimizer: Optimizer | None = None
    validation: tuple[Features, Tensor] | None = None
    training: tuple[Features, Tensor] | None = None
    #: For what several checks compute once, by a name of theirs.
    shared: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def training_pass(self) -> Pass:
        """A pass in training mode, as the first step would make it."""
        return run(self.network, self.loss, self.features, self.target, training=True)

    @cached_property
    def evaluation_pass(self) -> Pass:
        """A pass in evaluation mode: without dropout, with the running statistics of batch normalization."""
        return run(self.network, self.loss, self.features, self.target, training=False)

    @property
    def rows(self) -> int:
        """How many samples the batch has; 0 if that cannot be told."""
        first = next(iter(_tensors_of(self.features)), None)
        return 0 if first is None or first.dim() == 0 else len(first)


def call(network: nn.Module, features: Features) -> Any:
    """The network on copies of its inputs, so that one that works in place spoils nothing."""
    return _call(network, copy_of_inputs(features))


def learn_shapes(network: nn.Module, features: Features) -> None:
    """Lets a lazy network see its inputs, so that all of its parameters are there."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()):
        call(network, features)


def own_copy(loss: Any) -> Any:
    """A copy of a loss that is a module, which may have parameters and buffers; any other loss itself."""
    return copy_of(loss) if isinstance(loss, nn.Module) else loss


def _call(network: nn.Module, features: Features) -> Any:
    if isinstance(features, tuple):
        return network(*features)
    return network(**features) if isinstance(features, dict) else network(features)


def loss_of(loss: Any) -> Callable[[Any, Any], Tensor]:
    """The loss as a function of raw output and target, to one number.

    Raises:
        KindError: for something that cannot be called.
    """
    if isinstance(loss, Head):
        return lambda raw, target: loss.loss(raw, target)
    if not callable(loss):
        raise KindError(
            f"loss is {type(loss).__name__}; expected a head, a loss, a module, or a function of (raw, target)."
        )
    return lambda raw, target: _one_number(loss(raw, target))


def run(network: nn.Module, loss: Any, features: Features, target: Tensor | None, *, training: bool) -> Pass:
    """One pass through a copy of the network, and of the loss if it is a module; the caller's state is as it was.

    Without a loss or a target it is the forward pass alone.
    """
    network = copy_of(network)
    network.train(training)
    network.zero_grad(set_to_none=True)
    loss = own_copy(loss)
    trace = Trace(network)
    raw: Any = None
    value: Tensor | None = None
    failure: Failure | None = None
    stage = "forward"
    with (
        warnings.catch_warnings(record=True) as caught,
        kept_random_state(),
        ordinary_mode(network),
        deep_recursion(),
    ):
        warnings.simplefilter("always")
        features, target = copy_of_inputs(features), copy_of_inputs(target)
        try:
            with suppress(Exception):  # It is raised again where the operations are seen.
                learn_shapes(network, features)
            with trace:
                raw = _call(network, features)
                trace.mark_returned(raw)
                if loss is not None and target is not None:
                    stage, trace.within_loss = "loss", True
                    value = loss_of(loss)(raw, target)
                    trace.maker(value)  # Also where a custom function made it unseen.
            stage = "backward"
            if value is not None and value.requires_grad:
                with kept_gradients(value, network):
                    value.backward()
        except Exception as error:
            refused = trace.refused if trace.refused is not None and trace.refused.error in _chain(error) else None
            failure = Failure(stage, error, _module_of(error, network), traceback.format_exc(limit=-3), refused)
    trace.release()
    return Pass(
        network=network,
        operations=tuple(trace.operations),
        raw=raw.detach() if isinstance(raw, Tensor) else None,
        value=value.detach() if isinstance(value, Tensor) else None,
        failure=failure,
        warnings=tuple(str(warning.message) for warning in caught),
    )


def _one_number(value: Any) -> Tensor:
    """A loss per sample as its mean."""
    if not isinstance(value, Tensor):
        raise KindError(f"the loss returned {type(value).__name__}; expected a tensor.")
    return value if value.dim() == 0 else value.mean()


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised from or while handling."""
    chain: list[BaseException] = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None and earlier not in chain:
        chain.append(earlier)
    return chain


def _module_of(error: Exception, network: nn.Module) -> str:
    """The innermost module whose forward is on the traceback."""
    names = {id(module): name for name, module in network.named_modules()}
    found = ""
    frame = error.__traceback__
    while frame is not None:
        owner = frame.tb_frame.f_locals.get("self")
        found = names.get(id(owner), found)
        frame = frame.tb_next
    return found


def _tensors_of(features: Features) -> Iterator[Tensor]:
    values: Iterable[Any] = features if isinstance(features, tuple) else [features]
    if isinstance(features, dict):
        values = features.values()
    yield from (value for value in values if isinstance(value, Tensor))
