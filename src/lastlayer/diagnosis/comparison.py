"""What any network has to beat: the best constant and the best linear predictor under the same loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.run_data import RunData, device_of, tensors_of
from lastlayer.diagnosis.run_record import Comparison
from lastlayer.diagnosis.subject import call, kept_random_state, loss_of
from lastlayer.diagnosis.tensors import tensors_in
from lastlayer.diagnosis.trace import Operation, Trace
from lastlayer.heads import Head

#: Rows that predictors are fitted to, and judged on, at most; and numbers of the features in all.
ROWS = 5000
NUMBERS = 1 << 24
#: Rows x features x outputs of the linear predictor at most: an iteration then takes some milliseconds.
PRODUCT = 1 << 25
#: Rows that a network sees at once.
AT_ONCE = 1024
#: Blocks of rows from which the noise of a mean loss is told, whatever the loss: their mean losses are compared.
BLOCKS = 32
#: Rows whose pass shows how the raw output becomes the network's output.
SHOWN = 16
#: Iterations of L-BFGS, with its line search: a convex loss is at its optimum long before.
ITERATIONS = 100
#: A constant so many times as large as anything around it has no end: the loss is not bounded in the raw output.
UNBOUNDED = 1e4


@dataclass(frozen=True)
class Tail:
    """What happens between the network's last weights and its output: a softmax, a squeeze.

    Attributes:
        shape: of one row of what enters.
        start: that, averaged over rows.
        operations: in order; each takes the output of the one before.
    """

    shape: tuple[int, ...]
    start: Tensor
    operations: tuple[Operation, ...]

    def __call__(self, z: Tensor) -> Tensor:
        """The output for what enters, of any number of rows."""
        for operation in self.operations:
            assert operation.output is not None
            if operation.name in _RESHAPES:
                z = z.reshape(len(z), *operation.output.shape[1:])
            else:
                arguments = [z if isinstance(value, Tensor) else value for value in operation.arguments]
                keywords = {
                    name: z if isinstance(value, Tensor) else value for name, value in operation.keywords.items()
                }
                z = operation.function(
                    *arguments, **{**keywords, **({"inplace": False} if "inplace" in keywords else {})}
                )
        return z


_RESHAPES = frozenset(
    ["view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "contiguous", "view_as", "reshape_as"]
)


def compare(
    network: nn.Module, loss: Any, training: RunData, validation: RunData, *, most: int = ROWS
) -> Comparison | None:
    """The network in evaluation mode beside both predictors; ``None`` where the loss of a row cannot be told.

    The network is left in the mode it was in, and the random state as it was.

    Args:
        most: rows of either kind.
    """
    device = device_of(network)
    width = sum(tensor[0].numel() for tensor in tensors_of(training.features))
    rows = min(most, max(1, NUMBERS // max(width, 1)))
    training, validation = training.some(rows).to(device), validation.some(rows).to(device)
    compute = loss_of(loss)
    with in_evaluation(network), kept_random_state():
        outputs = [forward(network, part) for part in (training, validation)]
        if any(
            out is None or len(out) != len(part) or not out.is_floating_point()
            for out, part in zip(outputs, (training, validation), strict=True)
        ):
            return None
        tail = tail_of(network, training.some(SHOWN))
    raw_training, raw = outputs
    assert raw_training is not None
    assert raw is not None
    constant = best_constant(loss, compute, tail, training)
    if constant is None:
        return None
    linear = best_linear(compute, tail, constant, training)

    def of(predict: Callable[[RunData], Tensor], part: RunData) -> Tensor:
        with torch.no_grad():
            return tail(predict(part))

    def all_alike(part: RunData) -> Tensor:
        return constant.expand(len(part), *tail.shape)

    own, alike = raw, of(all_alike, validation)
    figures = {
        "network": mean_loss(compute, own, validation.target),
        "constant": mean_loss(compute, alike, validation.target),
        "training_network": mean_loss(compute, raw_training, training.target),
        "training_constant": mean_loss(compute, of(all_alike, training), training.target),
        "linear": math.nan,
        "training_linear": math.nan,
        "linear_margin": math.nan,
    }
    blocks = [in_blocks(compute, each, validation.target) for each in (own, alike)]
    size = max(1, len(validation) // BLOCKS)
    if linear is not None:
        straight = of(linear, validation)
        figures["linear"] = mean_loss(compute, straight, validation.target)
        figures["training_linear"] = mean_loss(compute, of(linear, training), training.target)
        figures["linear_margin"] = standard_error(blocks[0], in_blocks(compute, straight, validation.target))
    return Comparison(
        rows=len(validation),
        spread=float(blocks[1].std()) * math.sqrt(size) if len(blocks[1]) > 1 else math.nan,
        constant_margin=standard_error(*blocks),
        constant_wins=float((blocks[0] > blocks[1]).double().mean()),
        features=width,
        **figures,
    )


def comparison_of_rows(network: Tensor, constant: Tensor, linear: Tensor, *, features: int) -> Comparison:
    """The comparison that the losses of single validation rows give, all of them in the same order."""
    rows = len(network)
    return Comparison(
        rows=rows,
        network=float(network.mean()),
        constant=float(constant.mean()),
        linear=float(linear.mean()),
        spread=float(constant.std()) if rows > 1 else math.nan,
        constant_margin=standard_error(network, constant),
        constant_wins=float((network > constant).double().mean()),
        linear_margin=standard_error(network, linear),
        training_network=math.nan,
        training_constant=math.nan,
        training_linear=math.nan,
        features=features,
    )


@contextmanager
def in_evaluation(network: nn.Module, *, training: bool = False) -> Iterator[None]:
    """The network in evaluation mode (or in training mode); afterwards every module is in the mode it was in."""
    before = [(module, module.training) for module in network.modules()]
    try:
        network.train(training)
        yield
    finally:
        for module, flag in before:
            module.training = flag


@torch.no_grad()
def forward(network: nn.Module, data: RunData) -> Tensor | None:
    """The network's output for all rows; ``None`` if it is no single tensor."""
    parts = []
    for start in range(0, len(data), AT_ONCE):
        out = call(network, data.take(slice(start, start + AT_ONCE)).features)
        if not isinstance(out, Tensor) or out.dim() == 0:
            return None
        parts.append(out.detach())
    return torch.cat(parts) if parts else None


