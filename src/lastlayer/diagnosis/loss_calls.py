"""Where a loss was computed in a pass, of what prediction and what target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lastlayer.diagnosis.following_back import Ends
from lastlayer.diagnosis.loss_probing import traits_by_behavior
from lastlayer.diagnosis.loss_traits import DIFFERENCE, FUNCTIONS, POISSON_OF_RATES, LossTraits, own_traits
from lastlayer.diagnosis.operation import Operation, Refused, names
from lastlayer.diagnosis.output_end import (
    NO_CHANCE,
    ROUNDING,
    UNKNOWN,
    End,
    Normalized,
    normalized_over,
    tensor_arguments,
    wide,
)
from lastlayer.diagnosis.output_probing import probed_span
from lastlayer.diagnosis.subject import Subject

# What a square of it is the square of what it was given.
_SAME_NUMBERS = names("abs view reshape flatten squeeze unsqueeze neg")
# Where options that are given by position stand in PyTorch's losses.
_POSITIONS = {"ignore_index": 4, "log_input": 2, "log_target": 5}


@dataclass(frozen=True)
class LossCall:
    """One loss of one prediction.

    Attributes:
        traits: what the loss takes.
        label: what it is called in a finding.
        raw, target: what it was given; ``None`` if that is not known, as of a call that raised.
        shapes: theirs.
        dtypes: theirs.
        end: what is known of the prediction.
        places: what else it was given, by position or name, with what is known of it.
        options: its arguments that are no tensors.
        by_behavior: whether the traits were told from what an unknown loss gives.
        gradient: of the whole loss with respect to the prediction; ``None`` if it is not known.
    """

    traits: LossTraits
    label: str
    raw: Tensor | None
    target: Tensor | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[torch.dtype, torch.dtype]
    end: End
    places: Mapping[int | str, tuple[Tensor, End]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    by_behavior: bool = False
    gradient: Tensor | None = None

    def option(self, name: str, default: Any = None) -> Any:
        """An option by name, wherever it stood."""
        return self.options.get(name, self.options.get(str(_POSITIONS.get(name)), default))

    @property
    def axis(self) -> int:
        """Of the classes in the prediction, counted from the front."""
        dimensions = len(self.shapes[0])
        if dimensions < 2:
            return 0
        return self.traits.class_axis % dimensions

    @property
    def classes(self) -> int:
        """How many there are; 1 of a prediction without an axis."""
        return self.shapes[0][self.axis] if self.shapes[0] else 1

    @cached_property
    def normalized(self) -> Normalized | None:
        """Whether the prediction's numbers add up to 1 over the classes, as probabilities or as their logarithms."""
        if self.raw is None or self.classes < 2 or (self.end.span is not None and not self.end.limited):
            return None
        certain = self.end.normalized is not None or self.raw.dtype not in (torch.float32, torch.float64)
        if normalized_over(self.raw, self.axis, rounding=ROUNDING if certain else NO_CHANCE):
            return "probabilities"
        return "logarithms" if normalized_over(self.raw, self.axis, "logarithms") else None

    @property
    def counted_target(self) -> Tensor | None:
        """The target as real numbers, NaN where the loss does not depend on the prediction: what it masks."""
        if self.target is None:
            return None
        target, gradient = wide(self.target), self.gradient
        if gradient is None or gradient.device != target.device or gradient.numel() != target.numel():
            return target
        if not bool(gradient.any()):
            return target
        return target.masked_fill(gradient.reshape(target.shape) == 0.0, torch.nan)

    @property
    def made_by(self) -> str:
        """What the prediction comes from, as a finding names it."""
        operation = self.end.link or self.end.source
        return "the network's output" if operation is None else operation.label


def calls_of(subject: Subject) -> tuple[LossCall, ...]:
    """Every loss that the subject's training step computes of the network's output, as far as they can be told."""
    if "loss_calls" not in subject.shared:
        subject.shared["loss_calls"] = tuple(_probed(subject, call) for call in _calls(subject))
    calls: tuple[LossCall, ...] = subject.shared["loss_calls"]
    return calls


def _probed(subject: Subject, call: LossCall) -> LossCall:
    """The call, with what trying says of an output whose making was not seen."""
    source = call.end.source
    if call.end.span is not None or source is None or source.within_loss or not source.inferred:
        return call
    if "probed_span" not in subject.shared:
        subject.shared["probed_span"] = probed_span(subject)
    return replace(call, end=replace(call.end, span=subject.shared["probed_span"]))


