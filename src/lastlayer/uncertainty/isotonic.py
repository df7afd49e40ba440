"""Isotonic calibration: a rising staircase from predicted probability to what was observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from lastlayer.checks import DomainError, InputError, ShapeError, check_floating, check_same_shape, shape_text
from lastlayer.evaluation.reduction import hide_masked
from lastlayer.uncertainty.state import State
from lastlayer.uncertainty.weighting import checked_weight


@dataclass(frozen=True)
class Isotonic(State):
    """Probabilities through a rising, piecewise linear map: one for all, for each label, or for each class.

    Attributes:
        predicted, observed: the corners of every map: what was predicted, ascending, and what to say instead. Before
            the first corner and after the last the map is level.
        kind: ``"labels"``: each probability for itself; ``"classes"``: the last axis holds a distribution, whose parts
            are mapped and divided by their sum, and are equal where that is 0.

    Raises:
        DomainError: if the corners do not ascend within [0, 1], or the kind is neither.

    Reference: B. Zadrozny, C. Elkan, Transforming classifier scores into accurate multiclass probability estimates,
    KDD (2002).
    """

    predicted: tuple[tuple[float, ...], ...]
    observed: tuple[tuple[float, ...], ...]
    kind: str
    name: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        if self.kind not in ("labels", "classes"):
            raise DomainError(f"Isotonic: the kind is {self.kind!r}; expected 'labels' or 'classes'.")
        if not self.predicted or len(self.predicted) != len(self.observed):
            raise DomainError(
                "Isotonic: expected as many lists of observed corners as of predicted ones, at least one."
            )
        for predicted, observed in zip(self.predicted, self.observed, strict=True):
            x, y = np.asarray(predicted), np.asarray(observed)
            rising = x.shape == y.shape and x.size > 0 and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
            if not (rising and (x >= 0).all() and (x <= 1).all() and (y >= 0).all() and (y <= 1).all()):
                raise DomainError("Isotonic: corners must ascend in [0, 1], and have a predicted and an observed side.")

    def __call__(self, probability: Tensor) -> Tensor:
        """The probabilities to use instead: same shape, dtype and device; without a gradient.

        Raises:
            KindError: if the probabilities are not floating point.
            ShapeError: if there is not one map for each element of the last axis.
        """
        check_floating(probability, what="probability")
        count = len(self.predicted)
        if count > 1 and (probability.dim() == 0 or probability.shape[-1] != count):
            raise ShapeError(f"probability has shape {shape_text(probability)}; expected (..., {count}).")
        given = probability.detach().double().cpu().numpy()
        columns = given.reshape(-1, count)
        mapped = np.empty_like(columns)
        for k, (predicted, observed) in enumerate(zip(self.predicted, self.observed, strict=True)):
            mapped[:, k] = np.interp(columns[:, k], predicted, observed)
        if self.kind == "classes":
            total = mapped.sum(axis=1, keepdims=True)
            mapped = np.where(total > 0, mapped / np.where(total > 0, total, 1.0), 1.0 / count)
        # NaN stays NaN: what was not predicted is not calibrated.
        return torch.from_numpy(mapped.reshape(given.shape)).to(probability.device, probability.dtype)


def fit_isotonic_labels(
    probability: Tensor, target: Tensor, *, per_label: bool = False, sample_weight: Tensor | None = None
) -> Isotonic:
    """The rising map of probabilities that is nearest to held-out labels: of two classes, or of several labels.

    Domain: probabilities in [0, 1]; targets 0, 1 or a probability in between.

    Formula: least ``Σ w (y − g(p))²`` over rising g (scikit-learn's ``IsotonicRegression``), straight between the
    predictions seen. With n rows it is then held within ``[1/(n + 2), (n + 1)/(n + 2)]``: n rows rule nothing out, and
    no likelihood becomes 0.

    Shapes: probability and target of one shape; with ``per_label`` one map for each element of the last axis, else one
    for all. ``sample_weight`` of that shape or of its leading axes; n is then the effective number of rows.

    Special cases: a target of one class gives a level map. With few rows (below about 1000) it overfits: prefer
    :func:`fit_label_temperature`.

    Raises:
        KindError: if the probabilities are not floating point.
        ShapeError: if the shapes do not fit.
        InputError: if there is no row, or all weights (of a label) are zero.
        DomainError: if a probability or target lies outside [0, 1], or a weight is negative, infinite or NaN.

    Example:
        >>> fit = fit_isotonic_labels(torch.tensor([0.1, 0.4, 0.6]), torch.tensor([0.0, 0.5, 1.0]))
        >>> fit(torch.tensor([0.1, 0.5, 0.9]))
        tensor([0.2000, 0.6500, 0.8000])

    Reference: B. Zadrozny, C. Elkan, KDD (2002).
    """
    check_same_shape(probability, target, loss="fit_isotonic_labels")
    weight = checked_weight(sample_weight, probability, what="fit_isotonic_labels")
    _check_probability(probability)
    target = hide_masked(target.double(), weight)
    _check_probability(target)
    if per_label and probability.dim() == 0:
        raise ShapeError("probability has shape (); expected (..., labels) for one map per label.")
    width = probability.shape[-1] if per_label else 1
    return _fit(probability.reshape(-1, width), target.reshape(-1, width), weight.reshape(-1, width), kind="labels")


def fit_isotonic_classes(probability: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Isotonic:
    """One rising map for each class, of one class against the rest; the mapped parts are divided by their sum.

    Domain: probabilities in [0, 1]; targets are class indices.

    Formula: for each class that of :func:`fit_isotonic_labels` on ``(p_k, 1{y = k})``, then
    ``g_k(p_k) / Σ_j g_j(p_j)``.

    Shapes: probability ``(..., classes)``, target ``(...)``, ``sample_weight`` as the targets or their leading axes.

    Special cases: the likeliest class may change. Of a class that never occurs, ``1/(n + 2)`` remains before the
    division.

    Raises:
        KindError: if the probabilities are not floating point.
        ShapeError: if the shapes do not fit.
        InputError: if there is no row, or all weights are zero.
        DomainError: if a probability lies outside [0, 1], a target is no class, or a weight negative, infinite or NaN.

    Reference: B. Zadrozny, C. Elkan, KDD (2002).
    """
    if probability.dim() == 0 or probability.shape[-1] < 2 or target.shape != probability.shape[:-1]:
        raise ShapeError(
            f"probability has shape {shape_text(probability)}, target {shape_text(target)}; expected (..., classes) "
            f"and class indices (...)."
        )
    weight = checked_weight(sample_weight, probability[..., 0], what="fit_isotonic_classes")
    _check_probability(probability)
    classes, target = probability.shape[-1], hide_masked(target, weight)
    if not bool(((target >= 0) & (target < classes) & (target == target.round())).all()):
        raise DomainError(f"fit_isotonic_classes: a target is no class index; expected 0 to {classes - 1}.")
    there = torch.nn.functional.one_hot(target.long().flatten(), classes)
    weights = weight.reshape(-1, 1).expand(-1, classes)
    return _fit(probability.reshape(-1, classes), there, weights, kind="classes")


def _fit(probability: Tensor, target: Tensor, weight: Tensor, *, kind: str) -> Isotonic:
    """One map for each column."""
    predicted, observed = [], []
    for p, y, w in zip(_columns(probability), _columns(target), _columns(weight), strict=True):
        if not w.any():
            raise InputError("every sample_weight of a label is 0; give each label at least one row that counts.")
        model = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        counted = w > 0
        model.fit(p[counted], y[counted], sample_weight=w[counted])
        least = 1.0 / (w.sum() ** 2 / (w**2).sum() + 2.0)
        predicted.append(tuple(map(float, model.X_thresholds_)))
        observed.append(tuple(map(float, np.clip(model.y_thresholds_, least, 1.0 - least))))
    return Isotonic(tuple(predicted), tuple(observed), kind)


def _columns(values: Tensor) -> NDArray[np.float64]:
    columns: NDArray[np.float64] = values.detach().double().cpu().numpy().T
    return columns


def _check_probability(probability: Tensor) -> None:
    check_floating(probability, what="probability")
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise DomainError("a probability lies outside [0, 1], or is NaN; expected probabilities, not logits.")
