"""lastlayer: say what your target is, and get the last layer, the loss and honest predictions.

The names below, in the order in which data flows through them; each is imported when first used, so that the command
answers before PyTorch is loaded.

=============  ====================================================================================
``losses``     every loss as function, module and formula
``heads``      a task as a likelihood: raw output to parameters, loss and gradient
``networks``   bodies for tables
``training``   one step, the loop around it, and every number in them
=============  ====================================================================================
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("lastlayer")

if TYPE_CHECKING:
    from lastlayer import heads, losses, networks, preprocessing, training
    from lastlayer.checks import LastLayerError, LastLayerWarning
    from lastlayer.estimators import Classifier, Regressor, load
    from lastlayer.heads import choose_head

_WHERE = {
    "LastLayerError": "lastlayer.checks",
    "LastLayerWarning": "lastlayer.checks",
    "choose_head": "lastlayer.heads",
    "Classifier": "lastlayer.estimators",
    "Regressor": "lastlayer.estimators",
    "load": "lastlayer.estimators",
}
_ROOMS = ("heads", "losses", "networks", "preprocessing", "training")

__all__ = [
    "Classifier",
    "LastLayerError",
    "LastLayerWarning",
    "Regressor",
    "choose_head",
    "heads",
    "load",
    "losses",
    "networks",
    "preprocessing",
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
