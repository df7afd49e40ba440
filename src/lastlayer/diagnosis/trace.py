"""Every operation of a forward pass, seen at PyTorch's Python interface: modules and plain functions alike."""

from __future__ import annotations

import gc
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from lastlayer.diagnosis.operation import (
    ACTIVATION,
    DROPOUT,
    LINK,
    NORMALIZATION,
    WEIGHT,
    Operation,
    Refused,
    names,
)
from lastlayer.diagnosis.tensors import detached, each, has_numbers, memory_of, shape_of, tensors_in, tensors_within

__all__ = ["ACTIVATION", "DROPOUT", "LINK", "NORMALIZATION", "WEIGHT", "Operation", "Refused", "Trace", "tensors_in"]

# Looks at a tensor, or sets a flag of it: no operation on its numbers, unless another tensor comes out.
_LOOKS = names(
    """__get__ __set__ size dim numel stride is_floating_point is_complex is_contiguous __len__ __repr__ __format__ item
    tolist requires_grad_ register_hook register_post_accumulate_grad_hook retain_grad backward data_ptr element_size
    type numpy __hash__ is_pinned storage_offset has_names names is_same_size __bool__ __index__ __int__ __float__
    get_device nelement ndimension is_signed __deepcopy__ is_inference is_conj is_neg untyped_storage"""
)
_IN_PLACE_OPERATORS = names("__iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ __ipow__ __iand__ __ior__")
_REVERSED_OPERATORS = names("__radd__ __rsub__ __rmul__ __rdiv__ __rtruediv__ __rmatmul__ __rpow__ __rand__ __ror__")
_Parents = tuple[Operation | None, ...]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _unseen(function: _Function) -> _Function:
    """The same function, whose own looks at tensors are not recorded."""

    @wraps(function)
    def unseen(*arguments: Any, **keywords: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*arguments, **keywords)

    return cast(_Function, unseen)