def ends_of(subject: Subject) -> Ends:
    """What is known of the tensors of the training pass."""
    ends: Ends = subject.shared.setdefault("ends", Ends())
    return ends


def returned_end(subject: Subject) -> End:
    """Of what the network returned, if that was one tensor."""
    operation = _returned(subject)
    return UNKNOWN if operation is None else ends_of(subject).of(operation, subject.training_pass.raw)


def _returned(subject: Subject) -> Operation | None:
    """The operation whose output the network returned, if that was one tensor."""
    seen = subject.training_pass
    returned = [operation for operation in seen.of_network if operation.returned]
    if seen.raw is None or not returned:
        return None
    alike = [one for one in returned if one.output is not None and one.output.shape == seen.raw.shape]
    return (alike or returned)[-1]


def _gradient(operation: Operation | None, raw: Tensor) -> Tensor | None:
    """Of the loss with respect to a prediction, as the operation that made it recorded it."""
    if operation is None or operation.gradient is None or operation.output is None:
        return None
    # Of an operation with several outputs, it is that of the first.
    return operation.gradient if operation.output.shape == raw.shape and torch.equal(operation.output, raw) else None


def _calls(subject: Subject) -> Iterator[LossCall]:
    seen = subject.training_pass
    if subject.target is None or subject.loss is None or (seen.failure and seen.failure.stage == "forward"):
        return
    own = own_traits(subject.loss)
    if own is not None:
        yield from _of_output(subject, own, own.name, by_behavior=False)
        return
    found = False
    for operation in seen.of_loss:
        if operation.name in FUNCTIONS:
            for call in _of_operation(subject, operation):
                found = True
                yield call
    refused = seen.failure.refused if seen.failure else None
    if refused is not None and refused.name in FUNCTIONS:
        yield from _of_refused(subject, refused)
    elif not found and seen.failure is None:
        traits = traits_by_behavior(subject)
        if traits is not None:
            yield from _of_output(subject, traits, "the loss", by_behavior=True)
        else:
            yield from _of_differences(subject)


def _of_output(subject: Subject, traits: LossTraits, label: str, *, by_behavior: bool) -> Iterator[LossCall]:
    raw, target = subject.training_pass.raw, subject.target
    if raw is None or target is None:
        return
    yield LossCall(
        # How the loss brings them to one shape it knows itself.
        replace(traits, elementwise=False) if by_behavior else traits,
        label,
        raw,
        target.detach(),
        (tuple(raw.shape), tuple(target.shape)),
        (raw.dtype, target.dtype),
        returned_end(subject),
        by_behavior=by_behavior,
        gradient=_gradient(_returned(subject), raw),
    )


def _of_operation(subject: Subject, operation: Operation) -> Iterator[LossCall]:
    ends = ends_of(subject)
    traits = FUNCTIONS[operation.name]
    given = {place: (tensor, parent) for place, tensor, parent in tensor_arguments(operation)}
    raw, parent = given.get(0) or given.get("input") or given.get("input1") or (None, None)
    target, maker = given.get(traits.target_place) or given.get("target") or (None, None)
    if traits.links == ("identity",) and from_the_network(maker) and not from_the_network(parent):
        # A distance may be given the two the other way round.
        raw, parent, target = target, maker, raw
    if raw is None or target is None or not from_the_network(parent):
        return
    call = LossCall(
        traits,
        operation.name,
        raw,
        target,
        (tuple(raw.shape), tuple(target.shape)),
        (raw.dtype, target.dtype),
        ends.of(parent, raw),
        {place: (tensor, ends.of(maker, tensor)) for place, (tensor, maker) in given.items()},
        operation.options,
        gradient=_gradient(parent, raw),
    )
    yield _as_called(call)


def _of_differences(subject: Subject) -> Iterator[LossCall]:
    """Where a loss of the user's own subtracts the target from a prediction, or the other way round."""
    target, ends = subject.target, ends_of(subject)
    for operation in subject.training_pass.of_loss:
        given = [(tensor, parent) for _, tensor, parent in tensor_arguments(operation)]
        if target is None or operation.name not in ("sub", "subtract", "rsub") or len(given) != 2:
            continue
        for (raw, parent), (other, maker) in (given, given[::-1]):
            if not from_the_network(parent) or from_the_network(maker):
                continue
            squared = _is_squared(operation)
            # A one-hot of class indices is a target of its own only where it is known what is done with it.
            if same_numbers(other, target) or (squared and _is_one_hot(other, target)):
                shapes, dtypes = (tuple(raw.shape), tuple(other.shape)), (raw.dtype, other.dtype)
                end, gradient = ends.of(parent, raw), _gradient(parent, raw)
                traits = _of_difference(raw, end) if squared else DIFFERENCE
                yield LossCall(traits, "the loss", raw, other, shapes, dtypes, end, gradient=gradient)


