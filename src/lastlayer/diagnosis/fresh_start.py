"""What a network does on a copy once its weights are drawn anew."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

from torch import nn

from lastlayer.activations import modules
from lastlayer.diagnosis.copies import copy_of, kept_random_state
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.layers import LayerRecord, shared_layers
from lastlayer.diagnosis.order import has_weights
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.trial import compare
from lastlayer.initialization import initialize

# Products of a forward pass. Twice forty steps, forward and back, are then seconds on one core.
_MOST_PRODUCTS = 3e8


def tried_fresh_start(subject: Subject, finding: Finding) -> Finding:
    """The finding with what ``lastlayer.initialize`` does on a copy; as it is, where that cannot be tried or told.

    It is tried once for all findings about how the network starts.
    """
    if "fresh_start" not in subject.shared:
        subject.shared["fresh_start"] = _try(subject)
    return replace(finding, tried=subject.shared["fresh_start"])


def _try(subject: Subject) -> str | None:
    layers = shared_layers(subject)
    products = sum(_products(layer) for layer in layers if has_weights(layer))
    if subject.target is None or subject.training_pass.value is None or products > _MOST_PRODUCTS:
        return None
    called = {layer.name for layer in layers if layer.role == "activation" and layer.hidden}
    started = _started(subject.network, None)
    if started is None and len(called) == 1 and called <= set(modules()):
        # Called as a function, where no module shows it.
        started = _started(subject.network, called.pop())
    if started is None:
        return None
    return compare(subject, lambda: (started, subject.loss), fix="started by lastlayer.initialize")


def _started(network: nn.Module, activation: str | None) -> nn.Module | None:
    """A copy that was started; ``None`` if some of its layers would be left as they are, or doubts remain."""
    copied = copy_of(network)
    with kept_random_state(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            initialize(copied, activation)
        except Exception:
            return None
    return copied


def _products(layer: LayerRecord) -> float:
    """How often its weights are used, all together."""
    return sum(math.prod(layer.shape) / layer.units * math.prod(each.shape) for each in layer.parameters)
