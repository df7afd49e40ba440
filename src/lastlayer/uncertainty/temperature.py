"""Temperature scaling: logits divided by one number, learned on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, check_floating, check_same_shape, shape_text
from lastlayer.evaluation.reduction import hide_masked
from lastlayer.uncertainty.state import State
from lastlayer.uncertainty.weighting import checked_weight

# 1/T times the largest difference of two scores stays between these: below, no class is told from another any more;
# above, differences a millionth as large still decide.
_LEAST, _LARGEST = 1e-3, 1e6
_STEPS = 100


@dataclass(frozen=True)
class Temperature(State):
    """Logits divided by a temperature: above 1 it takes confidence away, below 1 it adds some.

    The likeliest class stays the likeliest.

    Attributes:
        temperature: one number; or several, one for each element of the logits' last axis (labels).

    Raises:
        DomainError: if a temperature is not a positive number.

    Example:
        >>> Temperature(2.0)(torch.tensor([[4.0, 0.0]]))
        tensor([[2., 0.]])

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML (2017).
    """

    temperature: float | tuple[float, ...]
    name: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        numbers = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        if not numbers or not all(math.isfinite(number) and number > 0 for number in numbers):
            raise DomainError(f"the temperature is {self.temperature!r}; expected positive numbers.")

    def __call__(self, raw: Tensor) -> Tensor:
        """The logits to use instead; of the same shape, differentiable.

        Raises:
            ShapeError: if there is not one temperature for each label.
        """
        check_floating(raw, what="raw")
        if not isinstance(self.temperature, tuple):
            return raw / self.temperature
        if raw.dim() == 0 or raw.shape[-1] != len(self.temperature):
            raise ShapeError(f"raw has shape {shape_text(raw)}; expected (..., {len(self.temperature)}).")
        return raw / torch.tensor(self.temperature, dtype=raw.dtype, device=raw.device)


def fit_class_temperature(raw: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Temperature:
    """The temperature of softmax logits that makes held-out classes likeliest.

    Domain: raw outputs are finite numbers; targets class indices, or class probabilities of raw's shape.

    Formula: least ``Σ w (logsumexp(βs) − β s_y)`` over ``β = 1/T``, in which it is convex: Newton steps on its slope,
    held inside a bracket.

    Shapes: raw ``(..., classes)``, target ``(...)`` or ``(..., classes)``, ``sample_weight`` as the targets or their
    leading axes.

    Special cases: scaling the logits by c scales T by c. Where every row's class has the greatest score already, the
    likelihood would grow for ever as T falls to 0; the targets then count as probabilities ``(n + 1)/(n + K)`` for the
    class and ``1/(n + K)`` for each other (Laplace's rule of succession, as Platt smoothed his), n the effective
    number of rows. Where the scores are no better than chance, T is held at 1000 times the largest difference of two
    scores. Where all scores are equal, T is 1.

    Raises:
        KindError: if raw is not floating point.
        ShapeError: if the shapes do not fit.
        InputError: if there is no row, or all weights are zero.
        DomainError: if raw is not finite, a target no class, or a weight negative, infinite or NaN.

    Reference: C. Guo et al., On calibration of modern neural networks, ICML (2017); J. Platt, Probabilistic outputs
    for support vector machines (1999).
    """
    _check_raw(raw)
    if raw.dim() == 0 or raw.shape[-1] < 2:
        raise ShapeError(f"raw has shape {shape_text(raw)}; expected (..., classes), at least two.")
    score = raw.detach().double()
    weight = checked_weight(sample_weight, raw[..., 0], what="fit_class_temperature")
    probability = _class_target(score, target, weight).flatten(0, -2)
    score, weight = score.flatten(0, -2), weight.flatten()
    # Differences alone matter; of the largest score none overflows.
    score = score - score.amax(dim=-1, keepdim=True)

    def slopes(inverse: float) -> tuple[Tensor, Tensor]:
        share = torch.softmax(inverse * score, dim=-1)
        mean = (share * score).sum(dim=-1)
        return mean, (share * (score - mean.unsqueeze(-1)).square()).sum(dim=-1)

    return Temperature(_fit(score, probability, weight, slopes))


def fit_label_temperature(
    raw: Tensor, target: Tensor, *, per_label: bool = False, sample_weight: Tensor | None = None
) -> Temperature:
    """The temperature of sigmoid logits that makes held-out labels likeliest: of two classes, or of several labels.

    Domain: raw outputs are finite numbers; targets 0, 1 or a probability in between.

    Formula: least ``Σ w (softplus(βs) − β s y)`` over ``β = 1/T``, as in :func:`fit_class_temperature`.

    Shapes: raw and target of one shape; with ``per_label`` one temperature for each element of the last axis, else one
    for all. ``sample_weight`` of that shape or of its leading axes.

    Special cases: those of :func:`fit_class_temperature`, with K = 2.

    Raises:
        KindError: if raw is not floating point.
        ShapeError: if the shapes do not fit.
        InputError: if there is no row, or all weights (of a label) are zero.
        DomainError: if raw is not finite, a target not in [0, 1], or a weight negative, infinite or NaN.

    Reference: C. Guo et al., On calibration of modern neural networks, ICML (2017).
    """
    _check_raw(raw)
    check_same_shape(raw, target, loss="fit_label_temperature")
    weight = checked_weight(sample_weight, raw, what="fit_label_temperature")
    score, probability = raw.detach().double(), hide_masked(target.detach().double(), weight)
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise DomainError("fit_label_temperature: a target lies outside [0, 1]; expected 0, 1 or a probability.")
    if not per_label:
        return Temperature(_fit_label(score.flatten(), probability.flatten(), weight.flatten()))
    if raw.dim() == 0:
        raise ShapeError("raw has shape (); expected (..., labels) for one temperature per label.")
    columns = (part.reshape(-1, raw.shape[-1]).unbind(dim=-1) for part in (score, probability, weight))
    return Temperature(tuple(_fit_label(*column) for column in zip(*columns, strict=True)))


def _fit_label(score: Tensor, probability: Tensor, weight: Tensor) -> float:
    """Of one label: as the two classes of scores ``(−s/2, s/2)``, which the sigmoid is the softmax of."""
    both = torch.stack([-0.5 * score, 0.5 * score], dim=-1)

    def slopes(inverse: float) -> tuple[Tensor, Tensor]:
        share = torch.sigmoid(inverse * score)
        return (share - 0.5) * score, share * (1.0 - share) * score.square()

    weight = checked_weight(weight, score, what="fit_label_temperature")
    return _fit(both, torch.stack([1.0 - probability, probability], dim=-1), weight, slopes)


def _fit(score: Tensor, probability: Tensor, weight: Tensor, slopes: Callable[[float], tuple[Tensor, Tensor]]) -> float:
    """The temperature; ``slopes`` of ``1/T`` gives each row's expected score under the prediction, and its variance."""
    counted = weight > 0
    largest = float((score.amax(dim=-1) - score.amin(dim=-1))[counted].max())
    if largest == 0.0:
        return 1.0
    if not bool(((score.amax(dim=-1, keepdim=True) > score) & (probability > 0))[counted].any()):
        rows = float(weight.sum().square() / weight.square().sum())
        smooth = rows + score.shape[-1]
        probability = (rows * probability + 1.0) / smooth
    aim = (probability * score).sum(dim=-1)
    weight = weight / weight.sum()

    def slope(inverse: float) -> tuple[float, float]:
        mean, variance = slopes(inverse)
        return float((weight * (mean - aim)).sum()), float((weight * variance).sum())

    return 1.0 / _root(slope, _LEAST / largest, _LARGEST / largest, 1.0 / largest)


def _root(slope: Callable[[float], tuple[float, float]], low: float, high: float, start: float) -> float:
    """Where an increasing slope is zero: Newton's steps, and the bracket's geometric middle where one leaves it."""
    if slope(low)[0] >= 0:
        return low
    if slope(high)[0] <= 0:
        return high
    point = start
    for _ in range(_STEPS):
        value, derivative = slope(point)
        low, high = (point, high) if value < 0 else (low, point)
        step = point - value / derivative if derivative > 0 else math.inf
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - point) <= 1e-14 * point:
            return following
        point = following
    return point


def _check_raw(raw: Tensor) -> None:
    check_floating(raw, what="raw")
    if not bool(raw.isfinite().all()):
        raise DomainError("raw holds an infinite or NaN value; expected finite logits.")


def _class_target(score: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Targets as probabilities of every class; of weight 0 any."""
    classes = score.shape[-1]
    if target.shape == score.shape and target.is_floating_point():
        probability = hide_masked(target.detach().double(), weight)
        total = probability.sum(dim=-1)
        if not bool((probability >= 0).all() & (((total - 1.0).abs() < 1e-4) | (weight == 0)).all()):
            raise DomainError("fit_class_temperature: a target is no probability vector; expected sums of 1.")
        return probability
    if target.shape != score.shape[:-1]:
        raise ShapeError(
            f"fit_class_temperature: raw has shape {shape_text(score)}, target {shape_text(target)}; expected class "
            f"indices of shape {tuple(score.shape[:-1])}, or probabilities of raw's shape."
        )
    target = hide_masked(target, weight)
    if not bool(((target >= 0) & (target < classes) & (target == target.round())).all()):
        raise DomainError(f"fit_class_temperature: a target is no class index; expected 0 to {classes - 1}.")
    return F.one_hot(target.long(), classes).double()
