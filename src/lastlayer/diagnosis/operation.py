"""One call of a function during a pass: what it is, what went in, what came out, and what it belongs to."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Functions with weights, by the name PyTorch gives them.
WEIGHT = names(
    """linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul mm bmm addmm
    baddbmm einsum embedding lstm gru rnn_tanh rnn_relu multi_head_attention_forward"""
)
#: Functions of one element each.
ACTIVATION = names(
    """relu leaky_relu prelu rrelu elu selu celu gelu silu mish softplus tanh sigmoid hardtanh relu6 hardswish
    hardsigmoid softsign logsigmoid log_sigmoid tanhshrink softshrink hardshrink threshold arctan atan erf sin"""
)
NORMALIZATION = names("batch_norm layer_norm group_norm instance_norm local_response_norm rms_norm")
DROPOUT = names("dropout alpha_dropout feature_dropout dropout1d dropout2d dropout3d feature_alpha_dropout")
#: Functions over a whole axis that turn scores into probabilities, or their logarithms.
LINK = names("softmax log_softmax softmin gumbel_softmax")


def label(name: str, module: str, kind: str, *, layer: bool) -> str:
    """``layer '2' (ReLU)``, or ``relu in Net's forward``; a ``layer`` is named alone, whatever it calls."""
    inside = f"layer '{module}' ({kind})" if module else f"{kind}'s forward"
    same = re.sub(r"\dd$", "", kind.lower().replace("_", "")) == re.sub(r"\dd$", "", name.replace("_", ""))
    return inside if layer or (module and same) else f"{name} in {inside}"


def plain_options(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are no tensors: by name, or by position as ``"1"``."""
    given = {str(place): value for place, value in enumerate(arguments)} | dict(keywords)
    return {name: value for name, value in given.items() if not isinstance(value, Tensor)}


@dataclass(eq=False, repr=False)
class Operation:
    """One call of one function.

    Attributes:
        index: its place among the operations, counted from 0.
        name: the function as PyTorch names it, without the underscore of an in-place one: ``"conv2d"``, ``"relu"``.
        module: the innermost module it ran in, as ``named_modules`` spells it; ``""`` for the network's own forward.
        kind: the class of that module.
        within_loss: whether the loss called it, and not the network.
        parents: the operations its tensors came from; ``None`` stands for an input or a parameter.
        parameters: the network's parameters among its arguments, as they are or as views, by name.
        options: its arguments that are no tensors, by name or position.
        input: the first tensor it took, detached; ``None`` if it took none.
        output: the first tensor it gave, detached, as it was then; ``None`` if it gave none.
        gradient: of the loss with respect to ``output``; ``None`` before a backward pass, or if nothing depends on it.
        children: the operations that took its output.
        returned: whether its output left the network as (part of) its result.
        requires_grad: whether autograd follows its output; not under ``torch.no_grad()``, nor behind ``detach()``.
        in_place: whether it wrote its output over a tensor that was there.
        looked_at: whether something read its output that computes nothing of it: its shape, a number of it, as text.
        kept: whether something held its output when the forward pass was over: an attribute, a list.
        inferred: whether its call was not seen, because a scripted module or a custom ``autograd.Function`` made it,
            and autograd's graph or the module's result tells of it.
    """

    index: int
    name: str
    module: str
    kind: str
    within_loss: bool
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    parents: tuple[Operation | None, ...] = ()
    parameters: tuple[str, ...] = ()
    input: Tensor | None = None
    output: Tensor | None = None
    gradient: Tensor | None = None
    children: list[Operation] = field(default_factory=list)
    returned: bool = False
    requires_grad: bool = False
    in_place: bool = False
    looked_at: bool = False
    kept: bool = False
    inferred: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Its arguments that are no tensors: by name, or by position as ``"1"``."""
        return plain_options(self.arguments, self.keywords)

    @property
    def role(self) -> str:
        """``"weight"``, ``"activation"``, ``"normalization"``, ``"dropout"``, ``"link"`` or ``"other"``."""
        if self.name in WEIGHT and (self.parameters or self.name not in ("matmul", "mm", "bmm", "einsum")):
            return "weight"
        for role, functions in (
            ("activation", ACTIVATION),
            ("normalization", NORMALIZATION),
            ("dropout", DROPOUT),
            ("link", LINK),
        ):
            if self.name in functions:
                return role
        return "other"

    @property
    def label(self) -> str:
        """As a finding names it: ``layer '2' (ReLU)``, or ``relu in the network's forward``."""
        if self.within_loss:
            return f"{self.name} in the loss"
        return label(self.name, self.module, self.kind, layer=self.role == "weight" and bool(self.module))

    def __repr__(self) -> str:
        return f"<{self.label}>"

    @cached_property
    def slope(self) -> Tensor | None:
        """The derivative of an elementwise activation at every element of its input; ``None`` of anything else."""
        if self.role != "activation" or self.input is None or not self.input.is_floating_point():
            return None
        # Of a random one, as rrelu, a slope is drawn, and the caller's random state stays as it was.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            x = self.input.detach().requires_grad_(True)
            # A copy of the leaf, so that the function may write into it.
            taken = x.clone()
            arguments = (taken, *self.arguments[1:]) if self.arguments else ()
            keywords = self.keywords if self.arguments else {**self.keywords, "input": taken}
            (slope,) = torch.autograd.grad(self.function(*arguments, **keywords).sum(), x)
        return slope

    def ancestors(self) -> Iterator[Operation]:
        """The operations it depends on, the nearest first, each once."""
        seen: set[int] = set()
        waiting = deque(parent for parent in self.parents if parent is not None)
        while waiting:
            operation = waiting.popleft()
            if operation.index in seen:
                continue
            seen.add(operation.index)
            yield operation
            waiting.extend(parent for parent in operation.parents if parent is not None)


@dataclass(frozen=True)
class Refused:
    """The call of a function that raised.

    Attributes:
        name, module, kind, parents, parameters: as of an :class:`Operation`.
        shapes: of the tensors it was given, in order.
        dtypes: theirs.
        devices: theirs.
        arguments, keywords: all it was given, tensors detached.
        error: what it raised.
    """

    name: str
    module: str
    kind: str
    parents: tuple[Operation | None, ...]
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    devices: tuple[torch.device, ...] = ()
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Its arguments that are no tensors: by name, or by position as ``"1"``."""
        return plain_options(self.arguments, self.keywords)

    @property
    def label(self) -> str:
        """As a finding names it."""
        return label(self.name, self.module, self.kind, layer=self.name in WEIGHT and bool(self.module))
