"""How good predictions are: the likelihood first, then figures that people read more easily (SPEC D5)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torch import Tensor

from lastlayer.distributions import Distribution
from lastlayer.heads import Head, MultiLabel
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding, TargetCoding
from lastlayer.uncertainty import (
    brier_score,
    class_probabilities,
    coverage,
    expected_calibration_error,
    mean_crps,
    mean_nll,
    mean_width,
)

#: The central interval whose coverage and width stand among the figures of a quantity.
INTERVAL = 0.9


def score(
    distribution: Distribution,
    coding: TargetCoding,
    target: Tensor,
    weight: NDArray[np.float64] | None = None,
    *,
    chosen: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """Every figure that fits the target, in the target's own units.

    Always ``nll``, the mean negative log-likelihood in nats: for classes the log-loss, for labels the sum over a row's
    labels, for quantities that of a density in the target's units.

    Args:
        distribution: what was predicted, shape (n,), or (n, labels).
        coding: what kind of target it is.
        target: in the distribution's units, shape (n,), or (n, labels).
        weight: one per row; a row of weight 0 is left out.
        chosen: the classes decided for, where that is not the likeliest one.
    """
    if weight is not None and not (weight > 0).all():
        # What does not count must not say which classes there are, or how far values lie apart.
        counted = torch.from_numpy(np.flatnonzero(weight > 0))
        distribution, target, weight = distribution[counted], target[counted], weight[counted.numpy()]
        chosen = None if chosen is None else chosen[counted.numpy()]
    each = None if weight is None else torch.from_numpy(np.asarray(weight, dtype=np.float64))
    if isinstance(coding, LabelCoding):
        # A row counts once, with the sum over its labels.
        nll = -distribution.log_prob(target.double()).sum(-1).numpy()
        probability = class_probabilities(distribution)[..., 1].numpy()
        return {"nll": float(np.average(nll, weights=weight))} | _labels(probability, target.numpy(), weight)
    result = {"nll": float(mean_nll(distribution, target.double(), sample_weight=each))}
    if isinstance(coding, QuantityCoding):
        return result | _quantity(distribution, target.double(), each)
    index = target.numpy().astype(np.int64)
    figures = _classes(class_probabilities(distribution).numpy(), index, coding, weight, chosen)
    return (
        result
        | figures
        | {
            "brier": float(brier_score(distribution, target, sample_weight=each)),
            "ece": float(expected_calibration_error(distribution, target, sample_weight=each)),
        }
    )


def headline(head: Head) -> str:
    """The one figure beside the loss that people read while training: a key of :func:`score`."""
    if isinstance(head, MultiLabel):
        return "label_accuracy"
    return "accuracy" if head.over_classes else "rmse"


def headline_value(head: Head, coding: TargetCoding, raw: Tensor, target: Tensor) -> float:
    """The headline alone, cheap enough for every epoch; of several members along a first axis their mean's."""
    several = raw.dim() > target.dim() + (0 if isinstance(head, MultiLabel) else 1)
    if isinstance(coding, QuantityCoding):
        mean = head.distribution(raw).mean
        mean = mean.mean(0) if several else mean
        return float((mean - target).double().square().mean().sqrt()) * coding.scale
    probability = class_probabilities(head.distribution(raw))
    probability = probability.mean(0) if several else probability
    return float((probability.argmax(-1) == target).double().mean())


def _quantity(distribution: Distribution, actual: Tensor, weight: Tensor | None) -> dict[str, float]:
    each = None if weight is None else weight.numpy()
    values, mean, median = actual.numpy(), distribution.mean.numpy(), distribution.median.numpy()
    known = np.isfinite(mean).all()
    return {
        "crps": float(mean_crps(distribution, actual, sample_weight=weight)),
        "rmse": math.sqrt(sk.mean_squared_error(values, mean, sample_weight=each)) if known else math.nan,
        "mae": float(sk.mean_absolute_error(values, median, sample_weight=each)),
        # Undefined for a single row or a constant target.
        "r2": float(sk.r2_score(values, mean, sample_weight=each)) if known and np.ptp(values) > 0 else math.nan,
        "coverage_90": float(coverage(distribution, actual, INTERVAL, sample_weight=weight)),
        "width_90": float(mean_width(distribution, INTERVAL, sample_weight=weight)),
    }


def _classes(
    probability: NDArray[np.float64],
    index: NDArray[np.int64],
    coding: ClassCoding,
    weight: NDArray[np.float64] | None,
    chosen: NDArray[np.int64] | None,
) -> dict[str, float]:
    chosen = probability.argmax(axis=1) if chosen is None else chosen
    result = {
        "accuracy": float(sk.accuracy_score(index, chosen, sample_weight=weight)),
        "balanced_accuracy": float(_balanced_accuracy(index, chosen, weight)),
    }
    present = np.unique(index)
    if len(present) == len(coding.classes):
        if len(present) == 2:
            result["roc_auc"] = float(sk.roc_auc_score(index, probability[:, 1], sample_weight=weight))
        else:
            normalized = probability / probability.sum(axis=1, keepdims=True)
            # scikit-learn takes weights here for one class against the rest only.
            result["roc_auc"] = float(sk.roc_auc_score(index, normalized, multi_class="ovr", sample_weight=weight))
    return result


def _balanced_accuracy(
    actual: NDArray[np.int64], chosen: NDArray[np.int64], weight: NDArray[np.float64] | None
) -> float:
    """Mean recall over the classes that occur (scikit-learn's own warns where a prediction never occurs)."""
    return float(sk.recall_score(actual, chosen, labels=np.unique(actual), average="macro", sample_weight=weight))


def _labels(
    probability: NDArray[np.float64], actual: NDArray[np.float32], weight: NDArray[np.float64] | None
) -> dict[str, float]:
    chosen = probability > 0.5
    there = actual > 0.5
    return {
        "label_accuracy": float(np.average((chosen == there).mean(axis=1), weights=weight)),
        "subset_accuracy": float(sk.accuracy_score(there, chosen, sample_weight=weight)),
        "f1_micro": float(sk.f1_score(there, chosen, average="micro", sample_weight=weight, zero_division=0)),
    }
