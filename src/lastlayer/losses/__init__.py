"""Losses: each a function, a module of the same name, and a formula with its facts.

Every loss takes the network's raw output, not probabilities: the link belongs to the loss.
"""

from lastlayer.losses.absolute_error import AbsoluteError, absolute_error
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy
from lastlayer.losses.cross_entropy import CrossEntropy, class_weights, cross_entropy
from lastlayer.losses.loss import Loss
from lastlayer.losses.squared_error import SigmoidSquaredError, SquaredError, sigmoid_squared_error, squared_error

_MODULES: tuple[type[Loss], ...] = (
    SquaredError,
    AbsoluteError,
    SigmoidSquaredError,
    BinaryCrossEntropy,
    CrossEntropy,
)


def catalog() -> dict[str, Loss]:
    """Every loss by name, with its default options: ``.facts``, ``.value``, ``.gradient``, and callable."""
    return {loss.facts.name: loss for loss in (module() for module in _MODULES)}


__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "SigmoidSquaredError",
    "SquaredError",
    "absolute_error",
    "binary_cross_entropy",
    "catalog",
    "class_weights",
    "cross_entropy",
    "sigmoid_squared_error",
    "squared_error",
]
