"""How good predictions are: the likelihood first, then figures that people read more easily (SPEC D5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk
from torch import Tensor

from lastlayer.heads import ConstantScaleHead, Head, MultiLabel
from lastlayer.preprocessing.target_coding import ClassCoding, QuantityCoding, TargetCoding


def score(
    head: Head, coding: TargetCoding, raw: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None
) -> dict[str, float]:
    """Every figure that fits the target, in the target's own units.

    Always ``nll``, the mean negative log-likelihood in nats: for classes the log-loss, for labels the sum over a row's
    labels, for quantities that of a density in the target's units.

    Args:
        head: what turns ``raw`` into a likelihood.
        coding: how ``target`` was coded.
        raw: shape (n, head.raw_size).
        target: coded, as ``coding.encode`` gives it.
        weight: one per row.
    """
    nll = head.negative_log_likelihood(raw.double(), target).numpy()
    result = {"nll": float(np.average(nll, weights=weight))}
    if isinstance(coding, QuantityCoding) and isinstance(head, ConstantScaleHead):
        result["nll"] += math.log(coding.scale)
        centre = head.location(raw.double()).numpy()
        return result | _quantity(coding.decode(centre), coding.decode(target.numpy()), weight)
    probability = head.parameters(raw.double())["probability"].numpy()
    if isinstance(coding, ClassCoding):
        return result | _classes(probability, target.numpy(), coding, weight)
    return result | _labels(probability, target.numpy(), weight)


def headline(head: Head) -> str:
    """The one figure beside the loss that people read while training: a key of :func:`score`."""
    if isinstance(head, MultiLabel):
        return "label_accuracy"
    return "accuracy" if head.over_classes else "rmse"


def headline_value(head: Head, coding: TargetCoding, raw: Tensor, target: Tensor) -> float:
    """The headline alone, cheap enough for every epoch."""
    if isinstance(coding, QuantityCoding) and isinstance(head, ConstantScaleHead):
        return float((head.location(raw) - target).double().square().mean().sqrt()) * coding.scale
    probability = head.parameters(raw)["probability"]
    if isinstance(head, MultiLabel):
        return float(((probability > 0.5) == (target > 0.5)).double().mean())
    chosen = probability.argmax(-1) if probability.dim() > target.dim() else (probability > 0.5).to(target.dtype)
    return float((chosen == target).double().mean())


def _quantity(
    predicted: NDArray[np.float64], actual: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> dict[str, float]:
    squared = sk.mean_squared_error(actual, predicted, sample_weight=weight)
    return {
        "rmse": math.sqrt(squared),
        "mae": float(sk.mean_absolute_error(actual, predicted, sample_weight=weight)),
        # Undefined for a single row or a constant target.
        "r2": float(sk.r2_score(actual, predicted, sample_weight=weight)) if np.ptp(actual) > 0 else math.nan,
    }


def _classes(
    probability: NDArray[np.float64],
    index: NDArray[np.int64],
    coding: ClassCoding,
    weight: NDArray[np.float64] | None,
) -> dict[str, float]:
    if probability.ndim == 1:
        probability = np.stack([1.0 - probability, probability], axis=1)
    chosen = probability.argmax(axis=1)
    index = index.astype(np.int64)
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
