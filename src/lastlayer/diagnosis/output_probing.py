"""What an output can be whose making was not seen, told from what the network gives for extreme inputs and weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.copies import copy_of, kept_random_state
from lastlayer.diagnosis.spans import UNIT, Span
from lastlayer.diagnosis.subject import Features, Subject, call

# Factors that drive a sigmoid or a tanh to its ends, through a network that divides by what it is given as well: those
# of the inputs, then those of the last layer's parameters.
_FACTORS = (1.0, -1.0, 30.0, -30.0, 1000.0, -1000.0)
# How near to an end of its range a saturated output comes.
_NEAR = 0.02


def probed_span(subject: Subject) -> Span | None:
    """Where the network's output stays, whatever goes in: from 0 to 1, from −1 to 1, or from 0 up; else ``None``.

    Numerics: on copies in evaluation mode; what is not finite does not count.
    """
    raw = subject.training_pass.raw
    if raw is None or raw.numel() == 0 or not raw.is_floating_point():
        return None
    with torch.no_grad(), warnings.catch_warnings(), kept_random_state():
        warnings.simplefilter("ignore")
        try:
            outputs = list(_outputs(subject))
        except Exception:
            return None
    if not outputs:
        return None
    values = torch.cat(outputs)
    low, high = float(values.min()), float(values.max())
    for span in (UNIT, Span(-1.0, 1.0)):
        if span.low <= low <= span.low + _NEAR and span.high - _NEAR <= high <= span.high:
            return span
    return Span(low=0.0) if low == 0.0 < high else None


def _outputs(subject: Subject) -> Iterator[Tensor]:
    for factor in _FACTORS:
        network = copy_of(subject.network).eval()
        yield from _finite(call(network, _scaled(subject.features, factor)))
    for factor in _FACTORS:
        network = copy_of(subject.network).eval()
        for parameter in _last(network):
            parameter.mul_(factor)
        yield from _finite(call(network, subject.features))


def _finite(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        known = output.detach().double().flatten()
        known = known[known.isfinite()]
        if known.numel():
            yield known


def _scaled(features: Features, factor: float) -> Any:
    if isinstance(features, Tensor):
        return features * factor if features.is_floating_point() else features
    if isinstance(features, dict):
        return {name: _scaled(value, factor) for name, value in features.items()}
    return tuple(_scaled(value, factor) for value in features) if isinstance(features, tuple) else features


def _last(network: nn.Module) -> list[nn.Parameter]:
    """The last matrix of weights, and what comes after it."""
    parameters = list(network.parameters())
    matrices = [place for place, parameter in enumerate(parameters) if parameter.dim() > 1]
    return parameters[matrices[-1] :] if matrices else []