def tail_of(network: nn.Module, data: RunData) -> Tail:
    """What follows the network's last weights, row by row; nothing where more than one tensor comes together there."""
    with Trace(network) as trace, torch.no_grad():
        out = call(network, data.features)
    found: list[Operation] = []
    operation = trace.maker(out)
    while operation is not None and _is_row_by_row(operation, len(data)):
        if operation.name in _RESHAPES or operation.role != "dropout":
            found.insert(0, operation)
        (operation,) = [parent for parent in operation.parents if parent is not None]
    enters = out if not found else found[0].input
    trace.release()
    assert enters is not None
    return Tail(
        tuple(enters.shape[1:]), enters.detach().mean(0) if enters.is_floating_point() else enters[0], tuple(found)
    )


def _is_row_by_row(operation: Operation, rows: int) -> bool:
    """Whether it takes one tensor that another operation made, and gives as many numbers, the rows still in front."""
    tensors = list(tensors_in((operation.arguments, operation.keywords)))
    return (
        len(tensors) == 1
        and not operation.parameters
        and not operation.in_place
        and not operation.inferred
        and operation.role not in ("weight", "normalization")
        and sum(parent is not None for parent in operation.parents) == 1
        and operation.input is not None
        and operation.output is not None
        and operation.output.numel() == operation.input.numel()
        and operation.output.dim() > 0
        and len(operation.output) == rows == len(operation.input)
        and not (operation.name not in _RESHAPES and operation.output.shape != operation.input.shape)
    )


