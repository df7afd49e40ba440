"""lastlayer: say what your target is, and get the last layer, the loss and honest predictions.

The names below, in the order in which data flows through them; each is imported when first used, so that the command
answers before PyTorch is loaded.

==================  ====================================================================================
``activations``     every activation as function and module, with its derivative and facts
``losses``          every loss as function, module and formula
``heads``           a task as a likelihood: raw output to parameters, loss and gradient
``networks``        bodies for tables and images
``initialization``  where the weights of a network start, and the gains of activations
``regularization``  penalties on parameters, and which parameters they cover
``training``        one step, the loop around it, and every number in them
``gradient_check``  gradients beside differences: of functions, losses, activations and whole networks
``diagnosis``       what is wrong with a network, its loss, its data or its training, and what to do
==================  ====================================================================================
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("lastlayer")

if TYPE_CHECKING:
    from lastlayer import (
        activations,
        diagnosis,
        gradient_check,
        heads,
        initialization,
        losses,
        networks,
        preprocessing,
        regularization,
        training,
    )
    from lastlayer.checks import LastLayerError, LastLayerWarning
    from lastlayer.diagnosis import Recorder, diagnose
    from lastlayer.estimators import Classifier, Regressor, load
    from lastlayer.evaluation import evaluate_with
    from lastlayer.gradient_check import check_gradient
    from lastlayer.heads import choose_head
    from lastlayer.initialization import initialize
    from lastlayer.last_layer import explain, fused_linear

_WHERE = {
    "LastLayerError": "lastlayer.checks",
    "LastLayerWarning": "lastlayer.checks",
    "evaluate_with": "lastlayer.evaluation",
    "explain": "lastlayer.last_layer",
    "fused_linear": "lastlayer.last_layer",
    "choose_head": "lastlayer.heads",
    "initialize": "lastlayer.initialization",
    "check_gradient": "lastlayer.gradient_check",
    "Recorder": "lastlayer.diagnosis",
    "diagnose": "lastlayer.diagnosis",
    "Classifier": "lastlayer.estimators",
    "Regressor": "lastlayer.estimators",
    "load": "lastlayer.estimators",
}
_ROOMS = (
    "activations", "diagnosis", "gradient_check", "heads", "initialization", "losses", "networks", "preprocessing",
    "regularization", "training",
)  # fmt: skip

__all__ = [
    "Classifier",
    "LastLayerError",
    "LastLayerWarning",
    "Recorder",
    "Regressor",
    "activations",
    "check_gradient",
    "choose_head",
    "diagnose",
    "diagnosis",
    "evaluate_with",
    "explain",
    "fused_linear",
    "gradient_check",
    "heads",
    "initialization",
    "initialize",
    "load",
    "losses",
    "networks",
    "preprocessing",
    "regularization",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"lastlayer.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'lastlayer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
