"""Every layer's signal as plain data: what came in, what went out, what came back, and the weights between."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.layer_figures import BINS, FIGURES, figures_of, flat_sides, is_plain, transferred
from lastlayer.diagnosis.layout import Layout, layout_of
from lastlayer.diagnosis.operation import Operation, names
from lastlayer.diagnosis.subject import Features, Pass, Subject, run

#: The roles of the operations that have a record.
RECORDED = ("weight", "activation", "normalization")
# The same numbers in another shape, or some of them.
_LAID_OUT = names(
    "getitem view reshape flatten unflatten unsqueeze squeeze expand expand_as transpose permute chunk split unbind"
)


@dataclass(frozen=True)
class Signal:
    """The numbers of one tensor.

    What is not finite is counted out by ``finite``, and is in no other figure.

    Attributes:
        mean, std, rms, minimum, maximum: over all elements; NaN if none is finite.
        zeros: the share that is exactly 0.
        finite: the share that is finite.
        variation: the standard deviation from row to row, position by position, as root mean square over positions:
            the part of the signal that tells rows apart. NaN if the rows cannot be told.
        counts: elements in equally wide bins from ``minimum`` to ``maximum``.
    """

    mean: float
    std: float
    rms: float
    minimum: float
    maximum: float
    zeros: float
    finite: float
    variation: float
    counts: tuple[int, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """Of the bins, one more than there are."""
        width = (self.maximum - self.minimum) / len(self.counts)
        return tuple(self.minimum + width * place for place in range(len(self.counts) + 1))

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Signal:
        """The signal that a record's ``to_dict`` described."""
        numbers = {
            name: math.nan if value is None else value
            for name, value in description.items()
            if name not in ("counts", "edges")
        }
        return cls(**numbers, counts=tuple(description["counts"]))


@dataclass(frozen=True)
class ParameterRecord:
    """One parameter.

    Attributes:
        name: as ``named_parameters`` spells it.
        shape: its shape.
        norm, std: of its elements.
        gradient_norm: of its gradient; ``None`` if it has none.
        units: how many units it holds the weights of; 1 if it is no weight matrix.
        units_differ: the largest difference between the weights of two units, over the largest weight: 0 if all units
            are alike. ``None`` if it is no weight matrix.
        gradients_differ: the same of the gradient; ``None`` also without one.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    std: float
    gradient_norm: float | None
    units: int
    units_differ: float | None
    gradients_differ: float | None

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> ParameterRecord:
        """The parameter that a record's ``to_dict`` described."""
        sizes = {name: math.nan if description[name] is None else description[name] for name in ("norm", "std")}
        return cls(**{**description, **sizes, "shape": tuple(description["shape"])})