class Trace(TorchFunctionMode):
    """Records the operations of the network, and of the loss behind it, while it is active.

    Special cases: what runs inside one call of ``torch.nn.functional`` is one operation. What a scripted module or a
    custom ``autograd.Function`` does inside is not seen; where its result is used, autograd's graph tells where it
    came from, and one ``inferred`` operation stands for all of it. Outputs and inputs that are changed in place later,
    also through a view, are kept as they were. Inside ``torch.vmap`` and other transforms, whose tensors do not outlive
    them, operations are recorded without their numbers.

    Args:
        network: whose modules and parameters are named.

    Example:
        >>> network, features = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.ones(4, 2)
        >>> with Trace(network) as trace:
        ...     raw = network(features)
        >>> [(operation.name, operation.module) for operation in trace.operations]
        [('linear', '0'), ('relu', '1')]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.within_loss = False
        #: The call that raised last, if one did.
        self.refused: Refused | None = None
        self._network = network
        self._stack: list[tuple[str, str]] = []
        self._handles: list[RemovableHandle] = []
        self._parameters = {id(parameter): name for name, parameter in network.named_parameters()}
        # The tensors are kept, so that no other gets the id of one that is gone.
        self._made_by: dict[int, tuple[Operation, Tensor]] = {}
        self._made_by_node: dict[Any, Operation] = {}
        # Which operations hold tensors over the same memory: what an operation in place changes for all of them.
        self._over: dict[int, list[Operation]] = {}
        self._made_over: dict[int, set[int]] = {}
        self._listening: set[int] = set()
        self._deaf = False

    def __enter__(self) -> Trace:
        for name, module in self._network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # It takes no hooks.
            self._handles += [
                module.register_forward_pre_hook(self._entering(name), with_kwargs=True),
                module.register_forward_hook(self._leaving, with_kwargs=True, always_call=True),
            ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()

    @_unseen
    def maker(self, tensor: Tensor) -> Operation | None:
        """The operation that made this very tensor; ``None`` for an input or a parameter."""
        made = self._made_by.get(id(tensor))
        node = tensor.grad_fn if id(tensor) not in self._parameters and has_numbers(tensor) else None
        if made is not None:
            # Recorded inside of a custom function, whose own result it became only afterwards.
            custom = isinstance(node, BackwardCFunction) and node not in self._made_by_node
            return self._infer(tensor, node, within=made[0]) if custom else made[0]
        if node is None:
            return None
        return self._made_by_node.get(node) or self._infer(tensor, node)

    @_unseen
    def mark_returned(self, result: Any) -> None:
        """Marks the operations whose outputs the network returned, and those whose outputs something still holds.

        To be called when the forward pass is over.
        """
        for tensor in tensors_within(result):
            operation = self.maker(tensor)
            if operation is not None:
                operation.returned = True
        self._mark_kept()

    def release(self) -> None:
        """Lets go of the graph, keeping the operations with what they recorded."""
        for register in (self._made_by, self._made_by_node, self._over, self._made_over, self._listening):
            register.clear()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, spelled = function_name(function), str(getattr(function, "__name__", ""))
        given = list(tensors_in((args, kwargs)))
        looks = spelled in _LOOKS or name in _LOOKS
        in_place = bool(given) and not looks and _is_in_place(spelled, kwargs)
        if in_place:
            self._keep_what_was(kwargs["out"] if isinstance(kwargs.get("out"), Tensor) else given[0])
        parents = tuple(map(self.maker, given))
        for tensor, parent in zip(given, parents, strict=True):
            if parent is not None:
                self._listen(parent, tensor)
        before = detached(given[0], copied=in_place) if given else None
        arguments, keywords = each((tuple(args), kwargs), detached)
        if in_place:
            arguments, keywords = each((arguments, keywords), lambda tensor: None if tensor is None else tensor.clone())
        # An inner derivative, as of an energy with respect to the inputs, is not that of the loss.
        self._deaf, deaf = self._deaf or name == "grad", self._deaf
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if not looks:
                self.refused = self._refusal(name, error, given, parents, (arguments, keywords))
            raise
        finally:
            self._deaf = deaf
        made = list(tensors_in(given[0] if result is None and in_place else result))
        if not made or (looks and (name == "grad" or any(made[0] is tensor for tensor in given))):
            for parent in parents:
                if parent is not None:
                    parent.looked_at = True
            return result
        operation = self._record(name, function, given, parents, arguments, keywords)
        operation.input, operation.in_place = before, in_place
        self._made(operation, made)
        return result

    def _record(
        self,
        name: str,
        function: Callable[..., Any],
        given: Iterable[Tensor],
        parents: _Parents,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Operation:
        module, kind = self._where()
        operation = Operation(
            index=len(self.operations),
            name=name,
            module=module,
            kind=kind,
            within_loss=self.within_loss,
            function=function,
            arguments=arguments,
            keywords=keywords or {},
            parents=parents,
            parameters=tuple(name for name in map(self._parameter_name, given) if name is not None),
        )
        for parent in {id(parent): parent for parent in parents if parent is not None}.values():
            parent.children.append(operation)
        self.operations.append(operation)
        return operation

    def _made(self, operation: Operation, made: list[Tensor]) -> None:
        """Notes which tensors an operation made."""
        operation.output, operation.requires_grad = detached(made[0]), made[0].requires_grad
        for tensor in made:
            memory = memory_of(tensor)
            beside = self._made_over.setdefault(memory, set()) if memory is not None else set()
            if operation.in_place:
                # Whoever reads the same memory from now on reads what this one wrote.
                self._made_by.update({key: (operation, self._made_by[key][1]) for key in beside})
            self._made_by[id(tensor)] = (operation, tensor)
            beside.add(id(tensor))
            if has_numbers(tensor) and tensor.grad_fn is not None:
                self._made_by_node[tensor.grad_fn] = operation
        recorded = (operation.input, operation.output, *tensors_in((operation.arguments, operation.keywords)))
        for memory in {None if tensor is None else memory_of(tensor) for tensor in recorded}:
            if memory is not None:
                self._over.setdefault(memory, []).append(operation)
        self._listen(operation, made[0])

    def _listen(self, operation: Operation, tensor: Tensor) -> None:
        """Keeps the gradient of an operation's first output.

        What a custom ``autograd.Function`` returns joins the graph only after its own operations have been recorded;
        it is asked again where it is used.
        """
        if operation.index in self._listening or operation.output is None or not has_numbers(tensor):
            return
        if tensor.requires_grad and tensor.is_floating_point() and tensor.shape == operation.output.shape:
            self._listening.add(operation.index)
            tensor.register_hook(self._keeps_gradient(operation))

    def _keeps_gradient(self, operation: Operation) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            if not self._deaf:
                operation.gradient = gradient.detach()

        return keep

    def _keep_what_was(self, changed: Tensor) -> None:
        """Before something is written over a tensor: its numbers, for the operations that recorded them."""
        memory = memory_of(changed)
        copies: dict[Any, Tensor] = {}

        def copied(tensor: Tensor) -> Tensor:
            if memory_of(tensor) != memory:
                return tensor
            place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if place not in copies:
                copies[place] = tensor.clone()
            return copies[place]

        for operation in self._over.pop(memory, []) if memory is not None else []:
            operation.input = None if operation.input is None else copied(operation.input)
            operation.output = None if operation.output is None else copied(operation.output)
            operation.arguments = each(operation.arguments, copied)
            operation.keywords = each(operation.keywords, copied)

    def _infer(self, tensor: Tensor, node: Any, within: Operation | None = None) -> Operation:
        """The operation that stands for whatever made this tensor unseen; autograd's graph says from what."""
        parents = [] if within is None else [within]
        leaves: list[Tensor] = []
        waiting, seen = deque([node]), {node}
        while waiting:
            for source, _ in waiting.popleft().next_functions:
                if source is None or source in seen:
                    continue
                seen.add(source)
                known = self._made_by_node.get(source)
                if known is not None:
                    parents.append(known)
                elif hasattr(source, "variable"):
                    leaves.append(source.variable)
                else:
                    waiting.append(source)
        name = re.sub(r"Backward\d*$", "", str(node.name()))
        operation = self._record(name, _cannot_be_called, leaves, tuple(parents))
        operation.inferred = True
        self._made(operation, [tensor])
        return operation

    def _mark_kept(self) -> None:
        """Marks operations whose output nothing took, and which something of the user's still holds."""
        unused = {
            key: operation
            for key, (operation, _) in self._made_by.items()
            if not (operation.children or operation.returned or operation.within_loss) and operation.role != "other"
        }
        if not unused:
            return
        own = {id(entry) for entry in self._made_by.values()}
        tensors = [self._made_by[key][1] for key in unused]
        for holder in gc.get_referrers(*tensors):
            if id(holder) in own or holder is tensors:
                continue
            for held in gc.get_referents(holder):
                if id(held) in unused and isinstance(held, Tensor):
                    unused[id(held)].kept = True

    def _refusal(self, name: str, error: Exception, given: list[Tensor], parents: _Parents, call: Any) -> Refused:
        module, kind = self._where()
        return Refused(
            name=name,
            module=module,
            kind=kind,
            parents=parents,
            parameters=tuple(name for name in map(self._parameter_name, given) if name is not None),
            shapes=tuple(shape_of(tensor) for tensor in given),
            dtypes=tuple(tensor.dtype for tensor in given),
            devices=tuple(tensor.device for tensor in given),
            arguments=call[0],
            keywords=call[1],
            error=error,
        )

    def _where(self) -> tuple[str, str]:
        return self._stack[-1] if self._stack else ("", type(self._network).__name__)

    def _parameter_name(self, tensor: Tensor) -> str | None:
        """What the network calls this parameter, or the parameter that this is a view of: ``weight.T``."""
        name = self._parameters.get(id(tensor))
        # The tensor that a view shows, as autograd keeps it; views of views show the first.
        return name if name is not None or tensor._base is None else self._parameters.get(id(tensor._base))

    def _entering(self, name: str) -> Callable[..., None]:
        @_unseen
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            for tensor in tensors_in((args, kwargs)):
                self.maker(tensor)  # What made it unseen belongs to the caller.
            # The class as it is by now: a lazy module becomes another at its first call.
            self._stack.append((name, type(module).__name__))

        return enter

    @_unseen
    def _leaving(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        given = list(tensors_in((args, kwargs)))
        for tensor in tensors_in(result):
            # Not in the graph, and nothing seen that made it: the module did.
            if self.maker(tensor) is None and tensor.is_floating_point() and not self._is_state(tensor):
                if any(tensor is one for one in given):
                    continue
                operation = self._record(type(module).__name__, _cannot_be_called, given, tuple(map(self.maker, given)))
                operation.inferred = True
                self._made(operation, [tensor])
        if self._stack:
            self._stack.pop()

    def _is_state(self, tensor: Tensor) -> bool:
        return id(tensor) in self._parameters or any(tensor is buffer for buffer in self._network.buffers())


def function_name(function: Callable[..., Any]) -> str:
    """What the function is called, whichever of its spellings was used."""
    name = str(getattr(function, "__name__", function))
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    if name.startswith("__") and name.endswith("__"):
        # Operators of Python: __matmul__ is matmul; reversed and in-place ones alike.
        bare = name.strip("_")
        return bare[1:] if name in _IN_PLACE_OPERATORS or name in _REVERSED_OPERATORS else bare
    # With an underscore behind it works in place; with one before it is PyTorch's own, which threshold is.
    name = name.removeprefix("special_").strip("_")
    return "sigmoid" if name == "expit" else name


def _is_in_place(spelled: str, keywords: dict[str, Any]) -> bool:
    operator = spelled in _IN_PLACE_OPERATORS or spelled == "__setitem__"
    underscore = spelled.endswith("_") and not spelled.endswith("__")
    return operator or underscore or bool(keywords.get("inplace")) or isinstance(keywords.get("out"), Tensor)


def _cannot_be_called(*arguments: Any, **keywords: Any) -> Any:
    raise RuntimeError("what ran inside was not seen and cannot be called again.")