def _of_difference(raw: Tensor, end: End) -> LossTraits:
    """Of a squared difference; its classes are where the prediction's numbers add up to 1."""
    traits = replace(DIFFERENCE, squared=True)
    if end.normalized == "probabilities" and raw.dim() > 2 and not normalized_over(raw, 1):
        return replace(traits, class_axis=-1)
    return traits


def _is_squared(difference: Operation) -> bool:
    """Whether a square is taken of it, or the square of its Euclidean norm."""
    return any(_squares(child, difference) for child in difference.children)


def _squares(operation: Operation, given: Operation) -> bool:
    if operation.name == "square":
        return True
    if operation.name in ("pow", "float_power"):
        return operation.options.get("1", operation.options.get("exponent")) == 2
    if operation.name in ("mul", "multiply"):
        return len(operation.parents) == 2 and all(parent is given for parent in operation.parents)
    if operation.name in ("norm", "vector_norm", "linalg_vector_norm", "linalg_norm"):
        order = operation.options.get("1", operation.options.get("p", operation.options.get("ord")))
        return order in (None, 2, "fro") and any(_squares(child, operation) for child in operation.children)
    return operation.name in _SAME_NUMBERS and any(_squares(child, operation) for child in operation.children)


def _is_one_hot(tensor: Tensor, target: Tensor) -> bool:
    """Whether it is 1 at the target's class indices, along one of its axes, and 0 elsewhere."""
    if target.is_floating_point() or target.is_complex() or tensor.dim() != target.dim() + 1 or not target.numel():
        return False
    for axis in {1, tensor.dim() - 1} & set(range(tensor.dim())):
        last = tensor.detach().movedim(axis, -1)
        if last.shape[:-1] == target.shape and int(target.min()) >= 0 and int(target.max()) < last.shape[-1]:
            classes = torch.arange(last.shape[-1], device=target.device)
            if torch.equal(last.to(target.device).double(), (target.unsqueeze(-1) == classes).double()):
                return True
    return False


def same_numbers(tensor: Tensor, target: Tensor) -> bool:
    """Whether it holds the target's numbers, in whatever shape and dtype."""
    if tensor.numel() != target.numel():
        return False
    return torch.equal(tensor.detach().flatten().double().to(target.device), target.detach().flatten().double())


def _of_refused(subject: Subject, refused: Refused) -> Iterator[LossCall]:
    """What raised: its shapes are known, and the numbers as far as they are those of a tensor that is."""
    traits = FUNCTIONS[refused.name]
    if len(refused.shapes) <= traits.target_place or not from_the_network(refused.parents[0]):
        return
    place = traits.target_place
    ends = ends_of(subject)
    parent, target = refused.parents[0], subject.target
    raw = parent.output if parent is not None and parent.output is not None else None
    known_target = target is not None and target.numel() == _count(refused.shapes[place])
    call = LossCall(
        traits,
        refused.name,
        raw if raw is not None and tuple(raw.shape) == refused.shapes[0] else None,
        target.detach().reshape(refused.shapes[place]) if target is not None and known_target else None,
        (refused.shapes[0], refused.shapes[place]),
        (refused.dtypes[0], refused.dtypes[place]),
        ends.of(parent, raw),
        {
            number: (maker.output, ends.of(maker, maker.output))
            for number, maker in enumerate(refused.parents)
            if maker is not None and maker.output is not None
        },
        refused.options,
    )
    yield _as_called(call)


def _as_called(call: LossCall) -> LossCall:
    """With what its options change."""
    if call.label == "poisson_nll_loss" and call.option("log_input", True) is False:
        return replace(call, traits=POISSON_OF_RATES)
    if call.label == "kl_div" and call.option("log_target", False) is True:
        return replace(call, traits=replace(call.traits, domain=None))
    return call


def from_the_network(operation: Operation | None) -> bool:
    """Whether the network had a part in it."""
    if operation is None:
        return False
    return not operation.within_loss or any(not ancestor.within_loss for ancestor in operation.ancestors())


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