@dataclass(frozen=True)
class LayerRecord:
    """One operation with weights, an activation or a normalization: where it stands, and its numbers.

    Attributes:
        name, kind, module, label, role: as of an :class:`~lastlayer.diagnosis.operation.Operation`.
        shape: of its output.
        sources: places among the records of those whose outputs reach it with no other record between.
        hidden: whether weights come after it.
        gate: whether its output multiplies another signal.
        input: what an operation with weights takes; ``None`` of others.
        output: what it gives.
        gradient: of the loss with respect to its output; ``None`` if there is none.
        units: how many units or channels the output has.
        flat_sides: of an activation: 1 of a rectifier, 2 of a sigmoid, 0 of one that is flat nowhere and of others.
        saturated: of an activation with a flat side, the share of elements on it
            (:data:`~lastlayer.diagnosis.layer_figures.FLAT`); ``None`` of any other.
        saturated_units: how many units are flat on nearly all rows.
        dead_units: how many are flat on all rows.
        active_units: how many are flat on none.
        parameters: its parameters.
    """

    name: str
    kind: str
    module: str
    label: str
    role: str
    shape: tuple[int, ...]
    sources: tuple[int, ...]
    hidden: bool
    gate: bool
    input: Signal | None
    output: Signal
    gradient: Signal | None
    units: int
    flat_sides: int
    saturated: float | None
    saturated_units: int | None
    dead_units: int | None
    active_units: int | None
    parameters: tuple[ParameterRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; histograms with their edges, and ``None`` for NaN."""
        description = asdict(self)
        for part in ("input", "output", "gradient"):
            signal: Signal | None = getattr(self, part)
            if signal is not None:
                description[part]["edges"] = signal.edges
        plain: dict[str, Any] = _plain(description)
        return plain

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> LayerRecord:
        """The record that :meth:`to_dict` described."""
        fields = dict(description)
        for part in ("input", "output", "gradient"):
            fields[part] = None if fields[part] is None else Signal.from_dict(fields[part])
        fields["parameters"] = tuple(map(ParameterRecord.from_dict, fields["parameters"]))
        fields["shape"], fields["sources"] = tuple(fields["shape"]), tuple(fields["sources"])
        return cls(**fields)


def record_layers(
    network: nn.Module, features: Features, loss: Any = None, target: Tensor | None = None, *, training: bool = True
) -> tuple[LayerRecord, ...]:
    """The signal in every layer of a network: the distribution of activations, and of gradients, layer by layer.

    It runs on a copy; the network, its gradients and the random state stay as they are.

    Shapes: any network of operations that PyTorch's Python interface sees; rows are the first axis of the features.

    Special cases: without a loss and a target nothing comes back, and gradients are ``None``. A forward pass that
    raises gives the records up to there.

    Args:
        network: any module.
        features: what it takes: a tensor, several in a tuple, or by name in a dict.
        loss: a head, a loss, or a function of (raw, target).
        target: what the loss takes.
        training: whether in training mode, as a step of training would run.

    Example:
        >>> network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        >>> layers = record_layers(network, torch.randn(100, 8), nn.MSELoss(), torch.randn(100, 1))
        >>> [layer.label for layer in layers]
        ["layer '0' (Linear)", "layer '1' (ReLU)", "layer '2' (Linear)"]
        >>> 0 < layers[1].output.zeros < 1, len(layers[1].output.counts), layers[0].gradient.std > 0
        (True, 40, True)

    Reference: SPEC E4.
    """
    subject = Subject(network, loss, features, target)
    return layers_of(run(network, loss, features, target, training=training), rows=subject.rows)


def layers_of(made: Pass, *, rows: int) -> tuple[LayerRecord, ...]:
    """The records of a pass of so many rows."""
    return records_of(made.of_network, dict(made.network.named_parameters()), rows=rows)


def shared_layers(subject: Subject) -> tuple[LayerRecord, ...]:
    """The records of the subject's pass in training mode, made once."""
    if "layers" not in subject.shared:
        subject.shared["layers"] = layers_of(subject.training_pass, rows=subject.rows)
    layers: tuple[LayerRecord, ...] = subject.shared["layers"]
    return layers


@torch.no_grad()
def records_of(
    operations: Sequence[Operation], parameters: Mapping[str, Tensor], *, rows: int
) -> tuple[LayerRecord, ...]:
    """The records of traced operations, reduced where the tensors are; what is left is transferred at once.

    Args:
        operations: of one network, in order, after the backward pass if gradients are wanted.
        parameters: by name; their gradients are read where they have one.
        rows: how many samples the pass had.
    """
    described: list[dict[str, Any]] = []
    figures: list[dict[str, Tensor]] = []
    seen: dict[Hashable, Tensor] = {}
    feeds: dict[int, tuple[int, ...]] = {}
    layouts: dict[int, Layout] = {}
    hidden = _before_weights(operations)
    for operation in operations:
        known = [parent for parent in operation.parents if parent is not None]
        sources = tuple(dict.fromkeys(place for parent in known for place in feeds.get(parent.index, ())))
        before = next((layouts[parent.index] for parent in known if parent.index in layouts), Layout())
        layout = layouts[operation.index] = layout_of(operation, before)
        if operation.role not in RECORDED or operation.output is None or not is_plain(operation.output):
            feeds[operation.index] = sources
            continue
        feeds[operation.index] = (len(described),)
        own = {name: parameters[name] for name in dict.fromkeys(operation.parameters) if name in parameters}
        figures.append(figures_of(operation, layout, own, rows, seen))
        described.append(
            {
                "name": operation.name,
                "kind": operation.kind,
                "module": operation.module,
                "label": operation.label,
                "role": operation.role,
                "shape": tuple(operation.output.shape),
                "sources": sources,
                "hidden": hidden[operation.index],
                "gate": _is_gate(operation),
                "units": math.prod(operation.output.shape[axis] for axis in layout.unit_axes(operation.output)),
                "flat_sides": flat_sides(operation),
                "parameters": {name: tuple(parameter.shape) for name, parameter in own.items()},
            }
        )
    return tuple(map(_record, described, transferred(figures)))


def _before_weights(operations: Iterable[Operation]) -> dict[int, bool]:
    """Which operations have weights after them."""
    hidden: dict[int, bool] = {}
    for operation in reversed(list(operations)):
        hidden[operation.index] = any(
            child.role == "weight" or hidden.get(child.index, False)
            for child in operation.children
            if not child.within_loss
        )
    return hidden


def _is_gate(operation: Operation) -> bool:
    """Whether the output, however it is laid out, is multiplied with a signal, and not with a number or a parameter."""
    waiting = [operation]
    while waiting:
        for child in waiting.pop().children:
            if child.name == "mul" and len(child.parents) - len(child.parameters) > 1:
                return True
            if child.name in _LAID_OUT and child not in waiting:
                waiting.append(child)
    return False


def _record(described: dict[str, Any], numbers: Mapping[str, list[float]]) -> LayerRecord:
    """The record of what is known of a layer and of its figures."""
    flat = numbers.get("flat")
    return LayerRecord(
        **{
            **described,
            **{part: _signal(numbers.get(part)) for part in ("input", "output", "gradient")},
            "saturated": None if flat is None else flat[0],
            **{
                f"{what}_units": None if flat is None else int(count)
                for what, count in zip(("saturated", "dead", "active"), flat[1:] if flat else (0, 0, 0), strict=True)
            },
            "parameters": tuple(
                _parameter(name, shape, numbers[f"parameter {name}"]) for name, shape in described["parameters"].items()
            ),
        }
    )


def _signal(numbers: Sequence[float] | None) -> Signal | None:
    if numbers is None:
        return None
    mean, std, rms, minimum, maximum, zeros, finite, variation = numbers[:FIGURES]
    counts = tuple(map(int, numbers[FIGURES : FIGURES + BINS]))
    return Signal(mean, std, rms, minimum, maximum, zeros, finite, variation, counts)


def _parameter(name: str, shape: tuple[int, ...], numbers: Sequence[float]) -> ParameterRecord:
    norm, std, gradient_norm, units, apart, pulled_apart = numbers
    return ParameterRecord(
        name, shape, norm, std, _known(gradient_norm), int(units), _known(apart), _known(pulled_apart)
    )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _plain(value: Any) -> Any:
    """Tuples as lists, and what JSON has no number for as ``None``."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
