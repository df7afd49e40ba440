"""Real tables and images that scikit-learn ships, a few made ones, each as training and validation rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor

Split = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def _loaded(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    features, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    return features.astype(np.float64), target


def split(features: Any, target: Any, *, seed: int = 0) -> Split:
    """A quarter to validate on; float32 features, targets as they are."""
    parts = train_test_split(features, target, test_size=0.25, random_state=seed)
    x, x_validation, y, y_validation = (torch.as_tensor(np.asarray(part)) for part in parts)
    return (x.float(), y), (x_validation.float(), y_validation)


def standardized(parts: Split) -> Split:
    """Columns to mean 0 and standard deviation 1 by the training rows."""
    (x, y), (x_validation, y_validation) = parts
    mean, scale = x.mean(0), x.std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((x - mean) / scale, y), ((x_validation - mean) / scale, y_validation)


def digits() -> Split:
    """1797 images of ten digits as 64 standardized columns; class indices."""
    features, target = _loaded("digits")
    return standardized(split(features, target))


def digit_images(size: int = 8) -> Split:
    """The same as images (n, 1, size, size), to mean 0 and standard deviation 1 overall."""
    features, target = _loaded("digits")
    images = (features.reshape(-1, 1, 8, 8) - features.mean()) / features.std()
    parts = split(images, target)
    if size == 8:
        return parts
    return tuple((torch.nn.functional.interpolate(x, size=(size, size)), y) for x, y in parts)  # type: ignore[return-value]


def tumors() -> Split:
    """569 tumors, 30 standardized columns; malignant or not as 0.0 and 1.0."""
    features, target = _loaded("breast_cancer")
    return standardized(split(features, target.astype(np.float32)))


def wines() -> Split:
    """178 wines, 13 standardized columns; three classes."""
    return standardized(split(*_loaded("wine")))


def irises() -> Split:
    """150 irises, 4 standardized columns; three classes."""
    return standardized(split(*_loaded("iris")))


def diabetes() -> Split:
    """442 patients, 10 standardized columns; a real target, standardized."""
    features, target = _loaded("diabetes")
    return standardized(split(features, ((target - target.mean()) / target.std()).astype(np.float32)))


def friedman(rows: int = 1200) -> Split:
    """Friedman's first function of five of ten columns, noise of a fifth; a real target, standardized."""
    features, target = datasets.make_friedman1(rows, noise=1.0, random_state=1)
    target = ((target - target.mean()) / target.std()).astype(np.float32)
    return standardized(split(features, target))


def moons(rows: int = 1000) -> Split:
    """Two half moons; 0.0 and 1.0."""
    features, target = datasets.make_moons(rows, noise=0.2, random_state=2)
    return standardized(split(features, target.astype(np.float32)))


def counts(rows: int = 1200) -> Split:
    """Counts whose logarithmic rate is linear in three of six columns."""
    random = np.random.default_rng(3)
    features = random.normal(size=(rows, 6))
    rate = np.exp(0.8 + features[:, :3] @ np.array([0.5, -0.4, 0.3]))
    return split(features, random.poisson(rate).astype(np.float32))


def shares(rows: int = 1000) -> Split:
    """Shares in (0, 1) around a logistic function of four columns."""
    random = np.random.default_rng(4)
    features = random.normal(size=(rows, 4))
    middle = 1 / (1 + np.exp(-(features @ np.array([1.0, -0.7, 0.4, 0.0]))))
    return split(features, random.beta(8 * middle, 8 * (1 - middle)).clip(1e-4, 1 - 1e-4).astype(np.float32))


def positives(rows: int = 1000) -> Split:
    """Positive quantities, log-normal around a linear function of five columns."""
    random = np.random.default_rng(5)
    features = random.normal(size=(rows, 5))
    target = np.exp(features @ np.array([0.6, -0.3, 0.2, 0.0, 0.1]) + 0.4 * random.normal(size=rows))
    return split(features, target.astype(np.float32))


def labels(rows: int = 1000) -> Split:
    """Five labels of 20 columns, any number of them at once."""
    features, target = datasets.make_multilabel_classification(rows, n_classes=5, random_state=6)
    return standardized(split(features, target.astype(np.float32)))


def as_column(parts: Split) -> Split:
    """Targets (n,) as (n, 1)."""
    (x, y), (x_validation, y_validation) = parts
    return (x, y.unsqueeze(1)), (x_validation, y_validation.unsqueeze(1))


def with_target(parts: Split, change: Any) -> Split:
    """The same rows with the target changed by a function."""
    (x, y), (x_validation, y_validation) = parts
    return (x, change(y)), (x_validation, change(y_validation))


def with_features(parts: Split, change: Any) -> Split:
    """The same rows with the features changed by a function."""
    (x, y), (x_validation, y_validation) = parts
    return (change(x), y), (change(x_validation), y_validation)
