"""What a network has to beat: the best constant and a linear model, under the same head and judged the same way."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from torch import Tensor

from lastlayer.heads import (
    Bernoulli,
    Categorical,
    Gaussian,
    Head,
    LocationScaleHead,
    Mixture,
    MultiLabel,
    Ordinal,
    Poisson,
    StudentT,
    UnitInterval,
)
from lastlayer.training import Rows

# What a linear model of images can be learned from in seconds, and little memory.
_MOST_IMAGES, _LARGEST_SIDE = 10_000, 32


@dataclass(frozen=True)
class Baseline:
    """A linear map from features to raw output; the constant predictor has no weight.

    Of images it is one of their pixels, or of the means of their blocks where they have more than 32 × 32.

    Attributes:
        head: the head that judges it, its constants refitted to this predictor.
        weight: shape (outputs, inputs), or ``None``.
        bias: shape (outputs,).
    """

    head: Head
    weight: Tensor | None
    bias: Tensor

    def raw(self, features: Tensor) -> Tensor:
        """Raw output of every row, shape (n, outputs)."""
        if self.weight is None:
            return self.bias.expand(len(features), -1)
        return torch.nn.functional.linear(_flat(features), self.weight, self.bias)


def fit_baselines(head: Head, training: Rows, held_out: Rows) -> dict[str, Baseline]:
    """``"constant"`` and ``"linear"``, learned from the training rows; their scales fitted to the held-out ones.

    The constant is the best of the head itself. The linear model is scikit-learn's, with its default penalty: logistic
    regression for classes and labels, Poisson's for counts, ridge with Gaussian noise for other quantities; a target in
    [0, 1] gets the logistic form, every row counted as both outcomes. Of images it learns from the first 10 000, which
    are in random order.
    """
    baselines = _fit(head, training)
    return {
        name: dataclasses.replace(
            baseline,
            head=baseline.head.refit(baseline.raw(held_out.features), held_out.target, held_out.ones_or_weight()),
        )
        for name, baseline in baselines.items()
    }


def refit_baselines(baselines: dict[str, Baseline], head: Head, rows: Rows) -> dict[str, Baseline]:
    """The same predictors learned from all rows, with the scales that rows held out have given them."""
    again = _fit(head, rows)
    return {name: dataclasses.replace(again[name], head=baseline.head) for name, baseline in baselines.items()}


def _fit(head: Head, rows: Rows) -> dict[str, Baseline]:
    bias = head.initial_bias(rows.target, rows.ones_or_weight())
    return {"constant": Baseline(head, None, bias), "linear": _linear(head, rows, bias)}


def _flat(features: Tensor) -> Tensor:
    """Features of one axis a row."""
    if features.dim() == 2:
        return features
    height, width = features.shape[2:]
    if max(height, width) > _LARGEST_SIDE:
        size = (min(height, _LARGEST_SIDE), min(width, _LARGEST_SIDE))
        features = torch.nn.functional.adaptive_avg_pool2d(features, size)
    return features.flatten(1)


def _linear(head: Head, training: Rows, constant: Tensor) -> Baseline:
    if training.features.dim() > 2:
        training = training.take(torch.arange(min(len(training), _MOST_IMAGES)))
    features, target = _flat(training.features).numpy(), training.target.numpy()
    weight = training.ones_or_weight().numpy()
    judge = _linear_head(head)
    coefficients = np.zeros((judge.raw_size, features.shape[1]))
    intercepts = np.zeros(judge.raw_size) if judge.raw_size != head.raw_size else constant.double().numpy().copy()
    if isinstance(judge, MultiLabel):
        for label in range(judge.labels):
            # A label that never changes keeps its constant.
            if np.ptp(target[:, label]) > 0:
                model = _logistic(features, target[:, label] > 0.5, weight)
                coefficients[label], intercepts[label] = model.coef_[0], model.intercept_[0]
    elif isinstance(judge, UnitInterval):
        both = np.concatenate([weight * target, weight * (1 - target)])
        outcome = np.repeat([True, False], len(target))
        model = _logistic(np.concatenate([features, features])[both > 0], outcome[both > 0], both[both > 0])
        coefficients, intercepts = model.coef_, model.intercept_
    elif isinstance(judge, Bernoulli):
        if np.ptp(target) > 0:
            model = _logistic(features, target, weight)
            coefficients, intercepts = model.coef_, model.intercept_
    elif isinstance(judge, Categorical):
        present = np.unique(target)
        if len(present) > 2:
            model = _logistic(features, target, weight)
            coefficients[present], intercepts[present] = model.coef_, model.intercept_
        elif len(present) == 2:
            # scikit-learn keeps one score for two classes; a softmax over (0, score) is the same model.
            model = _logistic(features, target, weight)
            coefficients[present[1]], intercepts[present] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        counts = isinstance(judge, Poisson)
        model = PoissonRegressor(max_iter=1000) if counts else Ridge()
        model.fit(features.astype(np.float64), target, sample_weight=weight)
        coefficients, intercepts = model.coef_[None], np.array([model.intercept_])
    return Baseline(
        judge, torch.tensor(coefficients, dtype=torch.float32), torch.tensor(intercepts, dtype=torch.float32)
    )


def _linear_head(head: Head) -> Head:
    """The head of the linear model that people would fit to such a target."""
    if isinstance(head, Ordinal):
        return Categorical(classes=head.classes)
    if head.over_classes or isinstance(head, UnitInterval):
        return head
    if head.whole:
        return Poisson()
    # On a target in steps its scale is bounded as the head's own, or it would win by a spike.
    if isinstance(head, (LocationScaleHead, Mixture, StudentT)):
        return Gaussian(minimum_scale=head.minimum_scale)
    return Gaussian()


def _logistic(
    features: NDArray[np.float32], target: NDArray[np.bool_] | NDArray[np.int64], weight: NDArray[np.float32]
) -> LogisticRegression:
    # Where the solver has not converged after this many steps, its answer is still the best linear one found.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=1000).fit(features.astype(np.float64), target, sample_weight=weight)
