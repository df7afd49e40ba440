"""A tensor followed back through the operations that made it, to what can be said of its numbers.

A network's output, or what the loss has made of it, is followed back to the last operation with weights. What lies
between decides what numbers are possible: a softmax gives probabilities, a ReLU nothing below 0, views change nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lastlayer.diagnosis.after_operation import (
    DIVISIONS,
    ELEMENTWISE,
    SUMS_OF_TWO,
    after_arithmetic,
    after_clamp,
    after_function,
    after_softmax,
)
from lastlayer.diagnosis.operation import NORMALIZATION, WEIGHT, Operation, names
from lastlayer.diagnosis.output_end import SOFTMAX, UNKNOWN, End, first_parent, tensor_arguments, wide
from lastlayer.diagnosis.spans import REAL, Span

#: Numbers that stay what they are, or of which some, or means, are taken: where they can lie does not change.
_KEEPS = names(
    """view view_as reshape reshape_as squeeze unsqueeze flatten unflatten ravel transpose permute movedim moveaxis
    swapaxes swapdims t T mT H mH contiguous clone detach to float double half bfloat16 type_as type cpu cuda expand
    expand_as broadcast_to repeat repeat_interleave tile roll flip requires_grad alias data nan_to_num getitem select
    narrow index_select gather take_along_dim take unbind split split_with_sizes chunk tensor_split unfold masked_select
    diagonal sort topk amax amin max min median mean nanmean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d interpolate upsample"""
)
_JOINS = names(
    "cat concat concatenate stack hstack vstack dstack column_stack broadcast_tensors where setitem maximum minimum"
)
#: What makes tensors of numbers that are written in the source.
_CONSTANTS = names("tensor as_tensor full full_like ones ones_like zeros zeros_like new_tensor new_full scalar_tensor")
# Of so many numbers it is not looked up where each of them came from.
_MOST = 1_000_000
_TWO = SUMS_OF_TWO | DIVISIONS | names("mul multiply")
#: What a recurrent layer's states lie between.
_RECURRENT = {"lstm": Span(-1.0, 1.0), "gru": Span(-1.0, 1.0), "rnn_tanh": Span(-1.0, 1.0), "rnn_relu": Span(0.0)}


class Ends:
    """Follows tensors back, and remembers what was found."""

    def __init__(self) -> None:
        self._known: dict[int, End] = {}

    def of(self, operation: Operation | None, taken: Tensor | None = None) -> End:
        """What is known of an operation's output.

        Args:
            taken: the output that is meant, of an operation that has several.
        """
        if operation is None:
            return UNKNOWN
        if operation.index not in self._known:
            try:
                self._known[operation.index] = self._found(operation)
            except RecursionError:  # A thousand operations without weights: nothing is said of them.
                return UNKNOWN
        end = self._known[operation.index]
        return end if taken is None else _part_of(end, taken)

    def _found(self, operation: Operation) -> End:
        name = operation.name
        if operation.inferred:
            return End(None, source=operation)
        if name in _RECURRENT and not any("weight_hr" in parameter for parameter in operation.parameters):
            return End(_RECURRENT[name], link=operation, before=End(REAL, source=operation), source=operation)
        if operation.role == "weight" or name in NORMALIZATION or name in ("prelu", "rrelu"):
            return End(REAL, source=operation)
        if name in WEIGHT:  # A product of two signals: attention's, or a mixture's.
            return End(None, source=operation)
        if name in _JOINS:
            return self._joined(operation)
        if name in _TWO and len(operation.parents) > 1:
            return self._of_two(operation)
        before = self.of(first_parent(operation), operation.input)
        if name in _KEEPS:
            return before
        if name in SOFTMAX:
            return after_softmax(operation, before)
        if name in ("clamp", "clip", "clamp_min", "clamp_max"):
            return after_clamp(operation, before)
        if name in ELEMENTWISE:
            return after_function(operation, before)
        return after_arithmetic(operation, before)

    def _joined(self, operation: Operation) -> End:
        """Of tensors put beside each other: what holds of all of them."""
        given = list(tensor_arguments(operation))
        if operation.name == "where":
            given = given[1:]
        ends = [self._of_operand(operation, tensor, parent) for _, tensor, parent in given]
        parts = tuple((tensor, end) for (_, tensor, _), end in zip(given, ends, strict=True))
        spans = [end.span for end in ends if end.span is not None]
        if len(spans) < max(1, len(ends)) or (operation.name == "where" and len(ends) < 2):
            return End(None, source=operation, parts=parts)
        span = spans[0]
        for other in spans[1:]:
            span = span.with_all_of(other)
        first = next((end for end in ends if end.link is not None), ends[0])
        alike = {(end.normalized, end.link.name if end.link else "") for end in ends}
        if len(alike) == 1:
            return replace(first, span=span)
        return replace(first, span=span, normalized=None, parts=parts)

    def _of_operand(self, operation: Operation, tensor: Tensor, parent: Operation | None) -> End:
        """Of one of several tensors that go together; what nothing made is a parameter, or the numbers that it has."""
        if parent is not None and parent.name not in _CONSTANTS:
            return self.of(parent, tensor)
        if operation.parameters or tensor.numel() == 0 or not tensor.is_floating_point():
            return End(REAL if operation.parameters else None)
        return End(Span(float(tensor.min()), float(tensor.max())))

    def _of_two(self, operation: Operation) -> End:
        """What goes on for ever still does as a term or a factor; of other products and quotients nothing is said."""
        operands = [operand[1:] for operand in tensor_arguments(operation)]
        number = _number(*operands[1]) if len(operands) == 2 and not operation.parameters else None
        if number is not None:
            return after_arithmetic(operation, self.of(operands[0][1], operands[0][0]), number)
        ends: list[End] = []
        # The last first: of a residual network that is the block, which ends in weights, and not all blocks before.
        for tensor, parent in reversed(operands):
            ends.append(self._of_operand(operation, tensor, parent))
            if ends[-1].span == REAL and operation.name not in DIVISIONS:
                return End(REAL, source=ends[-1].source or operation)
        second, first = (end.span for end in ends) if len(ends) == 2 else (None, None)
        if first is None or second is None or operation.name not in SUMS_OF_TWO:
            return End(None, source=operation)
        span = first.plus(second if operation.name == "add" else second.times(-1.0))
        return replace(ends[1], parts=(), span=span, normalized=None, altered=True)


def _part_of(end: End, taken: Tensor) -> End:
    """What is known of a tensor that was taken from several beside each other: of the one that has all its numbers."""
    if not end.parts:
        return end
    if not taken.is_floating_point() or taken.numel() > _MOST:
        return End(None, source=end.source)
    for part, known in end.parts:
        comparable = part.is_floating_point() and part.device == taken.device
        if comparable and bool(torch.isin(wide(taken), wide(part)).all()):
            return known
    return end


def _number(tensor: Tensor, parent: Operation | None) -> float | None:
    """The number that a tensor of one element stands for, if nothing made it."""
    made = parent is not None and parent.name not in _CONSTANTS
    return float(tensor) if not made and tensor.numel() == 1 else None
