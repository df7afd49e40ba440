"""Does the target lie where the network's output starts, and does it vary as much as the output can soon (SPEC F)?"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.copies import copy_of, kept_random_state
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import Pass, Subject, loss_of, own_copy
from lastlayer.diagnosis.trial import compare
from lastlayer.diagnosis.without_operation import with_few_rows
from lastlayer.heads import Head

# How the thresholds were chosen: a network of two hidden layers learned a real target from eight standard normal
# columns, the target rescaled or shifted, with squared and absolute error, Adam (1e-3, 1e-2) and momentum (1e-1 …
# 1e-5), 12 epochs of 1000 rows. All in units of what the last layer puts out.

#: Standard deviation. At 10 momentum at its usual rate of 0.01 diverges to the constant predictor under squared error,
#: at 3 nothing is lost.
LARGE = 10.0
#: Standard deviation. At 0.03 the noise of the first outputs is as large, and Adam keeps twice the error; at 0.1
#: nothing is lost.
SMALL = 0.03
#: Distance of the target's mean from the first outputs' mean, in standard deviations of the target. At 10 Adam is worse
#: than the constant after 380 steps, at 5 it keeps four times the error, at 3 twice.
FAR, AWAY = 10.0, 5.0
#: The same distance as it is: what Adam at its usual rate covers in the first hundred steps is no matter.
NEAR = 3.0
# In fewer rows mean and spread are chance.
_FEW_ROWS = 10
# Functions that no factor stands for, beside the activations.
_CURVED = frozenset(["exp", "exp2", "expm1", "pow", "square", "sinh", "log", "log1p", "sqrt", "reciprocal"])
# Functions whose output is their input where it is large.
_IDENTITY_ABOVE = frozenset(["relu", "leaky_relu", "softplus", "elu", "selu", "celu", "gelu", "silu", "mish"])

UNSCALED_TARGET = Fault(
    name="unscaled_target",
    title="a real target far from where the output starts",
    severity="warning",
    why=(
        "The output starts around 0 with a spread below 1. A target in other units first has to be reached: thousands "
        "of steps at a rate that suits weights, or gradients so large that training diverges."
    ),
    fix="Standardize the target with the mean and standard deviation of the training rows, and undo it in predictions.",
    reference="SPEC F",
)


def unscaled_target(subject: Subject) -> Iterator[Finding]:
    """A target of real numbers that the last layer does not reach soon from where it starts."""
    start = _start(subject)
    if start is None or len(start.wanted) < _FEW_ROWS:
        return
    spread = start.wanted.std(0, correction=0)
    counted = spread > 0
    if not bool(counted.any()):
        return
    left = start.wanted - start.given
    # The lesser of two: a network may start near a far target, and a wild start is no matter of the target's.
    gap = torch.minimum(left.mean(0).abs(), start.wanted.mean(0).abs())
    large = counted & (torch.minimum(spread, left.std(0, correction=0)) >= LARGE)
    small = bool((spread[counted] <= SMALL).all())
    away = counted & (gap >= NEAR) & (gap >= AWAY * spread)
    far = away & (gap >= FAR * spread)
    if not (small or bool(large.any()) or bool(away.any())):
        return
    worst = int((spread if bool(large.any()) else gap / spread.where(counted, torch.inf)).argmax())
    numbers = {
        "mean": float(start.target.mean(0)[worst]),
        "standard_deviation": float(start.target.std(0, correction=0)[worst]),
        "output_mean": float(start.output.mean(0)[worst]),
        "output_standard_deviation": float(start.output.std(0, correction=0)[worst]),
    }
    where = "the target" if start.target.shape[1] == 1 else f"the target's column {worst}"
    yield UNSCALED_TARGET.found(
        where,
        f"its mean is {numbers['mean']:.4g} and its standard deviation {numbers['standard_deviation']:.3g} on "
        f"{len(start.target)} rows; the network's first output has mean {numbers['output_mean']:.3g} and standard "
        f"deviation {numbers['output_standard_deviation']:.3g}{start.units}.",
        numbers=numbers,
        severity=None if small or bool(large.any()) or bool(far.any()) else "note",
        fix=_fix(numbers, only_far=not small and not bool(large.any())),
        tried=_tried(subject, start),
    )


def with_standardized_target(subject: Subject) -> Subject | None:
    """The same with the target at mean 0 and standard deviation 1; ``None`` if that is no matter here.

    For trying what something else does, apart from the target's scale.
    """
    if not any(unscaled_target(subject)) or subject.target is None:
        return None
    target, over = subject.target, 0 if subject.target.dim() == 2 else None
    mean, std = target.mean(over), target.std(over)
    return dataclasses.replace(subject, target=(target - mean) / std.where(std > 0, 1.0), shared={})


def _fix(numbers: dict[str, float], *, only_far: bool) -> str:
    mean, std = f"{numbers['mean']:.4g}", f"{numbers['standard_deviation']:.3g}"
    if only_far:
        return (
            f"Subtract the training rows' mean from the target (here {mean}) and add it to predictions; or start the "
            f"last layer's bias there."
        )
    return (
        f"Standardize the target with the training rows' figures, here (y − {mean}) / {std}, and undo it in "
        f"predictions."
    )


@dataclass(frozen=True)
class _Start:
    """Target and first output beside each other, one column per output.

    Attributes:
        target, output: in the target's units, shape (rows, k), float64.
        wanted, given: the same in units of what the last layer puts out.
        units: how that differs, as the end of a sentence.
    """

    target: Tensor
    output: Tensor
    wanted: Tensor
    given: Tensor
    units: str


def _start(subject: Subject) -> _Start | None:
    """``None`` unless the target is real numbers that the output is compared with by their difference."""
    made, target = subject.training_pass, subject.target
    raw = made.raw
    if raw is None or target is None or target.numel() == 0 or not raw.is_floating_point():
        return None
    if not target.is_floating_point() or not bool(target.isfinite().all()) or not bool(raw.isfinite().all()):
        return None
    output = _prediction(subject.loss, raw.detach(), target)
    if output is None:
        return None
    scale = _gain(made, raw)
    if scale is None:
        return None
    columns = target.double().reshape(-1, target.shape[-1] if target.dim() == 2 else 1)
    outputs = output.double().reshape(columns.shape)
    gain, offset = scale
    if gain.numel() not in (1, columns.shape[1]):
        return None
    units = "" if scale is _AS_IT_IS else f", behind a factor of {float(gain[0]):.3g} after the last layer"
    return _Start(columns, outputs, (columns - offset) / gain, (outputs - offset) / gain, units)


def _prediction(loss: Any, raw: Tensor, target: Tensor) -> Tensor | None:
    """The part of the raw output that the loss compares with the target by difference; ``None`` if there is none."""
    if isinstance(loss, Head):
        if not loss.standardizes:
            return None
        try:
            mean = loss.distribution(raw.double()).mean
        except Exception:
            return None
        return mean if mean.shape == target.shape and bool(mean.isfinite().all()) else None
    if not callable(loss):
        return None
    # All of it; or, of a location and a scale, the first of the two.
    part = raw if raw.numel() == target.numel() else raw[..., 0] if raw.dim() else raw
    if part.numel() == target.numel() and _compares_by_difference(loss, raw, part, target):
        return part
    return None


def _compares_by_difference(loss: Any, raw: Tensor, part: Tensor, target: Tensor) -> bool:
    """Whether the loss stays when this part of the output and the target move together, and changes when one does.

    This holds of squared, absolute and Huber errors and the Gaussian likelihood, and of no loss of classes or rates.
    """
    compute = loss_of(own_copy(loss))
    raw, target, whole = raw.double(), target.double(), part is raw
    step = max(1.0, float(target.std())) if target.numel() > 1 else 1.0
    moved = raw.clone()
    (moved if whole else moved[..., 0]).add_(step)
    try:
        with warnings.catch_warnings(), torch.no_grad(), kept_random_state():
            warnings.simplefilter("ignore")
            here, together, apart = (
                float(compute(given, wanted))
                for given, wanted in ((raw, target), (moved, target + step), (moved, target))
            )
    except Exception:
        return False
    return abs(together - here) <= 1e-3 * abs(apart - here) and abs(apart - here) > 0


#: A factor of 1 and an offset of 0.
_AS_IT_IS = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def _gain(made: Pass, raw: Tensor) -> tuple[Tensor, Tensor] | None:
    """By which factor and offset the output follows from what the last layer with weights puts out.

    ``None`` where it does not follow by a factor, as behind a sigmoid or an exponential.
    """
    last = next((each for each in reversed(made.of_network) if each.returned and _numbers(each) == raw.numel()), None)
    layers = [] if last is None else [each for each in (last, *last.ancestors()) if each.role == "weight"]
    if last is None or not layers or layers[0] is last or _numbers(layers[0]) != raw.numel():
        return _AS_IT_IS
    between = [last, *(each for each in last.ancestors() if each.index > layers[0].index)]
    curved = [each for each in between if each.role in ("activation", "link") or each.name in _CURVED]
    if curved:
        return _AS_IT_IS if all(each.name in _IDENTITY_ABOVE for each in curved) else None
    assert layers[0].output is not None
    return _line(layers[0].output.double(), raw.double())


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of every column of y over x, if it is a line, and another one than y = x."""
    width = y.shape[-1] if y.dim() > 1 else 1
    x, y = x.reshape(-1, width), y.reshape(-1, width)
    from_mean, level = x - x.mean(0), y.mean(0)
    gain = (from_mean * (y - level)).mean(0) / from_mean.square().mean(0)
    offset = level - gain * x.mean(0)
    missed = (y - gain * x - offset).square().mean(0) > 1e-6 * (y - level).square().mean(0)
    same = bool(((gain - 1).abs() < 1e-3).all() and (offset.abs() < 1e-3).all())
    return _AS_IT_IS if same or bool((missed | (gain == 0) | gain.isnan()).any()) else (gain, offset)


def _numbers(operation: Operation) -> int:
    return 0 if operation.output is None else operation.output.numel()


class _InUnits(nn.Module):
    """A network whose output is scaled and shifted."""

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, *features: Any, **named: Any) -> Tensor:
        raw: Tensor = self.network(*features, **named)
        return raw * self.scale.to(raw) + self.shift.to(raw)


def _tried(subject: Subject, start: _Start) -> str | None:
    """What it does to give the output the target's mean and spread, which is the same as to standardize the target."""
    made = subject.training_pass
    if made.raw is None or subject.target is None or made.raw.shape != subject.target.shape:
        return None
    if made.failure or start.units:
        return None
    shape = (-1,) if subject.target.dim() == 2 else (1,)
    scale, shift = start.target.std(0, correction=0).reshape(shape), start.target.mean(0).reshape(shape)
    few, rows = with_few_rows(subject)
    return compare(
        few,
        lambda: (_InUnits(copy_of(subject.network), scale, shift), subject.loss),
        fix=f"with the target standardized (losses in its own units){rows}",
    )


FAULTS: tuple[Fault, ...] = (UNSCALED_TARGET,)
CHECKS: tuple[Check, ...] = (unscaled_target,)