def best_constant(loss: Any, compute: Callable[[Any, Any], Tensor], tail: Tail, training: RunData) -> Tensor | None:
    """What enters the tail, the same for every row, at which the loss is least; ``None`` if there is no such thing."""
    if isinstance(loss, Head) and not tail.operations and tail.shape[-1:] == (loss.raw_size,) and len(tail.shape) == 1:
        ones = torch.ones(len(training), device=training.target.device)
        return loss.initial_bias(training.target, ones).to(tail.start)

    def value(constant: Tensor) -> Tensor:
        return compute(tail(constant.expand(len(training), *tail.shape)), training.target)

    for start in (torch.zeros_like(tail.start), tail.start):
        with suppress(Exception):
            best = _minimize(value, start)
            largest = float(best.abs().max()) if best.numel() else 0.0
            if math.isfinite(largest) and largest <= UNBOUNDED * (
                1 + float(tail.start.abs().max().nan_to_num(0, 0, 0))
            ):
                return best
    return None


def best_linear(
    compute: Callable[[Any, Any], Tensor], tail: Tail, constant: Tensor, training: RunData
) -> Callable[[RunData], Tensor] | None:
    """The linear predictor with the least loss, slightly penalized; ``None`` where there is none to be had.

    That is for features that are no real numbers, too many of them, or a target that is the features.
    """
    if any(not column.is_floating_point() for column in tensors_of(training.features)):
        return None
    features = _flat(training)
    outputs = max(1, math.prod(tail.shape))
    if features.shape[1] == 0 or not bool(features.isfinite().all()) or _is_copied(training, features):
        return None
    fitted = training.some(max(1, PRODUCT // (features.shape[1] * outputs)))
    if len(fitted) < min(len(training), 4 * features.shape[1]):
        return None
    features = _flat(fitted)
    mean, deviation = features.mean(0), features.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    standardized = ((features - mean) / deviation).to(constant.dtype)

    def value(both: Tensor) -> Tensor:
        bias, weight = both[0], both[1:]
        raw = (standardized @ weight + bias).reshape(len(fitted), *tail.shape)
        # The penalty of scikit-learn's logistic regression, which is that of one row's worth of evidence.
        return compute(tail(raw), fitted.target) + weight.square().sum() / (2 * len(fitted))

    start = torch.cat([constant.reshape(1, -1), constant.new_zeros(features.shape[1], outputs)])
    try:
        best = _minimize(value, start)
    except Exception:
        return None
    if not bool(best.isfinite().all()):
        return None

    def predict(part: RunData) -> Tensor:
        x = ((_flat(part) - mean) / deviation).to(constant.dtype)
        return (x @ best[1:] + best[0]).reshape(len(part), *tail.shape)

    return predict


def mean_loss(compute: Callable[[Any, Any], Tensor], raw: Tensor, target: Tensor) -> float:
    """The loss of all rows together."""
    with torch.no_grad():
        return float(compute(raw, target))


@torch.no_grad()
def in_blocks(compute: Callable[[Any, Any], Tensor], raw: Tensor, target: Tensor) -> Tensor:
    """The losses of blocks of rows, all of one size."""
    size = max(1, len(target) // BLOCKS)
    starts = range(0, len(target) - size + 1, size)
    return torch.stack(
        [compute(raw[start : start + size], target[start : start + size]).double() for start in starts]
    ).cpu()


def standard_error(own: Tensor, other: Tensor) -> float:
    """Of the difference of two means, from the differences of their blocks."""
    difference = own - other
    return float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else math.nan


def _minimize(value: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """L-BFGS with the strong Wolfe conditions.

    Raises:
        ValueError: if the loss is not finite at the start.
    """
    x = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([x], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            result = value(x)
            result.backward()
        return result

    if not math.isfinite(float(closure().detach())):
        raise ValueError("the loss is not finite where the search starts")
    optimizer.step(closure)
    return x.detach()


def _flat(data: RunData) -> Tensor:
    """All features of a row beside each other."""
    return torch.cat(
        [
            column.flatten(1).float() if column.dim() > 1 else column.float().unsqueeze(1)
            for column in tensors_of(data.features)
        ],
        dim=1,
    )


def _is_copied(training: RunData, features: Tensor) -> bool:
    """Whether the target is the features themselves, which a linear map copies."""
    target = training.target
    return target.numel() == features.numel() and bool(torch.equal(target.reshape(features.shape).float(), features))
